"""Conditions of a generator as sections of a report.

list(Conditions({"codes": "24-33,34,35"}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from gandissect.analyzer import Analyzer
from gandissect.blocks import Section
from gandissect.options import option
from gandissect.session import Session, Want
from gandissect_plugins.health import LabelEffect

from .condition import Condition, conditions_of
from .effect_sections import effect_section, sweep_section
from .evidence import Evidence, gathered, properties_of, wanted
from .paired import Paired, paired
from .probe import Leak, Probe, leak, probe, simple_features
from .references import CHEN, MIRZA
from .told_sections import classes_section, information_section, units_section

NONE = (
    "needs a condition: this generator takes no class labels and its file names no codes "
    "(--set conditions.codes=24-33,34 says which latent coordinates are a one-hot code and which a continuous one)"
)


@dataclass(frozen=True)
class ConditionsOptions:
    """Options of the analysis of conditions."""

    codes: tuple[str, ...] = option((), "latent coordinates that are codes: 34 a continuous one, 24-33 a one-hot one")
    values: int = option(16, "values of one condition that are looked at, spread evenly")
    samples: int = option(1000, "samples that the tests on independent samples take at most")


class Conditions(Analyzer):
    """What classes and codes do to the images, whether they do anything, and which of them look the same."""

    name = "conditions"
    order = 440
    references = (MIRZA, CHEN)
    Options: ClassVar[type] = ConditionsOptions

    def wants(self, session: Session) -> Iterable[Want]:
        return wanted(session, self._conditions(session), self._count(session))

    def run(self, session: Session) -> Iterator[Section]:
        conditions = self._conditions(session)
        if not conditions:
            yield Section("Conditions", summary=NONE, status="skipped")
            return
        found = [paired(session, one, conditions) for one in conditions]
        seen = gathered(session, conditions, self._count(session))
        probes, leaks = _probes(session, found, seen)
        yield sweep_section(session, found)
        yield effect_section(found, probes, session.recall(LabelEffect))
        yield information_section(session, conditions, seen)
        yield classes_section(conditions, probes, leaks)
        yield units_section(session, conditions, seen)

    def _conditions(self, session: Session) -> tuple[Condition, ...]:
        options = cast(ConditionsOptions, self.options)
        return conditions_of(session.gan.generator, options.codes, max(2, options.values))

    def _count(self, session: Session) -> int:
        return min(session.n, cast(ConditionsOptions, self.options).samples)


def _probes(
    session: Session, found: Sequence[Paired], seen: Evidence
) -> tuple[Mapping[str, Probe | None], Mapping[str, Leak]]:
    """A probe for each condition, and what it answers on the paired images of discrete ones."""
    features = simple_features(seen.images, _rows(seen.properties))
    probes: dict[str, Probe | None] = {}
    leaks = {}
    for one in found:
        name, discrete = one.condition.name, one.condition.discrete
        asked = simple_features(one.images.flatten(0, 1), _rows(properties_of(one.images.flatten(0, 1))))
        groups = one.condition.groups(seen.given)
        probes[name] = seen_by = probe(features, groups, asked, session.rng(f"probe: {name}"))
        if discrete and seen_by is not None:
            answers = seen_by.answers.reshape(len(one.images), len(one.condition.values))
            leaks[name] = leak(answers, session.rng(f"leak: {name}"))
    return probes, leaks


def _rows(properties: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(properties.values()), 1)
