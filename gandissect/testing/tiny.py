"""GANs of a few thousand parameters whose units, directions and failures are known by construction.

gan = tiny_gan("planted")
gan.generator.layers                     # conv1, act1 (16 units, 8×8), up, to_rgb, tanh
PLANTED.red                              # 0: the unit that draws red
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan
from gandissect.session import Session

Kind = Literal["planted", "random", "vector", "grey", "conditional"]
UNITS = 16
GRID = 8


@dataclass(frozen=True)
class Planted:
    """The truth about :class:`PlantedGenerator`, layer ``act1``.

    Units ``red``, ``green``, ``blue``, ``yellow`` each draw a square of that colour in fewer than 1 % of all cells; ``copy`` has the
    activation of ``red`` and no outgoing weight; ``dead`` is always 0, ``constant`` always 1 (both without effect); coordinate
    ``brightness`` of the latent, and nothing else, sets the brightness of the background through the unit of that number.
    Coordinates from 8 on drive units without outgoing weight: the image does not depend on them.
    """

    layer: str = "act1"
    red: int = 0
    green: int = 1
    blue: int = 2
    yellow: int = 3
    copy: int = 4
    brightness: int = 5
    dead: int = 6
    constant: int = 7
    unused: tuple[int, ...] = (8, 9, 10, 11, 12, 13, 14, 15)


PLANTED = Planted()
_COLOURS = {
    PLANTED.red: (1.0, -1.0, -1.0),
    PLANTED.green: (-1.0, 1.0, -1.0),
    PLANTED.blue: (-1.0, -1.0, 1.0),
    PLANTED.yellow: (1.0, 1.0, -1.0),
}
_CORNERS = {
    PLANTED.red: (0, 0),
    PLANTED.green: (0, 5),
    PLANTED.blue: (5, 0),
    PLANTED.yellow: (5, 5),
    PLANTED.copy: (0, 0),
}


class PlantedGenerator(nn.Module):
    """Latent [N, 16] to [N, 3, 32, 32] in [-1, 1]; see :class:`Planted` for what is true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(UNITS, UNITS, GRID)
        self.act1 = nn.ReLU()
        self.up = nn.Upsample(scale_factor=4, mode="nearest")
        self.to_rgb = nn.Conv2d(UNITS, 3, 1)
        self.tanh = nn.Tanh()
        with torch.no_grad():
            self._plant()
        self.eval()

    def _plant(self) -> None:
        weight, bias = self.conv1.weight, self.conv1.bias
        assert bias is not None and self.to_rgb.bias is not None
        weight.zero_()
        bias.fill_(-1.6)
        self.to_rgb.weight.zero_()
        for unit, (row, column) in _CORNERS.items():
            source = PLANTED.red if unit == PLANTED.copy else unit
            weight[source, unit, row : row + 3, column : column + 3] = 1.0
        for unit, colour in _COLOURS.items():
            self.to_rgb.weight[:, unit, 0, 0] = 40.0 * torch.tensor(colour)
        weight[PLANTED.brightness, PLANTED.brightness] = 1.0
        bias[PLANTED.brightness] = 4.0
        self.to_rgb.weight[:, PLANTED.brightness] = 0.12
        self.to_rgb.bias.fill_(-4.0 * 0.12)
        bias[PLANTED.dead], bias[PLANTED.constant] = -1.0, 1.0
        maps = torch.randn(len(PLANTED.unused), GRID, GRID, generator=torch.Generator().manual_seed(0))
        for unit, shape in zip(PLANTED.unused, maps, strict=True):
            weight[unit, unit] = shape

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.act1(self.conv1(z[:, :, None, None]))
        image: Tensor = self.tanh(self.to_rgb(self.up(hidden)))
        return image


class RandomGenerator(nn.Module):
    """A DCGAN that never learned: latent [N, 32] to [N, channels, 32, 32]; its BatchNorms fit its own statistics."""

    def __init__(self, seed: int = 0, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        widths = (4 * width, 2 * width, width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.project = nn.ConvTranspose2d(32, widths[0], 4, bias=False)
            self.norm1, self.act1 = nn.BatchNorm2d(widths[0]), nn.ReLU()
            self.conv2 = nn.ConvTranspose2d(widths[0], widths[1], 4, 2, 1, bias=False)
            self.norm2, self.act2 = nn.BatchNorm2d(widths[1]), nn.ReLU()
            self.conv3 = nn.ConvTranspose2d(widths[1], widths[2], 4, 2, 1, bias=False)
            self.norm3, self.act3 = nn.BatchNorm2d(widths[2]), nn.ReLU()
            self.to_rgb = nn.ConvTranspose2d(widths[2], channels, 4, 2, 1)
            self.tanh = nn.Tanh()
            with torch.no_grad():
                for norm in (self.norm1, self.norm2, self.norm3):
                    norm.momentum = 1.0
                self(torch.randn(256, 32))
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.act1(self.norm1(self.project(z[:, :, None, None])))
        hidden = self.act2(self.norm2(self.conv2(hidden)))
        hidden = self.act3(self.norm3(self.conv3(hidden)))
        image: Tensor = self.tanh(self.to_rgb(hidden))
        return image


class VectorGenerator(nn.Module):
    """A multilayer perceptron, latent [N, 16] to [N, 784]: its layers are vectors, its image a grey square."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(
                nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 784), nn.Tanh()
            )
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.net(z)
        return image


class ConditionalGenerator(nn.Module):
    """:class:`RandomGenerator` whose latent is shifted by an embedding of the class, 4 classes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(4, 32)
        self.generator = RandomGenerator(seed)
        self.eval()

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        image: Tensor = self.generator(z + self.embedding(labels))
        return image


class CornerDiscriminator(nn.Module):
    """Images [N, channels, size, size] to one logit [N, 1] that depends on the mean of the upper left eighth and nothing else."""

    def __init__(self, channels: int = 3, size: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 4, stride=4)
        self.act = nn.LeakyReLU(0.2)
        self.flatten = nn.Flatten()
        cells = size // 4
        self.head = nn.Linear(4 * cells * cells, 1)
        with torch.no_grad():
            assert self.conv.bias is not None
            self.conv.weight.fill_(1.0 / (16 * channels))
            self.conv.bias.zero_()
            self.head.weight.zero_()
            self.head.bias.zero_()
            corner = self.head.weight.view(1, 4, cells, cells)
            corner[:, :, : cells // 4 or 1, : cells // 4 or 1] = 1.0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logit: Tensor = self.head(self.flatten(self.act(self.conv(images))))
        return logit


def tiny_gan(kind: Kind = "planted", *, seed: int = 0, discriminator: bool = True) -> Gan:
    """A GAN that runs in milliseconds: with planted truth, with random weights, of vectors, grey, or with classes."""
    channels, size, classes = (1, 32, 0) if kind == "grey" else (1, 28, 0) if kind == "vector" else (3, 32, 0)
    generator: nn.Module
    latent = LatentSpace("z", (32,))
    match kind:
        case "planted":
            generator, latent = PlantedGenerator(), LatentSpace("z", (16,))
        case "vector":
            generator, latent = VectorGenerator(seed), LatentSpace("z", (16,))
        case "conditional":
            generator, classes = ConditionalGenerator(seed), 4
        case "random" | "grey":
            generator = RandomGenerator(seed, channels)
    critic = CornerDiscriminator(channels, size) if discriminator else None
    networks = Networks(generator, critic, latent, num_classes=classes, family=f"tiny {kind}")
    return build_gan(networks, name=f"tiny-{kind}", opening=Opening("testing", "made for tests", family=f"tiny {kind}"))


def tiny_session(kind: Kind = "planted", *, n: int = 64, seed: int = 0, **options: object) -> Session:
    """A session over :func:`tiny_gan`; ``options`` go to :class:`gandissect.session.Session`."""
    return Session(tiny_gan(kind), n=n, seed=seed, **options)  # type: ignore[arg-type]  # checked by Session
