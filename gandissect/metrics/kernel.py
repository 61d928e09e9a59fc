"""The kernel distance: an unbiased measure of how far two sets of features are apart.

kid(real, generated)                                     # Kid(mean=0.0386, deviation=0.0, subsets=1)
kid(real, generated, subsets=[(rows, other_rows), ...])  # mean and deviation over subsets
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gandissect.errors import UsageError
from gandissect.metrics.arrays import Matrix, two_sets

Rows = NDArray[np.integer] | Sequence[int]


@dataclass(frozen=True)
class Kid:
    """Mean and standard deviation (divided by the number) of the squared MMD over subsets; the deviation of one is 0."""

    mean: float
    deviation: float
    subsets: int


def polynomial_kernel(first: Matrix, second: Matrix) -> Matrix:
    """(xᵀy / D + 1)³ of every pair of rows, float64 [N, M] (Bińkowski et al. 2018, sec. 4.1)."""
    kernel: Matrix = (first @ second.T / first.shape[1] + 1) ** 3
    return kernel


def polynomial_mmd(first: ArrayLike, second: ArrayLike) -> float:
    """The unbiased squared maximum mean discrepancy under the polynomial kernel; see :func:`mmd`.

    Args:
        first: float [N, D], N ≥ 2.
        second: float [M, D], M ≥ 2.

    Raises:
        UsageError: fewer than two rows, values that are not finite, or two feature spaces.
    """
    one, two = two_sets(first, second, 2)
    pooled = np.concatenate([one, two])
    of_first = (np.arange(len(pooled)) < len(one)).astype(np.float64)[None]
    return float(mmd(polynomial_kernel(pooled, pooled), of_first, 1 - of_first)[0])


def mmd(kernel: Matrix, first: Matrix, second: Matrix) -> Matrix:
    """The unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) of pairs of sets: float64 [B].

    Its mean is 0 for sets of one distribution, whatever their sizes, so half of those values are negative. A sample that occurs
    twice in a set is never paired with itself.

    Args:
        kernel: float64 [P, P] of all samples.
        first: float64 [B, P], how often each sample is in the first set of each pair.
        second: ditto.
    """
    own = np.diag(kernel)

    def within(weights: Matrix) -> Matrix:
        total, squares = weights.sum(1), np.square(weights)
        return np.asarray((((weights @ kernel) * weights).sum(1) - squares @ own) / (total**2 - squares.sum(1)))

    between = ((first @ kernel) * second).sum(1) / (first.sum(1) * second.sum(1))
    return np.asarray(within(first) + within(second) - 2 * between)


def kid(first: ArrayLike, second: ArrayLike, subsets: Sequence[tuple[Rows, Rows]] = ()) -> Kid:
    """The kernel distance over given subsets, or of the whole sets (the estimate of least variance) where there are none.

    It is called KID without a qualifier only where the features are those of the standard Inception network. The deviation over subsets is
    no error bar of the mean: it falls to 0 as the subsets become the whole set.

    Args:
        first: float [N, D].
        second: float [M, D].
        subsets: pairs of row numbers, one for each set.

    Raises:
        UsageError: see :func:`polynomial_mmd`; a row that is not there.
    """
    one, two = two_sets(first, second, 2)
    try:
        found = [polynomial_mmd(one[np.asarray(rows)], two[np.asarray(others)]) for rows, others in subsets]
    except IndexError as error:
        raise UsageError(f"a subset names a row that is not there ({error})") from error
    found = found or [polynomial_mmd(one, two)]
    return Kid(float(np.mean(found)), float(np.std(found)), len(found))
