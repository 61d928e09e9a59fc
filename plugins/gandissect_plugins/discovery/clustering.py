"""Clusters of cells, whether they come back in other samples, and how well two clusterings agree beyond chance.

found = cluster(points, halves, k=range(2, 9), rng=rng)            # points float32 [n, cells, D]
match = matched(found.labels, other.labels, rng=rng)               # IoU of paired clusters beside shuffled samples
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]
Centres = Callable[[Tensor, int, int], Tensor]
"""(points [M, D], k, seed) -> centres [k, D]."""

POINTS = 4000  # cells a clustering is fitted to
STARTS = 2
ROUNDS = 40
NEAR_BEST = 0.05
"""The largest number of clusters whose held-out agreement is so close to the best is taken."""
DRAWS = 999


@dataclass(frozen=True)
class Split:
    """Places of the samples: two disjoint halves that clusterings are fitted to, and those that neither saw; int64 each."""

    first: Tensor
    second: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, n: int, rng: np.random.Generator) -> Split:
        """Two fifths, two fifths and a fifth of ``n`` samples, at random."""
        order = torch.from_numpy(rng.permutation(n))
        size = max(1, 2 * n // 5)
        return cls(order[:size], order[size : 2 * size], order[2 * size :])

    @property
    def unseen(self) -> Tensor:
        """The samples that the first clustering was not fitted to, ascending."""
        return torch.cat([self.second, self.held_out]).sort().values


@dataclass(frozen=True)
class Clusters:
    """One clustering.

    Attributes:
        labels: int64 [n, cells], which cluster each cell is in, by the clustering fitted to the first half.
        agreement: adjusted mutual information with the clustering fitted to the second half, on samples that neither saw.
        null: the same with samples shuffled, so that position alone is left.
        stability: float64 [k], the Jaccard index of each cluster with its partner from the second half (Hennig 2007),
            there too; ``by_position`` float64 [k] with samples shuffled.
        tried: number of clusters -> agreement, for all that were tried.
    """

    labels: Tensor
    agreement: float
    null: float
    stability: Tensor
    by_position: Tensor
    tried: dict[int, float]

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.stability)


def spherical(points: Tensor) -> Tensor:
    """Cells as directions: each unit's mean is taken off, then the length (zero stays zero); float32 [n, cells, D]."""
    return F.normalize(points - points.mean((0, 1), dtype=torch.float64).float(), dim=2)


def spherical_centres(points: Tensor, k: int, seed: int) -> Tensor:
    """Unit centres float32 [k, D] of spherical k-means, the best of a few starts.

    References:
        Hornik, Feinerer, Kober & Buchta 2012, Spherical k-Means Clustering; Collins et al. 2020, Editing in Style.
    """
    from sklearn.cluster import kmeans_plusplus

    best, chosen = -np.inf, points[:k]
    for start in range(STARTS):
        given, _ = kmeans_plusplus(points.numpy(), k, random_state=seed + start)
        centres = F.normalize(torch.from_numpy(given).to(points), dim=1)
        for _ in range(ROUNDS):
            owners = (points @ centres.T).argmax(1)
            moved = F.normalize(torch.zeros_like(centres).index_add_(0, owners, points), dim=1)
            if torch.equal(moved, centres):
                break
            centres = moved
        score = float((points @ centres.T).amax(1).mean())
        if score > best:
            best, chosen = score, centres
    return chosen


def euclidean_centres(points: Tensor, k: int, seed: int) -> Tensor:
    """Centres float64 [k, D] of k-means."""
    from sklearn.cluster import KMeans

    model = KMeans(k, n_init=STARTS, random_state=seed).fit(points.numpy())
    return torch.from_numpy(model.cluster_centers_)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The nearest centre of each of [..., D], int64 [...]; of unit vectors and centres the one of least angle."""
    likeness: Tensor = points @ centres.T - 0.5 * centres.square().sum(1)
    return likeness.argmax(-1)


def cluster(points: Tensor, split: Split, centres: Centres, ks: Sequence[int], rng: np.random.Generator) -> Clusters:
    """The clustering with the most clusters among those that come back best in other samples.

    Args:
        points: float [n, cells, D].
        split: which samples are for what.
        centres: the method.
        ks: numbers of clusters to try.

    References:
        Lange, Roth, Braun & Buhmann 2004, Stability-Based Validation of Clustering Solutions; Vinh, Epps & Bailey 2010,
        Information Theoretic Measures for Clusterings Comparison (adjusted for chance).
    """
    seed = int(rng.integers(2**31 - STARTS))
    halves = [_some(points[part], rng) for part in (split.first, split.second)]
    labels: dict[int, tuple[Tensor, Tensor]] = {}
    for k in ks:
        first, second = (partial(nearest, centres=centres(half, k, seed)) for half in halves)
        labels[k] = first(points), second(points[split.held_out])
    tried = {k: agreement(ours[split.held_out], theirs) for k, (ours, theirs) in labels.items()}
    chosen = max(k for k, value in tried.items() if value >= max(tried.values()) - NEAR_BEST)
    ours, theirs = labels[chosen]
    pairs = matched(ours[split.held_out], theirs, rng, (chosen, chosen))
    shuffled = agreement(ours[split.held_out], theirs.roll(1, 0))
    return Clusters(ours, tried[chosen], shuffled, pairs.iou, pairs.null, tried)


def _some(points: Tensor, rng: np.random.Generator) -> Tensor:
    flat = points.flatten(0, 1)
    return (
        flat if len(flat) <= POINTS else flat[torch.from_numpy(np.sort(rng.choice(len(flat), POINTS, replace=False)))]
    )


def agreement(first: Tensor, second: Tensor) -> float:
    """Adjusted mutual information of two labellings of the same cells: 0 by chance, 1 where they are the same."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(first.flatten().numpy(), second.flatten().numpy()))


@dataclass(frozen=True)
class Match:
    """The clusters of one clustering paired with those of another, one to one.

    Attributes:
        partner: int64 [a], −1 where nothing is left for it that agrees more than position does.
        table: float64 [a, b], intersection over union of every pair, over all cells and samples.
        table_null: float64 [a, b], its mean with the samples of one side shuffled: what position alone gives.
        table_p: float64 [a, b], how often shuffled samples do as well.
    """

    partner: Tensor
    table: Tensor
    table_null: Tensor
    table_p: Tensor

    @property
    def iou(self) -> Tensor:
        """Of each cluster with its partner, float64 [a]; 0 without one."""
        return self._with_partner(self.table)

    @property
    def null(self) -> Tensor:
        """What position alone gives to the same."""
        return self._with_partner(self.table_null)

    def _with_partner(self, table: Tensor) -> Tensor:
        return table[torch.arange(len(table)), self.partner.clamp(min=0)].masked_fill(self.partner < 0, 0.0)


def matched(
    first: Tensor, second: Tensor, rng: np.random.Generator, sizes: tuple[int, int], draws: int = DRAWS
) -> Match:
    """Pairs of clusters with the largest sum of IoU above chance (Kuhn 1955, the Hungarian method).

    Args:
        first, second: int64 [n, cells] of the same samples and cells.
        sizes: how many clusters each side has.
        draws: at least so many shuffles: all cyclic shifts of randomly ordered samples.
    """
    from scipy.optimize import linear_sum_assignment

    iou, null = overlaps(_one_hot(first, sizes[0]), _one_hot(second, sizes[1]), rng, draws)
    gain = iou - null.mean(0)
    rows, columns = (torch.from_numpy(places) for places in linear_sum_assignment(gain.numpy(), maximize=True))
    partner = torch.full((sizes[0],), -1)
    partner[rows] = torch.where(gain[rows, columns] > 0, columns, -1)
    return Match(partner, iou, null.mean(0), (1.0 + (null >= iou - 1e-9).sum(0).double()) / (1.0 + len(null)))


def _one_hot(labels: Tensor, k: int) -> Tensor:
    return F.one_hot(labels, k).transpose(1, 2).float()


def overlaps(first: Tensor, second: Tensor, rng: np.random.Generator, draws: int = DRAWS) -> tuple[Tensor, Tensor]:
    """IoU of every pair of masks, float64 [A, B], and under shuffled samples, float64 [P, A, B].

    Args:
        first, second: float32 [n, A, cells] and [n, B, cells] in 0..1, of the same samples.
        draws: P is the least multiple of n − 1 that is at least this; cyclic shifts along random orders of the samples
            form groups of permutations, so ranks among them are exact tests (Hemerik & Goeman 2018).
    """
    n = len(first)
    pairs = torch.einsum("iac,jbc->ijab", first, second).double()
    area = first.sum((0, 2)).double()[:, None] + second.sum((0, 2)).double()
    same = pairs.diagonal(dim1=0, dim2=1).sum(2)
    observed = same / (area - same).clamp(min=1e-9)
    if n < 2:
        return observed, observed[None]
    places = torch.arange(n)
    partner = (places[:, None] + places[1:]) % n
    shifted = []
    for _ in range(-(-draws // (n - 1))):
        order = torch.from_numpy(rng.permutation(n))
        shifted.append(pairs[order[:, None], order[partner]].sum(0))
    both = torch.cat(shifted)
    return observed, both / (area - both).clamp(min=1e-9)
