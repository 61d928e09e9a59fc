"""Planted discriminators: each verdict, the corner it looks at, how little turns it round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.critic import (
    OPTIMUM,
    DiscriminatorCheck,
    fragility,
    gaze,
    perturbations,
    separation,
    standing,
)
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.gan import LatentSpace, Opening
from gandissect.probing import build_gan
from gandissect.real import RealImages
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import check_analyzer, tiny_gan

SIDE = 16


class Grey(nn.Module):
    """Latent [N, 4] to [N, 1, 16, 16]: a dark picture with a little pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, SIDE * SIDE)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = torch.tanh(self.fc(z) * 0.4 - 0.3).view(-1, 1, SIDE, SIDE)
        return image


class Brightness(nn.Module):
    """Logit = ``slope`` × mean brightness + ``offset``."""

    def __init__(self, slope: float, offset: float = 0.0) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(slope)), nn.Parameter(torch.tensor(offset))

    def forward(self, images: Tensor) -> Tensor:
        logit: Tensor = self.slope * images.flatten(1).mean(1, keepdim=True) + self.offset
        return logit


def session_of(critic: nn.Module, *, shift: float | None = 0.0, n: int = 96) -> Session:
    """Real images are samples of other latents, brighter by ``shift``; None for none."""
    torch.manual_seed(1)
    generator = Grey().eval()
    networks = Networks(generator, critic.eval(), LatentSpace("z", (4,)), discriminator_output="logit")
    gan = build_gan(networks, name="planted", opening=Opening("testing", "made for tests"))
    real = None
    if shift is not None:
        with torch.no_grad():
            z = torch.randn(96, 4, generator=torch.Generator().manual_seed(9))
            real = RealImages.from_tensor((generator(z) + shift).clamp(-1, 1))
    return Session(gan, n=n, real=real)


def sections_of(session: Session) -> list[Section]:
    analyzer = DiscriminatorCheck({"attacked": 8, "covered": 4})
    session.prepare(analyzer.wants(session))
    return list(analyzer.run(session))


@pytest.mark.parametrize(
    ("slope", "offset", "shift", "verdict", "headline"),
    [
        (2.0, 0.6, 0.0, "balanced", ""),
        (20.0, 5.0, 0.3, "D far ahead", "D is far ahead of G"),
        (-20.0, -5.0, 0.3, "G ahead", "G is ahead of D"),
        (2.0, 40.0, 0.0, "saturated", "saturated"),
        (0.0, 1.0, 0.3, "silent", "silent"),
    ],
)
def test_each_verdict_is_given_where_it_is_planted(
    slope: float, offset: float, shift: float, verdict: str, headline: str
) -> None:
    first = sections_of(session_of(Brightness(slope, offset), shift=shift))[0]
    assert first.summary.startswith(f"**{verdict}**")
    assert len(first.findings) == bool(headline)
    assert all(headline in finding.text for finding in first.findings)


def test_without_real_images_saturation_is_still_said_and_what_they_would_add() -> None:
    first = sections_of(session_of(Brightness(1.0, 30.0), shift=None))[0]
    assert "saturated" in first.findings[0].text
    assert "--data FOLDER" in str(first.to_json())


def test_the_optimum_is_one_half_and_ln_2() -> None:
    found = standing(np.zeros(50), np.zeros(50), np.random.default_rng(0))
    assert found.entropy == pytest.approx(OPTIMUM)
    assert (found.mean_real, found.mean_generated, found.error) == (0.5, 0.5, 0.0)
    assert found.separation.auc == 0.5


def test_calibrated_log_odds_have_no_more_error_than_chance_and_doubled_ones_have() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(1, 1, 2000), rng.normal(-1, 1, 2000)  # log p/q = 2x
    right, doubled = standing(2 * real, 2 * made, rng), standing(8 * real, 8 * made, rng)
    assert right.error < 2 * right.expected_error
    assert doubled.error > 4 * doubled.expected_error


def test_separation_is_the_share_of_ordered_pairs_and_covers_chance() -> None:
    rng = np.random.default_rng(0)
    assert separation(np.array([1.0, 2.0, 2.0]), np.array([0.0, 2.0]), rng).auc == pytest.approx(4 / 6)
    covered = [separation(rng.normal(size=60), rng.normal(size=60), rng) for _ in range(40)]
    assert sum(one.low <= 0.5 <= one.high for one in covered) >= 34


def test_perturbed_images_keep_what_they_should() -> None:
    images = torch.rand(3, 3, 17, 16) * 2 - 1
    found = perturbations(images, np.random.default_rng(0))
    assert set(found) == {"with noise", "blurred", "patches shuffled"}
    assert all(one.shape == images.shape and one.abs().max() <= 1 for one in found.values())
    shuffled = found["patches shuffled"]
    assert torch.equal(shuffled.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    assert not torch.equal(shuffled, images)
    assert found["blurred"].std() < images.std()


def test_the_smallest_change_of_a_linear_discriminator_is_known() -> None:
    session = session_of(Brightness(10.0, 0.0), shift=None)
    assert session.gan.discriminator is not None
    images = torch.full((8, 1, SIDE, SIDE), 0.05)  # logit 0.5: every pixel must move by 0.05, 6.4 steps of 2/255
    found = fragility(session.gan.discriminator, images, threshold=0.0, rng=np.random.default_rng(0))
    assert set(found.sizes["fgsm"]) == set(found.sizes["pgd"]) == {8.0}
    assert found.median("random") == np.inf
    assert found.p == pytest.approx(2**-8)


def test_fragile_is_what_yields_to_small_changes_along_the_gradient_alone() -> None:
    session = session_of(Brightness(10.0, 0.0), shift=None, n=16)
    assert session.gan.discriminator is not None
    near, far = (torch.full((8, 1, SIDE, SIDE), value) for value in (0.01, 0.05))
    found = [
        fragility(session.gan.discriminator, images, threshold=0.0, rng=np.random.default_rng(0))
        for images in (near, far)
    ]
    assert [one.fragile for one in found] == [True, False]


def test_training_images_that_are_known_by_heart_are_said(tmp_path: Path) -> None:
    session = session_of(Brightness(20.0, 5.0), shift=0.3)
    held_out = ((session.images(96)[:, 0].numpy() + 1) * 127.5).astype(np.uint8)  # darker by 0.3
    np.save(tmp_path / "held.npy", held_out)
    session.prepare(DiscriminatorCheck().wants(session))
    first = next(DiscriminatorCheck({"held_out": str(tmp_path / "held.npy")}).run(session))
    assert "knows its training images" in " ".join(finding.text for finding in first.findings)


def test_a_trained_discriminator_that_prefers_spoilt_images_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            score: Tensor = self.scale * images.diff(dim=3).abs().flatten(1).mean(1, keepdim=True)
            return score

    ramp = torch.linspace(-1, 1, SIDE).expand(64, 1, SIDE, SIDE)
    noise = 0.01 * torch.randn(64, 1, SIDE, SIDE)
    session = session_of(Edges(), shift=None, n=16)
    session.real = session._runner.real = RealImages.from_tensor((ramp + noise).clamp(-1, 1))
    session.prepare(DiscriminatorCheck().wants(session))
    said = "Real images with noise score higher than intact ones in 100 % of pairs"
    for p, expected in ((0.02, True), (1.0, False)):
        monkeypatch.setattr("gandissect_plugins.critic.analyzer.trained_p", lambda *_, p=p, **__: p)
        findings = next(DiscriminatorCheck().run(session)).findings
        assert (said in " ".join(finding.text for finding in findings)) == expected


def test_random_discriminators_are_neither_silent_saturated_nor_narrow() -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        critic = nn.Sequential(nn.Conv2d(1, 6, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(6 * 64, 1))
        said = [finding.text for one in sections_of(session_of(critic, shift=None, n=32)) for finding in one.findings]
        assert said == []


def test_a_discriminator_that_looks_at_one_corner_only_is_found_and_said() -> None:
    session = Session(tiny_gan("random"), n=32)
    found = sections_of(session)[-1]
    assert "one part of the image only" in found.findings[0].text
    assert "upper left" in found.findings[0].text


def test_a_discriminator_that_looks_everywhere_is_not_called_narrow() -> None:
    for critic in (Brightness(3.0), nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 1))):
        session = session_of(critic, shift=None, n=16)
        found = gaze(session, session.images(8), np.random.default_rng(0))
        assert not found.narrow
        assert found.share < 0.5


def test_without_a_discriminator_it_is_skipped_with_what_to_pass() -> None:
    (section,) = analyze(tiny_gan(discriminator=False), [DiscriminatorCheck], n=16).sections
    assert section.status == "skipped"
    assert "--discriminator" in section.summary


def test_the_discriminators_check_keeps_the_promises_of_an_analyzer() -> None:
    check_analyzer(DiscriminatorCheck, kinds=("vector",))
