"""genforce's PGGAN, whose weights SeFa, InterFaceGAN, HiGAN and IDInvert share.

GenforcePgGan().generator(case)    # {generator, discriminator, generator_smooth}, or the models of a training run

References:
    Karras et al. 2018 (Progressive Growing of GANs).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil, floor, sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.layers import SQRT2, EqualConv2d, EqualLinear, MinibatchStd, PixelNorm, enlarge, fade
from gandissect_adapters.families.progressive.training import equalised
from gandissect_adapters.recognise.unwrap import Role, StateDict

_GENERATOR = re.compile(r"(layer|output)\d+\.(weight|bias)|lod")
_DISCRIMINATOR = re.compile(r"(layer|input)\d+\.(weight|bias)|lod")


class Block(EqualConv2d):
    """Pixel norm, perhaps twice the side, a convolution, an activation.

    Args:
        up: the side is doubled before the convolution.
        linear: no activation, and a gain of 1 instead of sqrt(2).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        padding: int,
        *,
        scaled: bool,
        up: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=padding, gain=1.0 if linear else SQRT2, scaled=scaled)
        self.pixel_norm = PixelNorm()
        self.upsample = nn.Upsample(scale_factor=2.0) if up else nn.Identity()
        self.activate = nn.Identity() if linear else nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H', W']."""
        out: Tensor = self.activate(super().forward(self.upsample(self.pixel_norm(x))))
        return out


class Judge(EqualConv2d):
    """Perhaps a minibatch statistic, a convolution that keeps the side, LeakyReLU, perhaps half the side."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, scaled: bool, down: bool = False, group: int = 0
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, gain=SQRT2, scaled=scaled)
        self.mbstd = MinibatchStd(group, whole=True) if group > 1 else nn.Identity()
        self.activate = nn.LeakyReLU(0.2)
        self.downsample = nn.AvgPool2d(2) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] to [N, outputs, H', W']; C is ``inputs`` less the statistic."""
        out: Tensor = self.downsample(self.activate(super().forward(self.mbstd(x))))
        return out


class Dense(EqualLinear):
    """A linear layer with LeakyReLU, or without and a gain of 1."""

    def __init__(self, inputs: int, outputs: int, *, scaled: bool, linear: bool = False) -> None:
        super().__init__(inputs, outputs, gain=1.0 if linear else SQRT2, scaled=scaled)
        self.activate = nn.Identity() if linear else nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, …] to [N, outputs]."""
        out: Tensor = self.activate(super().forward(x.flatten(1)))
        return out


class GenforceGenerator(nn.Module):
    """Two layers and a head per resolution; the level of detail says which heads make the image.

    Args:
        latent: size of z without the label.
        classes: number of labels, put as one-hot values behind the normalised z.
        widths: units of the layers at 4×4, 8×8, ….
        lod: level of detail: 0 is the full resolution, 1 half of it (enlarged), in between both are blended.
    """

    def __init__(
        self, latent: int, classes: int, widths: Sequence[int], channels: int, *, lod: float, tanh: bool, scaled: bool
    ) -> None:
        super().__init__()
        self.latent, self.classes, self.lod, self.blocks = latent, classes, lod, len(widths)
        for index, width in enumerate(widths):
            if index:
                first = Block(widths[index - 1], width, 3, 1, up=True, scaled=scaled)
            else:
                first = Block(latent + classes, width, 4, 3, scaled=scaled)
            self.add_module(f"layer{2 * index}", first)
            self.add_module(f"layer{2 * index + 1}", Block(width, width, 3, 1, scaled=scaled))
            self.add_module(f"output{index}", Block(width, channels, 1, 0, linear=True, scaled=scaled))
        self.latent_norm = PixelNorm()
        self.final_activate = nn.Tanh() if tanh else nn.Identity()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, latent] (and int64 [N]) to [N, channels, S, S], about -1..1."""
        x = self.latent_norm(z) * sqrt(self.latent)
        if labels is not None and self.classes:
            x = torch.cat([x, F.one_hot(labels, self.classes).to(x.dtype)], 1)
        below = x = x[:, :, None, None]
        finest = self.blocks - 1 - floor(self.lod)
        for index in range(finest + 1):
            below, x = x, self._part("layer", 2 * index + 1)(self._part("layer", 2 * index)(x))
        image: Tensor = self._part("output", finest)(x)
        if part := self.lod - floor(self.lod):
            image = fade(image, enlarge(self._part("output", finest - 1)(below)), 1.0 - part)
        for _ in range(floor(self.lod)):
            image = enlarge(image)
        final: Tensor = self.final_activate(image)
        return final

    def _part(self, kind: str, index: int) -> nn.Module:
        return self.get_submodule(f"{kind}{index}")


class GenforceDiscriminator(nn.Module):
    """Two layers and an input per resolution, from the largest down to 4×4, then two dense layers.

    Args:
        widths: units that the image becomes at the largest resolution, at half of it, …, at 4×4.
        deep: units of the dense layer.
        deciding: the score and one per label.
        group: images per group of the minibatch statistic; 0 for none.
        lod: level of detail, as in ``GenforceGenerator``.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], deep: int, deciding: int, *, group: int, lod: float, scaled: bool
    ) -> None:
        super().__init__()
        self.lod, self.blocks = lod, len(widths)
        for index, width in enumerate(widths):
            self.add_module(f"input{index}", Judge(channels, width, 1, scaled=scaled))
            if index + 1 < self.blocks:
                self.add_module(f"layer{2 * index}", Judge(width, width, 3, scaled=scaled))
                self.add_module(f"layer{2 * index + 1}", Judge(width, widths[index + 1], 3, down=True, scaled=scaled))
        last = 2 * self.blocks - 2
        self.add_module(f"layer{last}", Judge(widths[-1] + (group > 1), widths[-1], 3, group=group, scaled=scaled))
        self.add_module(f"layer{last + 1}", Dense(16 * widths[-1], deep, scaled=scaled))
        self.add_module(f"layer{last + 2}", Dense(deep, deciding, linear=True, scaled=scaled))

    def forward(self, images: Tensor) -> Tensor:
        """Scores, float32 [N, 1], of float32 [N, channels, S, S]; what it says of labels is left out."""
        start, part = floor(self.lod), self.lod - floor(self.lod)
        images = F.avg_pool2d(images, 2**start)
        x = self.get_submodule(f"input{start}")(images)
        for index in range(start, self.blocks):
            if index == start + 1 and part:
                x = fade(self.get_submodule(f"input{index}")(F.avg_pool2d(images, 2)), x, part)
            x = self.get_submodule(f"layer{2 * index + 1}")(self.get_submodule(f"layer{2 * index}")(x))
        out: Tensor = self.get_submodule(f"layer{2 * self.blocks}")(x)
        return out[:, :1]


class GenforcePgGan(Family):
    """PGGAN as genforce trains it and as it converted the original TensorFlow weights."""

    name: ClassVar[str] = "PGGAN (genforce)"
    source: ClassVar[str] = "Karras et al. 2018; genforce/genforce"
    options: ClassVar[Mapping[str, Option]] = {
        "lod": Option(
            "level of detail: 0 the full resolution, 1 half of it, in between blended", "0", "training is over"
        ),
        "classes": Option("number of labels that the generator takes, as one-hot values behind z", "0"),
        "output": Option("what the image passes through at the end (linear, tanh)", "linear"),
        "equalised": Option("weights are scaled at run time, use_wscale (yes, no)", "yes"),
        "group": Option("images per group of the discriminator's minibatch statistic", "16"),
    }

    def role(self, net: StateDict) -> Role:
        """By layerK and outputK, the first layer 4×4; by layerK and inputK, the last but one as wide as a 4×4 map."""
        names = net.tensors
        if not has(names, r"layer0\.weight", r"layer0\.bias", r"layer1\.weight"):
            return ""
        first = names["layer0.weight"]
        if all(_GENERATOR.fullmatch(name) for name in names) and has(names, r"output0\.weight"):
            return "generator" if first.dim() == 4 and first.shape[2] == 4 else ""
        if all(_DISCRIMINATOR.fullmatch(name) for name in names) and has(names, r"input0\.weight"):
            return "discriminator" if first.dim() == 4 and first.shape[2] == 3 else ""
        return ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = case.tensors
        blocks = indices(tensors, r"output(\d+)\..*")
        widths = [tensors[f"output{index}.weight"].shape[1] for index in blocks]
        for index in blocks[1:]:
            if tensors[f"layer{2 * index}.weight"].shape[0] != widths[index]:
                raise NotOpened("this PGGAN was trained with fused_scale, which cannot be rebuilt; save it without")
        channels = tensors["output0.bias"].shape[0]
        classes = case.whole("classes", _classes_beside(case), "the discriminator's last layer")
        latent = tensors["layer0.weight"].shape[1] - classes
        if not 0 <= classes < classes + latent:
            raise UsageError(f"--assume classes={classes} leaves no latent; the first layer takes {classes + latent}")
        lod, tanh = _lod(case, len(blocks)), case.choice("output", ("linear", "tanh")) == "tanh"
        scaled = _scaled(case)
        module = load(
            lambda: GenforceGenerator(latent, classes, widths, channels, lod=lod, tanh=tanh, scaled=scaled),
            tensors,
            unused=["lod"],
        )
        used = len(blocks) - floor(lod)
        return Networks(
            generator=module,
            latent=LatentSpace("z", (latent,)),
            output_range=(-1.0, 1.0),
            num_classes=classes,
            main_layers=tuple(f"layer{2 * index + 1}" for index in range(used)),
        )

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = case.tensors
        blocks = indices(tensors, r"input(\d+)\..*")
        widths = [tensors[f"input{index}.bias"].shape[0] for index in blocks]
        channels, last = tensors["input0.weight"].shape[1], 2 * len(blocks)
        appended = tensors[f"layer{last - 2}.weight"].shape[1] - widths[-1]
        group = case.whole("group") if appended else 0
        if appended and group < 2:
            raise UsageError(f"--assume group={group} is too few: the minibatch statistic needs 2 images")
        deep, deciding = tensors[f"layer{last - 1}.bias"].shape[0], tensors[f"layer{last}.bias"].shape[0]
        lod, scaled = _lod(case, len(blocks)), _scaled(case)
        module = load(
            lambda: GenforceDiscriminator(channels, widths, deep, deciding, group=group, lod=lod, scaled=scaled),
            tensors,
            unused=["lod"],
        )
        main = tuple(f"layer{2 * index + 1}" for index in range(floor(lod), len(blocks) - 1))
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


def _lod(case: Case, blocks: int) -> float:
    stored = case.tensors.get("lod")
    lod = case.number("lod", None if stored is None else float(stored), "lod in the file")
    if not 0.0 <= lod <= blocks - 1 or ceil(lod) > blocks - 1:
        raise UsageError(f"--assume lod={lod:g} is not between 0 and {blocks - 1}")
    return lod


def _scaled(case: Case) -> bool:
    return case.choice("equalised", ("yes", "no"), equalised(case.tensors), "the spread of the weights") == "yes"


def _classes_beside(case: Case) -> int | None:
    """Units of the last layer of a discriminator in the same file beyond the score."""
    for net in case.beside:
        if "input0.weight" in net.tensors:
            layers = indices(net.tensors, r"layer(\d+)\.bias")
            return net.tensors[f"layer{layers[-1]}.bias"].shape[0] - 1
    return None
