"""StyleGAN2 as rosinality's stylegan2-pytorch writes it, in training and in converted files.

gan = gandissect.open("stylegan2-ffhq-config-f.pt", assume={"truncation": "0.7"})
gan.generator.space("s")                # the scales of every modulated convolution
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.layers import EqualConv2d, EqualLinear, LearntConstant, PixelNorm, minibatch_std
from gandissect_adapters.families.style.ops import (
    FusedLeakyReLU,
    lrelu,
    modulated_conv,
    resample,
    same_conv,
    up_conv,
    up_image,
)
from gandissect_adapters.families.style.style_network import (
    NOISE,
    TRUNCATION,
    ModulatedNetwork,
    as_mean,
    give_centre,
    give_truncation,
    style_spaces,
)
from gandissect_adapters.recognise.unwrap import Role, StateDict


class Filter(nn.Module):
    """A filter of the file, ``kernel`` [K, K], zero padded by ``pad``; a kernel for upsampling has sum 4."""

    kernel: Tensor

    def __init__(self, taps: int, pad: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.empty(taps, taps))
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        return resample(x, self.kernel, pad=self.pad)


class UpFilter(Filter):
    """The same for images that are doubled in size."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2H, 2W]."""
        return up_image(x, self.kernel / 4.0)


class ModulatedConv2d(nn.Module):
    """A convolution scaled per sample by its style (Karras et al. 2020, StyleGAN2, eq. 1-3).

    Args:
        taps: size of its blur where it doubles the size, 0 where not.
        demodulate: off in to-RGB layers.
    """

    def __init__(
        self, width_in: int, width_out: int, side: int, style_width: int, *, taps: int = 0, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width_out, width_in, side, side))
        self.modulation = EqualLinear(style_width, width_in)
        self.blur = Filter(taps) if taps else None
        self.demodulate = demodulate

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """[N, in, H, W] and scales [N, in] to [N, out, H', W']."""
        weight = self.weight[0]
        convolve = same_conv if self.blur is None else partial(up_conv, kernel=self.blur.kernel / 4.0)
        gain = 1.0 / math.sqrt(weight[0].numel())
        return modulated_conv(x, weight, scale, convolve, demodulate=self.demodulate, gain=gain)


class NoiseInjection(nn.Module):
    """Adds noise with one learnt strength for all units."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """[N, C, H, W] and [1, 1, H, W] to [N, C, H, W]."""
        return x + self.weight * noise


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and activation."""

    def __init__(self, width_in: int, width_out: int, style_width: int, taps: int = 0) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(width_in, width_out, 3, style_width, taps=taps)
        self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(width_out)

    def forward(self, x: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        """[N, in, H, W] and scales [N, in] to [N, out, H', W']."""
        return cast("Tensor", self.activate(self.noise(self.conv(x, scale), noise)))


class ToRgb(nn.Module):
    """The image so far, doubled in size, and what this resolution adds to it."""

    def __init__(self, width: int, colours: int, style_width: int, taps: int = 0) -> None:
        super().__init__()
        self.upsample = UpFilter(taps) if taps else None
        self.conv = ModulatedConv2d(width, colours, 1, style_width, demodulate=False)
        self.bias = nn.Parameter(torch.empty(1, colours, 1, 1))

    def forward(self, x: Tensor, scale: Tensor, image: Tensor | None = None) -> Tensor:
        """[N, C, H, W], scales [N, C] and the image [N, 3, H/2, W/2] to [N, 3, H, W]."""
        own: Tensor = self.conv(x, scale) + self.bias
        return own if image is None or self.upsample is None else own + self.upsample(image)


class Generator(ModulatedNetwork):
    """Mapping and synthesis with image skips.

    Args:
        widths: units at 4, 8, 16 … px.
        depth: layers of the mapping network, of learning rate ``rate``.
        taps: length of the upsampling filter.

    References:
        Karras et al. 2020. Analyzing and Improving the Image Quality of StyleGAN.
    """

    def __init__(
        self, widths: Sequence[int], style_width: int, depth: int, *, colours: int, rate: float, taps: int
    ) -> None:
        super().__init__()
        layers = [EqualLinear(style_width, style_width, rate=rate, activation=lrelu) for _ in range(depth)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = LearntConstant(widths[0], "input")
        self.conv1 = StyledConv(widths[0], widths[0], style_width)
        self.to_rgb1 = ToRgb(widths[0], colours, style_width)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for into, out in pairwise(widths):
            self.convs.append(StyledConv(into, out, style_width, taps))
            self.convs.append(StyledConv(out, out, style_width))
            self.to_rgbs.append(ToRgb(out, colours, style_width, taps))
        self.noises = nn.Module()
        for index in range(len(self.convs) + 1):
            side = 4 << (index + 1) // 2
            self.noises.register_buffer(f"noise_{index}", torch.zeros(1, 1, side, side))

    @property
    def style_count(self) -> int:
        """One for each convolution and one for the last to-RGB layer."""
        return len(self.convs) + 2

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] to w [N, D], before truncation."""
        return cast("Tensor", self.style(z))

    def _steps(self) -> list[tuple[nn.Module, int]]:
        """Every modulated layer in order of execution and the index of the style that it takes.

        A to-RGB layer takes the style of the next resolution's first convolution.
        """
        steps: list[tuple[nn.Module, int]] = [(self.conv1, 0), (self.to_rgb1, 1)]
        for level, to_rgb in enumerate(self.to_rgbs):
            first = 2 * level
            steps += [(self.convs[first], first + 1), (self.convs[first + 1], first + 2), (to_rgb, first + 3)]
        return steps

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """Styles [N, L, D] to the scales of each modulated convolution."""
        return [cast("ModulatedConv2d", layer.conv).modulation(ws[:, index]) for layer, index in self._steps()]

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Scales, in order of execution, to images [N, 3, S, S]."""
        x: Tensor = self.input(scales[0])
        image: Tensor | None = None
        number = 0
        for (layer, _), scale in zip(self._steps(), scales, strict=True):
            if isinstance(layer, ToRgb):
                image = layer(x, scale, image)
            else:
                x = layer(x, scale, self.noises.get_buffer(f"noise_{number}"))
                number += 1
        assert image is not None
        return image


class ResBlock(nn.Module):
    """Two convolutions and a skip, half the size; ``taps`` is the length of the filter before each halving."""

    def __init__(self, width_in: int, width_out: int, taps: int) -> None:
        super().__init__()
        wide, narrow = taps, taps - 2  # padding in all, for a 3x3 and a 1x1 convolution
        self.conv1 = nn.Sequential(EqualConv2d(width_in, width_in, 3, padding=1, bias=False), FusedLeakyReLU(width_in))
        self.conv2 = nn.Sequential(
            Filter(taps, ((wide + 1) // 2, wide // 2)),
            EqualConv2d(width_in, width_out, 3, stride=2, bias=False),
            FusedLeakyReLU(width_out),
        )
        self.skip = nn.Sequential(
            Filter(taps, ((narrow + 1) // 2, narrow // 2)), EqualConv2d(width_in, width_out, 1, stride=2, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H/2, W/2]."""
        return cast("Tensor", (self.conv2(self.conv1(x)) + self.skip(x)) / math.sqrt(2.0))


class Discriminator(nn.Module):
    """Residual discriminator; ``widths`` are the units from the full size down to 4 px."""

    def __init__(self, widths: Sequence[int], *, colours: int, last: int, group: int, taps: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Sequential(EqualConv2d(colours, widths[0], 1, bias=False), FusedLeakyReLU(widths[0]))
        )
        for into, out in pairwise(widths):
            self.convs.append(ResBlock(into, out, taps))
        self.final_conv = nn.Sequential(
            EqualConv2d(widths[-1] + 1, last, 3, padding=1, bias=False), FusedLeakyReLU(last)
        )
        self.final_linear = nn.Sequential(EqualLinear(last * 16, last, activation=lrelu), EqualLinear(last, 1))
        self.group = group

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] to logits [N, 1]."""
        x: Tensor = self.final_conv(minibatch_std(self.convs(images), self.group))
        return cast("Tensor", self.final_linear(x.flatten(1)))


class RosinalityStyleGan2(Family):
    """Generators and discriminators of rosinality/stylegan2-pytorch."""

    name: ClassVar[str] = "StyleGAN2 (rosinality)"
    source: ClassVar[str] = "Karras et al. 2020; rosinality/stylegan2-pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "truncation": TRUNCATION,
        "noise": NOISE,
        "rate": Option("learning rate multiplier of the mapping network", "0.01"),
        "mbstd-group": Option("images that the discriminator's minibatch deviation is taken over", "4"),
    }

    def role(self, net: StateDict) -> Role:
        """Told by the generator's ``conv1``/``to_rgb1`` modulation, by the discriminator's residual blocks and final linear maps."""
        tensors = net.tensors
        if has(
            tensors,
            r"style\.1\.weight",
            r"input\.input",
            r"conv1\.conv\.modulation\.weight",
            r"to_rgb1\.conv\.modulation\.weight",
            r"convs\.0\.conv\.blur\.kernel",
        ):
            return "generator" if tensors["conv1.conv.weight"].dim() == 5 else ""
        if has(
            tensors,
            r"convs\.0\.0\.weight",
            r"convs\.1\.conv2\.0\.kernel",
            r"convs\.1\.skip\.1\.weight",
            r"final_conv\.0\.weight",
            r"final_linear\.1\.weight",
        ):
            return "discriminator"
        return ""

    def generator(self, case: Case) -> Networks:
        """The generator, its mean of w from ``latent_avg`` where the file has it."""
        tensors = case.tensors
        levels = indices(tensors, r"to_rgbs\.(\d+)\.bias")
        shapes = [tensors["to_rgb1.conv.weight"].shape]
        shapes += [tensors[f"to_rgbs.{level}.conv.weight"].shape for level in levels]
        depth = len(indices(tensors, r"style\.(\d+)\.weight"))
        width = tensors["style.1.weight"].shape[0]
        taps = len(tensors["convs.0.conv.blur.kernel"])
        rate = case.number("rate")
        kept = any(name.startswith("noises.") for name in tensors)
        module = load(
            lambda: Generator([shape[2] for shape in shapes], width, depth, colours=shapes[0][1], rate=rate, taps=taps),
            tensors,
            computed=() if kept else (r"noises\..*",),
        )
        if case.choice("noise", ("const", "zero"), None if kept else "zero", "the file has no noise maps") == "zero":
            for noise in module.noises.buffers():
                noise.data = torch.zeros_like(noise)
        give_centre(case, module, width, as_mean(case.file.get("latent_avg"), width), "latent_avg of the file")
        give_truncation(case, module)
        convs = [f"convs.{index}" for index in range(len(module.convs))]
        return Networks(
            generator=module,
            latent=LatentSpace("z", (width,)),
            output_range=(-1.0, 1.0),
            inner=style_spaces(module),
            main_layers=("conv1", *convs),
        )

    def discriminator(self, case: Case) -> Networks:
        """The discriminator for images of the size that its blocks end at 4 px for."""
        tensors = case.tensors
        blocks = indices(tensors, r"convs\.(\d+)\.conv1\.0\.weight")
        side = 4 << len(blocks)
        if case.image_shape is not None and case.image_shape[1:] != (side, side):
            raise NotOpened(
                f"its {len(blocks)} blocks take images of {side} px, the generator makes {case.image_shape[1]}"
            )
        first = tensors["convs.0.0.weight"]
        widths = [first.shape[0], *(tensors[f"convs.{block}.conv2.1.weight"].shape[0] for block in blocks)]
        last, taps = tensors["final_conv.0.weight"].shape[0], len(tensors["convs.1.conv2.0.kernel"])
        group = case.whole("mbstd-group")
        module = load(lambda: Discriminator(widths, colours=first.shape[1], last=last, group=group, taps=taps), tensors)
        main = ("convs.0", *(f"convs.{block}" for block in blocks), "final_conv")
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)
