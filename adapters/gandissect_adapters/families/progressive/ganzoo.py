"""pytorch_GAN_zoo: its progressive GAN and its DCGAN, in files of {config, netG, netD, avgG}.

GanZooProgressive().generator(case)    # alpha, activation and labels out of config, which is read as data
GanZooDcgan().discriminator(case)      # its Conv2d layers are called convTranspose, too
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar

from torch import Tensor

from gandissect.adapter import Networks
from gandissect.errors import UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.progressive.ganzoo_nets import (
    DcganDiscriminator,
    DcganGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
)
from gandissect_adapters.families.progressive.training import equalised, fraction
from gandissect_adapters.recognise.unwrap import Role, StateDict

_BARE = re.compile(
    r"((?:scaleLayers\.\d+|groupScale0|groupScaleZero|toRGBLayers|fromRGBLayers)\.\d+|formatLayer|decisionLayer)\."
)
_GENERATOR = re.compile(
    r"(scaleLayers\.\d+\.\d+|toRGBLayers\.\d+|groupScale0\.\d+|formatLayer)\.(module\.)?(weight|bias)"
)
_DISCRIMINATOR = re.compile(
    r"(scaleLayers\.\d+\.\d+|fromRGBLayers\.\d+|groupScaleZero\.\d+|decisionLayer)\.(module\.)?(weight|bias)"
)
_NORM = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
_DCGAN = re.compile(
    rf"(formatLayer|decisionLayer|main\.outlayer|main\.convTranspose\d+)\.weight|main\.batchNorm\d+{_NORM}"
)
_CLASSES = Option("number of labels that the generator takes, as one-hot values behind z", "0")
_OUTPUT = "what the image passes through at the end (linear, tanh)"


class GanZooProgressive(Family):
    """The progressive GAN of pytorch_GAN_zoo, with or without labels."""

    name: ClassVar[str] = "Progressive GAN (pytorch_GAN_zoo)"
    source: ClassVar[str] = "Karras et al. 2018; facebookresearch/pytorch_GAN_zoo"
    options: ClassVar[Mapping[str, Option]] = {
        "alpha": Option("weight of the resolution BEFORE the last one while that fades in, 0 to 1", "0"),
        "output": Option(_OUTPUT, "linear"),
        "leak": Option("slope of the LeakyReLU below zero", "0.2"),
        "equalised": Option("layers are scaled at run time (yes, no)", "yes"),
        "classes": _CLASSES,
    }

    def role(self, net: StateDict) -> Role:
        """By formatLayer and toRGBLayers, fromRGBLayers and groupScaleZero, where nothing else is there."""
        names = net.tensors
        if has(names, r"formatLayer\.(module\.)?weight", r"toRGBLayers\.0\.(module\.)?weight", r"groupScale0\.0\..*"):
            return "generator" if all(_GENERATOR.fullmatch(name) for name in names) else ""
        if has(names, r"fromRGBLayers\.0\..*", r"groupScaleZero\.1\..*", r"decisionLayer\.(module\.)?weight"):
            return "discriminator" if all(_DISCRIMINATOR.fullmatch(name) for name in names) else ""
        return ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = _full_names(case.tensors)
        widths = [
            tensors[f"toRGBLayers.{i}.module.weight"].shape[1] for i in indices(tensors, r"toRGBLayers\.(\d+)\..*")
        ]
        channels = tensors["toRGBLayers.0.module.bias"].shape[0]
        labels = _labels(case)
        latent = tensors["formatLayer.module.weight"].shape[1] - sum(labels)
        alpha, leak, scaled, tanh = _alpha(case, widths), _leak(case), _scaled(case), _tanh(case)
        module = load(
            lambda: ProgressiveGenerator(
                latent, labels, widths, channels, alpha=alpha, leak=leak, scaled=scaled, tanh=tanh
            ),
            tensors,
        )
        return Networks(
            generator=module,
            latent=LatentSpace("z", (latent,)),
            output_range=(-1.0, 1.0),
            num_classes=prod(labels) if labels else 0,
            main_layers=("groupScale0", *(f"scaleLayers.{index}" for index in range(len(widths) - 1))),
        )

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = _full_names(case.tensors)
        widths = [
            tensors[f"fromRGBLayers.{i}.module.bias"].shape[0] for i in indices(tensors, r"fromRGBLayers\.(\d+)\..*")
        ]
        channels = tensors["fromRGBLayers.0.module.weight"].shape[1]
        statistic = tensors["groupScaleZero.0.module.weight"].shape[1] == widths[0] + 1
        deciding = tensors["decisionLayer.module.bias"].shape[0]
        alpha, leak, scaled = _alpha(case, widths), _leak(case), _scaled(case)
        module = load(
            lambda: ProgressiveDiscriminator(
                channels, widths, deciding, statistic=statistic, alpha=alpha, leak=leak, scaled=scaled
            ),
            tensors,
        )
        main = tuple(f"scaleLayers.{index}" for index in reversed(range(len(widths) - 1)))
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


class GanZooDcgan(Family):
    """The DCGAN of pytorch_GAN_zoo, with or without labels."""

    name: ClassVar[str] = "DCGAN (pytorch_GAN_zoo)"
    source: ClassVar[str] = "Radford et al. 2016; facebookresearch/pytorch_GAN_zoo"
    options: ClassVar[Mapping[str, Option]] = {"output": Option(_OUTPUT, "tanh"), "classes": _CLASSES}

    def role(self, net: StateDict) -> Role:
        """By ``main.convTransposeK`` beside formatLayer and outlayer, or beside decisionLayer."""
        names = net.tensors
        if not all(_DCGAN.fullmatch(name) for name in names):
            return ""
        if has(names, r"formatLayer\.weight", r"main\.outlayer\.weight", r"main\.batchNorm0\.weight"):
            return "generator"
        found = has(names, r"decisionLayer\.weight", r"main\.convTranspose0\.weight", r"main\.batchNorm0\.weight")
        return "discriminator" if found else ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = case.tensors
        levels = indices(tensors, r"main\.batchNorm(\d+)\..*")
        widths = [tensors[f"main.batchNorm{index}.weight"].shape[0] for index in levels]
        labels, tanh = _labels(case), _tanh(case)
        latent = tensors["formatLayer.weight"].shape[0] - sum(labels)
        channels = tensors["main.outlayer.weight"].shape[1]
        module = load(lambda: DcganGenerator(latent, labels, widths, channels, tanh=tanh), tensors)
        return Networks(
            generator=module,
            latent=LatentSpace("z", (latent,)),
            output_range=(-1.0, 1.0),
            num_classes=prod(labels) if labels else 0,
            main_layers=tuple(f"main.relu{index}" for index in levels),
        )

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = case.tensors
        levels = sorted(indices(tensors, r"main\.convTranspose(\d+)\..*"), reverse=True)
        widths = [tensors[f"main.convTranspose{index}.weight"].shape[0] for index in levels]
        channels = tensors[f"main.convTranspose{levels[0]}.weight"].shape[1]
        deciding = tensors["decisionLayer.weight"].shape[0]
        module = load(lambda: DcganDiscriminator(channels, widths, deciding), tensors)
        main = tuple(f"main.relu{index}" for index in levels)
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


def _full_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names with ``module``, which older files leave out."""
    return {name if ".module." in name else _BARE.sub(r"\1.module.", name, count=1): t for name, t in tensors.items()}


def _number(case: Case, key: str) -> float | None:
    value = case.config.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _alpha(case: Case, widths: Sequence[int]) -> float:
    if len(widths) == 1:
        return 0.0
    return fraction(case, "alpha", _number(case, "alpha"), "config.alpha in the file")


def _leak(case: Case) -> float:
    return case.number("leak", _number(case, "leakyReluLeak"), "config.leakyReluLeak in the file")


def _scaled(case: Case) -> bool:
    said = case.config.get("equalizedlR")
    if isinstance(said, bool):
        return (
            case.choice("equalised", ("yes", "no"), "yes" if said else "no", "config.equalizedlR in the file") == "yes"
        )
    return case.choice("equalised", ("yes", "no"), equalised(case.tensors), "the spread of the weights") == "yes"


def _tanh(case: Case) -> bool:
    """Only the losses of least squares and cross entropy end the generator in a tanh."""
    config = case.config
    loss = config.get("lossCriterion") or config.get("lossMode")
    found = None if not isinstance(loss, str) else "tanh" if loss in ("MSE", "DCGAN") else "linear"
    return case.choice("output", ("linear", "tanh"), found, f"the loss in the file is {loss}") == "tanh"


def _labels(case: Case) -> tuple[int, ...]:
    """Number of values of each label, in the order in which they stand behind z."""
    wide = _number(case, "categoryVectorDim")
    known = case.config.get("attribKeysOrder")
    sizes: list[tuple[int, int]] = []
    if isinstance(known, Mapping) and wide:
        for entry in known.values():
            order, values = (entry.get("order"), entry.get("values")) if isinstance(entry, Mapping) else (None, None)
            if isinstance(order, int) and isinstance(values, Sequence):
                sizes.append((order, len(values)))
    labels = tuple(size for _order, size in sorted(sizes))
    if labels and sum(labels) == wide:
        case.option("classes", prod(labels), "config.attribKeysOrder in the file")
        return labels
    beside = _classes_of_discriminator(case)
    found = int(wide) if wide is not None else beside
    asked = case.whole(
        "classes", found, "config.categoryVectorDim" if wide is not None else "the decision layer's units"
    )
    if asked < 0:
        raise UsageError(f"--assume classes={asked} is negative")
    return (asked,) if asked else ()


def _classes_of_discriminator(case: Case) -> int | None:
    """Units of a decision layer in the same file beyond the score."""
    for net in case.beside:
        for name in ("decisionLayer.module.weight", "decisionLayer.weight"):
            if name in net.tensors:
                return net.tensors[name].shape[0] - 1
    return None
