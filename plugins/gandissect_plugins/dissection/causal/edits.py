"""Edits of a layer that may differ from sample to sample.

session.generate(latents, edit=Blend(alpha, level, where), layers=["layer4"])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Blend:
    """x(1 − a·m) + r·a·m: units with weight a get the level r where the map m is 1 (Bau et al. 2019, GAN Dissection, eq. 3).

    Whoever runs the network passes the samples in order; rows that only fill up the last block repeat the last sample.
    Differentiable in ``alpha`` and ``level``.

    Args:
        alpha: float32 [n, U], or [1, U] for all samples alike; 1 replaces, 0 leaves, a negative weight with level 0 boosts.
        level: float32 [U]; zero where left out.
        where: float32 [n, h, w] in 0..1; everywhere where left out.
    """

    def __init__(self, alpha: Tensor, level: Tensor | None = None, where: Tensor | None = None) -> None:
        self._alpha = alpha
        self._level = level
        self._where = where
        self._next = 0

    def begin(self, row: int) -> None:
        """Go on with sample ``row``; see :class:`gandissect.passes.running.InOrder`."""
        self._next = row

    def __call__(self, _layer: str, activation: Tensor) -> Tensor:
        rows = torch.arange(self._next, self._next + len(activation))
        self._next += len(activation)
        tail = (1,) * (activation.dim() - 2)
        weight = self._rows(self._alpha, rows).to(activation)
        weight = weight.reshape(*weight.shape, *tail)
        if self._where is not None:
            here = self._rows(self._where, rows).to(activation)
            weight = weight * (here[:, None] if tail else here.flatten(1)[:, :1])
        kept = activation * (1 - weight)
        if self._level is None:
            return kept
        return kept + self._level.to(activation).reshape(1, -1, *tail) * weight

    @staticmethod
    def _rows(values: Tensor, rows: Tensor) -> Tensor:
        return values[rows.clamp(max=len(values) - 1)]


def weights_of(units: Sequence[int], channels: int) -> Tensor:
    """The weight 1 at ``units``: float32 [1, U]."""
    alpha = torch.zeros(1, channels)
    alpha[:, list(units)] = 1.0
    return alpha


def random_weights(samples: int, channels: int, size: int, seed: Tensor) -> Tensor:
    """The weight 1 at ``size`` units drawn for each sample anew: float32 [n, U].

    Sets of different sizes made of one ``seed`` (float [n, U]) are nested.
    """
    alpha = torch.zeros(samples, channels)
    return alpha.scatter_(1, seed.argsort(1)[:, :size], 1.0)
