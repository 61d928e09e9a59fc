"""Layers that several families are made of; what differs between codebases is a parameter, or said where it is another formula.

conv = EqualConv2d(512, 256, 3, padding=1, gain=SQRT2)    # weight · sqrt(2 / fan_in) at run time
x = MinibatchStd(group=4)(x)                              # float32 [N, C + 1, H, W]
block = Residual("conv_block", nn.Sequential(...))        # x + conv_block(x)

References:
    Karras et al. 2018. Progressive Growing of GANs for Improved Quality, Stability, and Variation: sections 3 (minibatch standard
    deviation), 4.1 (equalised learning rate) and 4.2 (pixel normalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod, sqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = sqrt(2.0)


def pixel_norm(x: Tensor, *, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x / sqrt(mean of x² over ``dim`` + eps), second moment 1 (Karras et al. 2018, section 4.2)."""
    return x * torch.rsqrt(x.square().mean(dim, keepdim=True) + eps)


class PixelNorm(nn.Module):
    """``pixel_norm`` over dim 1 of vectors [N, D] or maps [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised tensor, of the shape of ``x``."""
        return pixel_norm(x)


class _Equalised(nn.Module):
    """A weight, and a bias where there is one, with what they are multiplied by at run time.

    Args:
        shape: of the weight.
        units: length of the bias.
        fan_in: inputs that meet in one output.
        stored: what the file calls the weight.
        scaled: the weight is multiplied by gain / sqrt(fan_in); where not, ``gain`` is left out as well.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        units: int,
        fan_in: int,
        bias: bool = True,
        rate: float = 1.0,
        gain: float = 1.0,
        scaled: bool = True,
        stored: str = "weight",
    ) -> None:
        super().__init__()
        drawn = nn.Parameter(nn.init.normal_(torch.empty(shape), std=1.0 / rate))
        self.register_parameter(stored, drawn)
        self.bias = nn.Parameter(torch.zeros(units)) if bias else None
        self.stored, self.rate = stored, rate
        self.scale = rate * (gain / sqrt(fan_in) if scaled else 1.0)

    def _weight(self) -> Tensor:
        return self.get_parameter(self.stored) * self.scale

    def _bias(self) -> Tensor | None:
        return self.bias if self.bias is None or self.rate == 1.0 else self.bias * self.rate


class EqualLinear(_Equalised):
    """A linear layer with equalised learning rate (Karras et al. 2018, section 4.1).

    weight · (rate · gain / sqrt(inputs)) and bias · rate are applied.

    Args:
        rate: the learning rate multiplier of StyleGAN's mapping networks, mostly 0.01.
        gain: on the weight alone; sqrt(2) is He's initialisation.
        scaled: False leaves ``rate`` alone, or a plain linear layer.
        stored: what the file calls the weight.
        activation: what is applied to the result, None for nothing.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        rate: float = 1.0,
        gain: float = 1.0,
        scaled: bool = True,
        stored: str = "weight",
        activation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(
            (outputs, inputs),
            units=outputs,
            fan_in=inputs,
            bias=bias,
            rate=rate,
            gain=gain,
            scaled=scaled,
            stored=stored,
        )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        y = F.linear(x, self._weight(), self._bias())
        return y if self.activation is None else self.activation(y)


class EqualConv2d(_Equalised):
    """A convolution whose weight is scaled by gain / sqrt(inputs · kernel²) at run time, its bias not.

    nashory's layers scale the input instead, by a number that no file keeps, and pytorch_GAN_zoo's the output with its bias: they
    are those families' own.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        gain: float = 1.0,
        scaled: bool = True,
        stored: str = "weight",
    ) -> None:
        shape = (outputs, inputs, kernel, kernel)
        super().__init__(
            shape, units=outputs, fan_in=prod(shape[1:]), bias=bias, gain=gain, scaled=scaled, stored=stored
        )
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H', W']."""
        return F.conv2d(x, self._weight(), self._bias(), self.stride, self.padding)


class EqualConvTranspose2d(_Equalised):
    """The layer that turns a latent into a first map; scaled by gain / sqrt(inputs), as every input meets each tap once."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, gain: float = 1.0, scaled: bool = True) -> None:
        super().__init__((inputs, outputs, kernel, kernel), units=outputs, fan_in=inputs, gain=gain, scaled=scaled)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, 1, 1] to [N, outputs, kernel, kernel]."""
        return F.conv_transpose2d(x, self._weight(), self._bias())


def minibatch_std(
    x: Tensor,
    group: int | None = 4,
    channels: int = 1,
    *,
    unbiased: bool = False,
    consecutive: bool = False,
    per_pixel: bool = False,
    whole: bool = False,
    eps: float = 1e-8,
) -> Tensor:
    """``x`` with ``channels`` maps behind that say how much the samples of a group differ (Karras et al. 2018, section 3).

    Args:
        x: [N, C, H, W].
        group: samples per group, at most N; None or 0 for the whole batch.
        channels: number of maps F; map f is about the f-th of F slices of the units, so F divides C.
        unbiased: variance over n - 1 instead of n; a group of one image then gives 0.
        consecutive: samples 0..g-1 form a group; otherwise 0, N/g, 2N/g and so on do.
        per_pixel: averaged over units alone, so that a map differs from pixel to pixel.
        whole: where ``group`` does not divide N the whole batch is one group; otherwise the next smaller divisor is taken, where
            the StyleGANs fail.

    Returns:
        [N, C + F, H, W].
    """
    n, units, height, width = x.shape
    size = min(group or n, n)
    while n % size:
        size = n if whole else size - 1
    if consecutive:
        y = x.reshape(n // size, size, channels, units // channels, height, width).transpose(0, 1)
    else:
        y = x.reshape(size, n // size, channels, units // channels, height, width)
    variance = y.var(0, correction=1 if unbiased and size > 1 else 0)  # [groups, F, C / F, H, W]
    over = (2,) if per_pixel else (2, 3, 4)
    level = (variance + eps).sqrt().mean(over, keepdim=True).squeeze(2)
    if unbiased and size == 1:
        level = torch.zeros_like(level)
    each = level.repeat_interleave(size, 0) if consecutive else level.repeat(size, 1, 1, 1)
    return torch.cat([x, each.expand(n, channels, height, width)], 1)


class MinibatchStd(nn.Module):
    """``minibatch_std`` as a layer that can be read."""

    def __init__(
        self,
        group: int | None = None,
        channels: int = 1,
        *,
        unbiased: bool = False,
        consecutive: bool = False,
        per_pixel: bool = False,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.group, self.channels = group, channels
        self.unbiased, self.consecutive, self.per_pixel, self.whole = unbiased, consecutive, per_pixel, whole

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C + channels, H, W]."""
        return minibatch_std(
            x, self.group, self.channels, unbiased=self.unbiased, consecutive=self.consecutive,
            per_pixel=self.per_pixel, whole=self.whole,
        )  # fmt: skip


class UnitMapping(nn.Module):
    """lucidrains' mapping network: latents scaled to length 1, then layers ``net`` with a learning rate multiplier alone.

    Every other mapping network scales latents to second moment 1 and weights by 1 / sqrt(fan_in) as well.

    Args:
        widths: of the latent and of what each layer gives.
    """

    def __init__(self, widths: Sequence[int], rate: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [EqualLinear(inputs, outputs, rate=rate, scaled=False), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """[N, D] to [N, W]."""
        return cast("Tensor", self.net(F.normalize(z, dim=1)))


class MirrorBlur(nn.Module):
    """The outer product of ``f`` [3] with itself, to sum 1, over maps that are mirrored at their borders; ``f`` is in the file."""

    f: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("f", torch.tensor([1.0, 2.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        kernel = torch.outer(self.f, self.f)
        each = (kernel / kernel.sum()).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), each, groups=x.shape[1])


class StoredBlur(nn.Module):
    """The 3×3 filter of the file over each unit, [C, 1, 3, 3], zero padded.

    Args:
        stored: what the file calls the filter.
    """

    def __init__(self, units: int, stored: str) -> None:
        super().__init__()
        self.stored = stored
        self.register_buffer(stored, torch.empty(units, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        return F.conv2d(x, self.get_buffer(self.stored), padding=1, groups=x.shape[1])


class LearntConstant(nn.Module):
    """The learnt 4×4 map [1, C, 4, 4] that every image starts from.

    Args:
        stored: what the file calls it.
    """

    def __init__(self, units: int, stored: str) -> None:
        super().__init__()
        self.stored = stored
        self.register_parameter(stored, nn.Parameter(torch.empty(1, units, 4, 4)))

    def forward(self, like: Tensor) -> Tensor:
        """[N, C, 4, 4] for as many images as ``like`` has rows."""
        return self.get_parameter(self.stored).repeat(len(like), 1, 1, 1)


class Residual(nn.Module):
    """x + share · body(x), [N, C, H, W] to the same (He et al. 2016, eq. 1).

    Args:
        name: what the body is called.
    """

    def __init__(self, name: str, body: nn.Module, share: float = 1.0) -> None:
        super().__init__()
        self.held, self.share = name, share
        self.add_module(name, body)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        change: Tensor = self.get_submodule(self.held)(x)
        return x + (change if self.share == 1.0 else change * self.share)


def enlarge(x: Tensor) -> Tensor:
    """[N, C, 2 H, 2 W], every pixel twice in each direction."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def fade(new: Tensor, old: Tensor, alpha: float) -> Tensor:
    """alpha · new + (1 - alpha) · old, the transition to a new resolution (Karras et al. 2018, figure 2)."""
    return alpha * new + (1.0 - alpha) * old
