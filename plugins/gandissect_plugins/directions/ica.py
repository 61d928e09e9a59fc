"""Independent components of a layer, carried back to the latent.

ica(session, "layer1", 5).vectors                        # float32 [5, D], unit rows
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from gandissect.session import Session
from gandissect_plugins.features.embedding import Floats, principal_components

from .basis import Directions, layer_samples, regress_to_latent, stability_of

SOURCES = 20
"""Principal components that are unmixed."""


def ica(session: Session, layer: str, count: int = 8, *, n: int | None = None) -> Directions:
    """The least normal independent components of a layer's first 20 principal components, carried back by least squares.

    ``stability`` compares them with those of either half of the samples.

    Args:
        session: samples of the generator.
        layer: one of the generator's layers.
        count: number of directions.
        n: number of samples, all of the session's where left out.

    References:
        Hyvärinen 1999, Fast and robust fixed-point algorithms for independent component analysis, eq. 20.
    """
    activations, latents = layer_samples(session, layer, n)
    seed = int(session.rng("directions: ica").integers(2**31))
    vectors, kurtosis = ica_of(activations, latents, count, seed)
    half = len(latents) // 2
    parts = (slice(half), slice(half, None))
    halves = [ica_of(activations[part], latents[part], SOURCES, seed)[0] for part in parts]
    names = tuple(f"ICA {i + 1}" for i in range(len(vectors)))
    stability = stability_of(vectors, halves)
    return Directions(f"ICA on {layer}", names, vectors.astype(np.float32), kurtosis, "excess kurtosis", stability)


def ica_of(
    activations: Floats, latents: Floats, count: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(unit directions [K, D], magnitude of the excess kurtosis [K], largest first) of activations [N, M] and latents [N, D]."""
    from scipy.stats import kurtosis
    from sklearn.decomposition import FastICA
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    components = principal_components(activations, min(SOURCES, latents.shape[1], len(latents) // 4))
    varying = components.deviations > 1e-6 * max(float(components.deviations[0]), 1e-12)
    coordinates = components.project(activations)[:, varying]
    if not coordinates.shape[1] or not coordinates.std() > 0:
        return np.zeros((0, latents.shape[1])), np.zeros(0)
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore")  # one that does not converge shows in its stability
        model = FastICA(whiten="unit-variance", random_state=seed, max_iter=200, tol=1e-3)
        sources = model.fit_transform(coordinates)
    peaked = np.abs(kurtosis(sources, axis=0))
    order = np.argsort(-peaked, kind="stable")[:count]
    return regress_to_latent(sources[:, order], latents), np.asarray(peaked[order], np.float64)
