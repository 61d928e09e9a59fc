"""One sentence for a state dict that is no generator.

refusal(path, state, chain, "…")        # NotOpened("ckpt.pt looks like a classifier: …")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from pathlib import Path

from torch import Tensor

from gandissect.errors import NotOpened
from gandissect_adapters.families.table import recognised
from gandissect_adapters.recognise.chain import Chain
from gandissect_adapters.recognise.geometry import Goal, Shapes, image_of
from gandissect_adapters.recognise.plan import VECTOR
from gandissect_adapters.recognise.unwrap import Role, StateDict

_SIDES = (16, 28, 32, 48, 64, 96, 128, 256)
_CLASS = "pass its class with --generator file.py:Class"
_KINDS: tuple[tuple[str, str], ...] = (
    (r"(^|\.)(wte|wpe|embed_tokens|lm_head|tok_embeddings|word_embeddings|q_proj|c_attn|in_proj_weight|self_attn|self_attention)\b",
     "a language model or another transformer"),
    (r"(^|\.)(time_embed|time_embedding|time_mlp|down_blocks\.\d+\.resnets|input_blocks)", "a diffusion model"),
    (r"(^|\.)(weight_ih_l\d|weight_hh_l\d)", "a recurrent network"),
    (r"(^|\.)layer4\.\d+\.conv1\.weight", "a classifier (ResNet)"),
    (r"(^|\.)features\.\d+.*\.weight", "a classifier (VGG, AlexNet, DenseNet …)"),
)  # fmt: skip


def shape_role(chain: Chain) -> Role:
    """What the flow of shapes says: images come out of a generator; one number comes out of a discriminator."""
    first, last = chain.ops[0], chain.ops[-1]
    takes_image = first.kind == "conv" and first.into <= 4
    if last.out == 1 and (takes_image or (first.kind == "linear" and last.kind == "linear" and first.into > 64)):
        return "discriminator"
    if takes_image or last.kind not in ("conv", "deconv", "linear"):
        return "other"
    return "generator" if image_of(last.out, VECTOR if last.kind == "linear" else (8, 8)) is not None else "other"


def refusal(path: Path, state: StateDict, chain: Chain | None, why: str) -> NotOpened:
    """The error that says what ``state`` is instead of a generator, and what to type."""
    kind = looks_like(state.tensors)
    if kind:
        return NotOpened(
            f"{path} looks like {kind} (it has '{_witness(state.tensors)}'), not a GAN; pass a generator's checkpoint"
        )
    family, role = recognised(state)
    if family is not None and role == "discriminator":
        return NotOpened(
            f"{path} holds the discriminator of {family.name}, not a generator; pass the generator's checkpoint first "
            f"and this one with --discriminator {path}"
        )
    if state.role == "discriminator" or (chain is not None and shape_role(chain) == "discriminator"):
        return NotOpened(
            f"{path} holds a discriminator, not a generator: {_ends(chain)}; pass the generator's checkpoint first and this "
            f"one with --discriminator {path}"
        )
    if chain is not None and shape_role(chain) == "other":
        first, last = chain.ops[0], chain.ops[-1]
        if first.kind == "conv" and first.into <= 4 and last.kind == "linear":
            return NotOpened(
                f"{path} looks like a classifier: images of {first.into} channels go in and {last.out} numbers come out "
                f"('{last.name}'); pass a generator's checkpoint"
            )
    return NotOpened(f"{path} cannot be opened from its state dict alone: {why}; {_CLASS}")


def _ends(chain: Chain | None) -> str:
    if chain is None:
        return "its name says so"
    last = chain.ops[-1]
    takes = _takes(chain)
    return f"its last layer '{last.name}' gives {last.out} number{'s' if last.out > 1 else ''} per image{takes}"


def _takes(chain: Chain) -> str:
    """Which images a discriminator of convolutions takes; "" where its shapes leave more than two sizes."""
    first = chain.ops[0]
    if first.kind != "conv":
        return ""
    shapes = Shapes(chain.ops, "discriminator", Goal(ups=False))
    costs = {side: shapes.rest(0, first.into, (side, side)) for side in _SIDES}
    least = min(costs.values())
    likely = [f"{side}×{side}" for side, cost in costs.items() if cost < least + 0.2]
    if least == inf or len(likely) > 2:
        return ""
    return f", for images of {' or '.join(likely)} and {first.into} channel{'s' if first.into > 1 else ''}"


def looks_like(tensors: Mapping[str, Tensor]) -> str:
    """A kind of network that is no GAN, by telltale names; "" for none."""
    for pattern, kind in _KINDS:
        if any(re.search(pattern, name) for name in tensors):
            return kind
    return ""


def _witness(tensors: Mapping[str, Tensor]) -> str:
    return next(name for name in tensors if any(re.search(pattern, name) for pattern, _ in _KINDS))
