"""Sample i is sample i: latents are a function of (seed, i), never of batch size, order or number of processes.

latents(seed=0, indices=range(64), space=LatentSpace("z", (100,)))      # float32 [64, 100]
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
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
        space: latent space; its prior is N(0, 1) or U(span) per coordinate, or pictures.

    Returns:
        float32 [N, D] with D = ``space.size``.
    """
    rows = []
    for index in indices:
        rng = _generator(seed, index, STREAM_LATENTS)
        if space.prior == "image":
            rows.append(_picture(rng, space).reshape(-1))
        elif space.prior == "uniform":
            rows.append(rng.uniform(*space.span, space.size).astype(np.float32))
        else:
            rows.append(rng.standard_normal(space.size, dtype=np.float32))
    stacked = np.stack(rows) if rows else np.zeros((0, space.size), np.float32)
    return torch.from_numpy(stacked)


def prior_moments(space: LatentSpace) -> tuple[float, float]:
    """(mean, standard deviation) of one coordinate under the prior; of pictures about those that :func:`latents` draws."""
    low, high = space.span
    if space.prior == "uniform":
        return (low + high) / 2, (high - low) / 12**0.5
    return ((low + high) / 2, (high - low) / 5) if space.prior == "image" else (0.0, 1.0)


def prior_words(space: LatentSpace) -> str:
    """What one draw from the prior is, for a sentence: "32 latent coordinates drawn from N(0, 1)"."""
    low, high = (f"{end:g}".replace("-", "−") for end in space.span)
    if space.prior == "image":
        sizes = "×".join(map(str, (*space.shape[:0:-1], space.shape[0]))) if len(space.shape) == 3 else str(space.size)
        return f"made-up input pictures of {sizes} numbers (noise with the spectrum of natural images, {low} to {high})"
    drawn = f"U({low}, {high})" if space.prior == "uniform" else "N(0, 1)"
    return f"{space.size} latent coordinates drawn from {drawn}"


def _picture(rng: np.random.Generator, space: LatentSpace) -> NDArray[np.float32]:
    """float32 [C, H, W]: Gaussian noise with an amplitude spectrum of 1/f, as natural images have on average (Field 1987).

    Channels share most of their pattern, as colours of natural images do; each picture fills the middle of ``space.span``.
    """
    channels, height, width = space.shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    white = rng.standard_normal((channels + 1, height, width))
    fields = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    mixed = fields[:1] + 0.5 * fields[1:]
    spread = mixed.std() or 1.0
    low, high = space.span
    scaled = (low + high) / 2 + (high - low) / 5 * (mixed - mixed.mean()) / spread
    clipped: NDArray[np.float32] = np.clip(scaled, low, high).astype(np.float32)
    return clipped


def named_rng(seed: int, name: str) -> np.random.Generator:
    """A generator for one purpose: the same for the same (seed, name), independent of every other name."""
    return np.random.default_rng([seed & 0xFFFFFFFF, *name.encode()])
