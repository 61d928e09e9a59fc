"""What the bundled files promise."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from gandissect import demo
from gandissect.demo.bundle import WEIGHTS, concept_logits
from gandissect.demo.networks import SceneGenerator
from gandissect.demo.scenes import scenes
from gandissect.demo.train_segmenter import HELD_OUT_SEED, held_out_iou

Moments = tuple[Tensor, Tensor]


@pytest.fixture(scope="module", autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor]:
    """Images float32 [256, 3, 64, 64] and masks bool [256, K, 64, 64] that nothing was trained on."""
    images, masks, _ = scenes(HELD_OUT_SEED, range(256))
    return torch.from_numpy(images), torch.from_numpy(masks)


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return torch.randn(256, 64, generator=torch.Generator().manual_seed(99))


@pytest.fixture(scope="module")
def samples(latents: Tensor) -> Tensor:
    made: Tensor = demo.demo_generator()(latents)
    return made


def test_importing_the_demo_does_not_import_torch() -> None:
    code = "import sys, gandissect.demo; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_concepts_are_known_without_torch() -> None:
    code = "import sys; from gandissect.demo import CONCEPTS; assert 'moon' in CONCEPTS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", demo.__all__)
def test_every_public_name_is_there_and_no_module(name: str) -> None:
    assert not isinstance(getattr(demo, name), ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        getattr(demo, "paint")  # noqa: B009  (type checkers know that it does not exist)


def test_shipped_files_take_at_most_eight_megabytes() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 8_000_000


def test_checkpoint_says_who_made_it_and_under_which_licence() -> None:
    with safe_open(demo.demo_checkpoint(), "pt") as file:
        facts = file.metadata()
        owners = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert owners == {"generator", "discriminator"}
    assert facts["licence"] == "Apache-2.0"
    assert {"made_by", "seed", "steps"} <= set(facts)


def test_training_curve_covers_all_steps_of_the_checkpoint() -> None:
    curve = json.loads((WEIGHTS / "training.json").read_text())["curve"]
    with safe_open(demo.demo_checkpoint(), "pt") as file:
        steps = int(file.metadata()["steps"])
    assert 0 <= steps - curve[-1]["step"] < 50
    assert {"step", "seconds", "d_loss", "g_loss", "d_real", "d_fake", "gradient"} == set(curve[0])


def test_generator_makes_pictures_in_minus_one_to_one(samples: Tensor) -> None:
    assert samples.shape == (256, 3, 64, 64)
    assert samples.dtype == torch.float32
    assert float(samples.abs().max()) <= 1


def test_stored_batch_norm_statistics_are_those_of_the_prior(latents: Tensor) -> None:
    generator = demo.demo_generator()
    for measured, stored in batch_norms(generator, latents):
        assert float(((measured[0] - stored[0]) / stored[1].sqrt()).abs().max()) < 0.35
        assert 0.8 < float((measured[1] / stored[1]).mean()) < 1.2


def batch_norms(generator: SceneGenerator, latents: Tensor) -> list[tuple[Moments, Moments]]:
    """Per batch norm, mean [C] and variance [C] of what reaches it, and those that it has stored."""
    found: list[tuple[Moments, Moments]] = []

    def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        stored = module.get_buffer("running_mean"), module.get_buffer("running_var")
        found.append(((args[0].mean((0, 2, 3)), args[0].var((0, 2, 3))), stored))

    hooks = [m.register_forward_pre_hook(look) for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        generator(latents)
    for hook in hooks:
        hook.remove()
    return found


def test_training_and_eval_mode_draw_nearly_the_same(latents: Tensor, samples: Tensor) -> None:
    with torch.no_grad():
        training = demo.demo_generator().train()(latents)
    assert float((training - samples).abs().mean()) < 0.1


def test_discriminator_prefers_drawn_scenes_to_samples(samples: Tensor, drawn: tuple[Tensor, Tensor]) -> None:
    discriminator = demo.demo_discriminator()
    assert float(discriminator(drawn[0]).mean()) > float(discriminator(samples).mean())


def test_segmenter_overlaps_held_out_scenes_as_much_as_stated() -> None:
    stated = demo.segmenter_iou()
    found = held_out_iou(demo.demo_segmenter(), 96)
    assert min(stated.values()) > 0.9
    for concept, value in stated.items():
        assert found[concept] > value - 0.03, concept


def test_segment_takes_pictures_of_any_size(samples: Tensor) -> None:
    masks = demo.segment(samples[:4])
    large = demo.segment(nn.functional.interpolate(samples[:4], scale_factor=3.0, mode="bilinear"))
    assert masks.shape == large.shape == (4, len(demo.CONCEPTS), 64, 64)
    assert masks.dtype == torch.bool
    assert float((masks == large).float().mean()) > 0.97


def test_samples_show_every_concept_about_as_much_as_scenes(samples: Tensor, drawn: tuple[Tensor, Tensor]) -> None:
    ratio = demo.segment(samples[:128]).float().mean((0, 2, 3)) / drawn[1].float().mean((0, 2, 3))
    assert bool(((ratio > 0.4) & (ratio < 2.0)).all()), dict(zip(demo.CONCEPTS, ratio.tolist(), strict=True))


def test_samples_differ_as_much_as_scenes_do(samples: Tensor, drawn: tuple[Tensor, Tensor]) -> None:
    """At 4x4 pixels the variance over samples is near that over scenes: day and night are both there."""
    generated, wanted = (nn.functional.avg_pool2d(x, 16).var(0).mean() for x in (samples, drawn[0]))
    assert 0.7 < float(generated / wanted) < 1.3


def test_snapshots_are_earlier_than_the_checkpoint_and_load() -> None:
    steps = [int(path.stem.rsplit("-", 1)[1]) for path in demo.demo_snapshots()]
    with safe_open(demo.demo_checkpoint(), "pt") as file:
        assert max(steps) < int(file.metadata()["steps"])
    assert len(steps) >= 3
    assert demo.demo_generator(demo.demo_snapshots()[0])(torch.zeros(1, 64)).shape == (1, 3, 64, 64)


def test_the_folded_segmenter_is_the_same_function(samples: Tensor) -> None:
    with torch.no_grad():
        plain, folded = demo.demo_segmenter()(samples[:64]), concept_logits(samples[:64])
    assert torch.allclose(folded, plain, atol=1e-3)
    assert ((folded > 0) != (plain > 0)).float().mean() < 1e-4
