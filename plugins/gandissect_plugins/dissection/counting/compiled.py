"""Inner loops of counting at the image's resolution, compiled when this module is first imported and kept on disk.

count_maps(maps, level, Words(concepts, inside), geometry, counts, active)      # adds to counts int64 [N * U, K]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., object])
_ROUNDING = 1e-12
"""How far all corners are to be above a level, beside their differences, for no pixel between them to be rounded below it."""


class Geometry(NamedTuple):
    """Where the pixel of each bit of a block's words lies: ``down`` and ``across`` float64 [W, bits], 0..1 from the first to the second
    centre; bits without a pixel are never in a mask."""

    down: np.ndarray
    across: np.ndarray


class Words(NamedTuple):
    """Pixels as bits of unsigned words: ``concepts`` [n, blocks, K, W] of the masks, ``inside`` [blocks, W] of the image."""

    concepts: np.ndarray
    inside: np.ndarray


class Entries(NamedTuple):
    """Active cells: ``unit``, ``sample``, ``cell`` int64 [M], and ``near`` float32 [M, 9], the 3×3 cells around each."""

    unit: np.ndarray
    sample: np.ndarray
    cell: np.ndarray
    near: np.ndarray


def _compiled(function: F) -> F:
    return cast(F, njit(cache=True, error_model="numpy")(function))


def _inlined(function: F) -> F:
    return cast(F, njit(cache=True, error_model="numpy", forceinline=True)(function))


def _ones_of(typingctx: object, word: object) -> tuple[object, Callable[..., object]]:
    """The processor's count of set bits."""

    def code(_context: object, builder: object, _signature: object, arguments: tuple[object]) -> object:
        return builder.ctpop(arguments[0])  # type: ignore[attr-defined]  # llvmlite has no types

    return types.uint64(types.uint64), code


_ones = cast(Callable[[object], int], intrinsic(_ones_of))


@_inlined
def _add_block(
    corners: tuple[float, float, float, float],
    least: float,
    geometry: Geometry,
    masks: Words,
    place: tuple[int, int],
    counts: np.ndarray,
    row: int,
) -> int:
    """The pixels above ``least`` in block ``place`` (sample, block) with corners a b over c d; with concepts added to ``counts[row]``."""
    a, b, c, d = corners
    total = np.int64(0)
    whole = min(corners) - least > _ROUNDING * (max(corners) - min(corners) + abs(least))
    for w in range(geometry.down.shape[0]):
        lit = np.uint64(0)
        if whole:
            lit = ~lit
        for bit in range(0 if whole else geometry.down.shape[1]):
            left = a + (c - a) * geometry.down[w, bit]
            right = b + (d - b) * geometry.down[w, bit]
            lit |= np.uint64(left + (right - left) * geometry.across[w, bit] > least) << np.uint64(bit)
        total += np.int64(_ones(lit & np.uint64(masks.inside[place[1], w])))
        for k in range(counts.shape[1]):
            counts[row, k] += np.int64(_ones(lit & np.uint64(masks.concepts[place[0], place[1], k, w])))
    return int(total)


@_compiled
def count_maps(
    maps: np.ndarray, level: np.ndarray, masks: Words, geometry: Geometry, counts: np.ndarray, active: np.ndarray
) -> None:
    """Add to ``counts`` int64 [N * U, K] the pixels above ``level`` float64 [U] with each concept, to ``active`` int64 [N, U] all.

    ``maps`` are float32 [N, U, h, w].
    """
    samples, units, height, width = maps.shape
    for n in range(samples):
        for u in range(units):
            least = level[u]
            for y in range(height + 1):
                upper, lower = max(y - 1, 0), min(y, height - 1)
                for x in range(width + 1):
                    first, second = max(x - 1, 0), min(x, width - 1)
                    a, b = np.float64(maps[n, u, upper, first]), np.float64(maps[n, u, upper, second])
                    c, d = np.float64(maps[n, u, lower, first]), np.float64(maps[n, u, lower, second])
                    if max(a, b, c, d) > least:
                        place = n, y * (width + 1) + x
                        active[n, u] += _add_block((a, b, c, d), least, geometry, masks, place, counts, n * units + u)


@_compiled
def count_around(
    entries: Entries,
    level: np.ndarray,
    width: int,
    masks: Words,
    geometry: Geometry,
    counts: np.ndarray,
    active: np.ndarray,
) -> None:
    """Add to ``counts`` int64 [U, K] and ``active`` int64 [U, n] the pixels above ``level`` float64 [U] in the blocks around cells.

    A block belongs to the first of its corners, in reading order, that is above the level; maps are ``width`` cells wide.
    """
    near = entries.near
    for m in range(len(near)):
        y, x = entries.cell[m] // width, entries.cell[m] % width
        unit, sample = entries.unit[m], entries.sample[m]
        least = level[unit]
        north_west = y > 0 and x > 0 and near[m, 0] > least
        north = y > 0 and near[m, 1] > least
        north_east = y > 0 and x + 1 < width and near[m, 2] > least
        west = x > 0 and near[m, 3] > least
        for number in range(4):
            if number == 0:
                taken = north_west or north or west
            elif number == 1:
                taken = north or north_east
            else:
                taken = number == 2 and west
            if not taken:
                corner = number // 2 * 3 + number % 2
                a, b = np.float64(near[m, corner]), np.float64(near[m, corner + 1])
                c, d = np.float64(near[m, corner + 3]), np.float64(near[m, corner + 4])
                place = sample, (y + number // 2) * (width + 1) + x + number % 2
                active[unit, sample] += _add_block((a, b, c, d), least, geometry, masks, place, counts, unit)
