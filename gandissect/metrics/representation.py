"""How similar two representations of the same samples are.

cka(rows, other_rows, kind="debiased")                   # 0..1, about 0 for unrelated ones
cka(feature_rows(maps, "mean"), feature_rows(others, "mean"))
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gandissect.errors import UsageError
from gandissect.metrics.arrays import Matrix, rows

Kind = Literal["linear", "debiased", "rbf"]
Convention = Literal["flatten", "cells", "mean"]


def feature_rows(maps: Tensor, convention: Convention) -> Matrix:
    """Feature maps [N, C, H, W] as rows, by a convention that belongs into the label of whatever is computed from them.

    Args:
        maps: float [N, C, H, W].
        convention: "flatten", one row of C·H·W per sample; "cells", every location a row of C; "mean", one row of C per sample.

    Raises:
        UsageError: another shape or convention.
    """
    if maps.dim() != 4:
        raise UsageError(f"expected feature maps [N, C, H, W], got {tuple(maps.shape)}")
    values = maps.detach().double()
    match convention:
        case "flatten":
            return values.flatten(1).numpy()
        case "cells":
            return values.permute(0, 2, 3, 1).flatten(0, 2).numpy()
        case "mean":
            return values.mean((2, 3)).numpy()
    raise UsageError(f"no convention {convention!r}; known: flatten, cells, mean")


def cka(first: ArrayLike, second: ArrayLike, kind: Kind = "linear") -> float:
    """Centred kernel alignment (Kornblith et al. 2019, eq. 4): 1 for a rotation or a change of scale.

    - "linear": ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) on centred columns, 0..1; too high for few samples of many features.
    - "debiased": the same with the unbiased HSIC of Song et al. 2012 (eq. 5), about 0 for unrelated ones, may be negative.
    - "rbf": Gaussian kernels whose bandwidth is each side's median squared distance (over all pairs,
      each point with itself among them), 0..1.

    Args:
        first: float [N, D].
        second: float [N, E], the same samples in the same order.
        kind: which of the three.

    Raises:
        UsageError: fewer than four rows, different samples, an unknown kind, or a side that is constant.
    """
    x, y = rows(first, "first representation", 4), rows(second, "second representation", 4)
    if len(x) != len(y):
        raise UsageError(f"the representations have {len(x)} and {len(y)} rows; give the same samples to both")
    if kind not in ("linear", "debiased", "rbf"):
        raise UsageError(f"no kind {kind!r} of CKA; known: linear, debiased, rbf")
    x, y = x - x.mean(0), y - y.mean(0)
    if not x.any() or not y.any():
        raise UsageError("a representation that is the same for all samples is similar to nothing")
    if kind == "linear":
        return float(np.square(y.T @ x).sum() / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))
    if kind == "debiased":
        k, m = x @ x.T, y @ y.T
        return float(_unbiased_hsic(k, m) / np.sqrt(_unbiased_hsic(k, k) * _unbiased_hsic(m, m)))
    k, m = _centred(_gaussian(x)), _centred(_gaussian(y))
    return float((k * m).sum() / (np.linalg.norm(k) * np.linalg.norm(m)))


def _gaussian(x: Matrix) -> Matrix:
    points = torch.from_numpy(x)
    squared = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
    return np.asarray(np.exp(-squared / (2 * np.median(squared))))


def _centred(kernel: Matrix) -> Matrix:
    return np.asarray(kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean())


def _unbiased_hsic(k: Matrix, m: Matrix) -> float:
    n = len(k)
    k, m = k * (1 - np.eye(n)), m * (1 - np.eye(n))
    # Song et al. 2012, eq. 5: tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) - 2/(n-2) 1'KL1, over n(n-3)
    crossed = k.sum(0) @ m.sum(0)
    return float(((k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * crossed) / (n * (n - 3)))
