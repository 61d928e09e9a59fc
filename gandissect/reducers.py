"""Statistics that stream and merge: ``add`` batches, ``merge`` shards, read the ``result``.

    reducer = Moments()
    reducer.add(range(0, 64), activations)              # float32 [64, C, H, W]
    reducer.merge(other)                                # from another process
    reducer.result().mean                               # float64 [C]

A specification of a reducer (``KeepSpec()``, ``TailSpec(k=100)``) is a frozen dataclass, so that two analyzers that ask for the same
thing get the same object; calling it makes an empty reducer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from gandissect.tap import as_map

State = Mapping[str, Tensor]


class Reducer(ABC):
    """A statistic over samples whose result does not depend on how they were cut into batches and shards."""

    @abstractmethod
    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        """Take in one batch: sample indices and, for each stream of the want, a tensor [N, …] on the CPU."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what another reducer of the same specification has seen (other samples)."""

    @abstractmethod
    def state(self) -> State:
        """Everything it knows, as tensors."""

    @abstractmethod
    def load(self, state: State) -> None:
        """Become the reducer that ``state`` was taken from."""

    @abstractmethod
    def result(self) -> object:
        """The statistic."""


class ReducerSpec(Protocol):
    """What a want says about its reducer: hashable, and called without arguments makes an empty one."""

    def __call__(self) -> Reducer: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class KeepSpec:
    """Keep one stream, in ``dtype`` ("float32", "float16", "bool", "uint8"), after reducing each map to its
    "mean" or "max" over height and width where ``pool`` says so."""

    dtype: str = "float32"
    pool: str = ""

    def __call__(self) -> Keep:
        return Keep(getattr(torch, self.dtype), self.pool)


class Keep(Reducer):
    """All samples of one stream in the order of their indices: [n, …]."""

    def __init__(self, dtype: torch.dtype, pool: str = "") -> None:
        self._dtype, self._pool = dtype, pool
        self._indices: list[Tensor] = []
        self._parts: list[Tensor] = []

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        values = streams[0].detach()
        if self._pool:
            spatial = as_map(values).flatten(2)
            values = spatial.amax(2) if self._pool == "max" else spatial.mean(2)
        self._indices.append(torch.as_tensor(list(indices), dtype=torch.int64))
        self._parts.append(values.to(self._dtype).clone())

    def merge(self, other: Self) -> None:
        self._indices += other._indices
        self._parts += other._parts

    def state(self) -> State:
        return {"indices": torch.cat(self._indices), "values": self.result()} if self._parts else {}

    def load(self, state: State) -> None:
        if state:
            order = state["indices"].sort().values
            self._indices, self._parts = [order], [state["values"]]

    def result(self) -> Tensor:
        """[n, …] sorted by sample index; empty [0] where nothing was added."""
        if not self._parts:
            return torch.zeros(0, dtype=self._dtype)
        if len(self._parts) > 1:
            order = torch.cat(self._indices).argsort(stable=True)
            self._parts = [torch.cat(self._parts)[order]]
            self._indices = [torch.cat(self._indices)[order]]
        return self._parts[0]


@dataclass(frozen=True)
class MomentsResult:
    """Per unit over all cells of all samples: float64 [C] each; ``count`` is the number of cells."""

    count: int
    mean: Tensor
    variance: Tensor
    minimum: Tensor
    maximum: Tensor


@dataclass(frozen=True)
class MomentsSpec:
    """Mean, variance, minimum and maximum of each unit of one stream."""

    def __call__(self) -> Moments:
        return Moments()


class Moments(Reducer):
    """First two moments and range per unit, by float64 sums: merging is exact to rounding in the 16th digit."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._square = self._low = self._high = torch.zeros(0, dtype=torch.float64)

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        flat = as_map(streams[0].detach()).double().transpose(0, 1).flatten(1)  # [C, N*H*W]
        self._take(flat.shape[1], flat.sum(1), flat.square().sum(1), flat.amin(1), flat.amax(1))

    def _take(self, count: int, total: Tensor, square: Tensor, low: Tensor, high: Tensor) -> None:
        if not self._count:
            self._count, self._sum, self._square, self._low, self._high = count, total, square, low, high
            return
        self._count += count
        self._sum, self._square = self._sum + total, self._square + square
        self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)

    def merge(self, other: Self) -> None:
        if other._count:
            self._take(other._count, other._sum, other._square, other._low, other._high)

    def state(self) -> State:
        count = torch.tensor(self._count)
        return {"count": count, "sum": self._sum, "square": self._square, "low": self._low, "high": self._high}

    def load(self, state: State) -> None:
        self._count = int(state["count"])
        self._sum, self._square = state["sum"], state["square"]
        self._low, self._high = state["low"], state["high"]

    def result(self) -> MomentsResult:
        n = max(self._count, 1)
        mean = self._sum / n
        variance = (self._square / n - mean.square()).clamp(min=0)
        return MomentsResult(self._count, mean, variance, self._low, self._high)


@dataclass(frozen=True)
class TailResult:
    """The ``k`` largest values of each unit over all cells of all samples, largest first.

    Attributes:
        values: float32 [C, k'], k' = min(k, cells seen).
        samples: int64 [C, k'], the sample index of each.
        cells: int64 [C, k'], its place in the map, ``row * width + column``.
        count: number of cells seen per unit.
    """

    values: Tensor
    samples: Tensor
    cells: Tensor
    count: int

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
    """The ``k`` largest values of each unit of one stream, with their places."""

    k: int

    def __call__(self) -> Tail:
        return Tail(self.k)


class Tail(Reducer):
    """Exact running tails: a unit's k largest values, where each occurred, and how many were seen.

    Equal values keep the smaller (sample, cell), so that the result does not depend on the order of batches. Each value and its
    place are one 64-bit key whose order is that of (value, earlier place); keys are collected and cut to the k largest now and
    then.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._count = 0
        self._keys: list[Tensor] = []  # int64 [C, *] each
        self._cells = 1

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        maps = as_map(streams[0].detach()).float().flatten(2)  # [N, C, cells]
        self._cells = maps.shape[2]
        samples = torch.as_tensor(list(indices), dtype=torch.int64)
        places = (samples[:, None] * self._cells + torch.arange(self._cells)).flatten()
        self._count += maps.shape[0] * maps.shape[2]
        self._take(_pack(maps.transpose(0, 1).flatten(1), places))

    def _take(self, keys: Tensor) -> None:
        self._keys.append(keys)
        if sum(part.shape[1] for part in self._keys) > max(4 * self._k, 4096):
            self._cut()

    def _cut(self) -> None:
        keys = torch.cat(self._keys, 1)
        self._keys = [keys.topk(self._k, dim=1, sorted=False).values if keys.shape[1] > self._k else keys]

    def merge(self, other: Self) -> None:
        if other._keys:
            self._count, self._cells = self._count + other._count, other._cells
            for keys in other._keys:
                self._take(keys)

    def state(self) -> State:
        if not self._keys:
            return {}
        self._cut()
        values, places = _unpack(self._keys[0])
        return {"values": values, "places": places, "facts": torch.tensor([self._count, self._cells])}

    def load(self, state: State) -> None:
        if state:
            self._keys = [_pack(state["values"], state["places"])]
            self._count, self._cells = (int(fact) for fact in state["facts"])

    def result(self) -> TailResult:
        if not self._keys:
            empty = torch.zeros(0, 0)
            return TailResult(empty, empty.long(), empty.long(), 0)
        self._cut()
        self._keys = [self._keys[0].sort(dim=1, descending=True).values]
        values, places = _unpack(self._keys[0])
        return TailResult(values, places // self._cells, places % self._cells, self._count)


_PLACES = 2**32


def _pack(values: Tensor, places: Tensor) -> Tensor:
    """Keys int64 [C, M] of float32 values [C, M] and their places int64 [M] or [C, M], in the order of (value, earlier place)."""
    if places.numel() and int(places.max()) >= _PLACES:
        raise ValueError("more than 2^32 cells per unit; use fewer samples")
    # IEEE 754 floats sort like their bits once those of negative numbers are turned round; adding 0 makes -0 and 0 equal.
    bits = (values + 0.0).contiguous().view(torch.int32)
    bits = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return bits.long() * _PLACES + (_PLACES - 1 - places)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The values float32 and places int64 that :func:`_pack` made ``keys`` of."""
    bits = torch.div(keys, _PLACES, rounding_mode="floor").int()
    places = _PLACES - 1 - torch.remainder(keys, _PLACES)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).contiguous().view(torch.float32), places
