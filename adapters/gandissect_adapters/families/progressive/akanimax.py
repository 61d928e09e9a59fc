"""akanimax's two GANs: pro_gan_pytorch, which grows, and BMSG-GAN, which makes every resolution at once.

ProGan().generator(case)       # a file of {generator: {conf, state_dict}, discriminator: …, shadow_generator: …}
BmsgGan().discriminator(case)  # GAN_DIS_n.pth, also with the names that a DataParallel run leaves

The generators of both have the same names and, at the last resolution, the same formula but for one thing: pro_gan_pytorch
normalises z. ``conf`` in the file, a discriminator beside it and the widths tell which it is; where they do not, the option
``normalize-z`` is an assumption that the report shows.

References:
    Karras et al. 2018 (Progressive Growing of GANs); Karnewar & Wang 2020 (MSG-GAN).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch

from gandissect.adapter import Networks
from gandissect.errors import UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.progressive.akanimax_nets import (
    AkanimaxGenerator,
    BmsgDiscriminator,
    ProGanDiscriminator,
)
from gandissect_adapters.families.progressive.training import equalised, fraction, trained_side
from gandissect_adapters.recognise.unwrap import Role, StateDict

_PART = r"(weight|bias)"
_GENERATOR = re.compile(rf"(layers\.\d+\.conv_[12]|rgb_converters\.\d+)\.{_PART}")
_GROWING = re.compile(rf"(layers\.\d+\.conv_[123]|from_rgb\.\d+\.0)\.{_PART}|layers\.\d+\.label_embedder\.weight")
_MULTISCALE = re.compile(
    rf"((layers|rgb_to_features)\.\d+(\.module)?(\.conv_[12])?|final_converter|final_block\.conv_[123])\.{_PART}"
)
_NORMALIZE = "z is divided by its root mean square inside the generator (yes, no)"
_EQUALISED = Option("weights are scaled at run time, use_eql (yes, no)", "yes")


class ProGan(Family):
    """pro_gan_pytorch: grown resolution by resolution; the generator takes no labels, the discriminator may."""

    name: ClassVar[str] = "ProGAN (pro_gan_pytorch)"
    source: ClassVar[str] = "Karras et al. 2018; akanimax/pro_gan_pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "normalize-z": Option(_NORMALIZE, "yes"),
        "equalised": _EQUALISED,
        "resolution": Option("side of the images in pixels", "", "the largest that the network has"),
        "alpha": Option(
            "weight of the last resolution while it fades in, 0 to 1", "1", "training of it is taken as over"
        ),
    }

    def role(self, net: StateDict) -> Role:
        """Generators with ``conf`` or widths that BMSG-GAN's rule does not give; discriminators by ``from_rgb``."""
        if _is_generator(net):
            return "" if _is_multiscale(net) else "generator"
        names = net.tensors
        found = has(names, r"from_rgb\.0\.0\.weight", r"layers\.\d+\.conv_3\.weight", r"layers\.\d+\.conv_2\.weight")
        return "discriminator" if found and all(_GROWING.fullmatch(name) for name in names) else ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``."""
        sides = {
            2 ** (index + 2): [f"layers.{index}.conv_1.bias", f"layers.{index}.conv_2.bias"]
            for index in indices(case.tensors, r"layers\.(\d+)\..*")
        }
        side = trained_side(case.tensors, sides)
        because = "the largest there is" if side == max(sides) else "the biases above it were never trained"
        asked = case.whole("resolution", side, because)
        if asked not in sides:
            raise UsageError(f"--assume resolution={asked} is not one of {', '.join(map(str, sides))}")
        levels = asked.bit_length() - 2
        scaled = _scaled(case)
        if not scaled:
            case.note("plain layers do not show which resolutions were trained; --assume resolution=… if not all were")
        normalize = _yes(case, "normalize-z", "yes" if _conf(case.net) else None, "the file is pro_gan_pytorch's")
        alpha = fraction(case, "alpha") if levels > 1 else 1.0
        return _generator(case, levels, alpha, scaled=scaled, normalize=normalize)

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``; sized by the generator's images."""
        tensors = dict(case.tensors)
        widths = [tensors[f"from_rgb.{i}.0.bias"].shape[0] for i in indices(tensors, r"from_rgb\.(\d+)\..*")]
        last = len(widths) - 1
        levels = case.image_shape[1].bit_length() - 2 if case.image_shape else len(widths)
        embedding = tensors.get(f"layers.{last}.label_embedder.weight")
        classes = 0 if embedding is None else embedding.shape[0]
        if embedding is not None:  # as torch.nn.Embedding(max_norm=1) does when a row is looked up
            norms = embedding.norm(dim=1, keepdim=True)
            tensors[f"layers.{last}.label_embedder.weight"] = torch.where(
                norms > 1.0, embedding / (norms + 1e-7), embedding
            )
        if not 1 <= levels <= len(widths):
            raise UsageError(f"the discriminator takes images of up to {2 ** (len(widths) + 1)} px")
        scaled = _scaled(case)
        alpha = fraction(case, "alpha") if levels > 1 else 1.0
        deep, channels = tensors[f"layers.{last}.conv_2.bias"].shape[0], tensors["from_rgb.0.0.weight"].shape[1]
        module = load(
            lambda: ProGanDiscriminator(
                channels, widths, deep, levels=levels, alpha=alpha, classes=classes, scaled=scaled
            ),
            tensors,
        )
        main = tuple(f"layers.{index}" for index in range(len(widths) - levels, last))
        return Networks(
            discriminator=module, discriminator_output="logit", discriminator_layers=main, discriminator_classes=classes
        )


class BmsgGan(Family):
    """BMSG-GAN: every block of the generator makes a picture, and the discriminator sees them all."""

    name: ClassVar[str] = "MSG-GAN (BMSG-GAN)"
    source: ClassVar[str] = "Karnewar & Wang 2020; akanimax/BMSG-GAN"
    options: ClassVar[Mapping[str, Option]] = {
        "normalize-z": Option(
            _NORMALIZE,
            "no",
            "BMSG-GAN's generator and pro_gan_pytorch's have the same names; a bare state dict is what BMSG-GAN saves, "
            "pro_gan_pytorch's would normalise z",
        ),
        "equalised": _EQUALISED,
    }

    def role(self, net: StateDict) -> Role:
        """Bare generators whose widths follow BMSG-GAN's rule; discriminators by ``rgb_to_features``."""
        if _is_generator(net):
            return "generator" if _is_multiscale(net) else ""
        names = net.tensors
        found = has(
            names, r"rgb_to_features\.0(\.module)?\.weight", r"final_converter\.weight", r"final_block\.conv_3\.weight"
        )
        return "discriminator" if found and all(_MULTISCALE.fullmatch(name) for name in names) else ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``; the module gives the largest resolution, ``module.scales`` all of them."""
        seen = any(name.startswith("rgb_to_features") for name in _names_beside(case.file))
        normalize = _yes(case, "normalize-z", "no" if seen else None, "a discriminator of BMSG-GAN is in the file")
        levels = len(indices(case.tensors, r"layers\.(\d+)\..*"))
        return _generator(case, levels, 1.0, scaled=_scaled(case), normalize=normalize)

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``."""
        tensors = {re.sub(r"\.module\.", ".", name): tensor for name, tensor in case.tensors.items()}
        levels = indices(tensors, r"layers\.(\d+)\..*")
        widths = [
            (tensors[f"layers.{i}.conv_1.bias"].shape[0], tensors[f"layers.{i}.conv_2.bias"].shape[0]) for i in levels
        ]
        features = [tensors[f"rgb_to_features.{i}.bias"].shape[0] for i in levels]
        channels, bottom = tensors["final_converter.weight"].shape[1], tensors["final_converter.bias"].shape[0]
        scaled = _scaled(case)
        module = load(lambda: BmsgDiscriminator(channels, widths, features, bottom, scaled=scaled), tensors)
        case.note(
            "the discriminator wants the generator's images at all resolutions; here the smaller ones are averages of the largest, "
            "as for real images in training"
        )
        main = tuple(f"layers.{index}" for index in reversed(levels))
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


def _is_generator(net: StateDict) -> bool:
    first = net.tensors.get("layers.0.conv_1.weight")
    if first is None or first.dim() != 4 or first.shape[2:] != (4, 4):
        return False
    return has(net.tensors, r"rgb_converters\.0\.weight") and all(_GENERATOR.fullmatch(name) for name in net.tensors)


def _is_multiscale(net: StateDict) -> bool:
    """Whether a generator is to be read as BMSG-GAN's: no ``conf``, a discriminator that says so, or its rule of widths.

    The rule: as many units as z has, a power of two, up to 32×32, then half of it at every further resolution.
    """
    if _conf(net):
        return False
    beside = list(_names_beside(net.file))
    if any(name.startswith(("rgb_to_features", "from_rgb")) for name in beside):
        return any(name.startswith("rgb_to_features") for name in beside)
    latent = net.tensors["layers.0.conv_1.weight"].shape[0]
    blocks = indices(net.tensors, r"layers\.(\d+)\..*")
    widths = [net.tensors[name].numel() if (name := f"layers.{i}.conv_2.bias") in net.tensors else 0 for i in blocks]
    return latent.bit_count() == 1 and widths == [latent >> max(0, index - 3) for index in blocks]


def _names_beside(node: object, depth: int = 0) -> Iterator[str]:
    """Keys of a checkpoint's mapping and of the mappings in it."""
    if isinstance(node, Mapping) and depth < 5:
        for key, value in node.items():
            yield str(key).removeprefix("module.")
            yield from _names_beside(value, depth + 1)


def _conf(net: StateDict) -> Mapping[str, object]:
    """``conf`` beside the state dict of ``net``, empty where there is none."""
    node: object = net.file
    for part in net.name.split(".")[:-1]:
        node = node.get(part) if isinstance(node, Mapping) else None
    conf = node.get("conf") if isinstance(node, Mapping) else None
    return conf if isinstance(conf, Mapping) else {}


def _yes(case: Case, name: str, found: str | None, because: str) -> bool:
    return case.choice(name, ("yes", "no"), found, because) == "yes"


def _scaled(case: Case) -> bool:
    said = _conf(case.net).get("use_eql")
    if isinstance(said, bool):
        return _yes(case, "equalised", "yes" if said else "no", "use_eql in the file")
    return _yes(case, "equalised", equalised(case.tensors), "the spread of the weights")


def _generator(case: Case, levels: int, alpha: float, *, scaled: bool, normalize: bool) -> Networks:
    tensors = case.tensors
    latent = tensors["layers.0.conv_1.weight"].shape[0]
    blocks = indices(tensors, r"layers\.(\d+)\..*")
    widths = [tensors[f"layers.{index}.conv_2.bias"].shape[0] for index in blocks]
    channels = tensors["rgb_converters.0.bias"].shape[0]
    module = load(
        lambda: AkanimaxGenerator(
            latent, widths, channels, levels=levels, alpha=alpha, scaled=scaled, normalize=normalize
        ),
        tensors,
    )
    return Networks(
        generator=module,
        latent=LatentSpace("z", (latent,)),
        output_range=(-1.0, 1.0),
        main_layers=tuple(f"layers.{index}" for index in range(levels)),
    )
