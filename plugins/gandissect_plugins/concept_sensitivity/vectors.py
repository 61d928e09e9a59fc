"""Concept activation vectors, and whether the logit is more sensitive to them than to those of random sets.

space = Space(activations, slopes)
tested = sensitivity(space, positive, negative, random)
tested.score, tested.random, tested.p                    # 0.94, 0.51, 2e-9
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
RIDGE = 0.1
"""Ridge penalty, as a part of the mean squared length of an activation."""


@dataclass(frozen=True)
class Space:
    """A layer's activations, and the logit's slopes at other samples.

    Attributes:
        activations: float64 [n, D].
        slopes: float64 [m, D].
    """

    activations: Floats
    slopes: Floats

    @cached_property
    def centred(self) -> Floats:
        """``activations`` less their mean."""
        found: Floats = self.activations - self.activations.mean(0)
        return found

    @cached_property
    def gram(self) -> Floats:
        """Products of centred activations: float64 [n, n]."""
        found: Floats = self.centred @ self.centred.T
        return found

    @cached_property
    def across(self) -> Floats:
        """Products of slopes and centred activations: float64 [m, n]."""
        found: Floats = self.slopes @ self.centred.T
        return found


@dataclass(frozen=True)
class Vector:
    """A concept activation vector as weights of the samples it was fitted on: Σ weight · centred activation, and its offset."""

    members: Places
    weights: Floats
    offset: float

    def derivatives(self, space: Space) -> Floats:
        """Directional derivative of the logit at each sample, float64 [m], up to a positive factor (Kim et al. 2018, eq. 1)."""
        found: Floats = space.across[:, self.members] @ self.weights
        return found

    def length(self, space: Space) -> float:
        """Length of the vector before it is scaled to 1."""
        square = self.weights @ space.gram[np.ix_(self.members, self.members)] @ self.weights
        return float(np.sqrt(max(float(square), 0.0)))

    def direction(self, space: Space) -> Floats:
        """The unit vector, float64 [D]; zeros where there is none."""
        found: Floats = self.weights @ space.centred[self.members] / max(self.length(space), 1e-300)
        return found

    def accuracy(self, space: Space, positive: Places, negative: Places) -> float:
        """Mean of both sides' accuracies on samples that were not fitted on, 0..1."""
        sides = []
        for members, side in ((positive, 1.0), (negative, -1.0)):
            held = np.setdiff1d(members, self.members)
            values = space.gram[np.ix_(held, self.members)] @ self.weights + self.offset
            sides.append(float((side * values > 0).mean()) if len(held) else np.nan)
        return float(np.mean(sides))


def fit(space: Space, positive: Places, negative: Places) -> Vector:
    """Ridge regression of ±1 on activations, in its dual form (Hoerl & Kennard 1970); points to ``positive``."""
    members = np.concatenate([positive, negative])
    truth = np.repeat([1.0, -1.0], [len(positive), len(negative)])
    gram = space.gram[np.ix_(members, members)]
    middle = np.eye(len(members)) - 1 / len(members)
    inner = middle @ gram @ middle
    penalty = RIDGE * max(float(np.trace(inner)) / len(members), 1e-300)
    weights = middle @ np.linalg.solve(inner + penalty * np.eye(len(members)), middle @ truth)
    offset = float(truth.mean() - (gram @ weights).mean())
    return Vector(members, weights, offset)


@dataclass(frozen=True)
class Sensitivity:
    """TCAV of one concept at one layer.

    Attributes:
        score: mean over CAVs of the share of samples whose logit rises towards the concept, 0..1 (Kim et al. 2018, eq. 2).
        scores: float64, that share for each CAV; ``random`` is the mean of random sets.
        accuracy: held-out accuracy of the concept's CAVs, 0..1.
        p: the larger of two Welch t-tests against random sets, two-sided: of the scores, and of the mean derivatives along unit
            CAVs. Where the logit is nearly linear a score is 0 or 1, and ten that agree by accident would pass by the first alone.
        direction: float64 [D], mean of the concept's unit CAVs, of length 1.
        size: standard deviation of the activations along it.
    """

    scores: Floats
    random: float
    accuracy: float
    p: float
    direction: Floats
    size: float

    @property
    def score(self) -> float:
        """Mean of ``scores``."""
        return float(self.scores.mean())

    @property
    def sign(self) -> int:
        """1 where the concept raises the logit more often than random sets do, −1 where less often."""
        return 1 if self.score >= self.random else -1


def tcav(derivatives: Floats) -> float:
    """Share of samples at which the logit rises along a vector; those without a slope count half."""
    return float(((derivatives > 0) + 0.5 * (derivatives == 0)).mean())


@dataclass(frozen=True)
class Answers:
    """What several CAVs say: TCAV scores float64 [V] and mean derivatives along the unit vectors float64 [V]."""

    scores: Floats
    means: Floats

    @classmethod
    def of(cls, space: Space, vectors: Sequence[Vector]) -> Answers:
        """Of each vector at the samples with slopes."""
        found = [vector.derivatives(space) / max(vector.length(space), 1e-300) for vector in vectors]
        return cls(np.array([tcav(row) for row in found]), np.array([row.mean() for row in found]))


def random_answers(space: Space, size: int, rounds: int, rng: np.random.Generator) -> Answers:
    """CAVs between disjoint random sets of ``size`` samples each, as many as fit, ``rounds`` times over."""
    vectors = []
    for _ in range(rounds):
        order = rng.permutation(len(space.activations))
        for start in range(0, len(order) - 2 * size + 1, 2 * size):
            vectors.append(fit(space, order[start : start + size], order[start + size : start + 2 * size]))
    return Answers.of(space, vectors)


def sensitivity(
    space: Space, positive: Places, negative: Places, *, cavs: int, random: Answers, rng: np.random.Generator
) -> Sensitivity:
    """TCAV of a concept, from CAVs that share no sample with each other.

    Disjoint sets make the scores of a concept that the logit ignores independent draws of what random sets give; CAVs of
    overlapping sets repeat one accident and call it significant.

    Args:
        space: of the layer.
        positive, negative: samples with much and with little of the concept, equally many.
        cavs: how many sets each is divided into.
        random: from :func:`random_answers`, sets of the same size.
        rng: divides them.
    """
    size = len(positive) // cavs
    ones, others = (rng.permutation(members)[: size * cavs].reshape(cavs, size) for members in (positive, negative))
    vectors = [fit(space, one, other) for one, other in zip(ones, others, strict=True)]
    own = Answers.of(space, vectors)
    accuracy = float(np.mean([vector.accuracy(space, positive, negative) for vector in vectors]))
    mean = np.mean([vector.direction(space) for vector in vectors], 0)
    direction = mean / max(float(np.linalg.norm(mean)), 1e-300)
    p = max(_p(own.scores, random.scores), _p(own.means, random.means))
    along = float((space.centred @ direction).std())
    return Sensitivity(own.scores, float(random.scores.mean()), accuracy, p, direction, along)


def _p(own: Floats, random: Floats) -> float:
    """Welch's t-test, two-sided; 1 where nothing varies, 0 where both sides are constants that differ."""
    from scipy.stats import ttest_ind

    whole = np.concatenate([own, random])
    least = 1e-12 * float(np.abs(whole).max())
    if np.ptp(whole) <= least:
        return 1.0
    if np.ptp(own) <= least and np.ptp(random) <= least:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side may be constant
        return float(ttest_ind(own, random, equal_var=False).pvalue)
