"""Discriminators of other GANs: told where their BatchNorm cannot have seen the generator's images, and never where it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gandissect_plugins.critic import DOUBT, DiscriminatorCheck, belonging
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.probing.verifying import FOREIGN, Moments, excess_variance, variance_ratios, verify
from gandissect.real import RealImages
from gandissect.session import Session

SIDE = 16
RED, BLUE = 0, 2
SEEDS = [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 20))]
FOLDERS = {
    "celeba32-dcgan-fletcher": ("generator.pt", "discriminator.pt"),
    "cifar10-dcgan-sn-fstdrvr": ("dcgan.pt", None),
    "fashion-dcgan-aman": ("G.pth", "D.pth"),
    "mnist-dcgan-pritalb": ("dcgan_generator.pt", "dcgan_descriminator.pt"),
    "mnist-wgangp-akanametov": ("generator.pt", "critic.pt"),
}


class Fields(nn.Module):
    """Latent [N, 6] to smooth colour fields [N, 3, 16, 16] that vary in one channel and hardly in the others."""

    def __init__(self, channel: int, contrast: float = 1.0) -> None:
        super().__init__()
        self.contrast = contrast
        self.fc = nn.Linear(6, 3 * 4 * 4)
        self.register_buffer("colour", torch.full((3, 1, 1), 0.02).index_fill(0, torch.tensor(channel), 1.0))

    def forward(self, z: Tensor) -> Tensor:
        patches = self.fc(z).view(-1, 3, 4, 4) * self.get_buffer("colour")
        return torch.tanh(self.contrast * F.interpolate(patches, size=SIDE, mode="bilinear", align_corners=False))


def fields(channel: int, seed: int, contrast: float = 1.0) -> Fields:
    torch.manual_seed(seed)
    return Fields(channel, contrast).eval()


def critic(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """Its first units look at one channel each, in turn."""
    first = nn.Conv2d(3, 18, 4, 2, 1)
    with torch.no_grad():
        first.weight.mul_(torch.eye(3).repeat(6, 1)[:, :, None, None])
    return nn.Sequential(
        first, norm(18), nn.LeakyReLU(0.2), nn.Conv2d(18, 24, 4, 2, 1), norm(24), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(24 * 16, 1),
    )  # fmt: skip


def trained(judge: nn.Sequential, maker: nn.Module, real: nn.Module) -> nn.Sequential:
    """``judge`` after a few steps in which batches of real and of generated images alternate."""
    steps = torch.optim.Adam(judge.parameters(), 1e-3)
    judge.train()
    for _ in range(30):
        with torch.no_grad():
            made, true = (net(torch.randn(32, 6)) for net in (maker, real))
        loss = F.softplus(-judge(true)).mean() + F.softplus(judge(made)).mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    return judge.eval()


def gan_of(maker: nn.Module, judge: nn.Module, mismatch: float | None = None) -> Gan:
    networks = Networks(maker, judge, LatentSpace("z", (6,)), output_range=(-1.0, 1.0), discriminator_output="logit")
    return build_gan(networks, name="planted", opening=Opening("testing", "made for tests", mismatch=mismatch))


def pictures(net: nn.Module, count: int = 96) -> Tensor:
    with torch.no_grad():
        images: Tensor = net(torch.randn(count, 6, generator=torch.Generator().manual_seed(3)))
    return images


def foreign(gan: Gan, real: Tensor | None = None) -> bool:
    session = Session(gan, n=96)
    found = belonging(session, session.images(), real)
    assert found is not None
    return found.foreign


def sections(gan: Gan, real: Tensor | None = None) -> list[Section]:
    session = Session(gan, n=64, real=None if real is None else RealImages.from_tensor(real))
    analyzer = DiscriminatorCheck({"attacked": 2, "covered": 2, "units": 0})
    session.prepare(analyzer.wants(session))
    return list(analyzer.run(session))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("channel", [RED, BLUE])
def test_the_own_discriminator_raises_nothing(seed: int, channel: int) -> None:
    maker = fields(channel, seed)
    assert not foreign(gan_of(maker, trained(critic(), maker, fields(channel, seed + 100, 1.5))))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_discriminator_of_red_pictures_is_foreign_to_a_generator_of_blue_ones(seed: int) -> None:
    other = trained(critic(), fields(RED, seed), fields(RED, seed + 100, 1.5))
    assert foreign(gan_of(fields(BLUE, seed + 200), other))


@pytest.mark.parametrize("seed", SEEDS)
def test_real_pictures_and_samples_that_differ_are_no_reason_for_an_alarm(seed: int) -> None:
    maker, real = fields(BLUE, seed), fields(RED, seed + 100)
    judge = trained(critic(), maker, real)
    assert not foreign(gan_of(maker, judge))
    assert not foreign(gan_of(maker, judge), pictures(real))


def test_a_discriminator_that_knows_the_real_images_is_not_called_foreign() -> None:
    other = trained(critic(), fields(RED, 0), fields(RED, 100, 1.5))
    gan = gan_of(fields(BLUE, 200), other)
    assert foreign(gan, pictures(fields(BLUE, 300)))
    assert not foreign(gan, pictures(fields(RED, 300)))


def test_a_collapsed_or_a_bolder_generator_is_not_a_foreign_one() -> None:
    maker = fields(RED, 0)
    judge = trained(critic(), maker, fields(RED, 100, 1.5))
    bold = fields(RED, 0, 3.0)
    alike = fields(RED, 0, 0.01)
    assert not foreign(gan_of(bold, judge))
    assert not foreign(gan_of(alike, judge))


@pytest.mark.parametrize("norm", [nn.Identity, nn.InstanceNorm2d])
def test_without_stored_statistics_nothing_is_said(norm: type[nn.Module]) -> None:
    gan = gan_of(fields(BLUE, 200), trained(critic(norm), fields(RED, 0), fields(RED, 100)))
    session = Session(gan, n=64)
    assert belonging(session, session.images(), None) is None
    assert not any("not of this GAN" in finding.text for section in sections(gan) for finding in section.findings)


def test_nothing_is_said_of_few_images_or_of_a_generator_that_is_not_as_trained() -> None:
    other = trained(critic(), fields(RED, 0), fields(RED, 100, 1.5))
    session = Session(gan_of(fields(BLUE, 200), other), n=96)
    assert belonging(session, session.images(16), None) is None
    unfit = Session(gan_of(fields(BLUE, 200), other, mismatch=5.0), n=96)
    assert belonging(unfit, unfit.images(), None) is None


def test_the_alarm_is_the_first_finding_and_the_others_carry_the_doubt() -> None:
    other = trained(critic(), fields(RED, 0), fields(RED, 100, 1.5))
    with torch.no_grad():
        other[-1].weight.mul_(1000)  # saturated, which is another finding
    gan = gan_of(fields(BLUE, 200), other)
    found = [finding for section in sections(gan, pictures(fields(BLUE, 300))) for finding in section.findings]
    first, *rest = found
    assert "probably not of this GAN" in first.text
    assert first.weight == max(one.weight for one in found)
    assert str(FOREIGN) in first.trust.label and "own generator's images" in first.trust.tested
    assert rest and all(one.text.endswith(DOUBT) for one in rest)


def test_findings_on_an_own_discriminator_carry_no_doubt() -> None:
    maker = fields(RED, 0)
    judge = trained(critic(), maker, fields(RED, 100, 1.5))
    with torch.no_grad():
        judge[-1].weight.mul_(1000)
    found = [finding.text for section in sections(gan_of(maker, judge)) for finding in section.findings]
    assert found and not any(DOUBT in text for text in found)


def test_the_check_of_an_opened_gan_says_it_too() -> None:
    maker = fields(RED, 0)
    own = gan_of(maker, trained(critic(), maker, fields(RED, 100, 1.5)))
    other = gan_of(fields(BLUE, 200), own.discriminator.module if own.discriminator else nn.Identity())
    verdicts = [
        next(check.verdict for check in verify(gan) if check.name == "discriminator's BatchNorm")
        for gan in (own, other)
    ]
    assert verdicts == ["ok", "doubtful"]


def test_a_factor_that_all_units_share_is_taken_off_and_smaller_variances_do_not_count() -> None:
    stored, zero = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.zeros(4)
    for factor in (5.0, 0.2):
        assert excess_variance([Moments("n", (zero, factor * stored), (zero, stored))]) == pytest.approx(0, abs=1e-4)
    one = Moments("n", (zero, stored * torch.tensor([1.0, 1.0, 1.0, 9.0])), (zero, stored))
    assert variance_ratios(one).tolist() == pytest.approx([1, 1, 1, 9], rel=1e-3)
    assert excess_variance([one]) == pytest.approx(0.5 * (9 - 1 - 2.1972) / 4, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_discriminators_found_beside_their_generator_raise_nothing(shared: Path, folder: str) -> None:
    maker, judge = (shared / "checkpoints" / folder / name if name else None for name in FOLDERS[folder])
    assert maker is not None
    assert not foreign(gandissect.open(maker, discriminator=judge, device="cpu"))


@pytest.mark.slow
def test_a_discriminator_of_digits_is_foreign_to_a_generator_of_clothes(shared: Path) -> None:
    clothes = shared / "checkpoints" / "fashion-dcgan-aman" / "G.pth"
    for judge in ("mnist-wgangp-akanametov/critic.pt", "mnist-dcgan-pritalb/dcgan_descriminator.pt"):
        assert foreign(gandissect.open(clothes, discriminator=shared / "checkpoints" / judge, device="cpu"))
