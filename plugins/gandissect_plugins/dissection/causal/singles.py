"""Units edited one at a time, beside random units of their layer.

causes = single_causes(bench, singles, concepts)
causes[0].ablation.effect.removed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gandissect.gan import LayerInfo
from gandissect.progress import Advance
from gandissect.reducers import CrossResult, CrossSpec
from gandissect.session import Activations, CellAreas, Session, Want
from gandissect.trust import adjusted

from ..tables import Dissection, LayerTable
from .ablation import NAN, Ablation, Baseline, ablate, ablate_random
from .edits import random_weights
from .insertion import Insertion, PlaceGrid, insert, places_of
from .plan import Single
from .resampling import Effect
from .roles import LEAST, Tested, UnitCause


@dataclass
class Bench:
    """What all measurements of one run share: the samples, and what random units of a layer do to them.

    Attributes:
        session, result, samples: what is analysed, what overlap found, the unedited samples.
        rounds: of random units.
    """

    session: Session
    result: Dissection
    samples: Baseline
    rounds: int
    _places: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _random: dict[tuple[str, int], list[Ablation]] = field(default_factory=dict)
    _inserted: dict[tuple[str, int, str], Insertion] = field(default_factory=dict)

    def there(self, layer: str) -> Tensor:
        """What each place of the layer's grid holds unedited: float32 [n, K, rows, columns]."""
        grid = PlaceGrid.of(self.session.gan.generator.layer(layer))
        key = (grid.rows, grid.columns)
        if key not in self._places:
            self._places[key] = places_of(self.session, grid, self.samples)
        return self._places[key]

    def random(self, layer: str, size: int) -> list[Ablation]:
        """Random units switched off."""
        if (layer, size) not in self._random:
            self._random[layer, size] = ablate_random(self.session, layer, size, self.samples, self.rounds)
        return self._random[layer, size]

    def random_inserted(self, layer: str, size: int, concept: str, level: Tensor) -> Insertion:
        """Random units switched on where the concept is absent."""
        key = (layer, size, concept)
        if key not in self._inserted:
            drawn = self.session.rng(f"random inserted {layer}").random((len(self.samples.indices), len(level)))
            alpha = random_weights(len(drawn), len(level), size, torch.from_numpy(drawn))
            self._inserted[key] = self.insert(layer, (), concept, level, alpha=alpha)
        return self._inserted[key]

    def insert(
        self, layer: str, units: Sequence[int], concept: str, level: Tensor, alpha: Tensor | None = None, keep: int = 0
    ) -> Insertion:
        """Units switched on where the concept is absent."""
        return insert(
            self.session, layer, units, concept, samples=self.samples, level=level, there=self.there(layer), alpha=alpha,
            keep_images=keep,
        )  # fmt: skip

    def ablate(self, layer: str, units: Sequence[int], concept: str | None = None, keep: int = 0) -> Ablation:
        """Units switched off."""
        return ablate(self.session, layer, units, concept, samples=self.samples, keep_images=keep)


def cross_moments(session: Session, result: Dissection, layer: LayerInfo) -> CrossResult:
    """Sums of units, concepts and their products over all cells of the samples; gathered by dissection."""
    want = Want((Activations(layer.name), CellAreas(layer.height, layer.width)), CrossSpec(), result.n)
    return cast(CrossResult, session[want])


def high_level(table: LayerTable) -> Tensor:
    """What a unit is set to when it is switched on alone: its mean where dissection calls it active, float32 [U].

    Bau et al. 2019 (GAN Dissection) take the 99 % quantile; a unit that is on in fewer cells than that has none.
    """
    values = table.tail.values.double()
    active = values > table.threshold[:, None]
    mean = (values * active).sum(1) / active.sum(1).clamp(min=1)
    return torch.where(active.any(1), mean, table.threshold).float()


def single_causes(
    bench: Bench, singles: Sequence[Single], concepts: Sequence[str], advance: Advance | None = None
) -> list[UnitCause]:
    """Every unit alone, against its own concept, or against all ``concepts`` where it follows none.

    The false-discovery rate is over all effects of all units; a unit without a concept of its own answers for having the
    choice among ``concepts`` (Bonferroni).
    """
    alone: dict[tuple[str, int], Ablation] = {}
    causes = []
    for single in singles:
        ablation = bench.ablate(single.layer, [single.unit])
        alone[single.layer, single.unit] = ablation
        causes.append(_cause(bench, single, ablation, concepts))
        if advance is not None:
            advance(1)
    return _controlled(_with_groups(bench, causes, alone))


def _cause(bench: Bench, single: Single, ablation: Ablation, concepts: Sequence[str]) -> UnitCause:
    table = bench.result.table(single.layer)
    random = bench.random(single.layer, 1)
    if single.label is not None:
        concept = single.label.concept
        tested = ablation_test(ablation, random, concept)
    else:
        options = [(ablation_test(ablation, random, name), name) for name in concepts]
        tested, concept = min(options, key=lambda option: (_or_one(option[0].p), -abs(option[0].value or 0.0)))
        tested = replace(tested, p=min(1.0, tested.p * len(options)))
    insertion = None
    if single.label is not None or abs(tested.value) >= LEAST:
        level = high_level(table)
        insertion = insertion_test(
            bench.insert(single.layer, [single.unit], concept, level),
            bench.random_inserted(single.layer, 1, concept, level),
        )
    k = [item.name for item in bench.result.concepts].index(concept)
    iou, by_chance, r = (float(values[single.unit, k]) for values in (table.iou, table.null_iou, table.correlation))
    return UnitCause(
        single.layer, single.unit, concept, single.label, iou, iou - by_chance, r, tested, insertion, None,
        bool(_varies(bench, table)[single.unit]), ablation.changed,
    )  # fmt: skip


def _varies(bench: Bench, table: LayerTable) -> Tensor:
    """bool [U]: the unit is not the same everywhere in all samples."""
    cross = cross_moments(bench.session, bench.result, table.layer)
    mean = cross.first.sum(1) / max(cross.count, 1)
    square = cross.squares[0] / max(cross.count, 1)
    return square - mean.square() > 1e-12 * square + 1e-30


def _or_one(p: float) -> float:
    return 1.0 if np.isnan(p) else p


def ablation_test(ablation: Ablation, random: Sequence[Ablation], concept: str) -> Tested:
    """What an ablation removes of a concept, beside random units, two-sided."""
    effect = ablation.removed(concept)
    beyond = ablation.beyond(random, concept)
    if np.isnan(effect.removed):
        return Tested(effect, NAN, NAN, NAN)
    more, chance = ablation.more_than(random, concept), ablation.start.chance
    p = min(1.0, 2 * min(chance.p_more(more), chance.p_more(-more)))
    return Tested(effect, beyond.low, beyond.high, p)


def insertion_test(insertion: Insertion, random: Insertion) -> Tested:
    """What an insertion adds, beside random units at the same places, one-sided."""
    beyond = insertion.beyond(random)
    return Tested(insertion.gain(), beyond.low, beyond.high, insertion.p(random))


def _with_groups(bench: Bench, causes: list[UnitCause], alone: dict[tuple[str, int], Ablation]) -> list[UnitCause]:
    """What units that remove little alone add to the joint effect of their like, of one concept and one layer."""
    groups: dict[tuple[str, str], list[UnitCause]] = {}
    for cause in causes:
        if cause.follows and not (cause.ablation.value >= LEAST and cause.ablation.effect.low > 0):
            groups.setdefault((cause.layer, cause.concept), []).append(cause)
    adds: dict[tuple[str, int], Tested] = {}
    for (layer, concept), members in groups.items():
        units = [cause.unit for cause in members]
        if len(units) < 2:
            continue
        joint = bench.ablate(layer, units, concept)
        apart = sum(max(0.0, cause.ablation.value) for cause in members)
        if (
            not joint.removed().removed >= apart + LEAST
        ):  # False for NaN: nothing is drawn together that is not drawn alone
            continue
        for unit in units:
            others = bench.ablate(layer, [other for other in units if other != unit], concept)
            adds[layer, unit] = group_test(joint, others, alone[layer, unit], concept)
    return [replace(cause, group=adds.get((cause.layer, cause.unit))) for cause in causes]


def group_test(joint: Ablation, others: Ablation, alone: Ablation, concept: str) -> Tested:
    """What a unit removes when the rest of its group is off, beyond what it removes alone: parts of the concept's area."""
    k = joint.concepts.index(concept)
    before = joint.before[:, k].double()
    more = (others.after[:, k] - joint.after[:, k]).double() - (alone.before[:, k] - alone.after[:, k]).double()
    low, high = joint.start.chance.interval(more, before)
    effect = Effect(float(more.sum() / before.sum().clamp(min=1e-12)), low, high, float(before.mean()))
    return Tested(effect, low, high, joint.start.chance.p_more(more))


def _controlled(causes: list[UnitCause]) -> list[UnitCause]:
    """The same with q over all effects that were measured (Benjamini & Hochberg 1995)."""
    tests = [test for cause in causes for test in (cause.ablation, cause.insertion, cause.group)]
    measured = [place for place, test in enumerate(tests) if test is not None and not np.isnan(test.p)]
    q = adjusted([tests[place].p for place in measured])  # type: ignore[union-attr]  # None was left out
    for place, value in zip(measured, q, strict=True):
        test = tests[place]
        assert test is not None
        tests[place] = replace(test, q=float(value))
    made = []
    for row, cause in enumerate(causes):
        ablation, insertion, group = tests[3 * row : 3 * row + 3]
        assert ablation is not None
        made.append(replace(cause, ablation=ablation, insertion=insertion, group=group))
    return made
