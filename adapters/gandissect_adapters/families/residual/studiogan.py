"""PyTorch-StudioGAN: the backbones resnet, big_resnet and deep_conv, out of model=G-….pth, model=G_ema-….pth and model=D-….pth.

The activation functions are in the YAML file of the run and not in the weights, so they are options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.residual.biggan_ops import attention_at, check_chain, class_space, shape_of, side_of
from gandissect_adapters.families.residual.ops import CONV1X1
from gandissect_adapters.families.residual.studiogan_nets import (
    ACTIVATIONS,
    ConvCritic,
    CriticPlan,
    Entry,
    Plan,
    ResnetCritic,
    StudioDeconv,
    StudioResnet,
)
from gandissect_adapters.recognise.unwrap import Role, StateDict

_SPARE_HEADS = (r"(linear2|linear_mi|embedding_mi|info_\w+_linear)\..*",)
_W = r"\.weight(_orig)?"


class StudioGan(Family):
    """Generators and discriminators of PyTorch-StudioGAN."""

    name: ClassVar[str] = "StudioGAN"
    source: ClassVar[str] = "Kang et al. 2023; POSTECH-CVLab/PyTorch-StudioGAN"
    options: ClassVar[Mapping[str, Option]] = {
        "activation": Option("the generator's activation (g_act_fn): relu, lrelu0.1, elu, gelu", "relu"),
        "critic-activation": Option("the discriminator's activation (d_act_fn): relu, lrelu0.1, elu, gelu", "relu"),
        "condition": Option(
            "what conditions the norms where both fit: parts of z (chunks, big_resnet) or labels (resnet)", "chunks"
        ),
        "critic-heads": Option(
            "what several outputs of linear1 are: per-class scores (MDGAN) or multi-hinge (MHGAN)", "unknown"
        ),
    }
    transposed: ClassVar[str] = r"blocks\.\d+\.\d+\.deconv0\.weight"

    def role(self, net: StateDict) -> Role:
        """Generators have ``linear0``, discriminators ``linear1``; blocks hold ``conv2d1`` or ``deconv0`` or ``conv0``."""
        names = net.tensors
        block = r"blocks\.0\.0\."
        if has(names, block + r"conv2d3.*") or "input_conv.weight" in names:
            return ""  # BigGAN-deep has bottlenecks of four convolutions
        if has(names, r"linear0" + _W, r"linear0\.bias"):
            resnet = has(
                names, *(block + part + _W for part in ("conv2d0", "conv2d2")), r"bn4\.running_mean", "conv2d5" + _W
            )
            deconv = has(names, block + "deconv0" + _W, block + r"bn0\.(bn\.)?running_mean", "conv4" + _W)
            return "generator" if resnet or deconv else ""
        if has(names, r"linear1" + _W, r"linear1\.bias"):
            resnet = has(names, *(block + part + _W for part in ("conv2d0", "conv2d1", "conv2d2")))
            deconv = has(names, *(block + part + _W for part in ("conv0", "conv1")), "conv1" + _W)
            return "discriminator" if resnet or deconv else ""
        return ""

    def generator(self, case: Case) -> Networks:
        """The generator; with a class embedding, z and the embedded class together are an inner space."""
        tensors = case.tensors
        deconv = "conv4.weight" in tensors
        plan = _plan(case, deconv)
        module = load(lambda: (StudioDeconv if deconv else StudioResnet)(plan), tensors)
        inner = (class_space(module.draw, module.shared, plan.latent),) if plan.shared else ()
        return Networks(
            generator=module,
            latent=LatentSpace("z", (plan.latent,)),
            output_range=(-1.0, 1.0),
            num_classes=plan.classes,
            inner=inner,
            main_layers=_outputs(plan.entries),
            family=f"{self.name} {'deep_conv' if deconv else 'big_resnet' if plan.source == 'chunks' else 'resnet'}",
        )

    def discriminator(self, case: Case) -> Networks:
        """The discriminator's adversarial score, which labels matter for in projection discriminators only."""
        plan = _critic_plan(case)
        deconv = "conv1.weight" in case.tensors
        projected = plan.classes and plan.scores == 1
        unused = _SPARE_HEADS if projected else (*_SPARE_HEADS, r"embedding\..*")
        spare = sorted({name.partition(".")[0] for name in case.tensors if has({name: None}, "|".join(unused))})
        if spare:
            case.note(f"the discriminator's {', '.join(spare)} classify and are not part of its score")
        module = load(lambda: (ConvCritic if deconv else ResnetCritic)(plan), case.tensors, unused=unused)
        return Networks(
            discriminator=module,
            discriminator_output="logit",
            discriminator_classes=plan.classes,
            discriminator_layers=_outputs(plan.entries),
        )


def _outputs(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The submodules after which the map is another's: every block, or the self-attention behind it."""
    attention = [entry.attention is not None for entry in entries] + [False]
    return tuple(f"blocks.{i}.0" for i in range(len(entries)) if not attention[i + 1])


def _plan(case: Case, deconv: bool) -> Plan:
    tensors = case.tensors
    entries = _entries(tensors, "deconv0" if deconv else "conv2d2", transposed=deconv)
    rows, first = shape_of(tensors, "linear0.weight", 2)
    source, condition, classes, shared = _condition(case, "bn0" if deconv else "bn1", first)
    blocks = sum(entry.attention is None for entry in entries)
    return Plan(
        entries=entries, latent=first * (blocks + 1) if source == "chunks" else first, first=first,
        side=side_of(rows, entries[0].inside), source=source, condition=condition, classes=classes, shared=shared,
        colours=shape_of(tensors, "conv4.weight" if deconv else "conv2d5.weight", 4)[0],
        activation=case.choice("activation", list(ACTIVATIONS)),
    )  # fmt: skip


def _condition(case: Case, norm: str, first: int) -> tuple[Literal["none", "labels", "chunks"], int, int, int]:
    """What conditions the norms, its length, the number of classes, and the width of the class embedding."""
    tensors = case.tensors
    gain = f"blocks.0.0.{norm}.gain.weight"
    if gain not in tensors:
        return "none", 0, 0, 0
    length = shape_of(tensors, gain, 2)[1]
    if "shared.weight" in tensors:
        classes, shared = shape_of(tensors, "shared.weight", 2)
        if length != shared + first:
            raise NotOpened(f"the norms take {length} values, not the class embedding's {shared} and {first} of z")
        return "chunks", length, classes, shared
    if length == first and norm == "bn1" and case.choice("condition", ("chunks", "labels")) == "chunks":
        return "chunks", length, 0, 0
    return "labels", length, length, 0


def _entries(tensors: Mapping[str, Tensor], last: str, *, transposed: bool = False) -> list[Entry]:
    """``blocks`` in order; ``last`` is the convolution whose outputs are the block's, ``transposed`` that its axes are swapped."""
    found: list[Entry] = []
    width = 0
    numbers = indices(tensors, r"blocks\.(\d+)\..*")
    for i in numbers:
        path = f"blocks.{i}.0"
        if f"{path}.{CONV1X1.gate}" in tensors:
            found.append(Entry(attention=attention_at(tensors, path, CONV1X1)))
            continue
        start = {"deconv0": "deconv0", "conv2d2": "conv2d1", "conv1": "conv0"}[last]
        inside = shape_of(tensors, f"{path}.{start}.weight", 4)[0 if transposed else 1]
        width = shape_of(tensors, f"{path}.{last}.weight", 4)[1 if transposed else 0]
        shortcut = f"{path}.conv2d0.weight" in tensors
        # Whatever has a shortcut halves the map, but the last block of a discriminator never does.
        found.append(Entry(inside, width, resample=shortcut and i != numbers[-1], shortcut=shortcut))
    if not found or not found[0].inside:
        raise NotOpened("the network's blocks do not begin with a residual or convolution block; pass its class")
    check_chain([(e.inside, e.outside) if e.attention is None else (e.attention.channels,) * 2 for e in found])
    return found


def _critic_plan(case: Case) -> CriticPlan:
    tensors = case.tensors
    scores, width = shape_of(tensors, "linear1.weight", 2)
    classes = 0
    if scores > 1:
        known = ("unknown", "per-class", "multi-hinge")
        if case.choice("critic-heads", known) != "per-class":
            raise NotOpened(
                f"the discriminator has {scores} outputs and no single score; where each is the score for one class "
                "(MDGAN) pass --assume critic-heads=per-class"
            )
        classes = scores
    elif "embedding.weight" in tensors and "linear2.weight" not in tensors:
        classes = shape_of(tensors, "embedding.weight", 2)[0]
    deconv = "conv1.weight" in tensors
    entries = _entries(tensors, "conv1" if deconv else "conv2d2")
    if not deconv and entries[-1].outside != width:
        raise NotOpened(f"linear1 takes {width} units where the last block gives {entries[-1].outside}")
    return CriticPlan(
        entries=entries,
        width=width,
        classes=classes,
        scores=scores,
        norms="blocks.0.0.bn1.weight" in tensors,
        activation=case.choice("critic-activation", list(ACTIVATIONS)),
    )
