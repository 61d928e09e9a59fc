"""A discriminator that looks at red squares only, one that looks at no concept: TCAV and pasting must say so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gandissect_plugins.concept_sensitivity import (
    ConceptSensitivity,
    SensedLayer,
    Space,
    fit,
    moved_logits,
    random_answers,
    sensitivity,
    slopes,
    tcav,
    transplant,
)
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Section, Table
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import tiny_gan

SIDE = 32
COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
CORNERS = {"red": (0, 0), "green": (0, 24), "blue": (24, 0)}


class Squares(nn.Module):
    """Latent [N, 12] to [N, 3, 32, 32]: a square for each of the first three numbers that is above 0, a patch of noise in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Linear(9, 3 * 64, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        image = torch.full((len(z), 3, SIDE, SIDE), -0.2, device=z.device)
        for unit, (name, colour) in enumerate(COLOURS.items()):
            row, column = CORNERS[name]
            there = (z[:, unit] > 0).float()[:, None, None, None]
            place = image[:, :, row : row + 8, column : column + 8]
            paint = torch.tensor(colour)[None, :, None, None]
            image[:, :, row : row + 8, column : column + 8] = there * paint + (1 - there) * place
        image[:, :, 12:20, 12:20] = torch.tanh(0.5 * self.noise(z[:, 3:])).view(-1, 3, 8, 8)
        return image


class Critic(nn.Module):
    """Sees redness, greenness and blueness in blocks; its logit takes what ``taken`` says of them, and of the middle."""

    def __init__(self, taken: tuple[float, float, float], middle: float = 0.0) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 6, 4, 4), nn.ReLU()
        self.head = nn.Linear(6 * 64, 1)
        with torch.no_grad():
            self.conv.weight.zero_()
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.tensor([-0.5, -0.5, -0.5, 0.0, 0.0, 0.0]))  # the background is no colour
            for unit, colour in enumerate(COLOURS.values()):
                self.conv.weight[unit] = torch.tensor(colour)[:, None, None] / 16
            self.conv.weight[3:] = torch.randn(3, 3, 4, 4) / 16
            self.head.weight.zero_()
            weight = self.head.weight.view(6, 8, 8)
            for unit, amount in enumerate(taken):
                weight[unit] = amount
            weight[:3, 3:5, 3:5] = 0.0
            weight[3:, 3:5, 3:5] = middle

    def forward(self, images: Tensor) -> Tensor:
        logit: Tensor = self.head(self.act(self.conv(images)).flatten(1))
        return logit


def seen(images: Tensor) -> Tensor:
    """Masks of the three colours: bool [N, 3, 32, 32]."""
    return torch.stack([(images * torch.tensor(colour)[:, None, None]).amin(1) > 0.9 for colour in COLOURS.values()], 1)


def session_of(critic: nn.Module, *, n: int = 400, seed: int = 0, batch_size: int = 64) -> Session:
    torch.manual_seed(seed)
    networks = Networks(Squares(), critic.eval(), LatentSpace("z", (12,)), discriminator_output="logit")
    gan = build_gan(networks, name="planted", opening=Opening("testing", "made for tests"))
    return Session(
        gan, n=n, seed=seed, batch_size=batch_size, vocabulary=Vocabulary([CallableSegmenter(seen, list(COLOURS))])
    )


def section_of(session: Session) -> Section:
    analyzer = ConceptSensitivity()
    session.prepare(analyzer.wants(session))
    (section,) = analyzer.run(session)
    return section


def verdicts(section: Section) -> dict[str, tuple[str, str]]:
    """Concept -> (what TCAV says, what pasting says)."""
    table = [block for block in section.blocks if isinstance(block, Table)][1]
    return {str(row[0]): (str(row[1]), str(row[-1])) for row in table.rows}


@pytest.mark.parametrize(("amount", "sense", "words"), [(0.3, "raises", "more real"), (-0.3, "lowers", "less real")])
def test_a_discriminator_that_looks_at_red_only_is_sensitive_to_red_only(
    amount: float, sense: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(Critic((amount, 0.0, 0.0), middle=0.5))
    for p, said in ((0.02, 1), (1.0, 0)):
        monkeypatch.setattr("gandissect_plugins.concept_sensitivity.analyzer.trained_p", lambda *_, p=p, **__: p)
        section = section_of(session)
        found = verdicts(section)
        assert found["red"] == (sense, "agrees")
        assert all(one[1] == "nothing to confirm" for name, one in found.items() if name != "red")
        assert [f"*red* {words}" in finding.text for finding in section.findings] == [True] * said


def test_each_of_two_concepts_is_found_with_its_own_sign() -> None:
    found = verdicts(section_of(session_of(Critic((0.3, -0.3, 0.0), middle=0.5))))
    assert (found["red"][0], found["green"][0], found["blue"][1]) == ("raises", "lowers", "nothing to confirm")


def significant(seeds: range) -> int:
    """Concepts that TCAV calls significant, over discriminators that look at the middle only, where no concept ever is."""
    found = 0
    for seed in seeds:
        torch.manual_seed(100 + seed)
        section = section_of(session_of(Critic((0.0, 0.0, 0.0), middle=0.5), seed=seed))
        assert not section.findings
        found += sum(says != "no clear sign" for says, _ in verdicts(section).values())
    return found


def test_a_discriminator_that_ignores_all_concepts_is_sensitive_to_none() -> None:
    assert significant(range(3)) == 0


@pytest.mark.slow
def test_in_twenty_discriminators_that_ignore_all_concepts_hardly_any_is_called_significant() -> None:
    assert significant(range(20)) <= 2  # 60 tests; the rate is for each discriminator's own


def test_slopes_are_what_a_step_along_a_direction_changes() -> None:
    torch.manual_seed(0)
    session = session_of(Critic((0.3, 0.1, -0.2), middle=0.5), n=20)
    assert session.gan.discriminator is not None
    layer = SensedLayer.of(session.gan.discriminator.layer("act"))
    assert (layer.channels, layer.rows, layer.columns) == (6, 4, 4)
    step = 0.1 * torch.randn(96, dtype=torch.float64)
    change = moved_logits(session, layer, step, 20) - session.scores(20)
    torch.testing.assert_close(change, slopes(session, [layer], 20)["act"] @ step, atol=1e-4, rtol=1e-3)


def test_a_vector_points_to_the_concept_and_its_scores_follow_the_slope() -> None:
    rng = np.random.default_rng(0)
    activations = rng.standard_normal((300, 12))
    activations[:100, 0] += 3.0
    towards = np.zeros((40, 12))
    towards[:, 0] = rng.uniform(0.5, 1, 40)
    space = Space(activations, towards)
    much, little = np.arange(100), np.arange(100, 200)
    vector = fit(space, much[:50], little[:50])
    assert vector.direction(space)[0] > 0.8
    assert vector.accuracy(space, much, little) > 0.85
    random = random_answers(space, 10, 3, rng)
    found = sensitivity(space, much, little, cavs=10, random=random, rng=rng)
    assert (found.score, found.sign) == (1.0, 1)
    assert found.p < 1e-4
    against = sensitivity(Space(activations, -towards), much, little, cavs=10, random=random, rng=rng)
    assert (against.score, against.sign) == (0.0, -1)
    assert tcav(np.zeros(4)) == 0.5


def test_an_ignored_concept_is_significant_no_more_often_than_the_level_says() -> None:
    small = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        activations = rng.standard_normal((240, 30))
        activations[:80, 0] += 3.0
        slope = rng.standard_normal((1, 30)) + 0.1 * rng.standard_normal((40, 30))
        slope[:, 0] = 0.0
        space = Space(activations, slope)
        random = random_answers(space, 10, 3, rng)
        small += sensitivity(space, np.arange(80), np.arange(80, 160), cavs=8, random=random, rng=rng).p <= 0.05
    assert small <= 8


def test_pasting_compares_the_same_pixels_with_and_without_the_concept() -> None:
    session = session_of(Critic((0.3, 0.0, 0.0)), n=48)
    images, masks = session.images(48), session.masks(48)
    found = transplant(session, images, masks[:, 0], np.random.default_rng(0))
    assert found is not None
    assert bool(seen(found.with_concept)[:, 0].flatten(1).any(1).all())
    assert not bool(seen(found.without)[:, 0].any())
    assert found.up.clear
    assert not found.down.clear
    assert torch.equal(found.with_concept[..., 8:, :], found.without[..., 8:, :])
    assert transplant(session, images, torch.ones_like(masks[:, 0]), np.random.default_rng(0)) is None


def test_too_few_samples_are_skipped_with_how_many_it_takes() -> None:
    section = section_of(session_of(Critic((0.3, 0.0, 0.0)), n=40))
    assert section.status == "skipped"
    assert "--samples" in section.summary


def test_concepts_whose_area_does_not_differ_are_skipped_in_a_sentence() -> None:
    session = session_of(Critic((0.3, 0.0, 0.0)))
    never = CallableSegmenter(lambda images: torch.zeros_like(images[:, :1], dtype=torch.bool), ["nothing"])
    section = section_of(Session(session.gan, n=120, vocabulary=Vocabulary([never])))
    assert section.status == "skipped"
    assert "--concepts" in section.summary


def test_a_silent_discriminator_is_sensitive_to_nothing() -> None:
    section = section_of(session_of(Critic((0.0, 0.0, 0.0))))
    assert all(says == "no clear sign" for says, _ in verdicts(section).values())
    assert section.findings == ()


def test_scores_do_not_depend_on_the_batch_size() -> None:
    critic = Critic((0.3, 0.0, 0.0), middle=0.5)
    told = [section_of(session_of(critic, n=120, batch_size=size)).to_json() for size in (7, 64)]
    assert told[0]["status"] == "done"
    assert told[0] == told[1]


def test_a_random_discriminator_raises_no_finding() -> None:
    torch.manual_seed(3)
    critic = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 4, 4),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(32, 1),
    )
    assert section_of(session_of(critic)).findings == ()


def test_without_a_discriminator_it_says_what_to_pass() -> None:
    missing = ConceptSensitivity.needs.missing(Session(tiny_gan(discriminator=False), n=4))
    assert "--discriminator" in missing
