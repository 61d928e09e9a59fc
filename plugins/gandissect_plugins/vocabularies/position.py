"""Nine places of the image: what position alone explains.

Position().segment(images, range(len(images)))      # bool [N, 9, H, W], the same for every image
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gandissect.concepts import Concept, Segmenter

PLACES = (
    "top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip


class Position(Segmenter):
    """A 3×3 grid laid over every image; its concepts are ``spatial``, the yardstick and never a finding."""

    name = "position"

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "position", spatial=True) for name in PLACES)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 9, H, W]; every pixel is in exactly one place."""
        height, width = images.shape[2:]
        row, column = torch.arange(height) * 3 // height, torch.arange(width) * 3 // width
        place = row[:, None] * 3 + column
        return (place == torch.arange(9)[:, None, None]).expand(len(images), -1, -1, -1)
