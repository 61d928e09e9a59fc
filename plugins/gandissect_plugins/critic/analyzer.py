"""The discriminator as sections of a report.

list(DiscriminatorCheck({"attacked": 8}).run(session))[0].summary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section
from gandissect.options import option
from gandissect.real import RealImages
from gandissect.reducers import KeepSpec
from gandissect.session import Images, Session, Want
from gandissect.streams import Scores as ScoreStream
from gandissect_plugins.attributions.trained import trained_p

from .belonging import belonging, doubted, headed
from .fragility import fragility
from .gaze import gaze
from .perturbed import perturbations
from .sections import (
    REFERENCES,
    Told,
    fragility_section,
    gaze_section,
    order_section,
    prefers_spoilt,
    scores_section,
)
from .standing import SATURATED, Scores, is_silent, separation, standing
from .unit_section import REFERENCES as UNIT_REFERENCES
from .unit_section import TITLE as UNIT_TITLE
from .unit_section import misled, unit_section
from .units import unit_verdicts

NO_LAYER = "no layer of the generator that can be edited has eight units to compare"


@dataclass(frozen=True)
class DiscriminatorOptions:
    """Options of the discriminator's check."""

    samples: int = option(256, "samples whose scores are looked at")
    real: int = option(1000, "real images whose scores are looked at")
    held_out: str = option("", "folder of real images that training has not seen")
    spoilt: int = option(64, "images that are given noise, blurred and shuffled")
    attacked: int = option(16, "samples that are attacked")
    covered: int = option(8, "samples of which one place after another is covered")
    shown: int = option(8, "samples shown at each end of the scores")
    units: int = option(8, "units of each of three layers that are switched off, 0 for none")


class DiscriminatorCheck(Analyzer):
    """Score distributions, most and least real samples, fragility, where it looks, what the generator's units do to the score."""

    name = "discriminator"
    order = 275
    needs = Needs(discriminator=True)
    references = REFERENCES
    Options: ClassVar[type] = DiscriminatorOptions
    options: DiscriminatorOptions

    def wants(self, session: Session) -> Iterable[Want]:
        n = min(session.n, self.options.samples)
        yield Want((Images(),), KeepSpec(), n)
        yield Want((ScoreStream(),), KeepSpec(), n)
        if session.real is not None:
            m = min(len(session.real), self.options.real)
            yield Want((Images(),), KeepSpec(), m, real=True)
            yield Want((ScoreStream(),), KeepSpec(), m, real=True)

    def run(self, session: Session) -> Iterator[Section]:
        n = min(session.n, self.options.samples)
        images, scores = session.images(n), _numbers(session.scores(n))
        real = session.real_images(self.options.real) if session.real is not None else None
        own = belonging(session, images, real)
        if own is None or not own.foreign:
            yield from self._sections(session, images, scores)
            return
        first, *rest = map(doubted, self._sections(session, images, scores))
        yield headed(first, own.finding())
        yield from rest

    def _sections(self, session: Session, images: Tensor, scores: Scores) -> Iterator[Section]:
        told = self._told(session, images, scores)
        yield scores_section(session, told)
        yield order_section(session, images, scores, self.options.shown)
        if told.silent:
            return
        yield self._fragility(session, images, told)
        yield gaze_section(gaze(session, images[: self.options.covered], session.rng("discriminator: places")))
        if self.options.units:
            yield self._units(session, images)

    def _told(self, session: Session, images: Tensor, generated: Scores) -> Told:
        """Scores of every kind of image, and the comparisons among them."""
        rng = session.rng("discriminator: scores")
        scores, pairs = {"generated": generated}, []
        few = self.options.spoilt
        for name, spoilt in perturbations(images[:few], rng).items():
            scores[f"generated, {name}"] = _numbers(session.score(spoilt))
        if session.real is not None:
            pictures = session.real_images(self.options.real)
            scores["real"] = _numbers(session.scores(len(pictures), real=True))
            for name, spoilt in perturbations(pictures[:few], rng).items():
                scores[f"real, {name}"] = _numbers(session.score(spoilt))
        if self.options.held_out:
            held = RealImages.from_source(self.options.held_out, session.gan.generator.image_shape)
            scores["held out"] = _numbers(session.score(held.batch(range(min(len(held), self.options.real)))))
        if "real" in scores:
            pairs += [("real", "held out")] if "held out" in scores else []
        pairs += [("held out", "generated")] if "held out" in scores else []
        pairs += [(name.partition(",")[0], name) for name in scores if "," in name]
        told = [(a, b, separation(scores[a], scores[b], rng)) for a, b in pairs]
        stand = standing(scores["real"], generated, rng) if "real" in scores else None
        if stand is not None:
            told.insert(0, ("real", "generated", stand.separation))
        whole = np.concatenate(list(scores.values()))
        saturated = stand.saturated if stand is not None else float((np.abs(generated) > SATURATED).mean())
        trained = self._trained(session, images) if prefers_spoilt(told) is not None else 1.0
        return Told(scores, told, stand, saturated, is_silent(whole), trained)

    def _trained(self, session: Session, images: Tensor) -> float:
        assert session.gan.discriminator is not None
        few = images[: self.options.covered]
        labels = session.labels(range(len(few)), "discriminator")
        return trained_p(session.gan.discriminator, few, 49, session.rng("discriminator: trained"), labels=labels)

    def _units(self, session: Session, images: Tensor) -> Section:
        needs = Needs(discriminator_gradients=True, gradients=True, edits=True)
        why = needs.missing(session)
        found = None if why else unit_verdicts(session, self.options.units, session.rng("discriminator: units"))
        if found is None:
            words = f"{why or NO_LAYER}; `--set discriminator.units=0` leaves this out"
            return Section(UNIT_TITLE, summary=words, status="skipped", references=UNIT_REFERENCES)
        return unit_section(found, self._trained(session, images) if misled(found) else 1.0)

    def _fragility(self, session: Session, images: Tensor, told: Told) -> Section:
        discriminator = session.gan.discriminator
        assert discriminator is not None
        if not session.gan.capabilities.discriminator_gradients:
            why = "needs gradients through the discriminator (this format gives none)"
            return Section("Adversarial fragility", summary=why, status="skipped", references=REFERENCES)
        few = images[: self.options.attacked]
        threshold = 0.0
        if "real" in told.scores:
            threshold = float(np.median(told.scores["real"]) + np.median(told.scores["generated"])) / 2
        labels = session.labels(range(len(few)), "discriminator")
        rng = session.rng("discriminator: attacks")
        return fragility_section(fragility(discriminator, few, threshold=threshold, rng=rng, labels=labels))


def _numbers(scores: Tensor) -> Scores:
    return np.asarray(np.nan_to_num(scores.double().numpy()), np.float64)
