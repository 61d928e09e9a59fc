"""Exact running tails: the largest activations of every unit, and where they occurred.

tail = session[Want((Activations("layer4"),), TailSpec(tail_length(n * 1024, 0.01)), n)]
tail.level(0.01)                                    # float64 [C], the exact 99 % quantile of each unit
tail.samples[3, 0], tail.cells[3, 0]                # where unit 3 is most active
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gandissect.reducers.streaming import Reducer, State
from gandissect.tap import as_map


@dataclass(frozen=True)
class TailResult:
    """The ``k`` largest values of each unit over all cells of all samples, largest first.

    Attributes:
        values: float32 [C, k'], k' = min(k, cells seen).
        samples: int32 [C, k'], the sample index of each.
        cells: int32 [C, k'], its place in the map, ``row * width + column``.
        count: number of cells seen per unit.
        around: float32 [C, k', 9], each value and its eight neighbours in rows (the nearest cell of the map beyond its edge);
            empty where :class:`TailSpec` did not ask for them.
    """

    values: Tensor
    samples: Tensor
    cells: Tensor
    count: int
    around: Tensor

    def level(self, tail: float) -> Tensor:
        """The exact 1 − ``tail`` quantile of each unit (linear interpolation between order statistics): float64 [C].

        Raises:
            ValueError: the kept tail is shorter than asked for.
        """
        place = (self.count - 1) * tail  # from the top
        low = int(place)
        if low + 1 >= self.values.shape[1] and self.values.shape[1] < self.count:
            raise ValueError(f"kept {self.values.shape[1]} values of {self.count}, too few for a tail of {tail}")
        upper, lower = self.values[:, low], self.values[:, min(low + 1, self.values.shape[1] - 1)]
        return upper.double() + (place - low) * (lower.double() - upper.double())


def tail_length(cells: int, tail: float) -> int:
    """How many of the largest of ``cells`` values fix the 1 − ``tail`` quantile exactly."""
    return min(cells, int((cells - 1) * tail) + 2)


@dataclass(frozen=True)
class TailSpec:
    """The ``k`` largest values of each unit of one stream, with their places and, if ``around``, their neighbours."""

    k: int
    around: bool = False

    def __call__(self) -> Tail:
        return Tail(self.k, around=self.around)


class Tail(Reducer):
    """Exact running tails: a unit's k largest values, where each occurred, and how many were seen.

    Equal values keep the smaller (sample, cell), so that the result does not depend on the order of batches. Each value and
    its place are one 64-bit key whose order is that of (value, earlier place). The k-th largest so far is a floor: what is not
    above it costs one comparison; what is waits, and is cut to the k largest when it has become as many as a part of them.
    """

    exact = True

    def __init__(self, k: int, *, around: bool = False) -> None:
        self._k, self._around = k, around
        self._count = 0
        self._cells = 1
        self._keys = torch.zeros(0, 0, dtype=torch.int64)  # [C, kept]
        self._near = torch.zeros(0, 0, 0)  # [C, kept, 9]
        self._floor = torch.zeros(0)  # float32 [C], once k were kept
        self._latest = -1  # the largest place among the k-th
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # unit int32, key int64, neighbours [*, 9]

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        maps = as_map(streams[0].detach()).float().contiguous()
        self._cells = maps.shape[2] * maps.shape[3]
        if self._keys.shape[0] != maps.shape[1]:
            self._keys = torch.zeros(maps.shape[1], 0, dtype=torch.int64)
        samples = torch.as_tensor(list(indices), dtype=torch.int64)
        start = 0
        while start < len(samples):
            # Slices that grow with what was seen: the floor rises fast at first.
            seen, fill = self._count // self._cells, -(-(self._k - self._keys.shape[1]) // self._cells)
            stop = min(start + max(1, fill if fill > 0 else seen // 2), len(samples))
            self._slice(maps[start:stop], samples[start:stop])
            start = stop

    def _slice(self, maps: Tensor, samples: Tensor) -> None:
        self._count += maps.shape[0] * self._cells
        flat = maps.flatten(2)
        if len(self._floor):
            earlier = int(samples.min()) * self._cells <= self._latest
            above = flat >= self._floor[:, None] if earlier else flat > self._floor[:, None]
            found = torch.from_numpy(np.flatnonzero(above.numpy()))
        else:
            found = torch.arange(flat.numel())
        row, cell = _divided(found, self._cells)
        sample, unit = _divided(row, maps.shape[1])
        keys = _pack(flat.reshape(-1)[found], samples[sample] * self._cells + cell)
        near = _neighbours(maps, found, cell) if self._around else torch.zeros(len(found), 0)
        self._waiting.append((unit.int(), keys, near))
        waiting = sum(len(part[0]) for part in self._waiting)
        kept = self._k * maps.shape[1]
        if waiting > max(min(kept * 3 // 4, _WAITING), kept // 4, 1 << 15) or not len(self._floor):
            self._cut()

    def _cut(self) -> None:
        """Sort what waits into the kept keys."""
        if not self._waiting:
            return
        unit, keys, near = (torch.cat(parts).numpy() for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        units, old = self._keys.shape
        order = np.argsort(unit.astype(np.min_scalar_type(units)), kind="stable")  # 16 bits are sorted by counting
        counts = np.bincount(unit, minlength=units)
        keys, ends = keys[order], np.cumsum(counts)
        width = min(self._k, old + int(counts.min()))
        self._widen(width)
        kept, beside = self._keys.numpy(), self._near.numpy()
        for row in range(units):
            new = slice(int(ends[row] - counts[row]), int(ends[row]))
            both = np.concatenate([kept[row, :old], keys[new]])
            both.partition(len(both) - width)
            if not self._around:
                kept[row] = both[len(both) - width :]
                continue
            least = both[len(both) - width]  # what is below leaves, and makes room for what comes
            comes = np.flatnonzero(keys[new] >= least)
            free = np.append(np.flatnonzero(kept[row, :old] < least), np.arange(old, width))
            kept[row, free], beside[row, free] = keys[new][comes], near[order[new][comes]]
        self._raise_floor()

    def _widen(self, width: int) -> None:
        """Room for ``width`` kept keys of each unit, all of which have memory for k from the start."""
        units, old = self._keys.shape
        if not old:
            self._keys = torch.empty(units, self._k, dtype=torch.int64)[:, :0]
            self._near = torch.empty(units, self._k, 9 if self._around else 0)[:, :0]
        self._keys = self._keys.as_strided((units, width), (self._k, 1))
        self._near = self._near.as_strided((units, width, self._near.shape[2]), self._near.stride())

    def _raise_floor(self) -> None:
        if self._k and self._keys.shape[1] == self._k:
            self._floor, places = _unpack(self._keys.amin(1))
            self._latest = int(places.max())

    def merge(self, other: Self) -> None:
        other._cut()
        if other._count:
            self._cut()
            self._count, self._cells = self._count + other._count, other._cells
            if not len(self._keys):
                self._keys = torch.zeros(len(other._keys), 0, dtype=torch.int64)
            units = torch.arange(len(other._keys), dtype=torch.int32)[:, None].expand_as(other._keys)
            self._waiting.append((units.flatten(), other._keys.flatten(), other._near.flatten(0, 1)))
            self._cut()

    def state(self) -> State:
        self._cut()
        if not self._count:
            return {}
        return {
            "keys": self._keys.clone(),
            "around": self._near.clone(),
            "facts": torch.tensor([self._count, self._cells]),
        }

    def load(self, state: State) -> None:
        if state:
            self._keys, self._waiting = state["keys"][:, :0], []
            self._widen(state["keys"].shape[1])
            self._keys.copy_(state["keys"])
            self._near.copy_(state["around"])
            self._count, self._cells = (int(fact) for fact in state["facts"])
            self._raise_floor()

    def result(self) -> TailResult:
        self._cut()
        shape = self._keys.shape
        values, around = torch.empty(shape), torch.empty(*shape, 9 if self._around else 0)
        samples, cells = torch.empty(2, *shape, dtype=torch.int32)
        step = max(1, _SORTED // max(1, shape[1]))
        for units in (slice(start, start + step) for start in range(0, shape[0], step)):
            keys, order = self._keys[units].sort(dim=1, descending=True)
            values[units], places = _unpack(keys)
            samples[units], cells[units] = _divided(places, self._cells)
            if self._around:
                around[units] = self._near[units].gather(1, order[..., None].expand(-1, -1, 9))
        return TailResult(values, samples, cells, self._count, around)


def _divided(values: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder of int64 values that are not negative; numpy divides by one number many times faster."""
    quotient = torch.from_numpy(values.numpy() // by)
    return quotient, values - quotient * by


def _neighbours(maps: Tensor, found: Tensor, cell: Tensor) -> Tensor:
    """The 3×3 cells around some cells, the nearest of the map where one is beyond its edge: float32 [M, 9] in rows.

    Args:
        maps: float32 [N, C, H, W].
        found: int64 [M], the place of each in all maps; ``cell`` its place in its own.
    """
    height, width = maps.shape[2:]
    row, column = (part.numpy() for part in _divided(cell, width))
    middle = found.numpy()
    left, right = -(column > 0).astype(np.int64), (column < width - 1).astype(np.int64)
    places = np.empty((len(middle), 9), np.int64)
    for number, centre in enumerate((middle - width * (row > 0), middle, middle + width * (row < height - 1))):
        np.add(centre, left, out=places[:, 3 * number])
        places[:, 3 * number + 1] = centre
        np.add(centre, right, out=places[:, 3 * number + 2])
    return torch.from_numpy(maps.reshape(-1).numpy().take(places))


_PLACES = 2**32
_SORTED = 2**20  # keys sorted at a time
_WAITING = 2**21  # keys that wait where those that are kept are not many more


def _pack(values: Tensor, places: Tensor) -> Tensor:
    """Keys int64 [M] of float32 values [M] and their places int64 [M], in the order of (value, earlier place)."""
    if places.numel() and int(places.max()) >= _PLACES:
        raise ValueError("more than 2^32 cells per unit; use fewer samples")
    # IEEE 754 floats sort like their bits once those of negative numbers are turned round; adding 0 makes -0 and 0 equal.
    bits = (values + 0.0).view(torch.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits.long().mul_(_PLACES).add_(_PLACES - 1).sub_(places)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The values float32 and places int64 that :func:`_pack` made ``keys`` of."""
    high = keys >> 32
    places = _PLACES - 1 - (keys - high * _PLACES)
    bits = high.int()
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return bits.view(torch.float32), places
