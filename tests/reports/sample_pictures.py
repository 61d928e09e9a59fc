"""Synthetic landscapes and maps for the sample report.

scenes(8, size=64)          # uint8 [8, 64, 64, 3]
"""

from __future__ import annotations

import numpy as np

from gandissect.blocks import Pixels


def scenes(count: int, size: int = 64, seed: int = 0) -> Pixels:
    """``count`` landscapes of sky, ground, a sun and a house, uint8 [count, size, size, 3]."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for index in range(count):
        horizon, sun_x, sun_y, house = draw.uniform([0.45, 0.1, 0.08, 0.15], [0.75, 0.9, 0.35, 0.7])
        sky = np.stack([0.45 + 0.3 * y, 0.62 + 0.2 * y, 0.88 + 0 * y], axis=-1) * draw.uniform(0.7, 1.05)
        ground = np.array([0.25, 0.5, 0.22]) * draw.uniform(0.7, 1.3) * (0.8 + 0.4 * y[..., None])
        image = np.where((y > horizon)[..., None], ground, sky)
        image[(x - sun_x) ** 2 + (y - sun_y) ** 2 < 0.006] = (1.0, 0.85, 0.35)
        wall = (abs(x - house) < 0.12) & (y > horizon - 0.12) & (y < horizon + 0.08)
        roof = (y > horizon - 0.24) & (y <= horizon - 0.12) & (abs(x - house) < (y - horizon + 0.26) * 1.2)
        image[wall], image[roof] = draw.uniform(0.5, 0.95, 3), (0.55, 0.2, 0.15)
        images[index] = np.clip((image + draw.normal(0, 0.012, image.shape)) * 255, 0, 255)
    return images


def blobs(count: int, size: int = 16, seed: int = 1) -> np.ndarray:
    """Maps with a positive and a negative region, float [count, size, size]."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size

    def bump() -> np.ndarray:
        a, b = draw.uniform(0.2, 0.8, 2)
        return np.asarray(np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.03))

    return np.stack([bump() - 0.8 * bump() for _ in range(count)])


def lit(images: Pixels, seed: int) -> Pixels:
    """Pictures of which only a disc is lit, the rest dimmed to a quarter."""
    size = images.shape[1]
    y, x = np.mgrid[0:size, 0:size] / size
    a, b = np.random.default_rng(seed).uniform(0.25, 0.75, 2)
    inside = ((x - a) ** 2 + (y - b) ** 2 < 0.05)[..., None]
    return np.where(inside, images, images // 4).astype(np.uint8)
