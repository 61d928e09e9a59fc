"""Units that say what another unit says.

duplicate_units(session)                 # [DuplicateUnits("act1", 16, ((0, 4, 1.0),))]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.gan import Gan
from gandissect.reducers import KeepSpec
from gandissect.session import Session, Want
from gandissect.streams import Activations, Batch, Role, Stream

ALIKE = 0.99
"""|r| over cells from which on two units count as duplicates."""
LAYERS = 8
SIDE = 8
SAMPLES = 64


@dataclass(frozen=True)
class SomeCells(Stream):
    """A layer's output at evenly spaced cells, at most ``side`` × ``side``: float32 [N, C, h, w]."""

    name: str
    side: int = SIDE

    def of(self, batch: Batch) -> Tensor:
        maps = batch.get(Activations(self.name))
        steps = [-(-size // self.side) for size in maps.shape[2:]]
        return maps[:, :, :: steps[0], :: steps[1]]

    def layer(self, role: Role) -> str | None:
        return self.name if role == "generator" else None


@dataclass(frozen=True)
class DuplicateUnits:
    """Units of a layer that duplicate an earlier one: (earlier unit, duplicate, r); ``redundant`` is how many units that are."""

    layer: str
    units: int
    pairs: tuple[tuple[int, int, float], ...]

    @property
    def redundant(self) -> int:
        """Number of units that could be left out."""
        return len({later for _, later, _ in self.pairs})


def unit_wants(gan: Gan, n: int) -> list[Want]:
    """What :func:`duplicate_units` needs of a pass over ``n`` samples."""
    layers = spread(gan.generator.main_layers(), LAYERS)
    return [Want((SomeCells(info.name),), KeepSpec(), min(n, SAMPLES)) for info in layers if info.channels > 1]


def duplicate_units(session: Session) -> list[DuplicateUnits]:
    """Pairs of units whose correlation over cells is beyond ±``ALIKE`` in each half of the samples.

    Both halves, because two sparse units that share one large value in one sample correlate as well.
    """
    found = []
    for want in unit_wants(session.gan, session.n):
        values = cast(Tensor, session[want]).transpose(0, 1).double().numpy()  # [C, N, h, w]
        units, n = values.shape[:2]
        halves = [values[:, : n // 2].reshape(units, -1), values[:, n // 2 :].reshape(units, -1)]
        r = [_correlations(half) for half in halves if half.shape[1] > 2]
        least = np.minimum(*map(np.abs, r)) if len(r) == 2 else np.zeros((units, units))
        later, earlier = np.nonzero(np.tril(least > ALIKE, -1))
        pairs = tuple((int(a), int(b), float(r[0][a, b])) for a, b in zip(earlier, later, strict=True))
        found.append(DuplicateUnits(cast(SomeCells, want.streams[0]).name, units, pairs))
    return found


def _correlations(rows: np.ndarray) -> np.ndarray:
    """float64 [C, C]; 0 for rows that do not vary."""
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    still = norms <= 1e-9 * (1e-300 + np.abs(rows).max(1)) * rows.shape[1] ** 0.5
    unit = centred / np.where(still, np.inf, norms)[:, None]
    return np.asarray(unit @ unit.T)
