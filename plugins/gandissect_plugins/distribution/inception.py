"""The Inception network that FID is defined with, built from torchvision's and a file of its weights.

space = Inception("pt_inception-2015-12-05-6726825d.pth")
space.standard                                           # True: its hash is the published one
space.features(images), space.logits(features)           # float32 [N, 2048], [N, 1008]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.extractor import Extractor

from .extractors import loaded, three_channels, torchvision_models, weights_file

HASH = "6726825d"
"""First digits of the sha256 of the weights that Heusel et al. 2017 used, as converted for PyTorch."""
SIDE, CLASSES = 299, 1008

Pool = Callable[[Tensor], Tensor]


class Inception(Extractor):
    """InceptionV3 of 2015 (Szegedy et al. 2016), the 2048 averages before its classifier.

    It differs from torchvision's in how the pooling branches treat the border: averages leave the padding out, and the last block
    takes the maximum. Built from those published facts; its numbers have not been compared with a reference here, as the weights
    ship with no package. Images are resized bilinearly without antialiasing, as the PyTorch implementations of FID do.

    Raises:
        UsageError: no file, or weights of another network.
    """

    name: ClassVar[str] = "inception"

    def __init__(self, file: str = "") -> None:
        path = weights_file(file, self.name)
        self.standard = hashlib.sha256(path.read_bytes()).hexdigest().startswith(HASH)
        models = torchvision_models(self.name)
        net = models.inception_v3(
            weights=None, num_classes=CLASSES, aux_logits=False, transform_input=False, init_weights=False
        )
        self._net: Any = with_border_rules(loaded(net, path, self.name))

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 2048] of images resized to 299×299."""
        pictures = three_channels(images)
        if pictures.shape[2:] != (SIDE, SIDE):
            pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return pooled_features(self._net, pictures)

    def logits(self, features: Tensor) -> Tensor:
        """float32 [N, 1008] of features [N, 2048], without the classifier's bias, as the Inception Score has it."""
        return F.linear(features, self._net.fc.weight)


def pooled_features(net: Any, images: Tensor) -> Tensor:
    """What the classifier of an InceptionV3 is given: float32 [N, 2048] of float32 [N, 3, 299, 299]."""
    seen: list[Tensor] = []
    handle = net.avgpool.register_forward_hook(lambda _module, _given, out: seen.append(out))
    try:
        net(images)
    finally:
        handle.remove()
    return torch.flatten(seen[0], 1)


class WithPool(nn.Module):
    """An Inception block whose pooling branch, its last, pools in another way."""

    def __init__(self, block: nn.Module, pool: Pool) -> None:
        super().__init__()
        self.block, self.pool = block, pool

    def forward(self, x: Tensor) -> Tensor:
        whole: Tensor = self.block(x)
        branch = self.block.get_submodule("branch_pool")(self.pool(x))
        return torch.cat([whole[:, : -branch.shape[1]], branch], 1)


def with_border_rules(net: Any) -> Any:
    """``net`` (torchvision's InceptionV3) with the pooling of the network that FID is defined with."""
    inside: Pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    largest: Pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c"):
        pool = largest if name == "7c" else inside
        setattr(net, f"Mixed_{name}", WithPool(getattr(net, f"Mixed_{name}"), pool))
    return net
