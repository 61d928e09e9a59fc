"""Concepts and those who find them: a segmenter says where in an image each concept is.

class Red(Segmenter):
    name = "red"
    concepts = (Concept("red", "colour"),)
    def segment(self, images, indices):
        return (images[:, :1] > 0.5) & (images[:, 1:].amax(1, keepdim=True) < 0)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import UsageError


@dataclass(frozen=True)
class Concept:
    """Something that may be somewhere in an image: its name, the category it belongs to, and where that comes from.

    ``spatial`` marks concepts that are a place and nothing else (the 3×3 positions): they are the yardstick of what
    position alone explains, never a finding about content.
    """

    name: str
    category: str
    spatial: bool = False


class Segmenter(ABC):
    """A source of concept masks.

    ``reads_pixels`` is False where the masks belong to given samples (a folder of hand-drawn masks) and say nothing about
    an edited image: no causal effect can be measured with it. ``adapts`` is True where :meth:`fitted` does something.
    """

    name: ClassVar[str]
    reads_pixels: bool = True
    adapts: bool = False

    @property
    @abstractmethod
    def concepts(self) -> Sequence[Concept]:
        """What it can find; the order is that of the masks."""

    @abstractmethod
    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Where each concept is.

        Args:
            images: float32 [N, C, H, W] in [-1, 1], C = 1 or 3.
            indices: the sample index of each image (position in the folder for real images).

        Returns:
            bool [N, K, H, W]; several concepts may hold at one pixel.
        """

    @classmethod
    def unavailable(cls) -> str:
        """Why it cannot be used on this machine and what to type; empty where it can."""
        return ""

    def soft(self, images: Tensor) -> Tensor | None:
        """How much each concept is at each pixel, differentiable in ``images``: float32 [N, K, H, W] in 0..1.

        None where there is no such score; NaN planes for single concepts without one.
        """
        return None

    def owner(self, index: int) -> tuple[Segmenter, int]:
        """Who finds the concept at ``index``, and its place among that segmenter's own: to ask for one without the others."""
        return self, index

    def fitted(self, images: Tensor) -> Segmenter:
        """This segmenter, adapted to a GAN's own images (float32 [N, C, H, W]); itself where there is nothing to adapt."""
        return self


class Vocabulary(Segmenter):
    """Several segmenters as one; the concept names of each stay, a name that occurs twice gets its segmenter's name."""

    name = "vocabulary"

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        self.segmenters = tuple(segmenters)
        self.reads_pixels = all(segmenter.reads_pixels for segmenter in self.segmenters)
        self.adapts = any(segmenter.adapts for segmenter in self.segmenters)
        self._concepts: list[Concept] = []
        taken: set[str] = set()
        for segmenter in self.segmenters:
            for concept in segmenter.concepts:
                name = concept.name if concept.name not in taken else f"{concept.name} ({segmenter.name})"
                taken.add(name)
                self._concepts.append(Concept(name, concept.category, concept.spatial))

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(self._concepts)

    def owner(self, index: int) -> tuple[Segmenter, int]:
        for segmenter in self.segmenters:
            if index < len(segmenter.concepts):
                return segmenter.owner(index)
            index -= len(segmenter.concepts)
        raise IndexError(f"no concept at {index}")

    def fitted(self, images: Tensor) -> Vocabulary:
        return Vocabulary([segmenter.fitted(images) for segmenter in self.segmenters])

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, K, H, W] with K the sum over all segmenters."""
        if not self.segmenters:
            return torch.zeros(len(images), 0, *images.shape[2:], dtype=torch.bool)
        return torch.cat([segmenter.segment(images, indices) for segmenter in self.segmenters], dim=1)

    def segment_only(self, images: Tensor, indices: Sequence[int], chosen: Sequence[int]) -> Tensor:
        """The masks of the concepts at ``chosen``, for which their own segmenters alone are asked: bool [N, len(chosen), H, W]."""
        owners = [self.owner(index) for index in chosen]
        asked = {id(segmenter): segmenter for segmenter, _ in owners}
        masks = {key: segmenter.segment(images, indices) for key, segmenter in asked.items()}
        planes = [masks[id(segmenter)][:, place] for segmenter, place in owners]
        return torch.stack(planes, 1) if planes else torch.zeros(len(images), 0, *images.shape[2:], dtype=torch.bool)

    def soft(self, images: Tensor) -> Tensor | None:
        """float32 [N, K, H, W]; the planes of segmenters without a soft score are NaN."""
        planes = [segmenter.soft(images) for segmenter in self.segmenters]
        if all(plane is None for plane in planes):
            return None
        missing = [
            images.new_full((len(images), len(s.concepts), *images.shape[2:]), torch.nan) for s in self.segmenters
        ]
        return torch.cat(
            [empty if plane is None else plane for plane, empty in zip(planes, missing, strict=True)], dim=1
        )


class CallableSegmenter(Segmenter):
    """Any function of an image batch as a segmenter: float or bool [N, K, H, W] or [N, H, W]; positive means present.

    A function with the attribute ``soft = True`` gives probabilities in 0..1: above 0.5 means present, and they serve as
    the soft score.
    """

    name = "callable"

    def __init__(self, function: Callable[[Tensor], Tensor], names: Sequence[str] = ()) -> None:
        self._function = function
        self._names = tuple(names) or (getattr(function, "__name__", "concept"),)
        self._soft = bool(getattr(function, "soft", False))

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "custom") for name in self._names)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        masks = self._planes(images)
        return masks if masks.dtype == torch.bool else masks > (0.5 if self._soft else 0)

    def soft(self, images: Tensor) -> Tensor | None:
        return self._planes(images).float().clamp(0, 1) if self._soft else None

    def _planes(self, images: Tensor) -> Tensor:
        """What the function returns, as [N, K, H, W].

        Raises:
            UsageError: another shape.
        """
        masks = torch.as_tensor(self._function(images))
        masks = masks[:, None] if masks.dim() == 3 else masks
        expected = (len(images), len(self._names), *images.shape[2:])
        if tuple(masks.shape) != expected:
            raise UsageError(
                f"concept function returned shape {tuple(masks.shape)}; expected {expected} for {self._names}"
            )
        return masks


LOW_LEVEL = frozenset({"colour", "light", "saturation", "edge", "texture", "cluster"})
"""Categories that say how a pixel looks; concepts of any other category come first where there is room for a few only."""


def telling_first(concepts: Sequence[Concept], areas: Tensor) -> list[int]:
    """Places of the concepts worth showing, in order: things before mere looks, then those whose area varies most.

    Args:
        concepts: K of them; spatial ones are left out.
        areas: float [N, K], what fraction of each image each covers.
    """
    spread = areas.double().std(0, correction=0).tolist()
    content = [place for place, concept in enumerate(concepts) if not concept.spatial]
    return sorted(content, key=lambda place: (concepts[place].category in LOW_LEVEL, -spread[place], place))


def concept_areas(masks: Tensor) -> Tensor:
    """Fraction of each image that each concept covers: float32 [N, K] in 0..1 from bool [N, K, H, W]."""
    if masks.device.type != "cpu" or not masks.numel():
        return masks.float().mean((2, 3))
    planes = masks.flatten(2).numpy()  # numpy counts bits of whole planes many times faster
    counts = [[np.count_nonzero(plane) for plane in row] for row in planes]
    return torch.tensor(counts, dtype=torch.float32) / masks[0, 0].numel()
