"""Latent directions as sections of a report.

list(LatentDirections({"layer": "layer1", "count": 8}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section
from gandissect.errors import NoSuchCapability
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Session, Want

from .basis import Directions, activation_want, ganspace, sefa
from .comparison_section import Row, comparison_section, logistic_part, rows_of
from .contrastive import affordable, latentclr
from .effects import Baseline, Effects, Rulers, concept_rulers, measure_effects, property_rulers, random_baseline
from .ica import ica
from .interfacegan import interfacegan
from .layer_sections import layer_sections
from .probe_section import Probed, find_probes, headlines, probe_section
from .probes import FEWEST
from .references import HARKONEN, HYVARINEN, SHEN, SHEN_ZHOU, YANG, YUKSEL
from .unlabelled_section import unlabelled_findings, unlabelled_section

LARGEST_LATENT = 2048
FEWEST_SEEDS = 4
"""Fresh samples that effects are measured on at least."""


@dataclass(frozen=True)
class DirectionOptions:
    """Options of the analysis of latent directions."""

    samples: int = option(1000, "samples that directions are fitted on")
    layer: str = option("", "layer whose components GANSpace and ICA take; the first main layer where empty")
    count: int = option(5, "directions of each method that needs no labels")
    contrast: str = option("", "layer whose changes LatentCLR compares; the middle main layer where empty")
    concepts: int = option(4, "concepts that are probed, the most telling")
    baseline: int = option(24, "random directions that every direction is compared with")
    seeds: int = option(16, "fresh samples that effects are measured on")
    strips: int = option(6, "strips of pictures in each section")


def _affordable(session: Session, options: DirectionOptions) -> tuple[int, int]:
    """(samples that effects are measured on, strips): fewer for a generator whose images cost much."""
    # random ones for properties and, with half the samples, for concepts; five methods; probes and InterFaceGAN
    directions = 3 * options.baseline + 10 * options.count + 36
    affordable = session.affordable(directions * options.seeds)
    seeds = max(FEWEST_SEEDS, affordable // directions)
    return min(seeds, options.seeds), options.strips if seeds >= options.seeds else min(options.strips, 2)


class LatentDirections(Analyzer):
    """Probes, InterFaceGAN, GANSpace, SeFa, ICA and LatentCLR, all on the same samples beside random directions."""

    name = "directions"
    order = 450
    needs = Needs(latent_vector=True)
    references = (HARKONEN, SHEN_ZHOU, SHEN, YANG, HYVARINEN, YUKSEL)
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
        found, notes = self._unlabelled(session, n)
        effects = _effects(session, found, rulers, baseline)
        told = {item.first.name: item.change for item in headlines(probes)}
        findings = unlabelled_findings(found, effects, told)
        yield probe_section(session, probes, strips, note, findings)
        yield unlabelled_section(session, found, notes, effects, strips, list(findings.values()))
        rows, parts = _compared(session, probes, found, effects, (rulers, baseline))
        yield comparison_section(session, rows, parts)
        yield from layer_sections(session, n, rows, rulers, strips=strips, count=options.count, told={*told, *findings})

    def _unlabelled(self, session: Session, n: int) -> tuple[list[Directions], list[str]]:
        """What each method found without labels, and notes: what could not be run and why, how well learning went."""
        count, layer = cast(DirectionOptions, self.options).count, self._layer(session)
        found, notes = [], []
        if layer:
            found += [ganspace(session, layer, count, n=n), ica(session, layer, count, n=n)]
        else:
            notes.append("GANSpace and ICA need readable layers, and this format hides them.")
        try:
            found += [sefa(session.gan.generator, count, normalise=scaled) for scaled in (True, False)]
        except NoSuchCapability as reason:
            notes.append(f"SeFa is left out: {reason}.")
        if layer:
            self._learn(session, found, notes)
        return [part for part in found if len(part.names)], notes

    def _learn(self, session: Session, found: list[Directions], notes: list[str]) -> None:
        """LatentCLR's directions, and how well they are told apart."""
        options, main = cast(DirectionOptions, self.options), session.gan.generator.main_layers()
        layer = options.contrast or main[len(main) // 2].name
        if not affordable(session, options.count):
            notes.append("LatentCLR is left out: this generator is too large to learn from.")
            return
        try:
            learned = latentclr(session, layer, options.count)
        except NoSuchCapability as reason:
            notes.append(f"LatentCLR is left out: {reason}.")
            return
        found.append(learned.found)
        notes.append(
            f"LatentCLR's margin on held-out samples is {learned.margin:.2f}; random directions have "
            f"{learned.margin_before:.2f}."
        )


def _effects(session: Session, found: Sequence[Directions], rulers: Rulers, baseline: Baseline) -> Effects | None:
    """The effects of all directions in one family of tests; None where there is nothing to measure."""
    vectors = {name: vector for part in found for name, vector in part.by_name.items()}
    return measure_effects(session, vectors, rulers, baseline=baseline) if vectors and rulers.names else None


def _compared(
    session: Session,
    probes: Sequence[Probed],
    found: Sequence[Directions],
    effects: Effects | None,
    measure: tuple[Rulers, Baseline],
) -> tuple[list[Row], list[Directions]]:
    """All directions as rows of one table, with those of InterFaceGAN measured on the way, and what each method found."""
    boundaries, targets = interfacegan(probes, session.gan.generator.latent.size)
    of_boundaries = _effects(session, [boundaries], *measure)
    measured: list[tuple[Directions, Effects, int, tuple[str, ...]]] = []
    if of_boundaries is not None:
        measured.append((boundaries, of_boundaries, 0, targets))
    if effects is not None:
        firsts = [sum(len(part.names) for part in found[:i]) for i in range(len(found))]
        measured += [(part, effects, first, ()) for part, first in zip(found, firsts, strict=True)]
    logistic = logistic_part(probes)
    return list(rows_of(probes, measured)), [*found, *([logistic] if logistic else []), boundaries]
