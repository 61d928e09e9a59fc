"""What chance explains: overlaps of units with the masks of other samples, p-values, and false-discovery control.

null = shuffled_overlaps(active, areas, rng=rng, draws=999)         # float32 [P, U, K]
p_values(observed, null)                                             # float64 [U, K]
benjamini_hochberg(p)                                                # float64, same shape
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect.trust import adjusted

_BYTES = 96 * 2**20  # size of the largest block of transforms
_TOP = 4096  # pooled null scores kept per concept


@dataclass(frozen=True)
class ActiveCells:
    """Where units are above their thresholds, as a list.

    Attributes:
        unit, sample, cell: int64 [M], one entry for each active cell.
        units, samples, cells: how many of each there are.
    """

    unit: Tensor
    sample: Tensor
    cell: Tensor
    units: int
    samples: int
    cells: int

    def count(self) -> Tensor:
        """Active cells of each unit: int64 [U]."""
        return torch.bincount(self.unit, minlength=self.units)

    def select(self, units: Tensor) -> ActiveCells:
        """Those of some units (int64, ascending), renumbered from 0."""
        place = torch.full((self.units,), -1).index_put_((units,), torch.arange(len(units)))
        inside = place[self.unit] >= 0
        return ActiveCells(
            place[self.unit[inside]], self.sample[inside], self.cell[inside], len(units), self.samples, self.cells
        )


def overlaps(active: ActiveCells, areas: Tensor) -> Tensor:
    """Concept area under the active cells of each unit: float64 [U, K], in cells.

    Args:
        active: see above.
        areas: float32 [n, cells, K] in 0..1, the part of each cell that each concept covers.
    """
    rows = areas.flatten(0, 1)
    total = torch.zeros(active.units, areas.shape[2], dtype=torch.float64)
    places = active.sample * active.cells + active.cell
    step = max(1, _BYTES // (8 * max(1, areas.shape[2])))
    for start in range(0, len(places), step):
        chosen = slice(start, start + step)
        total.index_add_(0, active.unit[chosen], rows[places[chosen]].double())
    return total


def shuffled_overlaps(active: ActiveCells, areas: Tensor, *, rng: np.random.Generator, draws: int) -> Tensor:
    """Overlaps with the masks of other samples: float32 [P, U, K], P the least multiple of n − 1 that is ≥ ``draws``.

    Samples are put in random order and the masks are shifted along it by 1 … n − 1 places: every sample meets the masks of
    another one in the same cells, so how often a concept occurs and where stay as they are. All shifts of one order
    together with no shift are a group of permutations of exchangeable samples, so the rank of the true overlap among
    them is an exact test. The overlaps of all shifts are one cross-correlation along the samples, taken through
    Fourier transforms; or, where that touches fewer numbers (few samples of large maps), every sample meets the masks of
    every other one once and each order adds up those pairs.

    References:
        Phipson & Smyth 2010, Permutation P-values Should Never Be Zero; Hemerik & Goeman 2018, Exact testing with random
        permutations (groups of permutations).
    """
    if active.samples < 2:
        return torch.zeros(0, active.units, areas.shape[2])
    rounds = -(-draws // (active.samples - 1))
    orders = [torch.from_numpy(rng.permutation(active.samples)) for _ in range(rounds)]
    if _pairs_pay(active, areas.shape[2], rounds):
        return _shifts_of_pairs(active, areas, orders)
    return torch.cat([_all_shifts(active, areas, order) for order in orders])


def _pairs_pay(active: ActiveCells, concepts: int, rounds: int) -> bool:
    """Whether :func:`_shifts_of_pairs` touches fewer numbers than a transform for each order."""
    n, both = active.samples, active.units * concepts
    pairs = len(active.unit) * n * concepts + 4 * rounds * n * n * both
    transforms = rounds * active.cells * n * (8 * (active.units + concepts) + both / 2)
    return pairs < transforms


def _shifts_of_pairs(active: ActiveCells, areas: Tensor, orders: Sequence[Tensor]) -> Tensor:
    """The overlaps of :func:`_all_shifts` for every order: float32 [rounds * (n - 1), U, K]."""
    n, concepts = active.samples, areas.shape[2]
    by_cell = areas.transpose(0, 1).reshape(active.cells, n * concepts)
    places = torch.arange(n)
    partners = [order[(places[:, None] + places[1:]) % n] for order in orders]  # [n, n - 1]
    step = max(1, _BYTES // (8 * n * n * concepts))
    parts = []
    for start in range(0, active.units, step):
        few = active.select(torch.arange(start, min(start + step, active.units)))
        pairs = _pairs(few, by_cell).reshape(few.units, n, n, concepts)
        shifted = [pairs[:, order[:, None], partner].sum(1) for order, partner in zip(orders, partners, strict=True)]
        parts.append(torch.cat(shifted, 1))
    return torch.cat(parts).transpose(0, 1)


def _pairs(active: ActiveCells, by_cell: Tensor) -> Tensor:
    """Area of each concept of each sample under each unit's active cells in each sample: float32 [U * n, n * K]."""
    rows, order = (active.unit * active.samples + active.sample).sort()
    starts = torch.searchsorted(rows, torch.arange(active.units * active.samples))
    return torch.nn.functional.embedding_bag(active.cell[order], by_cell, starts, mode="sum")


def _all_shifts(active: ActiveCells, areas: Tensor, order: Tensor) -> Tensor:
    """Overlaps under the shifts 1 … n − 1 along ``order``: float32 [n − 1, U, K]."""
    n, units, concepts = active.samples, active.units, areas.shape[2]
    place = torch.empty_like(order).index_put_((order,), torch.arange(n))  # of each sample in the order
    step = max(1, _BYTES // (8 * n * (units + concepts)))
    spectrum = torch.zeros(n // 2 + 1, units, concepts, dtype=torch.complex64)
    for start in range(0, active.cells, step):
        stop = min(start + step, active.cells)
        inside = (active.cell >= start) & (active.cell < stop)
        lit = torch.zeros(stop - start, units, n)
        lit[active.cell[inside] - start, active.unit[inside], place[active.sample[inside]]] = 1.0
        covered = areas[order, start:stop].permute(1, 2, 0)  # [cells, K, n]
        a = torch.fft.rfft(lit).conj().permute(2, 1, 0)
        s = torch.fft.rfft(covered).permute(2, 0, 1)
        spectrum += torch.bmm(a.resolve_conj(), s)
    shifted: Tensor = torch.fft.irfft(spectrum, n=n, dim=0)[1:].clamp(min=0)
    return shifted


def p_values(observed: Tensor, null: Tensor) -> Tensor:
    """How often chance does at least as well: float64 [U, K].

    The rank of each pair among its own shuffles; where none of them reaches it, the rank of its standardised overlap among
    those of all units of the layer with the same concept, which resolves smaller p-values (a pooled null, Storey &
    Tibshirani 2003).

    Args:
        observed: float64 [U, K].
        null: float32 [P, U, K].
    """
    draws, units = null.shape[:2]
    slack = 1e-4 * observed.clamp(min=1.0)  # rounding of the transforms, on the side of chance
    reached = (null >= (observed - slack).float()).sum(0)
    own = (1.0 + reached.double()) / (draws + 1.0)
    if not draws or not units:
        return own
    mean, spread = null.mean(0), null.std(0, correction=0).clamp(min=1e-3)
    pooled = ((null - mean) / spread).transpose(1, 2).reshape(draws, -1, units).transpose(0, 1).flatten(1)  # [K, P*U]
    top = pooled.topk(min(_TOP, pooled.shape[1]), dim=1).values.flip(1).contiguous()
    score = ((observed - slack).float() - mean) / spread
    above = top.shape[1] - torch.searchsorted(top, score.T.contiguous())
    shared = (1.0 + above.T.double()) / (pooled.shape[1] + 1.0)
    full = above.T.ge(top.shape[1])  # more than were kept: the pool resolves nothing here
    return torch.where((reached == 0) & ~full, torch.minimum(own, shared), own)


def benjamini_hochberg(p: Tensor) -> Tensor:
    """The false-discovery rate at which each test would just pass: float64, same shape; NaN entries are no tests.

    References:
        Benjamini & Hochberg 1995, Controlling the False Discovery Rate, eq. 1.
    """
    flat = p.flatten().double()
    tests = ~flat.isnan()
    out = torch.full_like(flat, float("nan"))
    out[tests] = torch.from_numpy(adjusted(flat[tests].numpy()))
    return out.reshape(p.shape)
