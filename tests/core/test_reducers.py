from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gandissect.reducers import KeepSpec, MomentsSpec, TailSpec, tail_length

ACTS = torch.randn(23, 3, 4, 5, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with many ties


def cuts(draw_sizes: list[int]) -> list[range]:
    edges = np.cumsum([0, *draw_sizes])
    return [range(a, min(b, 23)) for a, b in pairwise(edges) if a < 23]


SPECS = {
    "keep": KeepSpec(),
    "keep max": KeepSpec(pool="max"),
    "moments": MomentsSpec(),
    "tail": TailSpec(17),
    "tail around": TailSpec(17, around=True),
}


def flat(result: object) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [value for value in vars(result).values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=23, max_size=23), swap=st.randoms(use_true_random=False))
def test_results_do_not_depend_on_batches_order_or_shards(name: str, sizes: list[int], swap: object) -> None:
    whole = SPECS[name]()
    whole.add(range(23), ACTS)
    parts = cuts(sizes)
    swap.shuffle(parts)  # type: ignore[attr-defined]
    first, second = SPECS[name](), SPECS[name]()
    for number, part in enumerate(parts):
        (first, second)[number % 2].add(part, ACTS[list(part)])
    first.merge(second)
    for a, b in zip(flat(whole.result()), flat(first.result()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_state_brings_a_reducer_back(name: str) -> None:
    first, second = SPECS[name](), SPECS[name]()
    first.add(range(23), ACTS)
    second.load(first.state())
    assert all(torch.equal(a, b) for a, b in zip(flat(first.result()), flat(second.result()), strict=True))


@pytest.mark.parametrize("tail", [0.005, 0.01, 0.1, 0.37])
def test_tail_gives_the_exact_quantile(tail: float) -> None:
    values = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    reducer = TailSpec(tail_length(40 * 36, tail))()
    for start in range(0, 40, 7):
        reducer.add(range(start, min(start + 7, 40)), values[start : start + 7])
    expected = np.quantile(values.transpose(0, 1).flatten(1).double().numpy(), 1 - tail, axis=1)
    np.testing.assert_allclose(reducer.result().level(tail).numpy(), expected, rtol=1e-12)


def test_tail_places_point_at_the_values() -> None:
    reducer = TailSpec(9)()
    reducer.add(range(23), ACTS)
    result = reducer.result()
    for unit in range(3):
        rows, columns = result.cells[unit] // 5, result.cells[unit] % 5
        assert torch.equal(ACTS[result.samples[unit], unit, rows, columns], result.values[unit])


def test_a_tail_that_is_too_short_is_refused() -> None:
    reducer = TailSpec(3)()
    reducer.add(range(23), ACTS)
    with pytest.raises(ValueError, match="too few"):
        reducer.result().level(0.5)


def test_moments_equal_numpy() -> None:
    reducer = MomentsSpec()()
    reducer.add(range(23), ACTS)
    rows = ACTS.transpose(0, 1).flatten(1).double()
    result = reducer.result()
    torch.testing.assert_close(result.mean, rows.mean(1))
    torch.testing.assert_close(result.variance, rows.var(1, unbiased=False))
    assert torch.equal(result.maximum, rows.amax(1))


def test_a_tail_holds_no_more_as_samples_go_on() -> None:
    made = torch.Generator().manual_seed(2)
    reducer = TailSpec(50)()
    held = []
    for start in range(0, 4000, 40):
        reducer.add(range(start, start + 40), torch.randn(40, 4, 8, 8, generator=made))
        held.append(sum(part.numel() for part in reducer.state().values()))
    assert held[-1] == held[0] == 4 * 50 + 2


def test_neighbours_in_a_tail_are_those_of_the_map() -> None:
    reducer = TailSpec(9, around=True)()
    for start in range(0, 23, 4):
        reducer.add(range(start, min(start + 4, 23)), ACTS[start : start + 4])
    result = reducer.result()
    padded = torch.nn.functional.pad(ACTS, (1, 1, 1, 1), mode="replicate")
    for unit in range(3):
        for place in range(9):
            row, column = divmod(int(result.cells[unit, place]), 5)
            expected = padded[int(result.samples[unit, place]), unit, row : row + 3, column : column + 3]
            assert torch.equal(result.around[unit, place], expected.flatten())


def test_equal_values_keep_the_earlier_place_in_any_order() -> None:
    flat = torch.zeros(6, 2, 3, 3)
    first, second = TailSpec(12)(), TailSpec(12)()
    for start in range(6):
        first.add([start], flat[[start]])
        second.add([5 - start], flat[[5 - start]])
    for result in (first.result(), second.result()):
        places = result.samples[0] * 9 + result.cells[0]
        assert places.tolist() == list(range(12))
