"""Samples in two groups by one number each, and the concepts for which that makes sense.

halves(areas)                                    # bool [N]: above the median; above 0 where most are 0
usable_concepts(session, 500, limit=6)           # [("sky", bool [500]), ...]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gandissect.concepts import telling_first
from gandissect.session import Session

from .embedding import Floats

RAREST = 0.1


def halves(values: Floats) -> NDArray[np.bool_] | None:
    """Which values are large: bool [N]; None where fewer than a tenth of them are on one side.

    Large is above the median, or above 0 where at least half of the values are 0 (a concept that most samples lack).
    """
    above = np.asarray(values > np.median(values), bool)
    return above if RAREST <= above.mean() <= 1 - RAREST else None


def usable_concepts(session: Session, n: int, limit: int) -> list[tuple[str, NDArray[np.bool_]]]:
    """The ``limit`` most telling concepts, each with the samples that have much of it: (name, bool [n]).

    Places (spatial concepts) are left out, and so are concepts that hardly any or nearly all samples have.
    """
    concepts = session.vocabulary.concepts
    if not concepts:
        return []
    areas = session.areas(n)
    found = []
    for index in telling_first(concepts, areas):
        large = halves(areas[:, index].numpy())
        if large is not None:
            found.append((concepts[index].name, large))
    return found[:limit]
