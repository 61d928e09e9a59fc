"""The Fréchet distance of two sets of features, and what it would be for infinitely many samples.

frechet_distance(real, generated)                        # 3.29
frechet_at_infinity(real, generated, rng).value          # 1.94, the bias of few samples taken away
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gandissect.metrics.arrays import Matrix, rows, two_sets

FEWEST = 2
PLACES = 8
"""Numbers of samples that the extrapolation measures at."""
DRAWS = 4
"""Random subsets at each of them."""


@dataclass(frozen=True)
class Moments:
    """Mean float64 [D] and covariance float64 [D, D] (n − 1) of a set of features."""

    mean: Matrix
    covariance: Matrix


@dataclass(frozen=True)
class Extrapolation:
    """A straight line through the distance over 1/n.

    Attributes:
        value: its height at 1/n = 0; may be slightly negative, as any unbiased estimate of 0.
        slope: what the bias adds at n samples, times n.
        fit: R², 0..1; far below 1 the line says nothing.
        smallest, largest: the numbers of samples it was fitted on.
    """

    value: float
    slope: float
    fit: float
    smallest: int
    largest: int


def moments(features: ArrayLike, weights: NDArray[np.floating] | None = None) -> Moments:
    """Mean and covariance of features [N, D].

    ``weights`` [N] are how often each row counts (a bootstrap's multiplicities); their sum is the number of samples.
    """
    values = rows(features, "features", FEWEST)
    if weights is None:
        mean = values.mean(0)
        centred = values - mean
        return Moments(mean, centred.T @ centred / (len(values) - 1))
    total = float(weights.sum())
    mean = weights @ values / total
    centred = values - mean
    return Moments(mean, (centred * weights[:, None]).T @ centred / (total - 1))


def frechet_between(first: Moments, second: Moments) -> float:
    """The squared Fréchet (2-Wasserstein) distance of two Gaussians; at least 0.

    ‖μ₁ − μ₂‖² + tr(C₁) + tr(C₂) − 2 tr((C₁C₂)^½) (Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6). The eigenvalues
    of C₁C₂ are those of the symmetric C₁^½ C₂ C₁^½, real and not negative; the trace of the root is the sum of their roots.
    """
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second.covariance @ root).clip(0)).sum()
    apart = first.mean - second.mean
    total = apart @ apart + np.trace(first.covariance) + np.trace(second.covariance) - 2 * shared
    return max(0.0, float(total))


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """The squared Fréchet distance of Gaussians fitted to features [N, D] and [M, D]; see :func:`frechet_between`.

    It is called FID only where the features are those of the Inception network of Heusel et al. 2017. Biased upwards: for two
    sets of one distribution it is not 0 but falls like 1/n.

    Raises:
        UsageError: fewer than two rows, values that are not finite, or two feature spaces.
    """
    one, two = two_sets(first, second, FEWEST)
    if len(one) - 1 + len(two) - 1 < one.shape[1]:
        return _of_few(one, two)
    return frechet_between(moments(one), moments(two))


def _of_few(one: Matrix, two: Matrix) -> float:
    """The same with fewer samples than features: the trace is the sum of the singular values of X₁X₂ᵀ, [N, M] in place of [D, D]."""
    a, b = (values - values.mean(0) for values in (one, two))
    scale = (len(one) - 1) * (len(two) - 1)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(scale)
    apart = one.mean(0) - two.mean(0)
    spread = np.square(a).sum() / (len(one) - 1) + np.square(b).sum() / (len(two) - 1)
    return max(0.0, float(apart @ apart + spread - 2 * shared))


def frechet_influences(first: ArrayLike, second: ArrayLike) -> tuple[Matrix, Matrix]:
    """How much each sample of either set moves the distance, up to one number for all of a set: float64 [N] and [M].

    The influence function (Efron 1982, ch. 6): it follows from the derivatives 2(μ₁ − μ₂) and I − T, with T the optimal map
    between the Gaussians (Dowson & Landau 1982).

    Raises:
        UsageError: as for :func:`frechet_distance`.
    """
    one, two = two_sets(first, second, FEWEST)
    a, b = moments(one), moments(two)
    there, back = _optimal_maps(a.covariance, b.covariance)
    return _influence(one, a, b, there), _influence(two, b, a, back)


def _influence(values: Matrix, own: Moments, other: Moments, outward: Matrix) -> Matrix:
    centred = values - own.mean
    return np.asarray(2 * centred @ (own.mean - other.mean) + (centred * (centred - centred @ outward)).sum(1))


def frechet_deviation(first: ArrayLike, second: ArrayLike) -> float:
    """How much the distance would vary from draw to draw of both sets: its standard error by the infinitesimal jackknife.

    The spread of :func:`frechet_influences`. Resampling is no substitute: resampled sets repeat samples, and with n
    only three times as many as features it gives twice the true deviation, where this is at most a third too large.

    Raises:
        UsageError: as for :func:`frechet_distance`.
    """
    return float(np.sqrt(sum(float(moved.var()) / len(moved) for moved in frechet_influences(first, second))))


def _optimal_maps(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """T₁₂ = C₁^−½ (C₁^½ C₂ C₁^½)^½ C₁^−½ and T₂₁ = C₁^½ (C₁^½ C₂ C₁^½)^−½ C₁^½, zero where a covariance has no extent."""
    values, vectors = np.linalg.eigh(first)
    scale = np.sqrt(values.clip(0))
    root, inverse = (vectors * scale) @ vectors.T, (vectors * _reciprocal(scale)) @ vectors.T
    inner, turned = np.linalg.eigh(root @ second @ root)
    inner = np.sqrt(inner.clip(0))
    there = inverse @ (turned * inner) @ turned.T @ inverse
    return there, root @ (turned * _reciprocal(inner)) @ turned.T @ root


def _reciprocal(scale: Matrix) -> Matrix:
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 1e-5 * scale.max(initial=0.0))


def frechet_at_infinity(first: ArrayLike, second: ArrayLike, rng: np.random.Generator) -> Extrapolation | None:
    """The distance extrapolated to infinitely many samples (Chong & Forsyth 2020, sec. 3: linear in 1/n).

    Measured on random subsets of both sets, of equal size, between a third and all of the smaller set. The bias is linear in
    1/n only where there are clearly more samples than features: None where the smallest subset has fewer than one and a half
    times as many.

    Args:
        first: float [N, D].
        second: float [M, D].
        rng: draws the subsets.

    Raises:
        UsageError: as for :func:`frechet_distance`.
    """
    one, two = two_sets(first, second, FEWEST)
    most = min(len(one), len(two))
    if most // 3 < max(1.5 * one.shape[1], 20):
        return None
    sizes = np.unique(np.round(1 / np.linspace(3 / most, 1 / most, PLACES)).astype(int))
    found = [
        np.mean(
            [
                frechet_distance(
                    one[rng.choice(len(one), size, replace=False)], two[rng.choice(len(two), size, replace=False)]
                )
                for _ in range(DRAWS)
            ]
        )
        for size in sizes
    ]
    slope, value = np.polyfit(1 / sizes, found, 1)
    left = float(np.square(np.asarray(found) - (value + slope / sizes)).sum())
    total = float(np.square(found - np.mean(found)).sum())
    fit = max(0.0, 1 - left / total) if total > 0 else 1.0
    return Extrapolation(float(value), float(slope), fit, int(sizes[0]), int(sizes[-1]))
