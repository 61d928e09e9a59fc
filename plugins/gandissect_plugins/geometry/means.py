"""A mean over few samples with its 95 % interval.

mean_interval(ranks)                     # (23.1, 21.7, 24.5)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def mean_interval(values: ArrayLike) -> tuple[float, float, float]:
    """(mean, low, high) of values [N], by Student's t; the mean three times where fewer than two are given."""
    from scipy.stats import t

    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean()) if len(numbers) else 0.0
    if len(numbers) < 2:
        return mean, mean, mean
    half = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5)
    return mean, mean - half, mean + half


def with_interval(values: ArrayLike, digits: int = 3) -> str:
    """ "23.1 (21.7 to 24.5)" for values [N]."""
    mean, low, high = (f"{number:.{digits}g}" for number in mean_interval(values))
    return f"{mean} ({low} to {high})"
