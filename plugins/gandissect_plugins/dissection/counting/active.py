"""Where units are above their levels: as a list where that is rare, as codes of all activations where it is not.

active = ActiveCells(unit, sample, cell, units=144, samples=1000, cells=1024)
active.overlaps(areas)                              # float64 [U, K], areas float32 [n, 1024, K]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

BLOCK = 3 * 2**19
"""Bytes that are worked on at a time: fresh memory is dear, and so is what leaves the cache."""

_LISTED = 2**20  # entries of a list worked on at a time
_BAG = 128


@dataclass(frozen=True)
class Active(ABC):
    """The cells above each unit's level; ``units``, ``samples`` and ``cells`` of a map are how many there are."""

    units: int
    samples: int
    cells: int

    @abstractmethod
    def count(self) -> Tensor:
        """Active cells of each unit: int64 [U]."""

    @abstractmethod
    def select(self, start: int, stop: int) -> Active:
        """Those of the units start..stop-1, renumbered from 0."""

    @abstractmethod
    def overlaps(self, areas: Tensor) -> Tensor:
        """Concept area under the active cells of each unit: float64 [U, K], in cells.

        Args:
            areas: float32 [n, cells, K] in 0..1, the part of each cell that each concept covers.
        """

    @abstractmethod
    def per_sample(self, areas: Tensor, concept: Tensor) -> tuple[Tensor, Tensor]:
        """Active cells and, of one concept for each unit (int64 [U]), overlap in each sample: float32 [n, U] each."""

    @abstractmethod
    def blocks(self, order: Tensor, cells: int, units: int, cohorts: int) -> Iterator[Tensor]:
        """1 where active, else 0, in blocks of ``cells`` × ``units``, cells outermost: float32 [g, units' * cohorts * cells'], the
        samples in ``order`` cut into cohorts of g. A block is only good until the next one is asked for."""


@dataclass(frozen=True)
class ActiveCells(Active):
    """A list with one entry for each active cell: ``unit``, ``sample``, ``cell`` int32 or int64 [M]."""

    unit: Tensor
    sample: Tensor
    cell: Tensor

    def count(self) -> Tensor:
        return torch.bincount(self.unit, minlength=self.units)

    def select(self, start: int, stop: int) -> ActiveCells:
        if (start, stop) == (0, self.units):
            return self
        inside = (self.unit >= start) & (self.unit < stop)
        return ActiveCells(
            stop - start, self.samples, self.cells, self.unit[inside] - start, self.sample[inside], self.cell[inside]
        )

    def overlaps(self, areas: Tensor) -> Tensor:
        rows = areas.flatten(0, 1)
        total = torch.zeros(self.units, areas.shape[2], dtype=torch.float64)
        for start in range(0, len(self.unit), _LISTED):
            chosen = slice(start, start + _LISTED)
            unit = self.unit[chosen]
            places = self.sample[chosen].long() * self.cells + self.cell[chosen]
            first = torch.cat([torch.ones(1, dtype=torch.bool), unit[1:] != unit[:-1]])
            first[::_BAG] = True  # few enough in float32
            bags = first.nonzero()[:, 0]
            sums = torch.nn.functional.embedding_bag(places, rows, bags, mode="sum")
            total.index_add_(0, unit[bags], sums.double())
        return total

    def count_per_sample(self) -> Tensor:
        """Active cells of each unit in each sample: float32 [n, U]."""
        active = torch.zeros(self.samples * self.units)
        for start in range(0, len(self.unit), _LISTED):
            unit, sample = (part[start : start + _LISTED].long() for part in (self.unit, self.sample))
            active += torch.bincount(sample * self.units + unit, minlength=len(active))
        return active.reshape(self.samples, -1)

    def per_sample(self, areas: Tensor, concept: Tensor) -> tuple[Tensor, Tensor]:
        overlap = torch.zeros(self.samples * self.units)
        for start in range(0, len(self.unit), _LISTED):
            unit, sample, cell = (part[start : start + _LISTED].long() for part in (self.unit, self.sample, self.cell))
            covered = areas[sample, cell, concept[unit]]
            overlap += torch.bincount(sample * self.units + unit, weights=covered, minlength=len(overlap))
        return self.count_per_sample(), overlap.reshape(self.samples, -1)

    def blocks(self, order: Tensor, cells: int, units: int, cohorts: int) -> Iterator[Tensor]:
        size = len(order) // cohorts
        places = np.empty(len(order), np.int32)
        places[order.numpy()] = np.arange(len(order), dtype=np.int32)
        cohort, place = (torch.from_numpy(part.take(self.sample.numpy())) for part in np.divmod(places, np.int32(size)))
        lit = torch.zeros(size, units * cohorts * cells)
        parts = iter(self._parts(cells, units))
        for left in range(0, self.cells, cells):
            wide = min(cells, self.cells - left)
            for first in range(0, self.units, units):
                inside = next(parts)
                flat = lit[:, : min(units, self.units - first) * cohorts * wide]
                row = (self.unit[inside].long() - first) * cohorts + cohort[inside]
                where = (place[inside].long(), row * wide + self.cell[inside].long() - left)
                flat[where] = 1.0
                yield flat
                flat[where] = 0.0

    def _parts(self, cells: int, units: int) -> tuple[Tensor, ...]:
        """Which entries are in each block: int64 [*] each, cells outermost."""
        across = -(-self.units // units)
        column, row = (torch.from_numpy(part.numpy() // by) for part, by in ((self.cell, cells), (self.unit, units)))
        block = column * across + row
        number = -(-self.cells // cells) * across
        order = torch.from_numpy(np.argsort(block.numpy().astype(np.min_scalar_type(number)), kind="stable"))
        return torch.split(order, torch.bincount(block, minlength=number).tolist())


@dataclass(frozen=True)
class CodedCells(Active):
    """Active where ``codes`` int16 [n, U, cells] reach ``least`` int64 [U]; ``known`` is :meth:`count`, where that was counted before."""

    codes: Tensor
    least: Tensor
    known: Tensor | None = None

    def _lit(self, codes: Tensor) -> Tensor:
        return codes >= self.least.to(torch.int16)[:, None]

    def _chunks(self) -> Iterator[slice]:
        step = max(1, BLOCK // (4 * max(1, self.units * self.cells)))
        return (slice(start, min(start + step, self.samples)) for start in range(0, self.samples, step))

    def count(self) -> Tensor:
        return self._counted

    @cached_property
    def _counted(self) -> Tensor:
        if self.known is not None:
            return self.known
        return sum((self._lit(self.codes[part]).sum((0, 2)) for part in self._chunks()), torch.zeros(self.units).long())

    def select(self, start: int, stop: int) -> CodedCells:
        if (start, stop) == (0, self.units):
            return self
        known = None if self.known is None else self.known[start:stop]
        return CodedCells(
            stop - start, self.samples, self.cells, self.codes[:, start:stop], self.least[start:stop], known
        )

    def overlaps(self, areas: Tensor) -> Tensor:
        total = torch.zeros(self.units, areas.shape[2], dtype=torch.float64)
        for (
            part
        ) in self._chunks():  # a sample's sums are below 2^24 parts of a cell, exact where those are powers of two
            total += torch.bmm(self._lit(self.codes[part]).float(), areas[part]).double().sum(0)
        return total

    def per_sample(self, areas: Tensor, concept: Tensor) -> tuple[Tensor, Tensor]:
        active, overlap = torch.zeros(2, self.samples, self.units)
        counted = torch.cat([areas, areas.new_ones(1, 1, 1).expand(*areas.shape[:2], 1)], 2)
        for part in self._chunks():
            sums = torch.bmm(self._lit(self.codes[part]).float(), counted[part])
            active[part] = sums[..., -1]
            overlap[part] = sums.gather(2, concept.expand(len(sums), -1)[..., None])[..., 0]
        return active, overlap

    def blocks(self, order: Tensor, cells: int, units: int, cohorts: int) -> Iterator[Tensor]:
        for left in range(0, self.cells, cells):
            for first in range(0, self.units, units):
                block = self.codes[:, first : first + units, left : left + cells]
                lit = block >= self.least[first : first + units].to(torch.int16)[:, None]
                ordered = lit[order].reshape(cohorts, -1, *lit.shape[1:])
                yield ordered.permute(1, 2, 0, 3).flatten(1).float()
