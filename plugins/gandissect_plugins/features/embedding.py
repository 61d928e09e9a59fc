"""Many numbers per sample as two or three, and how much of the neighbourhood that keeps.

embed(features, "pca", 2).axes                           # ("PC 1, 23 % of variance", "PC 2, 9 % of variance")
embed(features, "umap", 3, seed=1).trustworthiness       # 0.93
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gandissect.errors import UsageError

Method = Literal["pca", "tsne", "umap"]
Floats = NDArray[np.floating]
METHODS: tuple[Method, ...] = ("pca", "tsne", "umap")
TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
MINIMUM = {"pca": 4, "tsne": 12, "umap": 100}
"""Fewest points for which a method says anything; UMAP's neighbourhood graph of fewer is one clump."""
NEIGHBOURS = 15
REDUCED = 50


@dataclass(frozen=True)
class Embedding:
    """Points of low dimension and how far they can be trusted.

    Attributes:
        points: float32 [N, 2] or [N, 3].
        axes: what each axis is.
        method: "pca", "tsne" or "umap".
        trustworthiness: 0..1; 1 where no neighbour in the picture is a stranger in the features (Venna & Kaski 2001).
        preserved: 0..1, share of each point's nearest neighbours that are still its nearest in the picture.
        by_chance: 0..1, what ``preserved`` would be for points placed at random.
        explained: share of the variance each axis holds; empty but for PCA.
        neighbours: how many neighbours both numbers look at.
        settings: what the method was run with.
    """

    points: NDArray[np.float32]
    axes: tuple[str, ...]
    method: Method
    trustworthiness: float
    preserved: float
    by_chance: float
    explained: tuple[float, ...]
    neighbours: int
    settings: str

    @property
    def title(self) -> str:
        """The method's name and the number of axes: "t-SNE, 2-D"."""
        return f"{TITLES[self.method]}, {self.points.shape[1]}-D"


@dataclass(frozen=True)
class Components:
    """A principal component analysis.

    Attributes:
        mean: float64 [D].
        vectors: float64 [K, D], orthonormal rows; of each the entry largest in magnitude is positive.
        deviations: float64 [K], standard deviation along each (n - 1).
        explained: float64 [K], share of the total variance.
    """

    mean: NDArray[np.float64]
    vectors: NDArray[np.float64]
    deviations: NDArray[np.float64]
    explained: NDArray[np.float64]

    def project(self, features: Floats) -> NDArray[np.float64]:
        """Coordinates along the components: float64 [N, K]."""
        return np.asarray((features - self.mean) @ self.vectors.T, np.float64)


def principal_components(features: Floats, count: int) -> Components:
    """The first ``count`` principal components of features [N, D], exact, in float64.

    The smaller of the covariance [D, D] and the Gram matrix [N, N] is decomposed. Signs are fixed: the loading that is
    largest in magnitude (the first of equals) is positive.
    """
    mean = features.mean(0, dtype=np.float64)
    centred = features.astype(np.float64) - mean
    n, d = centred.shape
    count = max(1, min(count, d, n - 1))
    gram = n <= d
    values, vectors = np.linalg.eigh(centred @ centred.T if gram else centred.T @ centred)
    values, vectors = np.clip(values[::-1][:count], 0, None), vectors[:, ::-1][:, :count]
    rows = (centred.T @ vectors).T if gram else vectors.T
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    largest = np.abs(rows).round(9).argmax(1)
    rows = rows * np.where(rows[np.arange(len(rows)), largest] < 0, -1.0, 1.0)[:, None]
    total = float((centred**2).sum())
    return Components(mean, rows, np.sqrt(values / max(n - 1, 1)), values / total if total > 0 else values * 0)


def embed(features: Floats, method: Method, dim: int = 2, *, seed: int = 0, neighbours: int = NEIGHBOURS) -> Embedding:
    """Points in 2 or 3 dimensions for features [N, D]; the same for the same features and seed.

    t-SNE and UMAP start from the first 50 principal components and run on one thread, so that they repeat.

    Args:
        features: float [N, D]; give real and generated samples together, fits of their own cannot be compared.
        method: "pca", "tsne" or "umap".
        dim: 2 or 3.
        seed: of the method's own randomness.
        neighbours: of UMAP's graph and of both trust numbers.

    Raises:
        UsageError: an unknown method, another dimension, or too few samples.
    """
    if method not in METHODS or dim not in (2, 3):
        raise UsageError(f"no embedding {method!r} in {dim} dimensions; known: {', '.join(METHODS)} in 2 or 3")
    if len(features) < MINIMUM[method]:
        raise UsageError(f"{TITLES[method]} needs at least {MINIMUM[method]} samples, got {len(features)}")
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    with threadpool_limits(limits=1):
        components = principal_components(features, REDUCED)
        reduced = components.project(features)
        explained: tuple[float, ...] = ()
        points: Floats
        if method == "pca":
            points = np.pad(reduced[:, :dim], ((0, 0), (0, max(0, dim - reduced.shape[1]))))
            explained = tuple(float(share) for share in components.explained[:dim])
            axes = tuple(f"PC {i + 1}, {share:.0%} of variance".replace("%", " %") for i, share in enumerate(explained))
            axes, settings = axes + ("nothing left",) * (dim - len(axes)), "exact"
        else:
            points, settings = _neighbour_embedding(reduced, method, dim, seed, neighbours)
            axes = tuple(f"{TITLES[method]} {i + 1}" for i in range(dim))
        trust, kept, chance, near = neighbour_trust(features, points, neighbours)
    return Embedding(points.astype(np.float32), axes, method, trust, kept, chance, explained, near, settings)


def _neighbour_embedding(reduced: Floats, method: Method, dim: int, seed: int, neighbours: int) -> tuple[Floats, str]:
    """(points [N, dim], what it was run with)."""
    n, spread = len(reduced), float(reduced.std()) or 1.0
    if method == "tsne":
        from sklearn.manifold import TSNE

        # van der Maaten & Hinton 2008; Barnes-Hut (van der Maaten 2014); PCA start (Kobak & Berens 2019)
        perplexity = min(30.0, (n - 1) / 4)
        steps = 600 if dim == 2 else 400
        tsne = TSNE(dim, perplexity=perplexity, init="pca", random_state=seed, max_iter=steps)
        return tsne.fit_transform((reduced / spread).astype(np.float32)), f"perplexity {perplexity:.0f}, {steps} steps"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "n_jobs overridden to 1 by setting random_state": that is what is wanted
        from umap import UMAP

        # McInnes, Healy & Melville 2018; a start from PCA needs no eigensolver and repeats. Exact neighbours are handed
        # over: what UMAP would compile to find them takes as long as everything else it compiles (5 of 10 s).
        near, scaled = min(neighbours, n - 1), (reduced / spread).astype(np.float32)
        model = UMAP(
            n_components=dim,
            n_neighbors=near,
            min_dist=0.1,
            init="pca",
            n_epochs=300,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=_graph(scaled, near),
        )
        points = model.fit_transform(scaled)
    return np.nan_to_num(points), f"{near} neighbours, minimum distance 0.1, 300 epochs"


def _graph(points: Floats, count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Each point's nearest ``count`` points, itself first, and their distances."""
    others = _nearest(points, count - 1)
    indices = np.concatenate([np.arange(len(points))[:, None], others], axis=1)
    distances = np.linalg.norm(points[indices].astype(np.float64) - points[:, None], axis=2)
    return indices.astype(np.int32), distances.astype(np.float32)


def neighbour_trust(features: Floats, points: Floats, neighbours: int = NEIGHBOURS) -> tuple[float, float, float, int]:
    """(trustworthiness, share of nearest neighbours kept, that share by chance, neighbours looked at)."""
    from sklearn.manifold import trustworthiness

    n = len(features)
    near = max(1, min(neighbours, (n - 1) // 2 - 1))
    # Venna & Kaski 2001, eq. 2
    trust = float(trustworthiness(features, points, n_neighbors=near))
    before, after = _nearest(features, near), _nearest(points, near)
    kept = float(np.mean([len(np.intersect1d(a, b)) / near for a, b in zip(before, after, strict=True)]))
    return trust, kept, near / (n - 1), near


def _nearest(points: Floats, count: int) -> NDArray[np.int64]:
    """Indices of each point's ``count`` nearest others, int64 [N, count]."""
    centred = points.astype(np.float64) - points.mean(0)
    squares = (centred**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * centred @ centred.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.argsort(distances, axis=1, kind="stable")[:, :count], np.int64)
