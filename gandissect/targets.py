"""What is explained, as a value: a number per sample, made from a network's outputs.

grad_cam(gan.discriminator, images, "layer4", Score())
grad_cam(gan.generator, latents, "layer3", concept_target(session.vocabulary, "tree"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gandissect.concepts import Segmenter
from gandissect.errors import NoSuchCapability, unknown_name
from gandissect.tap import as_map


class Target(Protocol):
    """``(outputs) -> float [N]``, differentiable in the outputs where gradients are to be taken.

    ``name`` is for the reader. ``layer`` is empty when the outputs are the network's own, else the layer they are read from.
    """

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> str: ...

    def __call__(self, outputs: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """The discriminator's score: its logits [N] as they are."""

    name: str = "discriminator's score"
    layer: str = ""

    def __call__(self, outputs: Tensor) -> Tensor:
        return outputs.reshape(len(outputs), -1).mean(1)


@dataclass(frozen=True)
class UnitMean:
    """The mean activation of one unit of ``layer`` over its map."""

    layer: str
    unit: int

    @property
    def name(self) -> str:
        return f"{self.layer} · {self.unit}"

    def __call__(self, outputs: Tensor) -> Tensor:
        return as_map(outputs)[:, self.unit].mean((1, 2))


@dataclass(frozen=True)
class Property:
    """A measured property of an image: ``function`` takes float [N, C, H, W] in [-1, 1] and gives float [N]."""

    name: str
    function: Callable[[Tensor], Tensor]
    layer: str = ""

    def __call__(self, outputs: Tensor) -> Tensor:
        return self.function(outputs)


@dataclass(frozen=True)
class SoftArea:
    """The area of a concept, 0..1, by its segmenter's differentiable score."""

    segmenter: Segmenter
    index: int
    layer: str = ""

    @property
    def name(self) -> str:
        return f"soft area of {self.segmenter.concepts[self.index].name}"

    def __call__(self, outputs: Tensor) -> Tensor:
        owner, place = self.segmenter.owner(self.index)
        soft = owner.soft(outputs)
        if soft is None:
            raise NoSuchCapability(f"{owner.name} has no differentiable score; use ConceptIntensity")
        return soft[:, place].mean((1, 2))


@dataclass(frozen=True)
class ConceptIntensity:
    """The mean intensity, -1..1, inside the region where the concept is; 0 where it is absent.

    The region is found by a hard mask and held fixed: the gradient says what sets the look of that region, not its border.
    """

    segmenter: Segmenter
    index: int
    layer: str = ""

    @property
    def name(self) -> str:
        return f"mean intensity where {self.segmenter.concepts[self.index].name} is"

    def __call__(self, outputs: Tensor) -> Tensor:
        with torch.no_grad():
            owner, place = self.segmenter.owner(self.index)
            masks = owner.segment(outputs.detach().cpu(), range(len(outputs)))[:, place].to(outputs)
        inside = (outputs.mean(1) * masks).sum((1, 2))
        return inside / masks.sum((1, 2)).clamp(min=1)


def has_soft_score(segmenter: Segmenter, index: int, images: Tensor) -> bool:
    """Concept ``index`` has a differentiable score, tried on ``images`` [N, C, H, W]."""
    owner, place = segmenter.owner(index)
    soft = owner.soft(images)
    return soft is not None and bool(soft[:, place].isfinite().all())


def concept_target(segmenter: Segmenter, concept: str, images: Tensor) -> SoftArea | ConceptIntensity:
    """The differentiable stand-in for a concept's area: its soft area where there is one, else its region's intensity.

    Args:
        segmenter: whose concept it is.
        concept: its name.
        images: float32 [N, C, H, W] in [-1, 1], a few, to try the soft score on.
    """
    names = [known.name for known in segmenter.concepts]
    if concept not in names:
        raise unknown_name("concept", concept, names)
    index = names.index(concept)
    return (
        SoftArea(segmenter, index) if has_soft_score(segmenter, index, images) else ConceptIntensity(segmenter, index)
    )
