"""Attributions against planted discriminators and generators."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from gandissect_plugins.attributions import (
    METHODS,
    Attributions,
    Effort,
    LatentEffort,
    Method,
    attribute,
    attribute_latents,
    attribute_score,
    check_attributions,
    curves,
    paired,
    rank_correlation,
    shuffled_weights,
    superpixels,
    trained_p,
)
from gandissect_plugins.attributions.surrogate import fit_linear
from test_gradcam import ConstantDiscriminator, RandomDiscriminator, corner_images, gan_with, session_of
from torch import Tensor, nn

from gandissect.errors import UnknownName
from gandissect.gan import Discriminator
from gandissect.session import Session
from gandissect.testing import PLANTED, CornerDiscriminator, tiny_gan

LITTLE = Effort(steps=12, draws=8, windows=8, regions=36, perturbations=120)
CORNER = Discriminator(CornerDiscriminator(), (), (3, 32, 32))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_puts_its_mass_in_the_corner_that_matters(method: Method) -> None:
    found = attribute(CORNER, method, corner_images(3), torch.zeros(4, 3, 32, 32), effort=LITTLE)
    mass = found.maps.abs()
    share = 0.98 if "gradient" in method else 0.6  # windows and superpixels reach over the corner's edge; LIME is noisy
    assert mass[:, :12, :12].sum() > share * mass.sum()


def test_every_method_passes_deletion_on_the_corner_and_the_discriminator_counts_as_trained() -> None:
    found = check_attributions(session_of(CornerDiscriminator()), corner_images(), effort=LITTLE)
    assert found.trained <= 0.02
    assert [check.deletion.clear for check in found.checks] == [True] * len(METHODS)
    assert sum(check.passed for check in found.checks) >= 4


def test_random_discriminators_hardly_ever_count_as_trained_and_then_nothing_passes() -> None:
    passed = []
    for seed in range(6):
        found = check_attributions(session_of(RandomDiscriminator(seed)), corner_images(), ["occlusion"], effort=LITTLE)
        passed.append(found.checks[0].passed)
        assert found.trained <= 0.02 or not found.checks[0].passed
    assert sum(passed) <= 1  # 2 of 100 are expected


def test_a_constant_discriminator_gives_no_finding_and_says_so() -> None:
    section = next(Attributions({"latents": 0}).run(session_of(ConstantDiscriminator(0))))
    assert section.findings == ()
    assert "does not respond" in section.summary


def test_a_finding_names_the_best_method_only_when_its_checks_passed() -> None:
    class Brightens(nn.Module):
        """Images whose upper left corner is always bright."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.3))

        def forward(self, z: Tensor) -> Tensor:
            noise = torch.tanh(self.scale * z.repeat(1, 32)[:, :1024].view(-1, 1, 32, 32)).repeat(1, 3, 1, 1)
            corner = torch.zeros(1, 1, 32, 32)
            corner[..., :8, :8] = 0.6
            return noise * 0.4 - 0.3 + corner

    options = {"latents": 0, "methods": "occlusion,lime", "perturbations": 120}
    session = Session(gan_with(CornerDiscriminator(), Brightens()), n=16)
    section = next(Attributions(options).run(session))
    assert len(section.findings) == 1
    assert section.findings[0].trust.level == "checked"


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_alone_gets_the_map_it_gets_among_others(method: Method) -> None:
    session, images = session_of(RandomDiscriminator(0)), corner_images(3)
    together = attribute_score(session, method, images, effort=LITTLE).maps
    torch.testing.assert_close(
        together[:1], attribute_score(session, method, images[:1], effort=LITTLE).maps, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
def test_random_state_and_model_are_as_they_were_even_when_the_model_fails(method: Method) -> None:
    module = RandomDiscriminator(0).train()
    calls = itertools.count()

    def failing(images: Tensor) -> Tensor:
        if next(calls) == 3:
            raise ArithmeticError("as planned")
        return RandomDiscriminator.forward(module, images)

    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    attribute(Discriminator(module, (), (3, 32, 32)), method, corner_images(1), corner_images(2), effort=LITTLE)
    module.forward = failing  # type: ignore[method-assign]
    with pytest.raises(ArithmeticError):
        for _ in range(4):
            attribute(Discriminator(module, (), (3, 32, 32)), method, corner_images(1), corner_images(2), effort=LITTLE)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert all(part.training for part in module.modules())


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean occlusion"):
        attribute(CORNER, "oclusion", corner_images(1), corner_images(1))  # type: ignore[arg-type]


def test_integrated_gradients_are_complete_and_say_by_how_much_not() -> None:
    found = attribute(CORNER, "integrated-gradients", corner_images(2), corner_images(1), effort=Effort(steps=50))
    assert found.error is not None and float(found.error.max()) < 0.02
    grey = CORNER(torch.zeros(2, 3, 32, 32)).detach()
    torch.testing.assert_close(found.maps.sum((1, 2)), found.scores - grey, atol=0.02, rtol=0)


def test_the_coordinate_that_sets_brightness_comes_first_in_lime_and_ablation_and_is_a_finding() -> None:
    session = Session(tiny_gan("planted"), n=64)
    found = attribute_latents(session, "brightness")
    assert found.order[0] == PLANTED.brightness
    assert int(found.ablation.abs().mean(0).argmax()) == PLANTED.brightness
    assert found.passed and found.special < 0.01
    section = list(Attributions({"methods": "occlusion"}).run(session))[1]
    assert any("`z[5]`" in finding.text and "brightness" in finding.text for finding in section.findings)


@pytest.mark.slow
def test_random_generators_have_no_coordinate_apart() -> None:
    for seed in range(3):
        session = Session(tiny_gan("random", seed=seed, discriminator=False), n=64)
        pixels, latents = Attributions().run(session)
        assert pixels.status == "skipped"
        assert latents.findings == ()


def test_latents_of_class_conditional_generators_keep_their_class() -> None:
    found = attribute_latents(Session(tiny_gan("conditional"), n=16), "contrast", effort=LatentEffort(samples=2))
    assert found.slopes.shape == (2, 32)


def test_shuffled_weights_are_back_in_the_same_storage_after_an_exception() -> None:
    module = RandomDiscriminator(0)
    before = [(p.data_ptr(), p.detach().clone()) for p in module.parameters()]
    with pytest.raises(ArithmeticError), shuffled_weights(module, rng()):
        assert not torch.equal(module.head.weight, before[-2][1])
        assert torch.equal(module.head.weight.detach().sort().values, before[-2][1].sort().values)
        raise ArithmeticError
    assert all(p.data_ptr() == at and torch.equal(p, value) for p, (at, value) in zip(module.parameters(), before))  # noqa: B905


def test_spectral_norms_settle_on_the_shuffled_weights_and_come_back() -> None:
    layer = nn.utils.spectral_norm(nn.Linear(8, 8))
    module = nn.Sequential(layer).eval()
    images = torch.ones(2, 8)
    kept = layer.weight_u.clone()
    with shuffled_weights(module, rng(), lambda: module(images)):
        module(images)
        assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1.0, abs=0.1)
    assert torch.equal(kept, layer.weight_u)
    assert not layer.training


def test_trained_p_of_random_discriminators_is_spread_over_its_range() -> None:
    ps = [
        trained_p(Discriminator(RandomDiscriminator(seed), (), (3, 32, 32)), corner_images(4), 9, rng())
        for seed in range(20)
    ]
    assert sum(p <= 0.1 for p in ps) <= 6
    assert float(np.mean(ps)) == pytest.approx(0.55, abs=0.2)


def test_deletion_of_the_right_pixels_is_faster_than_of_the_same_shape_elsewhere() -> None:
    maps = torch.zeros(4, 32, 32)
    maps[:, :8, :8] = 1.0
    found = curves(lambda images: CORNER(images).detach(), corner_images(4), maps, rng())
    assert (found.deletion_gain > 0).all()
    assert (found.insertion_gain > 0).all()
    torch.testing.assert_close(found.deletion[:, 0], found.insertion[:, -1])


def test_paired_p_is_exact_for_few_and_one_for_nothing() -> None:
    assert paired(torch.ones(5), rng()).p == 1 / 32
    assert paired(torch.zeros(5), rng()).p == 1.0
    found = paired(torch.tensor([1.0, 2.0, 3.0, 4.0]), rng())
    assert (found.low, found.high) == (pytest.approx(0.446, abs=0.01), pytest.approx(4.554, abs=0.01))  # t with 3 d.f.


def test_rank_correlation_shares_ranks_between_ties() -> None:
    from scipy.stats import spearmanr

    a, b = torch.tensor([[1.0, 1.0, 2.0, 3.0, 3.0]]), torch.tensor([[2.0, 1.0, 1.0, 5.0, 4.0]])
    assert float(rank_correlation(a, b)) == pytest.approx(spearmanr(a[0], b[0]).statistic)
    assert float(rank_correlation(a, torch.ones_like(a))) == 0.0


def test_superpixels_follow_colour_and_are_numbered_without_gaps() -> None:
    image = torch.full((1, 3, 32, 32), -1.0)
    image[:, :, :13] = 1.0
    regions = superpixels(image, 16)
    assert regions.unique().tolist() == list(range(int(regions.max()) + 1))
    assert not set(regions[0, :13].unique().tolist()) & set(regions[0, 13:].unique().tolist())


def test_the_surrogates_r2_is_high_for_a_line_and_not_for_noise() -> None:
    x = torch.from_numpy(rng().standard_normal((200, 5)))
    line = fit_linear(x, x @ torch.tensor([1.0, -2.0, 0.0, 0.0, 3.0]).double() + 7, torch.ones(200))
    noise = fit_linear(x, torch.from_numpy(rng().standard_normal(201))[1:], torch.ones(200))
    assert line.r2 > 0.99 and line.intercept == pytest.approx(7, abs=0.05)
    assert noise.r2 < 0.3


def test_importing_the_plugins_loads_no_heavy_package() -> None:
    code = (
        "import sys, gandissect_plugins.attributions, gandissect_plugins.gradcam;"
        "print([name for name in ('captum', 'sklearn', 'umap', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
