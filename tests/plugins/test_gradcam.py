"""Grad-CAM against networks that look where we planted it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from gandissect_plugins.gradcam import CamCheck, GradCam, explain_concepts, explain_score, grad_cam, grad_cams
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.blocks import Overlay, Section, Text, all_blocks
from gandissect.concepts import Concept, Segmenter, Vocabulary
from gandissect.errors import UnknownName
from gandissect.gan import Discriminator, Gan, LatentSpace, LayerInfo, Opening
from gandissect.probing.building import build_gan
from gandissect.real import RealImages
from gandissect.session import Session
from gandissect.targets import ConceptIntensity, Property, Score, SoftArea, UnitMean, concept_target
from gandissect.testing import PLANTED, CornerDiscriminator, RandomGenerator, tiny_gan


def corner_images(count: int = 8, seed: int = 0) -> Tensor:
    """Dark noise with a bright upper left eighth: float32 [N, 3, 32, 32]."""
    noise = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    images = noise * 0.6 - 0.6
    images[:, :, :8, :8] = noise[:, :, :8, :8] * 0.5 + 0.4
    return images


class RandomDiscriminator(nn.Module):
    """Independent random weights."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten()
            )
            self.head = nn.Linear(16 * 64, 1)
            for parameter in self.parameters():
                nn.init.normal_(parameter, std=0.1)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.net(images))


class ConstantDiscriminator(RandomDiscriminator):
    """A score of 3 whatever it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 0.0 + 3.0


class SureDiscriminator(RandomDiscriminator):
    """A probability that is 1 in float32."""

    def __init__(self) -> None:
        super().__init__(0)
        self.last = nn.Sigmoid()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(super().forward(images) + 60.0)


def gan_with(critic: nn.Module, generator: nn.Module | None = None, size: int = 32) -> Gan:
    networks = Networks(generator or RandomGenerator(0), critic, LatentSpace("z", (size,)))
    return build_gan(networks, name="test", opening=Opening("testing", "made for tests"))


def session_of(critic: nn.Module, **options: object) -> Session:
    return Session(gan_with(critic), n=16, **options)  # type: ignore[arg-type]


def at(checks: Sequence[CamCheck], layer: str, weighting: str) -> CamCheck:
    return next(check for check in checks if check.cam.layer == layer and check.weighting == weighting)


def text_of(section: Section) -> str:
    return " ".join(block.markdown for block in section.blocks if isinstance(block, Text))


def test_cellwise_map_lies_where_the_discriminator_looks_and_passes() -> None:
    checks = explain_score(session_of(CornerDiscriminator()), corner_images())
    found = at(checks, "act", "cellwise")
    assert found.cam.cellwise[:, :2, :2].abs().sum() > 0.99 * found.cam.cellwise.abs().sum()
    assert found.passed


def test_pooled_gradients_forget_the_place_under_a_linear_head_and_deletion_notices() -> None:
    images = corner_images()
    images[:, :, 16:24, 16:24] = 1.0  # brighter than the corner, and without effect
    checks = explain_score(session_of(CornerDiscriminator()), images)
    assert not at(checks, "act", "pooled").passed
    assert at(checks, "act", "cellwise").passed


def test_grad_cam_is_gradient_times_activation_where_the_head_is_a_mean() -> None:
    critic = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    critic.append(nn.Linear(5, 1))
    cam = grad_cam(gan_with(critic).discriminator, corner_images(), "1", Score())  # type: ignore[arg-type]
    torch.testing.assert_close(cam.maps, cam.cellwise)
    torch.testing.assert_close(cam.maps.sum((1, 2)), cam.values - critic[4].bias.detach())


def test_an_activation_in_place_does_not_change_the_map_of_the_layer_before_it() -> None:
    torch.manual_seed(0)
    kept = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 1))
    changed = nn.Sequential(kept[0], nn.ReLU(inplace=True), kept[2], kept[3])
    maps = [grad_cam(gan_with(net).discriminator, corner_images(), "0", Score()).maps for net in (kept, changed)]  # type: ignore[arg-type]
    assert torch.equal(*maps)


def test_a_constant_discriminator_gives_no_finding_and_says_so() -> None:
    section = next(GradCam().run(session_of(ConstantDiscriminator(0))))
    assert section.findings == ()
    assert "does not respond" in section.summary
    assert "constant or saturated" in text_of(section)


def test_a_saturated_discriminator_is_called_saturated() -> None:
    section = next(GradCam().run(session_of(SureDiscriminator())))
    assert "gradient of the score is 0 everywhere on all" in text_of(section)
    assert section.findings == ()


def test_random_discriminators_yield_no_finding() -> None:
    found = [next(GradCam().run(session_of(RandomDiscriminator(seed)))).findings for seed in range(4)]
    assert found == [()] * 4


def test_without_shuffled_weights_nothing_becomes_a_finding() -> None:
    session = session_of(CornerDiscriminator(), real=RealImages.from_tensor(corner_images()))
    assert all(not section.findings for section in GradCam({"shuffles": 0}).run(session))


def test_real_images_get_a_section_of_their_own_with_signed_maps() -> None:
    session = session_of(CornerDiscriminator(), real=RealImages.from_tensor(corner_images()))
    sections = list(GradCam({"shuffles": 1}).run(session))
    overlays = [block for block in all_blocks(sections[1].blocks) if isinstance(block, Overlay)]
    assert sections[1].title.endswith("real images")
    assert overlays and all(overlay.signed and not overlay.shared_scale for overlay in overlays)


class Red(Segmenter):
    """Red pixels, bright ones on grey images; with a differentiable score or without."""

    name = "red"

    def __init__(self, soft: bool) -> None:
        self._soft = soft

    @property
    def concepts(self) -> Sequence[Concept]:
        return (Concept("red", "colour"),)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        return images[:, :1] > 0.5 if images.shape[1] == 1 else self._redness(images) > 0.5

    def soft(self, images: Tensor) -> Tensor | None:
        if not self._soft:
            return None
        return torch.sigmoid(self._redness(images) - 0.5)

    @staticmethod
    def _redness(images: Tensor) -> Tensor:
        return images[:, :1] - images[:, 1:].amax(1, keepdim=True)


def planted_session(soft: bool) -> Session:
    return Session(tiny_gan("planted"), vocabulary=Vocabulary([Red(soft)]), n=64)


def test_the_map_of_red_in_the_generator_lies_where_its_unit_draws() -> None:
    session = planted_session(soft=True)
    index = int(session.areas(64)[:, 0].argmax())
    target = concept_target(session.vocabulary, "red", session.images(2))
    cam = grad_cam(session.gan.generator, session.latents(64)[index : index + 1], PLANTED.layer, target)
    assert isinstance(target, SoftArea)
    positive = cam.cellwise.clamp(min=0)
    assert positive[:, :3, :3].sum() > 0.9 * positive.sum() > 0


def test_a_concept_without_a_soft_score_is_explained_by_its_regions_intensity_and_says_so() -> None:
    session = planted_session(soft=False)
    assert isinstance(concept_target(session.vocabulary, "red", session.images(2)), ConceptIntensity)
    cams = explain_concepts(session, ["red"])
    assert cams[0].hard and "mean intensity where red is" in cams[0].target


def test_concepts_of_an_unknown_name_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean red"):
        explain_concepts(planted_session(True), ["rad"])


def test_a_unit_can_be_the_target() -> None:
    gan = tiny_gan("planted")
    latents = torch.ones(2, 16)
    cam = grad_cam(gan.generator, latents, "conv1", UnitMean(PLANTED.layer, PLANTED.brightness))
    assert (cam.weights[:, PLANTED.brightness] > 0).all()
    assert int((cam.weights != 0).sum()) == 2


def test_the_map_of_a_sample_does_not_depend_on_the_others() -> None:
    critic = gan_with(RandomDiscriminator(1)).discriminator
    assert critic is not None
    images = corner_images(20)
    together = grad_cam(critic, images, "net.3", Score()).maps
    alone = torch.cat([grad_cam(critic, image[None], "net.3", Score()).maps for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_nothing_is_left_on_the_model_after_an_exception() -> None:
    critic = RandomDiscriminator(0).train()
    layers = (LayerInfo("net.1", "LeakyReLU", 8, 16, 16),)

    def broken(_outputs: Tensor) -> Tensor:
        raise ArithmeticError("as planned")

    with pytest.raises(ArithmeticError):
        grad_cam(Discriminator(critic, layers, (3, 32, 32)), corner_images(2), "net.1", Property("broken", broken))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in critic.modules())
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())
    assert all(part.training for part in critic.modules())


def test_an_unknown_layer_is_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownName, match="did you mean"):
        grad_cams(tiny_gan("planted").generator, torch.zeros(1, 16), ["akt1"], [UnitMean("act1", 0)])


def test_a_gan_of_vectors_without_discriminator_is_skipped_in_words() -> None:
    session = Session(tiny_gan("vector", discriminator=False), vocabulary=Vocabulary([Red(True)]), n=8)
    assert [section.status for section in GradCam().run(session)] == ["skipped", "skipped"]
