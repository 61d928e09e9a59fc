"""The matrix, its clusters, the map of units, and what position explains, on planted truth."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from gandissect_plugins.dissection import Dissection, LayerTable, dissect
from gandissect_plugins.dissection.counting.active import ActiveCells
from gandissect_plugins.dissection.dissect import judged
from gandissect_plugins.dissection.maps import (
    beyond_shuffled,
    clustered,
    label_purity,
    layer_ranges,
    matrix,
    permuted_cophenetic,
    unit_map,
)
from gandissect_plugins.dissection.position import literature, position_section, total
from gandissect_plugins.dissection.sections import overview
from gandissect_plugins.dissection.significance.chance import shuffled_overlaps
from gandissect_plugins.dissection.significance.compare import Comparison

import gandissect
from gandissect.blocks import Graph, Heatmap, Multiples, Scatter, Tabs
from gandissect.sampling import named_rng
from gandissect.session import Session
from gandissect.testing import PLANTED, tiny_gan
from gandissect.vocabulary import build_vocabulary


@pytest.fixture(scope="module")
def planted() -> Dissection:
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours", "position"]), n=200)
    return dissect(session, [PLANTED.layer])


def made(
    planted: Dissection, iou: np.ndarray, null: np.ndarray, sd: float = 0.005, p: np.ndarray | None = None
) -> Dissection:
    """``planted`` with other tables [U, K'], K' the tested concepts; all of its units vary."""
    table, tested = planted.layers[0], planted.tested
    full = [torch.zeros(len(iou), len(tested), dtype=torch.float64) for _ in range(4)]
    full[3] += float("nan")
    small = np.full(iou.shape, 0.001) if p is None else p
    for whole, part in zip(full, (iou, null, np.full(iou.shape, sd), small), strict=True):
        whole[:, tested] = torch.from_numpy(np.asarray(part, float))
    none, column = torch.zeros_like(full[0]), torch.zeros(len(iou))
    made_of = LayerTable(
        layer=table.layer, tail=table.tail, threshold=column, active=column.long(), iou=full[0], iou_in_category=full[0],
        null_iou=full[1], null_95=full[1], null_sd=full[2], correlation=none, position_correlation=none, p=full[3], q=none,
        label=column.long(), by_correlation=column > 0, strength=column, found=column > 0,
        chance=table.chance, chance_95=table.chance_95,
    )  # fmt: skip
    return judged(replace(planted, layers=(made_of,)))


def blocks_of_three(noise: float = 0.004) -> tuple[np.ndarray, np.ndarray]:
    """Excess [36, 6] of units that follow one of three pairs of concepts, in mixed order, and which."""
    rng = named_rng(0, "blocks")
    kind = rng.permutation(np.repeat([0, 1, 2], 12))
    excess = np.repeat(np.eye(3)[kind], 2, axis=1) * rng.uniform(0.1, 0.3, (36, 1))
    return excess + noise * rng.standard_normal(excess.shape), kind


def grown(planted: Dissection, excess: np.ndarray) -> Dissection:
    """Units with this excess over a null of 0.01 in the first tested concepts."""
    iou = np.zeros((len(excess), int(planted.tested.sum())))
    iou[:, : excess.shape[1]] = excess[:, : iou.shape[1]]
    return made(planted, iou + 0.01, np.full(iou.shape, 0.01))


def test_clusters_bring_like_units_together_and_know_it() -> None:
    excess, kind = blocks_of_three()
    tree = clustered(excess)
    assert int((np.diff(kind[tree.order]) != 0).sum()) == 2
    assert tree.cophenetic > 0.95 > permuted_cophenetic(excess, named_rng(0, "test")) + 0.1


def test_the_order_of_the_leaves_does_not_depend_on_that_of_the_rows_beyond_its_direction() -> None:
    excess, _ = blocks_of_three()
    mixed = named_rng(1, "mix").permutation(len(excess))
    again = [int(mixed[i]) for i in clustered(excess[mixed]).order]
    first = clustered(excess).order
    neighbours = {frozenset(pair) for pair in itertools.pairwise(first)}
    assert neighbours == {frozenset(pair) for pair in itertools.pairwise(again)}


def test_rows_of_zeros_and_single_rows_are_clustered_without_nan() -> None:
    assert sorted(clustered(np.zeros((4, 3))).order) == [0, 1, 2, 3]
    assert clustered(np.ones((1, 3))).order == [0]


def test_a_matrix_of_shuffled_samples_has_nothing_beyond_them(planted: Dissection) -> None:
    null = np.full((300, int(planted.tested.sum())), 0.05)
    noise = named_rng(0, "null").normal(0, 0.005, null.shape)
    assert abs(beyond_shuffled(made(planted, null + noise, null))) < 0.12
    assert beyond_shuffled(planted) > 0.9


def test_the_spread_of_the_null_is_that_of_the_shuffled_overlaps() -> None:
    rng = np.random.default_rng(0)
    unit, sample, cell = torch.from_numpy(rng.random((3, 20, 4)) < 0.3).nonzero(as_tuple=True)
    active = ActiveCells(unit=unit, sample=sample, cell=cell, units=3, samples=20, cells=4)
    areas = torch.from_numpy(rng.random((20, 4, 2))).float()
    table = Comparison(3, torch.full((2,), 0.04))
    table.add(active, areas, slice(0, 2), torch.ones(2, dtype=torch.bool), rng=partial(named_rng, 0, "x"), draws=99)
    overlap = shuffled_overlaps(active, areas, rng=named_rng(0, "x"), draws=99).double()
    iou = overlap / (active.count()[:, None] + areas.double().sum((0, 1)) - overlap)
    torch.testing.assert_close(table.null_sd, iou.std(0, correction=0), rtol=1e-3, atol=1e-6)


def test_counts_by_chance_are_taken_over_all_units_of_a_shuffle() -> None:
    table = Comparison(2, torch.full((2,), 0.04))
    strength = torch.tensor([[1.5], [0.5]]).repeat(10, 1)  # every other of 20 shuffles
    concept = torch.zeros(20, 1, dtype=torch.int64)
    table._best = [(strength, concept), (strength, concept)]
    mean, high = table.chance()
    assert mean.tolist() == [1.0, 0.0]
    assert high.tolist() == [2.0, 0.0]


def test_the_matrix_shows_iou_and_its_excess_in_one_order(planted: Dissection) -> None:
    section = matrix(planted)
    assert section is not None
    tabs = section.blocks[0]
    assert isinstance(tabs, Tabs)
    iou, excess, score = tabs.blocks
    assert isinstance(iou, Heatmap) and isinstance(excess, Heatmap) and isinstance(score, Heatmap)
    assert iou.rows == excess.rows == score.rows and iou.columns == excess.columns == score.columns
    names = [concept.name for concept in planted.concepts]
    unit, k = int(iou.rows[0].split(" · ")[1]), names.index(iou.columns[0])
    table = planted.table(PLANTED.layer)
    assert iou.values[0, 0] == float(table.iou[unit, k])
    assert excess.values[0, 0] == pytest.approx(float(table.iou[unit, k] - table.null_iou[unit, k]))
    assert "top left" not in iou.columns and "pink" not in iou.columns
    assert "Not tested, so left out: " in section.blocks[1].to_json()["markdown"]  # type: ignore[operator]  # a str


def test_units_with_like_concepts_lie_together_on_the_map(planted: Dissection) -> None:
    excess, _ = blocks_of_three()
    result = grown(planted, excess[:, ::2])
    section = unit_map(result, 0)
    assert section is not None
    scatter = section.blocks[0]
    assert isinstance(scatter, Scatter)
    near = np.linalg.norm(scatter.points[:, None] - scatter.points[None], axis=2).argsort(1)[:, 1:6]
    groups = np.array(scatter.groups)
    assert (groups[near] == groups[:, None]).mean() > 0.95
    assert len(set(groups)) == 3 and "PC 1" in scatter.axes[0]


@pytest.mark.slow
def test_from_a_hundred_units_on_there_is_a_second_map_and_both_repeat(planted: Dissection) -> None:
    excess, _ = blocks_of_three()
    result = grown(planted, np.tile(excess, (3, 1))[:, ::2])
    first, again = unit_map(result, 0), unit_map(result, 0)
    assert first is not None and again is not None
    assert isinstance(first.blocks[0], Tabs) and first.blocks[0].names == ("UMAP", "PCA")
    assert [block.to_json() for block in first.blocks] == [block.to_json() for block in again.blocks]
    assert "by chance" in first.summary and "permuted labels" in first.summary


def test_labels_without_any_order_are_no_purer_than_permuted_ones(planted: Dissection) -> None:
    rows = planted.found()
    many = tuple(replace(rows[i % 2], unit=i, concept=("red", "blue")[i % 2]) for i in range(60))
    rng = named_rng(3, "points")
    same, permuted, p = label_purity(rng.standard_normal((60, 2)), many, named_rng(0, "labels"))
    assert abs(same - permuted) < 0.15 and p > 0.05
    apart = np.array([[10.0 * (i % 2), i / 60] for i in range(60)])
    assert label_purity(apart, many, named_rng(0, "labels"))[0] == 1.0
    assert label_purity(apart, many, named_rng(0, "labels"))[2] == 0.001


def test_more_than_six_layers_share_shapes_with_their_neighbours() -> None:
    layers = [f"main.{i}" for i in range(12)]
    assert layer_ranges(["main.0", "main.11"], layers) == ("main.0 to main.1", "main.10 to main.11")
    assert layer_ranges(["b"], ["a", "b"]) == ("b",)


def test_units_of_a_place_pass_the_literature_and_not_the_null(planted: Dissection) -> None:
    concepts = int(planted.tested.sum())
    iou, null, p = np.zeros((20, concepts)), np.zeros((20, concepts)), np.full((20, concepts), 0.9)
    iou[:8, 0], null[:8, 0], p[:8, 0] = 0.30, 0.05, 1e-6  # follow it
    iou[8:14, 1], null[8:14, 1] = 0.11, 0.10  # where it always is
    iou[14:17, 0], null[14:17, 0] = 0.05, 0.03  # a little more than chance
    result = made(planted, iou, null, p=p)
    row = literature(result)[PLANTED.layer]
    assert (row.units, row.passing, row.found, row.by_position, row.too_little) == (20, 17, 8, 6, 3)
    section = position_section(result)
    assert section is not None
    assert section.summary.startswith("9 of 17 units that pass the literature's IoU > 0.04 do not survive")
    assert [finding.text for finding in section.findings] == [section.summary]
    points = next(block for block in section.blocks if isinstance(block, Scatter))
    assert list(points.groups).count("position suffices") == 6
    below = points.points[:, 1] < points.points[:, 0] - 1e-9
    assert not below.any()


def test_every_passing_unit_is_counted_once(planted: Dissection) -> None:
    whole = total(literature(planted).values())
    assert whole.passing == whole.found + whole.by_position + whole.too_little
    assert whole.found + whole.found_below == len(planted.found())
    spatial = torch.tensor([concept.spatial for concept in planted.concepts])
    iou = planted.table(PLANTED.layer).iou
    assert whole.place == int(
        ((iou[:, spatial].amax(1) > 0.04) & (iou[:, planted.tested].amax(1) <= 0.04) & ~planted.layers[0].found).sum()
    )


def test_where_all_units_survive_there_is_no_headline(planted: Dissection) -> None:
    excess, _ = blocks_of_three()
    section = position_section(grown(planted, excess[:, ::2]))
    assert section is not None and not section.findings


def test_the_histograms_are_one_figure_with_what_chance_gives(planted: Dissection) -> None:
    from gandissect_plugins.dissection import CausalTests

    figure = next(block for block in overview(planted, CausalTests((), (), {})).blocks if isinstance(block, Multiples))
    names = [concept.name for concept in planted.concepts]
    counts = planted.layer_concepts()[PLANTED.layer]
    assert dict(zip(figure.names, figure.values[0].tolist(), strict=True)) == counts
    chance = planted.table(PLANTED.layer).chance
    assert figure.expected[0].tolist() == [float(chance[names.index(name)]) for name in figure.names]
    assert set(figure.groups) == {"colour"}


def test_the_topology_names_the_concepts_that_dissection_found() -> None:
    analyzers = ["dissection", "topology"]
    report = gandissect.analyze(tiny_gan("planted"), analyzers, n=200, concepts=["colours"])
    (graph, *_) = next(section for section in report.sections if section.analyzer == "topology").blocks
    assert isinstance(graph, Graph)
    (node,) = (node for node in graph.nodes if node.name == PLANTED.layer)
    assert {note.split(" ×")[0] for note in node.notes} >= {"red"}
