"""The health check as sections of a report.

list(Health().run(session))[0].summary   # "0 alarms and 1 things to look at in 12 checks."
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gandissect.analyzer import VECTOR, Analyzer
from gandissect.blocks import Section
from gandissect.options import option
from gandissect.reducers import KeepSpec, MomentsSpec
from gandissect.session import Activations, Images, Session, Want
from gandissect_plugins.features import Space, gather, layer_spaces
from gandissect_plugins.overview.overview import unit_health

from . import verdicts
from .checks import Check, not_asked
from .diversity import Collisions, Modes, collisions, contrast, modes, picture_rows
from .latents import LabelEffect, LatentEffects, label_effect, latent_effects
from .memory import FEWEST, Copying, Coverage, copying, coverage
from .pixels import PixelHealth, pixel_health
from .sections import (
    REFERENCES,
    latent_section,
    real_section,
    repeats_section,
    short_section,
    signal_section,
    verdict_section,
)
from .units import DuplicateUnits, duplicate_units, unit_wants

ENOUGH = 32


@dataclass(frozen=True)
class HealthOptions:
    """Options of the health check."""

    samples: int = option(256, "samples that are compared with each other and with real images")
    real: int = option(1000, "real images that are looked at")
    latents: int = option(4, "latents on which each coordinate and label is changed")
    coordinates: int = option(512, "latent coordinates that are looked at, spread evenly")


@dataclass(frozen=True)
class Compared:
    """What real images add: the training half as pictures, modes and copies."""

    fitted: Tensor
    covered: Coverage
    copied: Copying


@dataclass(frozen=True)
class Examined:
    """Everything that was measured; None where it could not be."""

    pixels: PixelHealth
    real_pixels: PixelHealth | None
    repeats: Collisions | None
    in_features: tuple[Collisions, str] | None
    kinds: Modes | None
    compared: Compared | None
    latents: LatentEffects | None
    labels: LabelEffect | None
    units: list[DuplicateUnits]


class Health(Analyzer):
    """Collapse, duplicates, memorisation, dead latents and labels, idle units, spectrum and pixels: what is wrong, if anything."""

    name = "health"
    order = 150
    references = REFERENCES
    Options: ClassVar[type] = HealthOptions
    options: HealthOptions

    def wants(self, session: Session) -> Iterable[Want]:
        n = min(session.n, self.options.samples)
        yield Want((Images(),), KeepSpec(), n)
        for info in session.gan.generator.main_layers():
            yield Want((Activations(info.name),), MomentsSpec(), session.n)
        yield from unit_wants(session.gan, session.n)
        if (space := _judged(session)) is not None and n >= ENOUGH:
            yield space.want(n)
        if session.real is not None:
            yield Want((Images(),), KeepSpec(), min(len(session.real), self.options.real), real=True)

    def run(self, session: Session) -> Iterator[Section]:
        images = session.images(min(session.n, self.options.samples))
        found = examine(session, images, self.options)
        for known in (found.latents, found.labels):
            if known is not None:
                session.remember(known)
        yield verdict_section(judge(session, found, len(images)), real=session.real is not None)
        yield short_section(session) if found.repeats is None else repeats_section(images, found.repeats, found.kinds)
        if found.compared is not None:
            yield real_section(images, found.compared.fitted, found.compared.covered, found.compared.copied)
        if found.latents is not None:
            yield latent_section(found.latents, found.labels)
        yield signal_section(found.pixels, found.real_pixels, found.units)


def examine(session: Session, images: Tensor, options: HealthOptions) -> Examined:
    """Measure everything of images float32 [N, C, H, W], the first N samples."""
    rng = session.rng("health")
    enough, vector = len(images) >= ENOUGH, session.gan.generator.latent.prior != "image"
    rows = picture_rows(images)
    real = session.real_images(options.real) if session.real is not None else None
    space = _judged(session)
    features = gather(session, space, len(images)).astype("float64") if space is not None and enough else None
    return Examined(
        pixel_health(images),
        None if real is None else pixel_health(real),
        collisions(rows, contrast(images), rng) if enough else None,
        None
        if features is None or space is None
        else (collisions(features, float((features**2).sum(1).mean()), rng), space.layer),
        modes(rows, rng) if enough else None,
        _compared(images, real, session) if real is not None and len(real) >= FEWEST and enough else None,
        latent_effects(session, samples=options.latents, at_most=options.coordinates) if vector else None,
        label_effect(session, latents=options.latents) if vector and session.gan.generator.num_classes > 1 else None,
        duplicate_units(session),
    )


def judge(session: Session, found: Examined, n: int) -> list[Check]:
    """One line for each check, also for those that could not be made."""
    few = f"needs {ENOUGH} samples (pass -n N)"
    images = f"needs at least {FEWEST} real images and {ENOUGH} samples (pass --data FOLDER)"
    checks = [verdicts.no_numbers(found.pixels, n), verdicts.empty_pictures(found.pixels, n)]
    checks.append(verdicts.repeats(found.repeats) if found.repeats else not_asked("near-duplicates among samples", few))
    if found.in_features is not None:
        checks.append(verdicts.repeats_in_features(*found.in_features))
    checks.append(verdicts.clusters(found.kinds) if found.kinds else not_asked("clusters of samples", few))
    if found.compared is not None:
        checks += [verdicts.modes_missed(found.compared.covered), verdicts.copies(found.compared.copied)]
    else:
        checks += [not_asked("modes of the real images", images), not_asked("copies of training images", images)]
    if found.latents is not None:
        checks.append(verdicts.dead_coordinates(found.latents))
    else:
        checks.append(not_asked("latent coordinates", f"needs {VECTOR}"))
    if found.labels is not None:
        checks.append(verdicts.idle_labels(found.labels))
    checks += [verdicts.idle_units(unit_health(session)), verdicts.same_units(found.units)]
    checks.append(verdicts.grid_pattern(found.pixels, found.real_pixels))
    checks.append(verdicts.high_frequencies(found.pixels, found.real_pixels))
    checks.append(verdicts.clipped_colours(found.pixels, found.real_pixels))
    return checks


def _judged(session: Session) -> Space | None:
    """The last main layer of the discriminator."""
    spaces = [space for space in layer_spaces(session.gan) if space.network == "discriminator"]
    return spaces[-1] if spaces else None


def _compared(images: Tensor, real: Tensor, session: Session) -> Compared:
    rng = session.rng("health: real images")
    order = rng.permutation(len(real))
    first, second = (torch.from_numpy(half.copy()) for half in (order[: len(order) // 2], order[len(order) // 2 :]))
    rows, fitted, held = (picture_rows(part) for part in (images, real[first], real[second]))
    return Compared(real[first], coverage(fitted, held, rows, rng), copying(fitted, held, rows, rng))
