"""How well a model does on samples it has not seen: the number, its interval, and what chance gives.

found = Judge(len(truth), rng).explained(truth, guess)
found.value, found.low, found.high, found.p              # 0.62, 0.55, 0.68, 0.001
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandissect.metrics import middle
from gandissect.trust import exact_p

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]
BOOTSTRAP = 199
PERMUTATIONS = 999


@dataclass(frozen=True)
class HeldOut:
    """A score on held-out samples.

    Attributes:
        value: the coefficient of determination R² (1 at best, 0 for the mean of the held-out samples, negative below that), or
            balanced accuracy in 0..1.
        low, high: 95 % bootstrap interval over the held-out samples.
        p: one-sided, that predictions which know nothing of the target do as well.
        chance: what no knowledge gives, 0 for R² and 0.5 for balanced accuracy.
        count: held-out samples.
    """

    value: float
    low: float
    high: float
    p: float
    chance: float
    count: int


def split(n: int, rng: np.random.Generator, train: float) -> Flags:
    """Which of ``n`` samples are fitted on: bool [n], a share ``train`` of them."""
    chosen = np.zeros(n, bool)
    chosen[rng.permutation(n)[: round(train * n)]] = True
    return chosen


class Judge:
    """Tests on the same held-out samples, with the same resamples of them for every model.

    Args:
        count: held-out samples.
        rng: draws bootstrap samples and permutations.
    """

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.count = count
        self._drawn = rng.integers(count, size=(BOOTSTRAP, count))
        self._orders = np.argsort(rng.random((PERMUTATIONS, count)), axis=1)

    def explained(self, truth: Vector, guess: Vector) -> HeldOut:
        """R² of ``guess`` float64 [N] for ``truth`` float64 [N] that was not used for it.

        p counts how many of ``PERMUTATIONS`` permutations of the truth the guess fits as well (Phipson & Smyth 2010 add the one at hand).
        """
        low, high = middle(r_squared(truth[self._drawn], guess[self._drawn]))
        null = truth[self._orders] @ guess  # with fixed guesses R² grows with this sum alone
        p = (1 + int((null >= truth @ guess - 1e-12).sum())) / (1 + PERMUTATIONS)
        value = float(r_squared(truth[None], guess[None])[0])
        return HeldOut(value, float(low), float(high), p if np.ptp(guess) > 0 else 1.0, 0.0, self.count)

    def fidelity(self, truth: Flags, guess: Flags) -> HeldOut:
        """Balanced accuracy of ``guess`` bool [N] for decisions ``truth`` bool [N]: how faithful a surrogate is to what it explains.

        p is exact over all permutations of the truth (Fisher).
        """
        low, high = middle(_balanced(truth[self._drawn], guess[self._drawn]))
        value = float(_balanced(truth[None], guess[None])[0])
        return HeldOut(value, float(low), float(high), exact_p(guess, truth), 0.5, self.count)


def r_squared(truth: Vector, guess: Vector) -> Vector:
    """Of each row [R, N]: 1 − Σ(y − ŷ)² / Σ(y − ȳ)² of each row; 0 where it does not vary."""
    total = ((truth - truth.mean(1, keepdims=True)) ** 2).sum(1)
    left = ((truth - guess) ** 2).sum(1)
    ratio = np.divide(left, total, out=np.ones_like(total), where=total > 0)
    return np.asarray(1 - ratio, np.float64)


def _balanced(truth: Flags, guess: Flags) -> Vector:
    """Mean of both groups' accuracies in each row; a group that is empty counts as half right."""
    sides = []
    for side in (truth, ~truth):
        right, count = (side & (guess == truth)).sum(1), side.sum(1)
        sides.append(np.divide(right, count, out=np.full(len(count), 0.5), where=count > 0))
    return np.asarray((sides[0] + sides[1]) / 2, np.float64)
