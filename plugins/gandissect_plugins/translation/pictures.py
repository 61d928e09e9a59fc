"""What goes into a translator and what comes out, at one size.

seen = translated(session, 200)
seen.outputs                             # float32 [N, C, H, W] in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.errors import UsageError
from gandissect.gan import Generator, LatentSpace
from gandissect.passes.running import BLOCK, filled
from gandissect.properties import luminance
from gandissect.real import RealImages
from gandissect.session import Session

LEVEL = 2 / 255
"""One step of an 8-bit picture, in [-1, 1]."""


@dataclass(frozen=True)
class Pictures:
    """Inputs of a translator and its outputs.

    Attributes:
        latents: float32 [N, D], the inputs as the generator takes them.
        inputs: float32 [N, c, h, w] in [-1, 1].
        outputs: float32 [N, C, H, W] in [-1, 1].
        source: what the inputs are.
        own: they are the session's, whose evidence on the outputs is then at hand.
    """

    latents: Tensor
    inputs: Tensor
    outputs: Tensor
    source: str
    own: bool

    @property
    def before(self) -> Tensor:
        """The inputs at the size and with the channels of the outputs."""
        return resized(self.inputs, tuple(self.outputs.shape[1:]))

    @property
    def same_size(self) -> bool:
        """Outputs are as large as inputs."""
        return self.inputs.shape[2:] == self.outputs.shape[2:]


def is_translator(latent: LatentSpace, said: bool = False) -> bool:
    """Whether the generator takes pictures [1, 3 or 4 channels, H, W] and not vectors.

    Args:
        latent: its input.
        said: the user gave pictures to put in, so that the shape alone decides.
    """
    named = said or latent.prior == "image" or latent.name == "image"
    return named and len(latent.shape) == 3 and latent.shape[0] in (1, 3, 4) and min(latent.shape[1:]) >= 4


def resized(pictures: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Pictures [N, c, h, w] in [-1, 1] as [N, *shape]: bilinear, grey by luminance, grey repeated as colour."""
    channels, height, width = shape
    if pictures.shape[1] != channels:
        grey = 2 * luminance(pictures) - 1
        pictures = grey.expand(-1, channels, -1, -1)
    if tuple(pictures.shape[2:]) == (height, width):
        return pictures
    sized = F.interpolate(pictures, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return sized.clamp(-1, 1)


def to_input(pictures: Tensor, latent: LatentSpace) -> Tensor:
    """Pictures in [-1, 1] in the span that a generator takes, flat: float32 [N, D]."""
    low, high = latent.span
    return ((pictures + 1) * ((high - low) / 2) + low).flatten(1)


def from_input(latents: Tensor, latent: LatentSpace) -> Tensor:
    """The inverse of :func:`to_input`: float32 [N, C, H, W] in [-1, 1]."""
    low, high = latent.span
    return ((latents - low) * (2 / (high - low)) - 1).reshape(len(latents), *latent.shape)


def translated(session: Session, count: int, folder: str = "") -> Pictures:
    """``count`` inputs with their outputs: the session's own, or those of a folder or a zip.

    Raises:
        UsageError: it is not there, or holds no picture.
    """
    latent = session.gan.generator.latent
    if not folder:
        latents = session.latents(count)
        source = "made-up pictures with the spectrum of natural images"
        return Pictures(latents, from_input(latents, latent), session.images(count), source, True)
    if latent.shape[0] not in (1, 3):
        raise UsageError(f"translation.inputs: pictures have 1 or 3 channels, this generator takes {latent.shape[0]}")
    real = RealImages.from_source(folder, cast("tuple[int, int, int]", latent.shape))
    inputs = real.batch(range(min(count, len(real))))
    latents = to_input(inputs, latent)
    return Pictures(latents, inputs, again(session, latents), f"pictures of {real.name}", False)


def again(session: Session, latents: Tensor, places: Sequence[int] | None = None) -> Tensor:
    """Outputs of any inputs float32 [N, D], with the classes of the samples at ``places``, the first N where left out."""
    labels = session.labels(range(len(latents)) if places is None else places)
    return torch.nan_to_num(session.generate(latents, labels=labels))


def through(session: Session, generator: Generator, pictures: Tensor) -> Tensor:
    """Pictures [N, C, H, W] in [-1, 1] through another translator, in whole blocks: float32 [N, C', H', W'] in [-1, 1]."""
    parts, latents = [], to_input(pictures, generator.latent)
    with session.borrowed(), torch.no_grad():
        for start in range(0, len(latents), BLOCK):
            chunk = filled(latents[start : start + BLOCK], BLOCK).to(generator.device)
            parts.append(generator(chunk)[: len(latents) - start].cpu())
    return torch.nan_to_num(torch.cat(parts))


def rms(difference: Tensor) -> Tensor:
    """Root mean square of each picture: float64 [N]."""
    return difference.flatten(1).double().square().mean(1).sqrt()
