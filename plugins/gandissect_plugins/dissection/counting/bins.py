"""How much of every concept lies under every level of every unit, counted in one pass on the layer's own grid.

bins = session[Want((Activations("layer4"), CellAreas(32, 32)), BinsSpec(groups=(0, 0, 1), bits=6, keep=500), n)]
bins.level(unit=3, edge=100), bins.above[3, 100]    # an activation; concept areas, cells, cells by category above it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from scipy.sparse import csc_array
from torch import Tensor

from gandissect.reducers import Keep, Reducer, State
from gandissect.tap import as_map

OCTAVES = 8
"""Levels below 1/256 of a unit's largest activation are not told apart."""
_WAITING = 2**22  # activations counted at a time
_GRAIN = 2.0**16  # areas are counted in this part of a cell, so that sums are exact and their order does not matter


@dataclass(frozen=True)
class BinsResult:
    """What lies above each of E levels of a unit; level 0 is the lowest.

    Attributes:
        above: float64 [U, E, K + 1 + G]: concept areas in cells, active cells, and active cells in samples that hold any concept
            of each category.
        first: int64 [U], number of the lowest level; see :func:`level_of`.
        bits: 2^bits levels for every doubling of the activation.
        area: float64 [K], concept areas in cells.
        cells: how many were seen per unit.
        codes: int16 [m, U, cells], which level of all numbers each activation of the first samples is in.
    """

    above: Tensor
    first: Tensor
    bits: int
    area: Tensor
    cells: int
    codes: Tensor

    def levels(self) -> Tensor:
        """The activations that are exceeded above each level: float32 [U, E]."""
        return level_of(self.first[:, None] + torch.arange(self.above.shape[1]), self.bits)


def level_of(code: Tensor, bits: int) -> Tensor:
    """The largest float32 that is below level ``code`` (int64, at least 1) where a doubling has 2^bits levels.

    The bits of a positive IEEE 754 number grow with it: its leading ones are a logarithmic scale that needs no look at the data.
    """
    return ((code << (23 - bits)) - 1).int().view(torch.float32)


@dataclass(frozen=True)
class BinsSpec:
    """Counts above 2^``bits`` levels per doubling; ``groups`` is the category of each concept, ``keep`` the samples whose
    codes are kept."""

    groups: tuple[int, ...]
    bits: int
    keep: int

    def __call__(self) -> Bins:
        return Bins(self)


class Bins(Reducer):
    """A histogram of each unit's positive activations with the concept areas under them; integers in float64, so exact.

    The levels kept are the ``OCTAVES`` doublings below the largest activation so far. They move up when it does, and what
    falls out at the bottom is only ever counted as lower: the result does not depend on the order of the samples.
    """

    exact: ClassVar[bool] = True

    def __init__(self, spec: BinsSpec) -> None:
        self._spec = spec
        self._width = OCTAVES << spec.bits
        self._first = torch.zeros(0, dtype=torch.int64)
        self._counts = torch.zeros(0, 0, 0, dtype=torch.float64)  # [U, 1 + width, K + 1 + G], the first is "below"
        self._facts = torch.zeros(1, dtype=torch.int64)  # cells seen
        self._area = torch.zeros(len(spec.groups), dtype=torch.float64)
        self._codes = Keep(torch.int16)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        maps, areas = (as_map(stream.detach()).float().flatten(2) for stream in streams)
        codes = self._coded(maps)
        kept = [place for place, index in enumerate(indices) if index < self._spec.keep]
        if kept:
            some = codes if len(kept) == len(indices) else codes[kept]
            self._codes.add([indices[place] for place in kept], some)
        self._waiting.append((codes, areas))
        if sum(part.numel() for part, _ in self._waiting) >= _WAITING:
            self._count()

    def _coded(self, maps: Tensor) -> Tensor:
        bits = np.maximum(maps.contiguous().numpy().view(np.int32), 0)
        return torch.from_numpy(np.right_shift(bits, 23 - self._spec.bits, out=bits))

    def _count(self) -> None:
        if not self._waiting:
            return
        codes, areas = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        columns = self._columns(areas)
        self._facts += codes.shape[0] * codes.shape[2]
        self._area += columns[:, : areas.shape[1]].sum(0)
        self._reach(codes.amax((0, 2)).long(), columns.shape[1])
        self._scatter(codes.numpy(), columns.numpy())

    def _columns(self, areas: Tensor) -> Tensor:
        """Concept areas in grains, one cell, and one cell where the sample holds the category: float64 [N * cells, K + 1 + G]."""
        samples, _, cells = areas.shape
        grains = (areas.transpose(1, 2).double() * _GRAIN).round()
        held = areas.amax(2) > 0
        groups = torch.tensor(self._spec.groups, dtype=torch.int64)
        number = max(self._spec.groups, default=-1) + 1
        any_of = torch.stack([held[:, groups == group].any(1) for group in range(number)], 1).double()
        ones = torch.ones(samples, cells, 1, dtype=torch.float64)
        return torch.cat([grains, ones, any_of[:, None].expand(-1, cells, -1)], 2).flatten(0, 1)

    def _reach(self, top: Tensor, columns: int) -> None:
        """Move the levels of each unit up so that code ``top`` [U] is among them."""
        octave = 1 << self._spec.bits
        first = ((top // octave + 1) * octave - self._width).clamp(min=octave)
        if not len(self._first):
            self._first = first
            self._counts = torch.zeros(len(top), 1 + self._width, columns, dtype=torch.float64)
        for unit in (first > self._first).nonzero()[:, 0].tolist():
            counts, shift = self._counts[unit], min(int(first[unit] - self._first[unit]), self._width)
            moved = torch.zeros_like(counts)
            moved[0] = counts[: shift + 1].sum(0)
            moved[1 : 1 + self._width - shift] = counts[1 + shift :]
            self._counts[unit] = moved
        self._first = torch.maximum(self._first, first)

    def _scatter(self, codes: np.ndarray, columns: np.ndarray) -> None:
        """Add the rows of ``columns`` to the bins that ``codes`` int32 [N, U, cells] say."""
        rows, counts = len(columns), self._counts.numpy()
        # A matrix with a single one in each column, at the bin of that cell: its product with the columns is the histogram.
        where = csc_array(
            (np.ones(rows), np.zeros(rows, np.int32), np.arange(rows + 1, dtype=np.int32)),
            shape=(1 + self._width, rows),
        )
        for unit, first in enumerate(self._first.tolist()):
            place = codes[:, unit] - np.int32(first - 1)
            where.indices = np.clip(place, 0, self._width, out=place).ravel()
            counts[unit] += where @ columns

    def merge(self, other: Self) -> None:
        other._count()
        self._count()
        self._codes.merge(other._codes)
        if not len(other._first):
            return
        octave = 1 << self._spec.bits
        for bins in (other, self):
            bins._reach(torch.maximum(other._top(), self._top()) // octave * octave, other._counts.shape[2])
        self._counts = self._counts + other._counts
        self._facts, self._area = self._facts + other._facts, self._area + other._area

    def _top(self) -> Tensor:
        """The largest code among the levels of each unit: int64 [U]; 0 where nothing was seen."""
        return self._first + self._width - 1 if len(self._first) else torch.zeros(1, dtype=torch.int64)

    def state(self) -> State:
        self._count()
        codes = {f"kept {name}": value for name, value in self._codes.state().items()}
        return {"first": self._first, "counts": self._counts, "facts": self._facts, "area": self._area, **codes}

    def load(self, state: State) -> None:
        self._first, self._counts = state["first"].clone(), state["counts"].clone()
        self._facts, self._area = state["facts"].clone(), state["area"].clone()
        self._waiting = []
        kept = {name.removeprefix("kept "): value for name, value in state.items() if name.startswith("kept ")}
        self._codes.load(kept)

    def result(self) -> BinsResult:
        self._count()
        above = self._counts[:, 1:].flip(1).cumsum(1).flip(1)
        concepts = len(self._spec.groups)
        above[..., :concepts] /= _GRAIN
        return BinsResult(
            above, self._first, self._spec.bits, self._area / _GRAIN, int(self._facts), self._codes.result()
        )
