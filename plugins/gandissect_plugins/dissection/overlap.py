"""How well units and concepts overlap: one layer's table, from its running tails and the packed concept masks.

cells = above_threshold(tail, quantile=0.01, samples=1000, cells=1024)
areas = cell_areas(masks, 32, 32)                   # float32 [n, 1024, K]
iou(overlaps(cells, areas), cells.count(), areas.sum((0, 1)))
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.paired import BitsResult
from gandissect.reducers import TailResult

from .chance import ActiveCells

_CHUNK = 8  # samples unpacked at a time: small enough to stay in the cache


def above_threshold(tail: TailResult, quantile: float, *, samples: int, cells: int) -> tuple[Tensor, ActiveCells]:
    """Each unit's threshold float64 [U] and the cells that are strictly above it.

    Bau et al. 2019 (GAN Dissection), eq. 1: the threshold is exceeded by the fraction ``quantile`` of a unit's cells.
    """
    level = tail.level(quantile)
    unit, entry = (tail.values.double() > level[:, None]).nonzero(as_tuple=True)
    chosen = ActiveCells(unit, tail.samples[unit, entry], tail.cells[unit, entry], len(level), samples, cells)
    return level, chosen


def cell_areas(masks: BitsResult, height: int, width: int, concepts: slice = slice(None)) -> Tensor:
    """The part of each cell of a grid that each concept covers: float32 [n, height * width, K]."""
    count = len(range(*concepts.indices(masks.shape[0])))
    areas = torch.empty(len(masks), height * width, count)
    for start in range(0, len(masks), _CHUNK):
        chosen = masks.unpack(start, start + _CHUNK)[:, concepts].float()
        whole = chosen.shape[2:] == (height, width)
        pooled = chosen if whole else F.adaptive_avg_pool2d(chosen, (height, width))
        areas[start : start + _CHUNK] = pooled.flatten(2).transpose(1, 2)
    return areas


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
    per_sample = torch.zeros(active.units, active.samples, dtype=torch.float64)
    per_sample.index_put_((active.unit, active.sample), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    return (per_sample @ present.double()).long()
