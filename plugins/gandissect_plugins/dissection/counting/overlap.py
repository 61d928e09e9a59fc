"""How well units and concepts overlap: one layer's table, from its running tails and the packed concept masks.

cells = above_threshold(tail, quantile=0.01, samples=1000, cells=1024)
areas = cell_areas(masks, 32, 32)                   # float32 [n, 1024, K]
iou(overlaps(cells, areas), cells.count(), areas.sum((0, 1)))
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gandissect.reducers import BitsResult, TailResult
from gandissect.streams import pooled

from .active import ActiveCells

_CONCEPT_BYTES = 128 * 2**20  # of cell areas held at once
_KNOWN_BYTES = 48 * 2**20  # of cell areas kept for the next question
_CHUNK = 8  # samples unpacked at a time: small enough to stay in the cache


def above_threshold(tail: TailResult, quantile: float, *, samples: int, cells: int) -> tuple[Tensor, ActiveCells]:
    """Each unit's threshold float64 [U] and the cells that are strictly above it.

    Bau et al. 2019 (GAN Dissection), eq. 1: the threshold is exceeded by the fraction ``quantile`` of a unit's cells.
    """
    level = tail.level(quantile)
    return level, above(tail, level, samples=samples, cells=cells)


def above(tail: TailResult, level: Tensor, *, samples: int, cells: int) -> ActiveCells:
    """The kept cells that are strictly above each unit's level, float64 [U]."""
    least = zip(tail.values, level.tolist(), strict=True)
    rank = torch.tensor([int((values.double() > below).sum()) for values, below in least])  # values are sorted
    unit = torch.arange(len(level), dtype=torch.int32).repeat_interleave(rank)
    sample, cell = (
        torch.cat([row[:length] for row, length in zip(places, rank.tolist(), strict=True)])
        for places in (tail.samples, tail.cells)
    )
    return ActiveCells(len(level), samples, cells, unit, sample, cell)


def cell_areas(masks: BitsResult, height: int, width: int, concepts: slice = slice(None)) -> Tensor:
    """The part of each cell of a grid that each concept covers: float32 [n, height * width, K]."""
    count = len(range(*concepts.indices(masks.shape[0])))
    areas = torch.empty(len(masks), height * width, count)
    for start in range(0, len(masks), _CHUNK):
        chosen = masks.unpack(start, start + _CHUNK)[:, concepts]
        areas[start : start + _CHUNK] = pooled(chosen, height, width).flatten(2).transpose(1, 2)
    return areas


def area_columns(masks: BitsResult, height: int, width: int, samples: int) -> Iterator[tuple[slice, Tensor]]:
    """The areas of the first ``samples`` on a grid, as many concepts at a time as memory allows: (columns, as above)."""
    first = BitsResult(masks.rows[:samples], masks.shape)
    concepts = masks.shape[0]
    step = max(1, _CONCEPT_BYTES // (4 * samples * height * width))
    for start in range(0, concepts, step):
        columns = slice(start, min(start + step, concepts))
        yield columns, cell_areas(first, height, width, columns)


class GridAreas:
    """Concept areas on the grids of layers, made once where memory allows."""

    def __init__(self, masks: BitsResult) -> None:
        self.masks = masks
        self._known: dict[tuple[int, int, int], list[tuple[slice, Tensor]]] = {}
        self._left = _KNOWN_BYTES

    def columns(self, height: int, width: int, samples: int) -> Iterator[tuple[slice, Tensor]]:
        """See :func:`area_columns`."""
        grid, size = (height, width, samples), 4 * samples * height * width * self.masks.shape[0]
        if grid not in self._known and size <= self._left:
            self._left -= size
            self._known[grid] = list(area_columns(self.masks, height, width, samples))
        return iter(self._known[grid]) if grid in self._known else area_columns(self.masks, height, width, samples)


def presence(masks: BitsResult) -> Tensor:
    """The part of each image that each concept covers: float32 [n, K]."""
    concepts, height, width = masks.shape
    if height * width % 8:
        return cell_areas(masks, 1, 1)[:, 0]
    ones = np.bitwise_count(masks.rows.numpy().reshape(len(masks), concepts, -1)).sum(2, dtype=np.int64)
    return torch.from_numpy(ones).float() / (height * width)


def iou(overlap: Tensor, active: Tensor, area: Tensor) -> Tensor:
    """Intersection over union: float64 of ``overlap``'s shape [..., U, K]; 0 where neither is ever present.

    Bau et al. 2019 (GAN Dissection), eq. 2, over the whole sample set.

    Args:
        overlap: |A∩S| [..., U, K].
        active: |A| [U] or, restricted to a category, [U, K].
        area: |S| [K].
    """
    both = active.double().reshape(*active.shape, *(1,) * (2 - active.dim())) + area.double()
    return overlap.double() / (both - overlap).clamp(min=1e-20)


def active_with_category(active: ActiveCells, present: Tensor) -> Tensor:
    """|A| within the samples that hold any concept of the same category: int64 [U, K] from bool ``present`` [n, K]."""
    return (active.count_per_sample().double().T @ present.double()).long()
