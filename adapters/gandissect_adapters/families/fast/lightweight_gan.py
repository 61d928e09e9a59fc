"""Lightweight GAN (lucidrains), after Liu et al. 2021: pixel-shuffle up blocks, skip-layer excitation, attention.

gan = gandissect.open("model_100.pt")
feed_noise(gan.generator.module, maps)      # the codebase draws it anew for every image; here it is zero until fed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, has, indices, load
from gandissect_adapters.families.fast.lightweight_ops import (
    Attention,
    Branches,
    FrequencyGate,
    GlobalContext,
    Shuffled,
)
from gandissect_adapters.families.fast.ops import UNFED, Glu, Noise
from gandissect_adapters.families.layers import MirrorBlur, Residual
from gandissect_adapters.recognise.unwrap import Role, StateDict

_SIDE = 4
_SKIP = 3  # the gate that entry k opens is for the map of entry k + 3, eight times as large
_SMALL = 32


def _parts(entries: Mapping[str, nn.Module | None]) -> nn.ModuleDict:
    return nn.ModuleDict({name: entry for name, entry in entries.items() if entry is not None})


class Generator(nn.Module):
    """z [N, Z] to images [N, C, S, S] in 0..1, without a squashing at the end.

    Entry k of ``layers``: "0" doubles the size, "1" opens the gate of entry k + 3, "2" attends before both.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        first, last = tensors["initial_conv.0.weight"], tensors["out_conv.weight"]
        self.initial_conv = nn.Sequential(
            nn.ConvTranspose2d(first.shape[0], first.shape[1], _SIDE), nn.BatchNorm2d(first.shape[1]), Glu()
        )
        self.layers = nn.ModuleList([_entry(tensors, f"layers.{index}.") for index in _entries(tensors)])
        self.out_conv = nn.Conv2d(last.shape[1], len(last), 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        x = F.normalize(self.initial_conv(z[:, :, None, None]), dim=1)
        gates: dict[int, Tensor] = {}
        for index, entry in enumerate(self.layers):
            assert isinstance(entry, nn.ModuleDict)
            if "2" in entry:
                x = x + entry["2"](x)
            x = entry["0"](x)
            if "1" in entry:
                gates[index + _SKIP] = entry["1"](x)
            if index in gates:
                x = x * gates[index]
        out: Tensor = self.out_conv(x)
        return out


def _entries(tensors: Mapping[str, Tensor]) -> range:
    return range(max(indices(tensors, r"layers\.(\d+)\..*")) + 1)


def _entry(tensors: Mapping[str, Tensor], path: str) -> nn.ModuleDict:
    shuffle, mix = tensors[f"{path}0.0.net.0.weight"], tensors[f"{path}0.2.1.weight"]
    up = nn.Sequential(
        Shuffled(shuffle),
        MirrorBlur(),
        nn.Sequential(nn.ZeroPad2d((2, 1, 2, 1)), nn.Conv2d(mix.shape[1], len(mix), 4)),
        Noise(),
        nn.BatchNorm2d(len(mix)),
        Glu(),
    )
    gate: nn.Module | None = None
    if f"{path}1.dct_weights" in tensors:
        gate = FrequencyGate(tensors, f"{path}1.")
    elif f"{path}1.to_k.weight" in tensors:
        gate = GlobalContext(tensors, f"{path}1.")
    return _parts({"0": up, "1": gate, "2": Attention(tensors, f"{path}2.") if f"{path}2.norm.g" in tensors else None})


class Discriminator(nn.Module):
    """Images [N, C, S, S] in 0..1 to logits [N, 2]: the mean over the map's places, and the one of a 32-pixel copy.

    The codebase's loss counts both halves alike; ``logits`` gives them apart.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        plain = indices(tensors, r"non_residual_layers\.(\d+)\..*")
        self.non_residual_layers = nn.Sequential(
            *(_halved(tensors[f"non_residual_layers.{index}.1.weight"]) for index in plain)
        )
        self.residual_layers = nn.ModuleList()
        for index in indices(tensors, r"residual_layers\.(\d+)\..*"):
            path = f"residual_layers.{index}."
            attends = Attention(tensors, f"{path}1.") if f"{path}1.norm.g" in tensors else None
            self.residual_layers.append(_parts({"0": Branches(tensors, f"{path}0."), "1": attends}))
        self.to_logits = _head(tensors)
        entry, last = (tensors[f"to_shape_disc_out.{index}.weight"] for index in (0, 5))
        self.to_shape_disc_out = nn.Sequential(
            nn.Conv2d(entry.shape[1], len(entry), 3, padding=1),
            Residual("fn", Attention(tensors, "to_shape_disc_out.1.fn.")),
            Branches(tensors, "to_shape_disc_out.2."),
            Residual("fn", Attention(tensors, "to_shape_disc_out.3.fn.")),
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(last.shape[1], 1, 4),
        )

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 25] (or [N, 1]) of the images, and [N, 1, 1, 1] of every S/32-th pixel of them."""
        x = self.non_residual_layers(images)
        for entry in self.residual_layers:
            assert isinstance(entry, nn.ModuleDict)
            x = entry["0"](x + entry["1"](x) if "1" in entry else x)
        return self.to_logits(x).flatten(1), self.to_shape_disc_out(F.interpolate(images, size=_SMALL))

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        whole, small = self.logits(images)
        return torch.stack([whole.mean(1), small.flatten(1).mean(1)], 1)


def _halved(weight: Tensor) -> nn.Sequential:
    return nn.Sequential(MirrorBlur(), nn.Conv2d(weight.shape[1], len(weight), 4, 2, 1), nn.LeakyReLU(0.1))


def _head(tensors: Mapping[str, Tensor]) -> nn.Sequential:
    """5×5 logits, or one after halving the size once more."""
    if "to_logits.0.f" in tensors:
        first, last = tensors["to_logits.1.weight"], tensors["to_logits.3.weight"]
        begin: list[nn.Module] = [MirrorBlur(), nn.Conv2d(first.shape[1], len(first), 3, 2, 1)]
    else:
        first, last = tensors["to_logits.0.weight"], tensors["to_logits.2.weight"]
        begin = [nn.Conv2d(first.shape[1], len(first), 1)]
    return nn.Sequential(*begin, nn.LeakyReLU(0.1), nn.Conv2d(last.shape[1], 1, 4))


class LightweightGan(Family):
    """The networks of lucidrains/lightweight-gan whose up block blurs and convolves with 4×4 taps (checked with releases 1.1 and 1.2)."""

    name: ClassVar[str] = "Lightweight GAN (lucidrains)"
    source: ClassVar[str] = "Liu et al. 2021; lucidrains/lightweight-gan"

    def role(self, net: StateDict) -> Role:
        """By pixel shuffle, blur, padded convolution and noise in one entry; by the discriminator's 32-pixel half."""
        up = r"layers\.0\.0\."
        if has(
            net.tensors, r"initial_conv\.0\.weight", rf"{up}0\.net\.0\.weight", rf"{up}1\.f", rf"{up}2\.1\.weight"
        ) and has(net.tensors, rf"{up}3\.weight", r"out_conv\.weight"):
            return "generator"
        halves = r"residual_layers\.0\.0\.branches\."
        found = has(net.tensors, rf"{halves}0\.1\.1\.weight", rf"{halves}1\.0\.f", r"to_logits\.\d\.weight") and has(
            net.tensors, r"to_shape_disc_out\.1\.fn\.fn\.to_lin_q\.weight", r"to_shape_disc_out\.5\.weight"
        )
        return "discriminator" if found else ""

    def generator(self, case: Case) -> Networks:
        """As ``Family`` says; noise is zero until it is fed."""
        tensors = case.tensors
        module = load(lambda: Generator(tensors), tensors)
        case.note(UNFED)
        return Networks(
            generator=module,
            latent=LatentSpace("z", (tensors["initial_conv.0.weight"].shape[0],)),
            output_range=(0.0, 1.0),
            main_layers=("initial_conv", *(f"layers.{index}.0" for index in _entries(tensors))),
        )

    def discriminator(self, case: Case) -> Networks:
        """As ``Family`` says; the decoders, which only training uses, are left out."""
        tensors = case.tensors
        halvings = len(indices(tensors, r"residual_layers\.(\d+)\..*"))
        halvings += len(indices(tensors, r"non_residual_layers\.(\d+)\..*"))
        size = 8 * 2**halvings
        if case.image_shape is not None and case.image_shape[1] != size:
            raise NotOpened(f"the discriminator is for {size} pixels, the generator makes {case.image_shape[1]}")
        module = load(lambda: Discriminator(tensors), tensors, unused=[r"decoder[12]\..*"])
        logit: Literal["logit"] = "logit"
        names = tuple(f"residual_layers.{index}.0" for index in range(len(module.residual_layers)))
        return Networks(discriminator=module, discriminator_layers=names, discriminator_output=logit)
