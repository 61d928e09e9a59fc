"""Layers of rosinality's first StyleGAN: equalised learning rate under the codebase's names, noise, resampling in a convolution.

conv = HeldConv2d(512, 256, 3, padding=1)       # conv.conv.weight_orig, conv.conv.bias
"""

from __future__ import annotations

from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gandissect_adapters.families.layers import SQRT2, EqualConv2d, EqualLinear
from gandissect_adapters.families.style.ops import shifted_mean

_STORED = "weight_orig"


class HeldConv2d(nn.Module):
    """A convolution with equalised learning rate, held as ``conv``."""

    def __init__(self, width_in: int, width_out: int, side: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = EqualConv2d(width_in, width_out, side, padding=padding, gain=SQRT2, stored=_STORED)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H', W']."""
        return cast("Tensor", self.conv(x))


class HeldLinear(nn.Module):
    """A linear map with equalised learning rate, held as ``linear``."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = EqualLinear(width_in, width_out, gain=SQRT2, stored=_STORED)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        return cast("Tensor", self.linear(x))


class NoiseInjection(nn.Module):
    """Adds noise, weighted per unit with equalised learning rate; StyleGAN2 has one weight for all units, taken as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(1, width, 1, 1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """[N, C, H, W] and [N or 1, 1, H, W] to [N, C, H, W]."""
        return x + self.weight_orig * (SQRT2 / sqrt(x.shape[1])) * noise


class FusedResample(nn.Module):
    """A convolution and a resampling by two in one: the 3x3 kernel is averaged over four shifts to 4x4, stride 2.

    Args:
        up: a transposed convolution with a weight [in, out, 3, 3]; otherwise a convolution with [out, in, 3, 3].
    """

    def __init__(self, width_in: int, width_out: int, *, up: bool) -> None:
        super().__init__()
        shape = (width_in, width_out) if up else (width_out, width_in)
        self.weight = nn.Parameter(torch.empty(*shape, 3, 3))
        self.bias = nn.Parameter(torch.empty(width_out))
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, 2H, 2W], or [N, out, H/2, W/2]."""
        kernel = shifted_mean(self.weight * (SQRT2 / sqrt(x.shape[1] * 9)))
        if self.up:
            return functional.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        return functional.conv2d(x, kernel, self.bias, stride=2, padding=1)
