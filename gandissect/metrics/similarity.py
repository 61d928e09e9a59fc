"""Structural similarity of pairs of images.

ssim(images, others, data_range=1.0)                     # float64 [N], images in 0..1
ms_ssim(images, others, data_range=1.0)                  # float64 [N]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.errors import UsageError

Convention = Literal["gaussian", "padded", "uniform"]
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales from fine to coarse (Wang, Simoncelli & Bovik 2003, table 1)."""
WINDOW, SIGMA, UNIFORM = 11, 1.5, 7
K1, K2 = 0.01, 0.03


def ssim(first: Tensor, second: Tensor, *, data_range: float, convention: Convention = "gaussian") -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13), mean over places and channels: float64 [N], 1 for equal images, −1 at least.

    The three conventions in use differ by up to 0.05 on one pair; the name belongs into the label.

    - "gaussian": window of 11, σ = 1.5, only where it fits into the image: the paper's.
    - "padded": the same window, images continued by reflection, so that every pixel counts.
    - "uniform": a mean over 7×7, covariances divided by 48, only where it fits.

    Args:
        first: float [N, C, H, W], black at 0: add 1 to images in [-1, 1], the luminance term means nothing below 0.
        second: ditto.
        data_range: the value of white: 255 for bytes, 2 for images in [-1, 1] with 1 added.
        convention: which of the three.

    Raises:
        UsageError: different shapes, images smaller than the window, or an unknown convention.
    """
    one, two = _pair(first, second, data_range)
    if convention not in ("gaussian", "padded", "uniform"):
        raise UsageError(f"no convention {convention!r} of SSIM; known: gaussian, padded, uniform")
    structure, luminance = _terms(one, two, data_range, convention)
    return (structure * luminance).mean((1, 2, 3))


def ms_ssim_scales(height: int, width: int) -> int:
    """How many scales an image has room for, 1 to 5: a window of 11 has to fit into the coarsest."""
    scales, side = 1, min(height, width)
    while scales < len(WEIGHTS) and side // 2 >= WINDOW:
        scales, side = scales + 1, side // 2
    return scales


def ms_ssim(first: Tensor, second: Tensor, *, data_range: float, weights: Sequence[float] | None = None) -> Tensor:
    """Multi-scale structural similarity (Wang, Simoncelli & Bovik 2003, eq. 7): float64 [N] in 0..1.

    Gaussian windows where they fit; each channel has its product over the scales, of which the mean is taken.

    Args:
        first: float [N, C, H, W], black at 0.
        second: ditto.
        data_range: as for :func:`ssim`.
        weights: of the scales, fine to coarse; the paper's five, or as many of them as the image has room for, scaled to sum 1.

    Raises:
        UsageError: different shapes, or an image too small for so many scales.
    """
    one, two = _pair(first, second, data_range)
    room = ms_ssim_scales(*one.shape[2:])
    chosen = list(WEIGHTS[:room] if weights is None else weights)
    if len(chosen) > room:
        raise UsageError(f"images of {one.shape[3]}×{one.shape[2]} have room for {room} scales, not {len(chosen)}")
    if weights is None:
        chosen = [weight / sum(chosen) for weight in chosen]
    product = torch.ones(one.shape[:2], dtype=torch.float64)
    for scale, weight in enumerate(chosen):
        structure, luminance = _terms(one, two, data_range, "gaussian")
        last = scale == len(chosen) - 1
        value = (structure * luminance if last else structure).mean((2, 3)).clamp(min=0)
        product = product * value**weight
        if not last:
            padding = [one.shape[2] % 2, one.shape[3] % 2]
            one, two = (F.avg_pool2d(part, 2, padding=padding) for part in (one, two))
    return product.mean(1)


def _pair(first: Tensor, second: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape or first.dim() != 4 or data_range <= 0:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise UsageError(f"expected two batches [N, C, H, W] of one shape and a positive range, got {shapes}")
    if min(first.shape[2:]) < WINDOW:
        raise UsageError(f"images of {first.shape[3]}×{first.shape[2]} are smaller than the window of {WINDOW}")
    return first.detach().double().cpu(), second.detach().double().cpu()


def _terms(one: Tensor, two: Tensor, data_range: float, convention: Convention) -> tuple[Tensor, Tensor]:
    """The contrast-structure and the luminance term (Wang et al. 2004, eq. 6, 9, 10) at every place: float64 [N, C, h, w]."""
    if convention == "padded":
        one, two = (F.pad(part, [WINDOW // 2] * 4, mode="reflect") for part in (one, two))
    size = UNIFORM if convention == "uniform" else WINDOW
    kernel = torch.ones(size, dtype=torch.float64) if convention == "uniform" else _gaussian()
    kernel = kernel / kernel.sum()
    products = torch.stack([one, two, one * one, two * two, one * two])
    blurred = _blurred(products.flatten(0, 2)[:, None], kernel)
    m1, m2, s1, s2, s12 = blurred.reshape(*products.shape[:3], *blurred.shape[2:])
    unbiased = size**2 / (size**2 - 1) if convention == "uniform" else 1.0
    v1, v2, v12 = (unbiased * (s - m) for s, m in ((s1, m1 * m1), (s2, m2 * m2), (s12, m1 * m2)))
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    return (2 * v12 + c2) / (v1 + v2 + c2), (2 * m1 * m2 + c1) / (m1 * m1 + m2 * m2 + c1)


def _gaussian() -> Tensor:
    places = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    return torch.exp(-(places**2) / (2 * SIGMA**2))


def _blurred(planes: Tensor, kernel: Tensor) -> Tensor:
    """Planes [M, 1, H, W] under a separable window, only where it fits."""
    down = F.conv2d(planes, kernel[None, None, :, None])
    return F.conv2d(down, kernel[None, None, None, :])
