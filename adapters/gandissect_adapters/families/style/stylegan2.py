"""StyleGAN2 as NVlabs' PyTorch code has it (stylegan2-ada-pytorch, and networks_stylegan2.py of stylegan3).

gan = gandissect.open("network-snapshot-025000.pkl", assume={"truncation": "0.7"})
gan.generator.space("w+")
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from typing import ClassVar

from torch import Tensor

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.style.nvlabs import (
    OPTIONS,
    Mapping,
    StyleGenerator,
    check_activations,
    clamp_of,
    rate_of,
)
from gandissect_adapters.families.style.style_network import NOISE, give_truncation, style_spaces
from gandissect_adapters.families.style.stylegan2_nets import Discriminator, Epilogue, Layout, SynthesisNetwork
from gandissect_adapters.recognise.unwrap import Role, StateDict

NAME = "StyleGAN2 (NVlabs)"


class StyleGan2(Family):
    """Generators and discriminators in all three architectures, labelled or not."""

    name: ClassVar[str] = NAME
    source: ClassVar[str] = "Karras et al. 2020; NVlabs/stylegan2-ada-pytorch, NVlabs/stylegan3"
    options: ClassVar[Table[str, Option]] = {
        **OPTIONS,
        "noise": NOISE,
        "group": Option("samples of a minibatch statistic; all for the whole batch", "4", "the codebase's default"),
    }

    def role(self, net: StateDict) -> Role:
        """By ``synthesis.b4.const`` and ``b4.conv1.affine``, or by the epilogue ``b4.conv|fc|out``."""
        given = net.tensors
        if has(
            given,
            r"synthesis\.b4\.const",
            r"synthesis\.b4\.conv1\.affine\.weight",
            r"synthesis\.b4\.conv1\.resample_filter",
            r"synthesis\.b\d+\.torgb\.affine\.weight",
            r"mapping\.fc0\.weight",
        ):
            return "generator"
        ends = r"b4\.conv\.resample_filter", r"b4\.fc\.weight", r"b4\.out\.weight"
        if has(given, *ends, r"b\d+\.fromrgb\.weight", r"b8\.conv1\.resample_filter"):
            return "discriminator"
        return ""

    def generator(self, case: Case) -> Networks:
        """The averaged generator; its main layers are the last maps of each side."""
        given = case.tensors
        check_activations(case)
        layout = _generator_layout(case)
        rate = rate_of(case)

        def make() -> StyleGenerator:
            mapping = mapping_like(given, layout.w, rate=rate)
            return StyleGenerator(mapping, SynthesisNetwork(layout))

        module = load(make, given)
        give_truncation(case, module)
        side = max(layout.units)
        return Networks(
            generator=module,
            latent=LatentSpace("z", (latent_size(given),)),
            image_shape=(layout.channels, side, side),
            output_range=(-1.0, 1.0),
            num_classes=module.mapping.classes,
            inner=style_spaces(module),
            main_layers=tuple(
                f"synthesis.b{size}.{'sum' if layout.architecture == 'resnet' and size > 4 else 'conv1'}"
                for size in sorted(layout.units)
            ),
        )

    def discriminator(self, case: Case) -> Networks:
        """The discriminator; its main layers are what each side hands on."""
        given = case.tensors
        check_activations(case)
        layout = _discriminator_layout(case)
        labelled = "mapping.fc0.weight" in given
        spread = given["b4.conv.weight"].shape[1] - given["b4.conv.weight"].shape[0]
        group = _group(case) if spread else None
        rate = rate_of(case) if labelled else 1.0
        outputs = len(given["b4.out.weight"])

        def make() -> Discriminator:
            mapping = mapping_like(given, outputs, rate=rate, averaged=False) if labelled else None
            return Discriminator(layout, Epilogue(layout, spread=spread, group=group, outputs=outputs), mapping)

        module = load(make, given)
        end = "sum" if layout.architecture == "resnet" else "conv1"
        return Networks(
            discriminator=module,
            discriminator_output="logit",
            discriminator_classes=module.mapping.classes if labelled else 0,
            discriminator_layers=(*(f"b{side}.{end}" for side in module.sides[:-1]), "b4.conv", "b4.fc"),
        )


def latent_size(given: Table[str, Tensor]) -> int:
    """Z: what enters the mapping but the embedded label."""
    embedded = len(given["mapping.embed.weight"]) if "mapping.embed.weight" in given else 0
    return int(given["mapping.fc0.weight"].shape[1]) - embedded


def mapping_like(given: Table[str, Tensor], w: int, *, rate: float, averaged: bool = True) -> Mapping:
    """An empty mapping network of the sizes of ``mapping.*``."""
    depth = len(indices(given, r"mapping\.fc(\d+)\.weight"))
    embed = given.get("mapping.embed.weight")
    return Mapping(
        latent_size(given),
        w,
        depth,
        classes=0 if embed is None else embed.shape[1],
        embedding=0 if embed is None else len(embed),
        rate=rate,
        averaged=averaged,
        hidden=len(given["mapping.fc0.weight"]),
    )


def _generator_layout(case: Case) -> Layout:
    given = case.tensors
    sides = indices(given, r"synthesis\.b(\d+)\.conv1\.weight")
    heads = indices(given, r"synthesis\.b(\d+)\.torgb\.weight")
    if sides != [2**power for power in range(2, len(sides) + 2)]:
        raise NotOpened(f"the blocks of the generator have sides {sides}; expected 4, 8, 16 and so on")
    skips = indices(given, r"synthesis\.b(\d+)\.skip\.weight")
    noisy = "synthesis.b4.conv1.noise_const" in given
    return Layout(
        {side: len(given[f"synthesis.b{side}.conv1.weight"]) for side in sides},
        channels=len(given[f"synthesis.b{heads[-1]}.torgb.weight"]),
        w=int(given["synthesis.b4.conv1.affine.weight"].shape[1]),
        architecture="resnet" if skips else "skip" if heads == sides else "orig",
        clamp=clamp_of(case, "synthesis.b4.conv1"),
        noise=noisy and case.choice("noise", ("const", "zero")) == "const",
        noisy=noisy,
        taps=len(given["synthesis.b4.conv1.resample_filter"]),
    )


def _discriminator_layout(case: Case) -> Layout:
    given = case.tensors
    sides = [4, *indices(given, r"b(\d+)\.conv0\.weight")]
    if sides != [2**power for power in range(2, len(sides) + 2)]:
        raise NotOpened(f"the blocks of the discriminator have sides {sides}; expected 4, 8, 16 and so on")
    heads = indices(given, r"b(\d+)\.fromrgb\.weight")
    skips = indices(given, r"b(\d+)\.skip\.weight")
    return Layout(
        {side: given[f"b{side}.conv0.weight" if side > 4 else "b4.fc.weight"].shape[0] for side in sides},
        channels=int(given[f"b{sides[-1]}.fromrgb.weight"].shape[1]),
        architecture="resnet" if skips else "skip" if heads == sides else "orig",
        clamp=clamp_of(case, "b4.conv"),
        taps=len(given["b4.conv.resample_filter"]),
    )


def _group(case: Case) -> int | None:
    """Samples per minibatch statistic, None for all."""
    record = case.net.records.get("b4.mbstd")
    found = None if record is None else record.attributes.get("group_size", "all") or "all"
    value = case.option("group", found, "the pickle's b4.mbstd")
    return None if value == "all" else int(value)
