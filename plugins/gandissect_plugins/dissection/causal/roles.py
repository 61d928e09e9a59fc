"""What a unit is to a concept: correlation and cause joined.

role_of(cause, fdr=0.05)                            # "necessary"
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isnan

from ..tables import UnitLabel
from .resampling import Effect, Gain

LEAST = 0.05
"""The least effect that counts: part of a concept's area that is removed, or part of its usual area that is gained."""


class Role(StrEnum):
    """What a unit is to a concept, in the order in which they are tried."""

    BOTH = "necessary and sufficient"
    NECESSARY = "necessary"
    INHIBITORY = "inhibitory"
    REDUNDANT = "redundant"
    SUFFICIENT = "sufficient"
    CORRELATE = "correlate only"
    DEAD = "dead"
    NONE = "no effect"
    UNDECIDED = "undecided"


MEANINGS = {
    Role.BOTH: "switched off alone it removes the concept, switched on alone it adds it",
    Role.NECESSARY: "switched off alone it removes the concept",
    Role.SUFFICIENT: "switched on alone it adds the concept where it was absent",
    Role.REDUNDANT: "it adds more to the joint effect of its group than it has alone: others draw the same thing",
    Role.INHIBITORY: "switched off alone it lets the concept grow",
    Role.CORRELATE: "it follows the concept, and both effects are measured to be smaller than 5 %",
    Role.DEAD: "it never varies, or switching it off changes no pixel, and it follows no concept",
    Role.NONE: "it follows no concept, and switching it off removes less than 5 % of any that was tested",
    Role.UNDECIDED: "the interval is too wide to tell an effect of 5 % from none, or it is not beyond random units",
}


@dataclass(frozen=True)
class Tested:
    """An effect with how far it goes beyond random units: ``beyond`` low and high of the difference, p two-sided, q over all tests."""

    effect: Effect | Gain
    low: float
    high: float
    p: float
    q: float = float("nan")

    @property
    def value(self) -> float:
        """What was removed or gained."""
        return self.effect.removed if isinstance(self.effect, Effect) else self.effect.gained

    def more(self, fdr: float) -> bool:
        """At least ``LEAST``, above zero, beyond random units, and so by the false-discovery rate."""
        return self.value >= LEAST and min(self.effect.low, self.low) > 0 and self.q <= fdr

    def less(self, fdr: float) -> bool:
        """The same in the other direction: the concept grew."""
        return self.value <= -LEAST and max(self.effect.high, self.high) < 0 and self.q <= fdr

    @property
    def small(self) -> bool:
        """The interval excludes an effect of ``LEAST`` in either direction."""
        return not isnan(self.value) and self.effect.low > -LEAST and self.effect.high < LEAST


@dataclass(frozen=True)
class UnitCause:
    """One unit against one concept: what overlap says and what edits say.

    Attributes:
        layer, unit, concept: which.
        label: what dissection found of the unit; None where it follows nothing beyond chance.
        iou, excess, correlation: of this pair.
        ablation: switched off alone.
        insertion: switched on alone where the concept was absent; None where it was not tried.
        group: what it adds to the effect of its group beyond its own, None where it has none.
        varies: it is not constant over the samples; ``changes``: switching it off changes some pixel.
    """

    layer: str
    unit: int
    concept: str
    label: UnitLabel | None
    iou: float
    excess: float
    correlation: float
    ablation: Tested
    insertion: Tested | None
    group: Tested | None
    varies: bool
    changes: bool

    @property
    def follows(self) -> bool:
        """Overlap found the unit for this concept."""
        return self.label is not None and self.label.concept == self.concept


def role_of(cause: UnitCause, fdr: float) -> Role:
    """The role of a unit, at a false-discovery rate."""
    adds = cause.insertion is not None and cause.insertion.more(fdr)
    if cause.ablation.more(fdr):
        return Role.BOTH if adds else Role.NECESSARY
    if cause.ablation.less(fdr):
        return Role.INHIBITORY
    if cause.group is not None and cause.group.more(fdr):
        return Role.REDUNDANT
    if adds:
        return Role.SUFFICIENT
    if cause.follows:
        nothing_added = cause.insertion is not None and cause.insertion.small
        nothing_hidden = cause.group is None or cause.group.small
        certain = cause.ablation.small and nothing_added and nothing_hidden
        return Role.CORRELATE if certain else Role.UNDECIDED
    if not cause.varies or not cause.changes:
        return Role.DEAD
    return Role.NONE if cause.ablation.small else Role.UNDECIDED
