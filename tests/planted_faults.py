"""A generator of eight kinds of picture and a discriminator that knows them, healthy or with one planted fault."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.gan import Gan, LatentSpace, Opening
from gandissect.probing.building import build_gan

SIDE, STYLE, LATENT, CLASSES = 16, 9, 12, 4
STEEP = 20.0  # of the change from one kind to the next: blends are 8 % of the samples for each sign
NOISE = 20.0  # variance of the pixels around a kind's picture that the discriminator reckons with


def smooth(count: int, seed: int) -> Tensor:
    """Fields [count, 3, SIDE, SIDE] with a 1/f^1.5 spectrum and unit deviation."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((count, 3, SIDE, SIDE)))
    fields = np.fft.irfft2(white / frequency**1.5, s=(SIDE, SIDE))
    return torch.from_numpy(fields / fields.std((1, 2, 3), keepdims=True)).float()


class Kinds(nn.Module):
    """Latent [N, 12] to [N, 3, 16, 16]: three signs choose one of 8 kinds of picture, nine coordinates its style."""

    def __init__(self, seed: int, *, kinds: int = 8, style: float = 0.3, dead: int | None = None) -> None:
        super().__init__()
        self.kind = nn.Linear(8, 3 * SIDE * SIDE, bias=False)
        self.style = nn.Linear(STYLE, 3 * SIDE * SIDE, bias=False)
        self.register_buffer("bits", torch.arange(8)[:, None] >> torch.arange(3) & 1)
        self.register_buffer("folded", torch.eye(8)[torch.arange(8) % kinds])
        with torch.no_grad():
            self.kind.weight.copy_(0.5 * smooth(8, seed).flatten(1).T)
            self.style.weight.copy_(style / 3 * smooth(STYLE, seed + 1000).flatten(1).T)
            if dead is not None:
                self.style.weight[:, dead] = 0

    def forward(self, z: Tensor) -> Tensor:
        positive = torch.sigmoid(STEEP * z[:, None, :3])
        chosen = torch.where(self.bits == 1, positive, 1 - positive).prod(2) @ self.folded
        image: Tensor = torch.tanh(self.kind(chosen) + self.style(z[:, 3:]))
        return image.view(-1, 3, SIDE, SIDE)


class Memoriser(nn.Module):
    """Latent [N, 12] to one of the given pictures, with a little noise of its own."""

    def __init__(self, pictures: Tensor) -> None:
        super().__init__()
        self.register_buffer("pictures", pictures)
        self.choose = nn.Linear(LATENT, LATENT, bias=False)
        self.grain = nn.Linear(LATENT, 3 * SIDE * SIDE, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        place = (self.choose(z).abs().sum(1) * 1e4).long() % len(self.pictures)
        image: Tensor = self.pictures[place] + 0.02 * self.grain(z).view(-1, 3, SIDE, SIDE)
        return image


class Labelled(nn.Module):
    """A generator with a label that shifts its latent, or does nothing."""

    def __init__(self, inner: nn.Module, *, idle: bool = False) -> None:
        super().__init__()
        self.inner, self.idle = inner, idle
        self.embed = nn.Embedding(CLASSES, LATENT)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        image: Tensor = self.inner(z if self.idle else z + self.embed(labels))
        return image


class Likelihood(nn.Module):
    """Images [N, 3, 16, 16] to a logit [N, 1]: how likely they are under a mixture of Gaussians around the eight kinds."""

    def __init__(self, kinds: Kinds) -> None:
        super().__init__()
        self.patches, self.act = nn.Conv2d(3, 96, 4, stride=4), nn.ReLU()
        self.match = nn.Conv2d(96, 8, 4)
        with torch.no_grad():
            pictures = torch.tanh(kinds.kind.weight.T).view(8, 3, SIDE, SIDE)
            cells, pixels = nn.functional.pixel_unshuffle(pictures, 4), torch.eye(48).view(48, 3, 4, 4)
            assert self.patches.bias is not None and self.match.bias is not None
            self.patches.weight.copy_(torch.cat([pixels, -pixels]))
            self.patches.bias.zero_()
            self.match.weight.copy_(torch.cat([cells, -cells], 1) / NOISE)
            self.match.bias.copy_(-pictures.square().sum((1, 2, 3)) / (2 * NOISE))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.act(self.patches(images))
        logit: Tensor = self.match(hidden).flatten(1).logsumexp(1) - hidden.square().sum((1, 2, 3)) / (2 * NOISE)
        return logit[:, None]


def gan_of(generator: nn.Module, discriminator: nn.Module | None = None, *, classes: int = 0) -> Gan:
    """The networks as an opened GAN."""
    networks = Networks(
        generator.eval(),
        None if discriminator is None else discriminator.eval(),
        LatentSpace("z", (LATENT,)),
        num_classes=classes,
        output_range=(-1.0, 1.0),
        discriminator_output="logit",
    )
    return build_gan(networks, name="planted", opening=Opening("testing", "made for tests"))
