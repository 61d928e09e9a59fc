"""How much a search for one network may measure: counted in multiply-adds, so that it ends alike on every machine.

effort = Effort()
effort.spend(3e6)                       # raises Exhausted once the budget is gone
effort.saw(("bn1", "bn2"), (0.01, 0.7))
effort.report()                         # "… fits the first 1 of 2 BatchNorms and misses at 'bn2' (0.7 …"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gandissect.probing.verifying import HEALTHY

BUDGET = 1.2e11
"""Multiply-adds for one network, about ten seconds of one core; of 120 files that open, what fits was found in two thirds of it."""
_LEAST = 1500  # hypotheses that are measured whatever they cost; wide layers are dear, what fits was found within 900
_EACH = 1e6  # what one hypothesis costs beside its arithmetic
_MOMENTS = 20.0  # multiply-adds that take as long as one number's share of a mean and variance


class Exhausted(Exception):
    """The budget is gone; nothing that was measured fits."""


@dataclass
class Effort:
    """What one search has spent of its ``budget`` in multiply-adds, and how far its best hypothesis came."""

    budget: float = BUDGET
    spent: float = 0.0
    hypotheses: int = 0
    _norms: tuple[str, ...] = ()
    _best: tuple[float, ...] = ()

    def spend(self, multiply_adds: float, numbers: float = 0.0) -> None:
        """Counts one hypothesis whose layer takes so many multiply-adds and whose mean and variance run over so many numbers.

        Raises:
            Exhausted: the budget is gone.
        """
        self.spent += _EACH + multiply_adds + _MOMENTS * numbers
        self.hypotheses += 1
        if self.spent > self.budget and self.hypotheses > _LEAST:
            raise Exhausted

    def saw(self, norms: tuple[str, ...], mismatches: Sequence[float]) -> None:
        """Remembers the mismatches of a hypothesis at the first of the ``norms``, where it comes further than those before."""
        if not self._best or _reach(mismatches) > _reach(self._best):
            self._norms, self._best = norms, tuple(mismatches)

    def report(self) -> str:
        """A clause on what was tried and how far the best hypothesis fits."""
        tried = f"{self.hypotheses:,} ways of running its layers one after the other were measured and none fits the stored statistics"
        if not self._best:
            return tried
        fitting = _fitting(self._best)
        best = f"{tried}; the best fits the first {fitting} of {len(self._norms)} BatchNorms"
        if fitting == len(self._best):
            return best
        return (
            f"{best} and misses at '{self._norms[fitting]}' (mismatch {self._best[fitting]:.2g}, healthy is {HEALTHY} or less): before it "
            "there may be a connection that no state dict shows (a residual sum, a skip, a label)"
        )


def _fitting(mismatches: Sequence[float]) -> int:
    """How many norms fit before the first that does not."""
    return next((index for index, value in enumerate(mismatches) if value > HEALTHY), len(mismatches))


def _reach(mismatches: Sequence[float]) -> tuple[int, bool, float]:
    """How many norms fit, whether it is known where the next misses, and by how much (less is better)."""
    fitting = _fitting(mismatches)
    missed = mismatches[fitting : fitting + 1]
    return fitting, bool(missed), -sum(missed)
