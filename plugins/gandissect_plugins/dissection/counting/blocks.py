"""Overlaps at the image's resolution from the kept cells and their neighbours alone: no second pass, no upsampled map.

counts = block_counts(tail, level, masks, (32, 32), groups)
counts.overlap                                      # int64 [U, K], pixels

Between the centres of four cells a bilinear map is never above the largest of the four. So all pixels above a unit's level are in the
blocks around its active cells, and a block follows from its four corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.reducers import BitsResult, TailResult

_CHUNK = 2**20  # pixels evaluated at a time
_MASK_BYTES = 128 * 2**20
WORTH = 2**30
"""Pixels of all units and samples from which on compiled loops save more time than it takes to compile them."""
_CORNERS = (
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (3, 4, 6, 7),
    (4, 5, 7, 8),
)  # of the blocks north-west to south-east of the middle
_EARLIER = ((0, 1, 3), (1, 2), (3,), ())  # corners that come before the middle in reading order


@dataclass(frozen=True)
class PixelTable:
    """Pixels where units are above their level and concepts are present, exact integers.

    Attributes:
        overlap: int64 [U, K], active pixels that have the concept; ``active_in`` int64 [U, K], in samples that hold any concept
            of the same group; ``active`` int64 [U]; ``area`` int64 [K].
    """

    overlap: Tensor
    active_in: Tensor
    active: Tensor
    area: Tensor


@dataclass(frozen=True)
class Grid:
    """A map of ``height`` × ``width`` cells under an image whose sides are ``scale`` times as long (rows, columns)."""

    height: int
    width: int
    scale: tuple[int, int]

    @classmethod
    def under(cls, image: Sequence[int], cells: Sequence[int]) -> Grid | None:
        """The grid of (height, width) cells under an image of (height, width) pixels; None where cells are not whole pixels."""
        if image[0] % cells[0] or image[1] % cells[1]:
            return None
        return cls(cells[0], cells[1], (image[0] // cells[0], image[1] // cells[1]))

    @property
    def blocks(self) -> int:
        """Blocks between cell centres, those at the border included."""
        return (self.height + 1) * (self.width + 1)

    @property
    def pixels(self) -> int:
        """Pixels of a block."""
        return self.scale[0] * self.scale[1]

    def lit(self, corners: Tensor, level: Tensor) -> Tensor:
        """Which pixels of blocks are above ``level`` float64 [B]: bool [B, pixels]; corners float64 [B, 4], two over two.

        Bilinear as of ``align_corners=False``, first down the sides and then across, so that what is flat stays exactly flat.
        """
        down, across = (_along(size) for size in self.scale)
        left, right = (corners[:, [side]] + (corners[:, [side + 2]] - corners[:, [side]]) * down for side in (0, 1))
        values = left[..., None] + (right - left)[..., None] * across
        return (values > level[:, None, None]).flatten(1)

    def geometry(self, word: int) -> tuple[np.ndarray, np.ndarray]:
        """How far down and across its block the pixel of each bit is, in words of so many bytes: float64 [W, bits] each."""
        place = np.arange(self.pixels)
        byte, bit = place // 8, 7 - place % 8  # numpy.packbits begins with the highest
        found = np.zeros((2, -(-self.pixels // (8 * word)), 8 * word))
        down, across = (_along(size).numpy() for size in self.scale)
        found[:, byte // word, byte % word * 8 + bit] = down[place // self.scale[1]], across[place % self.scale[1]]
        return found[0], found[1]

    def words(self, masks: Tensor) -> np.ndarray:
        """The pixels of each block as bits: unsigned [N, blocks, K, words] of bool [N, K, H, W]; none beyond the image."""
        (above, left), (tall, wide) = (size // 2 for size in self.scale), self.scale
        samples, concepts, height, width = masks.shape
        padded = np.zeros((samples, concepts, (self.height + 1) * tall, (self.width + 1) * wide), np.bool_)
        padded[:, :, above : above + height, left : left + width] = masks.numpy()
        if tall * wide <= 8:  # a byte each
            bits = padded.view(np.uint8)
            parts = (bits[:, :, row::tall, column::wide] for row in range(tall) for column in range(wide))
            byte = sum((part << (7 - place) for place, part in enumerate(parts)), np.uint8(0))
            return np.ascontiguousarray(byte.reshape(samples, concepts, self.blocks, 1).transpose(0, 2, 1, 3))
        cut = padded.reshape(samples, concepts, self.height + 1, tall, self.width + 1, wide)
        return _packed(cut.transpose(0, 2, 4, 1, 3, 5).reshape(samples, self.blocks, concepts, tall * wide))


def _along(size: int) -> Tensor:
    """How far each pixel of a block is from its first to its second cell centre: float64 [size] in 0..1."""
    pixel = torch.arange(size, dtype=torch.float64) - size // 2
    return (pixel + 0.5) / size + 0.5


def _packed(bits: np.ndarray) -> np.ndarray:
    """Bool [..., M] as the widest unsigned words [..., W] that its bytes fill."""
    packed = np.packbits(bits, axis=-1)
    wide = next(size for size in (8, 4, 2, 1) if packed.shape[-1] % size == 0)
    return np.ascontiguousarray(packed).view(f"u{wide}")


def block_counts(
    tail: TailResult, level: Tensor, masks: BitsResult, grid: Grid, groups: Tensor, *, compiled: bool = False
) -> PixelTable:
    """Pixels above each unit's level, float64 [U], counted with the masks; ``groups`` bool [K, K], concepts of one category.

    The tail has to hold every cell above the level, with its neighbours; for ``compiled`` see :func:`map_counts`.
    """
    units, concepts = len(level), masks.shape[0]
    overlap = np.zeros((units, concepts), np.int64)
    active = np.zeros((units, len(masks)), np.int64)
    inside = grid.words(torch.ones(1, 1, *masks.shape[1:], dtype=torch.bool))[0, :, 0]
    count = _count_compiled if compiled else _count_blocks
    step = max(1, _MASK_BYTES // max(1, inside.nbytes * len(masks)))
    for start in range(0, concepts, step):
        words = _mask_words(masks, grid, slice(start, start + step))
        shared, active = np.zeros((units, words.shape[2]), np.int64), np.zeros((units, len(masks)), np.int64)
        count(tail, level, words, inside, grid, shared, active)
        overlap[:, start : start + step] = shared
    area, held = _areas(masks)
    present = ((held.float() @ groups.float()) > 0).double()
    counts = torch.from_numpy(active)
    return PixelTable(torch.from_numpy(overlap), (counts.double() @ present).long(), counts.sum(1), area)


def _count_blocks(
    tail: TailResult,
    level: Tensor,
    words: np.ndarray,
    inside: np.ndarray,
    grid: Grid,
    shared: np.ndarray,
    active: np.ndarray,
) -> None:
    """Add to ``shared`` int64 [U, K] and ``active`` int64 [U, n] the pixels above each unit's level."""
    for unit, sample, block, lit in _lit_blocks(tail, level, grid):
        _add(shared, unit, lit[:, None] & words[sample, block])
        _add(active.reshape(-1), unit * active.shape[1] + sample, lit & inside[block])


def _add(counts: np.ndarray, rows: Tensor, words: np.ndarray) -> None:
    """Add to some ``rows`` int64 [B] of ``counts`` int64 [R, …] how many bits are set in ``words`` [B, …, W]."""
    ones = np.bitwise_count(words).sum(-1, dtype=np.int64)
    torch.from_numpy(counts).index_add_(0, rows, torch.from_numpy(ones))


def _count_compiled(
    tail: TailResult,
    level: Tensor,
    words: np.ndarray,
    inside: np.ndarray,
    grid: Grid,
    shared: np.ndarray,
    active: np.ndarray,
) -> None:
    """:func:`_count_blocks` by a compiled loop."""
    from .compiled import Entries, Geometry, Words, count_around

    geometry = Geometry(*grid.geometry(inside.itemsize))
    for unit, entry in _entries(tail, level, _CHUNK // 8):
        found = (unit, tail.samples[unit, entry].long(), tail.cells[unit, entry].long(), tail.around[unit, entry])
        entries = Entries(*(part.numpy() for part in found))
        count_around(entries, level.numpy(), grid.width, Words(words, inside), geometry, shared, active)


def _entries(tail: TailResult, level: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Units, rising, and places in their tails of what is above their level, ``step`` at a time: int64 [M] each."""
    rank = (tail.values.double() > level[:, None]).sum(1)  # values are sorted
    units = torch.repeat_interleave(torch.arange(len(level)), rank)
    entries = torch.arange(len(units)) - (rank.cumsum(0) - rank)[units]
    return zip(torch.split(units, step), torch.split(entries, step), strict=True)


def map_counts(
    maps: Tensor, level: Tensor, masks: Tensor, grid: Grid, *, compiled: bool = False
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Pixels of whole maps above each unit's level: int64 [N, U, K] with each concept, and [N, U] in all.

    Args:
        maps: float32 [N, U, h, w].
        level: float64 [U].
        masks: bool [N, K, H, W].
        compiled: by a compiled loop, which pays from ``WORTH`` pixels on.
    """
    samples, units, concepts = maps.shape[0], maps.shape[1], masks.shape[1]
    shared, active = np.zeros((samples * units, concepts), np.int64), np.zeros((samples, units), np.int64)
    inside = grid.words(torch.ones(1, 1, *masks.shape[2:], dtype=torch.bool))[0, :, 0]
    words = grid.words(masks)
    if compiled:
        from .compiled import Geometry, Words, count_maps

        geometry = Geometry(*grid.geometry(inside.itemsize))
        count_maps(maps.contiguous().numpy(), level.numpy(), Words(words, inside), geometry, shared, active)
    else:
        padded = F.pad(maps, (1, 1, 1, 1), mode="replicate").flatten(0, 1)
        rows = torch.maximum(padded[:, :-1], padded[:, 1:])
        top = torch.maximum(rows[..., :-1], rows[..., 1:]).flatten(1)  # [N * U, blocks]
        some = (top > level.repeat(samples)[:, None]).nonzero()
        for row, block in (part.unbind(1) for part in torch.split(some, max(1, _CHUNK // grid.pixels))):
            y, x = torch.div(block, grid.width + 1, rounding_mode="floor"), block % (grid.width + 1)
            corners = torch.stack([padded[row, y + down, x + right] for down in (0, 1) for right in (0, 1)], 1)
            lit = _packed(grid.lit(corners.double(), level[row % units]).numpy())
            _add(shared, row, lit[:, None] & words[row.numpy() // units, block.numpy()])
            _add(active.reshape(-1), row, lit & inside[block])
    return torch.from_numpy(shared).reshape(samples, units, -1), torch.from_numpy(active)


def _mask_words(masks: BitsResult, grid: Grid, concepts: slice) -> np.ndarray:
    parts = [grid.words(masks.unpack(start, start + 16)[:, concepts]) for start in range(0, len(masks), 16)]
    return np.concatenate(parts)


def _areas(masks: BitsResult) -> tuple[Tensor, Tensor]:
    """Pixels of each concept int64 [K], and which samples have it, bool [n, K]."""
    counts = torch.cat([masks.unpack(start, start + 16).sum((2, 3)) for start in range(0, len(masks), 16)])
    return counts.sum(0), counts > 0


def _lit_blocks(tail: TailResult, level: Tensor, grid: Grid) -> Iterator[tuple[Tensor, Tensor, Tensor, np.ndarray]]:
    """Every block that a unit may be active in, once: (unit, sample, block [B] each, active pixels as words [B, W]), units rising."""
    for unit, entry in _entries(tail, level, max(1, _CHUNK // grid.pixels)):
        near, cell = tail.around[unit, entry].double(), tail.cells[unit, entry].long()
        row, column = torch.div(cell, grid.width, rounding_mode="floor"), cell % grid.width
        taken = (near > level[unit, None]) & _in_map(row, column, grid)
        parts = []
        for number, (corners, earlier) in enumerate(zip(_CORNERS, _EARLIER, strict=True)):
            mine = (~taken[:, list(earlier)].any(1)).nonzero()[:, 0]  # a block belongs to its first active corner
            block = (row[mine] + number // 2) * (grid.width + 1) + column[mine] + number % 2
            parts.append((mine, block, near[mine][:, list(corners)]))
        mine, block, corner = (torch.cat(part) for part in zip(*parts, strict=True))
        order = mine.argsort(stable=True)
        mine, block, corner = mine[order], block[order], corner[order]
        lit = grid.lit(corner, level[unit[mine]])
        yield unit[mine], tail.samples[unit[mine], entry[mine]].long(), block, _packed(lit.numpy())


def _in_map(row: Tensor, column: Tensor, grid: Grid) -> Tensor:
    """Which of the 3×3 cells around each cell are in the map: bool [M, 9]."""
    rows = [(row + step >= 0) & (row + step < grid.height) for step in (-1, 0, 1)]
    columns = [(column + step >= 0) & (column + step < grid.width) for step in (-1, 0, 1)]
    return torch.stack([y & x for y in rows for x in columns], 1)
