"""Planted differences between real and generated images are found; where there is none nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from gandissect_plugins.distribution import Comparison, ComparisonSpace, Distribution, comparison_spaces
from gandissect_plugins.distribution.diversity import pair_similarity
from gandissect_plugins.distribution.extractors import DemoSegmenter, MobileNetV2, Pixels
from gandissect_plugins.distribution.inception import HASH, Inception, pooled_features, with_border_rules
from gandissect_plugins.distribution.spaces import InBlocks, gathered
from gandissect_plugins.distribution.words import number
from torch import Tensor
from torch.nn import functional as F

from gandissect.blocks import Section, Table
from gandissect.concepts import CallableSegmenter, Concept, Vocabulary
from gandissect.errors import UnknownName, UsageError
from gandissect.extractor import Extractor
from gandissect.plugins import load_plugins
from gandissect.real import RealImages
from gandissect.run import analyze
from gandissect.session import Images, Session
from gandissect.testing import check_analyzer, tiny_gan
from gandissect.wording import percent

QUICK = {"halves": 8, "resamples": 60, "pairs": 20, "paths": 16, "samples": 200}


class Colours(CallableSegmenter):
    """Where the planted squares are."""

    def __init__(self) -> None:
        super().__init__(_colours, ["red", "yellow"])

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return Concept("red", "object"), Concept("yellow", "object")


def _colours(images: Tensor) -> Tensor:
    r, g, b = images.unbind(1)
    return torch.stack([(r > 0.5) & (g < -0.5) & (b < -0.5), (r > 0.5) & (g > 0.5) & (b < -0.5)], 1)


def own_samples(n: int, start: int = 5000) -> Tensor:
    """Further samples of the planted generator, which serve as real images."""
    session = Session(tiny_gan("planted"), n=n)
    return session.generate(session.latents_at(range(start, start + n)))


def sections(real: Tensor | None, n: int = 200, batch_size: int = 64, **options: object) -> dict[str, Section]:
    session = Session(
        tiny_gan("planted"),
        vocabulary=Vocabulary([Colours()]),
        n=n,
        batch_size=batch_size,
        real=None if real is None else RealImages.from_tensor(real),
    )
    analyzer = Distribution({**QUICK, **options})
    session.prepare(analyzer.wants(session))
    passes = session.passes
    found = {section.title: section for section in analyzer.run(session)}
    assert session.passes == passes, "everything comes from the shared pass"
    return found


@pytest.fixture(scope="module")
def same() -> dict[str, Section]:
    return sections(own_samples(200))


@pytest.fixture(scope="module")
def without_red() -> dict[str, Section]:
    """The real images have more red and no yellow: red is missing in what is generated, yellow too much."""
    real = own_samples(200)
    yellow = _colours(real)[:, 1:2].expand_as(real)
    real = torch.where(yellow, torch.tensor([0.2, 0.2, 0.2])[:, None, None], real)
    real[:120, :, :12, :12] = torch.tensor([1.0, -1.0, -1.0])[:, None, None]
    return sections(real)


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def test_it_keeps_the_promises_of_an_analyzer() -> None:
    check_analyzer(Distribution)


def test_images_of_the_generator_itself_are_not_told_from_it(same: dict[str, Section]) -> None:
    assert [finding.text for section in same.values() for finding in section.findings] == []
    assert [section.status for section in same.values()] == ["done"] * 4


def test_a_missing_concept_is_the_headline(without_red: dict[str, Section]) -> None:
    section = without_red["What is missing, what is too much"]
    texts = [finding.text for finding in section.findings]
    assert any(text.startswith("*red* covers") for text in texts)
    assert any(text.startswith("*yellow* covers 0 % of real") for text in texts)
    rows = {row[0]: row for row in tables(section)[0].rows}
    assert cast(float, rows["red"][3]) < 0 < cast(float, rows["yellow"][3])


def test_distances_see_the_difference_and_name_their_space(without_red: dict[str, Section]) -> None:
    section = without_red["Distance between real and generated"]
    assert section.findings
    names = [row[0] for row in tables(section)[0].rows]
    assert names[:2] == ["Fréchet distance [pixels]", "kernel distance [pixels]"]
    assert not any("FID" in str(name) or "KID" in str(name) for name in names)


def test_without_real_images_diversity_alone_is_measured() -> None:
    found = sections(None)
    assert found["Diversity"].status == "done"
    skipped = [section for section in found.values() if section.status == "skipped"]
    assert [section.title for section in skipped] == ["Real against generated"]
    assert "--data FOLDER" in skipped[0].summary


def test_few_real_images_are_said_not_compared() -> None:
    found = sections(own_samples(9), n=40)
    assert "at least 16 real images" in found["Real against generated"].summary
    assert found["Diversity"].status == "done"


def test_sections_do_not_depend_on_the_batch_size() -> None:
    real = own_samples(48)
    results = [
        [
            section.to_json()
            for section in sections(real, n=48, batch_size=size, spaces="pixels,demo-segmenter").values()
        ]
        for size in (7, 64)
    ]
    assert results[0] == results[1]


def test_the_floor_is_what_two_sets_of_one_distribution_give() -> None:
    rng, space = np.random.default_rng(0), ComparisonSpace("made", Images())
    real, fake = rng.normal(size=(300, 8)), rng.normal(size=(300, 8))
    compare = Comparison(space, real, fake, rng, draws=20, resamples=50)
    found = compare.distances() + compare.neighbourhoods()
    assert not any(one.apart for one in found)
    frechet = found[0]
    assert frechet.floor.low < frechet.same.mean < frechet.floor.high
    assert frechet.low <= frechet.value <= frechet.high
    assert frechet.infinite is not None and abs(frechet.infinite) < frechet.value
    worse = Comparison(space, real, 0.3 * fake, rng, draws=20, resamples=50)
    apart = {one.metric: one.apart for one in worse.distances() + worse.neighbourhoods()}
    assert apart["Fréchet distance [made]"] and apart["kernel distance [made]"] and apart["recall [made]"]
    assert not apart["precision [made]"]


def test_less_diverse_pairs_are_more_similar() -> None:
    varied = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alike = 0.3 * varied + 0.7 * varied[:1]
    rng = np.random.default_rng(0)
    assert pair_similarity(alike, rng).low > pair_similarity(varied, rng).high


def test_a_conditional_generator_and_one_without_discriminator_are_compared() -> None:
    for gan in (tiny_gan("conditional"), tiny_gan("random", discriminator=False)):
        session = Session(gan, n=40, real=RealImages.from_tensor(torch.rand(40, 3, 32, 32) * 2 - 1))
        found = list(Distribution(QUICK).run(session))
        assert [section.status for section in found] == ["done"] * 4


# -- feature spaces ---------------------------------------------------------------------------------------------------


def test_spaces_are_found_by_name_and_plugins_may_add_theirs() -> None:
    class Means(Extractor):
        name = "means"

        def features(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    session = Session(tiny_gan(), n=20, extractors={"means": Means})
    spaces = comparison_spaces(session, ("pixels", "discriminator", "means", "pixels"))
    assert [space.name for space in spaces][::2] == ["pixels", "means"]
    assert spaces[1].name.startswith("discriminator ")
    assert gathered(session, spaces[2], 20, real=False) == pytest.approx(session.images().mean((2, 3)).numpy())
    with pytest.raises(UnknownName, match="did you mean pixels"):
        comparison_spaces(session, ("pixel",))


def test_the_built_in_spaces_are_registered() -> None:
    names = set(load_plugins().extractors())
    assert {"pixels", "demo-segmenter", "mobilenet_v2", "inception", "dinov2", "clip"} <= names


def test_pixels_are_cell_means() -> None:
    images = torch.rand(2, 3, 32, 32)
    assert Pixels().features(images).reshape(2, 3, 8, 8)[0, 1, 2, 3] == pytest.approx(images[0, 1, 8:12, 12:16].mean())


def test_features_do_not_depend_on_who_else_is_in_the_batch() -> None:
    images, space = torch.rand(20, 3, 64, 64) * 2 - 1, InBlocks(DemoSegmenter())
    assert torch.equal(space(images)[:3], space(images[:3]))
    assert space(images).shape == (20, 48)


@pytest.mark.parametrize("name", ["mobilenet_v2", "inception", "dinov2", "clip"])
def test_spaces_with_weights_fetch_nothing_and_say_what_to_type(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=F"):
        comparison_spaces(Session(tiny_gan(), n=4), (name,))
    with pytest.raises(UsageError, match="no f"):
        comparison_spaces(Session(tiny_gan(), n=4), (f"{name}=/no/such/place",))


def test_a_missing_file_of_weights_is_said_before_anything_runs() -> None:
    options = {"distribution": {"spaces": "inception=nowhere.pth"}}
    with pytest.raises(UsageError, match=r"no file 'nowhere\.pth'"):
        analyze(tiny_gan(), ["distribution"], n=20, data=torch.zeros(20, 3, 32, 32), concepts=["none"], options=options)


@pytest.mark.slow  # importing torchvision takes longer than all the rest
def test_mobilenet_gives_what_torchvision_averages(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    net = models.mobilenet_v2(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    unit = (images + 1) / 2
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    given = (unit - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        found = MobileNetV2(str(tmp_path / "weights.pth")).features(images)
        assert torch.allclose(found, net.features(given).mean((2, 3)), atol=1e-5)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="another network"):
        MobileNetV2(str(tmp_path / "other.pth"))


@pytest.mark.slow
def test_border_rules_change_the_pooling_branches_and_nothing_else() -> None:
    models = pytest.importorskip("torchvision.models.inception")
    block = models.InceptionA(8, pool_features=4).eval()
    x = torch.rand(2, 8, 7, 7)
    net = torch.nn.Module()
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c"):
        setattr(net, f"Mixed_{name}", block)
    ruled = with_border_rules(net)
    with torch.no_grad():
        before, inside, largest = block(x), ruled.Mixed_5b(x), ruled.Mixed_7c(x)
        assert torch.equal(before[:, :-4], inside[:, :-4]) and torch.equal(before[:, :-4], largest[:, :-4])
        assert torch.allclose(before[..., 1:-1, 1:-1], inside[..., 1:-1, 1:-1], atol=1e-6)
        count = F.avg_pool2d(torch.ones(1, 1, 7, 7), 3, 1, 1)
        expected = block.branch_pool(F.avg_pool2d(x, 3, 1, 1) / count)
        assert torch.allclose(inside[:, -4:], expected, atol=1e-6)
        assert torch.equal(largest[:, -4:], block.branch_pool(F.max_pool2d(x, 3, 1, 1)))


@pytest.mark.slow
def test_only_the_published_weights_are_called_fid(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    net = models.inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).eval()
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    space = comparison_spaces(Session(tiny_gan(), n=4), (f"inception={tmp_path / 'inception.pth'}",))[0]
    extractor = cast(Inception, space.extractor)
    assert len(HASH) == 8 and not extractor.standard
    assert space.label("Fréchet distance", "FID") == "Fréchet distance [inception, other weights]"
    with torch.no_grad():
        features = extractor.features(torch.rand(2, 1, 64, 64) * 2 - 1)
        assert features.shape == (2, 2048) and extractor.logits(features).shape == (2, 1008)
        images = torch.rand(1, 3, 299, 299)
        assert torch.allclose(pooled_features(net, images) @ net.fc.weight.T + net.fc.bias, net(images), atol=1e-4)
    extractor.standard = True
    assert space.label("Fréchet distance", "FID") == "FID"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_networks_of_the_transformers_library_are_read_from_a_folder(name: str, tmp_path: Path) -> None:
    hub = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    if name == "dinov2":
        hub.Dinov2Model(hub.Dinov2Config(**small)).save_pretrained(tmp_path)
        hub.BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
            tmp_path
        )
    else:
        config = hub.CLIPConfig(vision_config={**small, "intermediate_size": 32}, projection_dim=12,
                                text_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                                             "intermediate_size": 32, "vocab_size": 50})  # fmt: skip
        hub.CLIPModel(config).save_pretrained(tmp_path)
        hub.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
            tmp_path
        )
    session = Session(tiny_gan(), n=5)
    space = comparison_spaces(session, (f"{name}={tmp_path}",))[0]
    assert gathered(session, space, 5, real=False).shape == (5, 16 if name == "dinov2" else 12)
    other = "clip" if name == "dinov2" else "dinov2"
    with pytest.raises(UsageError, match=f"expected {other}"):
        comparison_spaces(session, (f"{other}={tmp_path}",))


def test_numbers_in_sentences() -> None:
    assert [number(value) for value in (0.03862, 12.345, 120.0, -0.5, 12345.6)] == [
        "0.0386",
        "12.3",
        "120",
        "−0.500",
        "12346",
    ]
    assert [percent(share) for share in (0.123, 0.02, 0.0031, 0.0)] == ["12 %", "2.0 %", "0.31 %", "0 %"]
