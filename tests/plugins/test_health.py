"""Planted defects: each is an alarm and is said; a healthy generator raises none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gandissect_plugins.health import (
    Health,
    collisions,
    contrast,
    copying,
    coverage,
    duplicate_units,
    half_turn,
    label_effect,
    latent_effects,
    modes,
    picture_rows,
    pixel_health,
)
from planted_faults import SIDE, STYLE, Kinds, Labelled, Memoriser, gan_of, smooth
from torch import Tensor, nn

from gandissect.blocks import Section, Table
from gandissect.gan import LatentSpace
from gandissect.real import RealImages
from gandissect.session import Session
from gandissect.testing import check_analyzer, tiny_gan, tiny_session

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))]


def real_pictures(seed: int, count: int = 320) -> Tensor:
    """Draws of the healthy generator that no session makes."""
    z = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed + 5000))
    with torch.no_grad():
        return Kinds(seed)(z)


def session_of(module: nn.Module, seed: int, *, real: Tensor | None = None, classes: int = 0, n: int = 160) -> Session:
    given = None if real is None else RealImages.from_tensor(real)
    return Session(gan_of(module, classes=classes), n=n, seed=seed, real=given)


def sections_of(session: Session) -> list[Section]:
    analyzer = Health()
    session.prepare(analyzer.wants(session))
    return list(analyzer.run(session))


def alarms(session: Session) -> dict[str, str]:
    """Alarm -> its headline, as the first section says them."""
    first = sections_of(session)[0]
    table = next(block for block in first.blocks if isinstance(block, Table))
    names = [str(row[0]) for row in table.rows if row[3] == "alarm"]
    assert len(names) == len(first.findings)
    return dict(zip(names, [finding.text for finding in first.findings], strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_generator_raises_no_alarm(seed: int) -> None:
    assert alarms(session_of(Kinds(seed), seed, real=real_pictures(seed))) == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_generator_of_two_of_eight_modes_is_found(seed: int) -> None:
    found = alarms(session_of(Kinds(seed, kinds=2), seed, real=real_pictures(seed)))
    assert "misses modes" in found["modes of the real images"]
    assert set(found) <= {"modes of the real images", "latent coordinates"}  # two signs do nothing any more


def test_a_generator_without_one_of_eight_modes_is_found() -> None:
    session = session_of(Kinds(0, kinds=7), 0, real=real_pictures(0), n=256)
    assert "misses modes" in alarms(session)["modes of the real images"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_generator_of_two_pictures_is_found_without_real_images(seed: int) -> None:
    session = session_of(Kinds(seed, kinds=2, style=0.01), seed)
    assert "repeats itself" in alarms(session)["near-duplicates among samples"]


def test_a_generator_of_one_picture_is_found_although_gaussian_samples_would_look_as_much_alike() -> None:
    found = alarms(session_of(Kinds(0, kinds=1, style=0.01), 0))
    assert "Nearly all samples look the same" in found["near-duplicates among samples"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_memorising_generator_is_found(seed: int) -> None:
    real = real_pictures(seed)
    found = alarms(session_of(Memoriser(real), seed, real=real))
    assert "copies training images" in found["copies of training images"]
    assert set(found) <= {"copies of training images", "near-duplicates among samples"}  # 320 pictures do repeat


@pytest.mark.parametrize("seed", SEEDS)
def test_a_dead_latent_coordinate_is_named(seed: int) -> None:
    found = alarms(session_of(Kinds(seed, dead=seed % STYLE), seed))
    assert list(found) == ["latent coordinates"]
    assert f"z[{3 + seed % STYLE}]" in found["latent coordinates"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_condition_that_does_nothing_is_found(seed: int) -> None:
    assert "label does nothing" in alarms(session_of(Labelled(Kinds(seed), idle=True), seed, classes=4))["class labels"]
    assert alarms(session_of(Labelled(Kinds(seed), idle=False), seed, classes=4)) == {}


def test_a_random_network_raises_no_alarm() -> None:
    for kind in ("random", "vector", "grey"):
        found = alarms(tiny_session(kind, n=96))  # type: ignore[arg-type]
        assert set(found) <= {"checkerboard"}, kind  # which strided transposed convolutions do leave


def test_the_rate_of_near_duplicates_says_how_many_pictures_there_are() -> None:
    pictures = torch.rand(20, 3, 8, 8) * 2 - 1
    drawn = pictures[torch.from_numpy(np.random.default_rng(0).integers(0, 20, 200))]
    found = collisions(picture_rows(drawn), contrast(drawn), np.random.default_rng(1))
    assert 1 / found.high < 20 < 1 / found.low
    assert found.p == 0.01


def test_gaussian_samples_have_no_more_near_duplicates_than_expected() -> None:
    p = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p.append(collisions(rng.standard_normal((60, 2)), 2.0, rng, draws=19).p)
    assert sum(value <= 0.05 for value in p) <= 3


def test_planted_clusters_are_counted_and_a_cloud_is_one() -> None:
    rng = np.random.default_rng(0)
    centres = 6 * rng.standard_normal((4, 6))
    assert modes(centres[np.arange(120) % 4] + rng.standard_normal((120, 6)), rng).count == 4
    assert modes(rng.standard_normal((120, 6)), rng).count == 1


def test_copying_is_calibrated_and_averages_are_no_copies() -> None:
    p, copies = [], 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        found = copying(*(rng.standard_normal((90, 5)) for _ in range(3)), rng, draws=99)
        p.append(found.p)
        copies += found.copies_p <= 0.01
    assert sum(value <= 0.05 for value in p) <= 5
    assert copies <= 1
    rng = np.random.default_rng(0)
    training, held = rng.standard_normal((90, 5)), rng.standard_normal((90, 5))
    averages = copying(training, held, 0.2 * rng.standard_normal((90, 5)), rng, draws=99)
    assert averages.p == 0.01
    assert averages.copies_p > 0.01


def test_a_missed_cluster_is_named_with_its_mass() -> None:
    rng = np.random.default_rng(0)
    kinds = np.arange(400) % 4
    points = np.eye(4)[kinds] * 8 + 0.1 * rng.standard_normal((400, 4))
    found = coverage(points[:200], points[200:], points[kinds != 3], rng)
    assert found.mass == pytest.approx(0.25, abs=0.02)  # a point of it may be a cluster by itself
    assert coverage(points[:200], points[200:], points, rng).mass == 0.0


def test_a_half_turn_keeps_the_prior_and_moves_every_value_far() -> None:
    z = torch.randn(4000)
    for latent, values in ((LatentSpace("z", (1,)), z), (LatentSpace("z", (1,), "uniform"), torch.rand(4000) * 2 - 1)):
        turned = half_turn(values, latent)
        assert torch.equal(turned > 0, values < 0)
        assert abs(float(turned.std() - values.std())) < 0.05


def test_coordinates_that_answer_to_rare_values_are_not_called_dead() -> None:
    found = latent_effects(tiny_session("planted", n=32))
    assert found.dead == (4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)


def test_labels_with_an_effect_are_compared_with_latents() -> None:
    found = label_effect(Session(tiny_gan("conditional"), n=32))
    assert not found.idle
    assert found.between > 0.05
    assert found.same == ()


def test_the_copy_of_a_unit_is_named() -> None:
    found = {layer.layer: layer for layer in duplicate_units(tiny_session("planted", n=64))}
    assert (0, 4) in [pair[:2] for pair in found["act1"].pairs]


def test_broken_empty_clipped_and_checkered_pictures_are_measured() -> None:
    images = smooth(40, 0) * 0.4
    assert pixel_health(images).broken == pixel_health(images).empty == 0
    spoilt = images.clone()
    spoilt[0, 0, 0, 0] = torch.nan
    spoilt[1] = 0.3
    found = pixel_health(spoilt)
    assert (found.broken, found.empty) == (1 / 40, 1 / 40)
    grid = 0.3 * torch.tensor([1.0, -1.0]).repeat(SIDE // 2)
    checkered = pixel_health(images + grid)
    assert np.median(checkered.checker) > 10 * np.median(pixel_health(images).checker)
    assert np.median(checkered.checker) > 10 * checkered.smooth
    assert pixel_health(torch.ones(4, 3, 8, 8)).clipped.mean() == 100


def test_health_keeps_the_promises_of_an_analyzer() -> None:
    check_analyzer(Health, kinds=("grey",))
