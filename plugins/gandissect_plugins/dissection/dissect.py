"""Which units draw which concepts: overlap, its null distribution, and the labels that pass.

result = dissect(session)
for unit in result.found():
    print(unit.layer, unit.unit, unit.concept, unit.iou, unit.p)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TypeVar, cast

import torch
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.concepts import Concept
from gandissect.errors import NoSuchCapability
from gandissect.gan import Gan, LayerInfo
from gandissect.reducers import BitsResult, BitsSpec, CrossResult, TailResult
from gandissect.session import Session, Want
from gandissect.streams import Masks

from .counting.bins import BinsResult
from .counting.overlap import GridAreas, iou, presence
from .evidence import AtLevels, Plan, at_levels, category_present, counted, plan_of
from .pixels import at_image_resolution
from .significance.chance import benjamini_hochberg
from .significance.compare import Comparison
from .significance.floors import correlation_floor, iou_floors
from .significance.intervals import poisson_weights, with_intervals
from .tables import Dissection, LayerTable, UnitLabel

__all__ = ["Dissection", "LayerTable", "UnitLabel", "chosen_layers", "dissect", "dissection_wants", "judged"]

MOST_LAYERS = 12
"""Main layers that are dissected where none are named."""
SUPPORT = 1e-4  # a concept that covers less of all cells, or is in fewer than MIN_SAMPLES samples, is absent
MIN_SAMPLES = 3
UNIT_COST, AREA_COST = 200, 32
"""What a unit's null distribution and a cell's concept areas cost beside one cell of one unit: measured, for even shares."""
_KEPT = 2**20  # active cells of one layer
_NOWHERE = torch.zeros(0, 0, dtype=torch.int32)
_NO_TAIL = TailResult(torch.zeros(0, 0), _NOWHERE, _NOWHERE, 0, torch.zeros(0, 0, 0))
T = TypeVar("T")


def chosen_layers(gan: Gan, layers: Sequence[str] | None) -> tuple[LayerInfo, ...]:
    """The named layers of the generator, "all" of them, or its main ones (at most ``MOST_LAYERS``, spread over depth)."""
    generator = gan.generator
    if not layers:
        return spread(generator.main_layers(), MOST_LAYERS)
    if tuple(layers) == ("all",):
        return generator.layers
    return tuple(generator.layer(name) for name in layers)


def dissection_wants(
    gan: Gan,
    n: int,
    layers: Sequence[str] | None = None,
    quantile: float = 0.01,
    *,
    levels: str = "fixed",
    resolution: str = "cell",
    concepts: Sequence[Concept] = (),
) -> list[Want]:
    """What :func:`dissect` gathers in the shared pass; ``concepts`` of the vocabulary are needed for levels chosen by IQR."""
    infos = chosen_layers(gan, layers)
    plan = plan_of(gan, infos, concepts, n, quantile, levels, resolution)
    finest = sorted(
        infos, key=lambda info: -info.height * info.width
    )  # areas of coarse grids are made from those of fine ones
    return [Want((Masks(),), BitsSpec(), n), *(want for info in finest for want in plan.wants(info))]


def dissect(
    session: Session,
    layers: Sequence[str] | None = None,
    *,
    quantile: float = 0.01,
    n: int | None = None,
    fdr: float = 0.05,
    draws: int = 999,
    levels: str = "fixed",
    resolution: str = "cell",
) -> Dissection:
    """Units against concepts, with what chance explains.

    Args:
        session: its vocabulary has the concepts.
        layers: names; the main layers where left out, every layer for ``["all"]``.
        quantile: the fraction of a unit's cells that count as active.
        n: samples; all of the session's where left out.
        fdr: false-discovery rate over all units, concepts and layers.
        draws: so many shuffles of the samples (a multiple of n − 1 if that is less).
        levels: "fixed", the level that ``quantile`` exceeds; "iqr", for each unit the one that tells most about its best concept;
            or fractions with commas ("0.005,0.02"), of which each unit takes the one that tells most.
        resolution: "cell" compares on the grid of the layer; "bilinear" upsamples activations to the image (the null
            and its test stay on the grid). Fixed levels need no second pass for it where cells are whole pixels wide.

    Raises:
        UsageError: a quantile outside 0..0.5, unknown levels or resolution.
        NoSuchCapability: no concepts, or no readable layers.
    """
    count = session.n if n is None else n
    _check(session)
    infos, concepts = chosen_layers(session.gan, layers), tuple(session.vocabulary.concepts)
    plan = plan_of(session.gan, infos, concepts, count, quantile, levels, resolution)
    names = [info.name for info in infos]
    session.prepare(
        dissection_wants(
            session.gan, count, names, quantile, levels=levels, resolution=resolution, concepts=concepts
        )
    )  # fmt: skip
    ground = _ground(session, concepts, count)
    each = _Layers(session, infos, ground, plan, draws)
    result = Dissection(
        each.tables(), concepts, ground.area, ground.present, ground.tested, count, session.seed, quantile, fdr, draws,
        resolution, levels, min((each.samples(info) for info in infos), default=count),
    )  # fmt: skip
    if resolution == "bilinear":
        result = at_image_resolution(session, result, plan)
    return each.with_intervals(judged(result))


def _check(session: Session) -> None:
    if not session.gan.generator.layers:
        raise NoSuchCapability("dissection needs readable layers; this format hides them")
    if not session.vocabulary.concepts:
        raise NoSuchCapability("dissection needs concepts; pass --concepts NAME")


@dataclass(frozen=True)
class _Ground:
    """The concepts and where they are: ``seen`` float32 [n, K] the part of each image, the rest as in :class:`Dissection`."""

    concepts: tuple[Concept, ...]
    areas: GridAreas
    seen: Tensor
    area: Tensor
    present: Tensor
    tested: Tensor


def _ground(session: Session, concepts: tuple[Concept, ...], n: int) -> _Ground:
    masks = cast(BitsResult, session[Want((Masks(),), BitsSpec(), n)])
    seen = presence(masks)
    area, present = seen.double().mean(0), (seen > 0).sum(0)
    enough = (present >= min(MIN_SAMPLES, n)) & (area >= SUPPORT)
    return _Ground(
        concepts,
        GridAreas(masks),
        seen,
        area,
        present,
        enough & torch.tensor([not concept.spatial for concept in concepts]),
    )


@dataclass(frozen=True)
class _Layers:
    """What follows from one layer alone, made by one process for all.

    Attributes:
        found: where units are active, of the layers that this process has looked at.
    """

    session: Session
    infos: tuple[LayerInfo, ...]
    ground: _Ground
    plan: Plan
    draws: int
    found: dict[str, AtLevels] = field(default_factory=dict)

    def tables(self) -> tuple[LayerTable, ...]:
        """Everything about each layer but its q-values, labels and their intervals, which need all layers."""
        made = self._each("layers against concepts", [partial(self._table, info) for info in self.infos])
        return tuple(replace(table, tail=self._tail(table.layer)) for table in made)

    def with_intervals(self, result: Dissection) -> Dissection:
        """The same dissection with an interval of each label's IoU."""
        made = self._each(
            "intervals of the overlaps", [partial(self._intervals, result, table) for table in result.layers]
        )
        layers = zip(result.layers, made, strict=True)
        return replace(result, layers=tuple(replace(table, low=low, high=high) for table, (low, high) in layers))

    def samples(self, info: LayerInfo) -> int:
        """The samples of which is known where a layer's units are active: the first so many."""
        bins = self._bins(info)
        return self.plan.n if bins is None else len(bins.codes)

    def _each(self, what: str, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """One task for each layer; the same process gets the same layers every time."""
        cells = [info.height * info.width for info in self.infos]
        units = [info.channels for info in self.infos]
        costs = [u * (c + UNIT_COST) + AREA_COST * c for u, c in zip(units, cells, strict=True)]
        return self.session.share_out(what, tasks, costs)

    def _tail(self, info: LayerInfo) -> TailResult:
        return cast(TailResult, self.session[self.plan.tail_want(info)])

    def _bins(self, info: LayerInfo) -> BinsResult | None:
        return cast(BinsResult, self.session[self.plan.bins_want(info)]) if self.plan.iqr else None

    def _at_levels(self, info: LayerInfo) -> AtLevels:
        if info.name in self.found:
            return self.found[info.name]
        ground, bins = self.ground, self._bins(info)
        found = at_levels(info, self._tail(info), bins, ground.areas, ground.tested, self.plan)
        if len(self.plan.fractions) != 1 or int(found.active.count().sum()) <= _KEPT:
            self.found[info.name] = found  # a long list costs more to keep than to make again
        return found

    def _table(self, info: LayerInfo) -> LayerTable:
        """A layer's table, without the tail, which every process has."""
        cross = cast(CrossResult, self.session[self.plan.cross_want(info)])
        ground, found = self.ground, self._at_levels(info)
        active, units = found.active, found.active.units
        shuffled = Comparison(units, iou_floors(units, ground.concepts))
        for columns, areas in ground.areas.columns(info.height, info.width, active.samples):
            rng = partial(self.session.rng, f"dissection {info.name}")
            known = None if found.overlap is None else found.overlap[:, columns]
            shuffled.add(active, areas, columns, ground.tested, rng=rng, draws=self.draws, overlap=known)
            del areas  # before the next ones are made
        counts = found.counts or counted(active, shuffled, category_present(ground.seen, ground.concepts))
        p = shuffled.p.clone()
        p[:, ~ground.tested] = float("nan")
        p[active.count() == 0] = float("nan")
        nothing = torch.zeros(0)
        return LayerTable(
            info, _NO_TAIL, found.level, counts.active, iou(counts.overlap, counts.active, counts.area),
            iou(counts.overlap, counts.active_in, counts.area), shuffled.null_iou, shuffled.null_95,
            cross.correlation(), cross.expected(), p, nothing, nothing, nothing, nothing, nothing, *shuffled.chance(),
            shuffled.null_sd, fraction=counts.active.double() / counts.cells, iqr=counts.quality().iqr, choice=found.choice,
        )  # fmt: skip

    def _intervals(self, result: Dissection, table: LayerTable) -> tuple[Tensor, Tensor]:
        """The lower and the upper end for each unit of one layer: float64 [U] each."""
        actives = {table.layer.name: self._at_levels(table.layer).active}
        (told,) = with_intervals(replace(result, layers=(table,)), actives, self.ground.areas, self._weights).layers
        return told.low, told.high

    @cached_property
    def _weights(self) -> Tensor:
        samples = min(self.samples(info) for info in self.infos)
        return poisson_weights(samples, self.session.rng("dissection bootstrap"))


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
