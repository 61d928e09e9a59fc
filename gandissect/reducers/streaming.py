"""Reducers of one stream: kept whole, or as its moments; and what every reducer promises.

reducer = Moments()
reducer.add(range(0, 64), activations)              # float32 [64, C, H, W]
reducer.result().mean                               # float64 [C]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from gandissect.tap import as_map

State = Mapping[str, Tensor]


class Reducer(ABC):
    """A statistic over samples whose result does not depend on how they were cut into batches and shards.

    ``exact`` says that this holds bit for bit (counts, sets, order statistics); where sums of floats are rounded, merging
    follows a fixed order and chunks of samples have reducers of their own.
    """

    exact: ClassVar[bool] = False

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


_SLAB = 2**25  # bytes of kept values in one piece


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

    exact = True

    def __init__(self, dtype: torch.dtype, pool: str = "") -> None:
        self._dtype, self._pool = dtype, pool
        self._indices: list[Tensor] = []
        self._parts: list[Tensor] = []
        self._slab = torch.empty(0, dtype=dtype)  # of the next part: few large pieces of memory, given back when freed
        self._filled = 0
        self._settled = True  # one part, in order

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        values = streams[0].detach()
        if self._pool:
            spatial = as_map(values).flatten(2)
            values = spatial.amax(2) if self._pool == "max" else spatial.mean(2)
        self._indices.append(torch.as_tensor(list(indices), dtype=torch.int64))
        self._settled = False
        while len(values):
            if self._filled == len(self._slab):
                most = max(1, _SLAB // max(1, values[:1].numel() * self._dtype.itemsize))
                rows = min(max(2 * self._filled, len(values)), most)
                self._close()
                self._slab = torch.empty(rows, *values.shape[1:], dtype=self._dtype)
            taken = values[: len(self._slab) - self._filled]
            self._slab[self._filled : self._filled + len(taken)] = taken
            self._filled, values = self._filled + len(taken), values[len(taken) :]

    def _close(self) -> None:
        """Make a part of what is filled of the slab."""
        if self._filled:
            self._parts.append(self._slab[: self._filled])
        self._slab, self._filled = self._slab[self._filled :], 0

    def merge(self, other: Self) -> None:
        other._close()
        self._close()
        self._indices += other._indices
        self._parts += other._parts
        self._settled = False

    def state(self) -> State:
        whole = self.result()
        return {"indices": torch.cat(self._indices), "values": whole} if self._parts else {}

    def load(self, state: State) -> None:
        if state:
            self._indices, self._parts = [state["indices"].sort().values], [state["values"]]

    def result(self) -> Tensor:
        """[n, …] sorted by sample index; empty [0] where nothing was added."""
        self._close()
        if self._parts and not self._settled:
            indices, order = torch.cat(self._indices).sort(stable=True)
            place = torch.empty_like(order).index_put_((order,), torch.arange(len(order)))
            whole = self._parts[0].new_empty(len(order), *self._parts[0].shape[1:])
            parts, self._parts, self._slab = self._parts[::-1], [whole], self._slab[:0].clone()
            start = 0
            while parts:
                part = parts.pop()  # its memory is free as soon as it is copied
                whole[place[start : start + len(part)]] = part
                start += len(part)
            self._indices, self._settled = [indices], True
        return self._parts[0] if self._parts else torch.zeros(0, dtype=self._dtype)


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
