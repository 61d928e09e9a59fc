"""The inversions a report is made of: of the generator's own images, of real ones, and of shuffled pixels.

found = measured(session, Sizes(), Effort())
found.own.error, found.control.p         # float64 [N] each
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.inverting import MOST_SAMPLES, Effort, HeldOut, Inversions, held_out, invert, rank_p
from gandissect.session import Session
from gandissect.spaces import codes

Matrix = NDArray[np.float64]
FEWEST = 20
"""Own images without which no rank gets below 0.05."""
SHORTEST = 20
"""Steps below which an inversion says more about the search than about the generator."""


@dataclass(frozen=True)
class Sizes:
    """How many images of each kind are inverted."""

    own: int = 24
    real: int = 24
    control: int = 8

    @property
    def total(self) -> int:
        """All of them."""
        return self.own + self.real + self.control


@dataclass(frozen=True)
class Tried:
    """Images of one kind and what their inversion came to.

    Attributes:
        names: what each image is called.
        images: float32 [N, C, H, W] in [-1, 1].
        found: the inversions.
        nearest: float64 [N], the root mean square difference to the nearest of the session's samples.
        p: float64 [N], share of the own images whose error is as large (for own images: of the others).
    """

    names: tuple[str, ...]
    images: Tensor
    found: Inversions
    nearest: Matrix
    p: Matrix

    @property
    def error(self) -> Matrix:
        """Root mean square difference of each image and its inversion, images in [-1, 1]: float64 [N]."""
        return self.found.error

    @property
    def maps(self) -> Tensor:
        """Mean absolute difference over channels, as a share of the whole range: float32 [N, H, W] in 0..1."""
        return (self.images - self.found.images).abs().mean(1) / 2

    @property
    def order(self) -> list[int]:
        """Places, the best inversion first."""
        return [int(place) for place in np.argsort(self.error, kind="stable")]


@dataclass(frozen=True)
class Measured:
    """All inversions of one report.

    Attributes:
        own: the generator's own held-out images: what its error is where the answer exists.
        real: real images; None where there are none.
        control: images whose pixels were put in random places: they must be worse.
        worse: p that the control's errors are no larger than the own images' (Mann & Whitney).
        beyond: the same of real images; 1 where there are none.
        cosine: float64 [N], |cosine| of each own image's latent with the one that was found, in standard deviations.
        chance: the mean |cosine| of latents that do not belong together.
        recovered: float64 [D], correlation of each coordinate's true and found value over the own images.
        adjusted: float64 [D], p of that, one-sided, at a controlled false-discovery rate.
        classes: share of the own images found under their own class; None for a generator without classes.
        effort: what was tried.
    """

    own: Tried
    real: Tried | None
    control: Tried
    worse: float
    beyond: float
    cosine: Matrix
    chance: float
    recovered: Matrix
    adjusted: Matrix
    classes: float | None
    effort: Effort

    @property
    def sound(self) -> bool:
        """Own images come back better than shuffled pixels: the search finds what is there."""
        return self.worse < 0.05


def affordable(session: Session, sizes: Sizes, effort: Effort) -> tuple[Sizes, Effort] | None:
    """What a large generator leaves of it, so that a report takes minutes; None where that is too little.

    Images go first, down to 20 of each kind, then steps, down to 20.
    """
    wanted = sizes.total * effort.images
    most = session.affordable(wanted)
    if most >= wanted:
        return sizes, effort
    kinds = 2 if sizes.real else 1
    each = max(FEWEST, (most // effort.images - sizes.control) // kinds)
    fewer = Sizes(min(sizes.own, each), min(sizes.real, each), sizes.control)
    steps = min(effort.steps, int(effort.steps * most / (fewer.total * effort.images)))
    return None if steps < min(SHORTEST, effort.steps) else (fewer, replace(effort, steps=steps))


def measured(session: Session, sizes: Sizes, effort: Effort, space: str = "") -> Measured:
    """Invert held-out samples, real images spread evenly over those given, and images of shuffled pixels, all alike.

    Args:
        session: its first samples, 1000 at most, are what starts are chosen from.
        sizes: how many of each; real images only where there are any.
        effort: how hard to try.
        space: the latent where left out, or an inner space.
    """
    own = held_out(session, sizes.own)
    places = _spread(len(session.real), sizes.real) if session.real is not None else []
    real = session.real.batch(places) if session.real is not None and places else own.images[:0]
    control = _shuffled(session, real if len(real) >= sizes.control else own.images, sizes.control)
    images = torch.cat([own.images, real, control])
    found = invert(session, images, effort, space=space)
    near = _to_nearest(session, images)
    errors = found.error[: sizes.own]
    names = (
        [session.sample_name(session.n + i) for i in range(sizes.own)]
        + [f"real image {place}" for place in places]
        + [f"shuffled pixels {i}" for i in range(len(control))]
    )

    def part(start: int, stop: int, p: Matrix) -> Tried:
        return Tried(tuple(names[start:stop]), images[start:stop], found.part(start, stop), near[start:stop], p)

    first, last = sizes.own, sizes.own + len(real)
    tried = part(0, first, (errors[None] >= errors[:, None]).sum(1) / len(errors))
    beyond = part(first, last, rank_p(found.error[first:last], errors)) if places else None
    shuffled = part(last, len(images), rank_p(found.error[last:], errors))
    cosine, chance, recovered, p = _recovered(session, own, tried.found)
    return Measured(
        tried,
        beyond,
        shuffled,
        _larger(shuffled.error, errors),
        _larger(beyond.error, errors) if beyond else 1.0,
        cosine,
        chance,
        recovered,
        p,
        _same_class(own, tried.found),
        effort,
    )


def _spread(count: int, at_most: int) -> list[int]:
    """Places evenly over ``count`` images: folders are often sorted by class."""
    return [int(i * count / min(count, at_most)) for i in range(min(count, at_most))]


def _shuffled(session: Session, images: Tensor, count: int) -> Tensor:
    """The first ``count`` images with their pixels in random places, the same for all channels."""
    rng = session.rng("inversion: shuffled pixels")
    flat = images[:count].flatten(2)
    orders = [torch.from_numpy(rng.permutation(flat.shape[2])) for _ in range(len(flat))]
    return torch.stack([row[:, order] for row, order in zip(flat, orders, strict=True)]).reshape(images[:count].shape)


def _to_nearest(session: Session, images: Tensor) -> Matrix:
    """Root mean square difference of each image to the nearest of the session's samples: float64 [N]."""
    samples = session.images(min(session.n, MOST_SAMPLES)).flatten(1)
    nearest = torch.cdist(images.flatten(1), samples).amin(1).double()
    return np.asarray(nearest.numpy() / images[0].numel() ** 0.5)


def _larger(errors: Matrix, own: Matrix) -> float:
    """One-sided p that ``errors`` are no larger than ``own`` (Mann & Whitney 1947)."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(errors, own, alternative="greater").pvalue)


def _recovered(session: Session, own: HeldOut, found: Inversions) -> tuple[Matrix, float, Matrix, Matrix]:
    """|cosine| of true and found points, its mean over pairs that do not belong together, correlation by coordinate, its p."""
    from scipy.stats import t

    from gandissect.trust import adjusted

    points = codes(session, found.space, own.latents, own.labels)
    spread = codes(session, found.space, session.latents(min(session.n, MOST_SAMPLES)), _labels(session)).double()
    middle, scale = spread.mean(0).flatten(), spread.std(0).flatten().clamp(min=1e-12)
    true, guess = ((rows.double().flatten(1) - middle) / scale for rows in (points, found.points))
    cosines = torch.nn.functional.normalize(true) @ torch.nn.functional.normalize(guess).T
    count = len(true)
    apart = cosines.abs()[~torch.eye(count, dtype=torch.bool)].mean()
    a, b = (rows - rows.mean(0) for rows in (true, guess))
    size = (a.square().sum(0) * b.square().sum(0)).sqrt()
    r = torch.where(size > 1e-9, (a * b).sum(0) / size.clamp(min=1e-9), 0.0).clamp(-1 + 1e-12, 1 - 1e-12).numpy()
    p = t.sf(r * np.sqrt((count - 2) / (1 - r * r)), count - 2)
    return cosines.diagonal().abs().numpy(), float(apart), r, adjusted(p)


def _labels(session: Session) -> Tensor | None:
    return session.labels(range(min(session.n, MOST_SAMPLES)))


def _same_class(own: HeldOut, found: Inversions) -> float | None:
    if own.labels is None or found.labels is None:
        return None
    return float((own.labels.cpu() == found.labels.cpu()).double().mean())
