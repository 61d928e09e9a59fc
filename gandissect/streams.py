"""What flows through a pass, as values that can be asked for, compared and fused.

Want((Activations("layer4"), CellAreas(32, 32)), MySpec(), n=1000)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Segmenter, concept_areas
from gandissect.tap import as_map

Role = Literal["generator", "discriminator"]


class Batch:
    """One batch on its way to the reducers; what is derived from images is computed once, when first asked for.

    Attributes:
        indices: sample indices.
        latents: float32 [N, D]; empty for real images.
        images: float32 [N, C, H, W] in [-1, 1].
        generator: layer -> activation, as the network gave it.
        discriminator: layer -> activation.
        scores: float32 [N] logits, or None.
    """

    def __init__(
        self,
        indices: Sequence[int],
        latents: Tensor,
        images: Tensor,
        generator: Mapping[str, Tensor],
        discriminator: Mapping[str, Tensor],
        scores: Tensor | None,
        vocabulary: Segmenter,
    ) -> None:
        self.indices = list(indices)
        self.latents = latents
        self.images = images
        self.generator = generator
        self.discriminator = discriminator
        self.scores = scores
        self._vocabulary = vocabulary
        self._derived: dict[Stream, Tensor] = {}

    def get(self, stream: Stream) -> Tensor:
        """The tensor [N, …] of ``stream``, memoised for the batch."""
        if stream not in self._derived:
            self._derived[stream] = stream.of(self)
        return self._derived[stream]

    def cut(self, start: int, stop: int) -> Batch:
        """The samples start..stop-1 as a batch of their own; this one where that is all of it."""
        if (start, stop) == (0, len(self.indices)):
            return self
        return Batch(
            self.indices[start:stop],
            self.latents[start:stop],
            self.images[start:stop],
            {name: value[start:stop] for name, value in self.generator.items()},
            {name: value[start:stop] for name, value in self.discriminator.items()},
            None if self.scores is None else self.scores[start:stop],
            self._vocabulary,
        )

    def pooled(self, grid: CellAreas) -> Tensor | None:
        """Areas on the smallest finer grid known so far whose cells make up those of ``grid`` by powers of two, where the mean of
        means is exact; the masks themselves where they are such a grid and no other is."""
        known = [value for stream, value in self._derived.items() if isinstance(stream, CellAreas)]
        fits = [area for area in (*known, self.get(Masks())) if _halves(area.shape[2:], (grid.height, grid.width))]
        return min(fits, key=lambda area: area.shape[2]).float() if fits else None

    def segment(self) -> Tensor:
        """Concept masks, bool [N, K, H, W]."""
        return self._vocabulary.segment(self.images, self.indices)

    def soft(self) -> Tensor | None:
        """Soft scores of the concepts, float32 [N, K, H, W], NaN for those without; None where no segmenter has any."""
        with torch.no_grad():
            return self._vocabulary.soft(self.images)


def _halves(fine: Sequence[int], coarse: Sequence[int]) -> bool:
    """Whether both sides of ``fine`` are the same power of two, 2 or more, times those of ``coarse``."""
    ratio = fine[0] // coarse[0]
    return ratio > 1 and ratio & (ratio - 1) == 0 and list(fine) == [side * ratio for side in coarse]


class Stream(ABC):
    """A quantity per sample. Subclasses are frozen dataclasses: equal values are the same stream.

    Attributes:
        needs_scores: the discriminator has to run.
        needs_images: the generator has to run to its end, not only to the layers that are read.
    """

    needs_scores: bool = False
    needs_images: bool = True

    @abstractmethod
    def of(self, batch: Batch) -> Tensor:
        """The quantity for one batch, [N, …] on the CPU."""

    def layer(self, role: Role) -> str | None:
        """The layer of that network that has to be read for it."""
        return None


@dataclass(frozen=True)
class Latents(Stream):
    """float32 [N, D]."""

    needs_images = False

    def of(self, batch: Batch) -> Tensor:
        return batch.latents


@dataclass(frozen=True)
class Images(Stream):
    """float32 [N, C, H, W] in [-1, 1]."""

    def of(self, batch: Batch) -> Tensor:
        return batch.images


@dataclass(frozen=True)
class Activations(Stream):
    """A layer's output as maps: float32 [N, C, H, W]; vectors are 1×1 maps."""

    name: str
    network: Role = "generator"

    needs_images = False

    def of(self, batch: Batch) -> Tensor:
        source = batch.generator if self.network == "generator" else batch.discriminator
        return as_map(source[self.name])

    def layer(self, role: Role) -> str | None:
        return self.name if role == self.network else None


@dataclass(frozen=True)
class Scores(Stream):
    """The discriminator's logits, float32 [N]."""

    needs_scores = True

    def of(self, batch: Batch) -> Tensor:
        if batch.scores is None:
            raise RuntimeError("the pass did not run the discriminator")
        return batch.scores


@dataclass(frozen=True)
class Masks(Stream):
    """Concept masks, bool [N, K, H, W]."""

    def of(self, batch: Batch) -> Tensor:
        return batch.segment()


@dataclass(frozen=True)
class Areas(Stream):
    """Fraction of each image that each concept covers, float32 [N, K] in 0..1."""

    def of(self, batch: Batch) -> Tensor:
        return concept_areas(batch.get(Masks()))


@dataclass(frozen=True)
class CellAreas(Stream):
    """Fraction of each cell of a grid that each concept covers, float32 [N, K, height, width] in 0..1."""

    height: int
    width: int

    def of(self, batch: Batch) -> Tensor:
        finer = batch.pooled(self)
        return pooled(batch.get(Masks()) if finer is None else finer, self.height, self.width)


def pooled(maps: Tensor, height: int, width: int) -> Tensor:
    """The mean of bool or float maps [N, K, H, W] in each cell of a grid: float32 [N, K, height, width]."""
    tall, wide = maps.shape[2:]
    if tall % height or wide % width:
        return F.adaptive_avg_pool2d(maps.float(), (height, width))
    if (tall, wide) == (height, width):
        return maps.float()
    down, across = tall // height, wide // width
    if maps.dtype == torch.bool:
        maps = maps.to(torch.uint8 if down * across < 256 else torch.int32)
    rows = sum((maps[:, :, row::down] for row in range(1, down)), maps[:, :, ::down])
    cells = sum((rows[..., column::across] for column in range(1, across)), rows[..., ::across])
    return cells.float() / (down * across)


@dataclass(frozen=True)
class Derived(Stream):
    """Any function of an image batch (float32 [N, C, H, W] -> [N, …]), named so that it can be compared."""

    name: str
    function: Callable[[Tensor], Tensor]

    def of(self, batch: Batch) -> Tensor:
        return torch.as_tensor(self.function(batch.images))
