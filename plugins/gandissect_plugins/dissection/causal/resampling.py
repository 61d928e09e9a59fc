"""What paired differences over samples show: intervals by bootstrap, p by flipping signs.

chance = Resampling.of(len(indices), session.rng("ablation"))
chance.interval(gone, there)                        # (low, high) of sum(gone) / sum(there)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect.metrics.resampling import bootstrap_weights

BOOTSTRAP = 1000
FLIPS = 1999


@dataclass(frozen=True)
class Effect:
    """The part of a concept's area that is gone, negative where it grew, with the 95 % bootstrap interval over samples.

    ``area`` is the mean part of the images that the concept covers before. All are NaN where it is in none of the samples.
    """

    removed: float
    low: float
    high: float
    area: float


@dataclass(frozen=True)
class Gain:
    """What a concept covers, after an edit, of windows that held none of it; with the 95 % bootstrap interval over samples.

    1 is what the fullest window of a sample covers on average where the concept is by itself.

    ``samples`` is how many samples had such a place; the numbers are NaN below :data:`~.insertion.LEAST_PLACES` of them.
    """

    gained: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Resampling:
    """Bootstrap draws and sign flips that all measurements on the same samples share.

    Attributes:
        weights: float64 [B, n], how often each bootstrap draw takes each sample.
        signs: float64 [F, n] of −1 and 1.
    """

    weights: Tensor
    signs: Tensor

    @staticmethod
    def of(n: int, rng: np.random.Generator) -> Resampling:
        """Draws for ``n`` samples."""
        weights = bootstrap_weights(n, BOOTSTRAP, rng)
        signs = 2 * rng.integers(0, 2, (FLIPS, n)) - 1
        return Resampling(torch.from_numpy(weights), torch.from_numpy(signs).double())

    def rows(self, places: Tensor) -> Resampling:
        """The draws for some of the samples (int64)."""
        return Resampling(self.weights[:, places], self.signs[:, places])

    def interval(self, part: Tensor, whole: Tensor) -> tuple[float, float]:
        """The 95 % interval of Σ part / Σ whole over samples, both float64 [n]; draws without ``whole`` are left out."""
        below = self.weights @ whole
        there = below > 0
        draws = (self.weights @ part)[there] / below[there]
        if not len(draws):
            return float("nan"), float("nan")
        low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
        return float(low), float(high)

    def p_more(self, difference: Tensor) -> float:
        """How often the sum of paired differences, float64 [n], is as large when their signs are chance (Fisher 1935)."""
        slack = 1e-9 * float(difference.abs().sum())
        reached = int((self.signs @ difference >= float(difference.sum()) - slack).sum())
        return (1 + reached) / (1 + len(self.signs))
