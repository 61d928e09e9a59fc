"""The feature spaces of a GAN: what each main layer says about a sample, as one row of numbers.

spaces = layer_spaces(session.gan)
gather(session, spaces[0], 400)                          # float64 [400, D]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.gan import Gan
from gandissect.properties import luminance
from gandissect.reducers import KeepSpec
from gandissect.session import Activations, Images, Session, Want
from gandissect.streams import Role

from .embedding import Floats

SMALL = 1024
"""A layer of at most so many numbers is taken as it is; of a larger one each unit's mean over the map."""
PIXELS = "pixels"
MOST_LAYERS = 12
"""Main layers of a network that are looked at, spread over depth."""


@dataclass(frozen=True)
class Space:
    """One feature space: a layer of a network, or the pixels."""

    network: Role | None
    layer: str
    units: int
    height: int
    width: int

    @property
    def flat(self) -> bool:
        """Every cell of every unit counts on its own; else each unit is averaged over its map."""
        return self.units * self.height * self.width <= SMALL

    @property
    def name(self) -> str:
        """ "generator · layer2", or "pixels"."""
        return f"{self.network} · {self.layer}" if self.network else PIXELS

    @property
    def short(self) -> str:
        """ "G layer2", "D layer2" or "pixels"."""
        return f"{self.network[0].upper()} {self.layer}" if self.network else PIXELS

    @property
    def description(self) -> str:
        """What a row of it holds."""
        if not self.network:
            return f"pixels averaged on a grid of {self.height}×{self.width}"
        size = f"{self.units}×{self.height}×{self.width}"
        if self.height * self.width == 1:
            return f"the {self.units} units as they are"
        if self.flat:
            return f"all {self.units * self.height * self.width} cells of {size}, flattened"
        return f"the mean of each of {self.units} units over its {self.height}×{self.width} map"

    def want(self, n: int, *, real: bool = False) -> Want:
        """What has to be gathered for it."""
        if self.network is None:
            return Want((Images(),), KeepSpec(), n, real)
        return Want((Activations(self.layer, self.network),), KeepSpec("float32", "" if self.flat else "mean"), n, real)


def layer_spaces(gan: Gan, named: Sequence[str] = ()) -> tuple[Space, ...]:
    """The main layers of the generator and of the discriminator, in order of execution.

    At most ``MOST_LAYERS`` of each, spread over depth, and those that are ``named``.
    """
    roles: tuple[Role, ...] = ("generator",) if gan.discriminator is None else ("generator", "discriminator")
    return tuple(
        Space(role, info.name, info.channels, info.height, info.width)
        for role in roles
        for info in gan.network(role).main_layers()
        if info.name in named or info in spread(gan.network(role).main_layers(), MOST_LAYERS)
    )


def pixel_space(gan: Gan, cells: int = 16) -> Space:
    """The images themselves, averaged on a grid of at most ``cells`` × ``cells``."""
    channels, height, width = gan.generator.image_shape
    return Space(None, PIXELS, channels, min(cells, height), min(cells, width))


def gather(session: Session, space: Space, n: int, *, real: bool = False) -> Floats:
    """One row per sample: float32 [n, D]."""
    if space.network is None:
        images = session.real_images(n) if real else session.images(n)
        kept = _on_grid(images, space.height, space.width)
    else:
        kept = cast(Tensor, session[space.want(n, real=real)])
    return np.asarray(torch.nan_to_num(kept.float().flatten(1)).numpy(), np.float32)


def _on_grid(images: Tensor, height: int, width: int) -> Tensor:
    parts = [torch.nn.functional.adaptive_avg_pool2d(part, (height, width)) for part in torch.split(images, 64)]
    return torch.cat(parts)


def brightness(images: Tensor) -> Floats:
    """Mean luminance of images [N, C, H, W] in [-1, 1]: float32 [N] in 0..1."""
    parts = [luminance(part).mean((1, 2, 3)) for part in torch.split(images, 64)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def thumbnails(images: Tensor, side: int = 32) -> Tensor:
    """Images [N, C, H, W] shrunk so that neither side exceeds ``side``; smaller ones stay as they are."""
    height, width = images.shape[2:]
    scale = min(1.0, side / max(height, width))
    if scale == 1.0:
        return images
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    parts = [
        torch.nn.functional.interpolate(part, size, mode="bilinear", antialias=True, align_corners=False)
        for part in torch.split(images, 64)
    ]
    return torch.cat(parts)
