"""HiGAN's rescoring: how much of something a step along a boundary adds, in all layers at once and in each alone.

found = rescore(score, ws, boundary)     # score: [N, L, D] -> [N]
found.overall, found.layers              # the step in all layers, and in one at a time
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .effects import Matrix, gain


@dataclass(frozen=True)
class Rescored:
    """What a step does to a score.

    A change that is the same for all samples has ``overall`` and ``signed_overall`` alike; a boundary without meaning has a
    positive ``overall`` too, since negative changes count as 0: compare it with random boundaries.

    Attributes:
        overall: mean of max(0, change), the step in all layers.
        layers: float64 [L], the same for the step in one layer at a time.
        signed_overall, signed_layers: mean change.
    """

    overall: float
    layers: Matrix
    signed_overall: float
    signed_layers: Matrix


def rescore(
    score: Callable[[Tensor], Matrix],
    points: Tensor,
    boundary: Tensor,
    *,
    step: float = 2.0,
    strengths: Sequence[float] = (),
) -> Rescored:
    """The change of a score after a step along a boundary.

    Args:
        score: codes [N, L, D] to float64 [N].
        points: float [N, L, D], one code for each layer.
        boundary: float [D], added to every layer's code alike, or [L, D].
        step: how often it is added.
        strengths: L factors of the step; 1 where left out.

    References:
        Yang, Shen, Zhou 2021, Semantic hierarchy emerges in deep generative representations, sec. 3.2.
    """
    layers = points.shape[1]
    factors = torch.tensor(list(strengths) or [1.0] * layers, dtype=points.dtype)
    moves = step * factors[:, None] * boundary.to(points.dtype)
    base = score(points)
    masks = [torch.ones(layers, 1, dtype=points.dtype), *torch.eye(layers, dtype=points.dtype)[:, :, None]]
    after = [score(points + moves * mask) for mask in masks]
    added = np.array([gain(base, values) for values in after])
    signed = np.array([float((values - base).mean()) for values in after])
    return Rescored(float(added[0]), added[1:], float(signed[0]), signed[1:])
