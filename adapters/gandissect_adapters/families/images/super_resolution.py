"""Super-resolution generators: SRGAN (leftthomas), ESRGAN and Real-ESRGAN (xinntao) under old and new names, SRVGG.

gandissect.open("RealESRGAN_x4plus.pth").generator           # images of 64×64 in, 256×256 out
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.images.image_input import (
    Stack,
    activations_of,
    check_channels,
    image_latent,
    rows,
    size_option,
    spread,
)
from gandissect_adapters.recognise.unwrap import Role, StateDict

_BODY = (0, 2, 5, 8, 11, 14, 17, 20)  # the convolutions of SRGAN's discriminator; every second one has stride 2
_NORMS = (3, 6, 9, 12, 15, 18, 21)
DENSE_SHARE = 0.2
"""What ESRGAN adds of a block's result to its input."""


def is_srgan_body(tensors: Mapping[str, Tensor], name: str, heads: set[int]) -> bool:
    """Whether the layers with parameters of ``name`` are those of SRGAN's discriminator and the convolutions ``heads``."""
    convs = {k for k in indices(tensors, rf"{name}\.(\d+)\.weight") if tensors[f"{name}.{k}.weight"].dim() == 4}
    norms = set(indices(tensors, rf"{name}\.(\d+)\.running_mean"))
    return convs == {*_BODY, *heads} and norms == set(_NORMS) and tensors[f"{name}.0.weight"].shape[2:] == (3, 3)


def srgan_body(tensors: Mapping[str, Tensor], name: str) -> list[nn.Module]:
    """Eight 3×3 convolutions, every second of stride 2, batch norm after all but the first (Ledig et al. 2017, figure 4)."""
    layers: list[nn.Module] = []
    for place, k in enumerate(_BODY):
        out, into = tensors[f"{name}.{k}.weight"].shape[:2]
        layers.append(nn.Conv2d(into, out, 3, 1 + place % 2, 1))
        layers += [nn.BatchNorm2d(out)] if k else []
        layers.append(nn.LeakyReLU(0.2))
    return layers


class LeftthomasBlock(nn.Module):
    """x + two convolutions of it, [N, C, H, W] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        change: Tensor = self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))
        return x + change


class LeftthomasUpsample(nn.Module):
    """[N, C, H, W] to [N, C, 2H, 2W]: units become places (Shi et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(2)
        self.prelu = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.prelu(self.pixel_shuffle(self.conv(x)))
        return out


class LeftthomasGenerator(nn.Module):
    """Images [N, C, H, W] in 0..1 to images ``2 ** steps`` as large, in 0..1: SRGAN (Ledig et al. 2017)."""

    def __init__(self, channels: int, width: int, steps: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        for k in range(2, 7):
            self.add_module(f"block{k}", LeftthomasBlock(width))
        self.block7 = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        ups = [LeftthomasUpsample(width) for _ in range(steps)]
        self.block8 = nn.Sequential(*ups, nn.Conv2d(width, channels, 9, padding=4))

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        low = x = self.block1(images)
        for k in range(2, 8):
            x = self.get_submodule(f"block{k}")(x)
        return (torch.tanh(self.block8(low + x)) + 1) / 2


class LeftthomasDiscriminator(Stack):
    """Images [N, C, H, W] in 0..1 of any size to probabilities [N]."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        wide, before = tensors["net.24.weight"].shape[:2]
        ends = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(before, wide, 1), nn.LeakyReLU(0.2), nn.Conv2d(wide, 1, 1)]
        super().__init__("net", [*srgan_body(tensors, "net"), *ends])

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return torch.sigmoid(super().forward(x).flatten())


class Leftthomas(Family):
    """leftthomas/SRGAN, generator and discriminator."""

    name: ClassVar[str] = "SRGAN (leftthomas)"
    source: ClassVar[str] = "Ledig et al. 2017; leftthomas/SRGAN"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(64)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        if has(
            t, r"block1\.0\.weight", r"block6\.prelu\.weight", r"block7\.1\.running_mean", r"block8\.0\.conv\.weight"
        ):
            return "generator"
        heads = all(name.startswith("net.") for name in t)
        return "discriminator" if heads and is_srgan_body(t, "net", {24, 26}) and rows(t, "net.26") == 1 else ""

    def generator(self, case: Case) -> Networks:
        width, channels = case.tensors["block1.0.weight"].shape[:2]
        steps = len(indices(case.tensors, r"block8\.(\d+)\.conv\.weight"))
        module = load(lambda: LeftthomasGenerator(channels, width, steps), case.tensors)
        blocks = ("block1.1", *(f"block{k}" for k in range(2, 8)), *(f"block8.{k}" for k in range(steps)))
        return Networks(
            generator=module,
            latent=image_latent(case, channels, span=(0.0, 1.0)),
            output_range=(0.0, 1.0),
            main_layers=blocks,
        )

    def discriminator(self, case: Case) -> Networks:
        check_channels(case, int(case.tensors["net.0.weight"].shape[1]))
        module = load(lambda: LeftthomasDiscriminator(case.tensors), case.tensors)
        layers = activations_of(module.get_submodule("net"), "net")
        return Networks(discriminator=module, discriminator_layers=layers, discriminator_output="probability")


@dataclass(frozen=True)
class RrdbNames:
    """What the parts of an RRDB network are called in a file; ``ups`` are the convolutions behind upsampling."""

    trunk: str
    dense: str
    after: str
    ups: tuple[str, ...]
    high: str

    @property
    def outer(self) -> tuple[str, ...]:
        """The convolutions outside the trunk, in order of execution."""
        return ("conv_first", self.after, *self.ups, self.high, "conv_last")


XINNTAO = RrdbNames("RRDB_trunk", "RDB{}", "trunk_conv", ("upconv1", "upconv2"), "HRconv")
"""xinntao/ESRGAN since 2019."""
BASICSR = RrdbNames("body", "rdb{}", "conv_body", ("conv_up1", "conv_up2"), "conv_hr")
"""BasicSR and Real-ESRGAN."""


class DenseBlock(nn.Module):
    """x + 0.2 · the last of the convolutions ``parts``, each of which sees all before it: [N, C, H, W] to the same.

    Args:
        parts: name to convolution, in order of execution.
        lrelu: applied to what all but the last give; None where the parts do that themselves.
    """

    def __init__(self, parts: Mapping[str, nn.Module], lrelu: nn.Module | None = None) -> None:
        super().__init__()
        self.parts = tuple(parts)
        for name, part in parts.items():
            self.add_module(name, part)
        self.lrelu = lrelu

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        seen = x
        for name in self.parts[:-1]:
            new = self.get_submodule(name)(seen)
            seen = torch.cat([seen, new if self.lrelu is None else self.lrelu(new)], 1)
        change: Tensor = self.get_submodule(self.parts[-1])(seen)
        return x + change * DENSE_SHARE


class Rrdb(nn.Module):
    """x + 0.2 · three dense blocks in a row, under names of their own (Wang et al. 2018, figure 4)."""

    def __init__(self, width: int, growth: int, dense: str) -> None:
        super().__init__()
        for k in (1, 2, 3):
            convs = [nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, 1, 1) for i in range(5)]
            parts = {f"conv{i}": conv for i, conv in enumerate(convs, 1)}
            self.add_module(dense.format(k), DenseBlock(parts, nn.LeakyReLU(0.2)))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out = x
        for part in self.children():
            out = part(out)
        return x + out * DENSE_SHARE


class RrdbNet(nn.Module):
    """Images [N, C, H, W] in 0..1 to images ``scale`` as large, about 0..1: ESRGAN (Wang et al. 2018).

    Real-ESRGAN's networks for scales 2 and 1 start by turning places into units (``folded`` 2 and 4), and upsample by 4 as well.
    """

    def __init__(self, tensors: Mapping[str, Tensor], names: RrdbNames, folded: int) -> None:
        super().__init__()
        self.names, self.folded = names, folded
        width, growth = rows(tensors, "conv_first"), rows(tensors, f"{names.trunk}.0.{names.dense.format(1)}.conv1")
        for name in names.outer:
            out, into = tensors[f"{name}.weight"].shape[:2]
            self.add_module(name, nn.Conv2d(into, out, 3, 1, 1))
        blocks = indices(tensors, rf"{names.trunk}\.(\d+)\..*")
        self.add_module(names.trunk, nn.Sequential(*(Rrdb(width, growth, names.dense) for _ in blocks)))
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        part, names = self.get_submodule, self.names
        x = F.pixel_unshuffle(images, self.folded) if self.folded > 1 else images
        x = part("conv_first")(x)
        x = x + part(names.after)(part(names.trunk)(x))
        for name in names.ups:
            x = self.lrelu(part(name)(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        out: Tensor = part("conv_last")(self.lrelu(part(names.high)(x)))
        return out


_OLD = re.compile(r"model\.(?:(\d+)|1\.sub\.(\d+)(?:\.(RDB[123]\.conv[1-5])\.0)?)\.(weight|bias)")


def modern_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an ESRGAN file of 2018 (``model.1.sub.0.RDB1.conv1.0.weight``) under the names of 2019."""
    outer = [f"model.{k}" for k in indices(tensors, r"model\.(\d+)\.weight")]
    blocks = len(indices(tensors, r"model\.1\.sub\.(\d+)\.RDB1\..*"))
    ups = [f"upconv{k}" for k in range(1, len(outer) - 2)]
    new = dict(zip(outer, ["conv_first", *ups, "HRconv", "conv_last"], strict=True))
    new[f"model.1.sub.{blocks}"] = "trunk_conv"
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        module, _, field = name.rpartition(".")
        inside = re.fullmatch(r"model\.1\.sub\.(\d+)\.(RDB\d\.conv\d)\.0", module)
        target = f"RRDB_trunk.{inside[1]}.{inside[2]}" if inside else new.get(module)
        if target is None:
            raise NotOpened(f"the network is laid out like an old ESRGAN but has '{name}', which has no place in it")
        renamed[f"{target}.{field}"] = tensor
    return renamed


class Esrgan(Family):
    """RRDB networks: ESRGAN, BSRGAN, Real-ESRGAN."""

    name: ClassVar[str] = "ESRGAN RRDB"
    source: ClassVar[str] = "Wang et al. 2018, 2021; xinntao/ESRGAN, xinntao/BasicSR, xinntao/Real-ESRGAN"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(64)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        for names in (XINNTAO, BASICSR):
            block = rf"{names.trunk}\.0\.{names.dense.format(3)}\.conv5\.weight"
            if has(t, block, *(rf"{name}\.weight" for name in names.outer)):
                return "generator"
        old = all(_OLD.fullmatch(name) for name in t)
        return "generator" if old and has(t, r"model\.0\.weight", r"model\.1\.sub\.0\.RDB3\.conv5\.0\.weight") else ""

    def generator(self, case: Case) -> Networks:
        tensors = case.tensors
        if "model.0.weight" in tensors:
            tensors = modern_names(tensors)
            case.note("its layers are called as in the ESRGAN code of 2019, in which the file's names no longer exist")
        names = XINNTAO if "HRconv.weight" in tensors else BASICSR
        found = indices(tensors, r"upconv(\d+)\.weight")
        if names is XINNTAO:
            names = RrdbNames(names.trunk, names.dense, names.after, tuple(f"upconv{k}" for k in found), names.high)
        into, out = int(tensors["conv_first.weight"].shape[1]), rows(tensors, "conv_last")
        folded = isqrt(into // out)
        if into != folded**2 * out:
            raise NotOpened(f"an ESRGAN that turns {into} channels into {out} is none of those known; pass its class")
        module = load(lambda: RrdbNet(tensors, names, folded), tensors)
        trunk = spread([f"{names.trunk}.{k}" for k in indices(tensors, rf"{names.trunk}\.(\d+)\..*")])
        acts = ("lrelu", *(f"lrelu@{k}" for k in range(1, len(names.ups) + 1)))
        return Networks(
            generator=module,
            latent=image_latent(case, out, multiple=folded, span=(0.0, 1.0)),
            output_range=(0.0, 1.0),
            main_layers=("conv_first", *trunk, names.after, *acts),
        )


class SrvggNet(nn.Module):
    """Images [N, C, H, W] in 0..1 to images ``scale`` as large: what is missing to the enlarged input (SRVGGNetCompact)."""

    def __init__(self, widths: list[tuple[int, int]], scale: int) -> None:
        super().__init__()
        self.scale = scale
        *inner, last = (nn.Conv2d(into, out, 3, 1, 1) for into, out in widths)
        layers = [part for conv in inner for part in (conv, nn.PReLU(conv.out_channels))]
        self.body = nn.ModuleList([*layers, last])
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        x = images
        for part in self.body:
            x = part(x)
        out: Tensor = self.upsampler(x)
        return out + F.interpolate(images, scale_factor=float(self.scale), mode="nearest")


class Srvgg(Family):
    """The compact networks of Real-ESRGAN (realesr-animevideov3, realesr-general), those with PReLU."""

    name: ClassVar[str] = "Real-ESRGAN compact (SRVGG)"
    source: ClassVar[str] = "Wang et al. 2021; xinntao/Real-ESRGAN"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(64)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        places = indices(t, r"body\.(\d+)\.weight")
        if len(places) < 3 or places != list(range(len(places))) or len(places) % 2 == 0:
            return ""
        convs = all(t[f"body.{k}.weight"].shape[2:] == (3, 3) for k in places[::2])
        prelus = all(t[f"body.{k}.weight"].dim() == 1 and f"body.{k}.bias" not in t for k in places[1::2])
        known = all(re.fullmatch(r"body\.\d+\.(weight|bias)", name) for name in t)
        return "generator" if convs and prelus and known else ""

    def generator(self, case: Case) -> Networks:
        t = case.tensors
        shapes = [t[f"body.{k}.weight"].shape for k in indices(t, r"body\.(\d+)\.weight")[::2]]
        channels, out = int(shapes[0][1]), int(shapes[-1][0])
        scale = isqrt(out // channels)
        if out != scale**2 * channels:
            raise NotOpened(f"its last layer gives {out} units, which are no enlarged image of {channels} channels")
        module = load(lambda: SrvggNet([(s[1], s[0]) for s in shapes], scale), t)
        return Networks(
            generator=module,
            latent=image_latent(case, channels, span=(0.0, 1.0)),
            output_range=(0.0, 1.0),
            main_layers=spread([f"body.{2 * k + 1}" for k in range(len(shapes) - 1)]),
        )
