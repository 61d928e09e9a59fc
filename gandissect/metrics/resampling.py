"""How sure a number is: resampled sets, random halves, exchanged labels.

weights = bootstrap_weights(len(features), 200, rng)     # float64 [200, N], how often each sample counts
low, high = around(estimate, [metric(w) for w in weights])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gandissect.errors import UsageError
from gandissect.metrics.arrays import Matrix

Indices = NDArray[np.intp]


def bootstrap_weights(count: int, draws: int, rng: np.random.Generator) -> Matrix:
    """How often each of ``count`` samples occurs in each of ``draws`` resampled sets (Efron 1979): float64 [draws, count]."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def middle(replicates: ArrayLike) -> Matrix:
    """The lower and the upper end of the middle 95 % of replicates [B, …] (the percentile interval of Efron 1979): float64 [2, …]."""
    ends: Matrix = np.percentile(np.asarray(replicates, np.float64), [2.5, 97.5], axis=0)
    return ends


def around(estimate: float, replicates: Sequence[float] | Matrix) -> tuple[float, float]:
    """The middle 95 % of bootstrap replicates, moved so that their mean is the estimate.

    A resampled set repeats samples, which adds to the Fréchet distance what a smaller set would add: unmoved, the interval need
    not hold the estimate at all. It says how far the number would change with other samples, not how biased it is.
    """
    values = np.asarray(replicates, np.float64)
    low, high = middle(values - values.mean()) + estimate
    return float(low), float(high)


def halves(
    real: int, generated: int, draws: int, rng: np.random.Generator
) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Two disjoint random parts of the real samples and one of the generated ones, all of one size, ``draws`` times.

    Real against real at the size at which real against generated is measured: what no difference looks like.

    Raises:
        UsageError: fewer than four real or two generated samples.
    """
    size = min(real // 2, generated)
    if size < 2:
        raise UsageError(f"halves need at least 4 real and 2 generated samples, got {real} and {generated}")
    for _ in range(draws):
        order = rng.permutation(real)
        yield order[:size], order[size : 2 * size], rng.permutation(generated)[:size]


def permutation_p(first: Matrix, second: Matrix, draws: int, rng: np.random.Generator) -> Matrix:
    """Two-sided p of each column's difference of means, its labels exchanged ``draws`` times: float64 [K] in 1/(draws + 1)..1.

    Valid for any distribution when the samples are exchangeable (Phipson & Smyth 2010, for the added 1).

    Args:
        first: float64 [N, K].
        second: float64 [M, K].
        draws: permutations.
        rng: draws them.
    """
    pooled = np.concatenate([first, second])
    pooled = pooled - pooled.mean(0)
    n, total = len(first), len(pooled)
    chosen = np.zeros((draws, total))
    for row in chosen:
        row[rng.permutation(total)[:n]] = 1.0
    factor = total / (n * (total - n))  # both means from the sum of one group, as the whole sums to 0
    observed = np.abs(pooled[:n].sum(0) * factor)
    by_chance = np.abs(chosen @ pooled * factor)
    slack = 1e-12 * (1 + observed)
    return np.asarray((1 + (by_chance >= observed - slack).sum(0)) / (draws + 1))
