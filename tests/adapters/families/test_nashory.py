"""pggan-pytorch, whose files keep no gains: the recorded numbers of the original, and a transition made here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from family_golden import Golden
from torch import Tensor
from torch.nn import functional as F

import gandissect
from gandissect.errors import UsageError
from gandissect.gan import Gan


def saved(content: object, folder: Path) -> Path:
    path = folder / "gen_R3_T20.pth.tar"
    torch.save(content, path)
    return path


def opened(path: Path, **assume: str) -> Gan:
    return gandissect.open(path, assume=assume, device="cpu")


@torch.no_grad()
def images_of(gan: Gan, z: Tensor) -> Tensor:
    out: Tensor = gan.generator.module(z)
    return out


@torch.no_grad()
def scores_of(gan: Gan, images: Tensor) -> Tensor:
    assert gan.discriminator is not None
    out: Tensor = gan.discriminator.module(images)
    return out


def test_nashorys_networks_give_the_recorded_images_and_scores_with_the_true_gains(shared: Path) -> None:
    case = Golden.of(shared, "nashory-pggan-32")
    true = {
        part: " ".join(repr(float(value)) for key, value in case.arrays.items() if key.startswith(f"scale/{part}."))
        for part in ("gen", "dis")
    }
    gan = case.open("gen_R5_T50.pth.tar", "dis_R5_T50.pth.tar", gains=true["gen"], discriminator_gains=true["dis"])
    net = gan.generator.module
    case.equal(images_of(gan, case["z"]), "img")
    case.equal(scores_of(gan, case["img"]), "d_logits")
    assert case.layers_equal(net, "act/gen.", lambda: net(case["z"])) == 2


def test_nashorys_unknown_gains_are_estimated_and_said_to_be(shared: Path) -> None:
    case = Golden.of(shared, "nashory-pggan-32")
    gan = case.open("gen_R5_T50.pth.tar")
    said = {fact.name: (fact.value, fact.sure) for fact in gan.opening.assumptions}
    assert said["gains"] == ("1/sqrt(fan_in)", False)
    assert any("gains of the layers are not in the file" in note for note in gan.opening.notes)
    error = (images_of(gan, case["z"]) - case["img"]).square().mean().sqrt() / case["img"].square().mean().sqrt()
    assert error < 0.15  # the last layer of this small network has 48 weights: 10 %


def saved_tensors() -> dict[str, Tensor]:
    """A generator of 4×4 that fades 8×8 in, as its state dict is saved."""
    shapes = {
        "first_block.0": (4, 6, 4, 4),
        "first_block.3": (4, 4, 3, 3),
        "concat_block.layer1.low_resl_to_rgb.to_rgb_block.0": (3, 4, 1, 1),
        "concat_block.layer2.high_resl_block.1": (4, 4, 3, 3),
        "concat_block.layer2.high_resl_block.4": (4, 4, 3, 3),
        "concat_block.layer2.high_resl_to_rgb.0": (3, 4, 1, 1),
    }
    tensors = OrderedDict()
    for name, shape in shapes.items():
        tensors[f"model.{name}.bias"] = torch.randn(shape[0])
        tensors[f"model.{name}.conv.weight"] = torch.randn(shape)
    return tensors


def expected_images(tensors: Mapping[str, Tensor], z: Tensor, gains: list[float], alpha: float) -> Tensor:
    """The image of ``saved_tensors``, written out."""
    left = iter(gains)

    def conv(x: Tensor, name: str, padding: int) -> Tensor:
        bias = tensors[f"model.{name}.bias"][:, None, None]
        return F.conv2d(x * next(left), tensors[f"model.{name}.conv.weight"], padding=padding) + bias

    def feature(x: Tensor, name: str, padding: int) -> Tensor:
        x = F.leaky_relu(conv(x, name, padding), 0.2)
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()

    x = feature(feature(z[:, :, None, None], "first_block.0", 3), "first_block.3", 1)
    up = F.interpolate(x, scale_factor=2.0)
    old = conv(up, "concat_block.layer1.low_resl_to_rgb.to_rgb_block.0", 0)
    new = feature(feature(up, "concat_block.layer2.high_resl_block.1", 1), "concat_block.layer2.high_resl_block.4", 1)
    return alpha * conv(new, "concat_block.layer2.high_resl_to_rgb.0", 0) + (1.0 - alpha) * old


def test_nashorys_network_in_a_transition_blends_both_resolutions(tmp_path: Path) -> None:
    tensors = saved_tensors()
    path = saved({"resl": 3.0, "state_dict": tensors, "optimizer": {}}, tmp_path)
    gains = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    gan = opened(path, gains=" ".join(map(str, gains)), alpha="0.3")
    z = torch.randn(3, 6)
    assert torch.allclose(images_of(gan, z), expected_images(tensors, z, gains, 0.3), atol=1e-5)
    assert gan.generator.latent.size == 6 and gan.capabilities.gradients


@pytest.mark.parametrize(("gains", "why"), [("1 2", "has 2 numbers where the file has 6 layers"), ("a", "no list")])
def test_gains_that_do_not_fit_are_refused(tmp_path: Path, gains: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        opened(saved({"state_dict": saved_tensors()}, tmp_path), gains=gains)
