"""Planted directions are found and random ones are not findings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from gandissect_plugins.directions import (
    LatentDirections,
    conditioned,
    ganspace,
    measure_effects,
    probe,
    property_rulers,
    random_baseline,
    random_directions,
    register_analyzers,
    sefa,
)
from gandissect_plugins.directions.basis import Directions
from gandissect_plugins.directions.effects import prior_sigma, strip_frames
from gandissect_plugins.directions.unlabelled_section import unlabelled_findings
from torch import Tensor

from gandissect.adapter import Networks
from gandissect.blocks import Strip, all_blocks
from gandissect.concepts import Concept, Segmenter, Vocabulary
from gandissect.errors import NoSuchCapability, UsageError
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.properties import luminance
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import PLANTED, check_analyzer, tiny_gan, tiny_session

AXIS = np.eye(16, dtype=np.float32)


def planted(n: int = 400) -> Session:
    return tiny_session("planted", n=n)


def brightness_of_background(session: Session) -> np.ndarray:
    images = session.images()
    return luminance(images)[:, 0, 16, 16].numpy()  # the middle, where no square is drawn


def test_the_planted_brightness_direction_is_recovered_by_both_probes() -> None:
    session = planted()
    for method in ("logistic", "svm"):
        found = probe(session.latents().numpy(), brightness_of_background(session), rng=session.rng("x"), method=method)  # type: ignore[arg-type]
        assert abs(found.direction[PLANTED.brightness]) > 0.95
        assert found.direction[PLANTED.brightness] > 0
        assert found.accuracy > 0.9
        assert found.p < 1e-9


def test_a_random_property_is_at_chance_and_its_p_values_are_not_small() -> None:
    session = planted(200)
    latents = session.latents().numpy()
    found = [
        probe(latents, np.random.default_rng(seed).normal(size=200), rng=np.random.default_rng(seed))
        for seed in range(12)
    ]
    assert sum(item.p < 0.05 for item in found) <= 2
    assert sum(item.low <= 0.5 <= item.high for item in found) >= 10


class Noise(Segmenter):
    """Its area depends on nothing in the image."""

    name = "noise"
    concepts = (Concept("noise", "none"),)

    def segment(self, images: torch.Tensor, indices: Sequence[int]) -> torch.Tensor:
        shares = [np.random.default_rng(index).uniform() for index in indices]
        row = torch.linspace(0, 1, images.shape[3]).expand(len(images), 1, images.shape[2], -1)
        return row < torch.tensor(shares)[:, None, None, None]


class Twins(Segmenter):
    """Two names of nearly the same pixels."""

    name = "twins"
    concepts = (Concept("glow", "test"), Concept("gleam", "test"))

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        light = luminance(images)
        return torch.cat([light > 0.5, light > 0.51], 1)


def test_of_two_names_of_one_cause_only_one_is_a_headline() -> None:
    session = Session(tiny_gan("planted"), vocabulary=Vocabulary([Twins()]), n=300)
    section = next(iter(LatentDirections().run(session)))
    told = [finding.text for finding in section.findings if "gl" in finding.text.split(" by ")[0]]
    assert len(told) == 1 and told[0].count("glow") == told[0].count("gleam") == 1


def test_a_random_concept_is_no_finding() -> None:
    for seed in range(2):
        session = Session(tiny_gan("planted"), vocabulary=Vocabulary([Noise()]), n=120, seed=seed)
        first = next(iter(LatentDirections().run(session)))
        assert not [finding.text for finding in first.findings if "noise" in finding.text]


def test_the_planted_direction_beats_all_random_ones_and_another_does_not() -> None:
    session = planted(200)
    rulers = property_rulers(session, 200)
    effects = measure_effects(session, {"planted": AXIS[PLANTED.brightness], "unused": AXIS[10]}, rulers)
    column = rulers.names.index("brightness")
    assert effects.passes(0, column)
    assert effects.percentile(0, column) == 1.0
    assert effects.shift[0, column] > 0.15
    assert np.array_equal(effects.shift[1], np.zeros(len(rulers.names)))
    assert not any(effects.passes(1, other) for other in range(len(rulers.names)))
    assert effects.change[:, column].argmax() == 0
    assert effects.region[0] > 0.15


def test_random_directions_are_no_findings_beyond_the_false_discovery_rate() -> None:
    session = planted(200)
    rulers = property_rulers(session, 200)
    baseline = random_baseline(session, rulers)
    vectors = random_directions(20, 16, np.random.default_rng(7))
    effects = measure_effects(session, {str(i): vector for i, vector in enumerate(vectors)}, rulers, baseline=baseline)
    passing = sum(effects.passes(i, j) for i in range(20) for j in range(len(rulers.names)))
    assert passing <= 1


def test_effects_do_not_depend_on_the_batch_size_or_on_company() -> None:
    found = []
    for batch_size, company in ((1, {}), (64, {"other": AXIS[3]})):
        session = tiny_session("random", n=40, batch_size=batch_size)
        vector = random_directions(1, 32, np.random.default_rng(0))[0]
        other = {name: np.resize(value, 32) for name, value in company.items()}
        effects = measure_effects(session, {"one": vector, **other}, property_rulers(session, 40), baseline=4)
        found.append((effects.shift[0], effects.change[0], effects.null_shift))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_a_property_that_another_section_tells_more_of_has_no_second_headline() -> None:
    session = planted()
    rulers = property_rulers(session, 400)
    axis = AXIS[[PLANTED.brightness]]
    part = Directions("axes", ("axis 5",), axis, np.ones(1), "strength", np.zeros(0))
    effects = measure_effects(session, part.by_name, rulers, baseline=random_baseline(session, rulers))
    alone = unlabelled_findings([part], effects, {})
    assert alone
    for told, expected in ((0.01, list(alone)), (99.0, [])):
        assert list(unlabelled_findings([part], effects, dict.fromkeys(rulers.names, told))) == expected


def test_no_property_has_a_headline_twice() -> None:
    report = analyze(tiny_gan("planted"), ["directions"], n=400)
    texts = [finding.text for section in report.sections for finding in section.findings]
    moved = [text.partition(" moves ")[2].partition(" by ")[0] for text in texts]
    assert len(moved) >= 2
    assert len(set(moved)) == len(moved)


@pytest.mark.parametrize(
    "kind",
    ["vector", pytest.param("random", marks=pytest.mark.slow), pytest.param("conditional", marks=pytest.mark.slow)],
)
def test_a_network_that_never_learned_yields_no_findings(kind: str) -> None:
    report = analyze(tiny_gan(kind, seed=1), ["directions"], n=200)  # type: ignore[arg-type]
    assert report.failed == ()
    assert [finding.text for section in report.sections for finding in section.findings] == []


def test_the_planted_truths_are_findings_of_the_report() -> None:
    sections = list(LatentDirections().run(planted(300)))
    texts = [finding.text for section in sections for finding in section.findings]
    assert any("moves brightness by +" in text for text in texts)
    strips = [block for section in sections for block in all_blocks(section.blocks) if isinstance(block, Strip)]
    assert len(strips) >= 3
    assert all(strip.frames.shape[:2] == (7, 5) and strip.origin == 3 for strip in strips)
    assert all(np.array_equal(strip.frames[3], strips[0].frames[3]) for strip in strips)


@pytest.mark.slow  # tests/test_promises.py checks the planted network by default
def test_the_analysis_keeps_the_promises_of_every_analyzer() -> None:
    check_analyzer(LatentDirections, kinds=("conditional",))  # the others: tests/test_promises.py


def test_register_names_the_analysis() -> None:
    assert [analyzer.name for analyzer in register_analyzers()] == ["directions"]


def test_ganspace_finds_the_coordinate_with_the_largest_variance_in_a_layer() -> None:
    found = ganspace(planted(300), PLANTED.layer, 4)
    assert abs(found.vectors[0][PLANTED.brightness]) > 0.95  # it moves all 64 cells of its unit together
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert (np.diff(found.strengths) <= 0).all()
    assert ((found.stability >= 0) & (found.stability <= 1.0001)).all()


def test_sefa_takes_the_first_layer_of_each_kind_of_generator() -> None:
    transposed = sefa(tiny_gan("random").generator, 32)
    weight = tiny_gan("random").generator.module.project.weight  # type: ignore[union-attr]
    rows = weight.detach().permute(1, 2, 3, 0).reshape(-1, 32).double().numpy()  # type: ignore[operator]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.allclose(
        (rows.T @ rows) @ transposed.vectors[0], transposed.strengths[0] * transposed.vectors[0], atol=1e-3
    )
    assert sefa(tiny_gan("vector").generator, 3).vectors.shape == (3, 16)


def test_sefa_says_where_it_cannot_be() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 3, 1)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            image: torch.Tensor = self.conv(z.reshape(len(z), 1, 4, 4)).tanh()
            return image

    gan = build_gan(Networks(Scaled(), None, LatentSpace("z", (16,))), name="x", opening=Opening("t", "t"))
    with pytest.raises(NoSuchCapability, match="16 numbers of the latent"):
        sefa(gan.generator)


def test_a_conditioned_direction_shares_nothing_with_its_conditions() -> None:
    rng = np.random.default_rng(0)
    direction, conditions = rng.normal(size=8), rng.normal(size=(3, 8))
    found = conditioned(direction, conditions)
    assert np.abs(conditions @ found).max() < 1e-12
    assert np.linalg.norm(found) == pytest.approx(1)


def test_probing_refuses_values_that_hardly_vary() -> None:
    latents = np.random.default_rng(0).normal(size=(60, 4))
    with pytest.raises(UsageError, match="less than a tenth"):
        probe(latents, np.zeros(60), rng=np.random.default_rng(0))


def test_strips_have_the_unedited_samples_in_the_middle() -> None:
    session = tiny_session("conditional", n=8)
    frames = strip_frames(session, random_directions(1, 32, session.rng("x"))[0], (-1.0, 0.0, 1.0))
    assert torch.allclose(frames[1], session.images(5), atol=1e-6)


def test_a_step_under_a_uniform_prior_is_measured_in_its_own_deviation() -> None:
    networks = Networks(tiny_gan("vector").generator.module, None, LatentSpace("z", (16,), "uniform"))
    session = Session(build_gan(networks, name="x", opening=Opening("t", "t")), n=4)
    assert prior_sigma(session) == pytest.approx(float(session.latents(4).std()), abs=0.1)


def test_too_few_samples_skip_the_analysis() -> None:
    (section,) = LatentDirections().run(tiny_session(n=8))
    assert section.status == "skipped"
    assert "at least 24 samples" in section.summary
