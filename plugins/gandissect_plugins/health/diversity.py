"""How different samples are from each other: near-duplicates, how many pictures there seem to be, clusters.

found = collisions(picture_rows(images), contrast(images), rng)
found.support                            # 2.0 for a generator that makes two pictures
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from gandissect.trust import Z95

Rows = NDArray[np.float64]
GRID = 32
"""Longest side, in cells, of the grid that pictures are averaged on before they are compared."""
ENERGY = 0.01
"""Two pictures are near-duplicates when their difference has at most this part of a picture's own energy (−20 dB)."""
COUNTS = (2, 3, 4, 5, 6, 8, 10)
CLEAR = 0.1
STABLE = 0.8


@dataclass(frozen=True)
class Collisions:
    """Pairs of samples that look the same.

    Attributes:
        samples: how many were compared, each with each.
        pairs: near-duplicate pairs among them.
        rate: the share of pairs, 0..1, with its 95 % interval ``low`` to ``high``.
        expected: the share that Gaussian samples with the same mean and spectrum have.
        p: that Gaussian samples have as many.
        sharing: share of samples that have at least one near-duplicate.
        nearest: float64 [samples], distance to the nearest other sample, as a part of the tolerance for near-duplicates.
        expected_nearest: the same of one set of Gaussian samples.
        closest: the closest pairs (one, other, distance), each sample at most once.
        dimensions: participation ratio of the spectrum: along how many directions samples vary.
    """

    samples: int
    pairs: int
    rate: float
    low: float
    high: float
    expected: float
    p: float
    sharing: float
    nearest: Rows
    expected_nearest: Rows
    closest: tuple[tuple[int, int, float], ...]
    dimensions: float

    @property
    def support(self) -> float:
        """How many equally likely different pictures would give this rate; where no pair was seen, the least that it may be."""
        return 1 / self.rate if self.pairs else self.samples * (self.samples - 1) / 6  # rule of three


@dataclass(frozen=True)
class Modes:
    """Clusters of samples.

    Attributes:
        count: 1 where there are none that are both clearer than in Gaussian samples and stable.
        best: the number of clusters with the highest silhouette.
        silhouette, expected: -1..1, of the samples and the highest of Gaussian samples with the same spectrum.
        stability: agreement (adjusted Rand index) of the clusters found from two halves of the samples.
        labels: int64 [N].
    """

    count: int
    best: int
    silhouette: float
    expected: float
    stability: float
    labels: NDArray[np.int64]


def picture_rows(images: Tensor) -> Rows:
    """Images [N, C, H, W] averaged on a grid of at most ``GRID`` cells a side, as float64 [N, D]; what is not finite is 0."""
    size = (min(GRID, images.shape[2]), min(GRID, images.shape[3]))
    parts = [adaptive_avg_pool2d(torch.nan_to_num(part.float()), size) for part in torch.split(images, 64)]
    return np.asarray(torch.cat(parts).flatten(1).double().numpy())


def contrast(images: Tensor) -> float:
    """The mean energy of a picture around its own mean colour, on the grid of :func:`picture_rows`."""
    rows = picture_rows(images).reshape(len(images), images.shape[1], -1)
    return float((rows - rows.mean(2, keepdims=True)).__pow__(2).sum((1, 2)).mean())


def collisions(rows: Rows, energy: float, rng: np.random.Generator, *, draws: int = 99) -> Collisions:
    """Near-duplicates among samples and what Gaussian samples with the same spectrum would have.

    The rate is a U-statistic; its interval adds Hoeffding's (1948) first-order variance and that of a Poisson count. Arora & Zhang
    2017 (Do GANs learn the distribution?): a set of s equally likely pictures gives a rate of 1/s, whatever the number of samples.

    Args:
        rows: float64 [N, D], N ≥ 3.
        energy: of a picture; a pair whose squared distance is at most ``ENERGY`` of it counts.
        rng: draws the Gaussian samples.
        draws: sets of Gaussian samples; none are drawn where no pair counts.
    """
    n = len(rows)
    scale = max(energy * ENERGY, 1e-12) ** 0.5
    distances = _distances(rows) / scale
    close = np.tril(distances <= 1, -1)
    pairs, total = int(close.sum()), n * (n - 1) // 2
    degrees = (close.sum(0) + close.sum(1)) / (n - 1)
    half = Z95 * float(np.sqrt(4 * degrees.var() / n + pairs / total**2))
    scores, dimensions = _components(rows)
    first = _distances(rng.standard_normal((n, scores.shape[1])) * scores.std(0)) / scale
    counts = [int(np.tril(first <= 1, -1).sum())]
    for _ in range(draws - 1 if pairs else 0):
        drawn = _distances(rng.standard_normal((n, scores.shape[1])) * scores.std(0)) / scale
        counts.append(int(np.tril(drawn <= 1, -1).sum()))
    p = (1 + sum(count >= pairs for count in counts)) / (1 + len(counts)) if pairs else 1.0
    rate = pairs / total
    return Collisions(
        n, pairs, rate, max(0.0, rate - half), min(1.0, rate + half), float(np.mean(counts)) / total, p,
        float((degrees > 0).mean()), distances.min(1), first.min(1), _closest(distances), dimensions,
    )  # fmt: skip


def modes(rows: Rows, rng: np.random.Generator, *, draws: int = 3) -> Modes:
    """Clusters by k-means in the first ten principal components, the number of them by the silhouette (Rousseeuw 1987).

    They count only where the silhouette is ``CLEAR`` above that of Gaussian samples with the same spectrum, clustered the same way, and
    where clusters found from either half of the samples agree on all of them (adjusted Rand index of ``STABLE`` or more).
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    scores = _components(rows)[0][:, :10]
    seed = int(rng.integers(2**31))
    with threadpool_limits(limits=1):
        best, silhouette, labels = _clustered(scores, seed)
        null = [_clustered(rng.standard_normal(scores.shape) * scores.std(0), seed)[1] for _ in range(draws)]
        stability = _agreement(scores, best, rng, seed)
    clear = silhouette > max(null) + CLEAR and stability >= STABLE
    return Modes(best if clear else 1, best, silhouette, max(null), stability, labels)


def _distances(rows: Rows) -> Rows:
    """float64 [N, N], infinite on the diagonal."""
    points = torch.from_numpy(rows - rows.mean(0))
    found = torch.cdist(points, points, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return np.asarray(found.numpy())


def _components(rows: Rows) -> tuple[Rows, float]:
    """Principal scores that hold all but 1e-4 of the variance, float64 [N, K], and the participation ratio of the spectrum."""
    centred = rows - rows.mean(0)
    left, spread, _ = np.linalg.svd(centred @ centred.T, hermitian=True)
    held = spread.cumsum() / max(float(spread.sum()), 1e-300)
    count = max(1, min(int((held < 1 - 1e-4).sum()) + 1, len(rows) - 1))
    dimensions = float(spread.sum() ** 2 / max(float((spread**2).sum()), 1e-300))
    return left[:, :count] * np.sqrt(spread[:count]), dimensions


def _closest(distances: Rows, count: int = 8) -> tuple[tuple[int, int, float], ...]:
    found: list[tuple[int, int, float]] = []
    used: set[int] = set()
    for one in np.argsort(distances.min(1), kind="stable").tolist():
        other = int(distances[one].argmin())
        if one not in used and other not in used and len(found) < count:
            found.append((min(one, other), max(one, other), float(distances[one, other])))
            used |= {one, other}
    return tuple(found)


def _clustered(scores: Rows, seed: int) -> tuple[int, float, NDArray[np.int64]]:
    """(number of clusters, silhouette, labels int64 [N]) with the highest silhouette."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    best = (1, -1.0, np.zeros(len(scores), np.int64))
    for count in COUNTS:
        if count < len(scores) // 4 and len(np.unique(scores.round(9), axis=0)) > count:
            labels = KMeans(count, n_init=2, random_state=seed).fit_predict(scores)
            found = float(silhouette_score(scores, labels))
            best = (count, found, labels.astype(np.int64)) if found > best[1] else best
    return best


def _agreement(scores: Rows, count: int, rng: np.random.Generator, seed: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    order = rng.permutation(len(scores))
    if count < 2:
        return 0.0
    halves = [order[: len(order) // 2], order[len(order) // 2 :]]
    guesses = [KMeans(count, n_init=2, random_state=seed).fit(scores[half]).predict(scores) for half in halves]
    return float(adjusted_rand_score(*guesses))
