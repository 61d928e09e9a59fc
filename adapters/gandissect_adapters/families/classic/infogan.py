"""InfoGAN (Chen et al. 2016) as Natsu6767/InfoGAN-PyTorch writes it for MNIST and Fashion-MNIST.

gandissect.open("model_final_MNIST").generator.module(z, labels)        # z [N, 64]: 62 of noise, 2 continuous codes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, load
from gandissect_adapters.recognise.unwrap import Role, StateDict


@dataclass(frozen=True)
class Codes:
    """How the input splits: noise first, then a one-hot code, then continuous codes."""

    noise: int
    classes: int
    continuous: int


class Generator(nn.Module):
    """z [N, noise + continuous] and labels [N] to images [N, C, 28, 28] in [0, 1]."""

    def __init__(self, tensors: Mapping[str, Tensor], codes: Codes) -> None:
        super().__init__()
        self.codes = codes
        widths = [len(tensors["tconv1.weight"]), *(tensors[f"tconv{i}.weight"].shape[1] for i in (1, 2, 3, 4))]
        self.tconv1 = nn.ConvTranspose2d(widths[0], widths[1], 1, 1, bias=False)
        self.tconv2 = nn.ConvTranspose2d(widths[1], widths[2], 7, 1, bias=False)
        self.tconv3 = nn.ConvTranspose2d(widths[2], widths[3], 4, 2, 1, bias=False)
        self.tconv4 = nn.ConvTranspose2d(widths[3], widths[4], 4, 2, 1, bias=False)
        for number in (1, 2, 3):
            self.add_module(f"bn{number}", nn.BatchNorm2d(widths[number]))
            self.add_module(f"bn{number}_act", nn.ReLU())
        self.act = nn.Sigmoid()

    def joined(self, z: Tensor, labels: Tensor) -> Tensor:
        """What goes into the first layer: [N, noise + classes + continuous, 1, 1]."""
        one_hot = F.one_hot(labels, self.codes.classes).to(z.dtype)
        return torch.cat([z[:, : self.codes.noise], one_hot, z[:, self.codes.noise :]], 1)[:, :, None, None]

    def images(self, x: Tensor) -> Tensor:
        """Images [N, C, 28, 28] of a joined input [N, noise + classes + continuous, 1, 1]."""
        for number in (1, 2, 3):
            x = self.get_submodule(f"tconv{number}")(x)
            x = self.get_submodule(f"bn{number}_act")(self.get_submodule(f"bn{number}")(x))
        out: Tensor = self.act(self.tconv4(x))
        return out

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """As the class says."""
        return self.images(self.joined(z, labels))


class Trunk(nn.Module):
    """The layers that the real-or-fake head and the codes' head share: [N, C, 28, 28] to [N, D, 1, 1]."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        a, b, c = (len(tensors[f"conv{i}.weight"]) for i in (1, 2, 3))
        self.conv1 = nn.Conv2d(tensors["conv1.weight"].shape[1], a, 4, 2, 1)
        self.conv1_act = nn.LeakyReLU(0.1)
        self.conv2, self.bn2, self.bn2_act = nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.1)
        self.conv3, self.bn3, self.bn3_act = nn.Conv2d(b, c, 7, bias=False), nn.BatchNorm2d(c), nn.LeakyReLU(0.1)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        x = self.conv1_act(self.conv1(images))
        x = self.bn2_act(self.bn2(self.conv2(x)))
        out: Tensor = self.bn3_act(self.bn3(self.conv3(x)))
        return out


class Discriminator(nn.Module):
    """Images [N, C, 28, 28] in [0, 1] to logits [N, 1, 1, 1]; the trunk and the head are two networks of the file."""

    def __init__(self, tensors: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.discriminator = Trunk(tensors)
        self.netD = nn.Conv2d(head["conv.weight"].shape[1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.netD(self.discriminator(images))
        return out


class NatsuInfoGan(Family):
    """The MNIST networks of Natsu6767/InfoGAN-PyTorch; ``params`` in the file says how the input splits."""

    name: ClassVar[str] = "InfoGAN (Natsu6767)"
    source: ClassVar[str] = "Chen et al. 2016; Natsu6767/InfoGAN-PyTorch"
    options: ClassVar[Mapping[str, Option]] = {
        "classes": Option("values of the categorical code", "10"),
        "codes": Option("number of continuous codes", "2"),
    }

    def role(self, net: StateDict) -> Role:
        """By the 1×1 and 7×7 first layers of the generator; by the trunk beside a head that is called netD."""
        shapes = {name: tuple(tensor.shape) for name, tensor in net.tensors.items()}
        if (
            has(shapes, *(rf"tconv{i}\.weight" for i in (1, 2, 3, 4)), r"bn3\.running_mean")
            and "tconv5.weight" not in shapes
            and (shapes["tconv1.weight"][2:], shapes["tconv2.weight"][2:]) == ((1, 1), (7, 7))
        ):
            return "generator"
        trunk = (
            has(shapes, *(rf"conv{i}\.weight" for i in (1, 2, 3)), r"bn3\.running_mean")
            and "conv4.weight" not in shapes
        )
        return "discriminator" if trunk and _head(net) and shapes["conv3.weight"][2:] == (7, 7) else ""

    def generator(self, case: Case) -> Networks:
        """Labels are the values of the categorical code."""
        params = case.file.get("params")
        facts = params if isinstance(params, Mapping) else {}
        into = len(case.tensors["tconv1.weight"])
        if facts.get("num_dis_c", 1) != 1:
            raise NotOpened(f"this InfoGAN has {facts['num_dis_c']} categorical codes; one is supported")
        classes = case.whole("classes", facts.get("dis_c_dim"), "params in the file")
        continuous = case.whole("codes", facts.get("num_con_c"), "params in the file")
        codes = Codes(into - classes - continuous, classes, continuous)
        if codes.noise < 1 or classes < 2:
            raise NotOpened(f"{classes} classes and {continuous} codes do not fit an input of {into} numbers")
        case.note(f"the last {continuous} of z are continuous codes; training drew them from U(-1, 1), here N(0, 1)")
        module = load(lambda: Generator(case.tensors, codes), case.tensors)
        size = codes.noise + continuous
        latent = LatentSpace("z", (size,), codes=tuple(range(codes.noise, size)))
        return Networks(
            generator=module, latent=latent, num_classes=classes,
            output_range=(0.0, 1.0), main_layers=("bn1_act", "bn2_act", "bn3_act"),
        )  # fmt: skip

    def discriminator(self, case: Case) -> Networks:
        """Trunk and head joined; the head for the codes (``netQ``) is left out."""
        head = _head(case.net)
        renamed = {f"discriminator.{name}": tensor for name, tensor in case.tensors.items()}
        renamed |= {f"netD.{name.removeprefix('conv.')}": tensor.float() for name, tensor in head.items()}
        module = load(lambda: Discriminator(case.tensors, head), renamed)
        layers = ("discriminator.conv1_act", "discriminator.bn2_act", "discriminator.bn3_act")
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=layers)


def _head(net: StateDict) -> dict[str, Tensor]:
    """The real-or-fake head that stands beside the trunk in the file; empty where there is none."""
    found = net.file.get("netD")
    if not isinstance(found, Mapping) or set(found) != {"conv.weight", "conv.bias"}:
        return {}
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
