"""The networks of NVlabs' StyleGAN2, with the submodule names of stylegan2-ada-pytorch.

layout = Layout({4: 512, 8: 512, 16: 256})
generator = StyleGenerator(Mapping(512, 512, 8), SynthesisNetwork(layout))
discriminator = Discriminator(layout, Epilogue(layout, spread=1, group=4, outputs=1))

References:
    Karras et al. 2020. Analyzing and Improving the Image Quality of StyleGAN.
    Karras et al. 2020. Training Generative Adversarial Networks with Limited Data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from gandissect_adapters.families.layers import EqualLinear, MinibatchStd
from gandissect_adapters.families.style.nvlabs import Mapping
from gandissect_adapters.families.style.ops import (
    down_conv,
    down_image,
    fir_kernel,
    lrelu,
    modulated_conv,
    same_conv,
    up_conv,
    up_image,
)

HALF = 0.5**0.5
"""Gain of both branches of a residual block."""


@dataclass(frozen=True)
class Layout:
    """Sizes and switches of one generator or discriminator.

    Args:
        units: side of the map -> units of its maps (a discriminator's: those that enter the block), coarsest first.
        architecture: skip, resnet or orig (Karras et al. 2020, figure 7).
        clamp: largest absolute activation, None for no limit.
        noise: the stored noise is added; where False it is left out.
        noisy: there is noise in the file at all.
    """

    units: Table[int, int]
    channels: int = 3
    w: int = 512
    architecture: str = "skip"
    clamp: float | None = 256.0
    noise: bool = True
    noisy: bool = True
    taps: int = 4

    def kernel(self) -> Tensor:
        """The resampling filter before the file's own takes its place."""
        return fir_kernel((1, 3, 3, 1) if self.taps == 4 else [1] * self.taps)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, side: int, layout: Layout, *, up: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.affine = EqualLinear(layout.w, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("resample_filter", layout.kernel())
        if layout.noisy:
            self.register_buffer("noise_const", torch.randn(side, side))
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.up, self.gain, self.layout = up, gain, layout

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, O, H, W] of x [N, I, H, W] (half as large where the layer upsamples) and its style [N, I]."""
        convolve = partial(up_conv, kernel=self.resample_filter) if self.up else same_conv
        y = modulated_conv(x, self.weight, style, convolve)
        if self.layout.noisy and self.layout.noise:
            y = y + self.noise_const * self.noise_strength
        clamp = self.layout.clamp
        y = y + self.bias[:, None, None]
        return lrelu(y, gain=2.0**0.5 * self.gain, clamp=None if clamp is None else clamp * self.gain)


class ToRgb(nn.Module):
    """Modulated 1x1 convolution without demodulation."""

    def __init__(self, inputs: int, layout: Layout) -> None:
        super().__init__()
        self.affine = EqualLinear(layout.w, inputs)
        self.weight = nn.Parameter(torch.randn(layout.channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(layout.channels))
        self.scale, self.clamp = inputs**-0.5, layout.clamp

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """The image's part [N, C, H, W] of x [N, I, H, W] and style [N, I]."""
        y = modulated_conv(x, self.weight, style * self.scale, demodulate=False) + self.bias[:, None, None]
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class ConvLayer(nn.Module):
    """Convolution with equalised learning rate, bias and leaky ReLU; resampled by 2 where ``resampled`` is up or down.

    Args:
        bias: with a bias and activation; without, the layer is linear.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        layout: Layout,
        *,
        resampled: str = "",
        bias: bool = True,
        gain: float = 1.0,
        clamped: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("resample_filter", layout.kernel())
        self.resampled, self.scale, self.gain = resampled, (inputs * size * size) ** -0.5, gain
        self.clamp = None if layout.clamp is None or not clamped else layout.clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        """[N, O, H', W'] of [N, I, H, W]."""
        weight = self.weight * self.scale
        if self.resampled == "up":
            y = up_conv(x, weight, self.resample_filter)
        elif self.resampled == "down":
            y = down_conv(x, weight, self.resample_filter)
        else:
            y = same_conv(x, weight)
        if self.bias is None:
            return y * self.gain
        return lrelu(y + self.bias[:, None, None], gain=2.0**0.5 * self.gain, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """One side of the generator: one or two layers, and what goes into the image.

    Args:
        inputs: units of the block before; 0 for the first, which starts from ``const``.
    """

    resample_filter: Tensor

    def __init__(self, inputs: int, side: int, layout: Layout, *, last: bool) -> None:
        super().__init__()
        units = layout.units[side]
        self.register_buffer("resample_filter", layout.kernel())
        residual = layout.architecture == "resnet" and inputs > 0
        self.conv0: SynthesisLayer | None = None
        self.torgb: ToRgb | None = None
        self.skip: ConvLayer | None = None
        if inputs:
            self.conv0 = SynthesisLayer(inputs, units, side, layout, up=True)
        else:
            self.const = nn.Parameter(torch.randn(units, side, side))
        self.conv1 = SynthesisLayer(units, units, side, layout, up=False, gain=HALF if residual else 1.0)
        if last or layout.architecture == "skip":
            self.torgb = ToRgb(units, layout)
        if residual:
            self.skip = ConvLayer(inputs, units, 1, layout, resampled="up", bias=False, gain=HALF)
            self.sum = nn.Identity()

    def layers(self) -> list[nn.Module]:
        """The modulated layers, in order of execution."""
        return [layer for layer in (self.conv0, self.conv1, self.torgb) if layer is not None]

    def forward(self, x: Tensor | None, image: Tensor | None, styles: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Maps [N, U, H, W] and the image so far, from those of the block before and one style per layer."""
        given = iter(styles)
        if self.conv0 is None or x is None:
            start = self.const.expand(len(styles[0]), -1, -1, -1)
            x = self.conv1(start, next(given))
        else:
            side = None if self.skip is None else self.skip(x)
            x = self.conv1(self.conv0(x, next(given)), next(given))
            x = x if side is None else self.sum(side + x)
        if image is not None:
            image = up_image(image, self.resample_filter)
        if self.torgb is not None:
            part = self.torgb(x, next(given))
            image = part if image is None else image + part
        return x, image


class SynthesisNetwork(nn.Module):
    """w to image, in blocks called ``b4``, ``b8`` …"""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.sides = sorted(layout.units)
        for before, side in pairwise([0, *self.sides]):
            inputs = layout.units[before] if before else 0
            self.add_module(f"b{side}", SynthesisBlock(inputs, side, layout, last=side == self.sides[-1]))
        self.style_count = 2 * len(self.sides)

    def blocks(self) -> list[SynthesisBlock]:
        """From coarse to fine."""
        return [block for side in self.sides if isinstance(block := self.get_submodule(f"b{side}"), SynthesisBlock)]

    def forward(self, ws: Tensor) -> Tensor:
        """Images [N, C, H, W] of w [N, L, W]."""
        return self.paint(self.modulate(ws))

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """One style per layer; a block's ``torgb`` shares its w with the next block's first convolution."""
        styles: list[Tensor] = []
        first = 0
        for block in self.blocks():
            layers = block.layers()
            styles += [layer.get_submodule("affine")(ws[:, first + index]) for index, layer in enumerate(layers)]
            first += sum(not isinstance(layer, ToRgb) for layer in layers)
        return styles

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Images of the styles of all layers."""
        x: Tensor | None = None
        image: Tensor | None = None
        for block in self.blocks():
            count = len(block.layers())
            x, image = block(x, image, scales[:count])
            scales = scales[count:]
        assert image is not None
        return image


class DiscriminatorBlock(nn.Module):
    """One side of the discriminator: two convolutions, the second of which halves the side.

    Args:
        outputs: units of the next, coarser block.
        first: the image enters here.
    """

    resample_filter: Tensor

    def __init__(self, side: int, outputs: int, layout: Layout, *, first: bool) -> None:
        super().__init__()
        units = layout.units[side]
        self.register_buffer("resample_filter", layout.kernel())
        self.fromrgb: ConvLayer | None = None
        self.skip: ConvLayer | None = None
        self.pictured = layout.architecture == "skip"
        residual = layout.architecture == "resnet"
        if first or self.pictured:
            self.fromrgb = ConvLayer(layout.channels, units, 1, layout)
        self.conv0 = ConvLayer(units, units, 3, layout)
        self.conv1 = ConvLayer(units, outputs, 3, layout, resampled="down", gain=HALF if residual else 1.0)
        if residual:
            self.skip = ConvLayer(units, outputs, 1, layout, resampled="down", bias=False, gain=HALF)
            self.sum = nn.Identity()

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Maps [N, O, H/2, W/2] and the image at half size (None where it is needed no more)."""
        if self.fromrgb is not None:
            seen = self.fromrgb(image)
            x = seen if x is None else x + seen
            image = down_image(image, self.resample_filter) if self.pictured and image is not None else None
        side = None if self.skip is None else self.skip(x)
        y: Tensor = self.conv1(self.conv0(x))
        return (y if side is None else self.sum(side + y)), image


class Epilogue(nn.Module):
    """The last, 4x4 side of the discriminator.

    Args:
        spread: number F of minibatch statistics, 0 for none.
        group: samples that they are of, None for the whole batch.
        outputs: 1, or the size of the label's projection.
    """

    def __init__(self, layout: Layout, *, spread: int, group: int | None, outputs: int) -> None:
        super().__init__()
        units = layout.units[4]
        self.fromrgb: ConvLayer | None = None
        if layout.architecture == "skip":
            self.fromrgb = ConvLayer(layout.channels, units, 1, layout, clamped=False)
        self.mbstd = MinibatchStd(group, spread) if spread else nn.Identity()
        self.conv = ConvLayer(units + spread, units, 3, layout)
        self.fc = EqualLinear(units * 16, units, activation=lrelu)
        self.out = EqualLinear(units, outputs)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """[N, outputs] of maps [N, U, 4, 4]."""
        if self.fromrgb is not None:
            x = x + self.fromrgb(image)
        x = self.conv(self.mbstd(x))
        scores: Tensor = self.out(self.fc(x.flatten(1)))
        return scores


class Discriminator(nn.Module):
    """Images to logits [N, 1]; with labels their features are projected on the label's (Miyato & Koyama 2018)."""

    def __init__(self, layout: Layout, epilogue: Epilogue, mapping: Mapping | None = None) -> None:
        super().__init__()
        self.sides = sorted(layout.units, reverse=True)
        for side, coarser in pairwise(self.sides):
            block = DiscriminatorBlock(side, layout.units[coarser], layout, first=side == self.sides[0])
            self.add_module(f"b{side}", block)
        if mapping is not None:
            self.mapping = mapping
        self.b4 = epilogue
        self.labelled = mapping is not None

    def forward(self, image: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, 1] of images [N, C, H, W] in -1..1."""
        x: Tensor | None = None
        left: Tensor | None = image
        for side in self.sides[:-1]:
            x, left = self.get_submodule(f"b{side}")(x, left)
        scores: Tensor = self.b4(x, left)
        if not self.labelled:
            return scores
        label: Tensor = self.mapping(None, labels)
        return (scores * label).sum(1, keepdim=True) / math.sqrt(label.shape[1])
