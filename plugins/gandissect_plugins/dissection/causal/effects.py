"""Which edits are worth making, and what they show beside random units of the same layer.

tests = causal_tests(session, result, Plan(), session.areas())
tests.concepts[0].verdict                           # "causal"
tests.role("layer4", 17)                            # Role.NECESSARY
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from gandissect.gan import LayerInfo
from gandissect.progress import Advance
from gandissect.session import Session

from ..tables import Dissection
from .ablation import Ablation, Baseline, ablate, baseline
from .ace import can_optimise, examples, optimise
from .artifacts import Artifacts, artifact_units
from .insertion import Insertion, InsertionMap, PlaceGrid, insertion_map, mean_present_level, places_of
from .orders import DoseResponse, OrderComparison, curve, dose_response, greedy, random_curve
from .plan import Plan, UnitSet, candidate_sets, cover, single_units
from .resampling import Effect
from .roles import LEAST, Role, Tested, UnitCause, role_of
from .singles import Bench, cross_moments, insertion_test, single_causes
from .words import or_zero

SHOWN = 8
TRIAL = 6
"""Samples on which the layer of a set is chosen."""
NEARLY = 0.8


@dataclass(frozen=True)
class ConceptTest:
    """The units of one layer that follow a concept best, switched off together, and switched on where it is absent.

    Attributes:
        concept, layer, units: what was edited.
        ablation: the measurement.
        effect: what was removed; ``random`` what random sets of the same size remove on average; ``beyond`` the difference.
        chosen_by: "IoU" or "correlation", by which the units follow the concept best.
        inserted: what was switched on where; ``insertion`` the gain beside random sets at the same places.
    """

    concept: str
    layer: str
    units: tuple[int, ...]
    ablation: Ablation
    effect: Effect
    random: float
    beyond: Effect
    chosen_by: str
    inserted: Insertion
    insertion: Tested

    @property
    def causal(self) -> bool:
        """The units remove the concept: more than random sets do, and at least ``LEAST`` of its area."""
        return self.beyond.low > 0 and self.effect.low > 0 and self.effect.removed >= LEAST

    @property
    def adds(self) -> bool:
        """The units add the concept where it was absent: more than random sets do, at least ``LEAST`` of what is usual."""
        return self.insertion.value >= LEAST and min(self.insertion.low, self.insertion.effect.low) > 0

    @property
    def verdict(self) -> str:
        """In a word or two, for the table."""
        if math.isnan(self.effect.removed):
            return "not in these samples"
        if self.causal:
            return "removes and adds" if self.adds else "removes"
        if self.adds:
            return "adds only"
        return "no effect" if abs(self.effect.removed) < 0.01 else "not beyond random units"


@dataclass(frozen=True)
class CausalTests:
    """All edits of one report.

    Attributes:
        samples: sample indices that were edited.
        concepts: sets of units; ``causes`` single ones; ``fdr`` the rate at which their roles are told.
        doses, maps, orders, artifacts: see their types.
    """

    samples: tuple[int, ...] = ()
    concepts: tuple[ConceptTest, ...] = ()
    causes: tuple[UnitCause, ...] = ()
    fdr: float = 0.05
    doses: tuple[DoseResponse, ...] = ()
    maps: tuple[InsertionMap, ...] = ()
    orders: tuple[OrderComparison, ...] = ()
    artifacts: Artifacts | None = None

    def of(self, concept: str) -> ConceptTest | None:
        """The test of one concept."""
        return next((test for test in self.concepts if test.concept == concept), None)

    @cached_property
    def roles(self) -> dict[tuple[str, int], Role]:
        """(layer, unit) -> what the unit is to its concept."""
        return {(cause.layer, cause.unit): role_of(cause, self.fdr) for cause in self.causes}

    def cause(self, layer: str, unit: int) -> UnitCause | None:
        """The tests of one unit, or None where it was not edited alone."""
        return next((cause for cause in self.causes if (cause.layer, cause.unit) == (layer, unit)), None)


def causal_tests(session: Session, result: Dissection, plan: Plan, areas: Tensor) -> CausalTests:
    """Switch the best units of the concepts that were found off and on, alone and together, and random ones beside them.

    Args:
        session: its vocabulary reads pixels.
        result: from :func:`dissect`.
        plan: how much.
        areas: float32 [n, K], the part of each sample that each concept covers.
    """
    editable = {table.layer.name for table in result.layers if table.layer.editable}
    moving = {row.concept for row in result.found() if row.layer in editable}
    ranked = [name for name, _ in result.ranking() if name in moving]
    singles = single_units(result, plan)
    sets = ranked[: plan.concepts]
    concepts = list(dict.fromkeys(sets + [one.label.concept for one in singles if one.label]))
    if not concepts:
        return CausalTests(fdr=result.fdr)
    indices = _covering(result, areas, concepts, plan.samples)
    bench = Bench(session, result, baseline(session, indices), plan.random)
    with session.progress.phase("switching units off and on", len(sets) + len(singles)) as advance:
        tests = _sets(bench, sets, plan, areas, advance)
        causes = single_causes(bench, singles, concepts, advance)
    strongest = sorted(tests, key=lambda test: (not test.causal, -or_zero(test.effect.removed)))
    doses = tuple(_dose(bench, test) for test in strongest[: plan.doses])
    adding = sorted(tests, key=lambda test: -or_zero(test.insertion.value))
    maps = tuple(_map(bench, test, plan) for test in adding[: plan.maps])
    orders = tuple(_orders(bench, test, plan, areas) for test in strongest[: plan.orders])
    layers = [table.layer.name for table in result.layers if table.layer.editable]
    artifacts = artifact_units(session, layers, count=plan.artifacts, fdr=result.fdr) if plan.artifacts else None
    return CausalTests(tuple(indices), tuple(tests), tuple(causes), result.fdr, doses, maps, orders, artifacts)


def _covering(result: Dissection, areas: Tensor, concepts: Sequence[str], count: int) -> list[int]:
    names = [concept.name for concept in result.concepts]
    return cover(areas, [names.index(name) for name in concepts], count)


def present_level(session: Session, result: Dissection, layer: LayerInfo, concept: str) -> Tensor:
    """The mean of each unit of a layer where a concept is, over all samples: float32 [U]."""
    k = [item.name for item in result.concepts].index(concept)
    return mean_present_level(cross_moments(session, result, layer), k).float()


def _level(bench: Bench, layer: str, concept: str) -> Tensor:
    return present_level(bench.session, bench.result, bench.result.table(layer).layer, concept)


def _sets(bench: Bench, concepts: Sequence[str], plan: Plan, areas: Tensor, advance: Advance) -> list[ConceptTest]:
    made = []
    for concept in concepts:
        made.append(_concept_test(bench, _best_set(bench, concept, plan, areas)))
        advance(1)
    return made


def _best_set(bench: Bench, concept: str, plan: Plan, areas: Tensor) -> UnitSet:
    """The layer's set that removes most, tried on samples that are not measured; of nearly equal ones the gentlest.

    Late layers can remove anything by spoiling the picture, so of the sets that remove at least ``NEARLY`` as much as the
    best, the one that changes pixels least is taken.
    """
    session, result = bench.session, bench.result
    by_iou, by_r = (candidate_sets(result, concept, how, plan.set_size) for how in ("IoU", "correlation"))
    measured = set(bench.samples.indices)
    further = _covering(result, areas, [concept], len(measured) + TRIAL)
    trial = baseline(session, [index for index in further if index not in measured][:TRIAL] or further[:TRIAL])

    def tried(one: UnitSet) -> tuple[float, float]:
        made = ablate(session, one.layer, one.units, concept, samples=trial, keep_images=TRIAL)
        change = float((made.images_after - made.images_before).abs().mean())
        return or_zero(made.removed().removed), change

    found = [tried(one) for one in by_iou]
    most = max(removed for removed, _ in found)
    best = min(
        (change, place) for place, (removed, change) in enumerate(found) if removed >= most - (1 - NEARLY) * abs(most)
    )[1]
    other = by_r[best]
    if set(other.units) != set(by_iou[best].units) and tried(other)[0] > found[best][0]:
        return other
    return by_iou[best]


def _concept_test(bench: Bench, one: UnitSet) -> ConceptTest:
    size, kept = len(one.units), len(bench.samples.indices)
    ablation = bench.ablate(one.layer, one.units, one.concept, keep=kept)
    random = bench.random(one.layer, size)
    chance = [other.removed(one.concept).removed for other in random]
    mean = sum(chance) / len(chance) if chance else float("nan")
    level = _level(bench, one.layer, one.concept)
    inserted = bench.insert(one.layer, one.units, one.concept, level, keep=SHOWN)
    added = insertion_test(inserted, bench.random_inserted(one.layer, size, one.concept, level))
    return ConceptTest(
        one.concept, one.layer, one.units, ablation, ablation.removed(), mean, ablation.beyond(random), one.chosen_by,
        inserted, added,
    )  # fmt: skip


def _dose(bench: Bench, test: ConceptTest) -> DoseResponse:
    return dose_response(bench.session, test.layer, test.units, test.concept, samples=bench.samples)


def _map(bench: Bench, test: ConceptTest, plan: Plan) -> InsertionMap:
    level = _level(bench, test.layer, test.concept)
    grid = PlaceGrid.of(bench.result.table(test.layer).layer)
    each = max(2, min(len(bench.samples.indices), 6 * plan.samples // math.prod(grid.windows)))
    return insertion_map(
        bench.session, test.layer, test.units, test.concept, samples=bench.samples, level=level, there=bench.there(test.layer),
        each=each,
    )  # fmt: skip


def _orders(bench: Bench, test: ConceptTest, plan: Plan, areas: Tensor) -> OrderComparison:
    """Orders learnt on one half of further samples, compared on the other half."""
    session, result = bench.session, bench.result
    both = _covering(result, areas, [test.concept], plan.samples)
    learning, held_out = (baseline(session, both[part::2]) for part in (0, 1))
    table = result.table(test.layer)
    k = [item.name for item in result.concepts].index(test.concept)
    by_iou = table.iou[:, k].argsort(descending=True, stable=True).tolist()
    size = len(test.units)
    orders = {"IoU": by_iou[:size]}
    alpha, note = _learnt(bench, test, learning, plan, table.iou[:, k])
    if alpha is not None:
        orders["ACE"] = alpha.argsort(descending=True, stable=True)[:size].tolist()
    candidates = list(dict.fromkeys([*test.units, *by_iou[: size + size // 2], *orders.get("ACE", [])]))
    orders["greedy"] = list(greedy(session, test.layer, test.concept, candidates, size, samples=learning))
    sizes = sorted({*range(1, min(size, 4) + 1), *range(6, size + 1, 2), size})
    curves = [
        curve(session, test.layer, name, units, test.concept, sizes, samples=held_out) for name, units in orders.items()
    ]
    curves.append(random_curve(session, test.layer, test.concept, sizes, samples=held_out))
    return OrderComparison(test.concept, test.layer, tuple(curves), len(held_out.indices), note)


def _learnt(bench: Bench, test: ConceptTest, learning: Baseline, plan: Plan, iou: Tensor) -> tuple[Tensor | None, str]:
    """ACE's weights float32 [U], or None and why."""
    session, result = bench.session, bench.result
    if not plan.ace_steps:
        return None, "ACE was left out (`causal_ace_steps` is 0)."
    if not can_optimise(session, test.concept, learning.images):
        lacking = f"{test.concept} has no differentiable score, or this generator gives no gradients"
        return None, f"ACE could not be run: {lacking}. The greedy order needs neither."
    layer = result.table(test.layer).layer
    grid = PlaceGrid.of(layer)
    k = [item.name for item in result.concepts].index(test.concept)
    held = grid.held(places_of(session, grid, learning)[:, k])
    present, absent = (examples(session, grid, held, learning, present=there) for there in (True, False))
    if not len(present) or not len(absent):
        return None, f"ACE needs places with and without {test.concept}; these samples have only one kind."
    start = iou / iou.max().clamp(min=1e-12)
    level = _level(bench, test.layer, test.concept)
    return optimise(session, test.layer, test.concept, start, level, present, absent, steps=plan.ace_steps), ""
