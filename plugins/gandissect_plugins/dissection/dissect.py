"""Which units draw which concepts: overlap, its null distribution, and the labels that pass.

result = dissect(session)
for unit in result.found():
    print(unit.layer, unit.unit, unit.concept, unit.iou, unit.p)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.concepts import LOW_LEVEL, Concept
from gandissect.errors import NoSuchCapability, UsageError
from gandissect.gan import Gan, LayerInfo
from gandissect.paired import BitsResult, BitsSpec, CrossResult, CrossSpec
from gandissect.reducers import TailResult, TailSpec, tail_length
from gandissect.session import Session, Want
from gandissect.streams import Activations, CellAreas, Masks

from .chance import benjamini_hochberg
from .compare import Comparison
from .floors import correlation_floor, iou_floors
from .overlap import above_threshold, active_with_category, cell_areas, iou, presence
from .pixels import at_image_resolution

MOST_LAYERS = 12
"""Main layers that are dissected where none are named."""
SUPPORT = 1e-4  # a concept that covers less of all cells, or is in fewer than MIN_SAMPLES samples, is absent
MIN_SAMPLES = 3
_CONCEPT_BYTES = 128 * 2**20  # of cell areas held at once


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
        threshold: the activation that ``quantile`` of the unit's cells exceed.
        by: "IoU" or "correlation", what chose the concept.
        strength: what exceeds chance as a multiple of its floor, 1 or more for findings.
        found: q ≤ FDR and, above chance, an IoU of :func:`~.floors.iou_floors` or a correlation of
            :func:`~.floors.correlation_floor`.
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


@dataclass(frozen=True)
class Dissection:
    """What :func:`dissect` found out.

    Attributes:
        layers: one table for each layer.
        concepts: what the columns are.
        area: float64 [K], the part of all pixels that each concept covers; ``present`` int64 [K], samples that have it.
        tested: bool [K]: there is enough of it, and it is not a mere place.
        n, seed, quantile, fdr, draws, resolution: how it was made.
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
            return float(values[unit, k])

        return UnitLabel(
            table.layer.name,
            unit,
            self.concepts[k].name,
            at(table.iou),
            at(table.iou_in_category),
            at(table.null_iou),
            at(table.null_95),
            at(table.correlation),
            at(table.position_correlation),
            at(table.p),
            at(table.q),
            float(table.threshold[unit]),
            "correlation" if table.by_correlation[unit] else "IoU",
            float(table.strength[unit]),
            bool(table.found[unit]),
        )


@dataclass(frozen=True)
class _Plan:
    n: int
    quantile: float
    draws: int


def chosen_layers(gan: Gan, layers: Sequence[str] | None) -> tuple[LayerInfo, ...]:
    """The named layers of the generator, "all" of them, or its main ones (at most ``MOST_LAYERS``, spread over depth)."""
    generator = gan.generator
    if not layers:
        return spread(generator.main_layers(), MOST_LAYERS)
    if tuple(layers) == ("all",):
        return generator.layers
    return tuple(generator.layer(name) for name in layers)


def dissection_wants(gan: Gan, n: int, layers: Sequence[str] | None = None, quantile: float = 0.01) -> list[Want]:
    """What :func:`dissect` gathers in the shared pass."""
    wants = [Want((Masks(),), BitsSpec(), n)]
    for layer in chosen_layers(gan, layers):
        units, grid = Activations(layer.name), CellAreas(layer.height, layer.width)
        wants += [Want((units,), TailSpec(tail_length(n * layer.height * layer.width, quantile)), n)]
        wants += [Want((units, grid), CrossSpec(), n)]
    return wants


def dissect(
    session: Session,
    layers: Sequence[str] | None = None,
    *,
    quantile: float = 0.01,
    n: int | None = None,
    fdr: float = 0.05,
    draws: int = 999,
    resolution: str = "cell",
) -> Dissection:
    """Units against concepts, with what chance explains.

    Args:
        session: its vocabulary has the concepts.
        layers: names; the main layers where left out, every layer for ``["all"]``.
        quantile: the fraction of a unit's cells that count as active.
        n: samples; all of the session's where left out.
        fdr: false-discovery rate over all units, concepts and layers.
        draws: at least so many shuffles of the samples.
        resolution: "cell" compares on the grid of the layer, from the running tails alone; "image" upsamples
            activations to the image in a second pass (the null and its test stay on the grid).

    Raises:
        UsageError: a quantile outside 0..0.5 or an unknown resolution.
        NoSuchCapability: no concepts, or no readable layers.
    """
    count = session.n if n is None else n
    _check(session, quantile, resolution)
    infos = chosen_layers(session.gan, layers)
    session.prepare(dissection_wants(session.gan, count, [info.name for info in infos], quantile))
    masks = cast(BitsResult, session[Want((Masks(),), BitsSpec(), count)])
    concepts, seen = tuple(session.vocabulary.concepts), presence(masks)
    area, present = seen.double().mean(0), (seen > 0).sum(0)
    tested = (present >= min(MIN_SAMPLES, count)) & (area >= SUPPORT) & torch.tensor([not c.spatial for c in concepts])
    plan = _Plan(count, quantile, draws)
    tables = tuple(_layer_table(session, info, masks, concepts, seen, tested, plan) for info in infos)
    result = Dissection(tables, concepts, area, present, tested, count, session.seed, quantile, fdr, draws, resolution)
    return judged(at_image_resolution(session, result) if resolution == "image" else result)


def _check(session: Session, quantile: float, resolution: str) -> None:
    if not 0 < quantile <= 0.5:
        raise UsageError(f"quantile {quantile}: expected a fraction above 0 and at most 0.5")
    if resolution not in ("cell", "image"):
        raise UsageError(f"resolution {resolution!r}: expected 'cell' or 'image'")
    if not session.gan.generator.layers:
        raise NoSuchCapability("dissection needs readable layers; this format hides them")
    if not session.vocabulary.concepts:
        raise NoSuchCapability("dissection needs concepts; pass --concepts NAME")


def _layer_table(
    session: Session, info: LayerInfo, masks: BitsResult, concepts: Sequence[Concept], seen: Tensor, tested: Tensor,
    plan: _Plan,
) -> LayerTable:  # fmt: skip
    """Everything about one layer but its q-values and labels, which need all layers."""
    cells, n = info.height * info.width, plan.n
    units = Activations(info.name)
    tail = cast(TailResult, session[Want((units,), TailSpec(tail_length(n * cells, plan.quantile)), n)])
    cross = cast(CrossResult, session[Want((units, CellAreas(info.height, info.width)), CrossSpec(), n)])
    threshold, active = above_threshold(tail, plan.quantile, samples=n, cells=cells)
    step = max(1, _CONCEPT_BYTES // (4 * n * cells))
    shuffled = Comparison(len(threshold), iou_floors(len(threshold), concepts))
    for start in range(0, len(concepts), step):
        columns = slice(start, min(start + step, len(concepts)))
        areas = cell_areas(masks, info.height, info.width, columns)
        shuffled.add(
            active, areas, columns, tested, rng=partial(session.rng, f"dissection {info.name}"), draws=plan.draws
        )
    restricted = iou(shuffled.overlap, active_with_category(active, _category_present(seen, concepts)), shuffled.area)
    p = shuffled.p.clone()
    p[:, ~tested] = float("nan")
    p[active.count() == 0] = float("nan")
    nothing = torch.zeros(0)
    return LayerTable(
        info, tail, threshold, active.count(), shuffled.iou, restricted, shuffled.null_iou, shuffled.null_95,
        cross.correlation(), cross.expected(), p, nothing, nothing, nothing, nothing, nothing, shuffled.chance(),
    )  # fmt: skip


def _category_present(seen: Tensor, concepts: Sequence[Concept]) -> Tensor:
    """bool [n, K]: sample n holds any concept of k's category."""
    categories = [concept.category for concept in concepts]
    same = torch.tensor([[a == b for b in categories] for a in categories])
    return ((seen > 0).float() @ same.float()) > 0


def judged(result: Dissection) -> Dissection:
    """The same tables with q-values over all of them, labels, and which labels are findings."""
    q = benjamini_hochberg(torch.cat([table.p for table in result.layers]))
    tables, start = [], 0
    for table in result.layers:
        stop = start + len(table.p)
        tables.append(_labelled(table, q[start:stop], result))
        start = stop
    return replace(result, layers=tuple(tables))


def _labelled(table: LayerTable, q: Tensor, result: Dissection) -> LayerTable:
    """The concept of each unit that exceeds chance most, in IoU where that reaches its floor, else in correlation."""
    units, concepts = q.shape
    if not concepts:
        none = torch.zeros(units)
        return replace(table, q=q, label=none.long() - 1, by_correlation=none > 0, strength=none, found=none > 0)
    least = iou_floors(units, result.concepts)
    least_r = correlation_floor(result.n, units, table.layer.height * table.layer.width)
    untested = table.p.isnan()
    excess = ((table.iou - table.null_iou) / least).masked_fill(untested, -1.0)
    excess_r = ((table.correlation - table.position_correlation) / least_r).masked_fill(untested, -1.0)
    failed = ~(q <= result.fdr)  # True for NaN
    best, label = excess.masked_fill(failed, -1.0).max(1)
    best_r, label_r = excess_r.masked_fill(failed, -1.0).max(1)
    by_correlation = (best < 1.0) & (best_r >= 1.0)
    found = (best >= 1.0) | by_correlation
    any_best, any_label = excess.max(1)  # for units that did not pass: what comes nearest
    label = torch.where(found, torch.where(by_correlation, label_r, label), any_label)
    strength = torch.where(found, torch.where(by_correlation, best_r, best), any_best)
    label = label.masked_fill(untested.all(1), -1)
    return replace(table, q=q, label=label, by_correlation=by_correlation, strength=strength, found=found)
