"""Discovered concepts as a segmenter: each is read from pixels alone, so that edited images can be measured too.

Discovered(["green, textured"], readers).segment(images, indices)       # bool [N, K, H, W]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gandissect.concepts import Concept, Segmenter
from gandissect_plugins.vocabularies.looks import Reader, looks


class Discovered(Segmenter):
    """One pixel classifier per discovered concept; see :func:`gandissect_plugins.discovery.discover`."""

    name = "discovered"

    def __init__(self, names: Sequence[str], readers: Sequence[Reader]) -> None:
        self._names, self._readers = tuple(names), tuple(readers)

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "cluster") for name in self._names)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, K, H, W]."""
        return self._logits(images) > 0

    def soft(self, images: Tensor) -> Tensor:
        """Probabilities float32 [N, K, H, W], differentiable in ``images``."""
        return self._logits(images).sigmoid()

    def _logits(self, images: Tensor) -> Tensor:
        maps = looks(images)
        parts = [reader.logits(maps) for reader in self._readers]
        return torch.cat(parts, 1) if parts else maps[:, :0]
