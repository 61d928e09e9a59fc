"""Surrogates as sections of a report.

list(Surrogates({"layers": 2}).run(session))[0].summary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Scores, Session, Want

from .critic_section import TITLE, Explained, critic_section, explain_scores
from .evidence import Features, grouped, picture_features, sources, unit_layers, unit_want, units_of
from .heldout import Flags, Judge, split
from .importance_section import Case, Weighed, importance_section, weigh
from .models import Tree
from .reading import Reading, reading_section, readings
from .references import OF_TREES

FEWEST = 40
TRAIN = 0.6
SAME = 1e-6


@dataclass(frozen=True)
class SurrogateOptions:
    """Options of the surrogates."""

    samples: int = option(1000, "samples that surrogates are fitted to and tested on")
    concepts: int = option(48, "concepts that are looked at, the most telling")
    read: int = option(12, "concepts, the most telling, that are read from latents and units")
    layers: int = option(4, "layers whose units are read, spread over depth")
    targets: int = option(2, "properties and concepts, the best explained, whose importances are measured")


class Surrogates(Analyzer):
    """Models small enough to be read: rules for the discriminator, what latents and units say, which of them matter."""

    name = "surrogates"
    order = 460
    needs = Needs()
    Options: ClassVar[type] = SurrogateOptions
    options: SurrogateOptions

    def wants(self, session: Session) -> Iterable[Want]:
        n = min(session.n, self.options.samples)
        yield Want((Images(),), KeepSpec(), n)
        if session.vocabulary.concepts:
            yield Want((Areas(),), KeepSpec(), n)
        if session.gan.discriminator is not None:
            yield Want((Scores(),), KeepSpec(), n)
        for layer in unit_layers(session, self.options.layers):
            yield unit_want(layer, n)

    def run(self, session: Session) -> Iterator[Section]:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

        n = min(session.n, self.options.samples)
        if n < FEWEST:
            yield Section("Surrogates", summary=f"needs at least {FEWEST} samples (--samples N)", status="skipped")
            return
        with threadpool_limits(limits=1):
            yield from self._sections(session, n)

    def _sections(self, session: Session, n: int) -> Iterator[Section]:
        picture = picture_features(session, n, self.options.concepts)
        fitted = split(n, session.rng("surrogates: held out"), TRAIN)
        judge = Judge(int((~fitted).sum()), session.rng("surrogates: resampling"))
        section, cases = _of_scores(session, picture, fitted, judge)
        yield section
        told = picture.best(self.options.read)
        found = readings(told, sources(session, n, self.options.layers), fitted, judge) if told.names else []
        yield reading_section(found)
        cases += _best(session, picture, found, self.options.targets)
        weighed: list[Weighed] = [weigh(session, case, fitted, judge) for case in cases]
        yield importance_section(weighed)


def _of_scores(session: Session, picture: Features, fitted: Flags, judge: Judge) -> tuple[Section, list[Case]]:
    """The discriminator's section, and its best model of the logit where that beats chance."""
    why = ""
    if session.gan.discriminator is None:
        why = "needs a discriminator (pass --discriminator FILE)"
    else:
        scores = np.nan_to_num(session.scores(len(fitted)).double().numpy())
        if np.ptp(scores) <= SAME * (SAME + np.abs(scores).max()):
            why = "needs a discriminator that tells samples apart: this one gives all the same score"
        elif not picture.names:
            why = "needs pictures that differ: nothing that is measured varies (--samples N makes more)"
    if why:
        return Section(TITLE, summary=why, status="skipped", references=OF_TREES), []
    found: Explained = explain_scores(picture, scores, fitted, judge)
    model, test = found.best
    beyond = test.p <= 0.01 and test.low > 0
    case = Case("the discriminator's logit", _said(found.features, model), model, scores, test)
    return critic_section(session, found, scores), [case] if beyond else []


def _said(picture: Features, model: object) -> Features:
    kind = "concepts, by a tree" if isinstance(model, Tree) else "concepts"
    return Features(picture.names, picture.values, picture.areas, kind)


def _best(session: Session, picture: Features, found: Sequence[Reading], count: int) -> list[Case]:
    """What the first source (the latents, where there are any) explains best, read from it and from the units of a middle layer.

    Of targets that go together only the best explained one is taken.
    """
    whats = list(dict.fromkeys(one.source.what for one in found))
    layers = {units_of(info.name): info.name for info in session.gan.generator.layers}
    units = [what for what in whats if what in layers]
    chosen = [what for what in whats if what not in layers] + units[len(units) // 2 :][:1]
    passed = sorted((one for one in found if one.passed), key=lambda one: -one.test.value)
    group_of = {picture.names[i]: group for group in grouped(picture.values) for i in group}
    first: dict[tuple[int, ...], str] = {}
    for one in passed:
        if one.source.what == chosen[0]:
            first.setdefault(group_of[one.target], one.target)
    targets = list(first.values())[:count]
    by_place = {(one.source.what, one.target): one for one in passed}
    cases = []
    for place in ((what, target) for what in chosen for target in targets):
        if place in by_place:
            best = by_place[place]
            truth = picture.values[:, picture.names.index(best.target)]
            cases.append(Case(best.target, best.source, best.model, truth, best.test, layers.get(place[0], "")))
    return cases
