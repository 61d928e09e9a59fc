"""Distances of one-dimensional distributions: of histograms, or of samples.

js_divergence(p, q)                                      # bits, 0..1
wasserstein1(samples, others)                            # in the unit of the samples
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gandissect.errors import UsageError
from gandissect.metrics.arrays import Matrix


def kl_divergence(p: ArrayLike, q: ArrayLike, *, base: float = np.e, smoothing: float = 0.0) -> float:
    """Kullback & Leibler's (1951) Σ p log(p/q), 0 and up; infinite where q has no mass and p has.

    Args:
        p: histogram [B], not negative; normalised here.
        q: ditto, on the same bins.
        base: of the logarithm: e for nats, 2 for bits.
        smoothing: added to every normalised bin, which is normalised again; 0 leaves zeros as they are.

    Raises:
        UsageError: other shapes, negative or no mass.
    """
    from scipy.special import rel_entr

    first, second = (_normalised(_normalised(part) + smoothing) for part in (p, q))
    _same_bins(first, second)
    return max(0.0, float(rel_entr(first, second).sum() / np.log(base)))


def js_divergence(p: ArrayLike, q: ArrayLike, *, base: float = 2.0) -> float:
    """Jensen and Shannon's divergence (Lin 1991, eq. 3.1): the mean KL of both to their mixture; 0..1 in bits.

    Its square root is a metric and goes by the name of Jensen–Shannon *distance* (Endres & Schindelin 2003).

    Args:
        p: histogram [B], not negative; normalised here.
        q: ditto, on the same bins.
        base: of the logarithm: 2 for bits.

    Raises:
        UsageError: other shapes, negative or no mass.
    """
    first, second = _normalised(p), _normalised(q)
    _same_bins(first, second)
    middle = (first + second) / 2
    return (kl_divergence(first, middle, base=base) + kl_divergence(second, middle, base=base)) / 2


def wasserstein1(first: ArrayLike, second: ArrayLike, *, second_weights: ArrayLike | None = None) -> float:
    """The area between two cumulative distributions of samples [N] and [M], in their unit: what has to be moved, times how far.

    (Villani 2009, eq. 6.2; in one dimension by Vallender 1974.)

    Args:
        first: float [N].
        second: float [M].
        second_weights: float [M], not negative; all equal where left out.

    Raises:
        UsageError: an empty set, or values that are not finite.
    """
    from scipy.stats import wasserstein_distance

    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.ndim != 1 or two.ndim != 1 or not one.size or not two.size:
        raise UsageError(f"expected two non-empty rows of samples, got shapes {one.shape} and {two.shape}")
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise UsageError("samples must be finite")
    return float(wasserstein_distance(one, two, v_weights=second_weights))


def _normalised(histogram: ArrayLike) -> Matrix:
    mass = np.asarray(histogram, np.float64)
    if mass.ndim != 1 or not np.isfinite(mass).all() or (mass < 0).any() or not mass.sum() > 0:
        raise UsageError("a histogram is one row of finite numbers, none negative, with some mass")
    return np.asarray(mass / mass.sum())


def _same_bins(first: Matrix, second: Matrix) -> None:
    if first.shape != second.shape:
        raise UsageError(f"the histograms have {len(first)} and {len(second)} bins; use the same edges for both")
