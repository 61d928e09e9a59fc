"""A weighted linear model with its accuracy on perturbations that it has not seen.

fitted = fit_linear(features, values, weights)
fitted.slopes, fitted.r2                 # float64 [D], share of variance explained on a held-out quarter
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HELD_OUT = 0.25


@dataclass(frozen=True)
class LinearFit:
    """``value ≈ intercept + slopes · features``, fitted on all rows; ``r2`` is that of a fit without the last quarter, on it."""

    slopes: Tensor
    intercept: float
    r2: float


def fit_linear(features: Tensor, values: Tensor, weights: Tensor, *, ridge: float = 1e-3) -> LinearFit:
    """Weighted ridge regression.

    Args:
        features: float [N, D]; rows are independent draws.
        values: float [N].
        weights: float [N], ≥ 0.
        ridge: penalty as a fraction of the mean weighted variance of the features.

    References:
        Ribeiro, Singh & Guestrin 2016, "Why Should I Trust You?", eq. 2 and algorithm 1 (ridge instead of K-Lasso).
    """
    x, y, w = features.double(), values.double(), weights.double()
    cut = len(x) - max(1, round(HELD_OUT * len(x)))
    slopes, intercept = _solve(x[:cut], y[:cut], w[:cut], ridge)
    r2 = _explained(y[cut:], x[cut:] @ slopes + intercept, w[cut:])
    slopes, intercept = _solve(x, y, w, ridge)
    return LinearFit(slopes, float(intercept), r2)


def _solve(x: Tensor, y: Tensor, w: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    share = w / w.sum().clamp(min=1e-300)
    centre, level = share @ x, share @ y
    root = share.sqrt()[:, None]
    scaled = (x - centre) * root
    gram = scaled.T @ scaled
    penalty = ridge * gram.diagonal().mean().clamp(min=1e-12)
    right = scaled.T @ ((y - level)[:, None] * root)
    slopes = torch.linalg.solve(gram + penalty * torch.eye(x.shape[1], dtype=x.dtype), right)[:, 0]
    return slopes, level - centre @ slopes


def _explained(truth: Tensor, guess: Tensor, w: Tensor) -> float:
    share = w / w.sum().clamp(min=1e-300)
    spread = (share * (truth - share @ truth).square()).sum()
    return float(1 - (share * (truth - guess).square()).sum() / spread) if spread > 1e-18 else 0.0
