"""StyleGAN as rosinality's style-based-gan-pytorch writes it: nine levels always, of which training has grown some.

gan = gandissect.open("train_step-7.model", assume={"step": "6"})       # 4 * 2**6 = 256 px
gan.generator.module.set_noise([torch.randn(1, 1, 4 << level, 4 << level) for level in range(7)])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.layers import LearntConstant, PixelNorm, StoredBlur, enlarge, fade, minibatch_std
from gandissect_adapters.families.style.rosinality_layers import (
    FusedResample,
    HeldConv2d,
    HeldLinear,
    NoiseInjection,
)
from gandissect_adapters.families.style.style_network import (
    TRUNCATION,
    StyleNetwork,
    give_centre,
    give_truncation,
    style_spaces,
)
from gandissect_adapters.recognise.unwrap import Role, StateDict


class AdaptiveInstanceNorm(nn.Module):
    """Each map normalised, then scaled and shifted as the style says (Karras et al. 2019, eq. 1)."""

    def __init__(self, width: int, style_width: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(width)
        self.style = HeldLinear(style_width, width * 2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, C, H, W] and [N, D] to [N, C, H, W]."""
        scale, shift = self.style(style)[:, :, None, None].chunk(2, 1)
        return cast("Tensor", scale * self.norm(x) + shift)


class StyledConvBlock(nn.Module):
    """One level of the generator: twice a convolution, noise, activation and style.

    Args:
        first: starts from the learnt constant.
        fused: doubles the size with a fused transposed convolution, otherwise with copied pixels.
        side: height and width of its maps; its noise buffer is [1, 1, side, side], zero, and not in the file.
    """

    noise: Tensor

    def __init__(
        self, width_in: int, width_out: int, style_width: int, *, side: int, first: bool = False, fused: bool = False
    ) -> None:
        super().__init__()
        self.conv1: nn.Module
        if first:
            self.conv1 = LearntConstant(width_in, "input")
        elif fused:
            self.conv1 = nn.Sequential(FusedResample(width_in, width_out, up=True), StoredBlur(width_out, "weight"))
        else:
            conv = HeldConv2d(width_in, width_out, 3, 1)
            self.conv1 = nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"), conv, StoredBlur(width_out, "weight")
            )
        self.noise1 = NoiseInjection(width_out)
        self.lrelu1 = nn.LeakyReLU(0.2)
        self.adain1 = AdaptiveInstanceNorm(width_out, style_width)
        self.conv2 = HeldConv2d(width_out, width_out, 3, 1)
        self.noise2 = NoiseInjection(width_out)
        self.lrelu2 = nn.LeakyReLU(0.2)
        self.adain2 = AdaptiveInstanceNorm(width_out, style_width)
        self.first = first
        self.register_buffer("noise", torch.zeros(1, 1, side, side), persistent=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, in, H, W] and [N, D] to [N, out, 2H, 2W] (the first level: [N, out, 4, 4])."""
        x = self.conv1(style if self.first else x)
        x = self.adain1(self.lrelu1(self.noise1(x, self.noise)), style)
        return cast("Tensor", self.adain2(self.lrelu2(self.noise2(self.conv2(x), self.noise)), style))


class Generator(nn.Module):
    """The synthesis network: levels and a to-RGB convolution for each."""

    def __init__(self, widths: Sequence[int], style_width: int, fused: Sequence[bool]) -> None:
        super().__init__()
        entries = [widths[0], *widths[:-1]]
        self.progression = nn.ModuleList(
            StyledConvBlock(into, out, style_width, side=4 << level, first=level == 0, fused=fused[level])
            for level, (into, out) in enumerate(zip(entries, widths, strict=True))
        )
        self.to_rgb = nn.ModuleList(HeldConv2d(width, 3, 1) for width in widths)

    def forward(self, styles: Tensor, step: int, alpha: float) -> Tensor:
        """Images [N, 3, S, S], S = 4 * 2**step, of styles [N, step + 1, D], one for each level.

        ``alpha`` fades the last level in: 1 for itself alone, 0 for the level before it (Karras et al. 2018, figure 2).
        """
        x = before = styles[:, 0]
        for level in range(step + 1):
            before, x = x, self.progression[level](x, styles[:, level])
        image: Tensor = self.to_rgb[step](x)
        if step > 0 and 0.0 <= alpha < 1.0:
            image = fade(image, enlarge(self.to_rgb[step - 1](before)), alpha)
        return image


class StyledGenerator(StyleNetwork):
    """Mapping and synthesis, grown to ``step``.

    References:
        Karras, Laine, Aila 2019. A Style-Based Generator Architecture for Generative Adversarial Networks.
    """

    def __init__(self, widths: Sequence[int], style_width: int, depth: int, fused: Sequence[bool]) -> None:
        super().__init__()
        self.generator = Generator(widths, style_width, fused)
        stages: list[nn.Module] = [PixelNorm()]
        for _ in range(depth):
            stages += [HeldLinear(style_width, style_width), nn.LeakyReLU(0.2)]
        self.style = nn.Sequential(*stages)
        self.step = len(widths) - 1
        self.alpha = 1.0

    def grown_to(self, step: int, alpha: float) -> StyledGenerator:
        """This network with the levels after ``step`` taken out."""
        del self.generator.progression[step + 1 :]
        del self.generator.to_rgb[step + 1 :]
        self.step, self.alpha = step, alpha
        return self

    @property
    def style_count(self) -> int:
        """Levels that take a style of their own."""
        return self.step + 1

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] to styles w [N, D], not truncated."""
        return cast("Tensor", self.style(z))

    def synthesise(self, ws: Tensor) -> Tensor:
        """Styles [N, step + 1, D] to images [N, 3, S, S]."""
        return cast("Tensor", self.generator(ws, self.step, self.alpha))

    def set_noise(self, maps: Sequence[Tensor]) -> None:
        """Take these noise maps from now on, one per level: [1 or N, 1, 4 * 2**level, 4 * 2**level], N(0, 1) in training.

        Raises:
            UsageError: fewer maps than levels, or a map of another size.
        """
        for level, block in enumerate(self.generator.progression):
            side = 4 << level
            if level >= len(maps) or maps[level].shape[1:] != (1, side, side):
                raise UsageError(f"the noise of level {level} must be [N, 1, {side}, {side}]")
            own = cast("StyledConvBlock", block)
            own.noise = maps[level].to(own.noise)


class ConvBlock(nn.Module):
    """One level of the discriminator; ``half`` is "fused", "pooled" or "" for the last, which ends in 1x1."""

    def __init__(self, width_in: int, width_out: int, half: str) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(HeldConv2d(width_in, width_out, 3, 1), nn.LeakyReLU(0.2))
        stages: list[nn.Module]
        if half == "fused":
            stages = [StoredBlur(width_out, "weight"), FusedResample(width_out, width_out, up=False)]
        elif half == "pooled":
            stages = [StoredBlur(width_out, "weight"), HeldConv2d(width_out, width_out, 3, 1), nn.AvgPool2d(2)]
        else:
            stages = [HeldConv2d(width_out, width_out, 4)]
        self.conv2 = nn.Sequential(*stages, nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H/2, W/2], in the last block to [N, out, 1, 1]."""
        return cast("Tensor", self.conv2(self.conv1(x)))


class Discriminator(nn.Module):
    """The growing discriminator: level k of ``progression`` takes maps of 1024 / 2**k px (with nine levels).

    Args:
        widths: units that enter each level, and those of the last level's output.
        halves: see ``ConvBlock``.
        activated: ``from_rgb`` ends in a LeakyReLU.
        step, alpha: as in the generator.
    """

    def __init__(
        self, widths: Sequence[int], halves: Sequence[str], *, activated: bool, step: int, alpha: float
    ) -> None:
        super().__init__()
        last = len(halves) - 1
        self.progression = nn.ModuleList(
            ConvBlock(widths[k] + (k == last), widths[k + 1], half) for k, half in enumerate(halves)
        )
        self.from_rgb = nn.ModuleList(
            nn.Sequential(HeldConv2d(3, width, 1), nn.LeakyReLU(0.2)) if activated else HeldConv2d(3, width, 1)
            for width in widths[:-1]
        )
        self.linear = HeldLinear(widths[-1], 1)
        self.step, self.alpha = step, alpha

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] to logits [N, 1]; the deviation over the whole batch is part of every score."""
        last = len(self.progression) - 1
        start = last - self.step
        x: Tensor = self.from_rgb[start](images)
        for k in range(start, last + 1):
            if k == last:
                x = minibatch_std(x, group=None)
            x = self.progression[k](x)
            if k == start and k < last and 0.0 <= self.alpha < 1.0:
                small = self.from_rgb[k + 1](functional.avg_pool2d(images, 2))
                x = fade(x, small, self.alpha)
        return cast("Tensor", self.linear(x.flatten(1)))


class RosinalityStyleGan1(Family):
    """Generators and discriminators of rosinality/style-based-gan-pytorch, trained to any level."""

    name: ClassVar[str] = "StyleGAN (rosinality)"
    source: ClassVar[str] = "Karras et al. 2019; rosinality/style-based-gan-pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "step": Option("the level that images are taken from: 4 * 2**step px", "8", "no level has been trained"),
        "alpha": Option("how far the last level is faded in, 0 to 1", "1", "a finished fade-in"),
        "truncation": TRUNCATION,
        "noise": Option("zero, or const for a seeded draw", "zero", "the file has no noise maps"),
    }

    def role(self, net: StateDict) -> Role:
        """Told by the constant input and AdaIN of the generator, by ``from_rgb`` and blur of the discriminator."""
        names = net.tensors
        if has(
            names,
            r"generator\.progression\.0\.conv1\.input",
            r"generator\.progression\.0\.adain1\.style\.linear\.weight_orig",
            r"generator\.to_rgb\.0\.conv\.weight_orig",
            r"style\.1\.linear\.weight_orig",
        ):
            return "generator"
        if has(
            names,
            r"progression\.0\.conv2\.0\.weight",
            r"progression\.\d+\.conv2\.0\.conv\.weight_orig",
            r"from_rgb\.0\.(0\.)?conv\.weight_orig",
            r"linear\.linear\.weight_orig",
        ):
            return "discriminator"
        return ""

    def generator(self, case: Case) -> Networks:
        """The generator at the last level that has been trained, or at ``step``."""
        tensors = case.tensors
        levels = indices(tensors, r"generator\.progression\.(\d+)\..*")
        found = max((level for level in levels if _trained(tensors, level)), default=None)
        step = case.whole("step", found, "the last level whose biases are not all zero as they were initialised")
        if not 0 <= step < len(levels):
            raise UsageError(f"--assume step={step}: the file has the levels 0 to {len(levels) - 1}")
        alpha = case.number("alpha")
        widths = [tensors[f"generator.to_rgb.{level}.conv.weight_orig"].shape[1] for level in levels]
        fused = [f"generator.progression.{level}.conv1.0.weight" in tensors for level in levels]
        depth = len(indices(tensors, r"style\.(\d+)\.linear\.weight_orig"))
        width = tensors["style.1.linear.weight_orig"].shape[0]
        module = load(
            lambda: StyledGenerator(widths, width, depth, fused), tensors, unused=(r".*\.weight_flip",)
        ).grown_to(step, alpha)
        if case.choice("noise", ("zero", "const")) == "const":
            stream = torch.Generator().manual_seed(0)
            module.set_noise([torch.randn(1, 1, 4 << level, 4 << level, generator=stream) for level in range(step + 1)])
        give_centre(case, module, width)
        give_truncation(case, module)
        return Networks(
            generator=module, latent=LatentSpace("z", (width,)), output_range=(-1.0, 1.0),
            inner=style_spaces(module),
            main_layers=tuple(f"generator.progression.{level}" for level in range(step + 1)),
        )  # fmt: skip

    def discriminator(self, case: Case) -> Networks:
        """The discriminator at the level of the generator's images."""
        tensors = case.tensors
        levels = indices(tensors, r"progression\.(\d+)\..*")
        side = case.image_shape[1] if case.image_shape else 4 << (len(levels) - 1)
        step = int(math.log2(side)) - 2
        if side != 4 << max(step, 0) or step >= len(levels):
            raise NotOpened(f"its {len(levels)} levels take 4 to {4 << (len(levels) - 1)} px, not {side}")
        stems = [f"progression.{k}" for k in levels]
        halves = ["fused" if f"{stem}.conv2.1.weight" in tensors else "pooled" for stem in stems[:-1]] + [""]
        widths = [tensors[f"{stem}.conv1.0.conv.weight_orig"].shape[1] for stem in stems]
        widths[-1] -= 1
        widths.append(tensors["linear.linear.weight_orig"].shape[1])
        activated = "from_rgb.0.0.conv.weight_orig" in tensors
        alpha = case.number("alpha")
        module = load(
            lambda: Discriminator(widths, halves, activated=activated, step=step, alpha=alpha),
            tensors,
            unused=(r".*\.weight_flip",),
        )
        case.note("the discriminator's scores depend on the batch: one deviation over all of its images enters each")
        main = tuple(f"progression.{k}" for k in range(len(levels) - 1 - step, len(levels)))
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


def _trained(tensors: Mapping[str, Tensor], level: int) -> bool:
    """Whether training has touched that level: a bias that starts at zero is no longer zero."""
    stems = (f"generator.progression.{level}.conv", f"generator.to_rgb.{level}.")
    return any(name.startswith(stems) and name.endswith("bias") and bool(t.any()) for name, t in tensors.items())
