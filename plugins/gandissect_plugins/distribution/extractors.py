"""Feature spaces that need no weights or weights from a file of the user's; nothing is fetched.

Pixels().features(images)                                # float32 [N, 192]
MobileNetV2("mobilenet_v2-b0353104.pth").features(images)        # float32 [N, 1280]
"""

from __future__ import annotations

import importlib
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.errors import UsageError
from gandissect.extractor import Extractor
from gandissect.files.reading import read_tensors

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's weights expect
GRID = 8


class Pixels(Extractor):
    """The image itself, averaged on a grid of at most 8×8: colours and layout, no content."""

    name: ClassVar[str] = "pixels"

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, C·h·w] with h, w ≤ 8."""
        height, width = (min(GRID, side) for side in images.shape[2:])
        return F.adaptive_avg_pool2d(images.float(), (height, width)).flatten(1)


class DemoSegmenter(Extractor):
    """The deepest features of the segmenter that ships with the demo, averaged over the image: it knows drawn landscapes, nothing else."""

    name: ClassVar[str] = "demo-segmenter"

    @cached_property
    def _net(self) -> nn.Module:
        from gandissect.demo.bundle import demo_segmenter

        net = demo_segmenter()
        return nn.Sequential(net.down1, net.down2, net.down3, net.down4)

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 48]."""
        features: Tensor = self._net(resized(three_channels(images), 64)).mean((2, 3))
        return features


class MobileNetV2(Extractor):
    """MobileNetV2 trained on ImageNet (Sandler et al. 2018), the mean of its last feature maps; torchvision's file of weights.

    Raises:
        UsageError: no file, or weights of another network.
    """

    name: ClassVar[str] = "mobilenet_v2"

    def __init__(self, file: str = "") -> None:
        path = weights_file(file, self.name)
        net = torchvision_models(self.name).mobilenet_v2(weights=None)
        self._net = loaded(net, path, self.name, drop="classifier.").get_submodule("features")

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 1280] of the images resized to 224×224."""
        unit = (resized(three_channels(images), 224) + 1) / 2
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        features: Tensor = self._net((unit - mean) / deviation).mean((2, 3))
        return features


def three_channels(images: Tensor) -> Tensor:
    """RGB of images [N, C, H, W]: grey three times, what lies beyond three channels left out."""
    return images[:, :1].expand(-1, 3, -1, -1) if images.shape[1] < 3 else images[:, :3]


def resized(images: Tensor, side: int) -> Tensor:
    """Images at side × side, bilinear, with antialiasing where that shrinks them."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


def torchvision_models(wanted_by: str) -> ModuleType:
    """The module ``torchvision.models``.

    Raises:
        UsageError: it is missing, or was built for another torch, which shows only when it is imported.
    """
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{wanted_by} needs torchvision ({reason}); type: pip install --upgrade torchvision"
        ) from error


def weights_file(file: str, name: str) -> Path:
    """Where the weights lie.

    Raises:
        UsageError: none were named, or there is no such file.
    """
    if not file or not Path(file).expanduser().is_file():
        told = f"no file {file!r}" if file else "no file was named"
        raise UsageError(f"the feature space {name} needs its weights, and none are fetched: {told}; type {name}=FILE")
    return Path(file).expanduser()


def loaded(net: nn.Module, path: Path, name: str, drop: str = "") -> nn.Module:
    """``net`` in eval mode with the tensors of a file, read without running code in it; those that begin with ``drop`` may be missing.

    Raises:
        UsageError: weights of another network.
    """
    state = {key: value for key, value in read_tensors(path).items() if isinstance(value, Tensor)}
    try:
        told = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UsageError(f"{path} holds the weights of another network than {name}") from error
    needed = [key for key in told.missing_keys if not (drop and key.startswith(drop)) and "num_batches" not in key]
    if needed or told.unexpected_keys:
        odd = (needed or told.unexpected_keys)[0]
        raise UsageError(f"{path} holds the weights of another network than {name} (see {odd})")
    return net.eval().requires_grad_(False)
