"""What all metrics ask of their arguments.

first, second = two_sets(real, generated, at_least=2)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gandissect.errors import UsageError

Matrix = NDArray[np.float64]


def rows(features: ArrayLike, what: str, at_least: int) -> Matrix:
    """Features as float64 [N, D].

    Raises:
        UsageError: another shape, fewer than ``at_least`` rows, or values that are not finite.
    """
    matrix = np.asarray(features, np.float64)
    if matrix.ndim != 2 or len(matrix) < at_least or matrix.shape[1] < 1:
        raise UsageError(f"{what}: expected at least {at_least} rows [N, D], got an array of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise UsageError(f"{what}: {int((~np.isfinite(matrix)).any(1).sum())} of {len(matrix)} rows are not finite")
    return matrix


def two_sets(first: ArrayLike, second: ArrayLike, at_least: int) -> tuple[Matrix, Matrix]:
    """Both sets as float64 [N, D] and [M, D].

    Raises:
        UsageError: see :func:`rows`; or features of different length.
    """
    one, two = rows(first, "first set", at_least), rows(second, "second set", at_least)
    if one.shape[1] != two.shape[1]:
        raise UsageError(f"the sets have {one.shape[1]} and {two.shape[1]} features; compare them in one feature space")
    return one, two
