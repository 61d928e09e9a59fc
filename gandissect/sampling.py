"""Sample i is sample i: latents are a function of (seed, i), never of batch size, order or number of processes.

latents(seed=0, indices=range(64), space=LatentSpace("z", (100,)))      # float32 [64, 100]
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from gandissect.gan import LatentSpace

STREAM_LATENTS = 1


def _generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """A counter-based generator keyed by (seed, stream) and positioned by index: draws never overlap between samples."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, stream], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def latents(seed: int, indices: Iterable[int], space: LatentSpace) -> Tensor:
    """Draws from the prior of ``space``, one row per sample index.

    Args:
        seed: any integer.
        indices: sample indices ≥ 0.
        space: latent space; its prior is N(0, 1) or U(-1, 1) per coordinate.

    Returns:
        float32 [N, D] with D = ``space.size``.
    """
    rows = []
    for index in indices:
        rng = _generator(seed, index, STREAM_LATENTS)
        if space.prior == "uniform":
            rows.append(rng.uniform(-1.0, 1.0, space.size).astype(np.float32))
        else:
            rows.append(rng.standard_normal(space.size, dtype=np.float32))
    stacked = np.stack(rows) if rows else np.zeros((0, space.size), np.float32)
    return torch.from_numpy(stacked)


def named_rng(seed: int, name: str) -> np.random.Generator:
    """A generator for one purpose: the same for the same (seed, name), independent of every other name."""
    return np.random.default_rng([seed & 0xFFFFFFFF, *name.encode()])
