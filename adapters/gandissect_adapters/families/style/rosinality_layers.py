"""Layers of rosinality's first StyleGAN: equalised learning rate, blur and resampling inside a convolution.

conv = EqualConv2d(512, 256, 3, padding=1)      # conv.conv.weight_orig, conv.conv.bias
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gandissect_adapters.families.style.ops import shifted_mean


def runtime_scale(weight: Tensor) -> float:
    """Equalised learning rate: sqrt(2 / fan-in), multiplied in at run time (Karras et al. 2018, section 4.1)."""
    return math.sqrt(2.0 / (weight.shape[1] * weight[0, 0].numel()))


class ScaledConv2d(nn.Module):
    """The convolution inside an ``EqualConv2d``; ``weight_orig`` is [out, in, k, k] before its run-time scale."""

    def __init__(self, width_in: int, width_out: int, side: int, padding: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(width_out, width_in, side, side))
        self.bias = nn.Parameter(torch.empty(width_out))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H', W']."""
        scale = runtime_scale(self.weight_orig)
        return functional.conv2d(x, self.weight_orig * scale, self.bias, padding=self.padding)


class EqualConv2d(nn.Module):
    """A convolution with equalised learning rate, under the codebase's name for it."""

    def __init__(self, width_in: int, width_out: int, side: int, padding: int = 0) -> None:
        super().__init__()
        self.conv = ScaledConv2d(width_in, width_out, side, padding)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H', W']."""
        return cast("Tensor", self.conv(x))


class ScaledLinear(nn.Module):
    """The linear map inside an ``EqualLinear``; ``weight_orig`` is [out, in] before its run-time scale."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.empty(width_out, width_in))
        self.bias = nn.Parameter(torch.empty(width_out))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        return functional.linear(x, self.weight_orig * runtime_scale(self.weight_orig), self.bias)


class EqualLinear(nn.Module):
    """A linear map with equalised learning rate, under the codebase's name for it."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.linear = ScaledLinear(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        return cast("Tensor", self.linear(x))


class Blur(nn.Module):
    """The 3x3 binomial filter of the file over each unit, zero padded."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(width, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        return functional.conv2d(x, cast("Tensor", self.weight), padding=1, groups=x.shape[1])


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
        scale = math.sqrt(2.0 / (x.shape[1] * 9))
        kernel = shifted_mean(self.weight * scale)
        if self.up:
            return functional.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        return functional.conv2d(x, kernel, self.bias, stride=2, padding=1)
