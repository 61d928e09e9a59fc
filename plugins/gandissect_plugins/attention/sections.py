"""Attention in figures and words.

attention_section("generator", images, rows, refused, names)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from torch import Tensor

from gandissect.blocks import (
    Block,
    Cell,
    Finding,
    Overlay,
    Pixels,
    Reference,
    Section,
    Table,
    Text,
    Trust,
    to_uint8,
)
from gandissect.wording import percent
from gandissect_plugins.attention.content import Following, Head, Locality
from gandissect_plugins.attention.effects import Effects
from gandissect_plugins.attention.maps import EXACT, AttentionLayer

REFERENCES = (
    Reference(
        "Zhang, H., Goodfellow, I., Metaxas, D. & Odena, A.",
        2019,
        "Self-attention generative adversarial networks",
        "ICML",
    ),
    Reference(
        "Brock, A., Donahue, J. & Simonyan, K.", 2019, "Large scale GAN training for natural image synthesis", "ICLR"
    ),
    Reference("Vaswani, A. and others", 2017, "Attention is all you need", "NeurIPS"),
    Reference("Wang, X., Girshick, R., Gupta, A. & He, K.", 2018, "Non-local neural networks", "CVPR"),
    Reference("Jain, S. & Wallace, B.", 2019, "Attention is not explanation", "NAACL"),
    Reference(
        "Hoeffding, W.", 1951, "A combinatorial central limit theorem", "Annals of Mathematical Statistics 22(4)"
    ),
)
MEANING = """
A map says how much the marked place takes from each other place: softmax of query · key (Zhang et al. 2019, eq. 1), mean over heads. It is
shown only where the layer's own output follows from it (error below 1e-4). *Entropy* 1 is uniform. *Distance* is a part of the image's
diagonal; by chance: the same rows with the places of the keys permuted. *Within its own region*: attention inside the colour (nearest
quarter of the places) or the thing the query belongs to, against the same sum with the regions of other samples, which is what a map of
positions alone gives; p permutes whole samples. *Removed*: the values of all places, of the tenth that is attended most, of a random
tenth, in parts of what two samples differ by. *Most often at*: the step from query to key that holds most of a head's attention. A map
shows where values are taken from, not what they are worth: only the removals say that.
"""
LEAST = 0.01
UNIFORM = 0.999
FOLLOWS = 0.01
LEARNED = 0.001
"""p against copies with shuffled weights from which on a layer counts as trained."""


@dataclass(frozen=True)
class Told:
    """A layer with all that was measured of it; ``trained`` is p of its following against shuffled weights, NaN where not asked."""

    layer: AttentionLayer
    heads: Sequence[Head]
    near: Locality
    following: Mapping[str, Following]
    effects: Effects
    trained: float


def attention_section(
    role: str, images: Tensor, told: Sequence[Told], notes: Sequence[str], names: Sequence[str]
) -> Section:
    """Maps of the chosen queries, and the tables that say what they are worth.

    Args:
        role: "generator" or "discriminator".
        images: float32 [N, C, H, W] in [-1, 1]; those of ``names`` are shown.
        told: layers.
        notes: what was left out, and why.
        names: of the samples that are shown.
    """
    blocks: list[Block] = [Text(note) for note in notes]
    shown = [row for row in told if row.layer.reproduced]
    blocks += [_overlay(row.layer, images, names) for row in shown]
    if shown:
        blocks += [_maps_table(shown), *_heads_table(shown), _following_table(shown), _effects_table(role, shown)]
    failed = [row.layer for row in told if not row.layer.reproduced]
    blocks += [
        Text(
            f"`{layer.name}` is not shown: its output does not follow from the map (error {layer.error:.2g}, allowed {EXACT:g})."
        )
        for layer in failed
    ]
    return Section(
        f"Where the {role} attends", *blocks, summary=_summary(role, shown, failed),
        findings=[finding for row in shown for finding in _findings(role, row)], meaning=MEANING, references=REFERENCES,
        status="done" if shown else "partly",
    )  # fmt: skip


def _summary(role: str, shown: Sequence[Told], failed: Sequence[AttentionLayer]) -> str:
    if not shown:
        return (
            f"{len(failed)} attention layers of the {role} could not be reproduced from their maps, so none is shown."
        )
    most = max(shown, key=lambda row: row.effects.branch)
    found = most.effects
    what = "image" if role == "generator" else "logit"
    if found.nothing:
        return f"No attention layer of the {role} changes the {what} when it is removed."
    even = [f"`{row.layer.name}`" for row in shown if row.layer.entropy > UNIFORM]
    alike = f" At {' and '.join(even)} attention is uniform: one mean is added everywhere." if even else ""
    return (
        f"Removing `{most.layer.name}` changes the {what} by {percent(found.branch)} of what two samples differ by; its map's "
        f"entropy is {most.layer.entropy:.2f} of uniform, and the places it attends to most matter {_times(found)} as much as random ones "
        f"(p = {found.gap.p:.2g}).{alike}"
    )


def _times(found: Effects) -> str:
    return f"{found.top / found.random:.3g} times" if found.random > 0 else "not"


def _findings(role: str, row: Told) -> list[Finding]:
    layer, found = row.layer, row.effects
    n = len(layer.maps)
    if found.nothing:
        gates = " and ".join(f"`{name}` = {value:.3g}" for name, value in layer.gates.items())
        words = f"**Attention `{layer.name}` of the {role} does nothing**{f' ({gates})' if gates else ''}: removing it changes no output."
        return [Finding(words, Trust(f"exact, n = {n}", "all values of the layer set to 0; output compared"), 0.5)]
    best = max(row.following.items(), key=lambda item: item[1].excess, default=None)
    if best is None or best[1].p > FOLLOWS or found.branch < LEAST or not row.trained <= LEARNED:
        return []
    region, following = best
    words = (
        f"Attention `{layer.name}` of the {role} follows content: {percent(following.own)} of a place's attention stays within its own "
        f"{region}, {percent(following.others)} by position alone."
    )
    tested = f"p = {following.p:.2g} over permuted samples, n = {following.samples}; against shuffled weights p = {row.trained:.2g}"
    return [Finding(words, Trust(f"p = {following.p:.2g}", tested), 0.45)]


def _overlay(layer: AttentionLayer, images: Tensor, names: Sequence[str]) -> Overlay:
    pictures, labels = [], []
    plain = to_uint8(images[: len(names)])
    for place, name in enumerate(names):
        for point in layer.points[: layer.shown].tolist():
            row, column = divmod(point, layer.queries[1])
            pictures.append(_marked(plain[place], layer, row, column))
            labels.append(f"{name}, query {row + 1}, {column + 1}")
    maps = layer.maps[: len(names), : layer.shown].flatten(0, 1).numpy()
    size = f"{layer.queries[0]}×{layer.queries[1]} queries, {layer.keys[0]}×{layer.keys[1]} keys"
    return Overlay(
        np.stack(pictures), maps, f"attention of {layer.name}, {size}: one map for each marked query", signed=False,
        labels=tuple(labels), columns=max(1, 2 * layer.shown), unit="part of the attention",
        caption=f"`{layer.name}`: {size}. The framed cell (row, column) asks; the map says where it takes from.{_outside(layer)}",
    )  # fmt: skip


def _outside(layer: AttentionLayer) -> str:
    """What is said of tokens that are no places; empty where there are none."""
    which = " and ".join(name for name, there in zip(("queries", "keys"), layer.places.skipped, strict=True) if there)
    first = f" The first token of the {which} is taken for a class token." if which else ""
    return first + (
        f" {percent(layer.aside)} of the attention goes to tokens that are no places." if layer.aside > 0 else ""
    )


def _marked(picture: Pixels, layer: AttentionLayer, row: int, column: int) -> Pixels:
    """A copy with a frame of black and white around the query's cell, at least 5 pixels wide."""
    out = picture.copy()
    height, width = out.shape[:2]
    y = [row * height // layer.queries[0], (row + 1) * height // layer.queries[0] - 1]
    x = [column * width // layer.queries[1], (column + 1) * width // layer.queries[1] - 1]
    for level, margin in ((255, 2), (0, 1)):
        top, bottom = max(y[0] - margin, 0), min(y[1] + margin, height - 1)
        left, right = max(x[0] - margin, 0), min(x[1] + margin, width - 1)
        out[[top, bottom], left : right + 1] = level
        out[top : bottom + 1, [left, right]] = level
    return out


def _maps_table(told: Sequence[Told]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            row.layer.name, row.layer.heads, ", ".join(f"{name} = {value:.3g}" for name, value in row.layer.gates.items()) or "none",
            row.layer.entropy, row.near.distance, row.near.shuffled, row.near.p, row.layer.error,
        )
        for row in told
    ]  # fmt: skip
    columns = ("layer", "heads", "gate", "entropy (1 = uniform)", "distance", "by chance", "p", "error of the replay")
    return Table(columns, rows, "How spread and how near the attention is; at most 8×8 queries of each sample.")


def _heads_table(told: Sequence[Told]) -> list[Table]:
    """The outermost heads of every layer that has several; no table where none has."""
    rows: list[tuple[Cell, ...]] = [
        (
            row.layer.name, head.number + 1, head.entropy, head.distance, step_name(head.step),
            None if head.step is None else head.share,
        )
        for row in told if len(row.heads) > 1
        for head in _outermost(row.heads)
    ]  # fmt: skip
    columns = ("layer", "head", "entropy (1 = uniform)", "distance", "most often at", "part of its attention there")
    caption = "Heads by themselves: in each layer the sharpest, the most even, the nearest and the farthest."
    return [Table(columns, rows, caption)] if rows else []


def _outermost(heads: Sequence[Head]) -> list[Head]:
    """The heads with least and most entropy and distance, each once, by number."""
    ends = [end(heads, key=key) for key in (lambda h: h.entropy, lambda h: h.distance) for end in (min, max)]
    return sorted({head.number: head for head in ends}.values(), key=lambda head: head.number)


def step_name(step: tuple[int, int] | None) -> str | None:
    """``2 up, 1 left`` for (-2, -1); ``itself`` for (0, 0)."""
    if step is None:
        return None
    down, right = step
    parts = [f"{abs(down)} {'down' if down > 0 else 'up'}"] if down else []
    parts += [f"{abs(right)} {'right' if right > 0 else 'left'}"] if right else []
    return ", ".join(parts) or "itself"


def _following_table(told: Sequence[Told]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            row.layer.name,
            region,
            found.own,
            found.others,
            found.p,
            None if isnan(row.trained) else row.trained,
            found.samples,
        )
        for row in told
        for region, found in row.following.items()
    ]
    columns = (
        "layer",
        "region of the query",
        "attention within it",
        "by position alone",
        "p",
        "p against shuffled weights",
        "samples",
    )
    return Table(columns, rows, "Whether attention follows what is in the picture.")


def _effects_table(role: str, told: Sequence[Told]) -> Table:
    what = "image" if role == "generator" else "logit"
    rows: list[tuple[Cell, ...]] = [
        (
            row.layer.name, row.effects.branch, None if isnan(row.effects.score) else row.effects.score, row.effects.top,
            row.effects.random, row.effects.gap.p,
        )
        for row in told
    ]  # fmt: skip
    columns = (
        "layer",
        "all removed",
        "change of D's logit",
        "most attended tenth removed",
        "random tenth removed",
        "p",
    )
    return Table(columns, rows, f"Measured changes of the {what}, in parts of what two samples differ by.")
