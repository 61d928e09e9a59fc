"""The FastGAN generators of Projected GAN (Sauer et al. 2021), light and big, with classes and without.

gan = gandissect.open("best_model.pkl")
gan.generator.module(z, labels)         # z [N, Z]; labels [N] where the file embeds classes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.fast.ops import (
    UNFED,
    Excite,
    First,
    Glu,
    Noise,
    gated_up,
    noisy_up,
)
from gandissect_adapters.families.norms import GainNorm
from gandissect_adapters.recognise.unwrap import Role, StateDict

_GATES = {64: 4, 128: 8, 256: 16, 512: 32}  # side of the gated map -> side of the map that gates it


class LightClassUp(nn.Module):
    """Twice the size, then one gated convolution normalised by class."""

    def __init__(self, inputs: int, units: int, embedded: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)
        self.conv = nn.Conv2d(inputs, 2 * units, 3, 1, 1, bias=False)
        self.bn = GainNorm(2 * units, condition=embedded, biased=True)
        self.act = Glu()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, inputs, H, W] and an embedded class [N, Z] to [N, units, 2 H, 2 W]."""
        out: Tensor = self.act(self.bn(self.conv(self.up(x)), y))
        return out


class BigClassUp(nn.Module):
    """As ``LightClassUp`` with two convolutions; both add the one noise layer's map."""

    def __init__(self, inputs: int, units: int, embedded: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)
        self.conv1 = nn.Conv2d(inputs, 2 * units, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(units, 2 * units, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = (
            GainNorm(2 * units, condition=embedded, biased=True),
            GainNorm(2 * units, condition=embedded, biased=True),
        )
        self.act = Glu()
        self.noise = Noise()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, inputs, H, W] and an embedded class [N, Z] to [N, units, 2 H, 2 W]."""
        x = self.act(self.bn1(self.noise(self.conv1(self.up(x))), y))
        out: Tensor = self.act(self.bn2(self.noise(self.conv2(x)), y))
        return out


class Synthesis(nn.Module):
    """z [N, Z] and, with classes, labels int64 [N] to images [N, C, S, S], without a squashing at the end.

    Blocks above ``size`` are in the files and take no part.
    """

    def __init__(self, tensors: Mapping[str, Tensor], size: int) -> None:
        super().__init__()
        self.size = size
        first = tensors["synthesis.init.init.0.weight"]
        self.init = First(first.shape[0], first.shape[1] // 2)
        self.embed: nn.Embedding | None = None
        if (table := tensors.get("synthesis.embed.weight")) is not None:
            self.embed = nn.Embedding(len(table), table.shape[1])
        for side in _sides(tensors):
            self.add_module(f"feat_{side}", _block(tensors, f"synthesis.feat_{side}.", self.embed))
        for side in indices(tensors, r"synthesis\.se_(\d+)\.main\.1\.weight"):
            rows, columns = tensors[f"synthesis.se_{side}.main.1.weight"].shape[:2]
            self.add_module(f"se_{side}", Excite(columns, rows))
        last = tensors["synthesis.to_big.weight"]
        self.to_big = nn.Conv2d(last.shape[1], len(last), 3, 1, 1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the class says."""
        y = None if self.embed is None else self.embed(labels)
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)  # Karras et al. 2018: onto the hypersphere
        maps = {4: self.init(z)}
        side = 8
        while side <= self.size:
            block = self.get_submodule(f"feat_{side}")
            x = block(maps[side // 2]) if y is None else block(maps[side // 2], y)
            maps[side] = self.get_submodule(f"se_{side}")(maps[_GATES[side]], x) if side in _GATES else x
            side *= 2
        out: Tensor = self.to_big(maps[self.size])
        return out


def _sides(tensors: Mapping[str, Tensor]) -> list[int]:
    return indices(tensors, r"synthesis\.feat_(\d+)\..*")


def _block(tensors: Mapping[str, Tensor], path: str, embed: nn.Embedding | None) -> nn.Module:
    weight = next(
        tensors[path + name] for name in ("1.weight", "conv.weight", "conv1.weight") if path + name in tensors
    )
    inputs, units = weight.shape[1], len(weight) // 2
    if embed is not None:
        big = f"{path}conv2.weight" in tensors
        return (BigClassUp if big else LightClassUp)(inputs, units, embed.embedding_dim)
    return (noisy_up if f"{path}5.weight" in tensors else gated_up)(inputs, units)


class Generator(nn.Module):
    """As ``Synthesis``, under the names of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], size: int) -> None:
        super().__init__()
        self.synthesis = Synthesis(tensors, size)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the class says."""
        out: Tensor = self.synthesis(z, labels)
        return out


class ProjectedFastGan(Family):
    """``pg_modules.networks_fastgan.Generator`` of autonomousvision/projected-gan, read from its pickle or a state dict."""

    name: ClassVar[str] = "Projected GAN (FastGAN)"
    source: ClassVar[str] = "Sauer et al. 2021; autonomousvision/projected-gan"
    options: ClassVar[Mapping[str, Option]] = {
        "classes": Option(
            "number of classes that were trained", "0", "the embedding has room for 1000 whatever was trained"
        ),
    }
    transposed: ClassVar[str] = r"synthesis\.init\.init\.0\.weight"

    def role(self, net: StateDict) -> Role:
        """By the first map's layer, a gate and the image layer with a bias, all under ``synthesis``."""
        stem = r"(weight|weight_orig)"
        marks = (
            rf"synthesis\.init\.init\.0\.{stem}",
            rf"synthesis\.se_256\.main\.3\.{stem}",
            r"synthesis\.feat_256\..*",
        )
        return "generator" if has(net.tensors, *marks, r"synthesis\.to_big\.bias") else ""

    def generator(self, case: Case) -> Networks:
        """As ``Family`` says; noise is zero until it is fed."""
        tensors = case.tensors
        size = _size(case)
        module = load(lambda: Generator(tensors, size), tensors)
        if has(tensors, r".*\.noise\.weight|.*\.feat_8\.6\.weight"):
            case.note(UNFED)
        if any(other.role == "discriminator" for other in case.beside):
            case.note("the discriminator looks at the features of a pretrained network, which is not rebuilt")
        sides = [side for side in _sides(tensors) if side <= size]
        names = [f"synthesis.se_{side}" if side in _GATES else f"synthesis.feat_{side}" for side in sides]
        return Networks(
            generator=module,
            latent=LatentSpace("z", (tensors["synthesis.init.init.0.weight"].shape[0],)),
            output_range=(-1.0, 1.0),
            num_classes=self._classes(case),
            main_layers=("synthesis.init", *names),
        )

    def _classes(self, case: Case) -> int:
        table = case.tensors.get("synthesis.embed.weight")
        if table is None:
            return 0
        said = case.net.records[""].attributes.get("c_dim") if "" in case.net.records else None
        wanted = case.whole("classes", said if isinstance(said, int) and said else None, "the module's c_dim")
        return min(wanted, len(table)) or len(table)


def _size(case: Case) -> int:
    """Side of the images: the module's own, else by the width that the image layer takes.

    Raises:
        NotOpened: below 128 pixels, where the codebase's own forward fails.
    """
    tensors, record = case.tensors, case.net.records.get("synthesis")
    said = record.attributes.get("img_resolution") if record else None
    if isinstance(said, int) and said >= 128:
        return said
    sides = _sides(tensors)
    if max(sides) > 256:
        return max(sides)
    width = tensors["synthesis.to_big.weight"].shape[1]
    for side in (256, 128):
        if tensors[f"synthesis.se_{side}.main.3.weight"].shape[0] == width:
            return side
    raise NotOpened(
        f"the image layer takes {width} units, which no map from 128 pixels on has; the codebase cannot run it either"
    )
