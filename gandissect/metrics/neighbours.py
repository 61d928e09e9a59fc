"""Which generated samples lie where real ones are, and which real ones lie where generated ones are.

precision_recall(real, generated)                        # PrecisionRecall(precision=0.72, recall=0.70)
density_coverage(real, generated)                        # DensityCoverage(density=1.04, coverage=0.87)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gandissect.errors import UsageError
from gandissect.metrics.arrays import Matrix, two_sets


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in 0..1: generated samples that are plausible, real samples that are covered."""

    precision: float
    recall: float


@dataclass(frozen=True)
class DensityCoverage:
    """Density: 0 and up, 1 expected for equal distributions; coverage: 0..1."""

    density: float
    coverage: float


@dataclass(frozen=True)
class Balls:
    """Two sets of points, each point with a ball that reaches its k-th nearest neighbour of its own set.

    Attributes:
        between: float64 [N, M], distance of every real point to every generated one.
        real_radius: float64 [N].
        generated_radius: float64 [M].
        k: which neighbour; the point itself does not count.
    """

    between: Matrix
    real_radius: Matrix
    generated_radius: Matrix
    k: int

    @classmethod
    def of(cls, real: ArrayLike, generated: ArrayLike, k: int = 3) -> Balls:
        """The balls of features [N, D] and [M, D].

        Raises:
            UsageError: see :meth:`among`; values that are not finite, or two feature spaces.
        """
        one, two = two_sets(real, generated, 2)
        places = np.arange(len(one) + len(two))
        return cls.among(distances(np.concatenate([one, two])), places[: len(one)], places[len(one) :], k)

    @classmethod
    def among(cls, apart: Matrix, real: NDArray[np.intp], generated: NDArray[np.intp], k: int = 3) -> Balls:
        """The balls of some of the points whose distances ``apart`` float64 [P, P] are known.

        Raises:
            UsageError: a ``k`` below 1, or a set of at most ``k`` points.
        """
        if k < 1 or min(len(real), len(generated)) <= k:
            raise UsageError(f"neighbour {k} needs sets of at least {k + 1}, got {len(real)} and {len(generated)} rows")
        return cls(apart[np.ix_(real, generated)], _radius(apart, real, k), _radius(apart, generated, k), k)

    @cached_property
    def plausible(self) -> NDArray[np.bool_]:
        """Generated points inside a real ball, bool [M] (Kynkäänniemi et al. 2019, eq. 1)."""
        return np.asarray((self.between <= self.real_radius[:, None]).any(0))

    @cached_property
    def recalled(self) -> NDArray[np.bool_]:
        """Real points inside a generated ball, bool [N] (ditto, with the sets exchanged)."""
        return np.asarray((self.between <= self.generated_radius[None, :]).any(1))

    @cached_property
    def density(self) -> Matrix:
        """In how many real balls each generated point lies, divided by k, float64 [M] (Naeem et al. 2020, eq. 4)."""
        return np.asarray((self.between < self.real_radius[:, None]).sum(0) / self.k)

    @cached_property
    def covered(self) -> NDArray[np.bool_]:
        """Real balls that hold a generated point, bool [N] (Naeem et al. 2020, eq. 5)."""
        return np.asarray((self.between < self.real_radius[:, None]).any(1))


def precision_recall(real: ArrayLike, generated: ArrayLike, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 2), balls closed (≤).

    Both fall with fewer samples and with more features, so they compare at equal numbers only. A set collapsed onto a few real
    modes has precision 1 and recall 0: neither says anything alone.

    Args:
        real: float [N, D].
        generated: float [M, D].
        k: size of the neighbourhood, 3 in the paper.

    Raises:
        UsageError: see :meth:`Balls.of`.
    """
    balls = Balls.of(real, generated, k)
    return PrecisionRecall(float(balls.plausible.mean()), float(balls.recalled.mean()))


def density_coverage(real: ArrayLike, generated: ArrayLike, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020), balls open (<); k = 5 in the paper.

    Outliers among the real samples count less than in precision and recall. For equal distributions the expected density is 1
    and the expected coverage about 1 − 2^−k.

    Args:
        real: float [N, D].
        generated: float [M, D].
        k: size of the neighbourhood.

    Raises:
        UsageError: see :meth:`Balls.of`.
    """
    balls = Balls.of(real, generated, k)
    return DensityCoverage(float(balls.density.mean()), float(balls.covered.mean()))


def distances(points: Matrix) -> Matrix:
    """The Euclidean distance of every pair of points float64 [P, D]: float64 [P, P]."""
    exact = "donot_use_mm_for_euclid_dist"  # products lose half of the digits, and identical rows would not be at 0
    values = torch.from_numpy(points)
    return np.asarray(torch.cdist(values, values, compute_mode=exact).numpy())


def _radius(apart: Matrix, part: NDArray[np.intp], k: int) -> Matrix:
    return np.asarray(np.partition(apart[np.ix_(part, part)], k, axis=1)[:, k])
