"""rosinality's progressive-gan-pytorch: whole pickled modules (read as data) or their state dicts.

RosinalityProGan().generator(case)     # 010000.model; resolution and alpha are options

References:
    Karras et al. 2018 (Progressive Growing of GANs); Odena et al. 2017 (AC-GAN) for the labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.adapter import Networks
from gandissect.errors import UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.layers import SQRT2, EqualConv2d, PixelNorm, enlarge, fade
from gandissect_adapters.families.progressive.training import fraction, trained_side
from gandissect_adapters.recognise.unwrap import Role, StateDict

_PART = r"(weight|bias)"
_CONV = r"conv\.(bias|weight_orig)"
_GENERATOR = re.compile(rf"progression\.\d+\.conv\.[03]\.{_CONV}|to_rgb\.\d+\.{_PART}|label_embed\.weight")
_DISCRIMINATOR = re.compile(rf"progression\.\d+\.conv\.[02]\.{_CONV}|from_rgb\.\d+\.{_PART}|linear\.{_PART}")


class Pair(nn.Module):
    """``conv``: two convolutions, each with pixel norm where ``norm`` says so, and LeakyReLU.

    Args:
        kernels, paddings: of both.
    """

    def __init__(
        self, inputs: int, outputs: int, kernels: tuple[int, int], paddings: tuple[int, int], *, norm: bool
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for width, kernel, padding in zip((inputs, outputs), kernels, paddings, strict=True):
            parts.append(EqualConv2d(width, outputs, kernel, padding=padding, gain=SQRT2))
            parts += [PixelNorm(), nn.LeakyReLU(0.2)] if norm else [nn.LeakyReLU(0.2)]
        self.conv = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H', W']."""
        out: Tensor = self.conv(x)
        return out


class RosinalityGenerator(nn.Module):
    """z, normalised, and its label's vector through one pair of convolutions per resolution.

    Args:
        labels: number of labels.
        embedded: size of a label's vector.
        widths: inputs of the first pair, then units of each.
        step: the resolution that makes the image, 0 for 4×4.
        alpha: weight of its picture against that of the resolution before, both made of the enlarged map.
    """

    def __init__(
        self, labels: int, embedded: int, widths: Sequence[int], channels: int, *, step: int, alpha: float
    ) -> None:
        super().__init__()
        self.label_embed = nn.Embedding(labels, embedded)
        self.code_norm = PixelNorm()
        self.progression = nn.ModuleList(
            Pair(a, b, (3, 3) if index else (4, 3), (1, 1) if index else (3, 1), norm=True)
            for index, (a, b) in enumerate(pairwise(widths))
        )
        self.to_rgb = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths[1:])
        self.step, self.alpha = step, alpha

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """float32 [N, D] and int64 [N] to [N, channels, S, S], about -1..1, S = 4 · 2 ** step."""
        enlarged = x = torch.cat([self.code_norm(z), self.label_embed(labels)], 1)[:, :, None, None]
        for index in range(self.step + 1):
            enlarged = enlarge(x) if index else x
            x = self.progression[index](enlarged)
        picture: Tensor = self.to_rgb[self.step](x)
        if self.step == 0 or self.alpha == 1.0:
            return picture
        return fade(picture, self.to_rgb[self.step - 1](enlarged), self.alpha)


class RosinalityDiscriminator(nn.Module):
    """The mirror of the generator; the spread of the images over the batch is appended as a map at 4×4.

    Args:
        widths: units that the image becomes at the largest resolution, …, at 4×4, then units of the last pair.
        deciding: the score and one per label.
        step: the resolution of its images, 0 for 4×4.
        alpha: weight of that resolution against the next smaller one.
    """

    def __init__(self, channels: int, widths: Sequence[int], deciding: int, *, step: int, alpha: float) -> None:
        super().__init__()
        blocks = [Pair(a, b, (3, 3), (1, 1), norm=False) for a, b in pairwise(widths[:-1])]
        blocks.append(Pair(widths[-2] + 1, widths[-1], (3, 4), (1, 0), norm=False))
        self.progression = nn.ModuleList(blocks)
        self.from_rgb = nn.ModuleList(nn.Conv2d(channels, width, 1) for width in widths[:-1])
        self.linear = nn.Linear(widths[-1], deciding)
        self.first, self.alpha = len(blocks) - 1 - step, alpha

    def judged(self, images: Tensor) -> Tensor:
        """Score and class logits, float32 [N, 1 + labels], of float32 [N, channels, S, S]."""
        last = len(self.progression) - 1
        x = self.from_rgb[self.first](images)
        for index in range(self.first, last):
            x = F.avg_pool2d(self.progression[index](x), 2)
            if index == self.first and self.alpha != 1.0:
                x = fade(x, self.from_rgb[index + 1](F.avg_pool2d(images, 2)), self.alpha)
        spread = images.std(0).mean() if len(images) > 1 else images.new_zeros(())
        x = self.progression[last](torch.cat([x, spread.expand(len(x), 1, 4, 4)], 1))
        out: Tensor = self.linear(x.flatten(1))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Scores, float32 [N], of float32 [N, channels, S, S]; what it says of labels is left out."""
        return self.judged(images)[:, 0]


class RosinalityProGan(Family):
    """progressive-gan-pytorch: six resolutions in the file, of which training has reached some."""

    name: ClassVar[str] = "Progressive GAN (rosinality)"
    source: ClassVar[str] = "Karras et al. 2018; rosinality/progressive-gan-pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "resolution": Option("side of the images in pixels", "", "the largest that was trained"),
        "alpha": Option(
            "weight of the last resolution while it fades in, 0 to 1", "1", "training of it is taken as over"
        ),
    }

    def role(self, net: StateDict) -> Role:
        """By label_embed, progression and to_rgb; by progression, from_rgb and linear; nothing else."""
        names = net.tensors
        if has(names, r"label_embed\.weight", r"progression\.0\.conv\.3\.conv\.weight_orig", r"to_rgb\.0\.weight"):
            return "generator" if all(_GENERATOR.fullmatch(name) for name in names) else ""
        if has(names, r"linear\.weight", r"progression\.0\.conv\.2\.conv\.weight_orig", r"from_rgb\.0\.weight"):
            return "discriminator" if all(_DISCRIMINATOR.fullmatch(name) for name in names) else ""
        return ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = _plain_names(case.tensors)
        levels = indices(tensors, r"to_rgb\.(\d+)\..*")
        sides = {4 << i: [f"progression.{i}.conv.0.bias", f"progression.{i}.conv.3.bias"] for i in levels}
        side = trained_side(tensors, sides)
        because = "the largest there is" if side == max(sides) else "the biases above it were never trained"
        asked = case.whole("resolution", side, because)
        if asked not in sides:
            raise UsageError(f"--assume resolution={asked} is not one of {', '.join(map(str, sides))}")
        step = asked.bit_length() - 3
        alpha = fraction(case, "alpha") if step else 1.0
        labels, embedded = tensors["label_embed.weight"].shape
        first = tensors["progression.0.conv.0.weight"].shape[1]
        widths = [first, *(tensors[f"to_rgb.{index}.weight"].shape[1] for index in levels)]
        channels = tensors["to_rgb.0.bias"].shape[0]
        module = load(lambda: RosinalityGenerator(labels, embedded, widths, channels, step=step, alpha=alpha), tensors)
        return Networks(
            generator=module,
            latent=LatentSpace("z", (first - embedded,)),
            output_range=(-1.0, 1.0),
            num_classes=labels,
            main_layers=tuple(f"progression.{index}" for index in range(step + 1)),
        )

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``; sized by the generator's images."""
        tensors = _plain_names(case.tensors)
        levels = indices(tensors, r"from_rgb\.(\d+)\..*")
        widths = [tensors[f"from_rgb.{index}.bias"].shape[0] for index in levels]
        widths.append(tensors[f"progression.{levels[-1]}.conv.2.bias"].shape[0])
        channels, deciding = tensors["from_rgb.0.weight"].shape[1], tensors["linear.bias"].shape[0]
        step = case.image_shape[1].bit_length() - 3 if case.image_shape else len(levels) - 1
        if not 0 <= step < len(levels):
            raise UsageError(f"the discriminator takes images of up to {4 << (len(levels) - 1)} px")
        alpha = fraction(case, "alpha") if step else 1.0
        module = load(lambda: RosinalityDiscriminator(channels, widths, deciding, step=step, alpha=alpha), tensors)
        main = tuple(f"progression.{index}" for index in range(len(levels) - 1 - step, len(levels) - 1))
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``….conv.0.conv.weight_orig`` as ``….conv.0.weight``: the scaling is the layer's own here."""
    return {re.sub(r"(\.conv\.\d)\.conv\.(bias|weight)(_orig)?$", r"\1.\2", name): t for name, t in tensors.items()}
