"""BigGAN-deep as in Hugging Face's pytorch-pretrained-BigGAN, which holds DeepMind's published weights (128, 256 and 512 px).

The file is ``pytorch_model.bin``; a ``config.json`` beside it says which blocks double the map. Without it every second block
does, as in all published configurations. Every norm stores 51 sets of statistics, for truncations 0, 0.02, … 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError
from gandissect.gan import InnerSpace, LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.norms import modulated
from gandissect_adapters.families.residual.biggan_ops import (
    AttentionPlan,
    attention_at,
    check_chain,
    labels_or_cycle,
    last_of_each_size,
    shape_of,
    side_of,
)
from gandissect_adapters.families.residual.ops import AttentionNames, SelfAttention
from gandissect_adapters.recognise.unwrap import Role, StateDict

ATTENTION = AttentionNames("snconv1x1_theta", "snconv1x1_phi", "snconv1x1_g", "snconv1x1_o_conv", "gamma")
"""What pytorch-pretrained-BigGAN calls the parts of its self-attention."""
_COLOURS = 3  # conv_to_rgb has more outputs than that; the rest is not used
_EVERY_SECOND = "every-second"


@dataclass(frozen=True)
class Layer:
    """One entry of ``generator.layers``: a residual block's widths and whether it doubles the map, or self-attention."""

    inside: int = 0
    hidden: int = 0
    outside: int = 0
    resample: bool = False
    attention: AttentionPlan | None = None


@dataclass(frozen=True)
class Plan:
    """Sizes of the network; ``condition`` is the length of [z, embedded class], ``sets`` the number of stored statistics."""

    latent: int
    classes: int
    embedded: int
    layers: Sequence[Layer]
    side: int
    width: int
    painted: int
    sets: int
    truncation: float
    eps: float

    @property
    def condition(self) -> int:
        """Length of what conditions the norms."""
        return self.latent + self.embedded


class TruncatedNorm(nn.Module):
    """Normalisation with the statistics of one truncation; scale and shift are linear in the condition, or fixed.

    References:
        Brock et al. 2019, section 3.1 and appendix E: statistics belong to the truncation that images are drawn with.
    """

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, plan: Plan, *, conditional: bool = True) -> None:
        super().__init__()
        self.plan = plan
        self.register_buffer("running_means", torch.zeros(plan.sets, channels))
        self.register_buffer("running_vars", torch.ones(plan.sets, channels))
        if conditional:
            self.scale = nn.Linear(plan.condition, channels, bias=False)
            self.offset = nn.Linear(plan.condition, channels, bias=False)
        else:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """float32 [N, C, H, W] of ``x`` [N, C, H, W] and ``condition`` [N, condition], None for a fixed scale and shift."""
        plan = self.plan
        mean = statistics_at(self.running_means, plan.truncation)
        variance = statistics_at(self.running_vars, plan.truncation)
        if condition is None:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=plan.eps)
        return modulated(
            F.batch_norm(x, mean, variance, eps=plan.eps), 1.0 + self.scale(condition), self.offset(condition)
        )


def statistics_at(rows: Tensor, truncation: float) -> Tensor:
    """The statistics [C] for a truncation in 0..1 out of ``rows`` [sets, C].

    Between two rows the codebase gives the lower one the weight that linear interpolation would give the upper one. Its images
    are only met by doing the same.
    """
    part, whole = math.modf(truncation / (1.0 / (len(rows) - 1)))
    low = int(whole)
    return rows[low] if part == 0.0 else rows[low] * part + rows[low + 1] * (1.0 - part)


class Block(nn.Module):
    """1×1 down, two 3×3, 1×1 up, each after norm and ReLU; the skip drops units (Brock et al. 2019, fig. 16b)."""

    def __init__(self, layer: Layer, plan: Plan) -> None:
        super().__init__()
        self.resample, self.outside = layer.resample, layer.outside
        self.bn_0 = TruncatedNorm(layer.inside, plan)
        self.conv_0 = nn.Conv2d(layer.inside, layer.hidden, 1)
        self.bn_1 = TruncatedNorm(layer.hidden, plan)
        self.conv_1 = nn.Conv2d(layer.hidden, layer.hidden, 3, padding=1)
        self.bn_2 = TruncatedNorm(layer.hidden, plan)
        self.conv_2 = nn.Conv2d(layer.hidden, layer.hidden, 3, padding=1)
        self.bn_3 = TruncatedNorm(layer.hidden, plan)
        self.conv_3 = nn.Conv2d(layer.hidden, layer.outside, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """float32 [N, outside, H, W] of ``x`` [N, inside, H, W], twice the side where the layer says so."""
        h = self.conv_0(self.relu(self.bn_0(x, condition)))
        h, skip = self.relu(self.bn_1(h, condition)), x[:, : self.outside]
        if self.resample:
            h, skip = F.interpolate(h, scale_factor=2.0), F.interpolate(skip, scale_factor=2.0)
        h = self.conv_2(self.relu(self.bn_2(self.conv_1(h), condition)))
        return cast("Tensor", self.conv_3(self.relu(self.bn_3(h, condition))) + skip)


class Synthesis(nn.Module):
    """[z, embedded class] to an image: what the codebase calls ``generator``."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.side = plan.side
        self.gen_z = nn.Linear(plan.condition, plan.width * plan.side**2)
        self.layers = nn.ModuleList(
            [layer.attention.build() if layer.attention else Block(layer, plan) for layer in plan.layers]
        )
        last = plan.layers[-1]
        self.bn = TruncatedNorm(last.outside, plan, conditional=False)
        self.relu = nn.ReLU()
        self.conv_to_rgb = nn.Conv2d(last.outside, plan.painted, 3, padding=1)
        self.tanh = nn.Tanh()

    def forward(self, condition: Tensor) -> Tensor:
        """float32 [N, 3, H, W] in (-1, 1) of ``condition`` float32 [N, condition]."""
        side = self.side
        x = self.gen_z(condition).reshape(len(condition), side, side, -1).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            x = layer(x) if isinstance(layer, SelfAttention) else layer(x, condition)
        image: Tensor = self.tanh(self.conv_to_rgb(self.relu(self.bn(x)))[:, :_COLOURS])
        return image


class PretrainedBigGan(nn.Module):
    """z and a class to an image; z is drawn from N(0, 1) and multiplied by the truncation here."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.embeddings = nn.Linear(plan.classes, plan.embedded, bias=False)
        self.generator = Synthesis(plan)

    def condition(self, z: Tensor, labels: Tensor) -> Tensor:
        """float32 [N, condition]: z times the truncation, then the embedded class."""
        one_hot = F.one_hot(labels, self.plan.classes).to(z.dtype)
        return torch.cat([z * self.plan.truncation, self.embeddings(one_hot)], dim=1)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """float32 [N, 3, H, W] in (-1, 1) of ``z`` float32 [N, latent] and ``labels`` int64 [N]."""
        image: Tensor = self.generator(self.condition(z, labels))
        return image


class HuggingFaceBigGan(Family):
    """Generators of pytorch-pretrained-BigGAN; it publishes no discriminators."""

    name: ClassVar[str] = "BigGAN-deep (pytorch-pretrained-BigGAN)"
    source: ClassVar[str] = "Brock et al. 2019; huggingface/pytorch-pretrained-BigGAN"
    options: ClassVar[Mapping[str, Option]] = {
        "truncation": Option("factor on z, with the statistics stored for it: 0 to 1", "1"),
        "upsample": Option(
            "numbers of the residual blocks that double the map, attention not counted (1,3,5), or every-second",
            _EVERY_SECOND,
            "all published configurations do so; a config.json beside the weights says it",
        ),
        "norm-eps": Option("added to the variance in the norms", "1e-4"),
    }

    def role(self, net: StateDict) -> Role:
        """A generator, told by its 51 sets of statistics and ``gen_z``."""
        found = has(
            net.tensors, r"embeddings\.weight", r"generator\.gen_z\.weight(_orig)?",
            r"generator\.layers\.0\.bn_0\.running_means", r"generator\.layers\.0\.conv_3\.weight(_orig)?",
            r"generator\.bn\.running_vars", r"generator\.conv_to_rgb\.weight(_orig)?",
        )  # fmt: skip
        return "generator" if found else ""

    def generator(self, case: Case) -> Networks:
        """The generator; [truncated z, embedded class] is its inner space."""
        plan = _plan(case)
        module = load(lambda: PretrainedBigGan(plan), case.tensors)
        case.note("the published images draw z from N(0, 1) cut off at ±2; here it is not cut off")
        return Networks(
            generator=module,
            latent=LatentSpace("z", (plan.latent,)),
            output_range=(-1.0, 1.0),
            num_classes=plan.classes,
            inner=(_inner(module),),
            main_layers=last_of_each_size(
                (f"generator.layers.{i}" for i in range(len(plan.layers))), [layer.resample for layer in plan.layers]
            ),
        )


def _plan(case: Case) -> Plan:
    tensors = case.tensors
    rows, condition = shape_of(tensors, "generator.gen_z.weight", 2)
    embedded, classes = shape_of(tensors, "embeddings.weight", 2)
    sets = shape_of(tensors, "generator.bn.running_means", 2)[0]
    if sets < 2 or condition <= embedded:
        raise NotOpened("the norms store one set of statistics or z has no place beside the class: not this codebase's")
    layers = _layers(case)
    truncation = case.number("truncation")
    if not 0.0 <= truncation <= 1.0:
        raise UsageError(f"--assume truncation={truncation:g} is outside of 0 to 1")
    eps = case.config.get("eps")
    return Plan(
        latent=condition - embedded, classes=classes, embedded=embedded, layers=layers,
        side=side_of(rows, layers[0].inside), width=layers[0].inside,
        painted=shape_of(tensors, "generator.conv_to_rgb.weight", 4)[0], sets=sets, truncation=truncation,
        eps=case.number("norm-eps", float(eps) if isinstance(eps, (int, float)) else None, "config.json says so"),
    )  # fmt: skip


def _layers(case: Case) -> list[Layer]:
    """``generator.layers`` in order."""
    tensors = case.tensors
    numbers = indices(tensors, r"generator\.layers\.(\d+)\..*")
    layers: list[Layer] = []
    for i in numbers:
        if attention := attention_at(tensors, f"generator.layers.{i}", ATTENTION):
            layers.append(Layer(attention=attention))
            continue
        hidden, inside = shape_of(tensors, f"generator.layers.{i}.conv_0.weight", 4)[:2]
        layers.append(Layer(inside, hidden, shape_of(tensors, f"generator.layers.{i}.conv_3.weight", 4)[0]))
    blocks = [i for i, layer in enumerate(layers) if layer.attention is None]
    if not blocks or blocks[0] != 0 or blocks[-1] != len(layers) - 1 or numbers[-1] != blocks[-1]:
        raise NotOpened("the generator's layers do not begin and end with a residual block")
    check_chain([(layers[i].inside, layers[i].outside) for i in blocks], widening=False)
    found = _doubling_of(case.config, [layers[i] for i in blocks])
    for number in _doubling(case, found, len(blocks)):
        layers[blocks[number]] = replace(layers[blocks[number]], resample=True)
    if found is None and any(layer.outside < layer.inside and not layer.resample for layer in layers):
        case.note("a block narrows the map without doubling it, as in no published configuration: check 'upsample'")
    return layers


def _doubling_of(config: Mapping[str, object], blocks: Sequence[Layer]) -> str | None:
    """Numbers of the blocks that double the map: a config's ``layers`` are [doubles, in, out], widths in some unit.

    None where it says nothing, or speaks of a network of other widths.
    """
    listed = config.get("layers")
    if not isinstance(listed, list) or len(listed) != len(blocks):
        return None
    for entry, block in zip(listed, blocks, strict=True):
        whole = isinstance(entry, list) and [type(part) for part in entry] == [bool, int, int]
        if not whole or entry[1] * block.outside != entry[2] * block.inside:
            return None
    return ",".join(str(i) for i, entry in enumerate(listed) if entry[0])


def _doubling(case: Case, found: str | None, count: int) -> set[int]:
    """Which of the ``count`` residual blocks double the map."""
    value = case.option("upsample", found, "config.json says so")
    if value == _EVERY_SECOND:
        return set(range(1, count, 2))
    numbers = [part.strip() for part in value.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) < count for part in numbers):
        raise UsageError(
            f"--assume upsample={value!r} is no list of block numbers from 0 to {count - 1}, such as 1,3,5"
        )
    return {int(part) for part in numbers}


def _inner(net: PretrainedBigGan) -> InnerSpace:
    """[truncated z, embedded class]: the space in which classes can be mixed."""
    plan = net.plan

    def enter(z: Tensor, labels: Tensor | None) -> Tensor:
        return net.condition(z, labels_or_cycle(labels, z, plan.classes))

    def leave(x: Tensor, labels: Tensor | None) -> Tensor:
        return cast("Tensor", net.generator(x))

    mean = net.embeddings.weight.detach().mean(1)
    return InnerSpace("z+class", (plan.condition,), enter, leave, torch.cat([mean.new_zeros(plan.latent), mean]))
