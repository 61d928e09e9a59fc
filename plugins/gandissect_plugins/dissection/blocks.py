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

from gandissect.paired import BitsResult
from gandissect.reducers import TailResult

_CHUNK = 2**20  # pixels evaluated at a time
_MASK_BYTES = 128 * 2**20
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

    def weights(self) -> Tensor:
        """Bilinear weights of the four corners at each pixel of a block (``align_corners=False``): float64 [4, pixels]."""
        row, column = (_along(size) for size in self.scale)
        return torch.stack([torch.outer(y, x).flatten() for y in (1 - row, row) for x in (1 - column, column)])

    def words(self, masks: Tensor) -> np.ndarray:
        """The pixels of each block as bits: unsigned [N, blocks, K, words] of bool [N, K, H, W]; none beyond the image."""
        (above, left), (tall, wide) = (size // 2 for size in self.scale), self.scale
        samples, concepts, height, width = masks.shape
        padded = np.zeros((samples, concepts, (self.height + 1) * tall, (self.width + 1) * wide), np.bool_)
        padded[:, :, above : above + height, left : left + width] = masks.numpy()
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


def block_counts(tail: TailResult, level: Tensor, masks: BitsResult, grid: Grid, groups: Tensor) -> PixelTable:
    """Pixels above each unit's level, float64 [U], counted with the masks; ``groups`` bool [K, K], concepts of one category.

    The tail has to hold every cell above the level, with its neighbours.
    """
    units, concepts = len(level), masks.shape[0]
    overlap = torch.zeros(units, concepts, dtype=torch.int64)
    active = torch.zeros(units, dtype=torch.int64)
    per_sample = np.zeros(units * len(masks), np.int64)
    inside = grid.words(torch.ones(1, 1, *masks.shape[1:], dtype=torch.bool))[0, :, 0]
    each = grid.blocks * (inside.shape[1] * inside.itemsize) * len(masks)
    step = max(1, _MASK_BYTES // max(1, each))
    for start in range(0, concepts, step):
        words = _mask_words(masks, grid, slice(start, start + step))
        for unit, sample, block, lit in _lit_blocks(tail, level, grid):
            shared = np.bitwise_count(lit[:, None] & words[sample, block]).sum(2, dtype=np.int64)
            first = np.flatnonzero(np.diff(unit, prepend=-1))
            overlap[torch.from_numpy(unit[first]), start : start + step] += torch.from_numpy(
                np.add.reduceat(shared, first, axis=0)
            )
            if not start:
                count = np.bitwise_count(lit & inside[block]).sum(1, dtype=np.int64)
                place = unit.astype(np.int64) * len(masks) + sample
                per_sample += np.bincount(place, weights=count, minlength=len(per_sample)).astype(np.int64)
    counts = torch.from_numpy(per_sample).reshape(units, -1)
    area, held = _areas(masks)
    present = ((held.float() @ groups.float()) > 0).double()
    active = counts.sum(1)
    return PixelTable(overlap, (counts.double() @ present).long(), active, area)


def map_counts(maps: Tensor, level: Tensor, masks: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Pixels of whole maps above each unit's level: int64 [N, U, K] with each concept, and [N, U] in all.

    Blocks with all corners above the level are counted by the areas of the masks in them; those with some, pixel by pixel.

    Args:
        maps: float32 [N, U, h, w].
        level: float64 [U].
        masks: bool [N, K, H, W].
    """
    samples, units = maps.shape[:2]
    everything = torch.cat([masks, torch.ones_like(masks[:, :1])], 1)
    words = grid.words(everything)  # [N, blocks, K + 1, W]
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    wide = padded.shape[3]
    lit = (padded.double() > level[:, None, None]).to(torch.uint8)
    number = lit[:, :, :-1, :-1] + lit[:, :, :-1, 1:] + lit[:, :, 1:, :-1] + lit[:, :, 1:, 1:]  # corners above
    number = number.flatten(2)
    areas = torch.from_numpy(np.bitwise_count(words).sum(3, dtype=np.float32))
    total = torch.bmm((number == 4).float(), areas).long().flatten(0, 1).numpy()  # below 2^24, so exact
    some = np.flatnonzero(((number > 0) & (number < 4)).numpy())
    weights, flat = grid.weights(), padded.reshape(-1)
    step = max(1, _CHUNK // (4 * weights.shape[1]))
    for start in range(0, len(some), step):
        row, block = np.divmod(some[start : start + step], grid.blocks)  # row: sample * units + unit
        sample, y = row // units, block // (grid.width + 1)
        corner = torch.from_numpy((row * padded.shape[2] + y) * wide + block - y * (grid.width + 1))
        corners = torch.stack([flat[corner + offset] for offset in (0, 1, wide, wide + 1)], 1).double()
        above = (corners @ weights) > level[torch.from_numpy(row - sample * units), None]
        shared = np.bitwise_count(_packed(above.numpy())[:, None] & words[sample, block]).sum(2, dtype=np.int64)
        first = np.flatnonzero(np.diff(row, prepend=-1))
        total[row[first]] += np.add.reduceat(shared, first, axis=0)
    counts = torch.from_numpy(total).reshape(samples, units, -1)
    return counts[..., :-1], counts[..., -1]


def _mask_words(masks: BitsResult, grid: Grid, concepts: slice) -> np.ndarray:
    parts = [grid.words(masks.unpack(start, start + 16)[:, concepts]) for start in range(0, len(masks), 16)]
    return np.concatenate(parts)


def _areas(masks: BitsResult) -> tuple[Tensor, Tensor]:
    """Pixels of each concept int64 [K], and which samples have it, bool [n, K]."""
    counts = torch.cat([masks.unpack(start, start + 16).sum((2, 3)) for start in range(0, len(masks), 16)])
    return counts.sum(0), counts > 0


def _lit_blocks(
    tail: TailResult, level: Tensor, grid: Grid
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Every block that a unit may be active in, once: (unit, sample, block [B] each, active pixels as words [B, W]), units rising."""
    weights = grid.weights()
    step = max(1, _CHUNK // (2 * weights.shape[1]))
    rank = (tail.values.double() > level[:, None]).sum(1)  # values are sorted
    units = torch.repeat_interleave(torch.arange(len(level)), rank)
    entries = torch.arange(len(units)) - (rank.cumsum(0) - rank)[units]
    for start in range(0, len(units), step):
        unit, entry = units[start : start + step], entries[start : start + step]
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
        lit = (corner @ weights) > level[unit[mine], None]
        sample = tail.samples[unit[mine], entry[mine]]
        yield unit[mine].numpy(), sample.numpy(), block.numpy(), _packed(lit.numpy())


def _in_map(row: Tensor, column: Tensor, grid: Grid) -> Tensor:
    """Which of the 3×3 cells around each cell are in the map: bool [M, 9]."""
    rows = [(row + step >= 0) & (row + step < grid.height) for step in (-1, 0, 1)]
    columns = [(column + step >= 0) & (column + step < grid.width) for step in (-1, 0, 1)]
    return torch.stack([y & x for y in rows for x in columns], 1)
