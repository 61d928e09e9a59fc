"""What segmenters made of a large network share: they look at one image at a time.

class Mine(ImageByImage):
    def look(self, image):                          # uint8 or float 0..1, [3, H, W]
        scores = net(image[None].float())[0].softmax(0)
        return scores.argmax(0) == torch.arange(len(scores))[:, None, None], scores
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gandissect.concepts import Segmenter


class ImageByImage(Segmenter):
    """A segmenter whose masks of an image cannot depend on the other images of its batch."""

    @abstractmethod
    def look(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Masks bool [K, H, W] and scores float32 [K, H, W] in 0..1 of one image.

        Args:
            image: uint8 [3, H, W], as it would be read from a file; or float32 in 0..1, in which the scores are differentiable.
        """

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, K, H, W], on the images rounded to 8 bits per channel as in a file."""
        pictures = ((images.detach().clamp(-1, 1).nan_to_num() + 1) * 127.5).round().to(torch.uint8)
        with torch.no_grad():
            masks = [self.look(_three(picture))[0] for picture in pictures]
        return torch.stack(masks) if masks else _nothing(images, len(self.concepts)).bool()

    def soft(self, images: Tensor) -> Tensor | None:
        """float32 [N, K, H, W] in 0..1."""
        pictures = (images.float().clamp(-1, 1) + 1) / 2
        scores = [self.look(_three(picture))[1] for picture in pictures]
        return torch.stack(scores) if scores else _nothing(images, len(self.concepts))


def _three(picture: Tensor) -> Tensor:
    return picture[:3].expand(3, -1, -1)


def _nothing(images: Tensor, concepts: int) -> Tensor:
    return images.new_zeros(0, concepts, *images.shape[2:], dtype=torch.float32)


def chosen_masks(scores: Tensor) -> Tensor:
    """bool [K, H, W]: each pixel belongs to the class of its largest score, float [K, H, W]."""
    return scores.argmax(0) == torch.arange(len(scores), device=scores.device)[:, None, None]
