"""The spaces that samples are compared in: an extractor's, or the discriminator's own.

spaces = comparison_spaces(session, ("pixels", "discriminator", "inception=FILE"))
gathered(session, spaces[0], 1000, real=True)            # float64 [N, D]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.errors import unknown_name
from gandissect.extractor import Extractor
from gandissect.passes.running import BLOCK, filled
from gandissect.reducers import KeepSpec
from gandissect.session import Activations, Session, Stream, Want
from gandissect.streams import Derived, Role

from .extractors import DemoSegmenter, MobileNetV2, Pixels
from .inception import Inception
from .transformers_spaces import Clip, Dinov2

DISCRIMINATOR: Role = "discriminator"
EXTRACTORS: tuple[type[Extractor], ...] = (Pixels, DemoSegmenter, MobileNetV2, Inception, Dinov2, Clip)
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class InBlocks:
    """An extractor that always sees whole blocks of images, so that a sample's features do not depend on its neighbours."""

    extractor: Extractor

    def __call__(self, images: Tensor) -> Tensor:
        """float32 [N, D] of float32 [N, C, H, W] in [-1, 1], on the CPU."""
        with torch.no_grad():
            parts = [
                self.extractor.features(filled(part, BLOCK))[: len(part)].float().cpu()
                for part in torch.split(images, BLOCK)
            ]
        return torch.cat(parts)


@dataclass(frozen=True)
class ComparisonSpace:
    """One space: what it is called, and where its features come from."""

    name: str
    stream: Stream
    extractor: Extractor | None = None

    @property
    def standard(self) -> bool:
        """It is the Inception network of the published weights: only here is a Fréchet distance called FID."""
        return isinstance(self.extractor, Inception) and self.extractor.standard

    def label(self, metric: str, standard: str) -> str:
        """What a metric is called in this space: its own name under the standard one, else the metric and [space]."""
        return standard if self.standard else f"{metric} [{self.name}]"

    def want(self, n: int, *, real: bool) -> Want:
        """What has to be gathered; maps of a layer are averaged over the image."""
        pool = "mean" if isinstance(self.stream, Activations) else ""
        return Want((self.stream,), KeepSpec("float32", pool), n, real)


def comparison_spaces(session: Session, names: Sequence[str]) -> tuple[ComparisonSpace, ...]:
    """The spaces that ``names`` say: ``discriminator``, an extractor's name, or ``name=FILE`` (``name:FILE``).

    A GAN without a discriminator has no space of that name: it is left out.

    Raises:
        UsageError: an unknown space, or one whose weights are not there.
    """
    known = {cls.name: cls for cls in EXTRACTORS} | session.extractors
    spaces = []
    for spec in dict.fromkeys(names):
        name, *argument = re.split("[=:]", spec, maxsplit=1)
        if name == DISCRIMINATOR:
            spaces += _discriminator(session)
        elif name in known:
            extractor = known[name](*argument)
            title = f"{name}, other weights" if isinstance(extractor, Inception) and not extractor.standard else name
            spaces.append(ComparisonSpace(title, Derived(title, InBlocks(extractor)), extractor))
        else:
            raise unknown_name("feature space", name, [DISCRIMINATOR, *known], "(distribution.spaces)")
    return tuple(spaces)


def _discriminator(session: Session) -> list[ComparisonSpace]:
    """The last main layer of the discriminator before its output."""
    discriminator = session.gan.discriminator
    layers = discriminator.main_layers() if discriminator else ()
    wide = [info for info in layers if info.channels > 1]
    return [
        ComparisonSpace(f"{DISCRIMINATOR} {info.name}", Activations(info.name, DISCRIMINATOR)) for info in wide[-1:]
    ]


def gathered(session: Session, space: ComparisonSpace, n: int, *, real: bool) -> Rows:
    """One row per sample: float64 [n, D]; what is not finite counts as 0."""
    kept = cast(Tensor, session[space.want(n, real=real)])
    return np.asarray(torch.nan_to_num(kept.flatten(1)).double().numpy(), np.float64)
