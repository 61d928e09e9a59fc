"""Directions in latent space that are found without labels: GANSpace and SeFa.

ganspace(session, "layer1", 8).vectors                   # float32 [8, D], unit rows
sefa(gan.generator, 8).strengths                         # eigenvalues, largest first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.errors import NoSuchCapability, UsageError
from gandissect.gan import Generator
from gandissect.reducers import KeepSpec
from gandissect.session import Activations, Session, Want
from gandissect.tap import find_layer
from gandissect_plugins.features.embedding import Floats, principal_components

LARGEST = 16384
"""A layer of more numbers than this is averaged on a coarser grid before its components are computed."""


@dataclass(frozen=True)
class Directions:
    """Unit vectors in latent space, strongest first.

    Attributes:
        method: how they were found, with the variant.
        names: one for each.
        vectors: float32 [K, D], unit rows.
        strengths: float64 [K], what they are ordered by.
        strength_label: what a strength is.
        stability: float64 [K] in 0..1, |cosine| with the nearest direction found from other samples; empty where no samples
            are used.
    """

    method: str
    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    strengths: NDArray[np.float64]
    strength_label: str
    stability: NDArray[np.float64]

    @property
    def by_name(self) -> dict[str, NDArray[np.float32]]:
        """Name -> unit vector float32 [D], as :func:`measure_effects` takes them."""
        return dict(zip(self.names, self.vectors, strict=True))


def unit_rows(vectors: Floats) -> NDArray[np.float64]:
    """Rows scaled to length 1; rows of zeros stay."""
    rows = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def regress_to_latent(coordinates: Floats, latents: Floats) -> NDArray[np.float64]:
    """The latent direction of each coordinate: unit rows [K, D].

    Args:
        coordinates: float [N, K], whitened coordinates of a layer's samples.
        latents: float [N, D] of the same samples.
    """
    # Härkönen et al. 2020, eq. 3: U = argmin sum_j || U x_j - z_j ||²
    solution, *_ = np.linalg.lstsq(np.asarray(coordinates, np.float64), np.asarray(latents, np.float64), rcond=None)
    return unit_rows(solution)


def ganspace_of(activations: Floats, latents: Floats, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(unit directions [K, D], share of variance [K]) of a layer's activations [N, M] and the latents [N, D] behind them."""
    components = principal_components(activations, count)
    whitened = components.project(activations) / np.where(components.deviations > 1e-12, components.deviations, np.inf)
    return regress_to_latent(whitened, latents), components.explained


def activation_want(session: Session, layer: str, n: int) -> Want:
    """What GANSpace gathers of a layer."""
    return Want((Activations(layer),), KeepSpec(), n)


def layer_samples(session: Session, layer: str, n: int | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(activations [N, M], averaged on a coarser grid where they are large; latents [N, D]) of the first ``n`` samples.

    Raises:
        UsageError: fewer than 16 samples, or no such layer.
    """
    info = session.gan.generator.layer(layer)
    samples = min(session.n if n is None else n, session.n)
    if samples < 16:
        raise UsageError(f"directions of a layer need at least 16 samples, got {samples}")
    kept = session[activation_want(session, layer, samples)]
    assert isinstance(kept, Tensor)
    side = int(max(1.0, (LARGEST / info.channels) ** 0.5))
    if info.channels * info.height * info.width > LARGEST:
        grid = (min(side, info.height), min(side, info.width))
        kept = torch.cat([torch.nn.functional.adaptive_avg_pool2d(part, grid) for part in torch.split(kept, 64)])
    return kept.flatten(1).numpy(), session.latents(samples).numpy()


def ganspace(session: Session, layer: str, count: int = 8, *, n: int | None = None) -> Directions:
    """Principal components of a layer's activations, carried back to the latent by least squares.

    The components are exact (one decomposition of all samples). The regression uses the same samples. ``stability`` compares
    the directions from the first half of the samples with those from the second.

    Args:
        session: samples of the generator.
        layer: one of the generator's layers.
        count: number of directions.
        n: number of samples, all of the session's where left out.

    References:
        Härkönen, Hertzmann, Lehtinen, Paris 2020, GANSpace, sec. 2.1.
    """
    activations, latents = layer_samples(session, layer, n)
    samples = len(latents)
    vectors, shares = ganspace_of(activations, latents, min(count, latents.shape[1]))
    half = samples // 2
    halves = [
        ganspace_of(activations[part], latents[part], len(vectors))[0] for part in (slice(half), slice(half, None))
    ]
    stability = stability_of(vectors, halves)
    names = tuple(f"GANSpace {i + 1}" for i in range(len(vectors)))
    method = f"GANSpace on {layer}"
    return Directions(method, names, vectors.astype(np.float32), shares, "share of variance", stability)


def stability_of(vectors: Floats, others: Sequence[Floats]) -> NDArray[np.float64]:
    """Smallest |cosine| of each unit row [K, D] with the nearest row of each of ``others`` [K', D]: float64 [K]."""
    return np.asarray(np.min([np.abs(rows @ vectors.T).max(0, initial=0.0) for rows in others], axis=0), np.float64)


def latent_weights(generator: Generator) -> tuple[str, Tensor]:
    """(layer, weight [M, D]): the first linear or convolutional layer, where it takes the latent itself.

    Raises:
        NoSuchCapability: no such layer takes as many numbers as the latent has.
    """
    size = generator.latent.size
    for info in generator.layers:
        module = find_layer(generator.module, info.name)
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() not in (2, 4) or "Embedding" in info.kind:
            continue
        transposed = "Transpose" in info.kind  # its weight is [in, out, h, w]; all others are [out, in, ...]
        rows = weight.detach().float().cpu()
        rows = rows.transpose(0, 1) if transposed else rows
        if rows.shape[1] == size:
            moved = rows if rows.dim() == 2 else rows.permute(0, 2, 3, 1).reshape(-1, size)
            return info.name, moved
        break
    raise NoSuchCapability(f"no linear or convolutional layer takes the {size} numbers of the latent directly")


def factorised(weights: Sequence[Tensor], *, normalise: bool = True) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(unit directions [D, D], eigenvalues [D]), largest first, of weights [M_i, D] stacked.

    ``normalise`` scales the weights of each output to length 1 first, as the authors' code does; without it the directions are
    others. Signs are fixed: the entry largest in magnitude is positive.
    """
    # Shen & Zhou 2021, eq. 6: AᵀA n = λ n
    stacked = torch.cat([weight.double() for weight in weights]).numpy()
    matrix = unit_rows(stacked) if normalise else stacked
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    rows = vectors[:, ::-1].T
    largest = np.abs(rows).round(9).argmax(1)
    rows = rows * np.where(rows[np.arange(len(rows)), largest] < 0, -1.0, 1.0)[:, None]
    return rows, values[::-1]


def sefa(generator: Generator, count: int = 8, *, normalise: bool = True) -> Directions:
    """Directions that change the output of the first layer most, from its weights alone.

    ``normalise`` scales the weights of each output to length 1 first, as the authors' code does; other public code does not.

    References:
        Shen & Zhou 2021, Closed-form factorization of latent semantics in GANs, sec. 3.
    """
    layer, weight = latent_weights(generator)
    rows, values = factorised([weight], normalise=normalise)
    rows, values = rows[:count], values[:count]
    title, how = ("SeFa", "outputs of length 1") if normalise else ("SeFa unscaled", "outputs as they are")
    names = tuple(f"{title} {i + 1}" for i in range(len(rows)))
    return Directions(f"{title} on {layer}, {how}", names, rows.astype(np.float32), values, "eigenvalue", np.zeros(0))
