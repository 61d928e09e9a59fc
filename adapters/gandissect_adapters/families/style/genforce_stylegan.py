"""The generator of genforce's StyleGAN.

mapping = MappingNetwork([512] * 9, layer="dense", rate=0.01, gain=SQRT2, after=1.0)
StyleGan(mapping, Synthesis(widths, style_width=512, colours=3, fused=[False] * len(widths)))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gandissect_adapters.families.layers import SQRT2, EqualConv2d, EqualLinear, StoredBlur, enlarge
from gandissect_adapters.families.style.ops import shifted_mean
from gandissect_adapters.families.style.style_network import MappingNetwork, StyleNetwork


class NoiseLayer(nn.Module):
    """Adds the noise map of the file, weighted per unit."""

    noise: Tensor

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.register_buffer("noise", torch.empty(1, 1, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        return x + self.noise * self.weight[:, None, None]


class InstanceNorm(nn.Module):
    """Each map of each image to mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        centred = x - x.mean((2, 3), keepdim=True)
        return centred * torch.rsqrt(centred.square().mean((2, 3), keepdim=True) + 1e-8)


class SynthesisLayer(nn.Module):
    """(Upsampled) convolution, noise, bias, activation, normalisation and style.

    Args:
        start: "const" for a learnt map, "same" for a convolution, "up" for copied pixels before it, "fused" for a transposed one.
    """

    def __init__(self, width_in: int, width_out: int, style_width: int, *, side: int, start: str) -> None:
        super().__init__()
        if start == "const":
            self.const = nn.Parameter(torch.empty(1, width_out, side, side))
        else:
            self.weight = nn.Parameter(torch.empty(width_out, width_in, 3, 3))
        self.bias = nn.Parameter(torch.empty(width_out))
        self.blur = StoredBlur(width_out, "kernel") if start in ("up", "fused") else nn.Identity()
        self.apply_noise = NoiseLayer(width_out, side)
        self.activate = nn.LeakyReLU(0.2)
        self.normalize = InstanceNorm()
        self.style = EqualLinear(style_width, width_out * 2)
        self.start = start

    def _begin(self, x: Tensor) -> Tensor:
        if self.start == "const":
            return self.const.repeat(len(x), 1, 1, 1)
        weight = self.weight * (SQRT2 / math.sqrt(self.weight[0].numel()))
        if self.start == "fused":
            kernel = 4.0 * shifted_mean(weight).transpose(0, 1)
            x = functional.conv_transpose2d(x, kernel, stride=2, padding=1)
        else:
            x = enlarge(x) if self.start == "up" else x
            x = functional.conv2d(x, weight, padding=1)
        return cast("Tensor", self.blur(x))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, in, H, W] and w [N, W] to [N, out, H', W']; the constant takes anything with N rows for x."""
        x = self.apply_noise(self._begin(x)) + self.bias[:, None, None]
        x = self.normalize(self.activate(x))
        # Karras et al. 2019, eq. 1, with the scale counted from 1.
        scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
        return cast("Tensor", x * (scale + 1.0) + shift)


class Synthesis(nn.Module):
    """Layers ``layer0``, ``layer1`` … two per resolution, and a head ``output0`` … for each.

    ``lod`` of the file, the level of detail, says how far it has grown: 0 for the full size, 1 for the resolution before it, and so
    on; between two whole numbers both heads are blended.
    """

    lod: Tensor

    def __init__(self, widths: Sequence[int], style_width: int, colours: int, fused: Sequence[bool]) -> None:
        super().__init__()
        self.register_buffer("lod", torch.empty(()))
        self.blocks = len(widths)
        for block, (into, out) in enumerate(pairwise([widths[0], *widths])):
            side = 4 << block
            start = "const" if block == 0 else "fused" if fused[block] else "up"
            first = SynthesisLayer(into, out, style_width, side=side, start=start)
            self.add_module(f"layer{2 * block}", first)
            self.add_module(f"layer{2 * block + 1}", SynthesisLayer(out, out, style_width, side=side, start="same"))
            self.add_module(f"output{block}", EqualConv2d(out, colours, 1))

    def forward(self, ws: Tensor) -> Tensor:
        """Styles [N, L, W] to images [N, 3, S, S] of the full size."""
        detail = float(self.lod)
        x = ws[:, 0]
        image: Tensor | None = None
        for block in range(self.blocks):
            left = self.blocks - 1 - block
            if detail < left + 1:
                x = self.get_submodule(f"layer{2 * block}")(x, ws[:, 2 * block])
                x = self.get_submodule(f"layer{2 * block + 1}")(x, ws[:, 2 * block + 1])
            if detail <= left - 1:
                continue
            head = self.get_submodule(f"output{block}")
            if image is None:
                image = head(x)
                continue
            image = enlarge(image)
            share = left + 1 - detail
            if share > 0.0:
                image = head(x) * share + image * (1.0 - share)
        assert image is not None
        return image


class StyleGan(StyleNetwork):
    """Mapping and synthesis.

    References:
        Karras, Laine, Aila 2019. A Style-Based Generator Architecture for Generative Adversarial Networks.
    """

    def __init__(self, mapping: MappingNetwork, synthesis: Synthesis) -> None:
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis

    @property
    def style_count(self) -> int:
        """One for each layer."""
        return 2 * self.synthesis.blocks

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, Z] to w [N, W], before truncation."""
        return cast("Tensor", self.mapping(z))

    def synthesise(self, ws: Tensor) -> Tensor:
        """Styles [N, L, W] to images [N, 3, S, S]."""
        return cast("Tensor", self.synthesis(ws))
