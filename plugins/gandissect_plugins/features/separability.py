"""Can a straight cut tell two groups of samples apart, tested on samples it has not seen?

found = separability(features, is_real, rng)
found.accuracy, found.low, found.high, found.p           # 0.93, 0.90, 0.96, 1e-40
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandissect.errors import UsageError
from gandissect.trust import exact_p, interval

from .embedding import REDUCED, Components, Floats, principal_components

SMALLEST_GROUP = 8


@dataclass(frozen=True)
class Separability:
    """How well a linear classifier tells two groups apart on held-out samples.

    Attributes:
        accuracy: 0..1, mean of both groups' accuracies.
        low, high: 95 % interval (Wilson, on as many held-out samples as there are).
        chance: 0.5; both groups count the same.
        p: exact permutation p of the held-out labels.
        held_out: number of samples it was tested on.
        trained: number of samples it was fitted on.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    p: float
    held_out: int
    trained: int


def separability(
    features: Floats, labels: NDArray[np.bool_], rng: np.random.Generator, *, train: float = 0.5, strength: float = 1.0
) -> Separability:
    """Held-out accuracy of a logistic regression on the first principal components of standardised features.

    Both the standardisation and the components come from the training half alone. With real and generated samples as
    labels this is the classifier two-sample test (Lopez-Paz & Oquab 2017, sec. 3).

    Args:
        features: float [N, D].
        labels: bool [N].
        rng: chooses which samples are held out; groups keep their shares.
        train: share of the samples that is fitted on.
        strength: inverse of the L2 penalty.

    Raises:
        UsageError: a group of fewer than eight samples.
    """
    if min(labels.sum(), (~labels).sum()) < SMALLEST_GROUP:
        raise UsageError(
            f"each group needs at least {SMALLEST_GROUP} samples, got {labels.sum()} and {(~labels).sum()}"
        )
    fitted = split(labels, rng, train)
    return separabilities({"": features}, labels, fitted, strength=strength)[""]


def split(labels: NDArray[np.bool_], rng: np.random.Generator, train: float = 0.5) -> NDArray[np.bool_]:
    """Which samples are fitted on: bool [N], the share ``train`` of each group."""
    chosen = np.zeros(len(labels), bool)
    for group in (labels, ~labels):
        members = np.flatnonzero(group)
        chosen[rng.permutation(members)[: round(train * len(members))]] = True
    return chosen


@dataclass(frozen=True)
class Prepared:
    """Features made ready for a classifier by the training samples alone: float64 [N, K]."""

    values: NDArray[np.float64]
    fitted: NDArray[np.bool_]


def prepare(features: Floats, fitted: NDArray[np.bool_], count: int = REDUCED) -> Prepared:
    """Standardised features along the first principal components of the training samples."""
    mean, deviation = features[fitted].mean(0), features[fitted].std(0)
    standard = np.clip((features - mean) / np.where(deviation > 1e-8, deviation, np.inf), -10, 10)
    components: Components = principal_components(standard[fitted], count)
    return Prepared(components.project(standard), fitted)


def fit_and_test(prepared: Prepared, labels: NDArray[np.bool_], *, strength: float = 1.0) -> Separability:
    """A logistic regression fitted on the training samples, and its accuracy on the others."""
    from sklearn.linear_model import LogisticRegression

    fitted = prepared.fitted
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separable groups need not converge
        model.fit(prepared.values[fitted], labels[fitted])
    guess, truth = model.predict(prepared.values[~fitted]).astype(bool), labels[~fitted]
    accuracy = float((guess[truth].mean() + (~guess[~truth]).mean()) / 2)
    total = len(truth)
    low, high = interval(round(accuracy * total), total)
    return Separability(accuracy, low, high, 0.5, exact_p(guess, truth), total, int(fitted.sum()))


def separabilities(
    features: Mapping[str, Floats], labels: NDArray[np.bool_], fitted: NDArray[np.bool_], *, strength: float = 1.0
) -> dict[str, Separability]:
    """:func:`separability` of the same groups, with the same samples held out, in several feature spaces."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    with threadpool_limits(limits=1):
        return {
            name: fit_and_test(prepare(values, fitted), labels, strength=strength) for name, values in features.items()
        }
