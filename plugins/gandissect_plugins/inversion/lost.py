"""Which concepts real images have and their inversions have not, beyond what the generator's own images lose.

found = losses(session, real, own)
[one.name for one in found if one.told]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gandissect.concepts import LOW_LEVEL
from gandissect.metrics import permutation_p
from gandissect.session import Session
from gandissect.trust import adjusted
from gandissect_plugins.attributions.checks import paired

from .measuring import Tried

Matrix = NDArray[np.float64]
RATE = 0.05
LEAST_LOST = 0.1
"""Share of a concept's area that has to be lost."""
PRESENT = 5
"""Real images that have to hold a concept for it to be tested: fewer cannot pass a test of signs."""
EXCHANGES = 4000
TOGETHER = 8
"""Images whose masks are held at once."""


@dataclass(frozen=True)
class Loss:
    """One concept in images and in their inversions.

    Attributes:
        name: what it is.
        real: mean share of a real image that it covers.
        inverted: the same of their inversions.
        low, high: 95 % interval of what is lost, real minus inverted, over images.
        kept: share of its pixels that are still of it in the inversion.
        own: what the generator's own images lose.
        own_kept: share of its pixels there that are still of it; NaN where none of them holds it.
        inside: mean error inside it over the mean error of the same images.
        images: real images that hold it.
        p: the larger one of two: signs of the paired losses flipped, and real and own images exchanged; adjusted over concepts.
        thing: it is more than a look (a colour, an edge).
    """

    name: str
    real: float
    inverted: float
    low: float
    high: float
    kept: float
    own: float
    own_kept: float
    inside: float
    images: int
    p: float
    thing: bool

    @property
    def lost(self) -> float:
        """Mean share of the image that is lost; negative where inversions have more of it."""
        return self.real - self.inverted

    @property
    def told(self) -> bool:
        """It passed both tests, and a tenth of its area is lost."""
        return self.p < RATE and self.low > 0 and self.lost >= LEAST_LOST * self.real


@dataclass(frozen=True)
class _Covered:
    """Float64 [N, K] each: share of the image before, after, and both; mean error inside, in units of the image's own."""

    before: Matrix
    after: Matrix
    both: Matrix
    inside: Matrix


def losses(session: Session, real: Tried, own: Tried) -> list[Loss]:
    """Every concept that five real images hold, the largest share lost first; empty where nothing reads pixels."""
    vocabulary = session.vocabulary
    chosen = [k for k, concept in enumerate(vocabulary.concepts) if not concept.spatial]
    if not chosen or not vocabulary.reads_pixels:
        return []
    seen, made = _covered(session, real, chosen), _covered(session, own, chosen)
    tested = [column for column in range(len(chosen)) if (seen.before[:, column] > 0).sum() >= PRESENT]
    if not tested:
        return []
    lost, floor = (part.before[:, tested] - part.after[:, tested] for part in (seen, made))
    rng = session.rng("inversion: what is lost")
    beyond = np.where(lost.mean(0) > floor.mean(0), permutation_p(lost, floor, EXCHANGES, rng), 1.0)
    signs = [paired(torch.from_numpy(column.copy()), rng) for column in lost.T]
    p = adjusted(np.maximum(beyond, [one.p for one in signs]))
    found = []
    for place, column in enumerate(tested):
        concept = vocabulary.concepts[chosen[column]]
        before = seen.before[:, column]
        found.append(
            Loss(
                concept.name,
                float(before.mean()),
                float(seen.after[:, column].mean()),
                signs[place].low,
                signs[place].high,
                _share(seen.both[:, column], before),
                float(floor[:, place].mean()),
                _share(made.both[:, column], made.before[:, column]),
                float(seen.inside[before > 0, column].mean()),
                int((before > 0).sum()),
                float(p[place]),
                concept.category not in LOW_LEVEL,
            )
        )
    return sorted(found, key=lambda one: (not one.told, not one.thing, -one.lost))


def _share(part: Matrix, whole: Matrix) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() > 0 else float("nan")


def _covered(session: Session, tried: Tried, chosen: Sequence[int]) -> _Covered:
    parts = []
    for start in range(0, len(tried.images), TOGETHER):
        rows = slice(start, start + TOGETHER)
        before, after = (
            session.segment(images[rows], only=chosen).flatten(2) for images in (tried.images, tried.found.images)
        )
        errors = tried.maps[rows].flatten(1).double()
        covered = before.sum(2).clamp(min=1)
        inside = torch.einsum("nkp,np->nk", before.double(), errors) / covered
        inside = inside / errors.mean(1, keepdim=True).clamp(min=1e-12)
        parts.append(torch.stack([*(m.double().mean(2) for m in (before, after, before & after)), inside]))
    return _Covered(*(table.numpy() for table in torch.cat(parts, 1)))
