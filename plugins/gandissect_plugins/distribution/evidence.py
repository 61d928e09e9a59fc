"""What is measured between real and generated samples in one space, with what no difference would look like.

compare = Comparison(space, real, generated, rng, draws=20, resamples=200)
compare.distances()                                      # Measured of the Fréchet and the kernel distance
compare.neighbourhoods()                                 # Measured of precision, recall, density and coverage
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gandissect.metrics import (
    Balls,
    around,
    bootstrap_weights,
    distances,
    frechet_at_infinity,
    frechet_deviation,
    frechet_distance,
    halves,
    middle,
    mmd,
    polynomial_kernel,
)
from gandissect.trust import Z95, interval

from .spaces import ComparisonSpace, Rows

K = 3
PERMUTATIONS = 400
FEWEST = 16
"""Real and generated samples below which nothing is compared: a half of them has no neighbourhoods."""
Draw = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Spread:
    """Mean and middle 95 % over random halves."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Rows | list[float]) -> Spread:
        """The spread of values [B]."""
        low, high = middle(values)
        return cls(float(np.mean(values)), float(low), float(high))


@dataclass(frozen=True)
class Measured:
    """One metric in one space.

    Attributes:
        metric: what it is called there.
        value, low, high: of all samples, with the 95 % interval.
        infinite: extrapolated to infinitely many samples, where that is known.
        p: how often exchanged labels give as much, where that was tested.
        same: real against generated, on ``size`` samples of each.
        floor: real against other real ones, ditto.
        size: samples of each set in a half.
        larger_is_worse: which side of the floor is the bad one.
    """

    metric: str
    value: float
    low: float
    high: float
    same: Spread
    floor: Spread
    size: int
    larger_is_worse: bool
    infinite: float | None = None
    p: float | None = None

    @property
    def apart(self) -> bool:
        """Real against generated is worse than real against real, and the two do not overlap."""
        return self.same.low > self.floor.high if self.larger_is_worse else self.same.high < self.floor.low


class Comparison:
    """Real features [N, D] and generated ones [M, D] of one space, and the random halves that all metrics look at."""

    def __init__(
        self,
        space: ComparisonSpace,
        real: Rows,
        generated: Rows,
        rng: np.random.Generator,
        *,
        draws: int = 20,
        resamples: int = 200,
    ) -> None:
        self.space, self.real, self.generated, self.rng = space, real, generated, rng
        self.resamples = resamples
        self.draws: list[Draw] = list(halves(len(real), len(generated), draws, rng))

    @property
    def size(self) -> int:
        """Samples in a half."""
        return len(self.draws[0][0])

    @cached_property
    def _pooled(self) -> Rows:
        return np.concatenate([self.real, self.generated])

    def distances(self) -> list[Measured]:
        """The Fréchet distance and the kernel distance."""
        return [self._frechet(), self._kernel()]

    def _frechet(self) -> Measured:
        value, error = frechet_distance(self.real, self.generated), frechet_deviation(self.real, self.generated)
        far = frechet_at_infinity(self.real, self.generated, self.rng)
        return Measured(
            self.space.label("Fréchet distance", "FID"),
            value,
            max(0.0, value - Z95 * error),
            value + Z95 * error,
            Spread.of([frechet_distance(self.real[a], self.generated[g]) for a, _, g in self.draws]),
            Spread.of([frechet_distance(self.real[a], self.real[b]) for a, b, _ in self.draws]),
            self.size,
            True,
            far.value if far else None,
        )

    def _kernel(self) -> Measured:
        kernel, n, m = polynomial_kernel(self._pooled, self._pooled), len(self.real), len(self.generated)
        everyone = np.repeat([1.0, 0.0], [n, m])[None]
        value = float(mmd(kernel, everyone, 1 - everyone)[0])
        first = np.pad(bootstrap_weights(n, self.resamples, self.rng), ((0, 0), (0, m)))
        second = np.pad(bootstrap_weights(m, self.resamples, self.rng), ((0, 0), (n, 0)))
        low, high = around(value, mmd(kernel, first, second))
        chosen = [np.zeros((len(self.draws), n + m)) for _ in range(3)]
        for row, (a, b, g) in enumerate(self.draws):
            for weights, members in zip(chosen, (a, b, n + g), strict=True):
                weights[row, members] = 1.0
        same, floor = mmd(kernel, chosen[0], chosen[2]), mmd(kernel, chosen[0], chosen[1])
        name = self.space.label("kernel distance", "KID")
        # Gretton et al. 2012, sec. 5: the same distance with the labels real and generated exchanged
        exchanged = np.stack([self.rng.permutation(everyone[0]) for _ in range(PERMUTATIONS)])
        p = float((1 + (mmd(kernel, exchanged, 1 - exchanged) >= value).sum()) / (PERMUTATIONS + 1))
        return Measured(name, value, low, high, Spread.of(same), Spread.of(floor), self.size, True, p=p)

    def neighbourhoods(self) -> list[Measured]:
        """Precision, recall, density and coverage, all with the third nearest neighbour.

        The intervals say how much the share would change with other samples of the set that is counted, the other set as it is.
        """
        apart, n = distances(self._pooled), len(self.real)
        whole = Balls.among(apart, np.arange(n), np.arange(n, len(self._pooled)), K)
        same = [Balls.among(apart, a, n + g, K) for a, _, g in self.draws]
        floor = [Balls.among(apart, a, b, K) for a, b, _ in self.draws]
        metrics: dict[str, Callable[[Balls], Rows | NDArray[np.bool_]]] = {
            "precision": lambda balls: balls.plausible,
            "recall": lambda balls: balls.recalled,
            "density": lambda balls: balls.density,
            "coverage": lambda balls: balls.covered,
        }
        return [
            Measured(
                f"{name} [{self.space.name}]",
                float(of(whole).mean()),
                *self._share(of(whole)),
                Spread.of([float(of(balls).mean()) for balls in same]),
                Spread.of([float(of(balls).mean()) for balls in floor]),
                self.size,
                False,
            )
            for name, of in metrics.items()
        ]

    def _share(self, counted: Rows | NDArray[np.bool_]) -> tuple[float, float]:
        if counted.dtype == np.bool_:
            return interval(int(counted.sum()), len(counted))
        weights = bootstrap_weights(len(counted), self.resamples, self.rng)
        return around(float(counted.mean()), weights @ counted / len(counted))
