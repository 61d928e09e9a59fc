"""InterFaceGAN's directions of the probed properties: the support vector machine's, and those freed of side effects.

boundaries, targets = interfacegan(probes)               # "brightness (SVM)", "brightness without saturation"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .basis import Directions
from .probe_section import Probed
from .probes import conditioned

MOST = 4


def interfacegan(probes: Sequence[Probed], size: int) -> tuple[Directions, tuple[str, ...]]:
    """(directions, the property each is for) of up to four probed properties that passed, those that change most first.

    For a property that takes others along (by more than half of its own change) a second direction has theirs projected out.

    Args:
        probes: all that were probed.
        size: D.

    References:
        Shen, Gu, Tang, Zhou 2020, InterFaceGAN, sec. 3.2.
    """
    boundaries = {item.first.name: item.second.direction for item in probes if not item.area}
    chosen = sorted((item for item in probes if item.passed and not item.area), key=lambda item: -item.change)[:MOST]
    names, vectors, accuracies, targets = [], [], [], []
    for item in chosen:
        name, boundary = item.first.name, boundaries[item.first.name]
        sides = item.effects.side_effects(item.row, item.column)
        along = [other for other, change in sides if change > item.change / 2 and other in boundaries]
        both = [(f"{name} (SVM)", boundary)]
        if along and len(along) < size:
            freed = conditioned(boundary, np.stack([boundaries[other] for other in along]))
            both.append((f"{name} without {' and '.join(along)}", freed.astype(np.float32)))
        for title, vector in both:
            names.append(title)
            vectors.append(vector)
            accuracies.append(item.second.accuracy)
            targets.append(name)
    rows = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, size), np.float32)
    found = Directions(
        "InterFaceGAN", tuple(names), rows, np.array(accuracies), "held-out accuracy of the boundary", np.zeros(0)
    )
    return found, tuple(targets)
