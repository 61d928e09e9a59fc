"""Image resolution: a second pass with the same thresholds, and the same truth."""

import pytest
import torch
from gandissect_plugins.dissection import dissect
from gandissect_plugins.dissection.pixels import PixelCounts
from torch.nn import functional as F

from gandissect.session import Session
from gandissect.testing import PLANTED, tiny_gan
from gandissect.vocabulary import build_vocabulary


def test_pixel_counts_are_those_of_a_plain_computation():
    made = torch.Generator().manual_seed(0)
    values, masks = torch.randn(5, 4, 6, 9, generator=made), torch.rand(5, 3, 24, 40, generator=made) > 0.7
    level = torch.tensor([0.5, 9.0, -1.0, 1.5], dtype=torch.float64)
    counts = PixelCounts(level, torch.eye(3, dtype=torch.bool))
    counts.add(range(5), values, masks)
    lit = F.interpolate(values.double(), (24, 40), mode="bilinear", align_corners=False) > level[:, None, None]
    assert torch.equal(counts.active, lit.sum((0, 2, 3)))
    assert torch.equal(counts.overlap, torch.einsum("nuhw,nkhw->uk", lit.long(), masks.long()))


def test_two_shards_merge_to_the_whole():
    made = torch.Generator().manual_seed(1)
    values, masks = torch.randn(6, 4, 4, 4, generator=made), torch.rand(6, 3, 8, 8, generator=made) > 0.5
    level, groups = torch.zeros(4, dtype=torch.float64), torch.ones(3, 3, dtype=torch.bool)
    whole, first, second = (PixelCounts(level, groups) for _ in range(3))
    whole.add(range(6), values, masks)
    first.add(range(2), values[:2], masks[:2])
    second.load(first.state())
    second.merge(PixelCounts(level, groups))
    first.add(range(2, 6), values[2:], masks[2:])
    rest = PixelCounts(level, groups)
    rest.add(range(2, 6), values[2:], masks[2:])
    second.merge(rest)
    for name, value in whole.state().items():
        assert torch.equal(value, first.state()[name]) and torch.equal(value, second.state()[name])


@pytest.mark.parametrize("colour", ["red", "yellow"])
def test_planted_units_are_found_at_image_resolution(colour):
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=300)
    result = dissect(session, [PLANTED.layer], resolution="bilinear")
    row = next(row for row in result.found() if row.unit == getattr(PLANTED, colour))
    assert (
        row.concept == colour and row.iou > 0.6
    )  # bilinear edges are wider than the nearest-neighbour squares they draw
