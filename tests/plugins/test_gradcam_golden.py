"""Grad-CAM, integrated gradients and occlusion against the numbers of the packages that introduced them to PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.attributions import Effort, attribute
from gandissect_plugins.attributions.methods import occlude
from gandissect_plugins.gradcam import grad_cams
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from gandissect.gan import Discriminator, LayerInfo
from gandissect.targets import Score

Golden = tuple[Discriminator, Tensor, dict[str, NDArray[np.float32]]]


class Critic(nn.Module):
    """The discriminator of the reference numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48)
        self.act2, self.act3, self.head = nn.LeakyReLU(0.2), nn.LeakyReLU(0.2), nn.Linear(768, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.bn2(self.conv2(self.act1(self.conv1(x)))))
        return self.head(self.act3(self.bn3(self.conv3(x))).flatten(1))


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    folder = shared / "golden" / "analysis" / "gradcam"
    if not folder.is_dir():
        pytest.skip("the reference numbers of Grad-CAM are not beside this repository")
    critic = Critic()
    critic.load_state_dict(load_file(folder / "discriminator.safetensors"))
    layers = (LayerInfo("act2", "LeakyReLU", 32, 8, 8), LayerInfo("act3", "LeakyReLU", 48, 4, 4))
    images = torch.from_numpy(np.load(folder / "images.npz")["images"])
    return Discriminator(critic.eval(), layers, (3, 32, 32)), images, dict(np.load(folder / "expected.npz"))


def close(found: Tensor, expected: NDArray[np.float32], tolerance: float = 1e-4) -> None:
    scale = float(np.abs(expected).max())
    assert float((found - torch.from_numpy(expected)).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("layer", ["act2", "act3"])
def test_maps_equal_grad_cam_before_its_relu(golden: Golden, layer: str) -> None:
    critic, images, expected = golden
    cam = grad_cams(critic, images, [layer], [Score()])[0][0]
    close(cam.values, expected["logits"][:, 0])
    close(cam.weights, expected[f"{layer}.pgc_cat1.weights"])
    close(cam.maps, expected[f"{layer}.pgc_cat1.cam_before_relu"])
    close(cam.maps, expected[f"{layer}.captum.cam"][:, 0])


def test_integrated_gradients_equal_the_reference(golden: Golden) -> None:
    critic, images, expected = golden
    found = attribute(critic, "integrated-gradients", images, images, effort=Effort(steps=50))
    close(found.maps, expected["ig.gausslegendre50_zero"].sum(1))
    assert found.error is not None
    torch.testing.assert_close(
        found.error, torch.from_numpy(np.abs(expected["ig.gausslegendre50_zero.delta"])).float(), rtol=1e-2, atol=1e-4
    )


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (5, 3)])
def test_occlusion_equals_the_reference(golden: Golden, window: int, stride: int) -> None:
    critic, images, expected = golden
    found = occlude(critic, images, (3, window, window), (3, stride, stride))
    close(found[:, :1], expected[f"occlusion.win{window}_stride{stride}_zero"])


def test_occlusion_windows_follow_the_effort(golden: Golden) -> None:
    critic, images, expected = golden
    found = attribute(critic, "occlusion", images, images, effort=Effort(windows=8))  # 32 / 8 = stride 4, window 8
    close(found.maps, expected["occlusion.win8_stride4_zero"][:, 0])
