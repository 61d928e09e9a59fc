"""The units that follow discovered concepts, and what switching them off removes.

units = units_of(session, found, n=300)
units.result.found()                                # from the dissection, with its null
units.removals["green, at the bottom"].removed      # 0.62
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gandissect.concepts import Vocabulary, concept_areas
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Session, Want
from gandissect_plugins.attributions import Paired, paired
from gandissect_plugins.dissection import Dissection, UnitLabel, dissect, dissection_wants

from .discover import Discovery

SET_SIZE = 8
RANDOM_SETS = 4
LEAST = 0.05  # part of a concept's area that must go for units to be called causal
SAMPLES = 32
LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Removal:
    """The best units of a concept in one layer, switched off together.

    Attributes:
        layer, units: what was set to zero.
        removed: the part of the concept's area that is gone; ``random`` what as many other units of the layer remove on
            average.
        beyond: the difference, as a part of the area, paired over ``samples``.
        before, after: float32 [m, C, H, W], the first of them.
    """

    layer: str
    units: tuple[int, ...]
    removed: float
    random: float
    beyond: Paired
    samples: tuple[int, ...]
    before: Tensor
    after: Tensor

    @property
    def causal(self) -> bool:
        """More is removed than by random units, and enough."""
        return self.beyond.clear and self.removed >= LEAST


@dataclass(frozen=True)
class Units:
    """Which units follow which discovered concept, from the dissection, and the removals by name of concept."""

    result: Dissection
    removals: dict[str, Removal]

    def of(self, concept: str) -> list[UnitLabel]:
        """The units found for a concept, strongest first."""
        return [row for row in self.result.found() if row.concept == concept]


def units_of(session: Session, found: Discovery, *, n: int = 300) -> Units:
    """Dissect the layers that were clustered with the discovered concepts, read from pixels.

    Args:
        n: samples, the session's at most.
    """
    inner = Session(
        session.gan, vocabulary=Vocabulary([found.segmenter()]), n=min(n, session.n), seed=session.seed,
        batch_size=session.batch_size, progress=session.progress,
    )  # fmt: skip
    layers = list(found.layers)
    inner.prepare([*dissection_wants(inner.gan, inner.n, layers), Want((Areas(),), KeepSpec(), inner.n)])
    result = dissect(inner, layers)
    areas = inner.areas()
    removals: dict[str, Removal] = {}
    if session.gan.capabilities.edits:
        for place, concept in enumerate(found.concepts):
            chosen = _best_set(session, [row for row in result.found() if row.concept == concept.name])
            if chosen:
                removals[concept.name] = _removal(inner, *chosen, place, areas[:, place], len(found.concepts))
    session.images_generated += inner.images_generated
    session.notes += [note for note in inner.notes if note not in session.notes]
    return Units(result, removals)


def _best_set(session: Session, rows: Sequence[UnitLabel]) -> tuple[str, tuple[int, ...]] | None:
    """The editable layer whose units follow the concept most strongly together, and its best units, a quarter at most."""
    layers: dict[str, list[UnitLabel]] = {}
    for row in sorted(rows, key=lambda row: -row.strength):
        info = session.gan.generator.layer(row.layer)
        kept = layers.setdefault(row.layer, [])
        if info.editable and len(kept) < min(SET_SIZE, max(1, info.channels // 4)):
            kept.append(row)
    best = max(layers.items(), key=lambda item: sum(row.strength for row in item[1]), default=("", []))
    return (best[0], tuple(row.unit for row in best[1])) if best[1] else None


def _removal(session: Session, layer: str, units: tuple[int, ...], place: int, areas: Tensor, concepts: int) -> Removal:
    runs = concepts * (2 + RANDOM_SETS)
    count = min(SAMPLES, max(LEAST_SAMPLES, session.affordable(runs * SAMPLES) // runs))
    there = areas > 0
    enough = there & (areas >= areas[there].median())
    samples = tuple(enough.nonzero()[:, 0].tolist()[:count])
    channels = session.gan.generator.layer(layer).channels
    rng = session.rng(f"discovery {layer} {units}")
    others = [unit for unit in range(channels) if unit not in units] or list(range(channels))
    size = min(len(units), len(others))
    sets = [tuple(sorted(rng.choice(others, size, replace=False).tolist())) for _ in range(RANDOM_SETS)]
    before, start = _without(session, layer, (), samples, place)
    after, rest = _without(session, layer, units, samples, place)
    chance = torch.stack([_without(session, layer, chosen, samples, place)[1] for chosen in sets]).mean(0)
    whole = float(start.sum())
    beyond = paired((chance - rest) / (whole / len(samples)), rng)
    return Removal(
        layer,
        units,
        1 - float(rest.sum()) / whole,
        1 - float(chance.sum()) / whole,
        beyond,
        samples,
        before[:8],
        after[:8],
    )


def _without(
    session: Session, layer: str, units: Sequence[int], samples: Sequence[int], place: int
) -> tuple[Tensor, Tensor]:
    """Images float32 [N, C, H, W] with ``units`` at zero, and the area of the concept in each, float64 [N]."""

    def edit(_layer: str, activation: Tensor) -> Tensor:
        changed = activation.clone()
        changed[:, list(units)] = 0.0
        return changed

    latents, labels = session.latents_at(samples), session.labels(samples)
    images = session.generate(latents, edit=edit if units else None, layers=[layer] if units else (), labels=labels)
    return images, concept_areas(session.segment(images, list(samples), only=[place]))[:, 0].double()
