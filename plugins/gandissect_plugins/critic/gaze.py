"""Where the discriminator looks: how much its score changes when a place is covered.

found = gaze(session, images)
found.share                              # 1.0 where four of 64 places decide everything
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.session import Session

GRID = 8
TOP = 8
"""The share of so many places in the whole effect is the measure of concentration: an eighth of an 8×8 grid."""
NARROW = 0.9
PERMUTATIONS = 199


@dataclass(frozen=True)
class Gaze:
    """Mean absolute change of the score when a place is covered by the image's mean colour.

    Attributes:
        effect: float64 [rows, columns], in logits.
        share: part of the whole effect that lies in the ``top`` strongest places, 0..1.
        expected: the same when each image's places are permuted: the effect has no place of its own.
        p: one-sided, that permuted places are as concentrated.
        top: number of places, an eighth of all.
        images: how many were covered.
    """

    effect: NDArray[np.float64]
    share: float
    expected: float
    p: float
    top: int
    images: int

    @property
    def narrow(self) -> bool:
        """An eighth of the image decides ``NARROW`` of the score's changes, beyond chance."""
        return self.share >= NARROW and self.p <= 0.01

    @property
    def place(self) -> str:
        """Where the centre of the effect is, in words: "upper left"."""
        rows, columns = self.effect.shape
        total = max(float(self.effect.sum()), 1e-300)
        y = float((self.effect.sum(1) * (np.arange(rows) + 0.5)).sum()) / total / rows
        x = float((self.effect.sum(0) * (np.arange(columns) + 0.5)).sum()) / total / columns
        upright = "upper" if y < 0.4 else "lower" if y > 0.6 else ""
        across = "left" if x < 0.4 else "right" if x > 0.6 else ""
        return f"{upright} {across}".strip() or "the middle"


def gaze(session: Session, images: Tensor, rng: np.random.Generator) -> Gaze:
    """Cover one place of a grid after another (Zeiler & Fergus 2014) and see what becomes of the score.

    Args:
        session: its discriminator is asked.
        images: float32 [N, C, H, W] in [-1, 1], the first N samples.
        rng: permutes places.
    """
    height, width = images.shape[2:]
    rows, columns = min(GRID, height), min(GRID, width)
    labels = session.labels(range(len(images)), "discriminator")
    before = session.score(images, labels).double()
    mean = images.mean((2, 3), keepdim=True)
    effect = torch.zeros(rows, columns, len(images), dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            covered = images.clone()
            down = slice(row * height // rows, (row + 1) * height // rows)
            across = slice(column * width // columns, (column + 1) * width // columns)
            covered[:, :, down, across] = mean
            effect[row, column] = (session.score(covered, labels).double() - before).abs()
    flat = torch.nan_to_num(effect).flatten(0, 1).numpy()
    top = max(1, rows * columns // TOP)
    share = _concentration(flat, top)
    null = [_concentration(rng.permuted(flat, axis=0), top) for _ in range(PERMUTATIONS)]
    p = (1 + sum(value >= share for value in null)) / (1 + PERMUTATIONS)
    return Gaze(flat.mean(1).reshape(rows, columns), share, float(np.mean(null)), p, top, len(images))


def _concentration(effect: NDArray[np.float64], top: int) -> float:
    """Part of the mean effect, float64 [places, N], in the ``top`` strongest places; 0 where there is none."""
    mean = np.sort(effect.mean(1))[::-1]
    return float(mean[:top].sum() / mean.sum()) if mean.sum() > 0 else 0.0
