"""Latent directions as sections of a report.

list(LatentDirections({"layer": "layer1", "count": 8}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section
from gandissect.errors import NoSuchCapability
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Session, Want

from .basis import Directions, activation_want, ganspace, sefa
from .effects import concept_rulers, property_rulers, random_baseline
from .probe_section import find_probes, probe_section
from .probes import FEWEST
from .references import HARKONEN, SHEN, SHEN_ZHOU
from .unlabelled_section import unlabelled_section
from .walk_sections import arithmetic_section, interpolation_section, sweep_section

LARGEST_LATENT = 2048
FEWEST_SEEDS = 4
"""Fresh samples that effects are measured on at least."""


@dataclass(frozen=True)
class DirectionOptions:
    """Options of the analysis of latent directions."""

    samples: int = option(1000, "samples that directions are fitted on")
    layer: str = option("", "layer whose principal components GANSpace takes; the first main layer where empty")
    count: int = option(5, "directions of GANSpace and of SeFa")
    concepts: int = option(4, "concepts that are probed, the most telling")
    baseline: int = option(24, "random directions that every direction is compared with")
    seeds: int = option(16, "fresh samples that effects are measured on")
    strips: int = option(6, "strips of pictures in each section")


def _affordable(session: Session, options: DirectionOptions) -> tuple[int, int]:
    """(samples that effects are measured on, strips): fewer for a generator whose images cost much."""
    directions = (
        3 * options.baseline + 4 * options.count + 20
    )  # of properties, of concepts with half the samples, probes
    affordable = session.affordable(directions * options.seeds)
    seeds = max(FEWEST_SEEDS, affordable // directions)
    return min(seeds, options.seeds), options.strips if seeds >= options.seeds else min(options.strips, 2)


class LatentDirections(Analyzer):
    """Probes, GANSpace and SeFa against random directions; coordinates, interpolation, arithmetic."""

    name = "directions"
    order = 450
    needs = Needs(latent_vector=True)
    references = (HARKONEN, SHEN_ZHOU, SHEN)
    Options: ClassVar[type] = DirectionOptions

    def wants(self, session: Session) -> Iterable[Want]:
        options = cast(DirectionOptions, self.options)
        yield Want((Images(),), KeepSpec(), session.n)
        if session.vocabulary.concepts:
            yield Want((Areas(),), KeepSpec(), session.n)
        layer = self._layer(session)
        if layer:
            yield activation_want(session, layer, min(session.n, options.samples))

    def _layer(self, session: Session) -> str:
        """The layer of GANSpace; empty for a generator that shows none."""
        wanted = cast(DirectionOptions, self.options).layer
        if wanted:
            return session.gan.generator.layer(wanted).name
        main = session.gan.generator.main_layers()
        return main[0].name if main else ""

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(DirectionOptions, self.options)
        n, size = min(session.n, options.samples), session.gan.generator.latent.size
        if size > LARGEST_LATENT or n < FEWEST:
            what = f"latents of at most {LARGEST_LATENT} numbers and at least {FEWEST} samples"
            yield Section(
                "Latent directions", summary=f"needs {what}; here {size} and {n} (--samples N)", status="skipped"
            )
            return
        seeds, strips = _affordable(session, options)
        note = (
            "" if seeds == options.seeds else f"This generator is large: effects are measured on {seeds} fresh samples."
        )
        rulers = property_rulers(session, n, seeds)
        concepts = concept_rulers(session, n, options.concepts, max(2, seeds // 2))
        baseline = random_baseline(session, rulers, options.baseline)
        of_concepts = random_baseline(session, concepts, options.baseline if concepts.names else 0)
        probes = find_probes(session, n, rulers, concepts, (baseline, of_concepts))
        yield probe_section(session, probes, strips, note)
        found, missing = self._unlabelled(session, n)
        yield unlabelled_section(session, found, missing, rulers, baseline, strips)
        yield sweep_section(session)
        yield interpolation_section(session)
        yield arithmetic_section(session, n, rulers, concepts)

    def _unlabelled(self, session: Session, n: int) -> tuple[list[Directions], list[str]]:
        """What GANSpace and SeFa found, and what could not be run and why."""
        options = cast(DirectionOptions, self.options)
        found, missing = [], []
        layer = self._layer(session)
        if layer:
            found.append(ganspace(session, layer, options.count, n=n))
        else:
            missing.append("GANSpace needs readable layers, and this format hides them.")
        try:
            found.append(sefa(session.gan.generator, options.count))
        except NoSuchCapability as reason:
            missing.append(f"SeFa is left out: {reason}.")
        return found, missing
