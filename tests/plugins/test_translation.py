"""Planted translators: copies, those that ignore, cycles that are exact, broken, or live on what nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import make_archive

import numpy as np
import pytest
import torch
from family_made import saved, seeded
from gandissect_adapters.families.images import junyanz
from gandissect_plugins.translation import (
    Cycle,
    Translation,
    changes,
    cycle,
    follows,
    is_translator,
    likeness,
    mantel,
    opposite,
    register_analyzers,
    sensitivity,
    spectrum,
    translated,
)
from gandissect_plugins.translation.pictures import resized, to_input
from PIL import Image
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.concepts import CallableSegmenter, Vocabulary
from gandissect.errors import UnknownName
from gandissect.gan import Gan, Generator, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session
from gandissect.testing import check_analyzer, tiny_session

Maker = Callable[[Tensor], Tensor]
BACKGROUND = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5)) - 0.5
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))]
FAINT = 0.01
PLAN = junyanz.ResnetPlan(into=3, widths=(4, 8, 16), out=3, blocks=2, norm="instance")
MIXED = torch.linalg.qr(torch.randn(768, 768, generator=torch.Generator().manual_seed(0)))[0]


class Translator(nn.Module):
    """Pictures [N, 3, 16, 16] to pictures by a function that is known."""

    def __init__(self, makes: Maker) -> None:
        super().__init__()
        self.makes = makes
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.makes(x) * self.scale


def grey(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand_as(x)


MAKERS: dict[str, Maker] = {
    "copy": lambda x: x,
    "constant": lambda x: BACKGROUND.expand_as(x) + 0 * x,
    "noise": lambda x: BACKGROUND.expand_as(x) + 0.05 * torch.randn_like(x),
    "hardly": lambda x: BACKGROUND.expand_as(x) + 0.05 * x[:, :1, 8:9, 8:9],
    "hash": lambda x: torch.sin(500 * x.flatten(1) @ MIXED).reshape(x.shape),
    "negative": lambda x: -x,
    "redder": lambda x: x * 0.8 + torch.tensor([0.2, 0.0, -0.1])[:, None, None],
    "paler": lambda x: 0.4 * x,
    "grey": grey,
    "grey, colours hidden": lambda x: grey(x) + FAINT * (x - grey(x)),
}
BACKS: dict[str, Maker] = {
    "negative": lambda y: -y,
    "paler": lambda y: y / 0.4,
    "grey": lambda y: y,
    "grey, colours hidden": lambda y: grey(y) + (y - grey(y)) / FAINT,
    "lost": lambda y: y.flip(2).roll(5, 3),
}


def gan_of(makes: Maker, latent: LatentSpace | None = None) -> Gan:
    space = latent or LatentSpace("image", (3, 16, 16), "image")
    networks = Networks(Translator(makes), None, space, output_range=(-1.0, 1.0))
    return build_gan(networks, name="x", opening=Opening("t", "t"))


def session_of(name: str, n: int = 60, seed: int = 0) -> Session:
    bright = CallableSegmenter(lambda images: images.mean(1, keepdim=True) > 0.1, ["bright"])
    return Session(gan_of(MAKERS[name]), vocabulary=Vocabulary([bright]), n=n, seed=seed)


def sections(session: Session, **options: object) -> dict[str, Section]:
    return {section.title: section for section in Translation(options).run(session)}


def told(session: Session) -> list[str]:
    return [finding.text for section in sections(session).values() for finding in section.findings]


def cycle_of(there: str, back: str, seed: int = 0) -> Cycle:
    session = session_of(there, seed=seed)
    return cycle(session, translated(session, 60), back_of(back))


def back_of(name: str) -> Generator:
    return gan_of(BACKS[name]).generator


def test_a_copy_is_said() -> None:
    (text,) = told(session_of("copy"))
    assert "copies its input" in text


@pytest.mark.parametrize("name", ["constant", "noise"])
def test_an_output_that_ignores_the_input_is_said(name: str) -> None:
    (text,) = told(session_of(name))
    assert "ignores the input" in text
    assert ("second run" in text) == (name == "noise")


def test_an_output_that_hardly_depends_on_the_input_is_said() -> None:
    (text,) = told(session_of("hardly"))
    assert "hardly depends" in text


def test_an_output_that_keeps_nothing_of_the_content_is_said() -> None:
    (text,) = told(session_of("hash", seed=2))
    assert "does not follow the input's content" in text


@pytest.mark.parametrize("name", ["negative", "redder", "paler", "grey", "grey, colours hidden"])
def test_translators_that_follow_their_input_raise_nothing(name: str) -> None:
    assert told(session_of(name)) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_random_translators_raise_nothing_and_planted_faults_are_told_apart(seed: int) -> None:
    torch.manual_seed(seed)
    shallow = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())
    net = junyanz.ResnetGenerator(PLAN).eval() if seed % 2 else shallow
    session = Session(gan_of(net), n=40, seed=seed)
    found = follows(session, translated(session, 40))
    assert not (found.copies or found.ignores or found.unrelated or found.faint)
    verdicts = {}
    for name in ("copy", "constant", "noise", "negative"):
        one = session_of(name, n=40, seed=seed)
        seen = follows(one, translated(one, 40))
        verdicts[name] = (seen.copies, seen.ignores)
    assert verdicts == {
        "copy": (True, False),
        "constant": (False, True),
        "noise": (False, True),
        "negative": (False, False),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_broken_and_hidden_cycles_are_told_apart(seed: int) -> None:
    exact, paler, broken, lossy, hidden = (
        cycle_of(there, back, seed)
        for there, back in (
            ("negative", "negative"),
            ("paler", "paler"),
            ("negative", "lost"),
            ("grey", "grey"),
            ("grey, colours hidden", "grey, colours hidden"),
        )
    )
    assert [(one.works, one.broken, one.hidden) for one in (exact, paler, broken, hidden)] == [
        (True, False, False),
        (True, False, False),
        (False, True, False),
        (True, False, True),
    ]
    assert not lossy.hidden
    assert exact.error.max() < 1e-6
    assert hidden.error.max() < 0.01


def test_noise_of_the_hidden_cycle_rises_as_it_was_planted() -> None:
    found = cycle_of("grey, colours hidden", "grey, colours hidden")
    rise = next(loss for loss in found.losses if loss.name == "noise of 2 grey levels")
    assert rise.unseen
    assert rise.share[1] > 0.5  # the colours come back times 100, with the noise
    exact = cycle_of("negative", "negative")
    loss = next(loss for loss in exact.losses if loss.name == "noise of 2 grey levels")
    assert loss.error.mean() == pytest.approx(2 * 2 / 255, rel=0.05)


def test_a_swapped_quarter_changes_its_own_quarter_where_place_is_kept() -> None:
    shares = {}
    for name in ("negative", "hash"):
        session = session_of(name)
        shares[name] = follows(session, translated(session, 40)).local
    assert shares["negative"][0] == pytest.approx(1.0)
    assert shares["negative"][1] < 0.001
    assert shares["hash"][0] == pytest.approx(0.25, abs=0.05)
    assert shares["hash"][1] > 0.01


def test_what_was_changed_is_measured() -> None:
    session = session_of("redder")
    found = {one.name: one for one in changes(session, translated(session, 60))}
    red, green, contrast = found["mean red"], found["mean green"], found["contrast"]
    assert red.difference == pytest.approx(0.1, abs=0.01)
    assert red.low < red.difference < red.high
    assert red.p < 0.01
    assert abs(green.difference) < 0.01
    assert contrast.after == pytest.approx(0.8 * contrast.before, rel=0.02)
    assert found["bright"].concept


def test_a_copy_changes_no_quantity() -> None:
    session = session_of("copy")
    assert {one.p for one in changes(session, translated(session, 60))} == {1.0}
    assert "None of" in sections(session)["What the translation changes"].summary


def test_spectra_show_what_was_smoothed() -> None:
    sharp = torch.randn(20, 3, 32, 32).clamp(-1, 1)
    smooth = nn.functional.avg_pool2d(sharp, 3, 1, 1)
    at, before = spectrum(sharp)
    after = spectrum(smooth)[1]
    ratio = after.mean(0) / before.mean(0)
    assert at[0] < 0.05 < 0.4 < at[-1] < 0.5
    assert ratio[0] > 0.8
    assert ratio[-1] < 0.4


@pytest.mark.parametrize(("name", "gain"), [("copy", 1.0), ("paler", 0.4), ("constant", 0.0)])
def test_the_gain_under_noise_is_the_planted_one(name: str, gain: float) -> None:
    session = session_of(name)
    found = sensitivity(session, translated(session, 24))
    np.testing.assert_allclose(found.gain, gain, atol=1e-4)


def test_a_negative_is_as_like_its_original_as_a_copy() -> None:
    pictures = torch.rand(6, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(likeness(pictures, -pictures), likeness(pictures, pictures), rtol=0, atol=0.2)
    assert (likeness(pictures, -pictures).argmax(1) == np.arange(6)).all()


def test_distances_that_go_together_have_a_small_p_and_others_not() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 5))
    assert mantel(rows, 2 * rows + 1, rng)[0] == pytest.approx(1)
    assert mantel(rows, 2 * rows, rng)[1] < 0.01
    assert mantel(rows, rng.standard_normal((40, 5)), rng)[1] > 0.01
    assert mantel(rows, np.zeros((40, 5)), rng) == (0.0, 1.0)


def test_pictures_are_made_the_size_and_channels_of_the_output() -> None:
    assert resized(torch.rand(2, 1, 8, 8), (3, 16, 16)).shape == (2, 3, 16, 16)
    assert resized(torch.rand(2, 3, 16, 16), (1, 8, 8)).shape == (2, 1, 8, 8)


def test_inputs_may_come_from_a_folder_or_a_zip_and_go_in_with_the_span_of_the_network(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for place in range(10):
        Image.new("RGB", (20, 20), (25 * place, 0, 0)).save(folder / f"{place}.png")
    latent = LatentSpace("image", (3, 16, 16), "image", (0.0, 1.0))
    session = Session(gan_of(lambda x: 2 * x - 1, latent), n=200)
    seen = translated(session, 200, str(folder))
    assert len(seen.inputs) == 10
    torch.testing.assert_close(seen.outputs, seen.inputs)
    assert to_input(seen.inputs, latent).min() == 0
    zipped = make_archive(str(folder), "zip", folder)
    torch.testing.assert_close(translated(session, 200, zipped).inputs, seen.inputs)
    found = sections(session, inputs=str(folder))
    assert "pictures of" in found["Inputs and outputs"].summary
    assert any("copies" in one.text for one in found["Does the output follow its input"].findings)


def directions(tmp_path: Path) -> Path:
    """A file with both directions of a small CycleGAN."""
    states = {}
    for name in ("netG_A2B", "netG_B2A"):
        states[name] = seeded(junyanz.ResnetGenerator(PLAN)).state_dict()
        states[name] = {key: value * (1.0 if name == "netG_A2B" else 1.1) for key, value in states[name].items()}
    torch.save(states, tmp_path / "both.pth")
    return tmp_path / "both.pth"


def test_a_file_with_both_directions_says_so_and_its_cycle_is_measured(tmp_path: Path) -> None:
    path = directions(tmp_path)
    gan = gandissect.open(path, assume={"size": "16"}, device="cpu")
    assert gan.opening.generators == ("netG_A2B", "netG_B2A")
    other = gandissect.open(path, assume={"size": "16", "network": "netG_B2A"}, device="cpu")
    assert other.opening.generators == ("netG_B2A", "netG_A2B")
    found = opposite(gan)
    assert found.generator is not None
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(found.generator.module(x), other.generator.module(x))
    section = sections(Session(gan, n=16))["Cycle consistency"]
    assert "`netG_B2A` of the same file" in section.summary


def test_a_network_that_the_file_does_not_hold_is_an_error_that_names_those_it_does(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="netG_A2B"):
        gandissect.open(directions(tmp_path), assume={"network": "netG_B2C"}, device="cpu")


def test_the_way_back_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    back = saved(seeded(junyanz.ResnetGenerator(PLAN)), tmp_path / "G_B.pth")
    found = opposite(gan_of(MAKERS["negative"]), str(back))
    assert found.generator is not None
    assert found.generator.latent.shape == (3, 16, 16)
    title = sections(session_of("negative", n=16), back=str(back))["Cycle consistency"]
    assert "G_B.pth" in title.summary


def test_without_a_way_back_the_cycle_is_skipped_with_what_to_type(tmp_path: Path) -> None:
    section = sections(session_of("negative", n=16))["Cycle consistency"]
    assert section.status == "skipped"
    assert "translation.back=FILE" in section.summary
    (tmp_path / "none.pth").write_bytes(b"nothing")
    assert "could not be opened" in opposite(gan_of(MAKERS["negative"]), str(tmp_path / "none.pth")).where


def test_a_generator_of_latents_is_skipped() -> None:
    (section,) = Translation().run(tiny_session("random", n=8))
    assert section.status == "skipped"
    assert "latents" in section.summary
    maps = LatentSpace("codes", (1, 8, 8), "uniform")
    assert not is_translator(maps)
    assert is_translator(maps, said=True)
    assert not is_translator(LatentSpace("z", (12,)), said=True)


def test_few_pictures_are_said_to_be_too_few() -> None:
    found = sections(session_of("negative", n=4))
    assert found["What the translation changes"].status == "skipped"


def test_the_analyzer_keeps_its_promises_and_takes_its_pictures_from_the_shared_pass() -> None:
    assert register_analyzers() == [Translation]
    check_analyzer(Translation)
    results = []
    for batch in (1, 64):
        session = Session(gan_of(MAKERS["redder"]), n=20, batch_size=batch)
        analyzer = Translation()
        session.prepare(analyzer.wants(session))
        passes = session.passes
        results.append([section.to_json() for section in analyzer.run(session)])
        assert session.passes == passes
    assert results[0] == results[1]
