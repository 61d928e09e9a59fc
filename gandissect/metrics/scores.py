"""The Inception Score.

inception_score(logits)                                  # InceptionScore(mean=3.47, deviation=0.16, splits=10)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from gandissect.errors import UsageError
from gandissect.metrics.arrays import rows

SPLITS = 10


@dataclass(frozen=True)
class InceptionScore:
    """1 (all alike, or undecided) up to the number of classes; mean and deviation over the splits."""

    mean: float
    deviation: float
    splits: int


def inception_score(logits: ArrayLike, splits: int = SPLITS) -> InceptionScore:
    """exp E[KL(p(y|x) ‖ p(y))] (Salimans et al. 2016, sec. 4), on consecutive splits of the samples.

    It looks at generated samples only: memorised ones and those of the wrong domain score as well as any (Barratt & Sharma
    2018). It bears its name only with the standard Inception network's logits.

    Args:
        logits: float [N, K] of a classifier, in random order.
        splits: groups that are scored each alone.

    Raises:
        UsageError: fewer samples than splits, or values that are not finite.
    """
    values = rows(logits, "logits", max(1, splits))
    if splits < 1:
        raise UsageError(f"the number of splits must be at least 1, got {splits}")
    from scipy.special import log_softmax

    scores = []
    edges = [len(values) * split // splits for split in range(splits + 1)]
    for start, stop in pairwise(edges):
        told = log_softmax(values[start:stop], axis=1)
        share = np.exp(told)
        marginal = share.mean(0, keepdims=True)
        scores.append(np.exp((share * (told - np.log(np.maximum(marginal, 1e-300)))).sum(1).mean()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), splits)
