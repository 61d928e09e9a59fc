"""Feature spaces: what a distribution of images is compared in.

class Pixels(Extractor):
    name = "pixels"
    def features(self, images):
        return images.flatten(1)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Extractor(ABC):
    """Images to vectors."""

    name: ClassVar[str]

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """float32 [N, D] from float32 [N, C, H, W] in [-1, 1]."""
