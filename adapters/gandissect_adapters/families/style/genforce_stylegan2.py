"""The generator of genforce's StyleGAN2 with image skips.

StyleGan2(MappingNetwork([512] * 9, layer="dense", rate=0.01), Synthesis(widths, style_width=512, colours=3, taps=4))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from gandissect_adapters.families.layers import EqualLinear, LearntConstant
from gandissect_adapters.families.style.ops import lrelu, modulated_conv, same_conv, up_conv, up_image
from gandissect_adapters.families.style.style_network import MappingNetwork, ModulatedNetwork


class FilterLayer(nn.Module):
    """A filter of the file, ``kernel`` [1, 1, K, K] of sum 4, that goes with doubling the size."""

    kernel: Tensor

    def __init__(self, taps: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.empty(1, 1, taps, taps))

    @property
    def plain(self) -> Tensor:
        """[K, K] of sum 1."""
        return self.kernel[0, 0] / 4.0

    def forward(self, image: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2H, 2W]."""
        return up_image(image, self.plain)


class StyleLayer(EqualLinear):
    """w [N, W] to the scales [N, units in], counted from 1 in the file."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, W] to [N, units in]."""
        return super().forward(x) + 1.0


class ModulatedLayer(nn.Module):
    """Modulated convolution, noise, bias and activation; without noise, demodulation and activation for colours.

    Args:
        side: of its maps, for the noise; 0 for an output layer.
        taps: length of its filter where it doubles the size, 0 where not.
    """

    noise: Tensor

    def __init__(self, width_in: int, width_out: int, style_width: int, *, side: int, taps: int = 0) -> None:
        super().__init__()
        self.coloured = not side
        self.weight = nn.Parameter(torch.empty(width_out, width_in, *([3, 3] if side else [1, 1])))
        self.bias = nn.Parameter(torch.empty(width_out))
        self.style = StyleLayer(style_width, width_in)
        self.filter = FilterLayer(taps) if taps else None
        if side:
            self.noise_strength = nn.Parameter(torch.empty(()))
            self.register_buffer("noise", torch.empty(1, 1, side, side))

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """[N, in, H, W] and scales [N, in] to [N, out, H', W']."""
        gain = 1.0 / math.sqrt(self.weight[0].numel())
        # genforce turns the kernel of the transposed convolution, NVlabs and rosinality do not.
        convolve = same_conv if self.filter is None else partial(up_conv, kernel=self.filter.plain, flip=True)
        x = modulated_conv(x, self.weight, scale, convolve, demodulate=not self.coloured, gain=gain)
        if self.coloured:
            return x + self.bias[:, None, None]
        return lrelu(x + self.noise * self.noise_strength + self.bias[:, None, None])


class Synthesis(nn.Module):
    """``layer0`` at 4 px, then two layers per resolution, and a head ``output0`` … for each; ``widths`` are their units."""

    def __init__(self, widths: Sequence[int], style_width: int, colours: int, taps: int) -> None:
        super().__init__()
        self.early_layer = LearntConstant(widths[0], "const")
        self.add_module("layer0", ModulatedLayer(widths[0], widths[0], style_width, side=4))
        self.add_module("output0", ModulatedLayer(widths[0], colours, style_width, side=0))
        for block, (into, out) in enumerate(pairwise(widths), 1):
            side = 4 << block
            first = ModulatedLayer(into, out, style_width, side=side, taps=taps)
            self.add_module(f"layer{2 * block - 1}", first)
            self.add_module(f"layer{2 * block}", ModulatedLayer(out, out, style_width, side=side))
            self.add_module(f"output{block}", ModulatedLayer(out, colours, style_width, side=0))
        self.upsample = FilterLayer(taps)
        self.layers = 2 * len(widths) - 1

    def steps(self) -> list[tuple[ModulatedLayer, int]]:
        """Every modulated layer in order of execution and the index of the style that it takes.

        A head takes the style of the next resolution's first layer.
        """
        steps = []
        for index in range(self.layers):
            steps.append((cast("ModulatedLayer", self.get_submodule(f"layer{index}")), index))
            if index % 2 == 0:
                steps.append((cast("ModulatedLayer", self.get_submodule(f"output{index // 2}")), index + 1))
        return steps

    def forward(self, scales: list[Tensor]) -> Tensor:
        """Scales, in order of execution, to images [N, 3, S, S]."""
        x: Tensor = self.early_layer(scales[0])
        image: Tensor | None = None
        for (layer, _), scale in zip(self.steps(), scales, strict=True):
            if layer.coloured:
                own: Tensor = layer(x, scale)
                image = own if image is None else own + self.upsample(image)
            else:
                x = layer(x, scale)
        assert image is not None
        return image


class StyleGan2(ModulatedNetwork):
    """Mapping and synthesis.

    References:
        Karras et al. 2020. Analyzing and Improving the Image Quality of StyleGAN.
    """

    def __init__(self, mapping: MappingNetwork, synthesis: Synthesis) -> None:
        super().__init__()
        self.mapping = mapping
        self.synthesis = synthesis

    @property
    def style_count(self) -> int:
        """One for each layer and one for the last head."""
        return self.synthesis.layers + 1

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, Z] to w [N, W], before truncation."""
        return cast("Tensor", self.mapping(z))

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """Styles [N, L, W] to the scales of each modulated convolution."""
        return [layer.style(ws[:, index]) for layer, index in self.synthesis.steps()]

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Those to images [N, 3, S, S]."""
        return cast("Tensor", self.synthesis(scales))
