"""Metrics against the numbers that the reference implementations gave on the same arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gandissect.metrics import (
    cka,
    density_coverage,
    feature_rows,
    frechet_distance,
    inception_score,
    js_divergence,
    kid,
    kl_divergence,
    ms_ssim,
    precision_recall,
    ssim,
    wasserstein1,
)

PAIRS = ("near", "collapsed", "real2", "few300")


@pytest.fixture(scope="module")
def metrics(shared: Path) -> Path:
    return shared / "golden" / "analysis" / "metrics"


@pytest.fixture(scope="module")
def expected(metrics: Path) -> dict[str, float]:
    values: dict[str, float] = json.loads((metrics / "expected_features.json").read_text())
    return values


@pytest.fixture(scope="module")
def sets(metrics: Path) -> dict[str, np.ndarray]:
    loaded = dict(np.load(metrics / "features.npz"))
    return {**loaded, "few300": loaded["near"][:300]}


@pytest.mark.parametrize("name", PAIRS)
def test_frechet_distance_is_the_references(name: str, sets: dict[str, np.ndarray], expected: dict[str, float]) -> None:
    found = frechet_distance(sets[name], sets["real"])
    for reference in ("fid_torch_fidelity", "fid_cleanfid_frechet_distance", "fid_float64_exact"):
        assert found == pytest.approx(expected[f"{name}_vs_real/{reference}"], rel=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_kid_is_the_references_on_the_same_subsets(
    name: str, sets: dict[str, np.ndarray], expected: dict[str, float]
) -> None:
    fake, real = sets[name], sets["real"]
    rng = np.random.RandomState(2020)
    draws = [(rng.choice(len(fake), 200, replace=False), rng.choice(len(real), 200, replace=False)) for _ in range(50)]
    found, full = kid(fake, real, draws), kid(fake, real)
    key = f"{name}_vs_real/kid_"
    assert found.mean == pytest.approx(expected[key + "50x200_mean"], rel=1e-4, abs=2e-7)
    assert found.deviation == pytest.approx(expected[key + "50x200_std"], rel=1e-4)
    assert full.mean == pytest.approx(expected[key + "full_unbiased"], rel=1e-9)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("k", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_neighbour_metrics_are_the_references(
    name: str, k: int, sets: dict[str, np.ndarray], expected: dict[str, float]
) -> None:
    closed = precision_recall(sets["real"], sets[name], k)
    opened = density_coverage(sets["real"], sets[name], k)
    found = [closed.precision, closed.recall, opened.density, opened.coverage]
    names = ("precision", "recall", "density", "coverage")
    assert found == pytest.approx([expected[f"{name}_vs_real/prdc_k{k}_{metric}"] for metric in names], abs=1e-9)


@pytest.mark.parametrize("name", ["diverse", "collapsed"])
def test_inception_score_is_the_references(name: str, metrics: Path, expected: dict[str, float]) -> None:
    logits = np.load(metrics / "logits.npz")[name]
    shuffled = logits[np.random.RandomState(2020).permutation(len(logits))]
    for values, shuffle in ((logits, 0), (shuffled, 1)):
        found = inception_score(values, 10)
        told = [expected[f"isc_{name}_splits10_shuffle{shuffle}_{part}"] for part in ("mean", "std")]
        assert [found.mean, found.deviation] == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize("side", [192, 64])
def test_the_three_conventions_of_ssim_are_the_references(side: int, metrics: Path) -> None:
    pairs, told = np.load(metrics / "image_pairs.npz"), np.load(metrics / "expected_images.npz")
    first, second = (torch.from_numpy(pairs[f"{name}{side}"][[0, 3, 5]]).double() for name in "xy")
    names = {
        "gaussian": "skimage_gauss_sigma1.5_nosamplecov",
        "padded": "torchmetrics_gauss1.5_range255",
        "uniform": "skimage_default_uniform7",
    }
    for convention, reference in names.items():
        found = ssim(first, second, data_range=255, convention=convention)  # type: ignore[arg-type]
        assert found.numpy() == pytest.approx(told[f"ssim{side}_{reference}"][[0, 3, 5]], rel=1e-4), convention


def test_ms_ssim_is_the_references(metrics: Path) -> None:
    pairs, told = np.load(metrics / "image_pairs.npz"), np.load(metrics / "expected_images.npz")
    images = {name: torch.from_numpy(pairs[name]).double() for name in pairs.files}
    large = ms_ssim(images["x192"], images["y192"], data_range=255)
    small = ms_ssim(images["x64"], images["y64"], data_range=255)
    assert large.numpy() == pytest.approx(told["msssim192_pytorch_msssim_default_weights"], rel=1e-4)
    assert small.numpy() == pytest.approx(told["msssim64_torchmetrics_betas3"], rel=2e-3)  # that one keeps the border


def test_divergences_and_distances_are_scipys(metrics: Path) -> None:
    data, told = np.load(metrics / "samples_1d.npz"), np.load(metrics / "expected_distributions.npz")
    p, q = data["p"], data["q"]
    found = [
        js_divergence(p, q),
        js_divergence(p, q, base=np.e),
        js_divergence(p, q) ** 0.5,
        kl_divergence(p, q, smoothing=1e-12),
        kl_divergence(q, p, smoothing=1e-12),
        wasserstein1(data["a"], data["b"]),
        wasserstein1(data["a"], data["b"], second_weights=data["weights_b"]),
    ]
    names = ("js_divergence_base2", "js_divergence_nats", "js_distance_base2", "kl_p_q_nats_eps1e12",
             "kl_q_p_nats_eps1e12", "wasserstein1_samples", "wasserstein1_weighted")  # fmt: skip
    assert found == pytest.approx([float(told[name]) for name in names], rel=1e-6)


CKA = ("rotated_scaled", "linear_map", "partially_shared", "independent", "relu", "self",
       "conv_flatten", "conv_spatial_as_samples", "conv_avgpool")  # fmt: skip


@pytest.mark.parametrize("name", CKA)
@pytest.mark.parametrize(
    ("kind", "key"), [("linear", "linear"), ("debiased", "linear_debiased"), ("rbf", "rbf_median")]
)
def test_cka_is_the_references(name: str, kind: str, key: str, shared: Path) -> None:
    folder = shared / "golden" / "analysis" / "cka"
    inputs, told = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
    conventions = {"conv_flatten": "flatten", "conv_spatial_as_samples": "cells", "conv_avgpool": "mean"}
    if name in conventions:
        maps = (torch.from_numpy(inputs[f"conv_{side}"]) for side in "ab")
        x, y = (feature_rows(part, conventions[name]) for part in maps)  # type: ignore[arg-type]
    else:
        x, y = inputs[f"{name}.x"], inputs[f"{name}.y"]
    assert cka(x, y, kind) == pytest.approx(float(told[f"{name}.cka_{key}"]), rel=1e-4, abs=1e-7)  # type: ignore[arg-type]
