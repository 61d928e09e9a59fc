"""Whether attention is near, and whether it follows what is in the picture rather than where it is.

locality(layer)                                          # Locality(distance=2.1, shuffled=5.2, p=0.001)
heads(layer)[0].step, heads(layer)[0].share              # (0, -1), 0.87: mostly at the place to the left
follows(layer.rows, same_colour(layer, images), rng)     # Following(own=0.41, others=0.26, p=0.001)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import LOW_LEVEL, Concept
from gandissect_plugins.attention.maps import AttentionLayer, Grid

DRAWS = 999
ALIKE = 0.25
"""The part of a picture that counts as having a place's colour: the nearest quarter."""


@dataclass(frozen=True)
class Locality:
    """How far a place looks, as a part of the image's diagonal.

    Attributes:
        distance: mean over queries of the distance to what is attended, weighted by attention.
        shuffled: the same with the places of the keys permuted in each sample; ``p`` two-sided against that, normal.
    """

    distance: float
    shuffled: float
    p: float


@dataclass(frozen=True)
class Head:
    """One head of a layer, mean over samples and even queries.

    Attributes:
        number: from 0.
        entropy: of its rows, as a part of log K: 1 is uniform.
        distance: to what it attends, as a part of the image's diagonal.
        step: (rows down, columns right) from the query to where most of its attention goes; None where queries and keys differ in grid.
        share: the part of its attention that goes there, 0..1; queries from which the step leaves the picture count as 0.
    """

    number: int
    entropy: float
    distance: float
    step: tuple[int, int] | None
    share: float


@dataclass(frozen=True)
class Following:
    """Attention within the region that a query belongs to.

    Attributes:
        own: the part of its attention that lies there, by the sample's own regions: 0..1.
        others: the same by the regions of other samples: what a map that knows positions only would give.
        p: one-sided, over permutations of whole samples.
        samples: how many.
    """

    own: float
    others: float
    p: float
    samples: int

    @property
    def excess(self) -> float:
        """What content adds to position."""
        return self.own - self.others


def _centres(grid: Grid) -> Tensor:
    """Middle of every cell of a grid over the unit square: float32 [cells, 2]."""
    rows, columns = ((torch.arange(side) + 0.5) / side for side in grid)
    return torch.cartesian_prod(rows, columns)


def _away(layer: AttentionLayer) -> Tensor:
    """From each even query to each key, as a part of the image's diagonal: float64 [P, K]."""
    even = layer.points[layer.shown :]
    return torch.cdist(_centres(layer.queries)[even], _centres(layer.keys)).double() / 2**0.5


def heads(layer: AttentionLayer) -> tuple[Head, ...]:
    """Each head's spread and reach, and the step it makes most."""
    rows = layer.by_head.double()
    distance = (rows * _away(layer)).sum(2).mean(1).tolist()
    steps, shares = _steps(layer, rows) if layer.queries == layer.keys else ([None] * len(rows), [0.0] * len(rows))
    entropy = layer.head_entropy.tolist()
    return tuple(
        Head(k, entropy[k], distance[k], step, share) for k, (step, share) in enumerate(zip(steps, shares, strict=True))
    )


def _steps(layer: AttentionLayer, rows: Tensor) -> tuple[list[tuple[int, int] | None], list[float]]:
    """Where, seen from the query, each head of rows float64 [heads, P, K] attends most; and how much of it that is."""
    height, width = layer.queries
    even, keys = layer.points[layer.shown :, None], torch.arange(height * width)[None]
    down, right = keys // width - even // width, keys % width - even % width
    across = 2 * width - 1
    which = ((down + height - 1) * across + right + width - 1).flatten()
    held = torch.zeros(len(rows), (2 * height - 1) * across, dtype=rows.dtype).index_add_(1, which, rows.flatten(1))
    share, place = (held / rows.shape[1]).max(1)
    return [(k // across - height + 1, k % across - width + 1) for k in place.tolist()], share.tolist()


def locality(layer: AttentionLayer) -> Locality:
    """How near the attended places are to the query, against keys in random places, other ones in each sample.

    References:
        Hoeffding 1951, A combinatorial central limit theorem, eqs. 8 to 10: mean and variance over all permutations.
    """
    away = _away(layer)
    rows = layer.rows[:, layer.shown :].double()
    observed = float((rows * away).sum(2).mean())
    shuffled = float((rows.sum(2) * away.mean(1)).mean())
    # d_kj = Σ_q a_qk b_qj with both centred over keys; Σ d² = Σ_qq' (a aᵀ)(b bᵀ), and the variance is that / (K − 1).
    a, b = rows - rows.mean(2, keepdim=True), away - away.mean(1, keepdim=True)
    squares = ((a @ a.transpose(1, 2)) * (b @ b.T)).sum((1, 2)) / rows.shape[1] ** 2
    spread = float((squares.sum() / max(1, rows.shape[2] - 1)).sqrt()) / len(rows)
    p = erfc(abs(observed - shuffled) / spread / 2**0.5) if spread > 0 else 1.0
    return Locality(observed, shuffled, p)


def same_colour(layer: AttentionLayer, images: Tensor) -> Tensor:
    """The quarter of a sample's key places nearest in colour to each query: float32 [N, P, K] of 0 and 1.

    Args:
        layer: gives queries and grids; those that are only shown are left out.
        images: float32 [N, C, H, W] in [-1, 1].
    """
    asking, asked = (F.adaptive_avg_pool2d(images, grid).flatten(2) for grid in (layer.queries, layer.keys))
    away = torch.cdist(asking[:, :, layer.points[layer.shown :]].transpose(1, 2), asked.transpose(1, 2))
    chosen = away.argsort(dim=2, stable=True)[:, :, : max(1, round(ALIKE * away.shape[2]))]
    return torch.zeros_like(away).scatter_(2, chosen, 1.0)


def same_concept(layer: AttentionLayer, masks: Tensor, concepts: Sequence[Concept]) -> Tensor | None:
    """Where the smallest concept that holds a query is: float32 [N, P, K] in 0..1; None without concepts of things.

    Queries that no concept holds have an empty region. Colours, edges and their like are no things.
    """
    things = [k for k, concept in enumerate(concepts) if not concept.spatial and concept.category not in LOW_LEVEL]
    if not things:
        return None
    planes = masks[:, things].float()
    held = F.adaptive_avg_pool2d(planes, layer.queries).flatten(2)[:, :, layer.points[layer.shown :]] >= 0.5
    there = F.adaptive_avg_pool2d(planes, layer.keys).flatten(2)
    size = torch.where(held, planes.mean((2, 3))[:, :, None], torch.inf)  # [N, K, P]
    least = size.argmin(1)
    region = there.gather(1, least[:, :, None].expand(-1, -1, there.shape[2]))
    return region * held.any(1)[:, :, None]


def follows(rows: Tensor, regions: Tensor, rng: np.random.Generator, draws: int = DRAWS) -> Following:
    """Attention within a query's own region against the regions of other samples.

    Regions of whole samples are permuted: the queries that a region holds go with it, so a map that depends on positions alone
    gives every permutation the same chance.

    Args:
        rows: float32 [N, P, K], each row sums to 1.
        regions: float32 [N, P, K] in 0..1; empty where a query belongs to none.
        rng: permutes samples.
        draws: permutations.
    """
    table = cross_table(rows, regions)
    n = len(table)
    if n < 4:
        return Following(float("nan"), float("nan"), 1.0, n)
    own, others = within(table)
    places = np.arange(n)
    null = np.array([table[places, rng.permutation(n)].mean() for _ in range(draws)])
    return Following(own, others, (1 + int((null >= own - 1e-12).sum())) / (1 + draws), n)


def within(table: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> tuple[float, float]:
    """Mean attention within a sample's own regions, and within those of other samples, from a table [n, n] of two samples or more."""
    n, own = len(table), float(np.trace(table))
    return own / n, float(table.sum() - own) / (n * (n - 1))


def cross_table(rows: Tensor, regions: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Attention of each sample within each other's regions: float64 [n, n], for the n samples whose regions hold a query."""
    asked = (regions.sum(2) > 0).sum(1)
    used = asked > 0
    held = torch.einsum("iqk,jqk->ij", rows[used].double(), regions[used].double())
    table: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (held / asked[used]).numpy()
    return table
