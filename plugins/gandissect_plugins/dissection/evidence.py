"""What a dissection gathers in the pass, and where units are active at the levels that follow from it.

plan = plan_of(gan, infos, concepts, n=1000, quantile=0.01, levels="iqr", resolution="cell")
session.prepare(want for info in infos for want in plan.wants(info))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gandissect.concepts import Concept
from gandissect.errors import UsageError
from gandissect.gan import Gan, LayerInfo
from gandissect.reducers import CrossSpec, TailResult, TailSpec, tail_length
from gandissect.session import Want
from gandissect.streams import Activations, CellAreas

from .counting.active import Active, ActiveCells, CodedCells
from .counting.bins import OCTAVES, BinsResult, BinsSpec
from .counting.levels import Candidates, LevelChoice, Quality, best_levels, bin_candidates, information_quality
from .counting.overlap import GridAreas, above, above_threshold, active_with_category
from .significance.compare import Comparison

CODE_BYTES = 256 * 2**20
"""Memory for activations kept for a test at levels that are only known after the pass."""
BIN_BYTES = 128 * 2**20
NEIGHBOUR_BYTES = 384 * 2**20
LARGEST = 0.5
"""Largest fraction of cells that may be asked to be active."""


@dataclass(frozen=True)
class Plan:
    """How levels are found.

    Attributes:
        n: samples.
        quantile: the fixed fraction; ``fractions`` all that are tried, none where bins are counted.
        around: whether cells are kept with their neighbours, so that no second pass is needed at the image's resolution.
        groups, bits, keep: see :class:`~.bins.BinsSpec`.
    """

    n: int
    quantile: float
    fractions: tuple[float, ...]
    around: bool
    groups: tuple[int, ...]
    bits: int
    keep: int

    @property
    def iqr(self) -> bool:
        """Levels come from bins."""
        return not self.fractions

    def tail_want(self, info: LayerInfo) -> Want:
        """The largest activations of one layer."""
        length = tail_length(self.n * info.height * info.width, max(self.fractions, default=self.quantile))
        return Want((Activations(info.name),), TailSpec(length, self.around), self.n)

    def cross_want(self, info: LayerInfo) -> Want:
        """Moments for its correlations."""
        return Want((Activations(info.name), CellAreas(info.height, info.width)), CrossSpec(), self.n)

    def bins_want(self, info: LayerInfo) -> Want:
        """Concept areas above many levels."""
        spec = BinsSpec(self.groups, self.bits, self.keep)
        return Want((Activations(info.name), CellAreas(info.height, info.width)), spec, self.n)

    def wants(self, info: LayerInfo) -> list[Want]:
        """All that is gathered of one layer."""
        wants = [self.tail_want(info), self.cross_want(info)]
        return [*wants, self.bins_want(info)] if self.iqr else wants


def plan_of(
    gan: Gan,
    infos: Sequence[LayerInfo],
    concepts: Sequence[Concept],
    n: int,
    quantile: float,
    levels: str,
    resolution: str,
) -> Plan:
    """How to find the levels within the memory that there is.

    Raises:
        UsageError: a fraction outside 0..0.5, unknown levels or resolution.
    """
    if resolution not in ("cell", "bilinear"):
        raise UsageError(f"resolution {resolution!r}: expected 'cell' or 'bilinear'")
    _check_fraction(quantile)
    fractions = () if levels == "iqr" else (quantile,) if levels == "fixed" else _parsed(levels)
    _, height, width = gan.generator.image_shape
    whole = all(height % info.height == 0 and width % info.width == 0 for info in infos)
    kept = sum(n * info.height * info.width * max(fractions, default=0.0) * info.channels for info in infos)
    around = resolution == "bilinear" and bool(fractions) and whole and kept * 36 <= NEIGHBOUR_BYTES
    categories = list(dict.fromkeys(concept.category for concept in concepts))
    columns, units = len(concepts) + 1 + len(categories), sum(info.channels for info in infos)
    bits = 6
    while bits > 2 and units * (OCTAVES << bits) * columns * 8 > BIN_BYTES:
        bits -= 1
    keep = CODE_BYTES // max(1, 2 * sum(info.channels * info.height * info.width for info in infos))
    groups = tuple(categories.index(concept.category) for concept in concepts)
    return Plan(n, quantile, fractions, around, groups, bits, min(n, max(keep, 2)))


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= LARGEST:
        raise UsageError(f"quantile {fraction}: expected a fraction above 0 and at most {LARGEST}")


def _parsed(levels: str) -> tuple[float, ...]:
    """The fractions of "0.005,0.02", in rising order."""
    try:
        fractions = tuple(sorted({float(part) for part in levels.split(",")}))
    except ValueError:
        raise UsageError(f"levels {levels!r}: expected 'fixed', 'iqr' or fractions like 0.005,0.02") from None
    for fraction in fractions:
        _check_fraction(fraction)
    return fractions


@dataclass(frozen=True)
class Counts:
    """Overlaps at the level of each unit, in cells: float64 [U, K], ``active`` int64 [U], ``area`` float64 [K].

    ``active_in`` [U, K] counts samples that hold any concept of the category only; ``cells`` are all of them.
    """

    overlap: Tensor
    active: Tensor
    active_in: Tensor
    area: Tensor
    cells: int

    def quality(self) -> Quality:
        """What each unit tells about each concept at its level."""
        whole = max(self.cells, 1)
        return information_quality(self.overlap / whole, self.area / whole, self.active.double()[:, None] / whole)


def counted(active: Active, shuffled: Comparison, held: Tensor) -> Counts:
    """The counts of a comparison over all samples; ``held`` bool [n, K]: the sample has any concept of the category."""
    if not isinstance(active, ActiveCells):
        raise TypeError("codes of the first samples do not count all of them")
    within = active_with_category(active, held)
    return Counts(shuffled.overlap, active.count(), within, shuffled.area, active.samples * active.cells)


def category_present(seen: Tensor, concepts: Sequence[Concept]) -> Tensor:
    """bool [n, K]: sample n holds any concept of k's category."""
    categories = [concept.category for concept in concepts]
    same = torch.tensor([[a == b for b in categories] for a in categories])
    return ((seen > 0).float() @ same.float()) > 0


@dataclass(frozen=True)
class AtLevels:
    """Where units are active: ``level`` float64 [U], and the counts over all samples where ``active`` does not hold them all."""

    level: Tensor
    active: Active
    counts: Counts | None = None
    choice: LevelChoice | None = None

    @property
    def overlap(self) -> Tensor | None:
        """The overlap of ``active`` with every concept, float64 [U, K], where it is counted already."""
        whole = self.counts is not None and self.counts.cells == self.active.samples * self.active.cells
        return self.counts.overlap if self.counts is not None and whole else None


def at_levels(
    info: LayerInfo, tail: TailResult, bins: BinsResult | None, areas: GridAreas, tested: Tensor, plan: Plan
) -> AtLevels:
    """The level of each unit of one layer by the rule of the plan, and where the unit is above it."""
    cells = info.height * info.width
    if bins is not None:
        return _by_quality(bins, cells, tested, plan)
    if len(plan.fractions) == 1:
        return AtLevels(*above_threshold(tail, plan.fractions[0], samples=plan.n, cells=cells))
    candidates = _tail_candidates(info, tail, areas, plan)
    choice = best_levels(candidates, tested, plan.quantile)
    level = choice.level.gather(1, choice.place[:, None])[:, 0]
    return AtLevels(level, above(tail, level, samples=plan.n, cells=cells), choice=choice)


def _by_quality(bins: BinsResult, cells: int, tested: Tensor, plan: Plan) -> AtLevels:
    """Levels of greatest IQR; cells above them are known for the samples whose codes were kept."""
    candidates, edges = bin_candidates(bins)
    choice = best_levels(candidates, tested, plan.quantile)
    units, concepts = torch.arange(len(edges)), len(bins.area)
    edge = edges.gather(1, choice.place[:, None])[:, 0]
    counted_above = bins.above[units, edge]
    count = counted_above[:, concepts].round().long()
    known = count if len(bins.codes) * cells == bins.cells else None
    active = CodedCells(len(units), len(bins.codes), cells, bins.codes, bins.first + edge, known)
    within = counted_above[:, concepts + 1 :][:, list(plan.groups)]
    counts = Counts(counted_above[:, :concepts], count, within, bins.area, bins.cells)
    return AtLevels(candidates.level[units, choice.place], active, counts, choice)


def _tail_candidates(info: LayerInfo, tail: TailResult, grids: GridAreas, plan: Plan) -> Candidates:
    """Exact levels at the fractions that were asked for."""
    cells = info.height * info.width
    found = [above_threshold(tail, fraction, samples=plan.n, cells=cells) for fraction in plan.fractions]
    overlap = torch.zeros(len(tail.values), len(found), grids.masks.shape[0], dtype=torch.float64)
    area = torch.zeros(grids.masks.shape[0], dtype=torch.float64)
    for columns, areas in grids.columns(info.height, info.width, plan.n):
        area[columns] = areas.sum((0, 1), dtype=torch.float64)
        for place, (_, active) in enumerate(found):
            overlap[:, place, columns] = active.overlaps(areas)
    level = torch.stack([level for level, _ in found], 1)
    count = torch.stack([active.count() for _, active in found], 1).double()
    return Candidates(level, count, overlap, area, plan.n * cells)
