"""Levels: the reference's exact tables of information quality, and what one streaming pass makes of them."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from gandissect_plugins.dissection import dissect
from gandissect_plugins.dissection.counting.active import ActiveCells, CodedCells
from gandissect_plugins.dissection.counting.bins import Bins, BinsResult, BinsSpec
from gandissect_plugins.dissection.counting.exact import exact_levels
from gandissect_plugins.dissection.counting.levels import best_levels, bin_candidates, information_quality
from gandissect_plugins.dissection.counting.overlap import GridAreas
from gandissect_plugins.dissection.dissect import chosen_layers
from gandissect_plugins.dissection.evidence import at_levels, plan_of
from safetensors.torch import load_file
from torch import Tensor, nn

from gandissect.errors import UsageError
from gandissect.reducers import BitsResult, BitsSpec, TailResult
from gandissect.session import Masks, Session, Want
from gandissect.tap import tap
from gandissect.testing import PLANTED, tiny_gan
from gandissect.vocabulary import build_vocabulary

SIZES = (64, 192, 96, 48, 24)
SPEC = BinsSpec(groups=(0, 0, 1), bits=4, keep=9)
MADE = torch.Generator().manual_seed(0)
MAPS = torch.randn(20, 5, 4, 4, generator=MADE)
AREAS = torch.rand(20, 3, 4, 4, generator=MADE)
MAPS[:, 3] *= 1e6
MAPS[:, 4] = -1.0


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    folder = shared / "golden" / "analysis" / "dissection_iqr"
    if not folder.is_dir():
        pytest.skip("no reference numbers of dissection beside this repository")
    return folder


def toy() -> nn.Module:
    """The reference's generator as a stack of named layers."""
    net = nn.Sequential()
    for stage in range(1, 5):
        step = (1, 0) if stage == 1 else (2, 1)
        net.add_module(f"conv{stage}", nn.ConvTranspose2d(*SIZES[stage - 1 : stage + 1], 4, *step, bias=False))
        net.add_module(f"bn{stage}", nn.BatchNorm2d(SIZES[stage]))
        net.add_module(f"layer{stage}", nn.ReLU())
    return net.eval()


def activations(net: nn.Module, weights: Path, latents: Path, layers: list[str]) -> dict[str, Tensor]:
    net.load_state_dict({k: v for k, v in load_file(weights).items() if k in net.state_dict()})
    with torch.no_grad(), tap(net, layers) as acts:
        net(torch.from_numpy(np.load(latents)["z_train"]))
    return dict(acts)


def labelled(path: Path) -> tuple[Tensor, Tensor]:
    """bool [N, K, H, W] of labels 1..K, and bool [K, K] of those in one category."""
    stored = np.load(path)
    maps = torch.from_numpy(stored["seg_train"].astype(np.int64))
    labels = range(1, len(stored["label_names"]))
    category = stored["label_category"][1:]
    groups = torch.from_numpy(category[:, None] == category)
    return torch.stack([(maps == label).any(1) for label in labels], 1), groups


TABLES = {
    "iqr": "max_iqr", "iqr_level": "max_iqr_level", "iqr_fraction": "max_iqr_quantile",
    "agreement": "max_iqr_agreement", "iou": "max_iqr_iou",
}  # fmt: skip


@pytest.fixture(scope="module")
def acts(golden: Path) -> dict[str, Tensor]:
    layers = [f"layer{stage}" for stage in range(1, 5)]
    return activations(toy(), golden / "generator.safetensors", golden / "latents.npz", layers)


@pytest.mark.parametrize("labels", ["A", pytest.param("B", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3", "layer4"])
def test_information_quality_is_that_of_the_exact_table(
    golden: Path, acts: dict[str, Tensor], layer: str, labels: str
) -> None:
    expected = np.load(golden / f"expected_exact_{labels}.npz")
    found = exact_levels(acts[layer][:, :16], *labelled(golden / f"labelmaps_{labels}.npz"))
    # Forward passes of two builds of torch differ in the sixth digit; counts at the levels do not.
    np.testing.assert_allclose(found.levels.numpy(), expected[f"{layer}.levels"][:16], rtol=1e-5, atol=1e-6)
    for name, stored in TABLES.items():
        table = expected[f"{layer}.{stored}"][1:, :16]
        np.testing.assert_allclose(
            getattr(found, name).numpy().T, table, atol=1e-5 if name == "iqr_level" else 1e-9, rtol=1e-6
        )
    assert np.array_equal(found.concept.numpy() + 1, expected[f"{layer}.chosen_label"][:16])


def test_the_planted_network_gets_the_labels_of_the_reference_by_information_quality(golden: Path) -> None:
    folder = golden / "planted"
    net = nn.Sequential()
    net.add_module("conv1", nn.ConvTranspose2d(16, 16, 8))
    net.add_module("layer1", nn.ReLU())
    maps = activations(net, folder / "generator.safetensors", folder / "latents.npz", ["layer1"])["layer1"]
    found = exact_levels(maps, *labelled(folder / "labelmaps_planted.npz"))
    expected = np.load(folder / "expected_reference_planted.npz")["layer1.chosen_label"]
    assert np.array_equal(found.concept.numpy() + 1, expected)


def test_quality_of_equal_sets_is_one_and_of_independent_ones_zero() -> None:
    half = torch.tensor(0.5, dtype=torch.float64)
    joint = torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64)
    quality = information_quality(joint, half, half)
    assert torch.allclose(quality.iqr, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(quality.agreement, torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64))


def binned(*batches: range) -> Bins:
    reducer = SPEC()
    for batch in batches:
        reducer.add(batch, MAPS[list(batch)], AREAS[list(batch)])
    return reducer


def test_bins_count_what_is_above_their_levels() -> None:
    bins = binned(range(20)).result()
    flat, areas = MAPS.transpose(0, 1).flatten(1), AREAS.transpose(0, 1).flatten(1).double()
    for unit in range(4):
        for edge in (0, 40, 90):
            lit = flat[unit] > bins.levels()[unit, edge]
            assert bins.above[unit, edge, 3] == lit.sum()
            assert torch.allclose(bins.above[unit, edge, :3], areas[:, lit].sum(1), atol=1e-3)
    assert (bins.above[4] == 0).all()


def test_bins_do_not_depend_on_batches_order_or_shards() -> None:
    whole = binned(range(20))
    first, second, again = binned(range(15, 20), range(3)), binned(range(3, 15)), SPEC()
    first.merge(second)
    again.load(first.state())
    for other in (binned(range(7, 20), range(7)), first, again):
        for name in ("above", "first", "area", "codes"):
            assert torch.equal(getattr(other.result(), name), getattr(whole.result(), name)), name


def test_bins_of_nothing_merge_into_bins_of_something() -> None:
    empty = SPEC()
    empty.merge(binned(range(20)))
    assert torch.equal(empty.result().above, binned(range(20)).result().above)


def test_the_streamed_level_tells_as_much_as_the_best_of_many() -> None:
    made = torch.Generator().manual_seed(3)
    masks = torch.rand(60, 1, 8, 8, generator=made) > 0.8
    maps = masks.float() * 2 + 0.7 * torch.randn(60, 3, 8, 8, generator=made)
    reducer = BinsSpec((0,), 6, 4)()
    reducer.add(range(60), maps, masks.float())
    candidates, _ = bin_candidates(reducer.result())
    choice = best_levels(candidates, torch.tensor([True]), 0.01)
    exact = exact_levels(maps, masks, torch.tensor([[True]]))
    assert torch.allclose(choice.iqr, exact.iqr, atol=0.01)


def test_codes_and_a_list_of_the_same_cells_agree() -> None:
    codes = torch.randint(0, 90, (12, 4, 6), generator=MADE).to(torch.int16)
    least = torch.tensor([80, 50, 10, 89])
    dense = CodedCells(4, 12, 6, codes, least)
    unit, sample, cell = (codes.transpose(0, 1) >= least[:, None, None]).nonzero(as_tuple=True)
    listed = ActiveCells(4, 12, 6, unit, sample, cell)
    areas, order = torch.rand(12, 6, 3, generator=MADE), torch.randperm(12, generator=MADE)
    assert torch.equal(dense.count(), listed.count())
    assert torch.allclose(dense.overlaps(areas), listed.overlaps(areas), atol=1e-5)
    for a, b in zip(dense.blocks(order, 4, 3, 1), listed.blocks(order, 4, 3, 1), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(dense.per_sample(areas, least % 3), listed.per_sample(areas, least % 3), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_what_the_bins_counted_is_what_the_kept_codes_hold(session: Session) -> None:
    (info,) = chosen_layers(session.gan, [PLANTED.layer])
    concepts = session.vocabulary.concepts
    plan = plan_of(session.gan, [info], concepts, 300, 0.01, "iqr", "cell")
    grids = GridAreas(cast(BitsResult, session[Want((Masks(),), BitsSpec(), 300)]))
    bins = cast(BinsResult, session[plan.bins_want(info)])
    tail = cast(TailResult, session[plan.tail_want(info)])
    found = at_levels(info, tail, bins, grids, torch.ones(len(concepts), dtype=torch.bool), plan)
    plain = replace(cast(CodedCells, found.active), known=None)
    ((_, areas),) = grids.columns(info.height, info.width, 300)
    assert torch.equal(found.active.count(), plain.count()) and found.overlap is not None
    torch.testing.assert_close(found.overlap, plain.overlaps(areas), rtol=1e-5, atol=1e-3)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=300)


@pytest.mark.parametrize("levels", ["iqr", "0.005,0.01,0.02"])
@pytest.mark.parametrize("resolution", ["cell", "bilinear"])
def test_planted_units_are_found_at_chosen_levels(session: Session, levels: str, resolution: str) -> None:
    result = dissect(session, [PLANTED.layer], levels=levels, resolution=resolution)
    rows = {row.unit: row for row in result.found()}
    for colour in ("red", "green", "blue", "yellow"):
        row = rows[getattr(PLANTED, colour)]
        assert row.concept == colour and row.iou > 0.6 and row.iou_low <= row.iou <= row.iou_high
        assert row.iqr > 0.2


def test_one_pass_is_enough_for_every_level_and_for_bilinear_counts_at_fixed_ones() -> None:
    for settings in ({"levels": "iqr"}, {"levels": "0.01,0.02"}, {"resolution": "bilinear"}):
        fresh = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=40)
        fresh.vocabulary
        before = fresh.passes
        dissect(fresh, [PLANTED.layer], draws=20, **settings)  # type: ignore[arg-type]
        assert fresh.passes == before + 1


def test_rising_transforms_of_units_change_no_count() -> None:
    from gandissect_plugins.dissection.counting.overlap import above_threshold

    from gandissect.reducers import TailSpec, tail_length

    lists = []
    for maps in (MAPS, MAPS.double().mul(0.3).exp().float()[:, :3], MAPS[:, :3] ** 3):
        reducer = TailSpec(tail_length(320, 0.05))()
        reducer.add(range(20), maps[:, :3])
        lists.append(above_threshold(reducer.result(), 0.05, samples=20, cells=16)[1])
    for other in lists[1:]:
        assert torch.equal(lists[0].sample, other.sample) and torch.equal(lists[0].cell, other.cell)


@pytest.mark.parametrize("levels", ["best", "0.01,x", "0.9"])
def test_unknown_levels_are_refused(session: Session, levels: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        dissect(session, [PLANTED.layer], levels=levels)
