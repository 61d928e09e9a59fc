"""Planted discriminators: each verdict, the corner it looks at, how little turns it round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.critic import (
    OPTIMUM,
    DiscriminatorCheck,
    UnitVerdict,
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
from gandissect.probing.building import build_gan
from gandissect.real import RealImages
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import tiny_gan

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
        (20.0, 5.0, 0.3, "D is far ahead of G", "D is far ahead of G"),
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


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "balanced"), (0.5, "G ahead")])
def test_g_is_not_ahead_by_a_few_pairs_in_a_hundred(shift: float, verdict: str) -> None:
    rng = np.random.default_rng(0)
    found = standing(rng.standard_normal(2000), rng.standard_normal(2000) + shift, rng)
    assert found.separation.high < 0.5
    assert found.verdict == verdict


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
    found = next(one for one in sections_of(session) if one.title == "Where the discriminator looks")
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


class Blocks(nn.Module):
    """Latent [N, 8] to [N, 1, 16, 16]: each of 16 units lights one block of 4×4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(8, 16), nn.ReLU()
        self.paint = nn.Linear(16, SIDE * SIDE, bias=False)
        with torch.no_grad():
            self.fc.weight.mul_(0.1)
            self.fc.bias.fill_(0.4)
            blocks = torch.eye(16).view(16, 4, 4).repeat_interleave(4, 1).repeat_interleave(4, 2)
            self.paint.weight.copy_(blocks.flatten(1).T)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.paint(self.act(self.fc(z))).view(-1, 1, SIDE, SIDE)
        return image


class Weighs(nn.Module):
    """Logit = Σ weight · level of a block; the levels of ``saturated`` blocks go through tanh(20 x) − x/5 first:
    far up, the slope is the wrong way round."""

    def __init__(self, saturated: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16))
        self.saturated = saturated

    def forward(self, images: Tensor) -> Tensor:
        level = nn.functional.avg_pool2d(images, 4).flatten(1)
        steep = torch.tanh(20 * level[:, : self.saturated]) - level[:, : self.saturated] / 5
        logit: Tensor = torch.cat([steep, level[:, self.saturated :]], 1) @ self.weight[:, None]
        return logit


def units_section(saturated: int, monkeypatch: pytest.MonkeyPatch) -> Section:
    monkeypatch.setattr("gandissect_plugins.critic.analyzer.trained_p", lambda *_, **__: 0.02)
    networks = Networks(Blocks().eval(), Weighs(saturated).eval(), LatentSpace("z", (8,)), discriminator_output="logit")
    session = Session(build_gan(networks, name="planted", opening=Opening("testing", "made for tests")), n=16)
    analyzer = DiscriminatorCheck({"attacked": 2, "covered": 2, "units": 16})
    return next(one for one in analyzer.run(session) if "units' effects" in one.title)


def test_for_a_linear_discriminator_gradient_and_measured_change_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    section = units_section(0, monkeypatch)
    scatter = next(block for block in section.blocks if block.kind == "scatter").to_json()
    points = np.array(scatter["points"])
    assert len(points) >= 16
    np.testing.assert_allclose(points[:, 0], points[:, 1], atol=1e-4)
    assert "ρ = 1.00" in section.summary
    assert section.findings == ()


def test_a_saturated_unit_is_where_the_gradient_disagrees_most(monkeypatch: pytest.MonkeyPatch) -> None:
    section = units_section(1, monkeypatch)
    listed = [block for block in section.blocks if block.kind == "table"][1].to_json()
    worst = dict(zip(listed["columns"], listed["rows"][0], strict=True))
    assert worst["unit"] == "act · 0"
    assert worst["measured"] == pytest.approx(0.92, abs=0.05)
    assert worst["by the gradient"] == pytest.approx(-0.08, abs=0.05)
    assert worst["they"] == "opposite signs"
    assert "`act · 0`" in section.summary
    assert section.findings == ()


def test_a_discriminator_that_is_saturated_in_most_units_is_said_to_mislead_its_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (finding,) = units_section(16, monkeypatch).findings
    assert "misjudge the generator's units" in finding.text


def test_without_gradients_through_the_generator_units_are_skipped_in_a_sentence() -> None:
    session = session_of(Brightness(2.0), shift=None, n=16)
    session.gan = replace(session.gan, capabilities=replace(session.gan.capabilities, gradients=False))
    section = sections_of(session)[-1]
    assert section.status == "skipped"
    assert "gradients through the generator" in section.summary


def test_verdicts_on_units_name_the_kind_of_disagreement() -> None:
    told = [
        UnitVerdict("a", 0, *numbers).words
        for numbers in ((1, 1, 0.1), (1, -1, 0.1), (3, 1, 0.1), (1, 0, 0.1), (0.1, 0, 0.1))
    ]
    assert told == [
        "agree",
        "opposite signs",
        "the gradient says too much",
        "no clear effect; the gradient claims one",
        "no clear effect",
    ]
