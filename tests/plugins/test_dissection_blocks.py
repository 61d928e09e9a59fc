"""Counts at the image's resolution from corners of cells are those of upsampled maps, to the pixel."""

import pytest
import torch
from gandissect_plugins.dissection.counting.blocks import Grid, PixelTable, block_counts, map_counts
from torch import Tensor
from torch.nn import functional as F

from gandissect.reducers import BitsSpec, TailSpec, tail_length

GRIDS = [(4, 4, 16, 16), (6, 9, 4, 3), (5, 7, 1, 2), (8, 8, 2, 2), (1, 1, 8, 8), (3, 5, 5, 7)]
GROUPS = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])


def made(height: int, width: int, tall: int, wide: int) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(height * width)
    maps = torch.randn(23, 5, height, width, generator=stream)
    maps[:, 1] = maps[:, 1].relu()
    masks = torch.rand(23, 3, height * tall, width * wide, generator=stream) > 0.7
    masks[::2, :2] = False
    return maps, masks


def upsampled(maps: Tensor, masks: Tensor, level: Tensor) -> PixelTable:
    size = list(masks.shape[2:])
    lit = F.interpolate(maps.double(), size, mode="bilinear", align_corners=False) > level[:, None, None]
    overlap = torch.einsum("nuhw,nkhw->uk", lit.long(), masks.long())
    held = (masks.flatten(2).any(2).float() @ GROUPS.float()) > 0
    within = lit.flatten(2).sum(2).T.double() @ held.double()
    return PixelTable(overlap, within.long(), lit.sum((0, 2, 3)), masks.sum((0, 2, 3)))


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_blocks_around_active_cells_hold_all_active_pixels(shape: tuple[int, int, int, int], compiled: bool) -> None:
    maps, masks = made(*shape)
    tail, bits = TailSpec(tail_length(23 * shape[0] * shape[1], 0.1), around=True)(), BitsSpec()()
    for start in range(0, 23, 5):
        indices = range(start, min(start + 5, 23))
        tail.add(indices, maps[list(indices)])
        bits.add(indices, masks[list(indices)])
    level = tail.result().level(0.1)
    grid = Grid(shape[0], shape[1], shape[2:])
    found = block_counts(tail.result(), level, bits.result(), grid, GROUPS, compiled=compiled)
    expected = upsampled(maps, masks, level)
    for name, value in vars(expected).items():
        assert torch.equal(getattr(found, name), value), name


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("level", [-0.5, 0.3, 2.0])
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_whole_maps_are_counted_as_if_upsampled(shape: tuple[int, int, int, int], level: float, compiled: bool) -> None:
    maps, masks = made(*shape)
    levels = torch.full((5,), level, dtype=torch.float64)
    shared, active = map_counts(maps, levels, masks, Grid(shape[0], shape[1], shape[2:]), compiled=compiled)
    expected = upsampled(maps, masks, levels)
    assert torch.equal(shared.sum(0), expected.overlap) and torch.equal(active.sum(0), expected.active)


def test_cells_that_are_not_whole_pixels_have_no_grid() -> None:
    assert Grid.under((24, 40), (6, 9)) is None
    assert Grid.under((24, 36), (6, 9)) == Grid(6, 9, (4, 4))
