"""Properties that can be measured on any image, without a network or a label.

measure(images)["brightness"]            # float32 [N]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

CLIPPED = 0.99
"""Values beyond ± this are at the end of the range."""


def _rgb(images: Tensor) -> Tensor:
    """float [N, 3, H, W] in 0..1 from [N, C, H, W] in [-1, 1]; grey is repeated."""
    unit = (images[:, :3].clamp(-1, 1) + 1) / 2
    return unit.expand(-1, 3, -1, -1) if unit.shape[1] == 1 else unit


def luminance(images: Tensor) -> Tensor:
    """Rec. 709 luma of images in [-1, 1]: float [N, 1, H, W] in 0..1."""
    weights = images.new_tensor([0.2126, 0.7152, 0.0722])
    return (_rgb(images) * weights[:, None, None]).sum(1, keepdim=True)


def gradient_energy(images: Tensor) -> Tensor:
    """Squared Sobel gradient of the luminance at each pixel, borders replicated: float [N, 1, H, W]."""
    kernel = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    kernels = torch.stack([kernel, kernel.T])[:, None]
    return F.conv2d(F.pad(luminance(images), (1, 1, 1, 1), mode="replicate"), kernels).square().sum(1, keepdim=True)


def checkerboard(images: Tensor) -> Tensor:
    """The part of an image's variation that alternates from one pixel to the next, in percent: float [N].

    Energy at the Nyquist frequency along rows or columns, where strided transposed convolutions leave their grid (Odena et
    al. 2016, Deconvolution and Checkerboard Artifacts).

    Args:
        images: float [N, C, H, W].
    """
    height, width = (size - size % 2 for size in images.shape[2:])
    even = images[..., :height, :width].double()
    even = even - even.mean((2, 3), keepdim=True)
    energy = torch.fft.fft2(even).abs().square()
    total = energy.sum((1, 2, 3)).clamp(min=1e-12)
    row, column = energy[..., height // 2, :].sum((1, 2)), energy[..., :, width // 2].sum((1, 2))
    corner = energy[..., height // 2, width // 2].sum(1)
    share: Tensor = 100 * (row + column - corner) / total
    return share


def clipping(images: Tensor) -> Tensor:
    """The part of values at either end of the range, beyond ±0.99, in percent: float [N] of images float [N, C, H, W]."""
    return 100 * (images.abs() >= CLIPPED).double().mean((1, 2, 3))


def _saturation(images: Tensor) -> Tensor:
    rgb = _rgb(images)
    return ((rgb.amax(1) - rgb.amin(1)) / rgb.amax(1).clamp(min=1e-3)).mean((1, 2))


def _edges(images: Tensor) -> Tensor:
    return gradient_energy(images).sqrt().mean((1, 2, 3))


def _symmetry(images: Tensor) -> Tensor:
    grey = luminance(images)
    return 1 - (grey - grey.flip(3)).abs().mean((1, 2, 3))


def _balance(dimension: int) -> Callable[[Tensor], Tensor]:
    """Where the light is: mean of the second half minus mean of the first, along height (2) or width (3)."""

    def balance(images: Tensor) -> Tensor:
        grey = luminance(images)
        first, second = grey.chunk(2, dimension) if grey.shape[dimension] > 1 else (grey, grey)
        return second.mean((1, 2, 3)) - first.mean((1, 2, 3))

    return balance


PROPERTIES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "brightness": lambda images: luminance(images).mean((1, 2, 3)),
        "contrast": lambda images: luminance(images).flatten(1).std(1),
        "saturation": _saturation,
        "redness": lambda images: _rgb(images)[:, 0].mean((1, 2)) - _rgb(images).mean((1, 2, 3)),
        "blueness": lambda images: _rgb(images)[:, 2].mean((1, 2)) - _rgb(images).mean((1, 2, 3)),
        "edges": _edges,
        "symmetry": _symmetry,
        "light below": _balance(2),
        "light right": _balance(3),
    }
)
"""Name -> function of float [N, C, H, W] in [-1, 1] giving float [N]; all are differentiable almost everywhere."""

COLOUR_PROPERTIES = frozenset({"saturation", "redness", "blueness"})
"""Those that are constant on grey images."""


def measure(images: Tensor) -> dict[str, Tensor]:
    """Every property of every image: name -> float32 [N]; colour properties are left out for grey images."""
    grey = images.shape[1] == 1
    return {
        name: function(images).float()
        for name, function in PROPERTIES.items()
        if not (grey and name in COLOUR_PROPERTIES)
    }
