"""CoGAN (Liu & Tuzel 2016) as eriklindernoren/PyTorch-GAN writes it: one latent, one picture in each of two domains.

gan = gandissect.open("coupled_generators.pth")
gan.generator(z, labels)                # label 0: the picture of G1; label 1: that of G2, of the same z
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, has, load
from gandissect_adapters.recognise.unwrap import Role, StateDict

_EPS = 0.8  # the repository writes BatchNorm2d(C, 0.8), whose second argument is eps
_DOMAINS = 2


def _chosen(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Row i of ``first`` [N, ...] where label i is 0, else of ``second``."""
    return torch.where(labels.reshape(-1, *[1] * (first.dim() - 1)) == 0, first, second)


class CoupledGenerators(nn.Module):
    """z [N, Z] and the domain's labels int64 [N] (0 or 1) to images [N, C, S, S] in [-1, 1]."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        rows, inputs = tensors["fc.0.weight"].shape
        units, mixed = len(tensors["shared_conv.0.weight"]), len(tensors["shared_conv.2.weight"])
        self.start = (units, round((rows / units) ** 0.5))
        self.fc = nn.Sequential(nn.Linear(inputs, rows))
        self.shared_conv = nn.Sequential(
            nn.BatchNorm2d(units),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(units, mixed, 3, 1, 1),
            nn.BatchNorm2d(mixed, eps=_EPS),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
        )
        self.G1, self.G2 = (_branch(tensors, name) for name in ("G1", "G2"))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """As the class says."""
        units, side = self.start
        shared = self.shared_conv(self.fc(z).reshape(-1, units, side, side))
        return _chosen(self.G1(shared), self.G2(shared), labels)


def _branch(tensors: Mapping[str, Tensor], name: str) -> nn.Sequential:
    first, last = tensors[f"{name}.0.weight"], tensors[f"{name}.3.weight"]
    return nn.Sequential(
        nn.Conv2d(first.shape[1], len(first), 3, 1, 1),
        nn.BatchNorm2d(len(first), eps=_EPS),
        nn.LeakyReLU(0.2),
        nn.Conv2d(last.shape[1], len(last), 3, 1, 1),
        nn.Tanh(),
    )


class CoupledDiscriminators(nn.Module):
    """Images [N, C, S, S] and the domain's labels int64 [N] to scores [N, 1], trained by least squares."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.shared_conv = nn.Sequential()
        into = tensors["shared_conv.0.weight"].shape[1]
        for place in (0, 3, 7, 11):
            width = len(tensors[f"shared_conv.{place}.weight"])
            self.shared_conv.add_module(str(place), nn.Conv2d(into, width, 3, 2, 1))
            if place:
                self.shared_conv.add_module(str(place + 1), nn.BatchNorm2d(width, eps=_EPS))
            self.shared_conv.add_module(str(place + (2 if place else 1)), nn.LeakyReLU(0.2))
            into = width
        self.D1, self.D2 = (nn.Linear(tensors[f"{name}.weight"].shape[1], 1) for name in ("D1", "D2"))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """As the class says."""
        features = self.shared_conv(images).flatten(1)
        return _chosen(self.D1(features), self.D2(features), labels)


class PyTorchGanCoGan(Family):
    """``CoupledGenerators`` and ``CoupledDiscriminators`` of eriklindernoren/PyTorch-GAN; the label is the domain."""

    name: ClassVar[str] = "CoGAN (PyTorch-GAN)"
    source: ClassVar[str] = "Liu & Tuzel 2016; eriklindernoren/PyTorch-GAN"

    def role(self, net: StateDict) -> Role:
        """By the shared trunk and the two branches or heads."""
        if has(net.tensors, r"fc\.0\.weight", r"shared_conv\.2\.weight", r"shared_conv\.3\.running_mean") and has(
            net.tensors, r"G1\.0\.weight", r"G2\.0\.weight", r"G2\.3\.weight"
        ):
            return "generator"
        trunk = has(
            net.tensors, r"shared_conv\.0\.weight", r"shared_conv\.11\.weight", r"shared_conv\.12\.running_mean"
        )
        return "discriminator" if trunk and has(net.tensors, r"D1\.weight", r"D2\.weight") else ""

    def generator(self, case: Case) -> Networks:
        """As ``Family`` says."""
        module = load(lambda: CoupledGenerators(case.tensors), case.tensors)
        case.note("label 0 draws the picture of G1 and label 1 that of G2, of the same latent")
        return Networks(
            generator=module,
            latent=LatentSpace("z", (case.tensors["fc.0.weight"].shape[1],)),
            output_range=(-1.0, 1.0),
            num_classes=_DOMAINS,
            main_layers=("shared_conv.0", "shared_conv.4", "G1.2", "G2.2"),
        )

    def discriminator(self, case: Case) -> Networks:
        """As ``Family`` says."""
        module = load(lambda: CoupledDiscriminators(case.tensors), case.tensors)
        if case.image_shape is not None:
            units, side = len(case.tensors["shared_conv.11.weight"]), -(-case.image_shape[1] // 16)
            if module.D1.in_features != units * side**2:
                raise NotOpened(
                    f"'D1.weight' takes {module.D1.in_features} values, where images of {case.image_shape[1]} pixels "
                    f"give {units * side**2}: the two files are not of one GAN"
                )
        logit: Literal["logit"] = "logit"
        return Networks(
            discriminator=module,
            discriminator_layers=tuple(f"shared_conv.{place}" for place in (1, 5, 9, 13)),
            discriminator_classes=_DOMAINS,
            discriminator_output=logit,
        )


class PyTorchGanAaeEncoder(Family):
    """The encoder of eriklindernoren/PyTorch-GAN's adversarial autoencoder (Makhzani et al. 2016), which is refused.

    Its decoder is a plain generator and opens as one.
    """

    name: ClassVar[str] = "AAE (PyTorch-GAN)"
    source: ClassVar[str] = "Makhzani et al. 2016; eriklindernoren/PyTorch-GAN"

    def role(self, net: StateDict) -> Role:
        """By the two heads of a file that holds nothing else."""
        heads = has(net.tensors, r"model\.0\.weight", r"model\.3\.running_mean", r"mu\.weight", r"logvar\.weight")
        return "generator" if heads and not net.name and net.tensors["model.0.weight"].dim() == 2 else ""

    def generator(self, case: Case) -> Networks:
        """Refused.

        Raises:
            NotOpened: always.
        """
        pixels, size = case.tensors["model.0.weight"].shape[1], len(case.tensors["mu.weight"])
        raise NotOpened(
            f"this is the encoder of an adversarial autoencoder: it turns {pixels} pixels into {size} latent values and makes "
            "no images; pass the decoder's file"
        )
