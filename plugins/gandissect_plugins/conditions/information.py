"""How many bits a condition tells about a measured property, beside what chance gives.

found = information(groups, properties, session.rng("information"))
found.bits, found.null, found.p          # float64 [P] each
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from .condition import evenly

Rows = NDArray[np.float64]
MOST_BINS = 16
DRAWS = 1000
_TOGETHER = 20


@dataclass(frozen=True)
class Information:
    """Mutual information of groups of samples with each of P quantities.

    Attributes:
        bits: float64 [P], the estimate less what permuted groups give on average; not below 0.
        null: float64 [P], what permuted groups give on average, which is the estimator's bias.
        high: float64 [P], what 95 % of permutations stay below, less ``null``.
        p: float64 [P], how often a permutation gives as much.
        entropy: bits that the groups hold, the most that anything can be told about them.
    """

    bits: Rows
    null: Rows
    high: Rows
    p: Rows
    entropy: float


def information(groups: NDArray[np.int64], values: Rows, rng: np.random.Generator, draws: int = DRAWS) -> Information:
    """Mutual information in bits between groups and quantities, the latter in equally full bins.

    I = Σ p(g, b) log₂ p(g, b) / (p(g) p(b)) (Shannon 1948), from counts. Counts of a few samples give too much (Miller 1955); here
    the mean over permuted groups, which have the same margins and no information, is subtracted.

    Args:
        groups: int64 [N], numbers from 0.
        values: float64 [N, P].
        rng: permutes.
        draws: permutations.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    n, count = len(groups), int(groups.max()) + 1
    bins = int(np.clip(n // (5 * count), 4, MOST_BINS))
    cells, starts = _cells(values, bins)
    members = np.eye(count, dtype=np.float32)[groups]

    def bits_of(chosen: NDArray[np.float32]) -> Rows:
        """float64 [R, P] for R arrangements of the groups, float32 [N, R * count]."""
        table = (chosen.T @ cells).astype(np.float64).reshape(-1, count, cells.shape[1])
        inside = np.add.reduceat(xlogy(table, table).sum(1), starts[:-1], axis=1)
        across = np.add.reduceat(xlogy(cells.sum(0), cells.sum(0)).astype(np.float64), starts[:-1])
        sizes = members.sum(0).astype(np.float64)
        return np.asarray((inside - xlogy(sizes, sizes).sum() - across + xlogy(n, n)) / (n * np.log(2)))

    with threadpool_limits(limits=1):
        raw = bits_of(members)[0]
        permuted = [
            bits_of(np.concatenate([members[rng.permutation(n)] for _ in range(min(_TOGETHER, draws - start))], 1))
            for start in range(0, draws, _TOGETHER)
        ]
    chance = np.concatenate(permuted)
    null = chance.mean(0)
    share = members.mean(0).astype(np.float64)
    return Information(
        np.maximum(raw - null, 0.0),
        null,
        np.percentile(chance, 95, axis=0) - null,
        (1 + (chance >= raw - 1e-9).sum(0)) / (draws + 1),
        float(-xlogy(share, share).sum() / np.log(2)),
    )


def _cells(values: Rows, bins: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Which bin of each quantity every sample is in, float32 [N, bins of all], and where the bins of each begin, int64 [P + 1]."""
    columns = [evenly(column, bins) for column in values.T]
    starts = np.cumsum([0, *(int(column.max()) + 1 for column in columns)])
    cells = np.zeros((len(values), starts[-1]), np.float32)
    for start, column in zip(starts, columns, strict=False):
        cells[np.arange(len(values)), start + column] = 1.0
    return cells, starts
