"""Planted conditions are found: dead ones, equal values, what a value changes; what works raises nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from gandissect_plugins.conditions import (
    Condition,
    Conditions,
    conditions_of,
    differing,
    information,
    kinds,
    larger_p,
    leak,
    paired,
    register_analyzers,
    variance_shares,
)
from gandissect_plugins.conditions.condition import drawn, evenly
from gandissect_plugins.health import label_effect
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.errors import UsageError
from gandissect.gan import LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import check_analyzer, tiny_session
from gandissect.testing.checks import KINDS

Effect = Literal["nothing", "brightness", "place", "twins", "coin", "noise"]


class Painter(nn.Module):
    """z [N, 8] and one of four classes to [N, 3, 16, 16]: a soft picture of z, and what the class does to it.

    "place" draws a square in the class's corner, "twins" likewise but alike for classes 1 and 3, "coin" turns z into another
    picture without leaving a mark of its own, "noise" adds fresh noise whatever the class.
    """

    def __init__(self, effect: Effect, seed: int = 0) -> None:
        super().__init__()
        self.effect = effect
        stream = torch.Generator().manual_seed(seed)
        coarse = torch.randn(8, 3, 4, 4, generator=stream)
        self.weight = nn.Parameter(0.08 * nn.functional.interpolate(coarse, (16, 16), mode="bilinear"))
        self.turns = nn.Parameter(
            torch.stack([torch.linalg.qr(torch.randn(8, 8, generator=stream))[0] for _ in "1234"])
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        if self.effect == "coin":
            z = torch.einsum("nd,nde->ne", z, self.turns[labels])
        image = torch.einsum("nd,dchw->nchw", z, self.weight)
        if self.effect == "noise":
            image = image + 0.05 * torch.randn_like(image)
        if self.effect == "brightness":
            image = image + 0.15 * (labels - 1.5)[:, None, None, None]
        if self.effect in ("place", "twins"):
            corner = torch.where(labels == 3, 1, labels) if self.effect == "twins" else labels
            inside = torch.zeros(len(z), 1, 16, 16)
            for row, place in enumerate(corner.tolist()):
                top, left = 8 * (place // 2) + 2, 8 * (place % 2) + 2
                inside[row, :, top : top + 4, left : left + 4] = 1.0
            image = image + 0.4 * inside
        return image.clamp(-1, 1)


class Coded(nn.Module):
    """z [N, 10] to [N, 3, 16, 16]: z[4–6] is a one-hot code of a bright band, z[9] a continuous one of brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(4, 3, 16, 16))

    def forward(self, z: Tensor) -> Tensor:
        image = torch.einsum("nd,dchw->nchw", z[:, :4], self.weight) + 0.1 * z[:, 9, None, None, None]
        bands = torch.stack([z[:, 4:7].repeat_interleave(5, 1)] * 16, 2)[:, None]
        return image + 0.5 * nn.functional.pad(bands, (0, 0, 0, 1))


def session_of(net: nn.Module, classes: int = 4, size: int = 8, n: int = 200, codes: tuple[int, ...] = ()) -> Session:
    latent = LatentSpace("z", (size,), codes=codes)
    gan = build_gan(
        Networks(net, None, latent, num_classes=classes, output_range=(-1.0, 1.0)), name="x", opening=Opening("t", "t")
    )
    bright = CallableSegmenter(lambda images: images.mean(1, keepdim=True) > 0.25, ["bright"])
    return Session(gan, vocabulary=Vocabulary([bright]), n=n)


def sections(session: Session, **options: object) -> dict[str, Section]:
    return {section.title: section for section in Conditions(options).run(session)}


def told(session: Session, **options: object) -> list[str]:
    return [finding.text for section in sections(session, **options).values() for finding in section.findings]


def test_a_class_that_does_nothing_is_said() -> None:
    (text,) = told(session_of(Painter("nothing")))
    assert "The condition does nothing" in text


def test_what_the_health_check_has_said_of_the_class_is_not_said_again() -> None:
    session = session_of(Painter("nothing"))
    session.remember(label_effect(session))
    assert told(session) == []
    assert sections(session)["What the condition does"].summary == "The class changes nothing."
    live = session_of(Painter("twins"))
    live.remember(label_effect(live))
    assert len(told(live)) == 1


def test_noise_of_the_generators_own_is_no_effect_of_the_class() -> None:
    (text,) = told(session_of(Painter("noise")))
    assert "does nothing" in text
    assert "second run" in text


def test_two_equal_classes_are_named_and_no_others() -> None:
    (text,) = told(session_of(Painter("twins")))
    assert "Class 1 and class 3 give the same images" in text


def test_a_class_that_only_moves_brightness_is_named_as_brightness() -> None:
    found = sections(session_of(Painter("brightness")))
    assert "tells most about *brightness*" in found["What the condition tells"].summary
    assert "is brightness" in found["What the condition does"].summary
    assert not [finding for section in found.values() for finding in section.findings]


def test_a_class_that_moves_a_square_is_structure_and_told_apart() -> None:
    session = session_of(Painter("place"))
    found = sections(session)
    assert "is structure" in found["What the condition does"].summary
    assert "of 100 held-out samples" in found["Which values can be told apart"].summary
    assert "light" in found["What the condition tells"].summary
    assert not [finding for section in found.values() for finding in section.findings]


def test_a_class_that_changes_images_without_leaving_a_mark_is_said() -> None:
    (text,) = told(session_of(Painter("coin"), n=1000))
    assert "cannot be told from the images" in text


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_dead_conditions_are_found_and_live_ones_raise_nothing(seed: int) -> None:
    for dead in ("nothing", "noise"):
        assert any("does nothing" in text for text in told(session_of(Painter(dead, seed))))
    for live in ("brightness", "place"):
        assert told(session_of(Painter(live, seed))) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_random_class_conditional_network_raises_nothing(seed: int) -> None:
    assert told(tiny_session("conditional", n=200, seed=seed)) == []


def test_codes_among_the_coordinates_are_found_by_what_they_do() -> None:
    session = session_of(Coded(), classes=0, size=10)
    codes = conditions_of(session.gan.generator, ("4-6", "9", "8"))
    assert [code.name for code in codes] == ["code z[4–6]", "code z[9]", "code z[8]"]
    found = {code.name: paired(session, code, codes) for code in codes}
    assert found["code z[4–6]"].kinds.main == "structure"
    assert found["code z[9]"].kinds.brightness > 0.99
    assert not found["code z[9]"].dead
    assert found["code z[8]"].dead
    text = sections(session, codes="4-6,9,8")["What the condition tells"].summary
    assert "code z[9] tells most about *brightness*" in text
    assert "code z[8] tells nothing" in text


def test_codes_that_the_file_names_need_no_option() -> None:
    session = session_of(Coded(), classes=0, size=10, codes=(9,))
    assert [code.name for code in conditions_of(session.gan.generator)] == ["code z[9]"]


def test_an_infogan_file_names_its_codes(shared: Path) -> None:
    gan = gandissect.open(shared / "golden" / "families" / "infogan_natsu6767_mnist_28" / "model.pth", device="cpu")
    assert [one.name for one in conditions_of(gan.generator)] == ["class", "code z[62]", "code z[63]"]


def test_a_code_that_is_no_coordinate_is_an_error_that_says_what_to_type() -> None:
    generator = session_of(Coded(), classes=0, size=10).gan.generator
    for code in ("10", "7-4", "x", "4-10"):
        with pytest.raises(UsageError, match="24-33"):
            conditions_of(generator, (code,))


def test_a_generator_without_conditions_is_skipped_with_what_to_type() -> None:
    (section,) = Conditions().run(tiny_session("random", n=8))
    assert section.status == "skipped"
    assert "conditions.codes" in section.summary


def test_values_of_several_conditions_are_crossed_and_balanced() -> None:
    session = session_of(Coded(), classes=0, size=10)
    codes = conditions_of(session.gan.generator, ("0-1", "4-6"))
    given = drawn(session, codes, range(12))
    pairs = list(zip(codes[0].groups(given).tolist(), codes[1].groups(given).tolist(), strict=True))
    assert sorted(pairs) == sorted([(a, b) for a in range(2) for b in range(3)] * 2)


def test_of_many_classes_some_are_looked_at() -> None:
    found = conditions_of(session_of(Painter("place")).gan.generator, (), 2)
    assert found == (Condition("class", "class", (0.0, 3.0), 4),)
    titles = sections(session_of(Painter("place")), values=2)
    assert "2 of 4 values" in titles["Sweeps of the condition"].summary


def test_bits_are_those_of_known_distributions() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(4000) % 4
    x = rng.standard_normal(4000)
    y = 0.8 * x + 0.6 * rng.standard_normal(4000)
    found = information(groups, np.stack([groups + 0.0, rng.standard_normal(4000)], 1), rng, 200)
    assert found.bits[0] == pytest.approx(2.0, abs=0.02)
    assert found.bits[1] < 0.005
    assert found.entropy == pytest.approx(2.0)
    gaussian = information(evenly(x, 16), y[:, None], rng, 200)
    assert gaussian.bits[0] == pytest.approx(-0.5 * np.log2(1 - 0.64), rel=0.1)


def test_what_is_taken_off_is_the_bias_of_the_estimate() -> None:
    rng = np.random.default_rng(1)
    bits, p = [], []
    for _ in range(40):
        found = information(np.arange(300) % 6, rng.standard_normal((300, 5)), rng, 100)
        bits.append(found.null)
        p += found.p.tolist()
    expected = (6 - 1) * (10 - 1) / (2 * 300 * np.log(2))  # Miller 1955: cells that are free, over 2 n ln 2
    assert np.mean(bits) == pytest.approx(expected, rel=0.15)
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.04)


def test_parts_of_variance_are_those_that_were_planted() -> None:
    stream = torch.Generator().manual_seed(0)
    z, value, both = (torch.randn(*size, 400, generator=stream) for size in ((24, 1), (1, 12), (24, 12)))
    shares = variance_shares(2 * z + value + both, np.random.default_rng(0))
    assert (shares.z, shares.condition, shares.both) == pytest.approx((4 / 6, 1 / 6, 1 / 6), abs=0.02)
    assert shares.p < 0.01
    assert variance_shares(2 * z + both, np.random.default_rng(0)).p > 0.05


def test_kinds_of_change_are_told_apart() -> None:
    before = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    assert kinds(before, before + 0.2).brightness == pytest.approx(1)
    assert kinds(before, before + torch.tensor([0.2, -0.1, -0.1])[:, None, None]).colour == pytest.approx(1)
    middle = before.mean((2, 3), keepdim=True)
    assert kinds(before, 1.3 * (before - middle) + middle).contrast == pytest.approx(1)
    assert kinds(before, before.flip(3)).structure > 0.4
    assert kinds(before, before).main == "brightness"


def test_units_have_the_effect_that_kruskal_and_wallis_give() -> None:
    from scipy.stats import kruskal

    rng = np.random.default_rng(0)
    groups = np.arange(90) % 3
    values = rng.standard_normal((90, 4)).astype(np.float32)
    values[:, 0] += groups
    found = differing({"layer": values}, groups, rng)["layer"]
    for unit in range(4):
        statistic = kruskal(*(values[groups == group, unit] for group in range(3))).statistic
        assert found.eta[unit] == pytest.approx(statistic / 89, abs=1e-6)
    assert found.told.tolist() == [True, False, False, False]
    assert found.most[0] == 2


def test_answers_that_follow_z_are_a_leak_and_those_that_follow_the_value_are_none() -> None:
    rng = np.random.default_rng(0)
    by_z = np.repeat(rng.integers(0, 4, 24)[:, None], 4, axis=1)
    by_value = np.repeat(np.arange(4)[None], 24, axis=0)
    assert leak(by_z, rng).same == 1
    assert leak(by_z, rng).p < 0.01
    obeyed = leak(by_value, rng)
    assert (obeyed.same, obeyed.right, obeyed.p) == (0, 1, 1)


def test_differences_that_are_all_zero_are_not_above_zero() -> None:
    rng = np.random.default_rng(0)
    p = larger_p(np.stack([np.zeros(24), np.full(24, 0.1), rng.standard_normal(24)], 1), rng)
    assert p[0] == 1
    assert p[1] < 0.001
    assert p[2] > 0.01


def test_the_analyzer_keeps_its_promises() -> None:
    assert register_analyzers() == [Conditions]
    check_analyzer(Conditions, (*KINDS, "conditional"))


def test_what_the_pass_has_is_not_generated_again() -> None:
    session = session_of(Painter("place"))
    analyzer = Conditions()
    session.prepare(analyzer.wants(session))
    passes = session.passes
    list(analyzer.run(session))
    assert session.passes == passes
