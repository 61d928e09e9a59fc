"""Planted geometry is found: dead coordinates, rank, jumps; what is linear is even, what is healthy raises nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gandissect_plugins.geometry import (
    Geometry,
    arithmetic,
    effective_rank,
    interpolate,
    local_rank,
    look_closer,
    pixel_path_lengths,
    register_analyzers,
    sweep,
    truncation,
)
from gandissect_plugins.geometry.means import mean_interval
from gandissect_plugins.geometry.walk_sections import sweep_section
from gandissect_plugins.geometry.walks import between
from gandissect_plugins.health import latent_effects
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Bar
from gandissect.gan import LatentSpace, Opening, Prior
from gandissect.probing.building import build_gan
from gandissect.properties import luminance
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import PLANTED, check_analyzer, tiny_gan, tiny_session


class Linear(nn.Module):
    """z [N, D] to [N, 3, 8, 8] by a matrix of some rank, or with a jump where the first coordinate changes its sign."""

    def __init__(self, size: int = 12, rank: int = 12, jump: float = 0.0) -> None:
        super().__init__()
        left, _ = torch.linalg.qr(torch.randn(192, rank))
        right, _ = torch.linalg.qr(torch.randn(size, rank))
        self.weight = nn.Parameter(0.2 * left @ right.T)
        self.jump = jump

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = (z @ self.weight.T).reshape(-1, 3, 8, 8)
        return image + self.jump * (z[:, 0] > 0).float()[:, None, None, None]


def session_of(net: nn.Module, size: int = 12, n: int = 8, prior: Prior = "normal") -> Session:
    networks = Networks(net, None, LatentSpace("z", (size,), prior), output_range=(-1.0, 1.0))
    return Session(build_gan(networks, name="x", opening=Opening("t", "t")), n=n)


def findings(session: Session) -> list[str]:
    return [finding.text for section in Geometry().run(session) for finding in section.findings]


def test_ways_begin_and_end_at_their_ends_and_spherical_ones_keep_the_norm() -> None:
    start, end = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).unbind()
    fractions = torch.linspace(0, 1, 5)
    for method in ("linear", "spherical"):
        path = between(start, end, fractions, method)  # type: ignore[arg-type]
        assert torch.allclose(path[:, 0], start, atol=1e-5)
        assert torch.allclose(path[:, -1], end, atol=1e-5)
    unit = between(torch.eye(3)[:1], torch.eye(3)[1:2], fractions, "spherical")
    assert torch.allclose(unit.norm(dim=2), torch.ones(1, 5), atol=1e-5)


def test_a_generator_that_is_linear_along_a_way_has_even_steps_and_a_jump_shows() -> None:
    class Blend(torch.nn.Module):
        def __init__(self, jump: bool) -> None:
            super().__init__()
            self.scale = torch.nn.Linear(4, 48)
            self.jump = jump

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            image: torch.Tensor = 0.1 * self.scale(z).reshape(-1, 3, 4, 4)
            return torch.sign(image) * 0.5 if self.jump else image

    found = {}
    for jump in (False, True):
        networks = Networks(Blend(jump), None, LatentSpace("z", (4,)), output_range=(-1.0, 1.0))
        session = Session(build_gan(networks, name="x", opening=Opening("t", "t")), n=8)
        latents = session.latents(8)
        found[jump] = interpolate(session, latents[:4], latents[4:], method="linear")
    assert found[False].unevenness == pytest.approx(np.ones(4), abs=1e-3)
    assert found[False].detour == pytest.approx(np.ones(4), abs=1e-3)
    assert found[True].unevenness.mean() > 1.5


def test_path_lengths_repeat_and_those_of_a_linear_generator_are_a_cross_fade() -> None:
    session = tiny_session("random", n=8)
    first, second = (pixel_path_lengths(session, pairs=8).ways for _ in range(2))
    assert np.array_equal(first, second) and (first > 0).all()
    linear = pixel_path_lengths(session_of(Linear()), pairs=8, method="linear", epsilon=0.05)
    assert linear.ways == pytest.approx(linear.fade, rel=1e-3)


def test_the_sweep_names_exactly_the_coordinates_that_do_nothing() -> None:
    found = sweep(tiny_session("planted", n=16))
    drawing = {PLANTED.red, PLANTED.green, PLANTED.blue, PLANTED.yellow, PLANTED.brightness}
    assert set(found.unused) == set(range(16)) - drawing
    assert sweep(tiny_session("random", n=8)).unused == ()
    assert sweep(tiny_session("vector", n=8)).unused == ()


def test_dead_coordinates_that_the_health_check_has_named_get_no_second_headline() -> None:
    session = tiny_session("planted", n=16)
    assert len(sweep_section(session).findings) == 1
    session.remember(latent_effects(session))
    assert sweep_section(session).findings == ()


def test_what_a_coordinate_does_is_shown_between_its_least_and_its_most_on_any_sample() -> None:
    session = tiny_session("vector", n=8)
    effects, section = sweep(session).by_sample, sweep_section(session)
    bar = next(block for block in section.blocks if isinstance(block, Bar))
    assert bar.series[0].low == effects.min(1).tolist() and bar.series[0].high == effects.max(1).tolist()
    least, most = (f"{pick(effective_rank(values) for values in effects.T):.3g}" for pick in (min, max))
    assert f"({least} to {most} on " in section.summary


def test_adding_the_planted_brightness_succeeds_and_random_additions_do_not() -> None:
    session = tiny_session("planted", n=300)

    def middle(images: torch.Tensor) -> np.ndarray:
        return luminance(images)[:, 0, 16, 16].double().numpy()

    found = arithmetic(session, "light", middle(session.images()), middle, session.rng("a"))
    assert found is not None
    assert found.success == found.tried
    assert found.chance < found.tried / 2
    assert found.p < 0.01


def test_a_linear_generator_has_the_rank_of_its_matrix_everywhere() -> None:
    found = local_rank(session_of(Linear(rank=5)))
    assert found.rank.tolist() == [5] * 8
    assert found.effective == pytest.approx(np.full(8, 5.0), rel=1e-3)  # its singular values are equal
    assert found.singular[:, 0] == pytest.approx(np.full(8, 0.1 / 192**0.5), rel=1e-3)


def test_a_latent_larger_than_the_directions_tried_is_restricted_to_random_ones() -> None:
    found = local_rank(session_of(Linear(30, 30), 30), directions=10)
    assert (found.tried, found.size) == (10, 30)
    assert found.rank.tolist() == [10] * 8


def test_the_effective_rank_is_one_number_of_equal_values() -> None:
    assert effective_rank(np.ones(7)) == pytest.approx(7)
    assert effective_rank(np.array([3.0, 0, 0])) == pytest.approx(1)
    assert effective_rank(np.zeros(4)) == 0.0


def test_the_reference_is_the_effective_rank_of_random_matrices() -> None:
    matrices = np.random.default_rng(0).standard_normal((20, 192, 12))
    drawn = np.mean([effective_rank(np.linalg.svd(m, compute_uv=False)) for m in matrices])
    assert local_rank(session_of(Linear())).reference == pytest.approx(drawn, rel=0.02)


def test_a_jump_does_not_get_smaller_when_it_is_divided_and_is_a_finding() -> None:
    for jump in (0.0, 0.8):
        session = session_of(Linear(jump=jump), n=12)
        latents = session.latents(12)
        start, end = latents[::2].clone(), latents[1::2].clone()
        start[:, 0], end[:, 0] = -1.0, 1.0
        way = interpolate(session, start, end, method="linear")
        largest = look_closer(session, way, start, end, None).largest
        assert (largest > 0.8).all() if jump else largest == pytest.approx(np.full(6, 0.125), rel=1e-2)
    texts = findings(session_of(Linear(jump=0.8), n=24))
    assert any(text.startswith("The image jumps on") for text in texts)


def test_a_linear_generator_keeps_of_its_diversity_what_it_keeps_of_its_distance() -> None:
    found = truncation(session_of(Linear()))
    assert found.diversity == pytest.approx(np.array(found.psis), rel=1e-4)
    assert truncation(session_of(Linear(), prior="uniform")).psis[-1] == 1.0


def test_dead_coordinates_and_low_rank_are_findings() -> None:
    texts = findings(tiny_session("planted", n=30))
    assert any(text.startswith("11 of 16 latent coordinates change nothing in the image: z4, z6, z7") for text in texts)
    assert any("at most 1 of 16 directions of the latent change the image" in text for text in texts)


@pytest.mark.parametrize("kind", ["random", "vector", "conditional"])
def test_a_healthy_network_raises_nothing(kind: str) -> None:
    report = analyze(tiny_gan(kind, seed=1), ["geometry"], n=30)  # type: ignore[arg-type]
    assert report.failed == ()
    assert [finding.text for section in report.sections for finding in section.findings] == []


def test_the_interval_of_a_mean_holds_it_and_is_that_of_student() -> None:
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert mean_interval([4.0]) == (4.0, 4.0, 4.0)


@pytest.mark.slow  # tests/test_promises.py checks the planted network by default
def test_geometry_keeps_the_promises_of_every_analyzer() -> None:
    check_analyzer(Geometry, kinds=("conditional",))


def test_register_names_the_analysis() -> None:
    assert [analyzer.name for analyzer in register_analyzers()] == ["geometry"]
