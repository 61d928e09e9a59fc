"""The numbers of GANSpace's, SeFa's and InterFaceGAN's own code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.directions import boundary, conditioned, factorised, regress_to_latent, rescore
from gandissect_plugins.features import principal_components

import gandissect

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "analysis" / "directions"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference numbers are not beside this repository")


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
    return np.abs((first * second).sum(1))


def layer1(z: np.ndarray) -> np.ndarray:
    from safetensors.torch import load_file

    weights = load_file(GOLDEN / "ganspace_generator.safetensors")
    out = torch.relu(torch.from_numpy(z.astype(np.float32)) @ weights["fc.weight"].T + weights["fc.bias"])
    return out.numpy()


def test_ganspace_components_and_latent_directions_are_those_of_the_reference() -> None:
    expected, latents = load("expected_ganspace"), load("ganspace_latents")
    activations = layer1(latents["fit_z"])
    found = principal_components(activations, 20)
    assert cosines(found.vectors, expected["exact.components"]).min() > 1 - 1e-6
    assert found.deviations == pytest.approx(expected["exact.stdev_ddof1"], rel=1e-5)
    assert found.explained == pytest.approx(expected["exact.var_ratio"], rel=1e-5)
    # IncrementalPCA is approximate in its last components; the first twelve are comparable (README of the reference numbers)
    assert cosines(found.vectors[:12], expected["ipca_n10000.act_comp"][:12, 0]).min() > 0.999
    coordinates = found.project(layer1(latents["regression_z"])) / found.deviations
    directions = regress_to_latent(coordinates, latents["regression_z"].astype(np.float64))
    assert cosines(directions[:12], expected["ipca_n10000.lat_comp"][:12, 0]).min() > 0.999


def test_the_regression_to_the_latent_is_that_of_the_reference_given_its_components() -> None:
    expected, latents = load("expected_ganspace"), load("ganspace_latents")
    mean, rows = expected["ipca_n10000.act_mean"].astype(float), expected["ipca_n10000.act_comp"][:, 0].astype(float)
    coordinates = (layer1(latents["regression_z"]) - mean) @ rows.T / expected["ipca_n10000.act_stdev"]
    directions = regress_to_latent(coordinates, latents["regression_z"].astype(np.float64))
    assert np.abs(directions - expected["exact.lat_comp_from_ipca"]).max() < 1e-4


@pytest.mark.parametrize("chosen", ["pggan", "stylegan2[all]", "stylegan2[0-1]", "stylegan[all]", "stylegan[2,4]"])
def test_sefa_directions_are_those_of_the_reference(chosen: str) -> None:
    expected, weights = load("expected_sefa"), load("sefa_weights")
    if chosen == "pggan":
        first = torch.from_numpy(weights["pggan.layer0.weight"])  # [48, 32, 4, 4]
        parts = [first.permute(0, 2, 3, 1).reshape(-1, 32)]
    else:
        family, _ = chosen.split("[")
        every = [f"layer{i}.style.weight" for i in range(6 if family == "stylegan" else 5)]
        every += ["output2.style.weight"] if family == "stylegan2" else []
        parts = [torch.from_numpy(weights[f"{family}.{every[i]}"]) for i in expected[f"{chosen}.layers"]]
    rows, values = factorised(parts)
    assert cosines(rows, expected[f"{chosen}.boundaries_sorted"]).min() > 0.999
    assert values == pytest.approx(expected[f"{chosen}.eigenvalues_sorted"], rel=1e-4)


def test_sefa_without_scaling_is_the_other_variant() -> None:
    expected, weights = load("expected_sefa"), load("sefa_weights")
    names = [*(f"stylegan2.layer{i}.style.weight" for i in range(5)), "stylegan2.output2.style.weight"]
    rows, values = factorised([torch.from_numpy(weights[name]) for name in names], normalise=False)
    reference = expected["stylegan2[all].unnormalised_float64_vectors"]
    agreement = [cosines(rows, candidate).min() for candidate in (reference, reference.T)]
    assert max(agreement) > 0.999
    assert values == pytest.approx(expected["stylegan2[all].unnormalised_float64_values"], rel=1e-5)
    assert cosines(rows, factorised([torch.from_numpy(weights[name]) for name in names])[0]).min() < 0.9


@pytest.mark.parametrize("case", ["attr0_ratio0.02", "attr0_ratio0.1", "attr1_ratio0.02", "attr2_ratio0.02"])
def test_interfacegan_boundaries_are_those_of_the_reference(case: str) -> None:
    expected, inputs = load("expected_interfacegan"), load("interfacegan_inputs")
    scores, latents = inputs["scores"][:, int(case[4])], inputs["latents"].astype(np.float32)
    order = np.argsort(scores)[::-1]
    count = len(expected[f"{case}.train_positive_index"]) + len(expected[f"{case}.val_positive_index"])
    ends = {"positive": order[:count], "negative": order[-count:]}
    chosen = {}
    for side, members in ends.items():
        index = expected[f"{case}.train_{side}_index"]
        chosen[side] = latents[index if index.max() >= count else members[index]]
    normal, _, _ = boundary(chosen["positive"], chosen["negative"], "svm")
    assert cosines(normal[None], expected[f"{case}.boundary"]).min() > 0.999


def test_conditioned_boundaries_are_those_of_the_reference() -> None:
    expected = load("expected_interfacegan")
    rows = np.concatenate([expected[f"attr{i}_ratio0.02.boundary"] for i in range(4)])
    assert cosines(conditioned(rows[0], rows[1:2])[None], expected["conditional_0_given_1"]).min() > 0.999
    assert cosines(conditioned(rows[0], rows[1:])[None], expected["conditional_0_given_1_2_3"]).min() > 0.999


@pytest.mark.parametrize(("case", "strengths"), [("psi1", (1, 1, 1, 1)), ("psi0.7_layers2", (0.7, 0.7, 1, 1))])
def test_rescoring_is_that_of_higan(case: str, strengths: tuple[float, ...]) -> None:
    expected, inputs = load("expected_higan"), load("higan_inputs")
    w = torch.from_numpy(inputs["w"].astype(np.float64))[:, None].expand(-1, 4, -1)
    maps, heads = inputs["A"].astype(np.float64), inputs["V"].astype(np.float64)
    for k, boundary_of in enumerate(inputs["boundaries"][:, 0]):

        def score(points: torch.Tensor, k: int = k) -> np.ndarray:
            hidden = np.tanh(np.einsum("lhd,nld->nlh", maps, points.numpy())).sum(1)
            return 1 / (1 + np.exp(-hidden @ heads[k]))

        found = rescore(score, w, torch.from_numpy(boundary_of), strengths=strengths)
        prefix = f"{case}.boundary{k}"
        assert found.overall == pytest.approx(float(expected[f"{prefix}.delta_all_layers"]), rel=1e-6)
        assert found.layers == pytest.approx(expected[f"{prefix}.delta_per_layer"], rel=1e-6)
        signed = np.array([found.signed_overall, *found.signed_layers])
        assert signed == pytest.approx(expected[f"{prefix}.signed_delta"], rel=1e-6)


@pytest.mark.slow
def test_a_network_of_random_weights_and_few_pixels_yields_no_findings() -> None:
    report = gandissect.analyze(gandissect.open(GOLDEN / "ganspace_generator.ts"), ["directions", "geometry"], n=300)
    assert report.failed == ()
    assert [finding.text for section in report.sections for finding in section.findings] == []
