"""How the demo's GAN is trained, in a few small steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gandissect.demo.bundle import GAN_FILE, demo_generator
from gandissect.demo.networks import SceneGenerator, SceneSegmenter
from gandissect.demo.scenes import bytes_to_images, scene_bytes
from gandissect.demo.train import Recipe, Trainer, measure_batch_norm, sliced_distance, slope, train
from gandissect.demo.train_segmenter import roughen


@pytest.fixture(scope="module", autouse=True)
def few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    return torch.from_numpy(bytes_to_images(scene_bytes(0, range(8))[0]))


def test_sliced_distance_is_zero_for_the_same_set_in_another_order() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(32, 12)
    assert float(sliced_distance(vectors, vectors.flip(0))) < 1e-9


def test_sliced_distance_of_a_shift_is_its_mean_square() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(32, 12)
    assert float(sliced_distance(vectors, vectors + 2.0, 4096)) == pytest.approx(4.0, rel=0.1)


def test_slope_of_a_linear_logit_is_its_squared_weight(drawn: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(drawn[0].numel(), 1))
    weight = linear[1].get_parameter("weight").detach()
    assert float(slope(linear, drawn).detach()) == pytest.approx(float(weight.square().sum()), rel=1e-4)


def test_measured_batch_norms_make_eval_mode_equal_to_one_large_training_batch() -> None:
    torch.manual_seed(0)
    generator = SceneGenerator(widths=(8, 8, 8, 8))
    measure_batch_norm(generator, samples=128, seed=3)
    latents = torch.randn(128, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(generator(latents), generator.train()(latents), atol=1e-4)


@pytest.mark.slow
def test_training_writes_a_checkpoint_that_loads_and_its_record(drawn: Tensor, tmp_path: Path) -> None:
    trainer = Trainer(0, Recipe(batch=2), measured=32, every=3)
    train(trainer, scene_bytes(0, range(8))[0], tmp_path, steps=7, minutes=1.0, save=1.0)
    images = demo_generator(tmp_path / GAN_FILE)(torch.zeros(2, 64))
    assert images.shape == (2, 3, 64, 64)
    assert [moment["step"] for moment in json.loads((tmp_path / "training.json").read_text())["curve"]] == [3, 6]
    assert len(list((tmp_path / "snapshots").iterdir())) == 3


def test_a_step_moves_the_averaged_generator_with_the_trained_one(drawn: Tensor) -> None:
    trainer = Trainer(0, Recipe(batch=8))
    before = trainer.average.to_rgb[0].get_parameter("weight").clone()
    trainer.advance(drawn, rate=1e-3)
    kept, new = (net.to_rgb[0].get_parameter("weight").detach() for net in (trainer.average, trainer.generator))
    assert not torch.equal(kept, before)
    assert float((kept - new).abs().max()) < 1e-3


def test_roughened_scenes_stay_in_range_and_differ(drawn: Tensor) -> None:
    rough = roughen(drawn)
    assert rough.shape == drawn.shape
    assert float(rough.abs().max()) <= 1
    assert not torch.equal(rough, drawn)


def test_segmenter_gives_one_logit_per_concept_and_pixel(drawn: Tensor) -> None:
    assert SceneSegmenter(concepts=5)(drawn).shape == (8, 5, 64, 64)
