"""How the discriminator stands against the generator: scores of two sets of images, and the verdict in words.

found = standing(real_scores, generated_scores, rng)
found.verdict                            # "D far ahead"
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Words = Literal["balanced", "D ahead", "D far ahead", "G ahead", "saturated", "silent"]
Scores = NDArray[np.float64]
SATURATED = 9.2
"""|logit| beyond which the sigmoid is within 1e-4 of 0 or 1, and with it the gradient of the classic losses of G or D."""
MOST = 0.9
FAR, AHEAD, BEHIND = 0.95, 0.75, 0.45
BINS = 10
OPTIMUM = log(2)
"""The cross-entropy of the optimal discriminator of a perfect generator (Goodfellow et al. 2014, theorem 1, per image)."""


@dataclass(frozen=True)
class Separation:
    """How far the scores of one set lie above those of another.

    Attributes:
        auc: probability that an image of the first set scores higher than one of the second, ties half: 0..1, ½ by chance.
        low, high: its 95 % bootstrap interval.
        p: two-sided, Mann–Whitney.
    """

    auc: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Standing:
    """The discriminator's scores as probabilities, and what they say.

    Attributes:
        separation: real above generated.
        entropy: cross-entropy of real against generated, in nats per image; ``OPTIMUM`` at the optimum for a perfect generator.
        mean_real, mean_generated: mean probability of "real".
        error: expected calibration error over ten bins, 0..1; ``expected_error`` what a calibrated discriminator with these scores
            would show on as many images.
        saturated: share of scores beyond ±``SATURATED``.
        silent: all scores are equal.
        bins: (mean probability, share that is real, images) of each bin that holds any.
    """

    separation: Separation
    entropy: float
    mean_real: float
    mean_generated: float
    error: float
    expected_error: float
    saturated: float
    silent: bool
    bins: tuple[tuple[float, float, int], ...]

    @property
    def verdict(self) -> Words:
        """In words, by the interval of the AUC."""
        if self.silent:
            return "silent"
        if self.saturated >= MOST:
            return "saturated"
        if self.separation.high < BEHIND:
            return "G ahead"
        if self.separation.low >= FAR:
            return "D far ahead"
        return "D ahead" if self.separation.low >= AHEAD else "balanced"


def separation(first: Scores, second: Scores, rng: np.random.Generator, *, draws: int = 199) -> Separation:
    """How far ``first`` float64 [N] scores above ``second`` float64 [M], with a bootstrap over images of each."""
    from scipy.stats import mannwhitneyu

    p = float(mannwhitneyu(first, second).pvalue) if len(np.unique(np.concatenate([first, second]))) > 1 else 1.0
    drawn = [_auc(rng.choice(first, len(first)), rng.choice(second, len(second))) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Separation(_auc(first, second), float(low), float(high), p)


def standing(real: Scores, generated: Scores, rng: np.random.Generator, *, draws: int = 199) -> Standing:
    """Where D and G stand, from logits of real images [N] and of samples [M]; both kinds count alike whatever N and M are."""
    both = np.concatenate([real, generated])
    truth = np.repeat([1.0, 0.0], [len(real), len(generated)])
    weight: Scores = np.repeat([0.5 / len(real), 0.5 / len(generated)], [len(real), len(generated)])
    given = _sigmoid(both)
    error, bins = _calibration(given, truth, weight)
    chance = np.mean(
        [_calibration(given, (rng.random(len(given)) < given).astype(np.float64), weight)[0] for _ in range(19)]
    )
    return Standing(
        separation(real, generated, rng, draws=draws),
        float((np.logaddexp(0, -real).mean() + np.logaddexp(0, generated).mean()) / 2),
        float(_sigmoid(real).mean()),
        float(_sigmoid(generated).mean()),
        error,
        float(chance),
        float(weight @ (np.abs(both) > SATURATED)),
        is_silent(both),
        bins,
    )


def is_silent(scores: Scores) -> bool:
    """All scores are equal, to rounding."""
    return bool(np.ptp(scores) <= 1e-6 * (1e-6 + np.abs(scores).max()))


def _auc(first: Scores, second: Scores) -> float:
    order = np.sort(second)
    below, upto = np.searchsorted(order, first, "left"), np.searchsorted(order, first, "right")
    return float((below + upto).mean() / (2 * len(second)))


def _calibration(given: Scores, truth: Scores, weight: Scores) -> tuple[float, tuple[tuple[float, float, int], ...]]:
    """Expected calibration error (Guo et al. 2017, eq. 3) and the bins."""
    places = np.minimum((given * BINS).astype(int), BINS - 1)
    error, bins = 0.0, []
    for place in np.unique(places):
        inside = places == place
        mass = weight[inside].sum()
        mean, share = weight[inside] @ given[inside] / mass, weight[inside] @ truth[inside] / mass
        error += float(mass * abs(mean - share))
        bins.append((float(mean), float(share), int(inside.sum())))
    return error, tuple(bins)


def _sigmoid(scores: Scores) -> Scores:
    from scipy.special import expit

    return np.asarray(expit(scores), np.float64)
