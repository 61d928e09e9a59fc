"""AnimeGANv2 in PyTorch: photographs to drawings.

gandissect.open("face_paint_512_v2.pt", assume={"size": "256"})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.images.image_input import image_latent, kernel_of, rows, size_option
from gandissect_adapters.recognise.unwrap import Role, StateDict

_STRIDED = ("block_a.1", "block_b.0")  # they halve the size and are padded on the right and at the bottom only


class ConvNormLeaky(nn.Sequential):
    """Reflected padding, convolution, normalisation over the whole map, LeakyReLU(0.2): [N, C, H, W] to [N, D, h, w]."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        out, group, side, _ = tensors[f"{name}.1.weight"].shape
        strided = name in _STRIDED
        deep = group == 1 and f"{name}.1.bias" in tensors
        conv = nn.Conv2d(
            out if deep else group, out, side, 2 if strided else 1, groups=out if deep else 1, bias=deep
        )  # fmt: skip
        pad = nn.ReflectionPad2d((0, 1, 0, 1) if strided else side // 2)
        super().__init__(pad, conv, nn.GroupNorm(1, out), nn.LeakyReLU(0.2))


class InvertedBlock(nn.Module):
    """Wider, one convolution per unit, narrower again; added to x where widths agree (Sandler et al. 2018)."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        wide, deep = ConvNormLeaky(tensors, f"{name}.layers.0"), ConvNormLeaky(tensors, f"{name}.layers.1")
        out, middle = tensors[f"{name}.layers.2.weight"].shape[:2]
        self.added = out == tensors[f"{name}.layers.0.1.weight"].shape[1]
        self.layers = nn.Sequential(wide, deep, nn.Conv2d(middle, out, 1, bias=False), nn.GroupNorm(1, out))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, D, H, W]."""
        change: Tensor = self.layers(x)
        return x + change if self.added else change


class AnimeGenerator(nn.Module):
    """Images [N, 3, H, W] in -1..1 to images of the same size (Chen et al. 2020)."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for letter in "abcde":
            block = f"block_{letter}"
            parts = [f"{block}.{k}" for k in indices(tensors, rf"{block}\.(\d+)\..*")]
            self.add_module(block, nn.Sequential(*(_part(tensors, part) for part in parts)))
        out, into = tensors["out_layer.0.weight"].shape[:2]
        self.out_layer = nn.Sequential(nn.Conv2d(into, out, 1, bias=False), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        part = self.get_submodule
        half = part("block_a")(images)
        x = part("block_c")(part("block_b")(half))
        x = F.interpolate(x, half.shape[2:], mode="bilinear", align_corners=True)
        x = F.interpolate(part("block_d")(x), images.shape[2:], mode="bilinear", align_corners=True)
        out: Tensor = self.out_layer(part("block_e")(x))
        return out


def _part(tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    inverted = f"{name}.layers.0.1.weight" in tensors
    return InvertedBlock(tensors, name) if inverted else ConvNormLeaky(tensors, name)


class AnimeGan(Family):
    """The generator of AnimeGANv2."""

    name: ClassVar[str] = "AnimeGANv2"
    source: ClassVar[str] = "Chen et al. 2020; bryandlee/animegan2-pytorch"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(128)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        fits = has(t, r"block_a\.0\.1\.weight", r"block_b\.1\.2\.weight", r"block_c\.1\.layers\.3\.weight",
                   r"block_e\.2\.1\.weight", r"out_layer\.0\.weight")  # fmt: skip
        return "generator" if fits and kernel_of(t, "block_a.0.1") == 7 and rows(t, "out_layer.0") == 3 else ""

    def generator(self, case: Case) -> Networks:
        module = load(lambda: AnimeGenerator(case.tensors), case.tensors)
        blocks = tuple(
            f"block_{letter}.{name}" for letter in "abcde" for name, _ in module.get_submodule(f"block_{letter}").named_children()
        )  # fmt: skip
        return Networks(
            generator=module,
            latent=image_latent(case, int(case.tensors["block_a.0.1.weight"].shape[1]), multiple=4),
            output_range=(-1.0, 1.0),
            main_layers=blocks,
        )
