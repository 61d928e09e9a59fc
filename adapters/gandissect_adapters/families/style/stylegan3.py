"""StyleGAN3, configurations T and R (NVlabs' networks_stylegan3.py), whose layers are called after their sizes.

facts = layer_table(case)               # of each L{index}_{size}_{units}: up, down and padding
gan = gandissect.open("stylegan3-r-ffhq-1024.pkl")
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as Table
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, load
from gandissect_adapters.families.layers import EqualLinear
from gandissect_adapters.families.style.nvlabs import (
    OPTIONS,
    Mapping,
    StyleGenerator,
    clamp_of,
    rate_of,
    recorded,
)
from gandissect_adapters.families.style.ops import lrelu, modulated_conv, resample
from gandissect_adapters.families.style.style_network import give_truncation, style_spaces
from gandissect_adapters.families.style.stylegan2 import latent_size, mapping_like
from gandissect_adapters.recognise.unwrap import Role, StateDict

_LAYER = re.compile(r"synthesis\.(L(\d+)_(\d+)_(\d+))\.weight")


@dataclass(frozen=True)
class LayerFacts:
    """One layer: a convolution, then leaky ReLU at a higher sampling rate (Karras et al. 2021, section 3.2).

    Args:
        size: side of the map that it makes.
        up: factor between the rate of its input and that of the nonlinearity; ``down`` from there to its output's.
        up_filter: shape of the filter in the file, () where there is none; ``down_filter`` likewise.
        pad: zeros before and after its map at the higher rate; negative ones crop.
        coloured: the last layer, which makes the image.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    size: int
    up: int
    down: int
    up_filter: tuple[int, ...]
    down_filter: tuple[int, ...]
    pad: tuple[int, int]
    coloured: bool
    clamp: float | None


@dataclass(frozen=True)
class InputFacts:
    """The Fourier features: a map of ``side`` pixels sampled at ``rate`` per unit, frequencies up to ``band``."""

    units: int
    side: int
    rate: float
    band: float


class FourierInput(nn.Module):
    """A map of sines, rotated and shifted by what w says (Karras et al. 2021, section 3.3 and appendix F)."""

    freqs: Tensor
    phases: Tensor
    transform: Tensor

    def __init__(self, facts: InputFacts, w: int) -> None:
        super().__init__()
        self.affine = EqualLinear(w, 4)
        self.weight = nn.Parameter(torch.randn(facts.units, facts.units))
        self.register_buffer("transform", torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        self.register_buffer("freqs", torch.randn(facts.units, 2))
        self.register_buffer("phases", torch.rand(facts.units))
        self.facts = facts

    def forward(self, style: Tensor) -> Tensor:
        """[N, U, side, side] of [N, 4]: cosine and sine of a rotation (any length), then a shift."""
        facts = self.facts
        moved = _motion(style / style[:, :2].norm(dim=1, keepdim=True)) @ self.transform
        phases = self.phases + (self.freqs @ moved[:, :2, 2:]).squeeze(2)
        freqs = self.freqs @ moved[:, :2, :2]  # [N, U, 2]
        room = facts.rate / 2.0 - facts.band
        amplitude = (1.0 - (freqs.norm(dim=2) - facts.band) / room).clamp(0.0, 1.0)
        steps = torch.arange(facts.side, device=freqs.device, dtype=freqs.dtype)
        place = (steps + 0.5 - facts.side / 2.0) / facts.rate
        turns = (
            freqs[:, :, 0, None, None] * place[None, None, None, :]
            + freqs[:, :, 1, None, None] * place[None, None, :, None]
            + phases[:, :, None, None]
        )
        waves = torch.sin(2.0 * math.pi * turns) * amplitude[:, :, None, None]
        return F.conv2d(waves, self.weight[:, :, None, None] * facts.units**-0.5)


def _motion(style: Tensor) -> Tensor:
    """[N, 3, 3]: the rotation after the shift that [N, 4] stands for."""
    cosine, sine, right, up = style.unbind(1)
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], 1).reshape(-1, 3, 3)
    shift = torch.stack([one, zero, -right, zero, one, -up, zero, zero, one], 1).reshape(-1, 3, 3)
    return turn @ shift


class SynthesisLayer(nn.Module):
    """Modulated convolution with full padding, bias, and leaky ReLU between an upsampling and a downsampling filter."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, facts: LayerFacts, w: int) -> None:
        super().__init__()
        self.affine = EqualLinear(w, facts.inputs)
        self.weight = nn.Parameter(torch.randn(facts.outputs, facts.inputs, facts.kernel, facts.kernel))
        self.bias = nn.Parameter(torch.zeros(facts.outputs))
        self.register_buffer("magnitude_ema", torch.ones(()))
        for name, shape in (("up_filter", facts.up_filter), ("down_filter", facts.down_filter)):
            flat = torch.full(shape, 1.0 / math.prod(shape)) if shape else None
            self.register_buffer(name, flat)
        self.facts = facts

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, O, size, size] of x [N, I, H, H] and its style [N, I]."""
        facts = self.facts
        y = self.convolved(x, style) + self.bias[:, None, None]
        y = resample(y, self.up_filter, up=facts.up, pad=facts.pad, gain=facts.up**2)
        y = lrelu(y, slope=1.0, gain=1.0, clamp=facts.clamp) if facts.coloured else lrelu(y, clamp=facts.clamp)
        return resample(y, self.down_filter, down=facts.down)

    def convolved(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, O, H + k - 1, H + k - 1], of expected magnitude 1.

        Weights and styles are normalised before demodulation, which cancels but for its eps; the original takes the styles'
        mean over the batch, here each sample has its own, so that no sample depends on the others.
        """
        facts = self.facts
        weight: Tensor = self.weight
        if facts.coloured:
            style = style * facts.inputs**-0.5 / facts.kernel
        else:
            weight = weight * torch.rsqrt(weight.square().mean((1, 2, 3), keepdim=True))
            style = style * torch.rsqrt(style.square().mean(1, keepdim=True))

        def convolve(maps: Tensor, kernel: Tensor) -> Tensor:
            return F.conv2d(maps, kernel, padding=facts.kernel - 1)

        y = modulated_conv(x, weight, style, convolve, demodulate=not facts.coloured)
        return y * torch.rsqrt(self.magnitude_ema)


class SynthesisNetwork(nn.Module):
    """w to image: ``input``, then the layers under their names; w number 0 moves the input."""

    def __init__(self, start: InputFacts, layers: list[LayerFacts], w: int, scale: float) -> None:
        super().__init__()
        self.input = FourierInput(start, w)
        for facts in layers:
            self.add_module(facts.name, SynthesisLayer(facts, w))
        self.names = [facts.name for facts in layers]
        self.style_count = len(layers) + 1
        self.scale = scale

    def forward(self, ws: Tensor) -> Tensor:
        """Images [N, C, H, W] of w [N, L, W]."""
        return self.paint(self.modulate(ws))

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """The input's motion [N, 4], then one style per layer."""
        parts = [self.get_submodule(name).get_submodule("affine") for name in ("input", *self.names)]
        return [part(ws[:, index]) for index, part in enumerate(parts)]

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Images of the styles of all layers."""
        x: Tensor = self.input(scales[0])
        for name, style in zip(self.names, scales[1:], strict=True):
            x = self.get_submodule(name)(x, style)
        return x * self.scale


class StyleGan3(Family):
    """Generators with alias-free layers; their discriminators are StyleGAN2's."""

    name: ClassVar[str] = "StyleGAN3 (NVlabs)"
    source: ClassVar[str] = "Karras et al. 2021; NVlabs/stylegan3"
    options: ClassVar[Table[str, Option]] = {
        **OPTIONS,
        "margin": Option("pixels around each map beyond the picture", "10"),
        "filter-size": Option("taps of a filter per unit of its factor", "6"),
        "band": Option("bandwidth of the input's frequencies", "2"),
        "scale": Option("factor on the last layer's output", "0.25"),
    }

    def role(self, net: StateDict) -> Role:
        """By ``synthesis.input.freqs`` and layers called L0_36_512 with a ``magnitude_ema``, and no class embedding of XL."""
        if "mapping.embed_proj.weight" in net.tensors or not is_alias_free(net):
            return ""
        return "generator"

    def generator(self, case: Case) -> Networks:
        """The averaged generator; its main layers are all that keep the units' maps."""
        given = case.tensors
        return alias_free_generator(case, lambda rate, w: mapping_like(given, w, rate=rate), latent_size(given))


def is_alias_free(net: StateDict) -> bool:
    """Whether the names are those of a StyleGAN3 generator."""
    layer = r"synthesis\.L\d+_\d+_\d+\."
    return has(
        net.tensors,
        r"synthesis\.input\.freqs",
        r"synthesis\.input\.transform",
        layer + "magnitude_ema",
        layer + r"affine\.weight",
        r"mapping\.fc0\.weight",
    )


class MakeMapping(Protocol):
    """Builds the mapping network of a file."""

    def __call__(self, rate: float, w: int) -> Mapping:
        """An empty one with that learning rate multiplier and size of w."""


def alias_free_generator(case: Case, make_mapping: MakeMapping, latent: int) -> Networks:
    """The generator of StyleGAN3 and of what was made from it.

    Args:
        latent: size of z.

    Raises:
        NotOpened: the layers' sizes and filters do not agree.
    """
    given = case.tensors
    table = layer_table(case)
    start = _input_facts(case, table)
    rate = rate_of(case)
    scale = case.number("scale", _number(case, "synthesis", "output_scale"), "the pickle's synthesis")
    w = int(given["synthesis.input.affine.weight"].shape[1])

    def make() -> StyleGenerator:
        return StyleGenerator(make_mapping(rate, w), SynthesisNetwork(start, table, w, scale))

    module = load(make, given)
    give_truncation(case, module)
    return Networks(
        generator=module,
        latent=LatentSpace("z", (latent,)),
        image_shape=(table[-1].outputs, table[-1].size, table[-1].size),
        output_range=(-1.0, 1.0),
        num_classes=module.mapping.classes,
        inner=style_spaces(module),
        main_layers=tuple(f"synthesis.{facts.name}" for facts in table[:-1]),
    )


def _number(case: Case, path: str, attribute: str) -> float | None:
    value = recorded(case, path, attribute)
    return float(value) if isinstance(value, (int, float)) else None


def layer_table(case: Case) -> list[LayerFacts]:
    """The facts of every layer: factors from the filters' lengths, sizes from the names, paddings from both.

    Raises:
        NotOpened: factors that are not whole, or that do not lead from each layer's sampling rate to the next one's.
    """
    given = case.tensors
    found = sorted((m for m in map(_LAYER.fullmatch, given) if m), key=lambda match: int(match[2]))
    order = recorded(case, "synthesis", "layer_names")
    if isinstance(order, list) and {match[1] for match in found} == set(order):
        found.sort(key=lambda match: order.index(match[1]))
    names, sizes = [match[1] for match in found], [int(match[3]) for match in found]
    taps = case.whole("filter-size", _filter_size(case, names), "the pickle's layers")
    margin = case.whole("margin", _whole(case, "synthesis", "margin_size"), "the pickle's synthesis")
    clamp = clamp_of(case, f"synthesis.{names[0]}")
    rates = [size - 2 * margin for size in sizes[:-2]] + sizes[-2:]
    table = []
    for index, name in enumerate(names):
        before = max(index - 1, 0)
        shape = given[f"synthesis.{name}.weight"].shape
        above, below = (_shape(given, f"synthesis.{name}.{kind}_filter") for kind in ("up", "down"))
        up, down = _factor(name, above, taps), _factor(name, below, taps)
        if rates[before] * up != rates[index] * down:
            raise NotOpened(
                f"{name} takes {rates[before]} samples times {up} and makes {rates[index]} times {down}, which differ; "
                "say --assume margin=10 or filter-size=6 as it was trained"
            )
        lengths = sum(line[0] - 1 for line in (above, below) if line)
        pad = _padding(sizes[before], sizes[index], shape[-1], up, down, lengths)
        last = index == len(names) - 1
        table.append(
            LayerFacts(
                name,
                shape[1],
                shape[0],
                shape[-1],
                sizes[index],
                up,
                down,
                above,
                below,
                pad,
                coloured=last,
                clamp=clamp,
            )
        )
    return table


def _shape(given: Table[str, Tensor], name: str) -> tuple[int, ...]:
    return tuple(given[name].shape) if name in given else ()


def _whole(case: Case, path: str, attribute: str) -> int | None:
    value = _number(case, path, attribute)
    return None if value is None else int(value)


def _filter_size(case: Case, names: list[str]) -> int | None:
    """Taps per factor, out of the first layer's record."""
    taps, factor = (_whole(case, f"synthesis.{names[0]}", name) for name in ("up_taps", "up_factor"))
    return taps // factor if taps and factor else None


def _factor(name: str, shape: tuple[int, ...], taps: int) -> int:
    if not shape:
        return 1
    if shape[0] % taps:
        raise NotOpened(f"{name} has a filter of {shape[0]} taps, no multiple of {taps}; say --assume filter-size=6")
    return shape[0] // taps


def _padding(source: int, size: int, kernel: int, up: int, down: int, lengths: int) -> tuple[int, int]:
    """(before, after) at the higher rate, so that the layer makes ``size`` of ``source`` samples; ``lengths`` are the taps - 1."""
    total = (size - 1) * down + 1 - (source + kernel - 1) * up + lengths
    before = (total + up) // 2
    return before, total - before


def _input_facts(case: Case, table: list[LayerFacts]) -> InputFacts:
    """The input's map is as large as the first layer's."""
    side = table[0].size
    where = "synthesis.input"
    margin = int(next(known.value for known in case.assumptions if known.name == "margin"))
    rate = _number(case, where, "sampling_rate") or float(side - 2 * margin)
    band = case.number("band", _number(case, where, "bandwidth"), "the pickle's synthesis.input")
    freqs = case.tensors["synthesis.input.freqs"]
    if float(freqs.norm(dim=1).max()) > band * 1.001:
        raise NotOpened(
            f"the input has frequencies beyond its bandwidth {band:g}; say --assume band= as it was trained"
        )
    return InputFacts(len(freqs), side, rate, band)
