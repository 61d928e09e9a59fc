"""Concepts that are given: a folder of masks, or the bundled segmenter.

MaskFolder("masks")                                 # masks/<concept>/<sample index>.png
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Concept, Segmenter
from gandissect.errors import UsageError


class MaskFolder(Segmenter):
    """Masks drawn for given samples: ``<folder>/<concept>/<sample index>.png``, any non-black pixel is inside.

    A sample without a file does not have the concept. The masks say nothing about edited images, so no causal effect is
    measured with them.
    """

    name = "masks"
    reads_pixels = False

    def __init__(self, folder: str | Path = "") -> None:
        self._folder = Path(folder)
        if not str(folder) or not self._folder.is_dir():
            raise UsageError(
                f"no folder of masks {str(folder)!r}; expected masks:FOLDER with FOLDER/<concept>/<index>.png"
            )
        self._names = tuple(sorted(path.name for path in self._folder.iterdir() if path.is_dir()))
        if not self._names:
            raise UsageError(f"{folder} has no subfolders; expected one per concept, with <sample index>.png in it")

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "masks") for name in self._names)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, K, H, W]; a mask of another size is resized to its nearest pixels."""
        masks = torch.zeros(len(images), len(self._names), *images.shape[2:], dtype=torch.bool)
        for row, index in enumerate(indices):
            for column, concept in enumerate(self._names):
                path = self._folder / concept / f"{index}.png"
                if path.is_file():
                    masks[row, column] = _read(path, int(images.shape[2]), int(images.shape[3]))
        return masks


@lru_cache(maxsize=4096)
def _read(path: Path, height: int, width: int) -> Tensor:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            mask = torch.from_numpy(np.asarray(picture.convert("L")) > 0)
    except OSError as error:  # UnidentifiedImageError is one
        raise UsageError(
            f"{path} is no picture that can be read; expected a mask, black outside the concept"
        ) from error
    if mask.shape != (height, width):
        mask = F.interpolate(mask[None, None].float(), (height, width), mode="nearest-exact")[0, 0] > 0
    return mask


class Demo(Segmenter):
    """The ten concepts of the bundled landscapes, by the bundled segmenter; for other images it means nothing."""

    name = "demo"

    @property
    def concepts(self) -> Sequence[Concept]:
        from gandissect.demo import CONCEPTS

        return tuple(Concept(name, "scene") for name in CONCEPTS)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 10, H, W]; nothing is found in grey images."""
        from gandissect.demo import segment

        size = images.shape[2:]
        if images.shape[1] != 3:
            return torch.zeros(len(images), len(self.concepts), *size, dtype=torch.bool)
        masks = segment(images)
        if masks.shape[2:] != size:
            masks = F.interpolate(masks.float(), tuple(size), mode="nearest-exact") > 0
        return masks

    def soft(self, images: Tensor) -> Tensor | None:
        """float32 [N, 10, H, W], what the bundled segmenter takes for the probability of each concept; None for grey images."""
        from gandissect.demo.bundle import concept_logits

        if images.shape[1] != 3:
            return None
        logits, size = concept_logits(images), images.shape[2:]
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, tuple(size), mode="bilinear")
        return logits.sigmoid()
