"""What a dissection found: one table for each layer, one label for each unit.

result.found()[0].concept                           # "tree"
result.table("layer4").iou                          # float64 [U, K]
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gandissect.concepts import LOW_LEVEL, Concept
from gandissect.gan import LayerInfo
from gandissect.reducers import TailResult

from .counting.levels import LevelChoice


def _nothing() -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class UnitLabel:
    """A unit's best concept, and how far to trust it.

    Attributes:
        layer, unit: which unit.
        concept: name of the concept whose IoU exceeds chance most.
        iou: intersection over union, 0..1; ``null_iou`` its mean with the masks of other samples, ``null_95`` their 95 % point.
        iou_in_category: the same with |A| counted only in samples that hold any concept of the category.
        correlation: Pearson's r over all cells; ``position_correlation`` what position alone gives.
        p: of the overlap under shuffled samples; ``q`` after Benjamini–Hochberg over all units, concepts and layers.
        threshold: the activation above which the unit is active.
        by: "IoU" or "correlation", what chose the concept.
        strength: what exceeds chance as a multiple of its floor, 1 or more for findings.
        found: q ≤ FDR and, above chance, an IoU of :func:`~.floors.iou_floors` or a correlation of
            :func:`~.floors.correlation_floor`.
        fraction: the part of the unit's cells above ``threshold``.
        iqr: information quality ratio at that level, 0..1; see :func:`~.levels.information_quality`.
        iou_low, iou_high: 95 % interval of the IoU over other samples (bootstrap).
    """

    layer: str
    unit: int
    concept: str
    iou: float
    iou_in_category: float
    null_iou: float
    null_95: float
    correlation: float
    position_correlation: float
    p: float
    q: float
    threshold: float
    by: str
    strength: float
    found: bool
    fraction: float = math.nan
    iqr: float = math.nan
    iou_low: float = math.nan
    iou_high: float = math.nan

    @property
    def excess(self) -> float:
        """IoU above the mean of its null."""
        return self.iou - self.null_iou


@dataclass(frozen=True)
class LayerTable:
    """One layer's units against all concepts; every table is float64 [U, K].

    Attributes:
        layer: which layer.
        tail: the largest activations of each unit and where they are.
        threshold: float64 [U]; ``active`` int64 [U], cells above it.
        iou, iou_in_category, null_iou, null_95, correlation, position_correlation, p, q: see :class:`UnitLabel`.
        label: int64 [U], the place of the best concept, −1 for a unit that never varies or where there is none.
        by_correlation: bool [U], the label was chosen by correlation, not by IoU.
        strength: float64 [U], what exceeds chance as a multiple of its floor.
        found: bool [U], the label is a finding.
        chance: float64 [K], how many units the same floors label with each concept when samples are shuffled, on average.
        chance_95: float64 [K], the number that 95 % of the shuffles do not exceed.
        null_sd: standard deviation of the null's IoU.
    """

    layer: LayerInfo
    tail: TailResult
    threshold: Tensor
    active: Tensor
    iou: Tensor
    iou_in_category: Tensor
    null_iou: Tensor
    null_95: Tensor
    correlation: Tensor
    position_correlation: Tensor
    p: Tensor
    q: Tensor
    label: Tensor
    by_correlation: Tensor
    strength: Tensor
    found: Tensor
    chance: Tensor
    chance_95: Tensor
    null_sd: Tensor
    fraction: Tensor = field(default_factory=_nothing)
    iqr: Tensor = field(default_factory=_nothing)
    choice: LevelChoice | None = None
    low: Tensor = field(default_factory=_nothing)
    high: Tensor = field(default_factory=_nothing)


@dataclass(frozen=True)
class Dissection:
    """What :func:`dissect` found out.

    Attributes:
        layers: one table for each layer.
        concepts: what the columns are.
        area: float64 [K], the part of all pixels that each concept covers; ``present`` int64 [K], samples that have it.
        tested: bool [K]: there is enough of it, and it is not a mere place.
        n, seed, quantile, fdr, draws, resolution, levels: how it was made.
        shuffled: samples whose masks were shuffled: all, or as many as the memory for a test at chosen levels holds.
    """

    layers: tuple[LayerTable, ...]
    concepts: tuple[Concept, ...]
    area: Tensor
    present: Tensor
    tested: Tensor
    n: int
    seed: int
    quantile: float
    fdr: float
    draws: int
    resolution: str
    levels: str = "fixed"
    shuffled: int = 0

    @property
    def units(self) -> int:
        """Number of units in all layers."""
        return sum(len(table.label) for table in self.layers)

    @property
    def chance(self) -> float:
        """How many units the floors alone label when samples are shuffled, on average."""
        return sum(float(table.chance.sum()) for table in self.layers)

    def labels(self) -> list[UnitLabel]:
        """Every unit that has a label, found ones first, then by how far they exceed chance."""
        return list(self._labels)

    def found(self) -> list[UnitLabel]:
        """The labels that are findings."""
        return [row for row in self._labels if row.found]

    @cached_property
    def _labels(self) -> list[UnitLabel]:
        rows = [
            self._label(table, unit) for table in self.layers for unit in (table.label >= 0).nonzero()[:, 0].tolist()
        ]
        return sorted(rows, key=lambda row: (not row.found, -row.strength, row.layer, row.unit))

    def table(self, layer: str) -> LayerTable:
        """The table of one layer."""
        return next(table for table in self.layers if table.layer.name == layer)

    def ranking(self) -> list[tuple[str, int]]:
        """(concept, units found) for every concept found: things before mere looks, then those that most units follow."""
        counts = Counter(row.concept for row in self.found())
        looks = {concept.name: concept.category in LOW_LEVEL for concept in self.concepts}
        return sorted(counts.items(), key=lambda item: (looks[item[0]], -item[1], item[0]))

    def layer_concepts(self) -> dict[str, dict[str, int]]:
        """Layer -> concept -> number of units found, most first; every layer is there."""
        found: dict[str, dict[str, int]] = {table.layer.name: {} for table in self.layers}
        for row in self.found():
            found[row.layer][row.concept] = found[row.layer].get(row.concept, 0) + 1
        return {
            layer: dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))) for layer, counts in found.items()
        }

    def _label(self, table: LayerTable, unit: int) -> UnitLabel:
        k = int(table.label[unit])

        def at(values: Tensor) -> float:
            """The entry of a table [U, K] or of a column [U]; NaN where there is none."""
            return float(values[unit, k] if values.dim() == 2 else values[unit]) if unit < len(values) else math.nan

        return UnitLabel(
            layer=table.layer.name,
            unit=unit,
            concept=self.concepts[k].name,
            iou=at(table.iou),
            iou_in_category=at(table.iou_in_category),
            null_iou=at(table.null_iou),
            null_95=at(table.null_95),
            correlation=at(table.correlation),
            position_correlation=at(table.position_correlation),
            p=at(table.p),
            q=at(table.q),
            threshold=at(table.threshold),
            by="correlation" if table.by_correlation[unit] else "IoU",
            strength=at(table.strength),
            found=bool(table.found[unit]),
            fraction=at(table.fraction),
            iqr=at(table.iqr),
            iou_low=at(table.low),
            iou_high=at(table.high),
        )
