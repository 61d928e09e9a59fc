"""The same images with one thing spoilt: noise, blur, patches in another order.

perturbations(images, rng)["blurred"]    # float32 [N, C, H, W]
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

NOISE = 0.2
PATCHES = 4
WIDTH = 3


def perturbations(images: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
    """Images float32 [N, C, H, W] in [-1, 1], spoilt in three ways: name -> the same shape and range.

    Gaussian noise of standard deviation 0.2; the mean over 3×3 pixels, borders replicated; a grid of 4×4 patches in a random order of
    its own for each image (rows and columns beyond whole patches stay).
    """
    noise = torch.from_numpy(rng.standard_normal(tuple(images.shape)).astype(np.float32))
    blurred = avg_pool2d(pad(images, (WIDTH // 2,) * 4, mode="replicate"), WIDTH, stride=1)
    return {
        "with noise": (images + NOISE * noise).clamp(-1, 1),
        "blurred": blurred,
        "patches shuffled": torch.stack([_shuffled(image, rng) for image in images]),
    }


def _shuffled(image: Tensor, rng: np.random.Generator) -> Tensor:
    channels, height, width = image.shape
    rows, columns = min(PATCHES, height), min(PATCHES, width)
    h, w = height // rows, width // columns
    whole = image[:, : rows * h, : columns * w]
    patches = whole.reshape(channels, rows, h, columns, w).permute(1, 3, 0, 2, 4).flatten(0, 1)
    patches = patches[torch.from_numpy(rng.permutation(len(patches)))]
    out = image.clone()
    mixed = patches.reshape(rows, columns, channels, h, w).permute(2, 0, 3, 1, 4)
    out[:, : rows * h, : columns * w] = mixed.reshape(channels, rows * h, columns * w)
    return out
