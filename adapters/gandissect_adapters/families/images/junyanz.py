"""CycleGAN and pix2pix as junyanz/pytorch-CycleGAN-and-pix2pix writes them, and what is built like them.

gandissect.open("latest_net_G_A.pth", assume={"size": "256"})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.images.image_input import (
    Stack,
    activations_of,
    check_channels,
    image_latent,
    kernel_of,
    rows,
    size_option,
)
from gandissect_adapters.families.layers import Residual
from gandissect_adapters.recognise.unwrap import Role, StateDict

Norm = Literal["batch", "instance", "image", "none"]
_STATISTICS = Option(
    "where batch normalisation takes mean and variance from: running (as stored) or batch (each image's own)",
    "running",
    "eval mode; the repository's test.py uses each image's own unless --eval is given",
)
_STORED = r".*\.running_(mean|var)"


def norm_layer(kind: Norm, width: int) -> nn.Module:
    """A normalisation of ``width`` units; "image" has a batch norm's weights and each image's own statistics."""
    if kind == "batch":
        return nn.BatchNorm2d(width)
    return nn.Identity() if kind == "none" else nn.InstanceNorm2d(width, affine=kind == "image")


def norm_of(tensors: Mapping[str, Tensor], biased: str) -> Norm:
    """Batch norm has weights; without any, biases of the convolutions mean instance norm (its mean would swallow none)."""
    if any(tensor.dim() == 1 and name.endswith(".weight") for name, tensor in tensors.items()):
        return "batch"
    return "instance" if biased in tensors else "none"


@dataclass(frozen=True)
class ResnetPlan:
    """A ResNet translator in numbers.

    ``widths`` are units after the first convolution and after each downsampling. ``nearest``: upsampling is nearest
    neighbour and a convolution, else a transposed convolution. ``edge`` is what the 7×7 convolutions are padded with.
    """

    into: int
    widths: tuple[int, ...]
    out: int
    blocks: int
    norm: Norm
    dropout: bool = False
    block: str = "conv_block"
    nearest: bool = False
    edge: int = 3

    @property
    def biased(self) -> bool:
        """Convolutions before a norm that has no shift of its own have biases."""
        return self.norm == "instance"


def _resnet_block(plan: ResnetPlan) -> Residual:
    """Two reflected 3×3 convolutions (Johnson et al. 2016)."""
    width = plan.widths[-1]
    half, other = (
        [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=plan.biased), norm_layer(plan.norm, width)]
        for _ in range(2)
    )
    middle = [nn.ReLU(), nn.Dropout(0.5)] if plan.dropout else [nn.ReLU()]
    return Residual(plan.block, nn.Sequential(*half, *middle, *other))


class ResnetGenerator(nn.Module):
    """Images [N, C, H, W] in -1..1 to images of the same size: CycleGAN (Zhu et al. 2017), appendix 7.2."""

    def __init__(self, plan: ResnetPlan) -> None:
        super().__init__()
        first, biased = plan.widths[0], plan.biased
        layers: list[nn.Module] = [nn.ReflectionPad2d(plan.edge), nn.Conv2d(plan.into, first, 7, bias=biased)]
        layers += [norm_layer(plan.norm, first), nn.ReLU()]
        for wide, narrow in pairwise(plan.widths):
            layers += [nn.Conv2d(wide, narrow, 3, 2, 1, bias=biased), norm_layer(plan.norm, narrow), nn.ReLU()]
        layers += [_resnet_block(plan) for _ in range(plan.blocks)]
        for narrow, wide in pairwise(reversed(plan.widths)):
            if plan.nearest:
                layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(narrow, wide, 3, 1, 1, bias=biased)]
            else:
                layers.append(nn.ConvTranspose2d(narrow, wide, 3, 2, 1, output_padding=1, bias=biased))
            layers += [norm_layer(plan.norm, wide), nn.ReLU()]
        layers += [nn.ReflectionPad2d(plan.edge), nn.Conv2d(first, plan.out, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.model(images)
        return out


def resnet_plan(tensors: Mapping[str, Tensor], block: str) -> ResnetPlan:
    """The plan of ``model.K`` and ``model.K.<block>.*``, widths and counts read from the tensors."""
    blocks = indices(tensors, rf"model\.(\d+)\.{block}\..*")
    convs = [k for k in indices(tensors, r"model\.(\d+)\.weight") if tensors[f"model.{k}.weight"].dim() == 4]
    before = [k for k in convs if k < blocks[0]]
    second = f"model.{blocks[0]}.{block}.6.weight"
    return ResnetPlan(
        into=int(tensors["model.1.weight"].shape[1]),
        widths=tuple(rows(tensors, f"model.{k}") for k in before),
        out=rows(tensors, f"model.{convs[-1]}"),
        blocks=len(blocks),
        norm=norm_of(tensors, "model.1.bias"),
        dropout=second in tensors and tensors[second].dim() == 4,
        block=block,
    )


class JunyanzResnet(Family):
    """The generator ``resnet_9blocks`` or ``resnet_6blocks``; also aitorzip's CycleGAN and pix2pixHD's global generator."""

    name: ClassVar[str] = "CycleGAN ResNet (junyanz)"
    source: ClassVar[str] = "Zhu et al. 2017; junyanz/pytorch-CycleGAN-and-pix2pix"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(128), "statistics": _STATISTICS}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        fits = (
            has(t, r"model\.1\.weight", r"model\.\d+\.conv_block\.1\.weight", r"model\.\d+\.conv_block\.[56]\.weight")
            and all(re.fullmatch(r"model\.\d+\.(conv_block\.[12567]\.)?\w+", name) for name in t)
            and kernel_of(t, "model.1") == 7
            and "model.0.weight" not in t
        )
        return "generator" if fits else ""

    def generator(self, case: Case) -> Networks:
        plan = resnet_plan(case.tensors, "conv_block")
        plan, unused = _with_statistics(case, plan)
        module = load(lambda: ResnetGenerator(plan), case.tensors, unused=unused)
        return Networks(
            generator=module,
            latent=image_latent(case, plan.into, multiple=2 ** (len(plan.widths) - 1)),
            output_range=(-1.0, 1.0),
            main_layers=activations_of(module.model, "model"),
        )


def _with_statistics(case: Case, plan: ResnetPlan) -> tuple[ResnetPlan, tuple[str, ...]]:
    """``plan`` with the norm that was asked for, and which names of the file it leaves unused."""
    norm, unused = chosen_norm(case, plan.norm)
    return replace(plan, norm=norm), unused


def chosen_norm(case: Case, norm: Norm) -> tuple[Norm, tuple[str, ...]]:
    """Batch norm with the statistics that were asked for, and patterns of names that are then of no use.

    Instance norm of torch 0.3 stored statistics that it did not use.
    """
    if norm != "batch":
        return norm, (_STORED,)
    if case.choice("statistics", ("running", "batch")) == "running":
        return "batch", ()
    return "image", (_STORED,)


class UnetBlock(nn.Module):
    """One level of a U-Net around the next: [N, outer, H, W] to [N, 2·outer, H, W], activated input first, then what came up.

    The original activates its input in place, so what it skips to the decoder is the activated map.
    """

    def __init__(self, outer: int, inner: int, norm: Norm, inside: UnetBlock | None) -> None:
        super().__init__()
        biased, units = norm == "instance", inner * 2 if inside else inner
        down: list[nn.Module] = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=biased)]
        if inside:
            down += [norm_layer(norm, inner), inside]
        up = [nn.ReLU(), nn.ConvTranspose2d(units, outer, 4, 2, 1, bias=biased), norm_layer(norm, outer)]
        self.model = nn.Sequential(*down, *up)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        first, *rest = self.model
        skipped = y = first(x)
        for part in rest:
            y = part(y)
        return torch.cat([skipped, y], 1)


class UnetGenerator(nn.Module):
    """Images [N, C, H, W] in -1..1 to images of the same size: pix2pix (Isola et al. 2017), section 3.2.1.

    Args:
        into: channels that go in.
        widths: units of each level, outermost first.
        out: channels that come out.
        norm: of all levels but the outermost.
    """

    def __init__(self, into: int, widths: tuple[int, ...], out: int, norm: Norm) -> None:
        super().__init__()
        inside: UnetBlock | None = None
        for outer, inner in reversed(list(pairwise(widths))):
            inside = UnetBlock(outer, inner, norm, inside)
        assert inside is not None
        first = nn.Conv2d(into, widths[0], 4, 2, 1, bias=norm == "instance")
        last = nn.ConvTranspose2d(2 * widths[0], out, 4, 2, 1)
        self.model = Stack("model", [first, inside, nn.ReLU(), last, nn.Tanh()])

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.model(images)
        return out


def _unet_levels(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the Sequentials of a U-Net's levels, outermost first."""
    found, level = ["model.model"], "model.model.1.model"
    while f"{level}.1.weight" in tensors:
        found.append(level)
        level += ".3.model"
    return found


class JunyanzUnet(Family):
    """The generator ``unet_128`` or ``unet_256`` of pix2pix; the nesting tells the depth."""

    name: ClassVar[str] = "pix2pix U-Net (junyanz)"
    source: ClassVar[str] = "Isola et al. 2017; junyanz/pytorch-CycleGAN-and-pix2pix"
    options: ClassVar[Mapping[str, Option]] = {
        "size": Option("side of the input images", "256", "2 to the number of levels, the size it is made for"),
        "statistics": _STATISTICS,
    }

    def role(self, net: StateDict) -> Role:
        nested = has(
            net.tensors, r"model\.model\.0\.weight", r"model\.model\.1\.model\.1\.weight", r"model\.model\.3\.bias"
        )
        known = all(re.fullmatch(r"model\.model(\.[13]\.model)*\.\d\.\w+", name) for name in net.tensors)
        return "generator" if nested and known and kernel_of(net.tensors, "model.model.0") == 4 else ""

    def generator(self, case: Case) -> Networks:
        levels = _unet_levels(case.tensors)
        first = case.tensors["model.model.0.weight"]
        widths = (len(first), *(rows(case.tensors, f"{level}.1") for level in levels[1:]))
        out = int(case.tensors["model.model.3.weight"].shape[1])
        norm, unused = chosen_norm(case, norm_of(case.tensors, "model.model.0.bias"))
        module = load(lambda: UnetGenerator(int(first.shape[1]), widths, out, norm), case.tensors, unused=unused)
        side = 2 ** len(levels)
        case.options = {
            **case.options,
            "size": Option("side of the input images", str(side), "the size it is made for"),
        }
        middle = [f"{level}.{part}" for level in levels[1:-1] for part in (0, 6)]
        return Networks(
            generator=module,
            latent=image_latent(case, int(first.shape[1]), multiple=side),
            output_range=(-1.0, 1.0),
            main_layers=(*middle, *(f"{levels[-1]}.{part}" for part in (0, 2, 4))),
        )


class PatchDiscriminator(Stack):
    """Images [N, C, H, W] to a map of logits [N, 1, h, w], one for each patch (Isola et al. 2017, section 3.2.2)."""

    def __init__(self, name: str, into: int, widths: tuple[int, ...], norm: Norm) -> None:
        layers: list[nn.Module] = [nn.Conv2d(into, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for place, (before, width) in enumerate(pairwise(widths)):
            stride = 1 if place == len(widths) - 2 else 2
            conv = nn.Conv2d(before, width, 4, stride, 1, bias=norm == "instance")
            layers += [conv, norm_layer(norm, width), nn.LeakyReLU(0.2)]
        super().__init__(name, [*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1)])


def is_patch_discriminator(tensors: Mapping[str, Tensor], name: str) -> bool:
    """Whether ``tensors`` are a PatchGAN's in a Sequential called ``name``, by indices, kernels, widths and biases.

    A DCGAN's discriminator has the same indices, but no bias in its first layer or batch norm beside biases.
    """
    places = [k for k in indices(tensors, rf"{name}\.(\d+)\.weight") if tensors[f"{name}.{k}.weight"].dim() == 4]
    if len(places) < 4 or places != [0, *range(2, places[-1] + 1, 3)]:
        return False
    if any(not re.fullmatch(rf"{name}\.\d+\.\w+", key) for key in tensors):
        return False
    widths = [rows(tensors, f"{name}.{k}") for k in places]
    grown = [widths[0] * min(2**level, 8) for level in range(len(widths) - 1)]
    norm = norm_of(tensors, f"{name}.{places[1]}.bias")
    middle = [f"{name}.{k}.bias" in tensors for k in places[1:-1]]
    biases = all(middle) if norm == "instance" else norm == "batch" and not any(middle)
    ends = f"{name}.0.bias" in tensors and f"{name}.{places[-1]}.bias" in tensors
    kernels = {kernel_of(tensors, f"{name}.{k}") for k in places}
    return widths == [*grown, 1] and kernels == {4} and biases and ends


def patch_discriminator(tensors: Mapping[str, Tensor], name: str) -> PatchDiscriminator:
    """The PatchGAN in a Sequential called ``name``.

    Raises:
        NotOpened: it is none.
    """
    places = [k for k in indices(tensors, rf"{name}\.(\d+)\.weight") if tensors[f"{name}.{k}.weight"].dim() == 4]
    widths = tuple(rows(tensors, f"{name}.{k}") for k in places[:-1])
    norm = norm_of(tensors, f"{name}.{places[1]}.bias")
    into = int(tensors[f"{name}.0.weight"].shape[1])
    unused = (_STORED,) if norm == "instance" else ()
    return load(lambda: PatchDiscriminator(name, into, widths, norm), tensors, unused=unused)


class PatchGan(Family):
    """The discriminator ``basic`` or ``n_layers`` of junyanz, aitorzip's (which averages the map), and taming-transformers'."""

    name: ClassVar[str] = "PatchGAN discriminator"
    source: ClassVar[str] = "Isola et al. 2017; junyanz/pytorch-CycleGAN-and-pix2pix"
    options: ClassVar[Mapping[str, Option]] = {}

    def role(self, net: StateDict) -> Role:
        return "discriminator" if any(is_patch_discriminator(net.tensors, name) for name in ("model", "main")) else ""

    def generator(self, case: Case) -> Networks:
        raise AssertionError("this family has no generator")

    def discriminator(self, case: Case) -> Networks:
        name = next(iter(case.tensors)).partition(".")[0]
        check_channels(case, int(case.tensors[f"{name}.0.weight"].shape[1]))
        module = patch_discriminator(case.tensors, name)
        layers = activations_of(module.get_submodule(name), name)
        return Networks(discriminator=module, discriminator_layers=layers, discriminator_output="logit")
