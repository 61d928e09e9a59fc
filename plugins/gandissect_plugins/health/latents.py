"""What each latent coordinate, and the label, does to the image.

effects = latent_effects(session)
effects.dead                             # (5,) where coordinate 5 changes nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.gan import LatentSpace
from gandissect.session import BLOCK, Session

NOTHING = 1e-8
"""Part of the variance of images up to which a change counts as rounding."""
WEAK = 0.01
"""Part of the median coordinate's effect below which a coordinate is called weak."""
LARGE = 2**18
TRIED = 16
SUSPECTS = 64
PART = 4
"""One part in so many of what a session can afford goes to this check."""


@dataclass(frozen=True)
class LatentEffects:
    """The effect of single coordinates.

    Attributes:
        coordinates: those that were looked at, of ``size``.
        effect: float64 [K], half the mean squared change of an image, as a part of the variance of images.
        floor: the same when nothing is changed; 0 for a deterministic generator.
        samples: so many latents were changed in each coordinate.
    """

    coordinates: tuple[int, ...]
    effect: NDArray[np.float64]
    floor: float
    samples: int
    size: int

    @property
    def dead(self) -> tuple[int, ...]:
        """Coordinates that change nothing, beyond what a second run changes."""
        level = max(NOTHING, 2 * self.floor)
        return tuple(c for c, value in zip(self.coordinates, self.effect, strict=True) if value <= level)

    @property
    def typical(self) -> float:
        """The median effect of the coordinates that are not dead; 0 where all are."""
        dead = self.dead
        living = [value for c, value in zip(self.coordinates, self.effect, strict=True) if c not in dead]
        return float(np.median(living)) if living else 0.0

    @property
    def weak(self) -> tuple[int, ...]:
        """Coordinates that are not dead but have less than ``WEAK`` of the typical effect."""
        level, dead = WEAK * self.typical, self.dead
        found = zip(self.coordinates, self.effect, strict=True)
        return tuple(c for c, value in found if value < level and c not in dead)


@dataclass(frozen=True)
class LabelEffect:
    """What other labels do to the same latents.

    Attributes:
        between: variance of images over labels, latents fixed, as a part of the variance of images.
        latent: variance over latents, labels fixed, likewise.
        same: classes whose images are those of the first class, of ``classes`` that were looked at.
    """

    between: float
    latent: float
    same: tuple[int, ...]
    classes: tuple[int, ...]
    latents: int

    @property
    def idle(self) -> bool:
        """No label changes anything."""
        return self.between <= NOTHING


def half_turn(values: Tensor, latent: LatentSpace) -> Tensor:
    """Values as far away as the prior allows: each one's quantile u becomes u + ½, modulo 1. Same shape, same prior.

    Every sign changes, and nearly every magnitude, so that one step shows any dependence.
    """
    low, high = latent.span
    if latent.prior == "uniform":
        turned: Tensor = low + torch.remainder(values.double() - low + (high - low) / 2, high - low)
        return turned
    quantile = torch.remainder(torch.special.ndtr(values.double()) + 0.5, 1.0).clamp(1e-6, 1 - 1e-6)
    turned = torch.special.ndtri(quantile)
    return turned


def latent_effects(session: Session, *, samples: int = 4, at_most: int = 512) -> LatentEffects:
    """Change one coordinate at a time by a half turn of its prior, on the same latents for all coordinates.

    What seems to do nothing is tried again on 16 latents, with both ends of the prior as well: a unit that answers to rare
    values alone is not dead.

    Args:
        session: its generator draws from a vector.
        samples: latents that are changed, the first so many.
        at_most: coordinates, evenly spread; fewer where the generator is too large for so many images.
    """
    latent = session.gan.generator.latent
    m = min(samples, session.n)
    affordable = max(session.affordable(PART * at_most * m) // (PART * m), 8)
    chosen = spread(range(latent.size), min(at_most, affordable))
    variance = image_variance(session)
    base = session.latents(m)
    effect = _changes(session, base, [half_turn(base, latent).float()], chosen).numpy() / (2 * variance)
    labels = session.labels(range(m))
    again = _squares(session.generate(base, labels=labels) - session.generate(base, labels=labels)).mean()
    found = LatentEffects(chosen, effect, float(again) / (2 * variance), m, latent.size)
    suspects = found.dead[:SUSPECTS]
    if suspects:
        base = session.latents_at(range(TRIED))
        others = [half_turn(base, latent).float(), *(torch.full_like(base, end) for end in _ends(latent))]
        second = _changes(session, base, others, suspects).numpy() / (2 * variance)
        effect[[chosen.index(place) for place in suspects]] = second
        left = found.dead  # those beyond SUSPECTS were not tried again: leave them out
        keep = [row for row, place in enumerate(chosen) if place not in left or place in suspects]
        found = replace(found, coordinates=tuple(chosen[row] for row in keep), effect=effect[keep])
    return found


def _ends(latent: LatentSpace) -> tuple[float, float]:
    return latent.span if latent.prior == "uniform" else (-3.09, 3.09)  # the 0.1 % and 99.9 % points


def _changes(session: Session, z: Tensor, others: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """The largest mean squared change of the images of ``z`` [m, D] when a coordinate takes its value in one of ``others``.

    Returns:
        float64 [K], added up over pixels.
    """
    m, labels = len(z), session.labels(range(len(z)))
    images = session.generate(z, labels=labels)
    group = max(1, (BLOCK if images[0].numel() > LARGE else 4 * BLOCK) // m)
    change = torch.zeros(len(others), len(places), dtype=torch.float64)
    for start in range(0, len(places), group):
        chunk = places[start : start + group]
        for row, other in enumerate(others):
            edited = z.repeat(len(chunk), 1)
            for turn, place in enumerate(chunk):
                edited[turn * m : (turn + 1) * m, place] = other[:, place]
            found = session.generate(edited, labels=None if labels is None else labels.repeat(len(chunk)))
            squares = _squares(found - images.repeat(len(chunk), 1, 1, 1))
            change[row, start : start + len(chunk)] = squares.reshape(len(chunk), m).mean(1)
    return change.amax(0)


def label_effect(session: Session, *, latents: int = 4, at_most: int = 12) -> LabelEffect:
    """The same latents with different labels, and the same labels with different latents.

    Args:
        session: its generator takes labels.
        latents: how many.
        at_most: labels, evenly spread.
    """
    generator = session.gan.generator
    classes = spread(range(generator.num_classes), at_most)
    m, k = max(2, min(latents, session.n)), len(classes)
    z = session.latents_at(range(m))
    labels = torch.tensor(classes, device=generator.device).repeat_interleave(m)
    images = torch.nan_to_num(session.generate(z.repeat(k, 1), labels=labels)).double().reshape(k, m, -1)
    variance = float(images.flatten(0, 1).var(0).sum())
    if variance <= 0:
        return LabelEffect(0.0, 0.0, classes[1:], classes, m)
    change = (images - images[:1]).square().sum(2).mean(1) / (2 * variance)
    same = tuple(label for label, value in zip(classes[1:], change[1:].tolist(), strict=True) if value <= NOTHING)
    between = float(images.var(0).sum(1).mean()) / variance if k > 1 else 0.0
    return LabelEffect(between, float(images.var(1).sum(1).mean()) / variance, same, classes, m)


def image_variance(session: Session) -> float:
    """The variance of images over samples, added up over pixels; at least a rounding's worth."""
    images = torch.nan_to_num(session.images(min(session.n, 64)).double()).flatten(1)
    return max(float(images.var(0).sum()) if len(images) > 1 else 0.0, 1e-12 * images.shape[1])


def _squares(difference: Tensor) -> Tensor:
    return torch.nan_to_num(difference.double()).square().flatten(1).sum(1)
