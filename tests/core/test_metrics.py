"""Metrics of sets and histograms: what is true of them by construction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gandissect.errors import UsageError
from gandissect.metrics import (
    around,
    bootstrap_weights,
    cka,
    density_coverage,
    feature_rows,
    frechet_at_infinity,
    frechet_between,
    frechet_deviation,
    frechet_distance,
    halves,
    inception_score,
    js_divergence,
    kid,
    kl_divergence,
    moments,
    ms_ssim,
    ms_ssim_scales,
    perceptual_path_length,
    permutation_p,
    polynomial_mmd,
    precision_recall,
    slerp,
    ssim,
    wasserstein1,
)

Metric = Callable[[np.ndarray, np.ndarray], float]


def normal(n: int = 300, d: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


DISTANCES: list[Metric] = [frechet_distance, polynomial_mmd]


def test_a_set_is_at_distance_zero_from_itself() -> None:
    x = normal()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert polynomial_mmd(x, x) < 0  # unbiased: the pairs of a point with itself are left out on one side only
    found = precision_recall(x, x), density_coverage(x, x)
    assert (found[0].precision, found[0].recall, found[1].coverage) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("metric", DISTANCES)
def test_distances_do_not_depend_on_the_order_of_samples_or_sets(metric: Metric) -> None:
    x, y = normal(), normal(200, seed=1) + 0.3
    shuffled = np.random.default_rng(2).permutation(x)
    assert metric(shuffled, y) == pytest.approx(metric(x, y), rel=1e-9)
    assert metric(y, x) == pytest.approx(metric(x, y), rel=1e-9)


def test_a_translation_adds_its_squared_length_to_the_frechet_distance() -> None:
    x, shift = normal(), np.array([3.0, 0, 0, 4.0, 0, 0])
    assert frechet_distance(x, x + shift) == pytest.approx(25.0, rel=1e-9)


def test_scaling_all_samples_changes_the_frechet_distance_as_for_gaussians() -> None:
    x = normal()
    spread = np.trace(moments(x).covariance)
    doubled = x.mean(0) + 2 * (x - x.mean(0))
    assert frechet_distance(x, doubled) == pytest.approx(spread, rel=1e-9)


def test_the_frechet_distance_of_fewer_samples_than_features_is_that_of_the_covariances() -> None:
    x, y = normal(20, 60), normal(25, 60, seed=1) + 0.5
    assert frechet_distance(x, y) == pytest.approx(frechet_between(moments(x), moments(y)), rel=1e-6)


def test_weights_that_count_a_sample_twice_are_a_set_in_which_it_occurs_twice() -> None:
    x = normal(40)
    weighted, repeated = moments(x, np.r_[np.full(20, 2.0), np.zeros(20)]), moments(np.repeat(x[:20], 2, axis=0))
    assert np.allclose(weighted.mean, repeated.mean)
    assert np.allclose(weighted.covariance, repeated.covariance)


def test_extrapolation_takes_the_bias_of_few_samples_away() -> None:
    values = []
    for seed in range(6):
        x, y = normal(400, 20, 2 * seed), normal(400, 20, 2 * seed + 1)
        found = frechet_at_infinity(x, y, np.random.default_rng(seed))
        assert found is not None
        values.append(found.value)
        assert frechet_distance(x, y) > 0.4
    assert abs(np.mean(values)) < 0.06


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.5)])
def test_the_standard_error_of_the_frechet_distance_is_its_spread_over_draws(shift: float, scale: float) -> None:
    pairs = [(normal(200, 10, 2 * seed), scale * normal(200, 10, 2 * seed + 1) + shift) for seed in range(60)]
    spread = np.std([frechet_distance(*pair) for pair in pairs])
    told = np.mean([frechet_deviation(*pair) for pair in pairs])
    assert 0.85 * spread < told < 1.5 * spread


def test_extrapolation_says_nothing_of_more_features_than_samples() -> None:
    assert frechet_at_infinity(normal(100, 60), normal(100, 60, 1), np.random.default_rng(0)) is None


def test_kid_of_one_distribution_is_zero_on_average() -> None:
    values = [kid(normal(60, 4, 2 * seed), normal(60, 4, 2 * seed + 1)).mean for seed in range(40)]
    assert abs(np.mean(values)) < 2.5 * np.std(values) / np.sqrt(40)
    assert min(values) < 0


def test_a_collapsed_set_is_precise_and_covers_nothing() -> None:
    real = normal(300)
    collapsed = real[:1] + 1e-3 * normal(300, seed=1)
    found = precision_recall(real, collapsed)
    assert (found.precision, found.recall) == (1.0, pytest.approx(0, abs=0.02))
    assert density_coverage(real, collapsed).coverage < 0.1


def test_a_point_on_the_edge_of_a_ball_is_precise_but_not_dense() -> None:
    real = np.array([[0.0], [1.0], [10.0], [11.0]])
    generated = np.array([[2.0], [12.0], [100.0]])
    assert precision_recall(real, generated, k=1).precision == pytest.approx(2 / 3)  # at the radius, 1
    assert density_coverage(real, generated, k=1).density == 0


def test_inception_score_counts_equally_likely_classes() -> None:
    logits = 50 * np.eye(5)[np.arange(100) % 5]
    assert inception_score(logits).mean == pytest.approx(5, rel=1e-6)
    assert inception_score(np.zeros((100, 5))).mean == pytest.approx(1)


def test_divergences_of_histograms() -> None:
    p, q = [1, 1, 0, 0], [0, 0, 2, 2]
    assert js_divergence(p, q) == pytest.approx(1)
    assert js_divergence(p, p) == kl_divergence(p, p) == 0
    assert kl_divergence(p, q) == np.inf
    assert kl_divergence([1, 1], [3, 1], base=2) == pytest.approx(0.5 * np.log2(2 / 3) + 0.5)
    assert wasserstein1(np.arange(5.0), np.arange(5.0) + 2) == pytest.approx(2)


def test_a_straight_map_has_the_path_length_of_its_slope() -> None:
    starts, ends = torch.zeros(50, 3), torch.tensor([1.0, 2.0, 2.0]).repeat(50, 1)
    found = perceptual_path_length(
        lambda z: 5 * z, starts, ends, torch.linspace(0, 0.99, 50), spherical=False, step=1e-2
    )
    assert found.mean == pytest.approx(25 * 9 / 3, rel=1e-3)
    assert len(found.lengths) == 50


def test_a_jump_is_cut_off_by_the_percentiles() -> None:
    def jumps(z: Tensor) -> Tensor:
        return z + 100.0 * (z > 0.5)

    starts, ends = torch.zeros(300, 1), torch.ones(300, 1)
    positions = torch.linspace(0, 0.99, 300)
    positions[7] = 0.4999
    found = perceptual_path_length(jumps, starts, ends, positions, spherical=False, step=1e-3)
    assert found.lengths.max() > 1e9
    assert found.mean < 2


def test_slerp_keeps_the_length_and_meets_both_ends() -> None:
    a, b = torch.randn(8, 16).double(), torch.randn(8, 16).double()
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    assert torch.allclose(slerp(a, b, torch.full((8,), 0.3).double()).norm(dim=1), torch.ones(8).double())
    assert torch.allclose(slerp(a, b, torch.zeros(8).double()), a)
    assert torch.allclose(slerp(a, b, torch.ones(8).double()), b)


@pytest.mark.parametrize("convention", ["gaussian", "padded", "uniform"])
def test_equal_images_are_wholly_similar_and_negatives_are_not(convention: str) -> None:
    images = torch.rand(2, 3, 24, 30)
    assert torch.allclose(ssim(images, images, data_range=1, convention=convention), torch.ones(2).double())  # type: ignore[arg-type]
    assert (ssim(images, 1 - images, data_range=1, convention=convention) < 0).all()  # type: ignore[arg-type]


def test_ms_ssim_uses_as_many_scales_as_fit() -> None:
    assert [ms_ssim_scales(side, side) for side in (11, 28, 32, 64, 176, 1024)] == [1, 2, 2, 3, 5, 5]
    images = torch.rand(3, 1, 33, 40)
    assert torch.allclose(ms_ssim(images, images, data_range=1), torch.ones(3).double())


def test_cka_ignores_rotation_and_scale_but_not_the_samples() -> None:
    x = normal(100, 8)
    turned = 3 * x @ np.linalg.qr(normal(8, 8, 1))[0] + 7
    assert [cka(x, turned, kind) for kind in ("linear", "debiased", "rbf")] == pytest.approx([1, 1, 1])  # type: ignore[arg-type]
    assert abs(cka(x, normal(100, 8, 2), "debiased")) < 0.1
    with pytest.raises(UsageError, match="100 and 99 rows"):
        cka(x, x[:99])


def test_feature_rows_follow_the_convention() -> None:
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert [feature_rows(maps, kind).shape for kind in ("flatten", "cells", "mean")] == [(2, 12), (8, 3), (2, 3)]  # type: ignore[arg-type]
    assert feature_rows(maps, "cells")[1].tolist() == [1, 5, 9]


def test_permutation_p_is_uniform_without_a_difference_and_small_with_one() -> None:
    rng = np.random.default_rng(0)
    null = permutation_p(rng.normal(size=(50, 200)), rng.normal(size=(80, 200)), 200, rng)
    assert 0.01 < (null < 0.05).mean() < 0.1
    assert permutation_p(rng.normal(size=(50, 1)) + 2, rng.normal(size=(80, 1)), 200, rng)[0] == pytest.approx(1 / 201)


def test_halves_are_disjoint_and_of_one_size() -> None:
    for first, second, other in halves(21, 9, 5, np.random.default_rng(0)):
        assert len(first) == len(second) == len(other) == 9
        assert not set(first) & set(second)


def test_bootstrap_interval_of_a_mean_holds_the_truth_about_95_times_in_100() -> None:
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=60)
        low, high = around(values.mean(), bootstrap_weights(60, 200, rng) @ values / 60)
        held += low < 0 < high
    assert 0.88 < held / 200 < 0.99


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: frechet_distance(normal(5, 3), normal(5, 4)), "3 and 4 features"),
        (lambda: frechet_distance(np.full((5, 3), np.nan), normal(5, 3)), "5 of 5 rows are not finite"),
        (lambda: kid(normal(1), normal(5)), "at least 2 rows"),
        (lambda: kid(normal(5), normal(5), [([9], [0])]), "not there"),
        (lambda: precision_recall(normal(3), normal(9)), "at least 4, got 3 and 9 rows"),
        (lambda: inception_score(normal(5, 3)), "at least 10 rows"),
        (lambda: js_divergence([1, 2], [1, 2, 3]), "2 and 3 bins"),
        (lambda: kl_divergence([-1, 2], [1, 2]), "none negative"),
        (lambda: wasserstein1([], [1.0]), "non-empty"),
        (lambda: ssim(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), data_range=2), "smaller than the window"),
        (lambda: ms_ssim(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32), data_range=2, weights=[0.3] * 3), "2 scales"),
        (lambda: list(halves(3, 9, 1, np.random.default_rng(0))), "at least 4 real"),
        (lambda: cka(np.ones((9, 2)), normal(9)), "the same for all samples"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_said_in_a_sentence(call: Callable[[], object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        call()
