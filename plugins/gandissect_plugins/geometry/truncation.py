"""What is lost and won by drawing latents nearer to their mean.

found = truncation(session)
found.diversity                          # share of the diversity that is left at each psi
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect import sampling
from gandissect.gan import Generator
from gandissect.metrics import middle
from gandissect.session import Session
from gandissect.spaces import codes, decoded
from gandissect_plugins.directions.effects import Matrix, fresh_samples

PSIS = (0.25, 0.5, 0.7, 1.0, 1.3)
DRAWS = 400


@dataclass(frozen=True)
class Truncation:
    """Samples pulled towards the centre of a space: centre + psi · (point − centre).

    Attributes:
        space: the space; the one with a centre that the checkpoint names, else the latent itself.
        psis: T of them; 1 is untouched.
        diversity: float64 [T], root mean squared distance between samples in pixels over that at psi 1; a linear generator has
            psi itself.
        low, high: float64 [T], 95 % bootstrap intervals over the samples.
        scores: float64 [T, S], the discriminator's logits; None without one.
        images: float32 [T, S, C, H, W].
    """

    space: str
    psis: tuple[float, ...]
    diversity: Matrix
    low: Matrix
    high: Matrix
    scores: Matrix | None
    images: Tensor


def truncation(session: Session, *, samples: int = 24) -> Truncation:
    """How diversity, and the discriminator's opinion, change with the distance to the centre, on the same fresh samples."""
    generator = session.gan.generator
    count = max(8, min(samples, session.affordable(samples * len(PSIS)) // len(PSIS)))
    latents, labels = fresh_samples(session, count)
    name, centre = _centre(generator)
    psis = PSIS if generator.latent.prior == "normal" or name != generator.latent.name else PSIS[:4]
    points = codes(session, name, latents, labels)
    images = torch.stack([decoded(session, name, centre + psi * (points - centre), labels) for psi in psis])
    squared = np.stack([_squared_distances(part) for part in images])
    one = psis.index(1.0)
    whole = squared.mean((1, 2))
    rng = session.rng("geometry: truncation")
    draws = []
    for _ in range(DRAWS):
        members = rng.integers(0, count, count)
        part = squared[:, members][:, :, members].mean((1, 2))
        draws.append(np.sqrt(part / part[one]) if part[one] > 0 else np.ones(len(psis)))
    low, high = middle(draws)
    diversity = np.sqrt(whole / whole[one]) if whole[one] > 0 else np.ones(len(psis))
    scores = None
    if session.gan.discriminator is not None:
        given = None if labels is None else labels.repeat(len(psis))
        scores = session.score(images.flatten(0, 1), given).double().reshape(len(psis), count).numpy()
    return Truncation(name, psis, diversity, low, high, scores, images)


def _centre(generator: Generator) -> tuple[str, Tensor]:
    """The first vector space with a centre, and that; else the latent and the mean of its prior."""
    for inner in generator.inner:
        space = generator.space(inner.name)
        if space.centre is not None and len(space.shape) == 1:
            return space.name, space.centre.float().cpu()
    mean = sampling.prior_moments(generator.latent)[0]
    return generator.latent.name, torch.full((generator.latent.size,), mean)


def _squared_distances(images: Tensor) -> Matrix:
    """Mean squared pixel difference between any two of images [S, C, H, W], scaled to 0..1: float64 [S, S]."""
    rows = images.flatten(1).double() / 2
    return np.asarray(torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").numpy() ** 2 / rows.shape[1])
