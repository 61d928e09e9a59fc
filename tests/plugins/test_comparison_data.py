"""With real images given, the network that was planted nearer to them is named, and of equals none is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from gandissect_plugins.comparison.nearer import area_gaps, distance_gaps, neighbourhood_gaps
from gandissect_plugins.comparison.real_areas import area_lines
from small_gans import Dcgan
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Section, Table
from gandissect.comparer import Source
from gandissect.comparing.compare import compare
from gandissect.concepts import CallableSegmenter, Concept
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.metrics import frechet_deviation, frechet_influences, polynomial_mmd
from gandissect.probing.building import build_gan
from gandissect.report import Report
from gandissect.testing import RandomGenerator

TITLE = "Against the real images"
AREAS = "Concepts against the real images"


class Painter(nn.Module):
    """The random generator behind another order of its latent's coordinates, its latent scaled, its image moved.

    Any order gives the same distribution; ``reach`` below 1 makes the samples alike, ``shift`` makes them brighter.
    """

    def __init__(self, order: int = 0, reach: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.net, self.reach, self.shift = RandomGenerator(), reach, shift
        places = torch.randperm(32, generator=torch.Generator().manual_seed(order)) if order else torch.arange(32)
        self.order = nn.Parameter(places.float(), requires_grad=False)
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.net(self.reach * z[:, self.order.long()])
        return (image + self.shift).clamp(-1, 1)


def gan(net: nn.Module) -> Gan:
    return build_gan(
        Networks(generator=net, latent=LatentSpace("z", (32,), "normal")), name="g", opening=Opening("testing", "made")
    )


def real_images(count: int = 200, seed: int = 99) -> Tensor:
    """Images of the distribution of a :class:`Painter` as it is, of latents that no checkpoint gets."""
    with torch.no_grad():
        images: Tensor = Painter()(torch.randn(count, 32, generator=torch.Generator().manual_seed(seed)))
    return images


def told(
    first: nn.Module,
    second: nn.Module,
    *,
    n: int = 200,
    data: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Report:
    given = [Source(name, lambda net=net: gan(net)) for name, net in zip("ab", (first, second), strict=True)]  # type: ignore[misc]
    return compare(
        given,
        of="pair",
        n=n,
        seed=seed,
        data=real_images() if data is None else data,
        concepts=[CallableSegmenter(bright, ["bright"])],
        only=["distances", "concepts"],
        options={"distances": {"halves": 5}},
        batch_size=batch_size,
        strict=True,
    )


def bright(images: Tensor) -> Tensor:
    return images.mean(1, keepdim=True) > 0.3


def titled(report: Report, title: str) -> Section:
    return next(section for section in report.sections if section.title == title)


def leads(report: Report, title: str) -> list[str]:
    return [finding.text.split("**")[1] for finding in titled(report, title).findings]


@pytest.mark.parametrize(
    "wrong",
    [Painter(order=3, shift=0.15), pytest.param(Painter(order=3, reach=0.3), marks=pytest.mark.slow)],
    ids=["shifted", "collapsed"],
)
def test_the_network_of_the_real_distribution_is_named_as_nearer_in_either_order(wrong: Painter) -> None:
    right = Painter(order=2)
    assert leads(told(right, wrong), TITLE)[0] == "a is nearer to the real images than b"
    assert leads(told(wrong, right), TITLE)[0] == "b is nearer to the real images than a"


@pytest.mark.slow
def test_the_area_of_a_concept_is_nearer_where_nothing_was_shifted() -> None:
    report = told(Painter(order=3, shift=0.15), Painter(order=2))
    assert leads(report, AREAS) == ["The area of “bright” is nearer to the real images' in b than in a"]
    assert (
        "1 differ from the 200 real images in samples of a or b: b is nearer in 1, a in 0"
        in titled(report, AREAS).summary
    )


def findings_of_equals(seed: int, n: int, shift: float) -> list[str]:
    data = real_images(n, seed + 1000)
    report = told(
        Painter(order=seed + 1, shift=shift), Painter(order=seed + 50, shift=shift), n=n, data=data, seed=seed
    )
    return leads(report, TITLE) + leads(report, AREAS)


@pytest.mark.parametrize("shift", [0.0, 0.15], ids=["the real one", "another one"])
def test_two_networks_of_one_distribution_are_not_told_apart(shift: float) -> None:
    assert findings_of_equals(0, 100, shift) == []


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.15], ids=["the real one", "another one"])
def test_twelve_pairs_of_one_distribution_are_not_told_apart(shift: float) -> None:
    found = {seed: findings_of_equals(seed, 200, shift) for seed in range(12)}
    assert {seed: texts for seed, texts in found.items() if texts} == {}


@pytest.mark.slow
def test_two_distributions_equally_far_off_are_called_better_as_rarely_as_the_interval_promises() -> None:
    named = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        z, away = rng.standard_normal((200, 8)), np.eye(8)[0]
        sets = (rng.standard_normal((200, 8)), z + away, z - away)
        gaps = [
            *distance_gaps(*sets, rng, paired=True).values(),
            *neighbourhood_gaps(*sets, 3, rng, paired=True).values(),
        ]
        named += any(gap.ahead != "" for gap in gaps)
    assert named <= 2


@pytest.mark.parametrize("paired", [True, False])
def test_the_difference_is_that_of_the_two_distances(paired: bool) -> None:
    rng = np.random.default_rng(0)
    real, first = rng.standard_normal((200, 5)), rng.standard_normal((160, 5))
    second = 1.5 * (first if paired else rng.standard_normal((160, 5))) + 0.3
    gap = distance_gaps(real, first, second, rng, paired=paired)["kernel distance"]
    assert np.isclose(gap.value, polynomial_mmd(second, real) - polynomial_mmd(first, real))
    assert gap.ahead == "first"
    assert gap.low > 0


def test_common_latents_narrow_the_interval_of_the_difference() -> None:
    rng = np.random.default_rng(0)
    real, first = rng.standard_normal((200, 6)) + 1, rng.standard_normal((200, 6))
    second = first + 0.02
    for name in ("Fréchet distance", "kernel distance"):
        errors = [distance_gaps(real, first, second, rng, paired=paired)[name].error for paired in (True, False)]
        assert errors[0] < 0.3 * errors[1]


@pytest.mark.slow
def test_the_stated_error_is_the_spread_over_new_samples_and_new_real_images() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        z = rng.standard_normal((150, 4))
        found.append(distance_gaps(rng.standard_normal((150, 4)), z + 0.5, 1.3 * z, rng, paired=True))
    for name in ("Fréchet distance", "kernel distance"):
        spread = np.std([gaps[name].value for gaps in found], ddof=1)
        assert 0.75 < np.mean([gaps[name].error for gaps in found]) / spread < 1.4


def test_influences_give_the_deviation_of_the_frechet_distance() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((90, 4)), rng.standard_normal((70, 4)) + 0.4
    one, two = frechet_influences(first, second)
    assert (one.shape, two.shape) == ((90,), (70,))
    assert np.isclose(np.sqrt(one.var() / 90 + two.var() / 70), frechet_deviation(first, second))


@pytest.mark.parametrize("paired", [True, False])
def test_a_network_that_leaves_out_half_of_the_real_images_covers_less_and_stays_as_plausible(paired: bool) -> None:
    rng = np.random.default_rng(0)
    sides = np.where(np.arange(300) % 2, 4.0, -4.0)[:, None]
    real, first = (rng.standard_normal((300, 4)) + sides for _ in range(2))
    gaps = neighbourhood_gaps(real, first, np.where(sides > 0, first, first + 8), 3, rng, paired=paired)
    assert {name: gap.ahead for name, gap in gaps.items()} == {
        "precision": "",
        "recall": "",
        "density": "",
        "coverage": "first",
    }
    assert gaps["coverage"].low < -0.4 < gaps["coverage"].high
    assert gaps["recall"].high < 0
    assert gaps["recall"].p is None


def test_samples_away_from_the_real_images_are_fewer_among_them() -> None:
    rng = np.random.default_rng(0)
    real, first = rng.standard_normal((200, 4)), rng.standard_normal((200, 4))
    gaps = neighbourhood_gaps(real, first + 3 * (np.arange(200) % 2)[:, None], first, 3, rng, paired=True)
    assert gaps["precision"].ahead == gaps["density"].ahead == "second"


@pytest.mark.slow
def test_the_stated_error_of_the_shares_is_no_smaller_than_their_spread() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        z = rng.standard_normal((120, 4))
        found.append(neighbourhood_gaps(rng.standard_normal((120, 4)), z + 0.5, 1.3 * z, 3, rng, paired=True))
    for name in found[0]:
        spread = np.std([gaps[name].value for gaps in found], ddof=1)
        assert 0.8 < np.mean([gaps[name].error for gaps in found]) / spread < 1.8


@pytest.mark.parametrize("paired", [True, False])
def test_an_area_on_either_side_of_the_truth_by_as_much_is_nearer_in_neither(paired: bool) -> None:
    rng = np.random.default_rng(0)
    real, first, second = (rng.normal(mean, 0.1, (300, 2)) for mean in ((0.5, 0.5), (0.4, 0.5), (0.6, 0.8)))
    same, far = area_gaps(real, first, second, rng, paired=paired)
    assert same.ahead == ""
    assert far.ahead == "first"
    assert far.low < 0.3 < far.high


def test_which_is_nearer_is_asked_only_of_concepts_that_differ_from_the_real_images() -> None:
    rng = np.random.default_rng(0)
    real, first, second = (rng.normal(mean, 0.1, (300, 2)) for mean in ((0.5, 0.5), (0.5, 0.5), (0.5, 0.8)))
    concepts = [Concept("steady", "object"), Concept("moved", "object")]
    lines = area_lines(concepts, real, first, second, rng, paired=True)
    assert [(line.concept.name, line.differs) for line in lines] == [("moved", True), ("steady", False)]
    assert lines[0].gap is not None
    assert lines[0].gap.ahead == "first"
    assert lines[1].gap is None


def test_numbers_do_not_depend_on_the_batch_size() -> None:
    first, second = (
        told(Painter(order=1), Painter(order=2, shift=0.1), n=70, data=real_images(60), batch_size=size)
        for size in (7, 64)
    )
    for title in (TITLE, AREAS):
        assert titled(first, title) == titled(second, title)


def test_the_report_states_how_many_and_what_real_images_give_each_other() -> None:
    section = titled(told(Painter(order=1), Painter(order=2, shift=0.1), n=100, data=real_images(80)), TITLE)
    gaps, floor = (block for block in section.blocks if isinstance(block, Table))
    assert gaps.caption == "80 real images and 100 samples of each; the difference is b minus a."
    assert "real against real" in floor.columns
    assert "halves of 40 images" in floor.caption
    assert not any("FID" in str(cell) for table in (gaps, floor) for row in table.rows for cell in row)


@pytest.mark.parametrize(
    ("count", "says"),
    [(0, "needs real images (pass --data FOLDER;"), (10, "needs at least 32 real images and samples")],
)
def test_without_enough_real_images_the_section_says_what_to_type(count: int, says: str) -> None:
    net = Painter(order=1)
    given = [Source(name, lambda net=net: gan(net)) for name, net in (("a", net), ("b", Painter(order=2)))]  # type: ignore[misc]
    data = real_images(count) if count else None
    report = compare(given, of="pair", n=40, data=data, concepts=("none",), only=["distances"], strict=True)
    section = titled(report, TITLE)
    assert section.status == "skipped"
    assert section.summary.startswith(says)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        torch.save(Dcgan(12).state_dict(), made / f"{name}.pth")
    pictures = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(made / "real.npz", pictures)
    return made


@pytest.mark.slow
def test_the_command_takes_real_images(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    typed = ["compare", str(folder / "a.pth"), str(folder / "b.pth"), "--data", str(folder / "real.npz")]
    code, _, _ = run(capsys, *typed, "-n", "40", "-a", "distances,concepts", "--concepts", "colours", "-o", str(target))
    found = json.loads(target.read_text())
    status = {section["title"]: section["status"] for section in found["sections"]}
    assert code == 0
    assert (status[TITLE], status[AREAS]) == ("done", "done")
    assert found["provenance"]["real_images"].endswith("real.npz (40 images)")


def test_real_images_that_are_not_there_are_one_sentence(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, _, err = run(capsys, "compare", str(folder / "a.pth"), str(folder / "b.pth"), "--data", str(folder / "none"))
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("UsageError: no folder of real images at ")
