"""Classic GANs give the numbers that their original implementations gave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_golden import Golden
from torch import Tensor

from gandissect.gan import Gan

PLAIN = [
    ("dcgan_csinva_cifar10_32", "G.pth", "D.pth", {}),
    ("dcgan_csinva_mnist_28", "G.pth", "D.pth", {"size": "28"}),
    ("dcgan_examples_64_gray", "G.pth", "D.pth", {}),
    ("dcgan_examples_64_rgb", "G.pth", "D.pth", {}),
    ("dcgan_natsu6767_64", "ckpt.pt", None, {}),
    ("dcgan_znxlwm_mnist_64", "G.pkl", "D.pkl", {}),
    ("gan_mlp_znxlwm_mnist_28", "G.pkl", "D.pkl", {}),
    ("pgan_cgan_28", "G.pth", "D.pth", {}),
    ("pgan_fc_bgan_28", "G.pth", "D.pth", {}),
    ("pgan_fc_gan_16_rgb", "G.pth", "D.pth", {}),
    ("pgan_fc_gan_28", "G.pth", "D.pth", {}),
    ("pgan_fc_wgan_gp_28", "G.pth", "D.pth", {}),
    ("pgan_up_acgan_32", "G.pth", "D.pth", {}),
    ("pgan_up_dcgan_32", "G.pth", "D.pth", {}),
]


def images(gan: Gan, z: Tensor, case: Golden) -> Tensor:
    z = z.reshape(len(z), *gan.generator.latent.shape)
    labels = (case["y"],) if gan.generator.num_classes else ()
    out: Tensor = gan.generator.module(z, *labels)
    return out.reshape(case["image"].shape)


def logits(gan: Gan, case: Golden) -> Tensor:
    critic = gan.discriminator
    assert critic is not None
    given = case["d_image"] if "d_image" in case.arrays else case["image"]
    labels = (case["y"],) if critic.num_classes else ()
    out: Tensor = critic.module(given.flatten(1) if critic.flatten else given, *labels)
    return out


ALIKE = {
    "pgan_up_acgan_32",
    "dcgan_csinva_cifar10_32",
    "dcgan_examples_64_gray",
    "dcgan_natsu6767_64",
    "dcgan_znxlwm_mnist_64",
    "pgan_fc_gan_28",
    "pgan_fc_wgan_gp_28",
    "pgan_up_dcgan_32",
}
"""Folders whose like is in the quick suite too."""


@pytest.mark.parametrize(
    ("folder", "file", "critic", "assume"),
    [pytest.param(*row, id=row[0], marks=[pytest.mark.slow] if row[0] in ALIKE else []) for row in PLAIN],
)
@torch.no_grad()
def test_images_and_logits_are_the_recorded_ones(
    shared: Path, folder: str, file: str, critic: str | None, assume: dict[str, str]
) -> None:
    case = Golden.of(shared, folder)
    gan = case.open(file, critic, **assume)
    case.equal(images(gan, case["z"], case), "image")
    scores = logits(gan, case)
    assert gan.discriminator is not None
    bare = gan.discriminator.output == "logit" and "d_logit" in case.arrays
    key = "d_logit" if bare else "d_out"
    case.equal(scores.reshape(case[key].shape), key)


@torch.no_grad()
def test_an_autoencoding_discriminator_copies_the_image_and_scores_the_copy(shared: Path) -> None:
    case = Golden.of(shared, "pgan_up_began_16")
    gan = case.open("G.pth", "D.pth")
    case.equal(images(gan, case["z"], case), "image")
    assert gan.discriminator is not None
    critic = gan.discriminator.module
    case.equal(critic.reconstructed(case["d_image"]), "d_out")
    error = (case["d_out"] - case["d_image"]).abs().flatten(1).mean(1)
    torch.testing.assert_close(critic(case["d_image"])[:, 0], -error)


@torch.no_grad()
@pytest.mark.slow
def test_an_infogan_takes_noise_label_and_codes_as_one_vector_and_its_heads_can_be_read(shared: Path) -> None:
    case = Golden.of(shared, "pgan_up_infogan_32")
    gan = case.open("G.pth", "D.pth")
    case.equal(images(gan, torch.cat([case["z"], case["y_onehot"], case["code"]], 1), case), "image")
    assert gan.discriminator is not None
    case.equal(gan.discriminator.module(case["d_image"]), "d_out")
    assert {"aux_layer.0", "latent_layer.0"} <= {layer.name for layer in gan.discriminator.layers}


@torch.no_grad()
def test_an_infogan_with_params_splits_its_input_and_joins_trunk_and_head(shared: Path) -> None:
    case = Golden.of(shared, "infogan_natsu6767_mnist_28")
    gan = case.open("model.pth")
    module = gan.generator.module
    noise, one_hot, codes = case["z"].flatten(1).split([62, 10, 2], 1)
    case.equal(module.images(case["z"]), "image")
    case.layers_equal(module, "g:", lambda: module.images(case["z"]))
    assert gan.generator.num_classes == 10
    labels = one_hot.argmax(1)
    torch.testing.assert_close(module.joined(torch.cat([noise, codes], 1), labels), case["z"])
    assert gan.discriminator is not None
    case.equal(torch.sigmoid(gan.discriminator.module(case["d_image"])), "d_out")
