"""Inversion finds the latents that are there, and names what a generator cannot draw and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gandissect_plugins.inversion import Inversion, Measured, Sizes, losses, measured
from gandissect_plugins.inversion.measuring import affordable
from gandissect_plugins.inversion.sections import error_colours, real_section
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.errors import NoSuchCapability, UsageError
from gandissect.gan import InnerSpace, LatentSpace, Opening
from gandissect.inverting import Effort, held_out, invert, pyramid, rank_p
from gandissect.lbfgs import minimised
from gandissect.probing.building import build_gan
from gandissect.real import RealImages
from gandissect.session import Session
from gandissect.testing import tiny_session

SIZE = 16
SEEDS = [range(2), pytest.param(range(2, 10), marks=pytest.mark.slow)]


class Linear(nn.Module):
    """z [N, 6] to [N, 3, 16, 16] by a matrix of full rank; with ``used`` below 6 the other coordinates do nothing."""

    def __init__(self, used: int = 6) -> None:
        super().__init__()
        smooth = nn.functional.interpolate(torch.randn(6, 3, 4, 4), size=(SIZE, SIZE), mode="bilinear")
        smooth[used:] = 0
        self.weight = nn.Parameter(0.15 * smooth.flatten(1))

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.weight).reshape(-1, 3, SIZE, SIZE)


class Scene(nn.Module):
    """z [N, 6] to [N, 3, 16, 16]: a grey sky whose light and slope vary, and a green disc that moves; nothing is ever red."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.25))
        line = torch.linspace(-1, 1, SIZE)
        self.register_buffer("x", line[None, None].expand(1, SIZE, SIZE))
        self.register_buffer("y", line[None, :, None].expand(1, SIZE, SIZE))

    def forward(self, z: Tensor) -> Tensor:
        a, b, c, left, up, size = (column[:, None, None] for column in z.unbind(1))
        sky = self.gain * (0.6 * a + b * self.x + c * self.y).tanh()
        apart = (self.x - 0.5 * left.tanh()).square() + (self.y - 0.5 * up.tanh()).square()
        disc = torch.sigmoid(12 * (0.22 + 0.05 * size.tanh() - apart))
        return torch.stack([sky - disc, sky + (0.8 - sky) * disc, sky - disc], 1).clamp(-1, 1)


def coloured(channel: int) -> CallableSegmenter:
    def mask(images: Tensor) -> Tensor:
        rest = [other for other in range(3) if other != channel]
        return images[:, channel] - images[:, rest].amax(1) - 0.5

    return CallableSegmenter(mask, [("red", "green")[channel]])


def session_of(net: nn.Module, size: int = 6, n: int = 200, seed: int = 0, **more: object) -> Session:
    latent = more.pop("latent", LatentSpace("z", (size,)))
    networks = Networks(net, None, latent, inner=more.pop("inner", ()), output_range=(-1.0, 1.0))  # type: ignore[arg-type]
    vocabulary = Vocabulary([coloured(0), coloured(1)])
    gan = build_gan(networks, name="x", opening=Opening("t", "t"))
    return Session(gan, n=n, seed=seed, vocabulary=vocabulary, **more)  # type: ignore[arg-type]


def scene_session(seed: int, red: bool) -> tuple[Session, Tensor]:
    """Real images that the generator could have made, with a red square if asked for, and where that is: bool [N, H, W]."""
    made = session_of(Scene(), seed=1000 + seed).images(20).clone()
    squares = torch.zeros(20, SIZE, SIZE, dtype=torch.bool)
    for i, (row, column) in enumerate(np.random.default_rng(seed).integers(0, SIZE - 4, (20, 2)) if red else []):
        squares[i, row : row + 4, column : column + 4] = True
    made = torch.where(squares[:, None], torch.tensor([0.9, -0.9, -0.9])[None, :, None, None], made)
    return session_of(Scene(), seed=seed, real=RealImages.from_tensor(made)), squares


def scene_result(seed: int, red: bool) -> tuple[Session, Measured, Tensor]:
    session, squares = scene_session(seed, red)
    return session, measured(session, Sizes(20, 20, 8), Effort()), squares


def test_rows_are_minimised_as_if_each_were_alone() -> None:
    def rosenbrock(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = (1 - x[:, 0]) ** 2 + 100 * (x[:, 1] - x[:, 0] ** 2) ** 2
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    start = torch.tensor([[-1.2, 1.0], [2.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    found = minimised(rosenbrock, start, 80)
    assert found.points == pytest.approx(torch.ones(3, 2).double(), abs=1e-4)
    assert torch.equal(found.points[1:2], minimised(rosenbrock, start[1:2], 80).points)


def test_a_point_that_is_not_finite_is_not_entered() -> None:
    def barrier(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x - x.log())[:, 0], 1 - 1 / x

    found = minimised(barrier, torch.tensor([[5.0], [0.01]]), 40)
    assert found.points == pytest.approx(torch.ones(2, 1), abs=1e-3)


def test_a_linear_generator_is_inverted_exactly() -> None:
    session = session_of(Linear())
    own = held_out(session, 20)
    found = invert(session, own.images, Effort(prior=0.0))
    assert found.points == pytest.approx(own.latents, abs=2e-3)
    assert found.error.max() < 1e-3
    assert (found.psnr > 60).all()


def test_the_prior_gives_the_ridge_solution_of_a_linear_generator() -> None:
    session, weight = session_of(Linear()), 0.05
    own = held_out(session, 10)
    basis = pyramid(session.gan.generator(torch.eye(6))).detach().double()
    wanted = pyramid(own.images).double()
    ridge = torch.linalg.solve(basis @ basis.T + weight / 6 * torch.eye(6), basis @ wanted.T).T
    assert invert(session, own.images, Effort(prior=weight)).points == pytest.approx(ridge.float(), abs=2e-3)


def test_the_pyramid_is_the_mean_over_scales_of_the_mean_squared_difference() -> None:
    first, second = torch.randn(2, 4, 3, 16, 16).unbind()
    scales = [nn.functional.avg_pool2d(first - second, width).square().mean((1, 2, 3)) for width in (1, 2, 4)]
    assert (pyramid(first) - pyramid(second)).square().sum(1) == pytest.approx(torch.stack(scales).mean(0), rel=1e-4)


def test_an_image_has_the_same_inversion_in_any_company() -> None:
    session = tiny_session("random", n=100)
    images = held_out(session, 20).images
    for starts in (1, 3):
        together = invert(session, images, Effort(starts, 12))
        alone = invert(session, images[17:19], Effort(starts, 12))
        assert torch.equal(together.points[17:19], alone.points)
        assert torch.equal(together.images[17:19], alone.images)


def test_under_a_uniform_prior_no_coordinate_leaves_its_span() -> None:
    session = session_of(Linear(), latent=LatentSpace("z", (6,), "uniform", (0.0, 2.0)))
    own = held_out(session, 16)
    assert invert(session, own.images).points == pytest.approx(own.latents, abs=5e-3)
    far = invert(session, 3 * own.images).points
    assert far.min() >= -1e-6
    assert far.max() <= 2 + 1e-6


def test_points_of_an_inner_space_are_found_and_give_their_images() -> None:
    net = Linear()
    space = InnerSpace("w", (6,), lambda z, _: 3 * z + 1, lambda w, _: net((w - 1) / 3))
    session = session_of(net, inner=(space,))
    own = held_out(session, 8)
    found = invert(session, own.images, Effort(prior=0.0), space="w")
    assert (found.space, found.labels) == ("w", None)
    assert found.points == pytest.approx(3 * own.latents + 1, abs=1e-2)
    with pytest.raises(UsageError, match="no latent space 'v'"):
        invert(session, own.images, space="v")


def test_a_generator_with_w_is_searched_there() -> None:
    net = Linear()
    session = session_of(net, inner=(InnerSpace("w", (6,), lambda z, _: 2 * z, lambda w, _: net(w / 2)),))
    for options, expected in (({}, "*w*"), ({"space": "z"}, "*z*")):
        (section,) = Inversion(options).run(session)
        assert f"the point of {expected} is sought" in section.meaning


def test_more_starts_are_no_worse_and_every_image_gets_its_class() -> None:
    session = tiny_session("conditional", n=200)
    own = held_out(session, 16)
    one, four = (invert(session, own.images, Effort(starts, 24)) for starts in (1, 4))
    assert four.error.mean() < 1.2 * one.error.mean()
    for found in (one, four):
        assert found.labels is not None
        assert torch.equal(session.generate(found.points, labels=found.labels), found.images)


def test_what_cannot_be_inverted_is_said() -> None:
    session = tiny_session("planted", n=8)
    with pytest.raises(UsageError, match="takes images 3×32×32"):
        invert(session, torch.zeros(2, 3, 16, 16))
    session.gan = replace(session.gan, capabilities=replace(session.gan.capabilities, gradients=False))
    with pytest.raises(NoSuchCapability, match="gives none"):
        invert(session, session.images(2))


def test_ranks_count_the_own_images_and_the_image_itself() -> None:
    assert rank_p(np.array([0.5, 2.5, 9.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx([1.0, 0.5, 0.25])


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_planted_object_that_cannot_be_drawn_is_named_and_one_that_can_is_not(seeds: range) -> None:
    for seed in seeds:
        session, found, squares = scene_result(seed, red=True)
        assert found.real is not None
        lost = {one.name: one for one in losses(session, found.real, found.own)}
        section = real_section(session, found, found.real, list(lost.values()))
        assert found.sound
        assert lost["red"].told
        assert lost["red"].kept < 0.3
        assert not lost["green"].told
        assert section.findings[0].text.startswith("The generator cannot make the *red* of real images")
        inside, outside = found.real.maps[squares].mean(), found.real.maps[~squares].mean()
        assert inside > 8 * outside
        assert lost["red"].inside > 5


@pytest.mark.parametrize("seeds", SEEDS)
def test_images_that_the_generator_could_have_made_raise_nothing(seeds: range) -> None:
    texts = []
    for seed in seeds:
        session, found, _ = scene_result(seed, red=False)
        assert found.real is not None
        section = real_section(session, found, found.real, losses(session, found.real, found.own))
        texts += [finding.text for finding in section.findings]
    assert texts == []


def test_where_the_search_finds_nothing_nothing_is_said() -> None:
    session, found, _ = scene_result(0, red=True)
    assert found.real is not None
    blind = replace(found, worse=0.5)
    section = real_section(session, blind, found.real, losses(session, found.real, found.own))
    assert section.findings == ()
    assert "inverted no worse" in str(section.to_json()["blocks"])


def test_coordinates_that_do_nothing_are_not_found_again() -> None:
    found = measured(session_of(Linear(used=4)), Sizes(real=0), Effort())
    assert (found.recovered[:4] > 0.95).all()
    assert (found.adjusted[:4] < 0.001).all()
    assert (found.adjusted[4:] > 0.05).all()
    assert found.chance < 0.6 < found.cosine.mean()


def test_shuffled_pixels_are_worse_than_own_images() -> None:
    _, found, _ = scene_result(3, red=False)
    assert found.control.error.min() > found.own.error.max()
    assert found.worse < 0.001


def test_without_real_images_only_own_images_are_shown() -> None:
    sections = list(Inversion().run(session_of(Scene())))
    assert [section.status for section in sections] == ["done"]
    assert sections[0].findings == ()
    assert "--data FOLDER" in str(sections[0].to_json()["blocks"])


def test_too_few_samples_are_a_reason_to_skip() -> None:
    (section,) = Inversion().run(session_of(Linear(), n=12))
    assert section.status == "skipped"
    assert "needs at least 20 samples and images, here 12 samples (--samples N)" in section.summary


class Broken(nn.Module):
    """z [N, 6] to one grey image, whatever z is; ``rare`` where its first coordinate is above 2."""

    def __init__(self, rare: float) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, 3, SIZE, SIZE))
        self.rare = rare

    def forward(self, z: Tensor) -> Tensor:
        return torch.where((z[:, 0] > 2)[:, None, None, None], self.rare, self.image + 1e-6 * z.sum())


def test_images_that_are_not_finite_are_a_reason_to_skip_and_a_constant_one_is_none() -> None:
    (skipped,) = Inversion().run(session_of(Broken(float("nan"))))
    assert (skipped.status, "finite" in skipped.summary) == ("skipped", True)
    (done,) = Inversion().run(session_of(Broken(0.0)))
    assert done.status == "done"
    assert done.findings == ()


def test_a_large_generator_gets_fewer_images_then_fewer_steps_then_none() -> None:
    session, sizes, effort = session_of(Linear()), Sizes(40, 40, 8), Effort(steps=60)
    whole = sizes.total * effort.images
    for share, expected in ((2, (40, 60)), (0.6, (22, 60)), (0.4, (20, 44)), (0.1, None)):
        session.__dict__["effort"] = 1e12 / (share * whole)
        plan = affordable(session, sizes, effort)
        assert (plan and (plan[0].own, plan[1].steps)) == expected


def test_what_is_left_out_for_a_large_generator_is_said_and_what_is_asked_for_is_done() -> None:
    session, sizes = session_of(Linear()), Sizes(real=0)
    session.__dict__["effort"] = 1e12 / (0.8 * sizes.total * Effort().images)
    (fewer,) = Inversion().run(session)
    assert "20 images of each kind with 25 steps in place of 24 with 28" in str(fewer.to_json()["blocks"])
    (whole,) = Inversion({"images": 25}).run(session)
    assert whole.summary.startswith("Of 25 of")
    session.__dict__["effort"] = 1e12
    (skipped,) = Inversion().run(session)
    assert skipped.status == "skipped"
    assert "--set inversion.images=20" in skipped.summary


def test_error_colours_are_viridis_from_zero() -> None:
    maps = np.zeros((1, 10, 20))
    maps[0, 0, :4] = 0.5
    coloured_maps, full = error_colours(maps)
    assert full == pytest.approx(0.5)
    assert coloured_maps[0, 5, 5].tolist() == [68, 1, 84]
    assert coloured_maps[0, 0, 0].tolist() == [253, 231, 36]


class Back(nn.Module):
    """The exact inverse of a :class:`Linear` generator."""

    def __init__(self, net: Linear) -> None:
        super().__init__()
        self.inverse = nn.Parameter(torch.linalg.pinv(net.weight.detach()))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.inverse


def test_the_search_starts_where_the_checkpoints_own_encoder_says() -> None:
    torch.manual_seed(0)
    net = Linear()
    gan = gandissect.wrap(net, encoder=Back(net), latent=(6,), output_range=(-1.0, 1.0))
    session = Session(gan, n=100)
    found = invert(session, held_out(session, 20).images, Effort(steps=1))
    assert found.encoded is not None
    assert found.encoded.max() < 1e-4
    assert found.error.max() < 1e-3
    section = next(iter(Inversion({"images": 20}).run(session)))
    assert "encoder alone, %" in str(section.to_json())


def test_without_an_encoder_nothing_is_said_of_one() -> None:
    torch.manual_seed(0)
    session = Session(gandissect.wrap(Linear(), latent=(6,), output_range=(-1.0, 1.0)), n=100)
    assert invert(session, held_out(session, 20).images, Effort(steps=1)).encoded is None
