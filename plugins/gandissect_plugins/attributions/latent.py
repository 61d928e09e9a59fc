"""Which coordinates of the latent matter for a property of the image, around single samples.

found = attribute_latents(session, "brightness")
found.order[:3], found.r2.mean(), found.agreement.mean(), found.move
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gandissect.concepts import concept_areas, telling_first
from gandissect.errors import unknown_name
from gandissect.properties import COLOUR_PROPERTIES, PROPERTIES
from gandissect.sampling import prior_moments
from gandissect.session import Session
from gandissect.targets import Property
from gandissect_plugins.attributions.checks import Paired, correlation, paired
from gandissect_plugins.attributions.surrogate import fit_linear

ROTATIONS = 999
WORTH = 0.35
"""Share of the squared slope from which on a single coordinate is worth a finding."""
RIDGE = 0.1
"""Few perturbations per coordinate: some shrinkage guesses unseen images better."""
LEAST = 96
"""Perturbations per sample that a linear model is fitted on at least."""
AREAS_FROM = 64
"""Samples by whose areas the most varying concepts are chosen."""


@dataclass(frozen=True)
class LatentEffort:
    """How much is generated: ``samples`` × (``perturbations`` + coordinates + a few).

    Attributes:
        samples: around which the surrogate is fitted.
        perturbations: per sample; 0 is three for each coordinate, at least 96 and at most 768.
        coordinates: so many, drawn at random, are set to the mean of the prior one by one; 0 is all of them.
        width: standard deviation of the perturbations, in those of the prior.
        moved: coordinates that the check moves at once.
    """

    samples: int = 6
    perturbations: int = 0
    coordinates: int = 0
    width: float = 0.35
    moved: int = 3

    def fitted(self, session: Session) -> LatentEffort | None:
        """What a large generator leaves of it, so that a report takes minutes and not hours; None where that is too little.

        All of it where that is affordable; else fewer coordinates are ablated, then there are fewer perturbations.
        """
        size = session.gan.generator.latent.size
        samples, asked = max(1, min(self.samples, session.n)), self.perturbations or min(768, max(LEAST, 3 * size))
        coordinates = self.coordinates or size
        each = session.affordable(samples * (asked + coordinates + 1)) // samples
        coordinates = min(coordinates, max(32, each - asked - 1))
        perturbations = min(asked, each - coordinates - 1)
        if perturbations < min(LEAST, asked):
            return None
        return replace(self, perturbations=perturbations, coordinates=coordinates)


@dataclass(frozen=True)
class LatentAttribution:
    """What the coordinates of the latent do to one property.

    Attributes:
        name: the property.
        slopes: float64 [S, D], LIME: change of the property per standard deviation of the coordinate, around each sample.
        ablation: float64 [S, D], fall of the property when the coordinate is set to the mean of the prior; NaN for those
            that were not tried.
        r2: float64 [S], variance that the linear surrogate explains on held-out perturbations.
        agreement: float64 [S], Pearson of what the slopes predict for an ablation with the ablation itself.
        spread: standard deviation of the property over the perturbed images.
        move: change when the top coordinates move by one standard deviation, less that for random ones.
        moves: the two means: (top coordinates, random ones).
        share: squared slope of the first coordinate in ``order`` over that of all, 0..1.
        share_null: the 95 % point of that share after random rotations of the latent space.
        special: p of ``share`` among the rotations: is this coordinate more than a direction like any other?
    """

    name: str
    slopes: Tensor
    ablation: Tensor
    r2: Tensor
    agreement: Tensor
    spread: float
    move: Paired
    moves: tuple[float, float]
    share: float
    share_null: float
    special: float

    @property
    def order(self) -> list[int]:
        """Coordinates by squared slope over all samples, largest first."""
        return [int(place) for place in self.slopes.square().sum(0).argsort(descending=True, stable=True)]

    @property
    def single(self) -> bool:
        """It passed, and one coordinate carries enough to be named; whether more than by chance says ``special``."""
        return self.passed and self.share >= WORTH

    @property
    def passed(self) -> bool:
        """The surrogate is right on unseen images, ablation agrees, and moving the top coordinates does more."""
        fits = float(self.r2.median()) >= 0.5 and float(self.agreement.median()) >= 0.5
        return fits and self.move.clear


def known_properties(session: Session, concepts: int | None = None) -> tuple[Property, ...]:
    """Measured properties of images, and the areas of concepts that are more than a place.

    Args:
        session: whose images and vocabulary.
        concepts: only so many, the most telling; all where left out.
    """
    grey = session.gan.generator.image_shape[0] == 1
    measured = [Property(n, f) for n, f in PROPERTIES.items() if not (grey and n in COLOUR_PROPERTIES)]
    vocabulary = session.vocabulary
    places = [place for place, concept in enumerate(vocabulary.concepts) if not concept.spatial]
    if not places or not vocabulary.reads_pixels or concepts == 0:
        return tuple(measured)
    if concepts is not None:
        places = telling_first(vocabulary.concepts, session.areas(min(AREAS_FROM, session.n)))[:concepts]
    areas = _Areas(session, places)
    found = (Property(f"area of {vocabulary.concepts[k].name}", _Area(areas, at)) for at, k in enumerate(places))
    return (*measured, *found)


class _Areas:
    """Images -> areas of some concepts [N, K], remembered for the batch that was asked for last."""

    def __init__(self, session: Session, places: Sequence[int]) -> None:
        self._session, self._places = session, places
        self._last: tuple[Tensor, Tensor] | None = None

    def of(self, images: Tensor) -> Tensor:
        if self._last is None or self._last[0] is not images:
            self._last = images, concept_areas(self._session.segment(images, only=self._places))
        return self._last[1]


@dataclass(frozen=True)
class _Area:
    """Images -> area of one concept."""

    areas: _Areas
    index: int

    def __call__(self, images: Tensor) -> Tensor:
        return self.areas.of(images)[:, self.index]


def attribute_latents(
    session: Session, name: str | Property, *, effort: LatentEffort | None = None
) -> LatentAttribution:
    """LIME and feature ablation of the latent's coordinates for one property, by name or as a value."""
    if isinstance(name, Property):
        return attribute_all_latents(session, [name], effort=effort)[0]
    known = {item.name: item for item in known_properties(session)}
    if name not in known:
        raise unknown_name("property", name, known)
    return attribute_all_latents(session, [known[name]], effort=effort)[0]


def attribute_all_latents(
    session: Session, properties: Sequence[Property], *, effort: LatentEffort | None = None
) -> tuple[LatentAttribution, ...]:
    """:func:`attribute_latents` for several properties of the same images.

    References:
        Ribeiro et al. 2016, "Why Should I Trust You?", algorithm 1: Gaussian perturbations, kernel on the distance.
    """
    work = effort or LatentEffort()
    starts = session.latents(min(work.samples, session.n))
    labels = session.labels(range(len(starts)))
    mean, sigma = prior_moments(session.gan.generator.latent)
    around = [_around(session, place, starts, work, sigma, labels, properties) for place in range(len(starts))]
    found = []
    for number, item in enumerate(properties):
        slopes = torch.stack([row.slopes[number] for row in around])
        rng = session.rng(f"attributions/latents/{item.name}")
        change = _moved(session, item, starts, slopes, work, sigma, rng, labels)
        share, null, special = _special(slopes, rng)
        found.append(
            LatentAttribution(
                item.name,
                slopes,
                torch.stack([row.ablation[number] for row in around]),
                torch.tensor([row.r2[number] for row in around], dtype=torch.float64),
                _agreement(slopes, around, number, (starts - mean) / sigma),
                float(np.mean([row.spread[number] for row in around])),
                paired(change[0] - change[1], rng),
                (float(change[0].mean()), float(change[1].mean())),
                share,
                null,
                special,
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class _Around:
    """What was measured around one sample, for each property."""

    slopes: list[Tensor]
    r2: list[float]
    ablation: list[Tensor]
    spread: list[float]


def _around(
    session: Session,
    place: int,
    starts: Tensor,
    work: LatentEffort,
    sigma: float,
    labels: Tensor | None,
    properties: Sequence[Property],
) -> _Around:
    size = starts.shape[1]
    count = work.perturbations or min(768, max(LEAST, 3 * size))
    noise = torch.from_numpy(session.rng(f"attributions/lime/{place}").standard_normal((count, size))).float()
    start = starts[place]
    tried = _tried(session, work, size)
    without = start.repeat(len(tried), 1)
    mean = prior_moments(session.gan.generator.latent)[0]
    without[torch.arange(len(tried)), tried] = mean
    latents = torch.cat([start + work.width * sigma * noise, without, start[None]])
    given = None if labels is None else labels[place].expand(len(latents))
    images = session.generate(latents, labels=given)
    # Ribeiro et al. 2016, section 3.3: exp(-d² / w²); w² = twice the mean d² keeps the far half of the draws in play.
    distance = noise.square().mean(1)
    weights = torch.exp(-distance / 2)
    values = [item(images).double() for item in properties]
    fits = [fit_linear(work.width * noise, value[:count], weights, ridge=RIDGE) for value in values]
    ablation = [torch.full((size,), torch.nan, dtype=torch.float64) for _ in values]
    for into, value in zip(ablation, values, strict=True):
        into[tried] = value[-1] - value[count:-1]
    return _Around(
        [fit.slopes for fit in fits], [fit.r2 for fit in fits], ablation, [float(v[:count].std()) for v in values]
    )


def _tried(session: Session, work: LatentEffort, size: int) -> Tensor:
    """The coordinates that are ablated, the same around every sample: int64, ascending."""
    if not work.coordinates or work.coordinates >= size:
        return torch.arange(size)
    chosen = session.rng("attributions/coordinates").choice(size, work.coordinates, replace=False)
    return torch.from_numpy(chosen).sort().values


def _agreement(slopes: Tensor, around: Sequence[_Around], number: int, standard: Tensor) -> Tensor:
    ablation = torch.stack([row.ablation[number] for row in around])
    tried = ~ablation[0].isnan()
    return correlation((slopes * standard)[:, tried], ablation[:, tried])


def _moved(
    session: Session,
    item: Property,
    starts: Tensor,
    slopes: Tensor,
    work: LatentEffort,
    sigma: float,
    rng: np.random.Generator,
    labels: Tensor | None,
) -> Tensor:
    """Change of the property in the direction the slopes say, for (top, random other) coordinates: float [2, S]."""
    count = min(work.moved, max(1, starts.shape[1] // 2))
    top = slopes.abs().argsort(dim=1, descending=True, stable=True)
    others = torch.stack([row[count:][torch.from_numpy(rng.permutation(len(row) - count)[:count])] for row in top])
    moves = [torch.zeros_like(starts).scatter_(1, chosen, sigma) * slopes.sign() for chosen in (top[:, :count], others)]
    latents = torch.cat([starts + moves[0].float(), starts + moves[1].float(), starts])
    given = None if labels is None else labels.repeat(3)
    values = item(session.generate(latents, labels=given)).double().view(3, -1)
    return values[:2] - values[2]


def _special(slopes: Tensor, rng: np.random.Generator) -> tuple[float, float, float]:
    """(share, its 95 % point under rotations, p) of the coordinate with the largest squared slope over all samples.

    In a network that treats no coordinate apart, the matrix of slopes is as likely as any rotation of it.
    """
    total = float(slopes.square().sum())
    size = slopes.shape[1]
    if total <= 0 or size < 2:
        return 0.0, 1.0, 1.0
    share = float(slopes.square().sum(0).max()) / total
    values = torch.linalg.svdvals(slopes).numpy()
    null = np.empty(ROTATIONS)
    for draw in range(ROTATIONS):
        frame = np.linalg.qr(rng.standard_normal((size, len(values))))[0]
        null[draw] = ((frame * values) ** 2).sum(1).max() / total
    return share, float(np.quantile(null, 0.95)), (1 + int((null >= share * (1 - 1e-9)).sum())) / (1 + ROTATIONS)
