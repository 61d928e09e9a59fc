"""Linear probes in latent space: the direction along which a measured quantity grows, tested on samples not seen.

found = probe(latents, brightness, rng=session.rng("brightness"))
found.direction, found.accuracy, found.p                 # float32 [D] of length 1, 0.91, 1e-30
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gandissect.errors import UsageError
from gandissect.trust import exact_p, interval
from gandissect_plugins.features.embedding import Floats
from gandissect_plugins.features.groups import halves
from gandissect_plugins.features.separability import split

from .basis import unit_rows

ProbeMethod = Literal["logistic", "svm"]
FEWEST = 24


@dataclass(frozen=True)
class Probe:
    """A direction and how well it sorts held-out samples.

    Attributes:
        name: what was probed.
        method: "logistic" or "svm".
        direction: float32 [D], the unit normal of the boundary, towards more of it.
        accuracy: 0..1 on held-out samples, mean of both groups' accuracies; 0.5 is chance.
        low, high: 95 % interval (Wilson).
        p: exact permutation p of the held-out labels.
        held_out: samples it was tested on.
        trained: samples it was fitted on, the extremes of the training samples.
    """

    name: str
    method: ProbeMethod
    direction: NDArray[np.float32]
    accuracy: float
    low: float
    high: float
    p: float
    held_out: int
    trained: int


def boundary(
    positive: Floats, negative: Floats, method: ProbeMethod = "svm"
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(unit normal [D], weights [D], offset) of the linear boundary between two sets of latents [N, D].

    "svm" is the linear support vector machine of InterFaceGAN (C = 1); "logistic" is L2-penalised logistic regression.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    rows = np.concatenate([positive, negative]).astype(np.float64)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore")  # separable groups need not converge
        if method == "svm":
            from sklearn.svm import SVC

            model = SVC(kernel="linear", C=1.0).fit(rows, labels)
        else:
            from sklearn.linear_model import LogisticRegression

            model = LogisticRegression(C=0.1, max_iter=500).fit(rows, labels)
    weights = np.asarray(model.coef_, np.float64)[0]
    return unit_rows(weights[None])[0], weights, float(model.intercept_[0])


def conditioned(direction: Floats, conditions: Floats) -> NDArray[np.float64]:
    """A unit direction [D] with what it shares with ``conditions`` [M, D] taken out of it.

    References:
        Shen, Gu, Tang, Zhou 2020, InterFaceGAN, sec. 3.2.
    """
    # n - Cᵀ (C Cᵀ)⁻¹ C n
    c = np.asarray(conditions, np.float64).reshape(-1, len(direction))
    projected = np.asarray(direction, np.float64) - c.T @ np.linalg.lstsq(c @ c.T, c @ direction, rcond=None)[0]
    return np.asarray(unit_rows(projected[None])[0], np.float64)


def probe(
    latents: Floats,
    values: Floats,
    *,
    rng: np.random.Generator,
    name: str = "",
    method: ProbeMethod = "logistic",
    extremes: float = 0.25,
    train: float = 0.7,
) -> Probe:
    """The direction that tells samples with much of something from those with little.

    The boundary is fitted on the training samples with the largest and the smallest values. It is tested on all other
    samples, which are split at the training median (at zero where half of the samples have none).

    Args:
        latents: float [N, D].
        values: float [N], or bool [N].
        rng: chooses the training samples; both sides keep their shares.
        name: what the values are.
        method: "logistic" or "svm".
        extremes: share of the training samples taken from each end.
        train: share of the samples that is fitted on.

    Raises:
        UsageError: fewer than 24 samples, or values that hardly vary.
    """
    numbers = np.asarray(values, np.float64)
    large = halves(numbers)
    if len(latents) < FEWEST or large is None:
        raise UsageError(f"cannot probe {name or 'values'}: {len(latents)} samples, or less than a tenth on one side")
    fitted = split(large, rng, train)
    positive, negative = _extremes(numbers, fitted, extremes)
    direction, weights, offset = boundary(latents[positive], latents[negative], method)
    middle = float(np.median(numbers[fitted]))
    guess, truth = latents[~fitted] @ weights + offset > 0, numbers[~fitted] > middle
    sides = [float((guess[truth == side] == side).mean()) for side in (True, False) if (truth == side).any()]
    accuracy, total = float(np.mean(sides)), len(truth)
    low, high = interval(round(accuracy * total), total)
    p, trained = exact_p(guess, truth), len(positive) + len(negative)
    return Probe(name, method, direction.astype(np.float32), accuracy, low, high, p, total, trained)


def _extremes(values: Floats, fitted: NDArray[np.bool_], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training samples with the largest and with the smallest values; ties at the median stay out of the upper end."""
    members = np.flatnonzero(fitted)
    order = members[np.argsort(values[members], kind="stable")]
    count = max(4, round(share * len(members)))
    middle = np.median(values[members])
    upper = order[-count:]
    return upper[values[upper] > middle], order[:count]
