"""Against real images: modes that get no samples, and samples that are copies.

covered = coverage(fitted, held, generated, rng)
copied = copying(training, held, generated, rng)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gandissect.trust import adjusted

from .diversity import Rows

RARE = 0.1
"""A mode is missed where its share of samples is below this part of its share of real images."""
NEAR = 1 / 3
"""A picture is a copy where its nearest training image is so much nearer than the second nearest."""
PER_CLUSTER = 12
PER_CELL = 50
FEWEST = 64
"""Real images below which neither test is made."""


@dataclass(frozen=True)
class Coverage:
    """Clusters of real images and the samples in them.

    Attributes:
        real, generated: int64 [K], held-out real images and samples in each cluster.
        q: float64 [K], that a cluster gets as few samples by chance, adjusted over clusters.
        missed: bool [K].
        examples: int64 [K], the place in the fitted set of the image nearest to each centre.
    """

    real: NDArray[np.int64]
    generated: NDArray[np.int64]
    q: NDArray[np.float64]
    missed: NDArray[np.bool_]
    examples: NDArray[np.int64]

    @property
    def mass(self) -> float:
        """Share of the held-out real images that lie in missed clusters, 0..1."""
        return float(self.real[self.missed].sum() / max(self.real.sum(), 1))


@dataclass(frozen=True)
class Copying:
    """Are samples nearer to training images than other real images are?

    Attributes:
        statistic: C_T, in standard deviations; far below 0 where samples are too near.
        p: one-sided, by permuting samples and held-out images within cells.
        generated, held: float64, distance to the nearest training image.
        copies, held_copies: how many have a nearest training image that is three times nearer than the second.
        copies_p: that this many more occur by chance (Fisher's exact test, one-sided).
        nearest: int64 [M], place of each sample's nearest training image.
        ratio: float64 [M], nearest over second nearest.
    """

    statistic: float
    p: float
    generated: Rows
    held: Rows
    copies: int
    held_copies: int
    copies_p: float
    nearest: NDArray[np.int64]
    ratio: Rows


def coverage(fitted: Rows, held: Rows, generated: Rows, rng: np.random.Generator) -> Coverage:
    """Modes of the real images that the generator misses.

    k-means on ``fitted``; real images held out of that and samples are counted in each cluster. One-sided Fisher's exact test that a
    sample falls into it less often than a real image does, adjusted over clusters.

    Args:
        fitted: float64 [A, D], real.
        held: float64 [B, D], real.
        generated: float64 [M, D].
        rng: starts k-means.
    """
    from scipy.stats import hypergeom
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    count = max(2, min(20, len(fitted) // PER_CLUSTER))
    with threadpool_limits(limits=1):
        model = KMeans(count, n_init=3, random_state=int(rng.integers(2**31))).fit(fitted)
        real, made = (np.bincount(model.predict(rows), minlength=count) for rows in (held, generated))
        examples = model.transform(fitted).argmin(0)
    total = len(held) + len(generated)
    p = hypergeom.cdf(made, total, real + made, len(generated))
    q = adjusted(p)
    share, expected = made / len(generated), real / len(held)
    return Coverage(real, made, q, (q < 0.01) & (share < RARE * expected), examples)


def copying(training: Rows, held: Rows, generated: Rows, rng: np.random.Generator, *, draws: int = 999) -> Copying:
    """The data-copying test of Meehan, Chaudhuri & Dasgupta (2020), calibrated by permutation.

    In each cell of a partition of the training images (k-means), the Mann–Whitney z of the samples' distances to their nearest training
    image against those of held-out images; C_T is their mean, weighted by the share of held-out images (their section 3).

    Args:
        training: float64 [A, D].
        held: float64 [B, D], real images that are not among ``training``.
        generated: float64 [M, D].
        rng: starts k-means, draws permutations.
        draws: permutations.
    """
    from scipy.stats import hypergeom
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    near, near_held = _two_nearest(generated, training), _two_nearest(held, training)
    count = max(1, min(10, len(held) // PER_CELL))
    with threadpool_limits(limits=1):
        model = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit(training)
        cells = [model.predict(rows) for rows in (generated, held)]
    statistic, null = _c_t(near[0][:, 0], near_held[0][:, 0], cells, count, rng, draws)
    ratio, ratio_held = (d[:, 0] / np.maximum(d[:, 1], 1e-12) for d, _ in (near, near_held))
    copies, held_copies = int((ratio < NEAR).sum()), int((ratio_held < NEAR).sum())
    chance = hypergeom.sf(copies - 1, len(generated) + len(held), copies + held_copies, len(generated))
    p = (1 + int((null <= statistic + 1e-12).sum())) / (1 + draws)
    return Copying(statistic, p, near[0][:, 0], near_held[0][:, 0], copies, held_copies, float(chance), near[1], ratio)


def _c_t(
    made: Rows, held: Rows, cells: list[NDArray[np.int64]], count: int, rng: np.random.Generator, draws: int
) -> tuple[float, Rows]:
    """(C_T, float64 [draws] under permutations within cells); cells without three of each kind are left out."""
    from scipy.stats import rankdata

    total, null, weight = 0.0, np.zeros(draws), 0.0
    for cell in range(count):
        mine, theirs = made[cells[0] == cell], held[cells[1] == cell]
        m, n = len(mine), len(theirs)
        if min(m, n) < 3:
            continue
        ranks = rankdata(np.concatenate([mine, theirs]))
        middle, spread = m * (m + n + 1) / 2, float(np.sqrt(m * n * ranks.var(ddof=1) / (m + n))) or 1.0
        shuffled = rng.permuted(np.broadcast_to(ranks, (draws, m + n)), axis=1)[:, :m].sum(1)
        total += n * (float(ranks[:m].sum()) - middle) / spread
        null += n * (shuffled - middle) / spread
        weight += n
    return total / max(weight, 1.0), null / max(weight, 1.0)


def _two_nearest(rows: Rows, training: Rows) -> tuple[Rows, NDArray[np.int64]]:
    """Distances float64 [N, 2] to the two nearest training images, and the place int64 [N] of the nearest."""
    found = torch.cdist(torch.from_numpy(rows), torch.from_numpy(training)).topk(2, dim=1, largest=False)
    return found.values.numpy(), found.indices[:, 0].numpy()
