"""Which of two networks is nearer to real images: differences of distances, with what exchanging the two would give.

gaps = distance_gaps(real, first, second, rng, paired=True)
gaps["kernel distance"].ahead            # "first", "second", or "" where it is not clear
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gandissect.metrics import (
    Balls,
    bootstrap_weights,
    distances,
    frechet_distance,
    frechet_influences,
    mmd,
    polynomial_kernel,
)
from gandissect.trust import adjusted

RATE = 0.01
EXCHANGES = 4000
COVERAGE_EXCHANGES = 1000
RESAMPLES = 200
HALVES = 60
Z99 = 2.5758293035489004
Rows = NDArray[np.float64]
Places = NDArray[np.intp]
Side = Literal["first", "second", ""]
NEIGHBOURHOODS = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Gap:
    """A number of the second network minus that of the first, both against the same real images.

    Attributes:
        value: the difference; of distances, below 0 where the second is nearer.
        error: its standard error over other samples and other real images.
        p: how often exchanging samples between the networks gives as much; None where that is not tested.
        more_is_better: which network is ahead: the one with the larger number, or with the smaller.
    """

    value: float
    error: float
    p: float | None = None
    more_is_better: bool = False

    @property
    def low(self) -> float:
        """Lower end of the 99 % interval."""
        return self.value - Z99 * self.error

    @property
    def high(self) -> float:
        """Upper end of the 99 % interval."""
        return self.value + Z99 * self.error

    @property
    def ahead(self) -> Side:
        """The network with the better number, where the interval is clear of 0 and exchanges agree."""
        if self.p is None or self.p > RATE or self.low <= 0 <= self.high:
            return ""
        return "second" if (self.value > 0) == self.more_is_better else "first"


def together(gaps: Mapping[str, Gap]) -> dict[str, Gap]:
    """The same, with p adjusted over all of them that have one (Benjamini & Hochberg)."""
    tested = [name for name, gap in gaps.items() if gap.p is not None]
    p = dict(zip(tested, adjusted([gaps[name].p or 0.0 for name in tested]).tolist(), strict=True))
    return {name: replace(gap, p=p[name]) if name in p else gap for name, gap in gaps.items()}


def distance_gaps(
    real: Rows, first: Rows, second: Rows, rng: np.random.Generator, *, paired: bool, resamples: int = RESAMPLES
) -> dict[str, Gap]:
    """The difference of the Fréchet and of the kernel distance to the real images, p not adjusted.

    Both distances are functions of a set; the test asks how far each sample of either network pulls the distance of the two
    sets taken together, which does not change when samples are exchanged. The mean pull of the second set minus that of the
    first is the kernel distance's difference exactly, and that of the Fréchet distance up to third order.

    Args:
        real: float64 [m, D].
        first: float64 [n, D].
        second: float64 [n, D], of the same latents in the same order where ``paired``.
        rng: draws exchanges and resamples.
        paired: exchange and resample latents, not single samples.
        resamples: of the bootstrap.
    """
    pulls = np.stack(_frechet_pulls(real, first, second) + _kernel_pulls(real, first, second)).reshape(2, 2, -1)
    p = exchange_p(pulls[:, 0].T, pulls[:, 1].T, rng, paired=paired)
    values = [frechet_distance(second, real) - frechet_distance(first, real), _mean_difference(pulls[1])]
    errors = [_frechet_error(real, first, second, paired), _kernel_error(real, first, second, rng, paired, resamples)]
    # Exchanges say nothing where they point the other way than the numbers do.
    agree = [np.sign(value) == np.sign(_mean_difference(pull)) for value, pull in zip(values, pulls, strict=True)]
    names = ("Fréchet distance", "kernel distance")
    return {
        name: Gap(values[place], errors[place], float(p[place]) if agree[place] else 1.0)
        for place, name in enumerate(names)
    }


def exchange_p(first: Rows, second: Rows, rng: np.random.Generator, *, paired: bool) -> Rows:
    """Two-sided p of each column's difference of means, float64 [K], when samples are exchanged between the networks.

    Args:
        first: float64 [n, K].
        second: float64 [n, K].
        rng: draws the exchanges.
        paired: sample i is exchanged with sample i (Fisher's randomisation of pairs), else with any.
    """
    drawn = _exchanged_difference(first, second, _exchanges(len(first), rng, paired))
    return _share_beyond(second.mean(0) - first.mean(0), drawn)


def _exchanges(count: int, rng: np.random.Generator, paired: bool) -> Rows:
    """Which set each sample of both networks is put into: −1 the first, 1 the second, float64 [EXCHANGES, 2n]."""
    if paired:
        signs = rng.integers(0, 2, (EXCHANGES, count), dtype=np.int8) * 2.0 - 1
        return np.concatenate([-signs, signs], 1)
    return np.asarray(rng.permuted(np.tile(np.repeat([-1.0, 1.0], count), (EXCHANGES, 1)), axis=1))


def _exchanged_difference(first: Rows, second: Rows, exchanges: Rows) -> Rows:
    both = np.concatenate([first, second])
    return np.asarray(exchanges @ (both - both.mean(0)) / len(first))


def _share_beyond(observed: Rows, drawn: Rows) -> Rows:
    """How often a draw [B, K] is as far from 0 as what was observed [K], that itself counted (Phipson & Smyth 2010)."""
    slack = 1e-12 * (1 + np.abs(observed))
    return np.asarray((1 + (np.abs(drawn) >= np.abs(observed) - slack).sum(0)) / (len(drawn) + 1))


def _mean_difference(pulls: Rows) -> float:
    return float(pulls[1].mean() - pulls[0].mean())


def _frechet_pulls(real: Rows, first: Rows, second: Rows) -> tuple[Rows, Rows]:
    pulls, _ = frechet_influences(np.concatenate([first, second]), real)
    return pulls[: len(first)], pulls[len(first) :]


def _kernel_pulls(real: Rows, first: Rows, second: Rows) -> tuple[Rows, Rows]:
    """With P both sets and R the real one: (Σ_P k(x, ·) − k(x, x)) / (n − 1) − 2 mean_R k(x, ·).

    From Gretton et al. 2012, eq. 3, as b′Kb − a′Ka = (b + a)′K(b − a).
    """
    both = np.concatenate([first, second])
    kernel = polynomial_kernel(both, both)
    pulls = (kernel.sum(1) - np.diag(kernel)) / (len(first) - 1) - 2 * polynomial_kernel(both, real).mean(1)
    return pulls[: len(first)], pulls[len(first) :]


def _frechet_error(real: Rows, first: Rows, second: Rows, paired: bool) -> float:
    """By the infinitesimal jackknife of the difference: what a latent, or a real image, adds to both distances."""
    (own, of_real), (others, of_real_again) = (frechet_influences(rows, real) for rows in (first, second))
    return float(np.sqrt(_variance(own, others, paired) + _variance(of_real, of_real_again, True)))


def _variance(first: Rows, second: Rows, paired: bool) -> float:
    """Of the difference of two means."""
    spread = (second - first).var() if paired else second.var() + first.var()
    return float(spread) / len(first)


def _kernel_error(
    real: Rows, first: Rows, second: Rows, rng: np.random.Generator, paired: bool, resamples: int
) -> float:
    """By a bootstrap of the latents and of the real images, the same resample for both networks."""
    n, m = len(first), len(real)
    of_real = bootstrap_weights(m, resamples, rng)
    own = bootstrap_weights(n, resamples, rng)
    others = own if paired else bootstrap_weights(n, resamples, rng)
    found = []
    for rows, weights in ((first, own), (second, others)):
        pooled = np.concatenate([rows, real])
        kernel = polynomial_kernel(pooled, pooled)
        found.append(mmd(kernel, np.pad(weights, ((0, 0), (0, m))), np.pad(of_real, ((0, 0), (n, 0)))))
    return float((found[1] - found[0]).std(ddof=1))


def neighbourhood_gaps(
    real: Rows, first: Rows, second: Rows, k: int, rng: np.random.Generator, *, paired: bool
) -> dict[str, Gap]:
    """The difference of precision, recall, density and coverage; recall has no test, p of the others is not adjusted.

    Its error is the spread over random halves of the real images and of the latents (the delete-half jackknife, Shao & Wu
    1989): a bootstrap would repeat samples, which lie in their own balls.

    Args:
        real: float64 [m, D], m > 2k + 1.
        first: float64 [n, D], n > 2k + 1.
        second: float64 [n, D], of the same latents in the same order where ``paired``.
        k: neighbour that a ball reaches.
        rng: draws halves and exchanges.
        paired: take and exchange latents, not single samples.
    """
    m, n = len(real), len(first)
    apart = distances(np.concatenate([real, first, second]))

    def balls(rows: Places, own: Places, others: Places) -> tuple[Balls, Balls]:
        return Balls.among(apart, rows, m + own, k), Balls.among(apart, rows, m + n + others, k)

    one, two = balls(*(np.arange(count) for count in (m, n, n)))
    spread = []
    for _ in range(HALVES):
        rows, own = rng.permutation(m)[: m // 2], rng.permutation(n)[: n // 2]
        spread.append(_shares_apart(*balls(rows, own, own if paired else rng.permutation(n)[: n // 2])))
    errors = np.std(spread, axis=0, ddof=1)
    p = _neighbourhood_p(one, two, _exchanges(n, rng, paired))
    return {
        name: Gap(float(value), float(error), p.get(name), more_is_better=True)
        for name, value, error in zip(NEIGHBOURHOODS, _shares_apart(one, two), errors, strict=True)
    }


def _shares_apart(first: Balls, second: Balls) -> Rows:
    """The second's precision, recall, density and coverage minus the first's: float64 [4]."""
    shares = [
        [float(counted.mean()) for counted in (balls.plausible, balls.recalled, balls.density, balls.covered)]
        for balls in (first, second)
    ]
    return np.asarray(np.subtract(shares[1], shares[0]))


def _neighbourhood_p(first: Balls, second: Balls, exchanges: Rows) -> dict[str, float]:
    """By exchanges under which the real images' balls stay as they are; those of recall would not."""
    shares = [np.stack([balls.plausible, balls.density], 1).astype(np.float64) for balls in (first, second)]
    drawn = _exchanged_difference(shares[0], shares[1], exchanges)
    precision, density = _share_beyond(shares[1].mean(0) - shares[0].mean(0), drawn)
    # How many points of either set each real ball holds, after each exchange.
    inside = np.concatenate([balls.between < balls.real_radius[:, None] for balls in (first, second)], 1).astype(
        np.float32
    )
    in_second = (exchanges[:COVERAGE_EXCHANGES] > 0).astype(np.float32)
    covered = [(chosen @ inside.T > 0).mean(1) for chosen in (1 - in_second, in_second)]
    observed = np.asarray([second.covered.mean() - first.covered.mean()])
    coverage = _share_beyond(observed, (covered[1] - covered[0])[:, None])
    return {"precision": float(precision), "density": float(density), "coverage": float(coverage[0])}


def area_gaps(
    real: Rows, first: Rows, second: Rows, rng: np.random.Generator, *, paired: bool, resamples: int = RESAMPLES
) -> list[Gap]:
    """For each column, how much further its mean is from the real images' in the second set; p not adjusted.

    Args:
        real: float64 [m, K], areas 0..1.
        first: float64 [n, K].
        second: float64 [n, K], of the same latents in the same order where ``paired``.
        rng: draws exchanges and resamples.
        paired: exchange and resample latents, not single samples.
        resamples: of the bootstrap.
    """
    n, truth = len(first), real.mean(0)
    observed = _further(first.mean(0), second.mean(0), truth)
    middle = (first.mean(0) + second.mean(0)) / 2
    half = _exchanged_difference(first, second, _exchanges(n, rng, paired)) / 2
    p = _share_beyond(observed, _further(middle - half, middle + half, truth))
    own = bootstrap_weights(n, resamples, rng)
    others = own if paired else bootstrap_weights(n, resamples, rng)
    again = bootstrap_weights(len(real), resamples, rng) @ real / len(real)
    error = _further(own @ first / n, others @ second / n, again).std(0, ddof=1)
    return [Gap(float(v), float(e), float(q)) for v, e, q in zip(observed, error, p, strict=True)]


def _further(first: Rows, second: Rows, truth: Rows) -> Rows:
    return np.asarray(np.abs(second - truth) - np.abs(first - truth))
