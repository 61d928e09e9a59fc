"""What is told of two checkpoints is what was planted between them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from gandissect_plugins.comparison import cka_table, layers_seen, matched, subspace_overlap
from gandissect_plugins.comparison.pairs import pair_distances
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Section
from gandissect.comparer import Comparer, Kind, Lineup, Source
from gandissect.comparing.compare import compare
from gandissect.concepts import CallableSegmenter
from gandissect.errors import UsageError
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.metrics import cka
from gandissect.plugins import hookimpl, load_plugins
from gandissect.probing.building import build_gan
from gandissect.report import Report
from gandissect.session import Session
from gandissect.testing import PLANTED, PlantedGenerator, RandomGenerator

NO_CONCEPTS = ("none",)


def gan(net: nn.Module, size: int = 32, prior: str = "normal") -> Gan:
    networks = Networks(net, None, LatentSpace("z", (size,), prior))  # type: ignore[arg-type]  # "normal" or "uniform"
    return build_gan(networks, name="g", opening=Opening("testing", "made"))


def sources(*nets: nn.Module, size: int = 32) -> list[Source]:
    return [Source(name, lambda net=net: gan(net, size)) for name, net in zip("ab", nets, strict=True)]  # type: ignore[misc]


def permuted(net: RandomGenerator) -> tuple[RandomGenerator, Tensor]:
    """The same function with the units of the first layer in another order: unit i of it was unit order[i]."""
    order = torch.randperm(net.project.out_channels, generator=torch.Generator().manual_seed(1))
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.project.weight.copy_(net.project.weight[:, order])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(other.norm1, name).copy_(getattr(net.norm1, name)[order])
        other.conv2.weight.copy_(net.conv2.weight[order])
    return other, order


def red(images: Tensor) -> Tensor:
    return (images[:, :1] > 0.5) & (images[:, 1:].amax(1, keepdim=True) < 0)


def green(images: Tensor) -> Tensor:
    return (images[:, 1:2] > 0.5) & (images[:, ::2].amax(1, keepdim=True) < 0)


def without_red() -> PlantedGenerator:
    net = PlantedGenerator()
    with torch.no_grad():
        net.to_rgb.weight[:, PLANTED.red] = 0.0
    return net


def section(report: Report, name: str) -> Section:
    return report.section(name)[0]


def test_permuted_units_are_matched_exactly() -> None:
    net = RandomGenerator()
    other, order = permuted(net)
    first, second = (layers_seen(Session(gan(one), n=128)).layers for one in (net, other))
    found = matched(first[0], second[0])
    assert first[0].layer.channels == len(found.first) == len(order)
    assert (order[found.second].numpy() == found.first).all()
    assert (found.r > 0.999).all()
    assert found.passed.all()


def test_two_untrained_networks_share_no_units_beyond_what_common_latents_give() -> None:
    shares = []
    for seed in range(2):
        first, second = (layers_seen(Session(gan(RandomGenerator(one)), n=96)).layers for one in (seed, seed + 10))
        shares += [matched(a, b).passed.mean() for a, b in zip(first, second, strict=True)]
    assert np.mean(shares) < 0.03


def test_the_same_network_is_said_to_be_the_same_and_makes_no_finding() -> None:
    net = RandomGenerator()
    report = compare(sources(net, copy.deepcopy(net)), of="pair", n=64, concepts=NO_CONCEPTS, strict=True)
    assert report.findings() == ()
    assert [one.title for one in report.sections] == ["The same network"]
    assert "equal weights" in report.sections[0].summary


@pytest.mark.slow
def test_a_concept_that_is_gone_is_named_as_lost_and_the_one_that_stayed_is_not() -> None:
    concepts = [CallableSegmenter(red, ["red"]), CallableSegmenter(green, ["green"])]
    report = compare(
        sources(PlantedGenerator(), without_red(), size=16), of="pair", n=200, concepts=concepts, strict=True
    )
    texts = [finding.text for finding in section(report, "concepts").findings]
    assert len(texts) == 1
    assert texts[0].startswith("**b draws no “red” any more**")
    assert section(report, "unit-labels").summary.endswith("; no unit of b follows red.")
    assert " of both: CKA " in section(report, "layers").summary
    back = compare(
        sources(without_red(), PlantedGenerator(), size=16), of="pair", n=200, concepts=concepts, only=["concepts"]
    )
    assert section(back, "concepts").findings[0].text.startswith("**b draws “red”, which a does not**")


class Turned(nn.Module):
    """The random generator behind another order of its latent's coordinates: another file, the same distribution."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.net = RandomGenerator()
        order = torch.randperm(32, generator=torch.Generator().manual_seed(seed))
        self.order = nn.Parameter(order.float(), requires_grad=False)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.net(z[:, self.order.long()])
        return image


def findings_on_equal_distributions(seed: int, n: int) -> list[str]:
    given = sources(RandomGenerator(), Turned(seed))
    told = compare(given, of="pair", n=n, seed=seed, concepts=("colours",), skip=["unit-labels"], strict=True)
    return [finding.text for one in told.sections for finding in one.findings]


def test_networks_of_one_distribution_make_no_finding() -> None:
    assert findings_on_equal_distributions(0, 100) == []


@pytest.mark.slow
def test_twenty_networks_of_one_distribution_make_no_finding() -> None:
    found = {seed: findings_on_equal_distributions(seed, 300) for seed in range(20)}
    assert {seed: texts for seed, texts in found.items() if texts} == {}


def test_pictures_of_the_same_latent_are_near_where_the_network_is_almost_the_same() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 20))
    near = pair_distances(rows, rows + 0.01 * rng.standard_normal(rows.shape), rng)
    far = pair_distances(rows, rng.standard_normal(rows.shape), rng)
    assert near.again == 1
    assert near.p == 0.001
    assert near.same.max() < 0.05 < near.other.min()
    assert far.p > 0.01
    assert far.again < 0.2


def test_the_table_of_layers_is_debiased_cka() -> None:
    rng = np.random.default_rng(0)
    first, second = [rng.standard_normal((40, k)) for k in (3, 8)], [rng.standard_normal((40, 5))]
    second.append(first[0] @ rng.standard_normal((3, 3)))
    table = cka_table(first, second)
    expected = [[cka(a, b, kind="debiased") for b in second] for a in first]
    assert np.allclose(table, expected)
    assert np.isclose(cka_table(first[:1], first[:1])[0, 0], 1)


def test_a_layer_that_is_constant_is_similar_to_nothing() -> None:
    assert cka_table([np.ones((8, 3))], [np.random.default_rng(0).standard_normal((8, 3))])[0, 0] == 0


def test_the_same_subspace_overlaps_fully_and_a_random_one_as_expected() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((40, 5)))[0].T
    same = subspace_overlap(basis, rng.standard_normal((5, 5)) @ basis, rng)
    other = subspace_overlap(basis, rng.standard_normal((5, 40)), rng)
    assert np.isclose(same.value, 1)
    assert same.p == 0.001
    assert np.isclose(same.chance, 5 / 40)
    assert other.value < 0.3


def test_other_latents_leave_out_what_needs_the_same_ones_and_nothing_else() -> None:
    nets = [RandomGenerator(), PlantedGenerator()]
    given = [
        Source(name, lambda net=net, size=size: gan(net, size))
        for name, net, size in zip("ab", nets, (32, 16), strict=True)
    ]  # type: ignore[misc]
    report = compare(given, of="pair", n=48, concepts=("colours",), strict=True)
    told = [one for one in report.sections if one.title != "Against the real images"]  # none were given
    skipped = {one.analyzer for one in told if one.status == "skipped"}
    assert skipped == {"same-latents", "matched-units", "layers", "directions"}
    assert all("b takes z of 16 latent coordinates" in one.summary for one in told if one.status == "skipped")
    assert {one.analyzer for one in report.sections if one.status == "done"} == {"concepts", "distances", "unit-labels"}


def test_images_of_different_sizes_are_one_sentence() -> None:
    small = nn.Sequential(nn.Linear(32, 3 * 16 * 16), nn.Unflatten(1, (3, 16, 16)), nn.Tanh()).eval()
    with pytest.raises(UsageError, match="b makes images of 16×16 with 3 channels and a of 32×32"):
        compare(sources(RandomGenerator(), small), of="pair", n=16, concepts=NO_CONCEPTS)


def test_few_samples_are_skipped_with_a_reason_and_never_an_error() -> None:
    report = compare(sources(RandomGenerator(), RandomGenerator(1)), of="pair", n=4, concepts=("colours",), strict=True)
    assert {one.status for one in report.sections} <= {"done", "skipped"}
    assert all(one.summary for one in report.sections)


def test_numbers_do_not_depend_on_the_batch_size() -> None:
    told = [
        [one.to_json() for one in compare(
            sources(RandomGenerator(), RandomGenerator(1)), of="pair", n=40, concepts=("colours",), batch_size=size
        ).sections]
        for size in (7, 64)
    ]  # fmt: skip
    assert told[0] == told[1]


class Brightness(Comparer[float]):
    """The mean of the pixels."""

    name = "brightness"
    of: Kind = "pair"  # type: ignore[misc]

    def look(self, session: Session) -> float:
        return float(session.images().mean())

    def tell(self, seen: Sequence[float], lineup: Lineup) -> Iterator[Section]:
        yield Section("Brightness", summary=f"{lineup.names[0]} {seen[0]:.2f}, {lineup.names[1]} {seen[1]:.2f}")
        raise RuntimeError("after the first section")


class Blind(Brightness):
    """Raises while it looks."""

    name = "blind"

    def look(self, session: Session) -> float:
        raise RuntimeError("cannot look")


@hookimpl
def register_comparers() -> list[type[Brightness]]:
    return [Brightness, Blind]


def test_a_plugin_can_add_a_comparison_and_one_that_fails_harms_no_other() -> None:
    import sys

    registry = load_plugins()
    registry._manager.register(sys.modules[__name__], name="mine")
    report = compare(
        sources(RandomGenerator(), RandomGenerator(1)), of="pair", n=16, concepts=NO_CONCEPTS, registry=registry,
        only=["blind", "brightness", "same-latents"],
    )  # fmt: skip
    assert [one.status for one in report.section("brightness")] == ["done", "failed"]
    assert "after the first section" in report.section("brightness")[1].summary
    assert section(report, "blind").summary == "RuntimeError: cannot look"
    assert section(report, "same-latents").status == "done"


def test_an_unknown_comparison_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean concepts"):
        compare(sources(RandomGenerator(), RandomGenerator(1)), of="pair", only=["concept"])
