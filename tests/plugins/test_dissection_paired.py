"""Packed masks and cross moments: exact, mergeable, independent of batches."""

import numpy as np
import pytest
import torch

from gandissect.reducers import BitsSpec, CrossSpec

MADE = torch.Generator().manual_seed(0)
MASKS = torch.rand(23, 5, 7, 9, generator=MADE) > 0.6
UNITS = torch.randn(23, 4, 6, 6, generator=MADE)
AREAS = torch.rand(23, 3, 6, 6, generator=MADE)


def crossed(*batches):
    reducer = CrossSpec()()
    for batch in batches:
        reducer.add(batch, UNITS[list(batch)], AREAS[list(batch)])
    return reducer


def test_masks_come_back_as_they_were_in_the_order_of_their_indices():
    first, second = BitsSpec()(), BitsSpec()()
    for part in (range(10, 16), range(0, 3)):
        first.add(part, MASKS[list(part)])
    for part in (range(16, 23), range(3, 10)):
        second.add(part, MASKS[list(part)])
    first.merge(second)
    again = BitsSpec()()
    again.load(first.state())
    for result in (first.result(), again.result()):
        assert len(result) == 23 and torch.equal(result.unpack(0, 23), MASKS)
        assert torch.equal(result.unpack(5, 9), MASKS[5:9])


def test_correlation_is_pearsons_over_all_cells():
    r = crossed(range(23)).result().correlation()
    x, s = (values.transpose(0, 1).flatten(1).numpy() for values in (UNITS, AREAS))
    assert np.allclose(r.numpy(), np.corrcoef(x, s)[:4, 4:], atol=1e-6)


def test_batches_change_no_bit_of_the_cross_moments():
    whole, cut = crossed(range(23)).result(), crossed(range(1), range(1, 8), range(8, 23)).result()
    assert torch.equal(whole.products, cut.products) and torch.equal(whole.correlation(), cut.correlation())


def test_shards_and_state_give_the_same_correlation():
    first, again = crossed(range(12)), CrossSpec()()
    first.merge(crossed(range(12, 23)))
    again.load(first.state())
    whole = crossed(range(23)).result().correlation()
    torch.testing.assert_close(first.result().correlation(), whole, rtol=1e-12, atol=1e-12)
    assert torch.equal(again.result().correlation(), first.result().correlation())


def test_what_position_explains_is_the_mean_over_all_pairings():
    expected = crossed(range(23)).result().expected()
    means = [crossed_shift(shift).result().correlation() for shift in range(23)]
    assert torch.allclose(expected, torch.stack(means).mean(0), atol=1e-6)


def crossed_shift(shift):
    reducer = CrossSpec()()
    reducer.add(range(23), UNITS, AREAS.roll(shift, 0))
    return reducer


@pytest.mark.parametrize("value", [0.0, 0.7, -1e6])
def test_a_constant_unit_correlates_with_nothing(value):
    reducer = CrossSpec()()
    reducer.add(range(23), torch.full((23, 1, 6, 6), value), AREAS)
    assert (reducer.result().correlation() == 0).all() and torch.isfinite(reducer.result().expected()).all()
