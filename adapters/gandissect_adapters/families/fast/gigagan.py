"""GigaGAN (Kang et al. 2023) without text, as lucidrains/gigagan-pytorch writes it: the generator.

gan = gandissect.open("model-10.ckpt")
gan.generator.space("w").enter(z, None)     # what the style network gives
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import InnerSpace, LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.fast.lightweight_ops import Shuffled
from gandissect_adapters.families.fast.ops import UNFED, Noise
from gandissect_adapters.families.layers import MirrorBlur, UnitMapping
from gandissect_adapters.recognise.unwrap import Role, StateDict


class AdaptiveConv(nn.Module):
    """A modulated convolution (Karras et al. 2020, StyleGAN2, eq. 1-3) of a softmax mix of kernels (Kang et al. 2023, eq. 2).

    ``weights`` [K, O, I, k, k]; the style of the mix is left out where K is 1. ``demodulate`` is off for the image layers.
    """

    def __init__(self, weights: Tensor, *, demodulate: bool) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(weights.shape))
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor, mix: Tensor) -> Tensor:
        """[N, I, H, W] with style [N, I] and mix [N, K or 0] to [N, O, H, W]."""
        kernels = torch.einsum("nk,koihw->noihw", mix.softmax(1), self.weights) if mix.numel() else self.weights
        weight = kernels * (style[:, None, :, None, None] + 1.0)
        if self.demodulate:
            weight = weight * weight.square().sum((2, 3, 4), keepdim=True).clamp(min=1e-8).rsqrt()
        batch, units, _, side, _ = weight.shape
        joined = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=side // 2, groups=batch)
        return joined.reshape(batch, units, *x.shape[2:])


class PlaceNorm(nn.Module):
    """Every place at length sqrt(C) over its units, times ``gamma`` [C, 1, 1]."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(units, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        out: Tensor = F.normalize(x, dim=1) * len(self.gamma) ** 0.5 * self.gamma
        return out


class SelfAttention(nn.Module):
    """Attention of all places to all and to one learnt place; by distance (Kim et al. 2021) where keys are the queries."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        null = tensors[f"{path}null_kv"]
        inner, units = tensors[f"{path}to_q.weight"].shape[:2]
        self.heads = null.shape[1]
        self.norm = PlaceNorm(units)
        self.to_q, self.to_v = nn.Conv2d(units, inner, 1, bias=False), nn.Conv2d(units, inner, 1, bias=False)
        self.to_k = nn.Conv2d(units, inner, 1, bias=False) if f"{path}to_k.weight" in tensors else None
        self.null_kv = nn.Parameter(torch.zeros(null.shape))
        self.to_out = nn.Conv2d(inner, units, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        shape, x = x.shape, self.norm(x)
        q, v = self._split(self.to_q(x)), self._split(self.to_v(x))
        k = q if self.to_k is None else self._split(self.to_k(x))
        k, v = (
            torch.cat([null[:, None].expand(len(x), -1, -1, -1), part], 2)
            for null, part in zip(self.null_kv, (k, v), strict=True)
        )
        alike = q @ k.transpose(2, 3)
        if self.to_k is None:
            alike = 2.0 * alike - q.square().sum(3)[..., :, None] - k.square().sum(3)[..., None, :]
        mixed = (alike * q.shape[3] ** -0.5).softmax(3) @ v
        out: Tensor = self.to_out(mixed.transpose(2, 3).reshape(len(x), -1, *shape[2:]))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """[N, heads, H W, D]."""
        return x.reshape(len(x), self.heads, -1, x.shape[2] * x.shape[3]).transpose(2, 3)


class AttentionBlock(nn.Module):
    """x + attention, then that + two 1×1 convolutions of it."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        self.attn = SelfAttention(tensors, f"{path}attn.")
        hidden, units = tensors[f"{path}ff.1.weight"].shape[:2]
        self.ff = nn.Sequential(PlaceNorm(units), nn.Conv2d(units, hidden, 1), nn.GELU(), nn.Conv2d(hidden, units, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        x = x + self.attn(x)
        out: Tensor = x + self.ff(x)
        return out


def _up(tensors: Mapping[str, Tensor], path: str) -> nn.Module | None:
    """Twice the size, bilinear and blurred, or by pixel shuffle."""
    if f"{path}net.0.weight" in tensors:
        return Shuffled(tensors[f"{path}net.0.weight"])
    bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(bilinear, MirrorBlur()) if f"{path}1.f" in tensors else None


def _squeeze(tensors: Mapping[str, Tensor], path: str) -> nn.Module | None:
    """[N, C, H, W] to a gate [N, D, 1, 1] for a later map (Liu et al. 2021, eq. 1)."""
    if f"{path}1.weight" not in tensors:
        return None
    first, last = tensors[f"{path}1.weight"], tensors[f"{path}3.weight"]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    squeeze, open_up = nn.Linear(first.shape[1], len(first)), nn.Linear(last.shape[1], len(last))
    return nn.Sequential(pool, squeeze, nn.SiLU(), open_up, nn.Sigmoid(), nn.Unflatten(1, (-1, 1, 1)))


def _entry(tensors: Mapping[str, Tensor], path: str) -> nn.ModuleDict:
    """ "0" gate, "1" two convolutions, "2" image layer, "3" attention, "5" and "6" twice the size of map and image."""
    first, second = tensors[f"{path}1.0.weights"], tensors[f"{path}1.3.weights"]
    block: list[nn.Module] = []
    for weights in (first, second):
        block += [AdaptiveConv(weights, demodulate=True), Noise(weights.shape[1], 1, 1), nn.LeakyReLU(0.2)]
    entry: dict[str, nn.Module | None] = {
        "0": _squeeze(tensors, f"{path}0."),
        "1": nn.ModuleList(block),
        "2": AdaptiveConv(tensors[f"{path}2.weights"], demodulate=False),
        "3": AttentionBlock(tensors, f"{path}3.") if f"{path}3.attn.null_kv" in tensors else None,
        "5": _up(tensors, f"{path}5."),
        "6": _up(tensors, f"{path}6."),
    }
    return nn.ModuleDict({name: module for name, module in entry.items() if module is not None})


class Generator(nn.Module):
    """z [N, Z] to images [N, C, S, S] in 0..1, without a squashing at the end.

    One linear layer gives the styles of all convolutions and the mixes of their kernels, in the order in which they run.
    """

    def __init__(self, tensors: Mapping[str, Tensor], scale: float) -> None:
        super().__init__()
        mapped = [
            tensors[f"style_network.net.{i}.weight"] for i in indices(tensors, r"style_network\.net\.(\d+)\.weight")
        ]
        widths = [mapped[0].shape[1], *(len(weight) for weight in mapped)]
        self.style_network = UnitMapping(widths, scale)
        self.init_block = nn.Parameter(torch.zeros(tensors["init_block"].shape))
        self.init_conv = AdaptiveConv(tensors["init_conv.weights"], demodulate=True)
        paths = [f"layers.{index}." for index in indices(tensors, r"layers\.(\d+)\..*")]
        self.layers = nn.ModuleList([_entry(tensors, path) for path in paths])
        rows, inputs = tensors["style_to_conv_modulations.weight"].shape
        self.style_to_conv_modulations = nn.Linear(inputs, rows)
        self.skip = len(paths) - sum("0" in entry for entry in self.layers if isinstance(entry, nn.ModuleDict))

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        return self.images(self.style_network(z))

    def images(self, w: Tensor) -> Tensor:
        """Images of w [N, Z]."""
        styles = self._styles(w)
        x = self.init_conv(self.init_block.expand(len(w), -1, -1, -1), *styles.pop(0))
        image: Tensor | None = None
        gates: dict[int, Tensor] = {}
        for index, entry in enumerate(self.layers):
            assert isinstance(entry, nn.ModuleDict)
            x = entry["5"](x) if "5" in entry else x
            if "0" in entry:
                gates[index + self.skip] = entry["0"](x)
            x = x * gates[index] if index in gates else x
            first, noise, act, second, later_noise, later_act = _six(entry["1"])
            x = act(noise(first(x, *styles.pop(0))))
            x = later_act(later_noise(second(x, *styles.pop(0))))
            x = entry["3"](x) if "3" in entry else x
            drawn = entry["2"](x, *styles.pop(0))
            image = drawn if image is None else image + drawn
            image = entry["6"](image) if "6" in entry else image
        assert image is not None
        return image

    def _styles(self, w: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(style [N, I], mix [N, K or 0]) of every convolution, in the order in which they run."""
        convs = [self.init_conv]
        for entry in self.layers:
            assert isinstance(entry, nn.ModuleDict)
            first, _, _, second, _, _ = _six(entry["1"])
            convs += [conv for conv in (first, second, entry["2"]) if isinstance(conv, AdaptiveConv)]
        sizes = [part for conv in convs for part in _sizes(conv)]
        parts = self.style_to_conv_modulations(w).split(sizes, 1)
        return list(zip(parts[::2], parts[1::2], strict=True))


def _six(block: nn.Module) -> list[nn.Module]:
    return list(block.children())


def _sizes(conv: AdaptiveConv) -> tuple[int, int]:
    kernels, _, inputs = conv.weights.shape[:3]
    return inputs, kernels if kernels > 1 else 0


class GigaGan(Family):
    """The unconditional generator of lucidrains/gigagan-pytorch; those with text and the upsampler are not rebuilt."""

    name: ClassVar[str] = "GigaGAN (lucidrains)"
    source: ClassVar[str] = "Kang et al. 2023; lucidrains/gigagan-pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "style-scale": Option("factor of the style network's weights (lr_mul)", "0.1"),
    }

    def role(self, net: StateDict) -> Role:
        """By the learnt first map, the kernels to mix, and the one layer that gives all styles."""
        marks = (
            r"init_block",
            r"init_conv\.weights",
            r"style_to_conv_modulations\.weight",
            r"layers\.0\.1\.0\.weights",
        )
        if not has(net.tensors, *marks):
            return ""
        return (
            "generator" if net.tensors["init_block"].dim() == 3 and net.tensors["init_conv.weights"].dim() == 5 else ""
        )

    def generator(self, case: Case) -> Networks:
        """As ``Family`` says; noise is zero until it is fed."""
        tensors = case.tensors
        first = tensors.get("style_network.net.0.weight")
        if first is None or first.shape[0] != first.shape[1] or has(tensors, r"text_encoder\..*|layers\.\d+\.4\..*"):
            raise NotOpened(
                "this GigaGAN is conditioned on text or takes its styles from elsewhere, which a latent cannot stand for; "
                "wrap it in a class that fixes the text and pass that with --generator file.py:Class"
            )
        scale = case.number("style-scale")
        module = load(lambda: Generator(tensors, scale), tensors)
        case.note(UNFED)
        if any(other.role == "discriminator" for other in case.beside):
            case.note("the discriminator, which looks at images of all sizes at once, is not rebuilt")
        names = [
            f"layers.{index}.{'3' if f'layers.{index}.3.attn.null_kv' in tensors else '1.5'}"
            for index in indices(tensors, r"layers\.(\d+)\..*")
        ]
        space = InnerSpace(
            "w", (first.shape[0],), lambda z, _y: module.style_network(z), lambda w, _y: module.images(w)
        )
        return Networks(
            generator=module,
            latent=LatentSpace("z", (first.shape[1],)),
            output_range=(0.0, 1.0),
            inner=(space,),
            main_layers=("init_conv", *names),
        )
