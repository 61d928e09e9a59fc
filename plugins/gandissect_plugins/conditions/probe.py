"""Can the value of a condition be told from the image, on samples the probe has not seen?

found = probe(images, properties, groups, rng)
found.accuracy, found.low, found.high, found.p           # 0.82, 0.79, 0.85, 0.0005
found.confusion                                          # float64 [K, K], rows sum to 1
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.trust import adjusted, exact_p, interval
from gandissect_plugins.features.separability import prepare

Rows = NDArray[np.float64]
GRID = 16
COMPONENTS = 50
SHUFFLES = 2000
EACH = 4
"""Samples of each value that either half needs."""


@dataclass(frozen=True)
class Pair:
    """Two values, how many of their held-out samples the probe sorts rightly between the two, and the adjusted p."""

    first: int
    second: int
    right: int
    total: int
    p: float

    @property
    def told(self) -> bool:
        """The probe tells them apart."""
        return self.p < 0.05


@dataclass(frozen=True)
class Probe:
    """How well the values of a condition are told apart on held-out images.

    Attributes:
        accuracy: 0..1 on ``held_out`` samples; ``low`` and ``high`` the ends of its 95 % interval (Wilson).
        chance: what always answering the most frequent value gives.
        p: how often permuted held-out values agree with the answers as well.
        confusion: float64 [K, K], rows are the values, columns the answers; each row sums to 1.
        pairs: every two values.
        answers: int64 [A], what it says of ``asked`` images that have no part in the fit.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    p: float
    held_out: int
    confusion: Rows
    pairs: tuple[Pair, ...]
    answers: NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """Whether z decides what the probe sees, whatever the condition says.

    Attributes:
        same: how often the probe gives one answer to two images of one z with different values.
        expected: the same with the z of each value's images permuted.
        high: what 95 % of permutations stay below.
        p: how often a permutation gives as much.
        right: how often the answer is the value that was set.
    """

    same: float
    expected: float
    high: float
    p: float
    right: float


def simple_features(images: Tensor, properties: Rows) -> Rows:
    """Pixels averaged on a grid of at most 16×16 and measured properties: float64 [N, D]."""
    side = (min(GRID, images.shape[2]), min(GRID, images.shape[3]))
    parts = [torch.nn.functional.adaptive_avg_pool2d(part, side).flatten(1) for part in torch.split(images, 64)]
    return np.concatenate([torch.nan_to_num(torch.cat(parts)).double().numpy(), properties], 1)


def halved(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which samples are fitted on: bool [N], half of each group."""
    fitted = np.zeros(len(groups), bool)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        fitted[members[: (len(members) + 1) // 2]] = True
    return fitted


def probe(features: Rows, groups: NDArray[np.int64], asked: Rows, rng: np.random.Generator) -> Probe | None:
    """A support vector machine (Gaussian kernel) on half of the samples, tested on the other half.

    Its features are standardised and reduced to 50 principal components by the fitted half alone. With the answers fixed,
    permuting the held-out values gives a p that is exact but for the number of draws.

    Args:
        features: float64 [N, D].
        groups: int64 [N], numbers from 0.
        asked: float64 [A, D], further images that it shall answer on.
        rng: draws the halves and the permutations.

    Returns:
        None where there are fewer than two values, or fewer than four samples of one in a half.
    """
    fitted = halved(groups, rng)
    count = int(groups.max()) + 1
    if count < 2 or min(np.bincount(groups[~fitted], minlength=count)) < EACH:
        return None
    margins, answers = _fitted(features, groups, asked, fitted)
    held, truth, guess = ~fitted, groups[~fitted], answers[: len(groups)][~fitted]
    right, total = int((guess == truth).sum()), len(truth)
    by_chance = np.array([(guess == rng.permutation(truth)).sum() for _ in range(SHUFFLES)])
    confusion = np.zeros((count, count))
    np.add.at(confusion, (truth, guess), 1.0)
    return Probe(
        right / total,
        *interval(right, total),
        float(np.bincount(truth).max() / total),
        float((1 + (by_chance >= right).sum()) / (SHUFFLES + 1)),
        total,
        confusion / confusion.sum(1, keepdims=True),
        _pairs(margins[: len(groups)][held].reshape(total, -1), truth, count),
        answers[len(groups) :],
    )


def _fitted(
    features: Rows, groups: NDArray[np.int64], asked: Rows, fitted: NDArray[np.bool_]
) -> tuple[Rows, NDArray[np.int64]]:
    """Margins of every two values, float64 [N + A, K(K-1)/2], and answers, int64 [N + A], for features and for what is asked."""
    from sklearn.svm import SVC
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    whole = np.concatenate([features, asked])
    with threadpool_limits(limits=1):
        ready = prepare(whole, np.concatenate([fitted, np.zeros(len(asked), bool)]), COMPONENTS).values
        model = SVC(C=10.0, gamma="scale", decision_function_shape="ovo")
        model.fit(ready[: len(groups)][fitted], groups[fitted])
        return np.asarray(model.decision_function(ready)), np.asarray(model.predict(ready), np.int64)


def _pairs(margins: Rows, truth: NDArray[np.int64], count: int) -> tuple[Pair, ...]:
    """Every two values, by the classifier that was fitted on those two alone: margins float64 [N, K(K-1)/2]."""
    found = []
    for column, (a, b) in enumerate(combinations(range(count), 2)):
        own = np.isin(truth, (a, b))
        first = margins[own, column] > 0 if count > 2 else margins[own, column] <= 0  # of two, above 0 means the second
        is_first = truth[own] == a
        found.append((a, b, int((first == is_first).sum()), int(own.sum()), exact_p(first, is_first)))
    corrected = adjusted([p for *_, p in found])
    return tuple(
        Pair(a, b, right, total, float(q)) for (a, b, right, total, _), q in zip(found, corrected, strict=True)
    )


def leak(answers: NDArray[np.int64], rng: np.random.Generator) -> Leak:
    """How much the answers int64 [M, K] on M latents with K values follow the latent.

    Under the null the z of each value's images are exchangeable, whatever the values do.
    """
    k = answers.shape[1]

    def agreement(table: NDArray[np.int64]) -> float:
        return float(np.mean([(table[:, a] == table[:, b]).mean() for a, b in combinations(range(k), 2)]))

    observed = agreement(answers)
    chance = np.array([agreement(rng.permuted(answers, axis=0)) for _ in range(SHUFFLES // 4)])
    p = float((1 + (chance >= observed - 1e-12).sum()) / (len(chance) + 1))
    right = float((answers == np.arange(k)).mean())
    return Leak(observed, float(chance.mean()), float(np.percentile(chance, 95)), p, right)
