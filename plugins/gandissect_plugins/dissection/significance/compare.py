"""One layer's overlaps beside their null distribution, gathered some concepts at a time.

comparison = Comparison(units=144, floors=iou_floors(144, concepts))
comparison.add(active, areas, slice(0, 47), tested, rng=rng, draws=999)
comparison.iou, comparison.null_iou, comparison.p   # float64 [U, K]
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..counting.active import Active, ActiveCells
from ..counting.overlap import iou
from .chance import cohort_size, p_values, shuffled_overlaps

_NULL_BYTES = 48 * 2**20  # of shuffled overlaps held at once
_LISTED = 2**21  # active cells looked at at once


class Comparison:
    """Tables float64 [U, K] of a layer, filled column by column."""

    def __init__(self, units: int, floors: Tensor) -> None:
        """An empty table; ``floors`` float64 [K], the least excess of a finding for each concept."""
        concepts = len(floors)
        self._floors = floors.float()
        self.overlap, self.iou, self.null_iou, self.null_95, self.null_sd = (
            torch.zeros(units, concepts, dtype=torch.float64) for _ in range(5)
        )
        self.p = torch.ones(units, concepts, dtype=torch.float64)
        self.area = torch.zeros(concepts, dtype=torch.float64)
        self._best: list[tuple[Tensor, Tensor]] = []  # per block of units: strength and concept, [P, U] each

    def add(
        self,
        active: Active,
        areas: Tensor,
        columns: slice,
        tested: Tensor,
        *,
        rng: Callable[[], np.random.Generator],
        draws: int,
        overlap: Tensor | None = None,
    ) -> None:
        """Take in the concepts ``columns``, areas float32 [n, cells, K'], of which ``tested`` bool [K] may be labels.

        ``overlap`` float64 [U, K'] is that of the unshuffled samples, where it was counted before.
        """
        self.area[columns] = torch.from_numpy(areas.numpy().sum((0, 1), dtype=np.float64))
        step = self._units_at_once(active, draws, areas.shape[2])
        first = not self._best
        for place, start in enumerate(range(0, active.units, step)):
            stop = min(start + step, active.units)
            chosen = active.select(start, stop)
            null = shuffled_overlaps(chosen, areas, rng=rng(), draws=draws)
            observed = chosen.overlaps(areas) if overlap is None else overlap[start:stop]
            best = self._take(chosen.count(), observed, null, slice(start, stop), columns, tested)
            if first:
                self._best.append(best)
            else:
                better = best[0] > self._best[place][0]
                self._best[place] = (
                    torch.where(better, best[0], self._best[place][0]),
                    torch.where(better, best[1], self._best[place][1]),
                )

    def _units_at_once(self, active: Active, draws: int, concepts: int) -> int:
        """As many as keep shuffled overlaps, and lists of active cells, within their memory."""
        rows = max(cohort_size(active.samples, draws), draws)
        listed = int(active.count().sum()) // max(1, active.units) if isinstance(active, ActiveCells) else 0
        return max(1, min(_NULL_BYTES // (4 * rows * concepts), _LISTED // max(1, listed)))

    def _take(
        self, count: Tensor, observed: Tensor, null: Tensor, rows: slice, columns: slice, tested: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fill one block of the tables; the greatest excess of every shuffle in floors, and its concept, [P, U] each."""
        area = self.area[columns]
        self.overlap[rows, columns] = observed
        self.iou[rows, columns] = iou(observed, count, area)
        self.p[rows, columns] = p_values(observed, null)
        if not len(null):
            return torch.zeros(0, len(count)), torch.zeros(0, len(count), dtype=torch.int64)
        null = null / (count[:, None] + area.float() - null).clamp(min=1e-20)
        mean = null.mean(0)
        self.null_iou[rows, columns] = mean.double()
        self.null_sd[rows, columns] = null.std(0, correction=0).double()
        self.null_95[rows, columns] = null.kthvalue(max(1, -(-len(null) * 19 // 20)), dim=0).values.double()
        strength = torch.where(tested[columns], (null - mean) / self._floors[columns], -1.0)
        best = strength.max(2)
        return best.values, best.indices + columns.start

    def chance(self) -> tuple[Tensor, Tensor]:
        """How many units the floors label with each concept when samples are shuffled: float64 [K] mean and 95 % point.

        A shuffle is the same for all units, so that their counts in one shuffle belong together.
        """
        draws = len(self._best[0][0]) if self._best else 0
        counts = torch.zeros(max(draws, 1), len(self.area), dtype=torch.float64)
        for strength, concept in self._best:
            passed = strength >= 1.0
            counts.index_put_((passed.nonzero()[:, 0], concept[passed]), counts.new_ones(()), accumulate=True)
        return counts.mean(0), counts.kthvalue(-(-len(counts) * 19 // 20), dim=0).values
