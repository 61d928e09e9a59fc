"""Which ablations are worth making, and what they show beside random units of the same layer.

tests = causal_tests(session, result, Plan())
tests.concepts[0].verdict                           # "causal"
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gandissect.session import Session

from .causal import Ablation, Baseline, Effect, ablate, baseline
from .dissect import Dissection, LayerTable, UnitLabel

LEAST = 0.05  # part of a concept's area that an effect must remove to count
RANDOM_SETS = 4


@dataclass(frozen=True)
class Plan:
    """How much is ablated: samples per ablation, single units, concepts, units in a set."""

    samples: int = 40
    units: int = 10
    concepts: int = 6
    set_size: int = 8


@dataclass(frozen=True)
class ConceptTest:
    """The units of one layer that follow a concept best, switched off together.

    Attributes:
        concept, layer, units: what was switched off.
        ablation: the measurement.
        effect: what was removed; ``random`` what random sets of the same size remove on average; ``beyond`` the difference.
        chosen_by: "IoU", or "correlation" where most units were found by that.
    """

    concept: str
    layer: str
    units: tuple[int, ...]
    ablation: Ablation
    effect: Effect
    random: float
    beyond: Effect
    chosen_by: str

    @property
    def causal(self) -> bool:
        """The units remove the concept: more than random sets do, and at least ``LEAST`` of its area."""
        return self.beyond.low > 0 and self.effect.low > 0 and self.effect.removed >= LEAST

    @property
    def verdict(self) -> str:
        """In a word or two, for the table."""
        if math.isnan(self.effect.removed):
            return "not in these samples"
        return (
            "causal" if self.causal else "no effect" if abs(self.effect.removed) < 0.01 else "not beyond random units"
        )


@dataclass(frozen=True)
class CausalTests:
    """All ablations of one report: ``units`` by (layer, unit), and ``concepts``."""

    samples: tuple[int, ...]
    concepts: tuple[ConceptTest, ...]
    units: dict[tuple[str, int], Effect]

    def of(self, concept: str) -> ConceptTest | None:
        """The test of one concept."""
        return next((test for test in self.concepts if test.concept == concept), None)


def causal_tests(session: Session, result: Dissection, plan: Plan, areas: Tensor) -> CausalTests:
    """Ablate the best units of the concepts that were found, alone and together, and random sets beside them.

    Args:
        session: its vocabulary reads pixels.
        result: from :func:`dissect`.
        plan: how much.
        areas: float32 [n, K], the part of each sample that each concept covers.
    """
    sets = _sets(result, plan)
    singles = _singles(result, plan)
    names = [concept.name for concept in result.concepts]
    wanted = list(dict.fromkeys([name for name, *_ in sets] + [row.concept for row in singles]))
    if not wanted:
        return CausalTests((), (), {})
    indices = cover(areas, [names.index(name) for name in wanted], plan.samples)
    start = baseline(session, indices)
    random: dict[tuple[str, int], list[Ablation]] = {}
    tests: list[ConceptTest] = []
    alone: dict[tuple[str, int], Effect] = {}
    with session.progress.phase("switching units off", len(sets) + len(singles)) as advance:
        for name, layer, units, chosen_by in sets:
            key = (layer, len(units))
            if key not in random:
                random[key] = _random_sets(session, layer, len(units), start)
            tests.append(_concept_test(session, name, layer, units, chosen_by, start, random[key]))
            advance(1)
        for row in singles:
            ablation = ablate(session, row.layer, [row.unit], row.concept, samples=start, keep_images=0)
            alone[row.layer, row.unit] = ablation.removed()
            advance(1)
    return CausalTests(tuple(indices), tuple(tests), alone)


def _concept_test(
    session: Session, name: str, layer: str, units: tuple[int, ...], chosen_by: str, start: Baseline, random: list[Ablation]
) -> ConceptTest:  # fmt: skip
    ablation = ablate(session, layer, units, name, samples=start, keep_images=len(start.indices))
    chance = [other.removed(name).removed for other in random]
    mean = sum(chance) / len(chance) if chance else float("nan")
    return ConceptTest(name, layer, units, ablation, ablation.removed(), mean, ablation.beyond(random), chosen_by)


def _random_sets(session: Session, layer: str, size: int, start: Baseline) -> list[Ablation]:
    """Ablations of random sets of units of the layer."""
    channels = session.gan.generator.layer(layer).channels
    rng = session.rng(f"random units {layer} {size}")
    draws = [sorted(rng.choice(channels, size, replace=False).tolist()) for _ in range(RANDOM_SETS)]
    return [ablate(session, layer, units, samples=start, keep_images=0) for units in draws]


def _sets(result: Dissection, plan: Plan) -> list[tuple[str, str, tuple[int, ...], str]]:
    """(concept, layer, units, chosen by) of the first concepts in the ranking."""
    names = [concept.name for concept in result.concepts]
    by_r = Counter(row.concept for row in result.found() if row.by == "correlation")
    chosen = []
    for name, count in result.ranking():
        k = names.index(name)
        if 2 * by_r[name] > count:
            scores, how = (
                [table.correlation[:, k] - table.position_correlation[:, k] for table in result.layers],
                "correlation",
            )
        else:
            scores, how = [table.iou[:, k] - table.null_iou[:, k] for table in result.layers], "IoU"
        layer, units = _best_units(result, scores, plan)
        if layer:
            chosen.append((name, layer, units, how))
    return chosen[: plan.concepts]


def _best_units(result: Dissection, scores: Sequence[Tensor], plan: Plan) -> tuple[str, tuple[int, ...]]:
    """The layer whose best units score highest together, and those units."""
    best: tuple[float, str, tuple[int, ...]] = (-1.0, "", ())
    for table, values in zip(result.layers, scores, strict=True):
        size = max(1, min(plan.set_size, _quarter(table)))
        top = values.sort(descending=True, stable=True)
        mean = float(top.values[:size].mean()) if len(values) else -1.0
        if mean > best[0] and table.layer.editable:
            best = (mean, table.layer.name, tuple(top.indices[:size].tolist()))
    return best[1], best[2]


def _quarter(table: LayerTable) -> int:
    return len(table.label) // 4


def _singles(result: Dissection, plan: Plan) -> list[UnitLabel]:
    """The units to ablate alone: the best of each found concept in turn."""
    editable = {table.layer.name for table in result.layers if table.layer.editable}
    queues: dict[str, list[UnitLabel]] = {name: [] for name, _ in result.ranking()}
    for row in result.found():
        if row.layer in editable:
            queues[row.concept].append(row)
    chosen: list[UnitLabel] = []
    while len(chosen) < plan.units and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < plan.units:
                chosen.append(queue.pop(0))
    return chosen


def cover(areas: Tensor, concepts: Sequence[int], count: int) -> list[int]:
    """Sample indices, ascending: of each concept in turn the next sample that has at least its median area, up to ``count``.

    Samples are taken in the order of their numbers, so which ones are chosen says nothing about the units.
    """
    queues = []
    for k in concepts:
        there = areas[:, k] > 0
        level = areas[there, k].median() if bool(there.any()) else 1.0
        queues.append((there & (areas[:, k] >= level)).nonzero()[:, 0].tolist())
    queues.append(list(range(len(areas))))
    chosen: dict[int, None] = {}
    while len(chosen) < min(count, len(areas)):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                chosen[queue.pop(0)] = None
    return sorted(chosen)
