"""Networks whose input is a picture, networks with classes, and networks that are large: what is skipped, said and asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gandissect_plugins.attributions import LatentEffort, attribute_score, check_attributions
from gandissect_plugins.attributions.latent import attribute_all_latents, known_properties
from gandissect_plugins.attributions.methods import METHODS, Effort
from gandissect_plugins.attributions.pixels import affordable_methods
from gandissect_plugins.directions import LatentDirections
from gandissect_plugins.dissection.counting.active import ActiveCells
from gandissect_plugins.dissection.significance.chance import _all_shifts, _shifts_of_pairs
from gandissect_plugins.features import FeatureSpace
from gandissect_plugins.geometry import sweep
from gandissect_plugins.gradcam import explain_score
from gandissect_plugins.overview.overview import Overview
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.analyzer import left_out, spread
from gandissect.blocks import Section
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.probing.verifying import verify
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import tiny_session


class Translator(nn.Module):
    """A picture [N, 3, 16, 16] to a picture."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.norm, self.act = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
            self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.act(self.norm(self.first(x)))))


class Painter(nn.Module):
    """z [N, 4] and one of two classes to [N, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.colour = nn.Linear(4, 768), nn.Embedding(2, 768)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return torch.tanh(self.fc(z) + self.colour(labels)).reshape(-1, 3, 16, 16)


class Judge(nn.Module):
    """Looks at the upper half of images of class 0 and at the lower half of those of class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data.fill_(1.0)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        maps = self.conv(x)[:, 0]
        halves = torch.stack([maps[:, :8].mean((1, 2)), maps[:, 8:].mean((1, 2))], 1)
        return 10 * halves.gather(1, labels[:, None])[:, 0]


def translating() -> Gan:
    latent = LatentSpace("image", (3, 16, 16), "image")
    return build_gan(Networks(generator=Translator().eval(), latent=latent), name="x", opening=Opening("x", "x"))


def classed() -> Session:
    networks = Networks(
        generator=Painter(), latent=LatentSpace("z", (4,)), num_classes=2, discriminator=Judge(),
        discriminator_classes=2, discriminator_layers=("conv",),
    )  # fmt: skip
    return Session(build_gan(networks, name="x", opening=Opening("x", "x")), n=8)


def sections_of(gan: Gan) -> dict[str, Section]:
    report = analyze(gan, [Overview, FeatureSpace, LatentDirections], n=24, concepts=("colours",))
    return {section.title: section for section in report.sections}


def test_a_network_of_pictures_has_no_directions_and_is_not_said_to_draw_from_a_range() -> None:
    sections = sections_of(translating())
    assert [s.title for s in sections.values() if s.status == "failed"] == []
    assert sections["Directions"].status == "skipped"
    assert "pictures into pictures" in sections["Directions"].summary
    assert "input pictures" in sections["Samples"].summary
    assert "U(" not in sections["Samples"].summary


def test_what_training_stored_says_nothing_about_made_up_pictures() -> None:
    checks = {check.name: check.verdict for check in verify(translating())}
    assert checks["BatchNorm statistics"] == "not applicable"


@pytest.mark.parametrize("method", ["occlusion", "integrated-gradients", "lime"])
def test_an_attribution_asks_the_discriminator_about_the_class_of_the_image(method: str) -> None:
    maps = attribute_score(classed(), method, torch.ones(2, 3, 16, 16)).maps.abs()  # type: ignore[arg-type]  # a Method
    upper = maps[:, :7].sum((1, 2)) / maps.sum((1, 2))
    assert upper[0] > 0.7
    assert upper[1] < 0.3


def test_grad_cam_asks_about_the_class_of_the_image() -> None:
    cam = explain_score(classed(), torch.ones(2, 3, 16, 16))[1].cam.cellwise.abs()
    assert cam[0, :8].sum() > 0
    assert cam[0, 8:].sum() == 0
    assert cam[1, :8].sum() == 0


def test_scores_of_all_checks_are_those_of_the_classes_that_were_generated() -> None:
    session = classed()
    images = session.images(8)
    labels = torch.arange(8) % 2
    with torch.no_grad():
        own = Judge()(images, labels)
    found = check_attributions(session, images, ["occlusion"], shuffles=1)
    torch.testing.assert_close(found.scores, own)
    torch.testing.assert_close(session.scores(8), own)
    torch.testing.assert_close(session.score(images), own)
    assert not torch.allclose(session.score(images, 1 - labels), own)


def test_samples_are_called_by_their_class() -> None:
    assert classed().sample_name(3) == "sample 3, class 1"
    assert tiny_session("random").sample_name(3) == "sample 3"


@pytest.mark.parametrize("samples", [5, 8])
def test_pairs_of_samples_and_transforms_give_the_same_shuffled_overlaps(samples: int) -> None:
    stream = torch.Generator().manual_seed(samples)
    unit, sample, cell = (torch.rand(4, samples, 30, generator=stream) > 0.8).nonzero(as_tuple=True)
    active = ActiveCells(4, samples, 30, unit, sample, cell)
    areas = torch.rand(samples, 30, 3, generator=stream)
    orders = [torch.from_numpy(np.random.default_rng(seed).permutation(samples)) for seed in range(3)]
    for cohort in {samples, samples // 2 if samples % 2 == 0 else samples}:
        expected = torch.cat([_all_shifts(active, areas, order, cohort) for order in orders])
        torch.testing.assert_close(_shifts_of_pairs(active, areas, orders, cohort), expected, rtol=1e-4, atol=1e-4)


def test_a_large_generator_is_asked_for_fewer_images_and_never_for_too_few() -> None:
    session = tiny_session("random", n=8)
    size = session.gan.generator.latent.size
    every = LatentEffort(samples=5).fitted(session)
    assert every is not None
    assert every.coordinates == size
    session.__dict__["effort"] = 1e12 / (5 * (96 + 40))
    fewer = LatentEffort(samples=5, perturbations=96).fitted(session)
    assert fewer is None or fewer.coordinates <= 39
    session.__dict__["effort"] = 1e12
    assert LatentEffort(samples=5).fitted(session) is None


def test_coordinates_that_were_not_ablated_are_not_numbers_and_the_others_as_they_were() -> None:
    session = tiny_session("random", n=8)
    properties = known_properties(session)[:1]
    some, every = (
        attribute_all_latents(session, properties, effort=LatentEffort(5, 96, coordinates=count))[0] for count in (4, 0)
    )
    tried = ~some.ablation[0].isnan()
    assert int(tried.sum()) == 4
    torch.testing.assert_close(some.ablation[:, tried], every.ablation[:, tried], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(some.slopes, every.slopes, rtol=1e-4, atol=1e-6)


def test_a_large_generator_has_only_some_coordinates_swept() -> None:
    session = tiny_session("vector", n=8)
    whole = sweep(session)
    session.__dict__["effort"] = 1e12
    some = sweep(session)
    assert (len(some.change), some.tried[0]) == (16, 0)
    np.testing.assert_allclose(some.change, whole.change[some.tried], rtol=1e-4)


def test_a_large_discriminator_is_explained_by_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    session = classed()
    assert affordable_methods(session, METHODS, 8, Effort()) == METHODS
    monkeypatch.setattr("gandissect_plugins.attributions.pixels.AFFORDABLE", 1.0)
    assert affordable_methods(session, METHODS, 8, Effort()) == ("integrated-gradients", "gradient-shap")


def test_layers_are_spread_over_depth_and_what_is_left_out_is_said() -> None:
    assert spread(range(23), 6) == (0, 4, 9, 13, 18, 22)
    assert spread(range(4), 6) == (0, 1, 2, 3)
    assert left_out(4, 4, "x") == ""
    assert "6 of 23 main layers" in left_out(6, 23, "x")


def test_the_finished_image_is_no_layer_of_units() -> None:
    networks = Networks(
        generator=Translator().eval(), latent=LatentSpace("image", (3, 16, 16), "image"), main_layers=("act", "last")
    )
    gan = build_gan(networks, name="x", opening=Opening("x", "x"))
    assert [info.name for info in gan.generator.main_layers()] == ["act"]
