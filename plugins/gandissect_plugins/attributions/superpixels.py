"""Superpixels: small regions of similar colour.

regions = superpixels(images, 48)        # int64 [N, H, W], labels 0..K-1 in each image
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 5
COMPACTNESS = 0.4
"""Colour difference (root of the summed squares, images in [-1, 1]) that weighs as much as one region's width."""


def superpixels(images: Tensor, count: int = 48) -> Tensor:
    """About ``count`` regions per image by k-means over colour and place, started on a grid.

    Args:
        images: float32 [N, C, H, W] in [-1, 1].
        count: regions asked for; the grid and empty regions make it a few more or less.

    Returns:
        int64 [N, H, W]; every label from 0 to an image's highest occurs in it. Regions need not be connected.

    References:
        Achanta et al. 2012, SLIC Superpixels, section 3.1 (every centre is compared with every pixel; no connectivity step).
    """
    return torch.stack([_regions(image.detach().cpu().float(), count) for image in images])


def _regions(image: Tensor, count: int) -> Tensor:
    height, width = image.shape[1:]
    side = max(1.0, (height * width / max(count, 1)) ** 0.5)
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    y, x = torch.meshgrid(torch.arange(height) / side, torch.arange(width) / side, indexing="ij")
    points = torch.cat([image / COMPACTNESS, y[None], x[None]]).flatten(1).T  # [H*W, C+2]
    cell = (torch.arange(height) * rows // height)[:, None] * columns + torch.arange(width) * columns // width
    labels = cell.flatten()
    for _ in range(ROUNDS):
        sums = torch.zeros(rows * columns, points.shape[1]).index_add_(0, labels, points)
        sizes = torch.bincount(labels, minlength=rows * columns)
        distances = torch.cdist(points, sums / sizes.clamp(min=1)[:, None])
        labels = distances.masked_fill(sizes == 0, torch.inf).argmin(1)
    consecutive: Tensor = torch.unique(labels, return_inverse=True)[1]
    return consecutive.reshape(height, width)
