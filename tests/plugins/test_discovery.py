"""Planted regions and the units that draw them are discovered without a label; random networks yield nothing."""

import pytest
import torch
from gandissect_plugins.discovery import Discovery, DiscoveryAnalyzer, Units, discover, units_of
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Gallery
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import RandomGenerator, tiny_gan

GRID = 16
DISC, GROUND, IDLE = (0, 1), (2, 3), tuple(range(4, 16))


class Regions(nn.Module):
    """z [N, 20] to [N, 3, 32, 32]: units 0 and 1 draw a red disc that moves, 2 and 3 a green ground whose height changes; the
    others change the light of what is left a little."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.up, self.tanh = nn.ReLU(), nn.Upsample(scale_factor=2, mode="nearest"), nn.Tanh()
        self.to_rgb = nn.Conv2d(16, 3, 1)
        stream = torch.Generator().manual_seed(0)
        self.register_buffer("shapes", torch.randn(len(IDLE), GRID, GRID, generator=stream))
        with torch.no_grad():
            self.to_rgb.weight[:] = 0.01 * torch.randn(16, 3, 1, 1, generator=stream).transpose(0, 1)
            for unit in DISC:
                self.to_rgb.weight[:, unit, 0, 0] = torch.tensor([2.0, -1.2, -1.2])
            for unit in GROUND:
                self.to_rgb.weight[:, unit, 0, 0] = torch.tensor([-1.0, 1.4, -1.2])
            self.to_rgb.bias[:] = torch.tensor([0.0, 0.1, 0.2])
        self.eval()

    def masks(self, z: Tensor) -> Tensor:
        """Where the disc and the ground are: bool [N, 2, 16, 16]."""
        rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
        centre = (GRID / 2 + 4.5 * torch.tanh(z[:, :2]))[:, :, None, None]
        disc = (rows - centre[:, 0]).square() + (columns - centre[:, 1]).square() < 12
        ground = rows > (GRID / 2 + 5 * torch.tanh(z[:, 2]))[:, None, None]
        return torch.stack([disc, ground & ~disc], 1)

    def forward(self, z: Tensor) -> Tensor:
        masks = self.masks(z).float()
        idle = 0.3 * z[:, 8:, None, None] * self.shapes
        maps = torch.cat([masks[:, :1], 0.8 * masks[:, :1], masks[:, 1:], 0.8 * masks[:, 1:], idle], 1)
        maps = maps * (1 + 0.2 * torch.sigmoid(z[:, 4:5, None, None] + self.shapes[0]))
        image: Tensor = self.tanh(self.to_rgb(self.up(self.act(maps))))
        return image


def gan_of(net: nn.Module, size: int) -> Gan:
    return build_gan(Networks(net, latent=LatentSpace("z", (size,))), name="made", opening=Opening("test", "made"))


@pytest.fixture(scope="module")
def planted() -> tuple[Session, Discovery, Units]:
    session = Session(gan_of(Regions(), 20), n=150)
    found = discover(session)
    assert found is not None
    return session, found, units_of(session, found)


def overlaps(session: Session, found: Discovery, region: int) -> Tensor:
    """IoU of every discovered concept with a planted region, in 100 samples after those it was fitted to."""
    indices = range(1000, 1100)
    latents = session.latents_at(indices)
    truth = Regions().masks(latents)[:, region].repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
    masks = found.segmenter().segment(session.generate(latents), indices)
    return (masks & truth).sum((0, 2, 3)) / (masks | truth).sum((0, 2, 3))


@pytest.mark.parametrize(("region", "units", "word"), [(0, DISC, "red"), (1, GROUND, "green")])
def test_a_planted_region_and_its_units_are_discovered_and_named(
    planted: tuple[Session, Discovery, Units], region: int, units: tuple[int, ...], word: str
) -> None:
    session, found, following = planted
    iou = overlaps(session, found, region)
    concept = found.concepts[int(iou.argmax())]
    assert float(iou.max()) > 0.8 and word in concept.name
    assert {row.unit for row in following.of(concept.name) if row.layer == "act"} == set(units)
    removal = following.removals[concept.name]
    assert removal.causal and removal.removed > 0.9 and abs(removal.random) < 0.1


def test_the_ground_is_named_by_its_place_and_the_moving_disc_is_not(planted: tuple[Session, Discovery, Units]) -> None:
    names = [item.name for item in planted[1].concepts]
    assert any("green" in name and "at the bottom" in name for name in names)
    assert not any("red" in name and ("top" in name or "bottom" in name) for name in names)


def test_every_concept_is_also_a_cluster_of_pixels_beyond_position(planted: tuple[Session, Discovery, Units]) -> None:
    assert all(item.best.pixels >= 0 and item.best.match > item.best.match_null + 0.15 for item in planted[1].concepts)


def test_a_discovered_concept_can_be_followed_by_gradients(planted: tuple[Session, Discovery, Units]) -> None:
    images = planted[1].evidence.images[:2].clone().requires_grad_()
    soft = planted[1].segmenter().soft(images)
    assert torch.equal(soft > 0.5, planted[1].segmenter().segment(images, [0, 1]))
    soft.mean().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()


def test_the_report_states_each_concept_with_its_numbers() -> None:
    report = analyze(gan_of(Regions(), 20), [DiscoveryAnalyzer], n=60, concepts=("none",), options=SMALL, strict=True)
    said = [finding.text for section in report.sections for finding in section.findings]
    cards = [card for section in report.sections for b in section.blocks if isinstance(b, Gallery) for card in b.cards]
    assert any("red" in text and "position alone" in text and "random units" in text for text in said)
    assert len(cards) >= len(said) and all(len(card.images) for card in cards) and report.provenance.passes == 1


SMALL = {"discovery": {"samples": 60, "clusters": 5}}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_a_random_network_yields_no_finding(seed: int) -> None:
    net = RandomGenerator(seed, channels=1 if seed == 5 else 3, width=(2, 4, 8, 16)[seed % 4])
    report = analyze(gan_of(net, 32), [DiscoveryAnalyzer], n=60, concepts=("none",), options=SMALL, strict=True)
    assert [finding.text for section in report.sections for finding in section.findings] == []
    assert "None of" in report.sections[0].summary and report.sections[0].status == "done"


def test_a_network_without_maps_and_too_few_samples_are_skipped_with_the_reason() -> None:
    for gan, n, why in (
        (tiny_gan("vector"), 64, "no layer of 5 units that are maps"),
        (tiny_gan("planted"), 8, "-n 20"),
    ):
        (section,) = analyze(gan, [DiscoveryAnalyzer], n=n, concepts=("none",)).sections
        assert section.status == "skipped" and why in section.summary


def test_more_samples_than_are_clustered_and_smaller_batches_change_nothing(
    planted: tuple[Session, Discovery, Units],
) -> None:
    longer = discover(Session(gan_of(Regions(), 20), n=170, batch_size=7), samples=150)
    assert longer is not None
    assert [item.name for item in longer.concepts] == [item.name for item in planted[1].concepts]
    assert [item.best.read for item in longer.concepts] == [item.best.read for item in planted[1].concepts]
