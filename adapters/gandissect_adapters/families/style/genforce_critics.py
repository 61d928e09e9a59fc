"""The discriminators of genforce's StyleGAN and StyleGAN2.

StyleGanCritic(widths, colours=3, group=4, hidden=512, fused=[True, False])     # images [N, 3, S, S] -> [N, 1]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gandissect_adapters.families.layers import SQRT2, EqualLinear, MinibatchStd, StoredBlur
from gandissect_adapters.families.style.ops import lrelu, resample, shifted_mean


class PooledLayer(nn.Module):
    """StyleGAN: (blurred) convolution, (halving) and activation.

    Args:
        halving: "" for none, "pooled" for averaged pixels after the convolution, "fused" for a convolution with stride 2.
        group: size of the groups of ``MinibatchStd`` before it, 0 for none.
    """

    def __init__(self, width_in: int, width_out: int, side: int = 3, *, halving: str = "", group: int = 0) -> None:
        super().__init__()
        self.mbstd = MinibatchStd(group) if group else nn.Identity()
        self.blur = StoredBlur(width_in, "kernel") if halving else nn.Identity()
        self.weight = nn.Parameter(torch.empty(width_out, width_in + bool(group), side, side))
        self.bias = nn.Parameter(torch.empty(width_out))
        self.activate = nn.LeakyReLU(0.2)
        self.halving = halving

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H', W']."""
        weight = self.weight * (SQRT2 / math.sqrt(self.weight[0].numel()))
        x = self.blur(self.mbstd(x))
        if self.halving == "fused":
            x = functional.conv2d(x, shifted_mean(weight), self.bias, stride=2, padding=1)
        else:
            x = functional.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)
            x = functional.avg_pool2d(x, 2) if self.halving else x
        return cast("Tensor", self.activate(x))


class Dense(EqualLinear):
    """A linear layer on flattened maps."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, C] to [N, out]."""
        return super().forward(x.flatten(1))


class StyleGanCritic(nn.Module):
    """The growing discriminator of StyleGAN.

    Args:
        widths: units at the full size, half of it, … and at 4 px.
        hidden: units of the layer before the last.
        fused: for each size but 4 px, halving by a convolution with stride 2.
    """

    lod: Tensor

    def __init__(self, widths: Sequence[int], *, colours: int, group: int, hidden: int, fused: Sequence[bool]) -> None:
        super().__init__()
        self.register_buffer("lod", torch.empty(()))
        self.last = len(widths) - 1
        for block, width in enumerate(widths):
            self.add_module(f"input{block}", PooledLayer(colours, width, 1))
            if block < self.last:
                halving = "fused" if fused[block] else "pooled"
                self.add_module(f"layer{2 * block}", PooledLayer(width, width))
                self.add_module(f"layer{2 * block + 1}", PooledLayer(width, widths[block + 1], halving=halving))
        end = 2 * self.last
        self.add_module(f"layer{end}", PooledLayer(widths[-1], widths[-1], group=group))
        dense = Dense(widths[-1] * 16, hidden, gain=SQRT2, activation=partial(lrelu, gain=1.0))
        self.add_module(f"layer{end + 1}", dense)
        self.add_module(f"layer{end + 2}", Dense(hidden, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] of the full size to logits [N, 1]; ``lod`` as in the generator."""
        detail = float(self.lod)
        x: Tensor | None = None
        for block in range(self.last + 1):
            if detail < block + 1:
                if x is None:
                    x = self.get_submodule(f"input{block}")(images)
                elif detail > block - 1:
                    share = detail - (block - 1)
                    x = self.get_submodule(f"input{block}")(images) * share + x * (1.0 - share)
                x = self.get_submodule(f"layer{2 * block}")(x)
                x = self.get_submodule(f"layer{2 * block + 1}")(x)
            if detail > block:
                images = functional.avg_pool2d(images, 2)
        return cast("Tensor", self.get_submodule(f"layer{2 * self.last + 2}")(x))


class DownFilter(nn.Module):
    """A filter of the file, ``kernel`` [1, 1, K, K] of sum 1, before a convolution of ``side`` with stride 2."""

    kernel: Tensor

    def __init__(self, taps: int, side: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.empty(1, 1, taps, taps))
        pad = taps + side - 3
        self.pad = (pad + 1) // 2, pad // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        return resample(x, self.kernel[0, 0], pad=self.pad)


class FilteredLayer(nn.Module):
    """StyleGAN2: (filtered) convolution, (halving) and activation.

    Args:
        taps: length of the filter where it halves the size, 0 where not.
        group: as in ``PooledLayer``.
        linear: neither bias nor activation.
    """

    def __init__(
        self, width_in: int, width_out: int, side: int = 3, *, taps: int = 0, group: int = 0, linear: bool = False
    ) -> None:
        super().__init__()
        self.mbstd = MinibatchStd(group) if group else nn.Identity()
        self.filter = DownFilter(taps, side) if taps else nn.Identity()
        self.weight = nn.Parameter(torch.empty(width_out, width_in + bool(group), side, side))
        self.bias = None if linear else nn.Parameter(torch.empty(width_out))
        self.stride, self.padding = (2, 0) if taps else (1, side // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H', W']."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        x = self.filter(self.mbstd(x))
        x = functional.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)
        return x if self.bias is None else lrelu(x)


class StyleGan2Critic(nn.Module):
    """The residual discriminator of StyleGAN2; arguments as in ``StyleGanCritic``."""

    def __init__(self, widths: Sequence[int], *, colours: int, group: int, hidden: int, taps: int) -> None:
        super().__init__()
        self.add_module("input0", FilteredLayer(colours, widths[0], 1))
        for block, (into, out) in enumerate(pairwise(widths)):
            self.add_module(f"layer{2 * block}", FilteredLayer(into, into))
            self.add_module(f"layer{2 * block + 1}", FilteredLayer(into, out, taps=taps))
            self.add_module(f"skip_layer{block}", FilteredLayer(into, out, 1, taps=taps, linear=True))
        self.blocks = len(widths) - 1
        end = 2 * self.blocks
        self.add_module(f"layer{end}", FilteredLayer(widths[-1], widths[-1], group=group))
        self.add_module(f"layer{end + 1}", Dense(widths[-1] * 16, hidden, activation=lrelu))
        self.add_module(f"layer{end + 2}", Dense(hidden, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] to logits [N, 1]."""
        x: Tensor = self.get_submodule("input0")(images)
        for block in range(self.blocks):
            y = self.get_submodule(f"layer{2 * block + 1}")(self.get_submodule(f"layer{2 * block}")(x))
            x = (y + self.get_submodule(f"skip_layer{block}")(x)) / SQRT2
        for index in range(2 * self.blocks, 2 * self.blocks + 3):
            x = self.get_submodule(f"layer{index}")(x)
        return x
