"""How far a label's IoU would move with other samples: 95 % intervals by the bootstrap.

result = with_intervals(result, {"layer4": active}, GridAreas(masks), poisson_weights(1000, rng))
result.table("layer4").low, result.table("layer4").high     # float64 [U]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..counting.active import Active
from ..counting.overlap import GridAreas
from ..tables import Dissection, LayerTable

RESAMPLES = 1000


def poisson_weights(samples: int, rng: np.random.Generator) -> Tensor:
    """How often each sample is drawn in each resample: float32 [``RESAMPLES``, samples].

    Poisson of mean 1 (the Poisson bootstrap, which needs no number of samples in advance).
    """
    weights = np.empty((samples, RESAMPLES), np.float32)
    for start in range(0, samples, 1000):
        part = weights[start : start + 1000]
        part[:] = rng.poisson(1.0, part.shape)
    return torch.from_numpy(weights).T


def with_intervals(result: Dissection, actives: Mapping[str, Active], areas: GridAreas, weights: Tensor) -> Dissection:
    """The same dissection with intervals of every label's IoU.

    ``weights`` are the same for all units; counts are those of the layer's grid, and the interval is scaled to the IoU that is
    reported.
    """
    tables = [_intervals(table, actives[table.layer.name], areas, weights) for table in result.layers]
    return replace(result, layers=tuple(tables))


def _intervals(table: LayerTable, active: Active, grids: GridAreas, weights: Tensor) -> LayerTable:
    low, high = torch.full((2, active.units), torch.nan, dtype=torch.float64)
    for columns, areas in grids.columns(table.layer.height, table.layer.width, active.samples):
        inside = (table.label >= columns.start) & (table.label < columns.stop)
        concept = (table.label - columns.start).clamp(0, columns.stop - columns.start - 1)
        count, overlap = active.per_sample(areas, concept)
        covered = areas.sum(1)  # [n, K]
        measured = _iou(overlap.double().sum(0), count.double().sum(0), covered.double().sum(0)[concept])
        drawn = _iou(weights @ overlap, weights @ count, (weights @ covered)[:, concept])
        edges = drawn.double().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        reported = table.iou.gather(1, table.label.clamp(min=0)[:, None])[:, 0]
        scale = torch.where(measured > 0, reported / measured.clamp(min=1e-20), 1.0)
        low = torch.where(inside, edges[0] * scale, low)
        high = torch.where(inside, edges[1] * scale, high)
        del areas  # before the next ones are made
    return replace(table, low=low, high=high)


def _iou(overlap: Tensor, active: Tensor, area: Tensor) -> Tensor:
    """Intersection over union of tensors of one shape."""
    return overlap / (active + area - overlap).clamp(min=1e-20)
