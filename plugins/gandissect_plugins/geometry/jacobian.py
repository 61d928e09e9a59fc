"""How many directions of the latent change the image around a sample: the singular values of the generator's Jacobian.

found = local_rank(session)
found.effective, found.rank              # float64 [S], int64 [S]; found.reference is that of a random linear map
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gandissect.session import Session
from gandissect_plugins.directions.effects import Matrix, fresh_samples, prior_sigma
from gandissect_plugins.features.embedding import Floats

STEP = 0.02
"""Length of a difference, in standard deviations of the prior: small beside a latent, large beside the rounding of float32."""
SMALLEST = 1e-3
"""A singular value below this share of the largest counts as zero."""


@dataclass(frozen=True)
class LocalRank:
    """The Jacobian of the image with respect to the latent, around some samples.

    Attributes:
        singular: float64 [S, M], root mean square pixel change per standard deviation of the prior, images in 0..1, largest
            first, along M directions.
        size: D, coordinates of the latent; where M is less, the Jacobian was restricted to M random orthogonal directions.
        reference: effective rank of a map of that size with random entries.
    """

    singular: Matrix
    size: int
    reference: float

    @property
    def tried(self) -> int:
        """M, the directions that were tried."""
        return int(self.singular.shape[1])

    @property
    def effective(self) -> Matrix:
        """Effective rank around each sample: float64 [S], 0 where nothing changes."""
        return np.array([effective_rank(values) for values in self.singular])

    @property
    def rank(self) -> NDArray[np.int64]:
        """Singular values above a thousandth of the largest: int64 [S]."""
        return np.asarray((self.singular > SMALLEST * self.singular[:, :1]).sum(1), np.int64)


def effective_rank(singular: Floats) -> float:
    """exp of the entropy of the squared singular values [M] as shares; 1 for one of them, M for equal ones, 0 for zeros."""
    # Roy & Vetterli 2007, eq. 3-4, with the shares of energy in place of the singular values themselves
    energy = np.asarray(singular, np.float64) ** 2
    if not energy.sum() > 0:
        return 0.0
    shares = energy[energy > 0] / energy.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def local_rank(session: Session, *, samples: int = 8, directions: int = 64, budget: int = 512) -> LocalRank:
    """Singular values of the Jacobian by forward differences, around fresh samples.

    Args:
        session: whose generator it is.
        samples: around how many samples.
        directions: along how many orthogonal directions: all coordinates where there are no more, random ones else.
        budget: images to generate, about; fewer for generators whose images cost much.
    """
    size, sigma = session.gan.generator.latent.size, prior_sigma(session)
    images = session.affordable(budget)
    tried = max(2, min(size, directions, images // 2 - 1))
    latents, labels = fresh_samples(session, max(2, min(samples, images // (tried + 1))))
    rng = session.rng("geometry: directions of the Jacobian")
    basis = np.eye(size) if tried == size else np.linalg.qr(rng.standard_normal((size, tried)))[0].T
    steps = torch.from_numpy(basis.astype(np.float32)) * (STEP * sigma)
    found = []
    for row, latent in enumerate(latents):
        given = None if labels is None else labels[row : row + 1].repeat(tried + 1)
        pictures = session.generate(torch.cat([latent[None], latent + steps]), labels=given).double().flatten(1)
        change = ((pictures[1:] - pictures[:1]) / (2 * STEP)).numpy()
        energy = np.linalg.eigvalsh(change @ change.T / change.shape[1])
        found.append(np.sqrt(np.clip(energy[::-1], 0, None)))
    pixels = int(np.prod(session.gan.generator.image_shape))
    return LocalRank(np.array(found), size, _of_random_map(tried, pixels, session.rng("geometry: a random map")))


def _of_random_map(columns: int, rows: int, rng: np.random.Generator) -> float:
    """Effective rank of a matrix [rows, columns] of independent normal entries, the mean of eight draws."""
    # Bartlett 1933: its triangular factor has chi-distributed entries on the diagonal and normal ones above
    short, long = sorted((columns, rows))
    draws = []
    for _ in range(8):
        factor = np.triu(rng.standard_normal((short, short)), 1)
        factor[np.diag_indices(short)] = np.sqrt(rng.chisquare(long - np.arange(short)))
        draws.append(effective_rank(np.linalg.svd(factor, compute_uv=False)))
    return float(np.mean(draws))
