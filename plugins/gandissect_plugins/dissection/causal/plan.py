"""How much is edited, and which units and samples are worth it.

Plan(samples=40, units=12)
candidate_sets(result, "tree", "IoU", 8)            # what may be switched off together
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gandissect.analyzer import spread

from ..tables import Dissection, LayerTable, UnitLabel

LAYERS = 4
"""Layers in which the units of a concept are tried."""


@dataclass(frozen=True)
class Plan:
    """How much is edited.

    Attributes:
        samples: how many for each edit.
        units: units that are switched off and on alone; the first three quarters follow concepts, the others follow none.
        concepts: concepts whose best units are switched off together.
        set_size: units in a set, a quarter of the layer at most.
        random: rounds of random units, other ones in every sample.
        doses: concepts with a dose-response curve.
        maps: concepts with an insertion map.
        orders: concepts for which the orders of units are compared.
        ace_steps: of ACE in that comparison; 0 leaves it out.
        artifacts: units tested for artifacts.
    """

    samples: int = 32
    units: int = 10
    concepts: int = 6
    set_size: int = 8
    random: int = 2
    doses: int = 1
    maps: int = 1
    orders: int = 0
    ace_steps: int = 100
    artifacts: int = 16

    @property
    def images(self) -> int:
        """About how many images all of it makes."""
        each = self.concepts * (5 + self.random) + self.units * 4 + 5 * self.doses + 6 * self.maps
        compared = self.orders * (self.set_size * (self.set_size + 4) + self.ace_steps)
        return self.samples * (each + compared) + 16 * self.artifacts


@dataclass(frozen=True)
class UnitSet:
    """The units of one layer that follow a concept best, and by what they were chosen: "IoU" or "correlation"."""

    concept: str
    layer: str
    units: tuple[int, ...]
    chosen_by: str


def candidate_sets(result: Dissection, concept: str, how: str, most: int) -> list[UnitSet]:
    """The units that follow a concept best in each layer where some do beyond chance, in ``LAYERS`` layers over depth at most.

    Args:
        result: from :func:`dissect`.
        concept: which.
        how: "IoU" or "correlation", what exceeds chance by most.
        most: units in a set; a quarter of the layer at most.
    """
    k = [item.name for item in result.concepts].index(concept)
    found = {row.layer for row in result.found() if row.concept == concept}
    tables = [
        table
        for table in result.layers
        if table.layer.editable and (table.layer.name in found or bool((table.q[:, k] <= result.fdr).any()))
    ]
    return [
        UnitSet(concept, table.layer.name, _best_units(table, k, how, most), how) for table in spread(tables, LAYERS)
    ]


def _best_units(table: LayerTable, k: int, how: str, most: int) -> tuple[int, ...]:
    by_r, by_iou = table.correlation - table.position_correlation, table.iou - table.null_iou
    score = (by_r if how == "correlation" else by_iou)[:, k]
    size = max(1, min(most, len(score) // 4))
    return tuple(score.argsort(descending=True, stable=True)[:size].tolist())


@dataclass(frozen=True)
class Single:
    """A unit to edit alone, with its label where it was found."""

    layer: str
    unit: int
    label: UnitLabel | None


def single_units(result: Dissection, plan: Plan) -> list[Single]:
    """The best units of each found concept in turn, then those that follow none and go against one most.

    The others matter because a unit that suppresses a concept overlaps with everything but that concept.
    """
    editable = {table.layer.name: table for table in result.layers if table.layer.editable}
    queues: dict[str, list[UnitLabel]] = {name: [] for name, _ in result.ranking()}
    for row in result.found():
        if row.layer in editable:
            queues[row.concept].append(row)
    turn = [row for rank in range(plan.units) for queue in queues.values() for row in queue[rank : rank + 1]]
    others = _against(result, editable, [name for name, _ in result.ranking()])
    share = max(plan.units - len(others), -(-3 * plan.units // 4))
    chosen = [Single(row.layer, row.unit, row) for row in turn[:share]]
    return chosen + others[: plan.units - len(chosen)]


def _against(result: Dissection, editable: dict[str, LayerTable], concepts: Sequence[str]) -> list[Single]:
    """Units that were not found, in layers where some were, those first that correlate with a concept least."""
    names = [concept.name for concept in result.concepts]
    columns = [names.index(name) for name in concepts]
    ranked = []
    for layer in dict.fromkeys(row.layer for row in result.found()):
        table = editable.get(layer)
        if table is not None and columns:
            least = (table.correlation - table.position_correlation)[:, columns].amin(1)
            ranked += [(float(least[unit]), layer, unit) for unit in (~table.found).nonzero()[:, 0].tolist()]
    return [Single(layer, unit, None) for _, layer, unit in sorted(ranked)]


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
