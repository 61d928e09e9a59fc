"""Walks through latent space: between samples, along each coordinate, and by adding what tells samples apart.

interpolate(session, start, end, method="spherical").unevenness
sweep(session).unused                                    # coordinates that do nothing
arithmetic(session, "tree", has_trees, tree_area, rng)   # success of adding "tree" against random additions
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.errors import UsageError
from gandissect.session import Session
from gandissect_plugins.directions.effects import Matrix, fresh_samples, prior_sigma

Indices = NDArray[np.int64]
Path = Literal["linear", "spherical"]
HALF_GREY = 1 / 255
"""Half a grey level of 256 in an image of range [-1, 1]: less does not change a saved picture for certain."""


@dataclass(frozen=True)
class Interpolation:
    """Pictures on the way from one latent to another.

    Attributes:
        method: "linear" or "spherical".
        images: float32 [P, F, C, H, W], F frames for each of P pairs, both ends included.
        steps: float64 [P, F - 1], root mean square pixel change from frame to frame, images in 0..1.
        unevenness: float64 [P], largest step over mean step; 1 where all are alike.
        detour: float64 [P], length of the way over the distance of its ends in pixels; 1 for a cross-fade.
        norms: float64 [P, F], length of the latent over the mean length of the ends.
    """

    method: Path
    images: Tensor
    steps: Matrix
    unevenness: Matrix
    detour: Matrix
    norms: Matrix


def between(start: Tensor, end: Tensor, fractions: Tensor, method: Path) -> Tensor:
    """Latents on the way: float32 [P, F, D] from ends [P, D] and fractions [F] or [P, F] in 0..1."""
    t = (fractions if fractions.dim() == 2 else fractions.expand(len(start), -1))[..., None]
    a, b = start[:, None], end[:, None]
    if method == "linear":
        return a + t * (b - a)
    # Shoemake 1985: sin((1-t)Ω)/sin Ω a + sin(tΩ)/sin Ω b
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-0.9999, 0.9999)[:, None, None]
    angle = torch.acos(cosine)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def interpolate(
    session: Session,
    start: Tensor,
    end: Tensor,
    *,
    steps: int = 9,
    method: Path = "spherical",
    labels: Tensor | None = None,
) -> Interpolation:
    """The way from each of ``start`` [P, D] to each of ``end`` [P, D] in ``steps`` frames, and how even it is.

    ``labels`` int64 [P] holds the class of each pair for generators that take one.
    """
    if steps < 3 or start.shape != end.shape:
        raise UsageError(
            f"needs at least 3 frames and as many starts as ends, got {steps}, {len(start)} and {len(end)}"
        )
    path = between(start, end, torch.linspace(0, 1, steps), method)
    given = None if labels is None else labels.repeat_interleave(steps)
    images = session.generate(path.flatten(0, 1), labels=given).reshape(
        len(start), steps, *session.gan.generator.image_shape
    )
    lengths = _distance(images[:, 1:], images[:, :-1])
    whole = _distance(images[:, -1], images[:, 0])
    mean = lengths.mean(1)
    norms = path.norm(dim=2).double().numpy()
    return Interpolation(
        method,
        images,
        lengths,
        np.divide(lengths.max(1), mean, out=np.ones(len(mean)), where=mean > 0),
        np.divide(lengths.sum(1), whole, out=np.ones(len(mean)), where=whole > 0),
        norms / norms[:, [0, -1]].mean(1, keepdims=True),
    )


def _distance(a: Tensor, b: Tensor) -> Matrix:
    """Root mean square difference of images in 0..1, over the last three axes."""
    return np.asarray((((a - b) / 2).double().square().mean((-3, -2, -1))).sqrt().numpy())


@dataclass(frozen=True)
class Closer:
    """The largest step of each way, looked at in eight parts.

    Attributes:
        largest: float64 [P], the largest part over the whole step: 1/8 where the step is even, 1 where it is a jump.
        step: float64 [P], root mean square pixel change of that step, images in 0..1.
    """

    largest: Matrix
    step: Matrix


def look_closer(session: Session, way: Interpolation, start: Tensor, end: Tensor, labels: Tensor | None) -> Closer:
    """Whether the largest step of each way of :func:`interpolate` (same ends and labels) gets smaller when it is divided.

    A continuous generator's does; one that jumps has a part as large as the whole step.
    """
    count, frames = len(start), way.images.shape[1]
    first = torch.from_numpy(way.steps.argmax(1)).float()[:, None] / (frames - 1)
    where = first + torch.linspace(0, 1, 9) / (frames - 1)
    path = between(start, end, where, way.method).flatten(0, 1)
    images = session.generate(path, labels=None if labels is None else labels.repeat_interleave(9))
    images = images.reshape(count, 9, *images.shape[1:])
    parts, whole = _distance(images[:, 1:], images[:, :-1]), _distance(images[:, -1], images[:, 0])
    step = np.maximum(whole, parts.max(1))
    return Closer(np.divide(parts.max(1), step, out=np.zeros(count), where=step > 0), step)


@dataclass(frozen=True)
class PathLengths:
    """Mean squared pixel change per squared step, images in 0..1, at a random place of each of P random ways.

    Attributes:
        ways: float64 [P].
        fade: float64 [P], the same of a cross-fade between the two ends, the shortest way between those pictures.
    """

    ways: Matrix
    fade: Matrix


def pixel_path_lengths(
    session: Session, *, pairs: int = 32, method: Path = "spherical", epsilon: float = 1e-3
) -> PathLengths:
    """How fast the image changes on random ways.

    The perceptual path length (Karras et al. 2019, eq. 2) with the mean squared difference of pixels in 0..1 in the place of
    LPIPS: not comparable with published values.
    """
    pairs = max(4, min(pairs, session.affordable(4 * pairs) // 4))
    latents, labels = fresh_samples(session, 2 * pairs)
    start, end = latents[:pairs], latents[pairs:]
    where = torch.from_numpy(session.rng("directions: path length").uniform(0, 1 - epsilon, (pairs, 1))).float()
    fractions = torch.cat([torch.zeros(pairs, 1), where, where + epsilon, torch.ones(pairs, 1)], 1)
    path = between(start, end, fractions, method).transpose(0, 1).flatten(0, 1)
    images = session.generate(path, labels=None if labels is None else torch.cat([labels[:pairs]] * 4))
    first, here, there, last = images.reshape(4, pairs, *images.shape[1:])
    return PathLengths(_distance(here, there) ** 2 / epsilon**2, _distance(first, last) ** 2)


@dataclass(frozen=True)
class Sweep:
    """What each coordinate of the latent does on its own, from −2σ to +2σ.

    Of a large generator only some coordinates are tried, evenly spaced; ``tried`` int64 [T] names them.

    Attributes:
        change: float64 [T], mean absolute pixel change, images in 0..1.
        largest: float64 [T], largest pixel change of any sample.
        by_sample: float64 [T, S], mean absolute pixel change of each sample.
        unused: coordinates that change no pixel by half a grey level of 256.
        seeds: samples it was measured on.
    """

    change: Matrix
    largest: Matrix
    by_sample: Matrix
    unused: tuple[int, ...]
    seeds: int
    tried: Indices


def sweep(session: Session, *, budget: int = 512) -> Sweep:
    """The effect of each latent coordinate on the image, on two to eight fresh samples (about ``budget`` images in all)."""
    size = session.gan.generator.latent.size
    seeds = max(2, min(8, budget // (2 * size)))
    latents, labels = fresh_samples(session, seeds)
    step = 2 * prior_sigma(session)
    count = min(size, max(16, session.affordable(2 * seeds * size) // (2 * seeds)))
    tried = np.linspace(0, size - 1, count).round().astype(np.int64)
    by_sample, largest = np.zeros((count, seeds)), np.zeros(count)
    for first in range(0, count, 32):
        coordinates = tried[first : first + 32].tolist()
        moved = latents.repeat(2 * len(coordinates), 1).reshape(len(coordinates), 2, seeds, size)
        for row, coordinate in enumerate(coordinates):
            moved[row, 0, :, coordinate] -= step
            moved[row, 1, :, coordinate] += step
        given = None if labels is None else labels.repeat(2 * len(coordinates))
        images = session.generate(moved.flatten(0, 2), labels=given).reshape(len(coordinates), 2, seeds, -1)
        difference = (images[:, 1] - images[:, 0]).abs().double().numpy()
        by_sample[first : first + 32] = difference.mean(2) / 2
        largest[first : first + 32] = difference.max((1, 2)) / 2
    change = by_sample.mean(1)
    typical = float(np.median(change[change > 0])) if (change > 0).any() else 0.0
    unused = tuple(int(i) for i in tried[(largest < HALF_GREY / 2) & (change <= 0.01 * typical)])
    return Sweep(change, largest, by_sample, unused, seeds, tried)


@dataclass(frozen=True)
class Arithmetic:
    """How often adding "much of it minus little of it" to other samples gives much of it.

    Attributes:
        name: what is added.
        latents: float32 [S, D], held-out samples with little of it.
        added: float32 [S, D], the same after the addition.
        success, chance: of ``tried`` samples, how many have much of it after the addition, and after a random addition of
            the same length.
        tried: number of samples.
        p: Fisher's exact p that the addition does no better than a random one.
        length: of the addition, in standard deviations of the prior.
    """

    name: str
    latents: Tensor
    added: Tensor
    labels: Tensor | None
    success: int
    chance: int
    tried: int
    p: float
    length: float


def arithmetic(
    session: Session,
    name: str,
    values: Matrix,
    measured: Callable[[Tensor], Matrix],
    rng: np.random.Generator,
    *,
    samples: int = 12,
) -> Arithmetic | None:
    """Add the mean latent of samples with much of something minus that of samples with little to held-out samples.

    The random additions are differences between the means of random groups of the same sizes, scaled to the same length.

    Args:
        session: the first ``len(values)`` samples are used.
        name: what the values are.
        values: float64 [N].
        measured: images to float64 [N'], the same quantity.
        rng: chooses what is held out and the random groups.
        samples: held-out samples to try it on.

    References:
        Radford, Metz, Chintala 2016, DCGAN, sec. 6.3.2.
    """
    from scipy.stats import fisher_exact

    latents, middle, known, much, little, base = _chosen(session, values, rng, samples)
    if len(much) < 4 or len(base) < 4:
        return None
    step = latents[much].mean(0) - latents[little].mean(0)
    noise = torch.stack([_random_step(latents, known, len(much), len(little), rng) for _ in base])
    noise = noise / noise.norm(dim=1, keepdim=True) * step.norm()
    start, labels = latents[base], _labels(session, base)
    images = session.generate(
        torch.cat([start + step, start + noise]), labels=None if labels is None else labels.repeat(2)
    )
    hits = (measured(images) > middle).reshape(2, len(base)).sum(1)
    table = [[int(hits[0]), len(base) - int(hits[0])], [int(hits[1]), len(base) - int(hits[1])]]
    p = float(fisher_exact(table, alternative="greater")[1])
    length = float(step.norm()) / prior_sigma(session)
    return Arithmetic(name, start, start + step, labels, int(hits[0]), int(hits[1]), len(base), p, length)


def _chosen(
    session: Session, values: Matrix, rng: np.random.Generator, samples: int
) -> tuple[Tensor, float, Indices, Indices, Indices, Indices]:
    """(latents, median, known samples, those with much, those with little, held-out samples with little)."""
    n = len(values)
    order = rng.permutation(n)
    known, others = order[: round(0.7 * n)], order[round(0.7 * n) :]
    middle = float(np.median(values[known]))
    ranked = known[np.argsort(values[known], kind="stable")]
    upper = ranked[-max(4, len(known) // 4) :]
    much, little = upper[values[upper] > middle], ranked[: len(upper)]
    return session.latents(n), middle, known, much, little, others[values[others] <= middle][:samples]


def _random_step(latents: Tensor, known: Indices, many: int, few: int, rng: np.random.Generator) -> Tensor:
    drawn = rng.permutation(known)[: many + few]
    return latents[drawn[:many]].mean(0) - latents[drawn[many:]].mean(0)


def _labels(session: Session, indices: Indices) -> Tensor | None:
    return session.labels(int(index) for index in indices)
