"""Discriminators of eriklindernoren/PyTorch-GAN that no plain chain is: several heads, labels, autoencoders.

gandissect.open("G.pth", discriminator="D.pth").discriminator
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect_adapters.families.family import Case, Family, has, load
from gandissect_adapters.recognise.unwrap import Role, StateDict

_EPS = 0.8  # the repository writes BatchNorm2d(C, 0.8), whose second argument is eps


def _width(tensors: Mapping[str, Tensor], name: str) -> int:
    return len(tensors[f"{name}.weight"])


class Headed(nn.Module):
    """[N, C, H, W] to logits [N, 1]: four stride-2 convolutions, then ``adv_layer``; class and code heads run beside it.

    The trunk is called ``conv_blocks``, or ``model`` where there is one head only. DCGAN (Radford et al. 2016), ACGAN (Odena et
    al. 2017), SGAN (Odena 2016) and InfoGAN (Chen et al. 2016). The other heads' outputs can be read as layers
    ``aux_layer.0`` and ``latent_layer.0``.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.trunk = "conv_blocks" if "conv_blocks.0.weight" in tensors else "model"
        trunk = nn.Sequential()
        into = tensors[f"{self.trunk}.0.weight"].shape[1]
        for place in (0, 3, 7, 11):
            width = _width(tensors, f"{self.trunk}.{place}")
            trunk.add_module(str(place), nn.Conv2d(into, width, 3, 2, 1))
            trunk.add_module(str(place + 1), nn.LeakyReLU(0.2))
            if place:
                trunk.add_module(str(place + 3), nn.BatchNorm2d(width, eps=_EPS))
            into = width
        self.add_module(self.trunk, trunk)
        self.heads = tuple(head for head in ("adv_layer", "aux_layer", "latent_layer") if f"{head}.0.weight" in tensors)
        for head in self.heads:
            rows, columns = tensors[f"{head}.0.weight"].shape
            self.add_module(head, nn.Sequential(nn.Linear(columns, rows)))

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        features = self.get_submodule(self.trunk)(images).flatten(1)
        outputs: list[Tensor] = [self.get_submodule(head)(features) for head in self.heads]
        return outputs[0]


class Labelled(nn.Module):
    """[N, C, H, W] and labels [N] to a score [N, 1]: pixels, then the label's embedding, through linear layers.

    Conditional GAN (Mirza & Osindero 2014).
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(*tensors["label_embedding.weight"].shape)
        self.model = nn.Sequential()
        for place in (0, 2, 5, 8):
            rows, columns = tensors[f"model.{place}.weight"].shape
            self.model.add_module(str(place), nn.Linear(columns, rows))
            if place < 8:
                self.model.add_module(str(place + (1 if place == 0 else 2)), nn.LeakyReLU(0.2))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.model(torch.cat([images.flatten(1), self.label_embedding(labels)], 1))
        return out


class Rebuilding(nn.Module):
    """[N, C, H, W] to a score [N, 1]: minus the mean absolute error of an autoencoder's copy of the image.

    BEGAN (Berthelot et al. 2017, eq. 1 with η = 1) and EBGAN (Zhao et al. 2017) call an image real when they can copy it.
    ``reconstructed`` gives the copy, as the original's forward does.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        down = tensors["down.0.weight"]
        self.down = nn.Sequential(nn.Conv2d(down.shape[1], len(down), 3, 2, 1), nn.ReLU())
        self.fc = nn.Sequential()
        self.embedded = "embedding.weight" in tensors
        if self.embedded:
            rows, columns = tensors["embedding.weight"].shape
            self.embedding = nn.Linear(columns, rows)
        for name, tensor in tensors.items():
            if match := re.fullmatch(r"fc\.(\d+)\.weight", name):
                place = int(match.group(1))
                self.fc.add_module(str(place), _fc(tensor, eps=_EPS if place < 2 else 1e-5))
                if tensor.dim() == 1:
                    self.fc.add_module(str(place + 1), nn.ReLU())
        up = tensors["up.1.weight"]
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(up.shape[1], len(up), 3, 1, 1))

    def reconstructed(self, images: Tensor) -> Tensor:
        """The copy [N, C, H, W] of ``images``."""
        features = self.down(images)
        flat = features.flatten(1)
        code = self.fc(self.embedding(flat) if self.embedded else flat)
        out: Tensor = self.up(code.reshape(features.shape))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        return -(self.reconstructed(images) - images).abs().flatten(1).mean(1, keepdim=True)


def _fc(weight: Tensor, eps: float) -> nn.Module:
    return nn.BatchNorm1d(len(weight), eps=eps) if weight.dim() == 1 else nn.Linear(weight.shape[1], len(weight))


class PyTorchGanCritics(Family):
    """Heads for classes and codes, labels, and autoencoding discriminators."""

    name: ClassVar[str] = "PyTorch-GAN"
    source: ClassVar[str] = "eriklindernoren/PyTorch-GAN"

    def role(self, net: StateDict) -> Role:
        """By the names of the heads, the label embedding, or down, fc and up."""
        return "discriminator" if _kind(net.tensors) else ""

    def generator(self, case: Case) -> Networks:
        """Never asked: this family has discriminators only."""
        raise NotOpened(f"{case.net.name} is a discriminator")

    def discriminator(self, case: Case) -> Networks:
        """The one of the three kinds that the names say."""
        kind = _kind(case.tensors)
        assert kind is not None
        module = load(lambda: kind(case.tensors), case.tensors)
        if kind is Rebuilding:
            case.note(
                "the discriminator is an autoencoder: an image's score is minus the error of its copy (BEGAN, EBGAN)"
            )
        elif kind is Headed:
            heads = [head for head in ("aux_layer", "latent_layer") if f"{head}.0.weight" in case.tensors]
            if heads:
                case.note(
                    f"other heads of the discriminator ({', '.join(heads)}) can be read as layers; the score is adv_layer's"
                )
        classes = len(case.tensors["label_embedding.weight"]) if kind is Labelled else 0
        return Networks(discriminator=module, discriminator_output="logit", discriminator_classes=classes)


def _kind(tensors: Mapping[str, Tensor]) -> type[Headed] | type[Labelled] | type[Rebuilding] | None:
    places = (0, 3, 6, 7, 10, 11, 14)
    if has(tensors, r"adv_layer\.0\.weight") and any(
        has(tensors, *(rf"{trunk}\.{place}\.weight" for place in places)) for trunk in ("conv_blocks", "model")
    ):
        return Headed
    linear = (rf"model\.{i}\.weight" for i in (0, 2, 5, 8))
    if has(tensors, r"label_embedding\.weight", *linear) and len(tensors) == 9:
        return Labelled
    if has(tensors, r"down\.0\.weight", r"fc\.0\.weight", r"up\.1\.weight") and _linear_at(tensors):
        return Rebuilding
    return None


def _linear_at(tensors: Mapping[str, Tensor]) -> bool:
    """The autoencoder's linear layers are where BEGAN (fc.0, fc.3) or EBGAN (embedding, fc.2) has them."""
    heads = {name.partition(".")[0] for name in tensors}
    began = heads == {"down", "fc", "up"} and "fc.3.weight" in tensors
    return began or (heads == {"down", "embedding", "fc", "up"} and "fc.2.weight" in tensors)
