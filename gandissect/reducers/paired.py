"""Reducers of concept masks: packed as bits, and their cross moments with a layer's units.

masks = session[Want((Masks(),), BitsSpec(), n)]
masks.unpack(0, 16)                      # bool [16, K, H, W]
session[Want((Activations("layer4"), CellAreas(32, 32)), CrossSpec(), n)].correlation()      # float64 [U, K]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from gandissect.reducers.streaming import Keep, Reducer, State
from gandissect.tap import as_map


@dataclass(frozen=True)
class BitsSpec:
    """Keep one bool stream, eight values in a byte."""

    def __call__(self) -> Bits:
        return Bits()


class Bits(Reducer):
    """All samples of one bool stream [N, …] as packed rows, in the order of their indices."""

    exact = True

    def __init__(self) -> None:
        self._keep = Keep(torch.uint8, "")
        self._shape: tuple[int, ...] = ()

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        self._shape = tuple(streams[0].shape[1:])
        packed = np.packbits(streams[0].reshape(len(indices), -1).numpy().view(np.uint8), axis=1)
        self._keep.add(indices, torch.from_numpy(packed))

    def merge(self, other: Self) -> None:
        self._shape = self._shape or other._shape
        self._keep.merge(other._keep)

    def state(self) -> State:
        return {**self._keep.state(), "shape": torch.tensor(self._shape)}

    def load(self, state: State) -> None:
        self._shape = tuple(int(size) for size in state["shape"])
        self._keep.load({name: value for name, value in state.items() if name != "shape"})

    def result(self) -> BitsResult:
        return BitsResult(self._keep.result(), self._shape)


@dataclass(frozen=True)
class BitsResult:
    """Packed masks: ``rows`` uint8 [n, bytes], each the bits of a bool tensor of ``shape``."""

    rows: Tensor
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def unpack(self, start: int, stop: int) -> Tensor:
        """The masks of the samples start..stop-1: bool [stop - start, *shape]."""
        rows = self.rows[start:stop].numpy()
        bits = np.unpackbits(rows, axis=1, count=math.prod(self.shape)).view(np.bool_)
        return torch.from_numpy(bits).reshape(len(rows), *self.shape)


@dataclass(frozen=True)
class CrossResult:
    """Sums of two streams of maps over cells and samples.

    Attributes:
        count: cells seen, N*H*W.
        samples: samples seen.
        products: float64 [U, K], Σ x·s.
        first: float64 [U, H*W], Σ over samples of x in each cell; ``second`` float64 [K, H*W] of s.
        squares: float64 [U] Σ x², and float64 [K] Σ s².
    """

    count: int
    samples: int
    products: Tensor
    first: Tensor
    second: Tensor
    squares: tuple[Tensor, Tensor]

    def correlation(self) -> Tensor:
        """Pearson's r of every pair over all cells: float64 [U, K]; 0 where one of them is constant."""
        return self._r(self.products)

    def expected(self) -> Tensor:
        """What r is on average when samples are paired at random, so that only position is left: float64 [U, K]."""
        return self._r(self.first @ self.second.T / max(self.samples, 1))

    def _r(self, products: Tensor) -> Tensor:
        n = max(self.count, 1)
        a, b = self.first.sum(1) / n, self.second.sum(1) / n
        spread = [(square / n - mean.square()).clamp(min=0) for square, mean in zip(self.squares, (a, b), strict=True)]
        floors = [1e-12 * square / n + 1e-30 for square in self.squares]
        varies = [s > floor for s, floor in zip(spread, floors, strict=True)]
        scale = (spread[0][:, None] * spread[1]).clamp(min=1e-300).sqrt()
        r = (products / n - a[:, None] * b) / scale
        return torch.where(varies[0][:, None] & varies[1], r, 0.0).clamp(-1, 1)


@dataclass(frozen=True)
class CrossSpec:
    """Cross moments of two streams of maps with the same grid: (units [N, U, H, W], concepts [N, K, H, W])."""

    def __call__(self) -> Cross:
        return Cross()


_BLOCK = 16  # samples whose moments are taken together


class Cross(Reducer):
    """Cross moments added in float64, ``_BLOCK`` samples after another whatever the batches, so that these do not change a bit."""

    def __init__(self) -> None:
        self._count = torch.zeros(2, dtype=torch.int64)
        self._sums: list[Tensor] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        x, s = (as_map(stream.detach()).float().flatten(2) for stream in streams)
        start, stop = 0, _BLOCK - sum(len(part) for part, _ in self._waiting)
        while start < len(x):
            self._waiting.append((x[start:stop], s[start:stop]))
            if stop <= len(x):
                self._block()
            start, stop = stop, stop + _BLOCK

    def _block(self) -> None:
        """Take in the samples that wait."""
        if not self._waiting:
            return
        x, s = self._waiting[0] if len(self._waiting) == 1 else map(torch.cat, zip(*self._waiting, strict=True))
        self._waiting = []
        products = torch.bmm(x, s.transpose(1, 2)).sum(0, dtype=torch.float64)
        means = [part.sum(0, dtype=torch.float64) for part in (x, s)]
        norms = [torch.linalg.vector_norm(part, dim=2, dtype=torch.float64) for part in (x, s)]
        self._take(
            torch.tensor([x.shape[0] * x.shape[2], len(x)]), [products, *means, *((n * n).sum(0) for n in norms)]
        )

    def _take(self, count: Tensor, sums: list[Tensor]) -> None:
        self._count = self._count + count
        if not self._sums:
            self._sums = [part.clone() for part in sums]
        else:
            for total, part in zip(self._sums, sums, strict=True):
                total.add_(part)

    def merge(self, other: Self) -> None:
        other._block()
        self._block()
        if other._sums:
            self._take(other._count, other._sums)

    def state(self) -> State:
        self._block()
        return {"count": self._count, **{f"sum{place}": part for place, part in enumerate(self._sums)}}

    def load(self, state: State) -> None:
        self._count = state["count"].clone()
        self._sums = [state[f"sum{place}"].clone() for place in range(len(state) - 1)]

    def result(self) -> CrossResult:
        self._block()
        if not self._sums:
            none = torch.zeros(0, 0, dtype=torch.float64)
            return CrossResult(0, 0, none, none, none, (none[:, 0:0].flatten(), none.flatten()))
        products, first, second, x, s = self._sums
        return CrossResult(int(self._count[0]), int(self._count[1]), products, first, second, (x, s))
