"""Numbers that say how far to trust another number.

interval(right=91, total=100)            # Wilson's 95 % interval of a proportion
exact_p(predicted, labels)               # held-out labels permuted, all permutations at once
adjusted([0.01, 0.04, 0.30])             # Benjamini-Hochberg
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959963984540054


def interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a proportion ``right / total``: (low, high) in 0..1; (0, 1) where nothing was counted."""
    if not total:
        return 0.0, 1.0
    # Wilson 1927, p. 210: the roots of |p - right/total| = z sqrt(p (1 - p) / total)
    share, square = right / total, Z95**2 / total
    middle = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * sqrt(share * (1 - share) / total + square / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def exact_p(predicted: ArrayLike, labels: ArrayLike) -> float:
    """How often a permutation of held-out ``labels`` agrees with ``predicted`` at least as well as the real one.

    All permutations are counted, not sampled: with fixed predictions the number of hits follows the hypergeometric
    distribution (Fisher's exact test, one-sided). Valid when nothing of the held-out samples was used for the prediction.

    Args:
        predicted: bool [N].
        labels: bool [N].
    """
    from scipy.stats import hypergeom

    guess, truth = np.asarray(predicted, bool), np.asarray(labels, bool)
    hits = int((guess & truth).sum())
    return float(hypergeom.sf(hits - 1, len(truth), int(truth.sum()), int(guess.sum())))


def adjusted(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Benjamini & Hochberg's (1995) adjusted p values, float64 in the shape given: reject those below the rate wanted."""
    given = np.asarray(p_values, np.float64)
    flat = given.ravel()
    order = np.argsort(flat, kind="stable")
    scaled = flat[order] * len(flat) / np.arange(1, len(flat) + 1)
    out = np.empty_like(flat)
    out[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return out.reshape(given.shape)
