import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gandissect.gan import LatentSpace
from gandissect.sampling import latents, named_rng, prior_moments, prior_words

Z = LatentSpace("z", (7,))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), indices=st.lists(st.integers(0, 10**9), min_size=1, max_size=8))
def test_sample_i_depends_on_seed_and_index_alone(seed: int, indices: list[int]) -> None:
    together = latents(seed, indices, Z)
    assert all(torch.equal(together[row], latents(seed, [index], Z)[0]) for row, index in enumerate(indices))


def test_different_samples_and_seeds_differ() -> None:
    rows = torch.cat([latents(seed, range(50), Z) for seed in range(4)])
    assert len(torch.unique(rows, dim=0)) == 200


def test_draws_have_the_moments_of_their_prior() -> None:
    normal = latents(0, range(20_000), Z)
    uniform = latents(0, range(20_000), LatentSpace("z", (7,), "uniform"))
    assert abs(normal.mean()) < 0.01
    assert abs(normal.var() - 1) < 0.02
    assert uniform.abs().max() <= 1
    assert abs(uniform.var() - 1 / 3) < 0.01


def test_named_randomness_is_independent_of_other_names() -> None:
    assert named_rng(0, "a").integers(10**9) == named_rng(0, "a").integers(10**9)
    assert named_rng(0, "a").integers(10**9) != named_rng(0, "b").integers(10**9)


@pytest.mark.parametrize(
    "space",
    [LatentSpace("z", (2000,)), LatentSpace("z", (2000,), "uniform", (0.0, 1.0)), LatentSpace("z", (2000,), "uniform")],
)
def test_the_moments_of_a_prior_are_those_of_its_draws(space: LatentSpace) -> None:
    mean, deviation = prior_moments(space)
    drawn = latents(0, range(20), space)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.std()) == pytest.approx(deviation, rel=0.02)


def test_a_prior_is_described_as_it_is() -> None:
    assert prior_words(LatentSpace("z", (8,), "uniform", (0.0, 1.0))) == "8 latent coordinates drawn from U(0, 1)"
    assert "16×16×3" in prior_words(LatentSpace("image", (3, 16, 16), "image"))
