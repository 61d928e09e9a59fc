"""Planted clusters, identical sets and named variances: the feature space says what is true of them."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
import pytest
import torch
from gandissect_plugins.features import (
    FeatureSpace,
    Space,
    embed,
    gather,
    layer_spaces,
    neighbour_trust,
    principal_components,
    register_analyzers,
    separability,
)
from gandissect_plugins.features.analyzer import FeatureOptions
from gandissect_plugins.features.groups import halves

from gandissect.blocks import Scatter, Section, all_blocks
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.errors import UnknownName, UsageError
from gandissect.options import option
from gandissect.real import RealImages
from gandissect.session import Session
from gandissect.testing import check_analyzer, tiny_gan, tiny_session
from gandissect.trust import adjusted, exact_p, interval


def clusters(n: int = 120, seed: int = 0, gap: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 == 1
    return rng.normal(size=(n, 10)) + gap * labels[:, None] * (np.arange(10) == 0), labels


def scatters(section: Section) -> list[Scatter]:
    return [block for block in all_blocks(section.blocks) if isinstance(block, Scatter)]


def test_two_clusters_are_told_apart_on_held_out_samples() -> None:
    found = separability(*clusters(), np.random.default_rng(1))
    assert found.accuracy > 0.95
    assert found.low > 0.85
    assert found.p < 1e-9


def test_two_sets_of_one_distribution_are_not_told_apart() -> None:
    p_values = [separability(*clusters(160, seed, gap=0.0), np.random.default_rng(seed)).p for seed in range(12)]
    assert sum(p < 0.05 for p in p_values) <= 2  # 0.6 expected
    assert np.median(p_values) > 0.15


def test_separability_repeats_and_needs_two_groups() -> None:
    features, labels = clusters()
    first, second = (separability(features, labels, np.random.default_rng(3)) for _ in range(2))
    assert first == second
    with pytest.raises(UsageError, match="at least 8 samples"):
        separability(features, labels & False, np.random.default_rng(3))


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_principal_components_are_those_of_a_singular_value_decomposition(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape) * np.linspace(3, 1, shape[1])
    found = principal_components(features, 5)
    _, values, rows = np.linalg.svd(features - features.mean(0), full_matrices=False)
    assert np.abs((found.vectors * rows[:5]).sum(1)) == pytest.approx(np.ones(5))
    assert found.explained == pytest.approx((values**2 / (values**2).sum())[:5])
    assert found.deviations == pytest.approx(values[:5] / np.sqrt(shape[0] - 1))
    assert (found.vectors[np.arange(5), np.abs(found.vectors).argmax(1)] > 0).all()


def test_pca_names_the_variance_of_its_axes() -> None:
    features = np.random.default_rng(0).normal(size=(400, 3)) * [10.0, 1.0, 0.1]
    found = embed(features, "pca", 3)
    assert found.axes[0] == "PC 1, 99 % of variance"
    assert found.trustworthiness > 0.99
    assert found.preserved > 0.9


def test_tsne_keeps_clusters_apart_and_repeats() -> None:
    features, labels = clusters(80)
    first, second = (embed(features, "tsne", 2, seed=1) for _ in range(2))
    assert np.array_equal(first.points, second.points)
    nearest = np.linalg.norm(first.points[:, None] - first.points, axis=2) + np.eye(80) * 1e9
    assert (labels[nearest.argmin(1)] == labels).mean() > 0.95
    assert first.trustworthiness > 0.8


@pytest.mark.slow  # numba compiles umap for the first time in a process
def test_umap_repeats_and_keeps_neighbours_in_two_and_three_dimensions() -> None:
    features, _ = clusters(120)
    first, second, solid = (embed(features, "umap", dim, seed=1) for dim in (2, 2, 3))
    assert np.array_equal(first.points, second.points)
    assert solid.points.shape == (120, 3)
    assert min(first.preserved, solid.preserved) > 2 * first.by_chance


def test_points_placed_at_random_keep_neighbours_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    trust, kept, chance, near = neighbour_trust(rng.normal(size=(200, 8)), rng.normal(size=(200, 2)))
    assert abs(trust - 0.5) < 0.05
    assert abs(kept - chance) < 0.03
    assert near == 15


def test_embedding_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="at least 100 samples"):
        embed(np.zeros((20, 3)), "umap")
    with pytest.raises(UsageError, match="2 or 3"):
        embed(np.zeros((20, 3)), "pca", 4)


def test_features_without_variance_stay_finite() -> None:
    found = embed(np.ones((30, 4)), "pca", 2)
    assert np.isfinite(found.points).all()


def test_halves_splits_at_the_median_or_at_zero() -> None:
    assert halves(np.arange(10.0)).sum() == 5  # type: ignore[union-attr]
    rare = np.array([0.0] * 8 + [0.3, 0.5])
    assert halves(rare).tolist() == [False] * 8 + [True, True]  # type: ignore[union-attr]
    assert halves(np.zeros(10)) is None


def test_large_layers_are_averaged_over_their_map_and_small_ones_are_not() -> None:
    session = tiny_session("random", n=8)
    spaces = {space.layer: space for space in layer_spaces(session.gan)}
    act1, act3 = spaces["act1"], spaces["act3"]  # 64×4×4 and 16×16×16
    assert act1.flat
    assert not act3.flat
    assert gather(session, act1, 8).shape == (8, 1024)
    expected = session.activations("act3", 8).mean((2, 3)).numpy()
    assert np.allclose(gather(session, act3, 8), expected, atol=1e-6)
    assert "mean of each of 16 units" in act3.description


def test_interval_exact_p_and_adjustment_match_known_values() -> None:
    assert interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927 as tabulated
    assert exact_p([1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]) == pytest.approx(1 / 20)
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])


class Quick(FeatureSpace):
    """Without UMAP, whose first fit compiles for seconds."""

    Options: ClassVar[type] = FeatureOptions

    def __init__(self, options: object = None) -> None:
        super().__init__(options or FeatureOptions(methods=("pca", "tsne"), points=24))


def test_the_analysis_keeps_the_promises_of_every_analyzer() -> None:
    check_analyzer(Quick, kinds=("vector",))  # the others: tests/test_promises.py


def test_register_names_the_analysis() -> None:
    assert [analyzer.name for analyzer in register_analyzers()] == ["features"]


def test_real_images_of_another_kind_are_a_finding_and_share_the_maps() -> None:
    real = RealImages.from_tensor(torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0)))  # too bright
    session = Session(tiny_gan("planted"), n=60, real=real)
    maps, apart = FeatureSpace({"methods": "pca", "points": 40}).run(session)
    assert apart.findings
    assert apart.findings[0].trust.level == "checked"
    together = [block for block in scatters(maps) if block.groups]
    assert together
    assert together[0].groups == ("generated",) * 20 + ("real",) * 20


def test_real_images_from_the_generator_itself_are_no_finding() -> None:
    with torch.no_grad():
        gan = tiny_gan("random")
        twins = gan.generator(torch.randn(120, 32, generator=torch.Generator().manual_seed(5)))
    session = Session(gan, n=120, real=RealImages.from_tensor(twins))
    _, apart = FeatureSpace({"methods": "pca", "points": 40}).run(session)
    assert not apart.findings
    assert "No layer tells real from generated" in apart.summary


def test_a_layer_tells_where_a_planted_concept_can_be_read_off() -> None:
    bright = CallableSegmenter(lambda images: images.mean(1, keepdim=True) > 0, ["bright"])
    session = Session(tiny_gan("planted"), vocabulary=Vocabulary([bright]), n=200)
    _, apart = FeatureSpace({"methods": "pca", "points": 40}).run(session)
    line = next(block for block in apart.blocks if block.kind == "line")
    accuracy = dict(zip(line.series[0].x, line.series[0].y, strict=True))  # type: ignore[attr-defined]
    assert accuracy["G act1"] > 0.9
    assert not apart.findings  # a random network shows such lines as well


def test_thumbnails_are_small_and_maps_are_named() -> None:
    session = tiny_session("vector", n=32)
    maps = next(iter(FeatureSpace({"methods": "pca", "side": 48}).run(session)))
    blocks = scatters(maps)
    assert {block.points.shape[1] for block in blocks} == {2, 3}
    assert all(max(block.thumbnails.shape[1:3]) <= 48 for block in blocks if block.thumbnails is not None)
    assert all("% of variance" in block.axes[0] for block in blocks)


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownName, match="no layer 'conv9'"):
        list(FeatureSpace({"layers": "conv9", "methods": "pca"}).run(tiny_session(n=32)))


def test_pixels_stand_in_where_there_is_no_discriminator() -> None:
    real = RealImages.from_tensor(torch.zeros(30, 3, 32, 32))
    session = Session(tiny_gan("planted", discriminator=False), n=30, real=real)
    maps, apart = FeatureSpace({"methods": "pca"}).run(session)
    assert any("pixels" in block.caption for block in scatters(maps))
    assert apart.status == "done"


def test_options_are_documented_and_typed() -> None:
    options = cast(FeatureOptions, FeatureSpace({"points": "80", "methods": "pca,umap"}).options)
    assert options.points == 80
    assert options.methods == ("pca", "umap")
    assert isinstance(option(3, "x"), object)
    assert Space(None, "pixels", 3, 16, 16).name == "pixels"
