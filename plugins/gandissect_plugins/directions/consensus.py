"""Whether different methods find the same directions: principal angles between what they span, and nearest neighbours.

found = consensus([ganspace_directions, sefa_directions], rng)
found.agreement[0, 1], found.chance[0, 1]                # mean cos² of the principal angles, and that of random spaces
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandissect_plugins.features.embedding import Floats

from .basis import Directions, unit_rows
from .effects import Matrix, random_directions

DRAWS = 500


@dataclass(frozen=True)
class Consensus:
    """What methods agree on.

    Attributes:
        methods: M of them.
        agreement: float64 [M, M], mean cos² of the principal angles between their spans, 0..1.
        chance: float64 [M, M], what random spaces of the same dimensions have on average.
        angles: float64 [M, M], the smallest principal angle in degrees.
        nearest: direction -> (nearest direction of another source, |cosine|); variants of a method are one source.
        by_chance: direction -> the |cosine| that 95 % of random directions stay below.
    """

    methods: tuple[str, ...]
    agreement: Matrix
    chance: Matrix
    angles: Matrix
    nearest: dict[str, tuple[str, float]]
    by_chance: dict[str, float]


def principal_cosines(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Cosines of the principal angles between the spans of rows [K, D] and [L, D], largest first: float64 [min(K, L)]."""
    # Björck & Golub 1973, theorem 1: singular values of the product of orthonormal bases
    bases = [np.linalg.qr(np.asarray(rows, np.float64).T)[0] for rows in (first, second)]
    return np.asarray(np.clip(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False), 0, 1), np.float64)


def source(part: Directions) -> str:
    """What a method's directions come from; methods with the same source cannot confirm each other."""
    first = part.method.replace(",", "").split()[0]
    return "labels" if first in ("probes", "InterFaceGAN") else first


def consensus(parts: Sequence[Directions], rng: np.random.Generator) -> Consensus:
    """Agreement of methods whose directions live in one space; ``rng`` draws the random directions."""
    count, size = len(parts), parts[0].vectors.shape[1]
    agreement, chance, angles = np.ones((count, count)), np.ones((count, count)), np.zeros((count, count))
    for i, one in enumerate(parts):
        for j, other in enumerate(parts[:i]):
            cosines = principal_cosines(one.vectors, other.vectors)
            agreement[i, j] = agreement[j, i] = float((cosines**2).mean())
            # the mean of ||AᵀB||² over random spaces of dimensions k and l is k l / D
            chance[i, j] = chance[j, i] = max(len(one.vectors), len(other.vectors)) / size
            angles[i, j] = angles[j, i] = float(np.degrees(np.arccos(cosines[0])))
    drawn = random_directions(DRAWS, size, rng)
    nearest, by_chance = {}, {}
    for part in parts:
        rest = [other for other in parts if source(other) != source(part)]
        rows = unit_rows(np.concatenate([other.vectors for other in rest])) if rest else np.zeros((0, size))
        names = [name for other in rest for name in other.names]
        if not names:
            continue
        limit = float(np.quantile(np.abs(drawn @ rows.T).max(1), 0.95))
        for name, vector in zip(part.names, unit_rows(part.vectors), strict=True):
            cosines = np.abs(rows @ vector)
            nearest[name] = names[int(cosines.argmax())], float(cosines.max())
            by_chance[name] = limit
    methods = tuple(part.method for part in parts)
    return Consensus(methods, agreement, np.minimum(chance, 1.0), angles, nearest, by_chance)
