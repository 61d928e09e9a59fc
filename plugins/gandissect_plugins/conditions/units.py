"""How much of a unit's variation goes with a condition.

differing(units, groups, rng)["layer3"].eta              # float64 [U], 0..1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandissect.trust import adjusted

Rows = NDArray[np.float64]
DRAWS = 100


@dataclass(frozen=True)
class UnitEffects:
    """The units of one layer.

    Attributes:
        eta: float64 [U], the share of a unit's variance over samples (of its ranks) that lies between values.
        null: what permuted values give on average over the layer's units; ``null_high`` what 95 % of those stay below.
        p: float64 [U], adjusted over the units of all layers.
        most: int64 [U], the value under which the unit's mean is largest; ``means`` float64 [K, U].
    """

    eta: Rows
    null: float
    null_high: float
    p: Rows
    most: NDArray[np.int64]
    means: Rows

    @property
    def told(self) -> NDArray[np.bool_]:
        """bool [U]: units that differ."""
        return np.asarray(self.p < 0.05)


def differing(
    units: Mapping[str, NDArray[np.float32]], groups: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, UnitEffects]:
    """Eta squared on ranks of every unit of every layer (Kruskal & Wallis 1952: H = (n − 1) η²), against permuted groups.

    Ranks have the same null distribution for all units of a layer but for ties, so their permutations are pooled.
    """
    from scipy.stats import rankdata
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    members = np.eye(int(groups.max()) + 1)[groups]
    orders = [rng.permutation(len(groups)) for _ in range(DRAWS)]
    raw = {}
    for layer, values in units.items():
        ranks = rankdata(values, axis=0)
        ranks = ranks - ranks.mean(0)
        with threadpool_limits(limits=1):
            eta = _eta(ranks, members)
            chance = np.sort(np.concatenate([_eta(ranks, members[order]) for order in orders]))
        above = len(chance) - np.searchsorted(chance, eta - 1e-9, side="left")
        raw[layer] = (eta, chance, np.where(eta > 0, (1 + above) / (1 + len(chance)), 1.0))
    corrected = adjusted(np.concatenate([p for *_, p in raw.values()])) if raw else np.zeros(0)
    found, start = {}, 0
    for layer, (eta, chance, _) in raw.items():
        means = (members.T @ units[layer]) / members.sum(0)[:, None]
        share = corrected[start : start + len(eta)]
        start += len(eta)
        high = float(np.percentile(chance, 95))
        found[layer] = UnitEffects(eta, float(chance.mean()), high, share, means.argmax(0), means)
    return found


def _eta(ranks: Rows, members: Rows) -> Rows:
    """Between-group over total sum of squares of centred columns [N, U]; 0 for a constant one."""
    sums = members.T @ ranks
    between = (sums**2 / members.sum(0)[:, None]).sum(0)
    total = (ranks**2).sum(0)
    return np.asarray(np.divide(between, total, out=np.zeros_like(total), where=total > 0))
