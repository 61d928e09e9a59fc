"""Which concepts one network draws and the other does not.

changes = concept_changes(concepts, areas_a, areas_b, rng)
[change.concept for change in changes if change.verdict == "lost"]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Bar, Finding, Fold, Reference, Section, Series, Table, Trust
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.concepts import LOW_LEVEL, Concept
from gandissect.metrics import around, bootstrap_weights, permutation_p
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Session, Want
from gandissect.trust import adjusted
from gandissect.wording import percent

from .against_real import lacking
from .real_areas import area_lines, areas_section

TITLE = "Concepts gained and lost"
RATE = 0.01
PERMUTATIONS = 4000
RESAMPLES = 200
SHOWN = 16
TENTH = 0.1
LEAST = 2e-3
"""Part of all pixels below which a concept of the first network is too rare to be called lost."""
Rows = NDArray[np.float64]
Verdict = Literal["lost", "gained", "less", "more", "same"]
MEANING = f"""
The same segmenter looks at the samples of both networks; a concept's area is the part of an image that it covers. The interval of the
difference is a bootstrap's (95 %), p counts {PERMUTATIONS} exchanges of the samples between the networks, adjusted over all
concepts (Benjamini & Hochberg). *Lost* and *gained*: p below {RATE}, {100 * LEAST:.2g} % of the pixels or more in the one
network and less than a tenth of that in the other. *Less* and *more*: p below {RATE} alone. With equal latents the two sets are not
independent, which makes p too large, never too small.

A segmenter that fails on one network's style shows here as a lost concept: look at the pictures. Concepts that adapt to samples
(clusters) adapted to those of the first network.
"""


@dataclass(frozen=True)
class ConceptChange:
    """One concept in two networks.

    Attributes:
        concept: its name and category.
        first, second: mean part of the pixels that it covers, 0..1.
        low, high: 95 % interval of second − first.
        p: adjusted over all concepts.
        seen: share of the samples of either network that show it at all.
    """

    concept: Concept
    first: float
    second: float
    low: float
    high: float
    p: float
    seen: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """What happened to it on the way from the first network to the second."""
        if self.p > RATE:
            return "same"
        if self.first >= LEAST and self.second < TENTH * self.first:
            return "lost"
        if self.second >= LEAST and self.first < TENTH * self.second:
            return "gained"
        return "less" if self.second < self.first else "more"


def concept_changes(
    concepts: Sequence[Concept], first: Rows, second: Rows, rng: np.random.Generator
) -> list[ConceptChange]:
    """Every concept that is no mere place, the most changed first.

    Args:
        concepts: K of them.
        first: float64 [n, K], areas 0..1.
        second: float64 [m, K].
        rng: draws permutations and resamples.
    """
    kept = [place for place, concept in enumerate(concepts) if not concept.spatial]
    if not kept:
        return []
    a, b = first[:, kept], second[:, kept]
    p = adjusted(permutation_p(a, b, PERMUTATIONS, rng))
    resampled = bootstrap_weights(len(b), RESAMPLES, rng) @ b / len(b) - bootstrap_weights(
        len(a), RESAMPLES, rng
    ) @ a / len(a)
    changes = []
    for column, place in enumerate(kept):
        means = float(a[:, column].mean()), float(b[:, column].mean())
        seen = float((a[:, column] > 0).mean()), float((b[:, column] > 0).mean())
        ends = around(means[1] - means[0], resampled[:, column])
        changes.append(ConceptChange(concepts[place], *means, *ends, float(p[column]), seen))
    return sorted(
        changes, key=lambda change: (change.p > RATE, -abs(change.second - change.first), change.concept.name)
    )


@dataclass(frozen=True)
class AreasSeen:
    """Areas of K concepts, 0..1: of a checkpoint's samples float64 [n, K], and of the real images [m, K], m = 0 without any."""

    generated: Rows
    real: Rows


class Concepts(Comparer[AreasSeen]):
    """Areas of all concepts in the samples of both networks, and in real images where there are any."""

    name: ClassVar[str] = "concepts"
    of: ClassVar[Kind] = "pair"
    order: ClassVar[int] = 200
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Bau, D. et al.", 2019, "Seeing what a GAN cannot generate", "ICCV"),
        Reference("Phipson, B. & Smyth, G.", 2010, "Permutation p-values should never be zero", "Stat. Appl. Genet. 9"),
        Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"),
    )  # fmt: skip

    def wants(self, session: Session) -> Iterable[Want]:
        if session.vocabulary.concepts:
            yield Want((Areas(),), KeepSpec(), session.n)
            if session.real is not None:
                yield Want((Areas(),), KeepSpec(), len(session.real), real=True)

    def look(self, session: Session) -> AreasSeen:
        if not session.vocabulary.concepts:
            return AreasSeen(np.zeros((session.n, 0)), np.zeros((0, 0)))
        generated = np.asarray(session.areas().double().numpy(), np.float64)
        if session.real is None:
            return AreasSeen(generated, np.zeros((0, generated.shape[1])))
        return AreasSeen(
            generated, np.asarray(session.areas(len(session.real), real=True).double().numpy(), np.float64)
        )

    def tell(self, seen: Sequence[AreasSeen], lineup: Lineup) -> Iterator[Section]:
        first, second = seen
        changes = concept_changes(lineup.concepts, first.generated, second.generated, lineup.rng(self.name))
        if not changes:
            yield Section(TITLE, summary="needs concepts (pass --concepts NAME)", status="skipped")
            return
        yield _section(changes, lineup)
        if not lacking(lineup):
            yield areas_section(
                area_lines(
                    lineup.concepts,
                    first.real,
                    first.generated,
                    second.generated,
                    lineup.rng(f"{self.name}, real"),
                    paired=not lineup.latents_differ,
                ),
                lineup,
            )


def _section(changes: Sequence[ConceptChange], lineup: Lineup) -> Section:
    a, b = lineup.names
    changed = [change for change in changes if change.verdict != "same"]
    counts = {
        verdict: sum(change.verdict == verdict for change in changes) for verdict in ("lost", "gained", "less", "more")
    }
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "none changed"
    text = f"Of {len(changes)} concepts from {a} to {b}: {told}."
    shown = (changed or list(changes))[:SHOWN]
    names = [change.concept.name for change in shown]
    bars = Bar(
        (
            Series(a, names, [100 * change.first for change in shown]),
            Series(b, names, [100 * change.second for change in shown]),
        ),
        "concept",
        "part of the pixels, %",
        f"part of the pixels that each concept covers in samples of {a} and of {b}",
        caption="" if changed else "No difference passes its test; the largest are shown.",
        horizontal=True,
    )
    columns = ("concept", a, b, "difference from", "to", "adjusted p", "change", f"samples of {a}", f"samples of {b}")
    rows = [
        (c.concept.name, c.first, c.second, c.low, c.high, c.p, c.verdict, *c.seen) for c in changes
    ]  # fmt: skip
    caption = (
        f"Mean part of the pixels (0 to 1), its difference with the 95 % interval; n = {lineup.n} samples of each."
    )
    findings = _findings(changed, lineup)
    table = Fold("All concepts", (Table(columns, rows, caption),))
    return Section(TITLE, bars, table, summary=text, findings=findings, meaning=MEANING)


def _findings(changed: Sequence[ConceptChange], lineup: Lineup) -> list[Finding]:
    """Lost and gained concepts, things before mere looks; at most three of either."""
    a, b = lineup.names
    found = []
    for verdict in ("lost", "gained"):
        chosen = sorted(
            (change for change in changed if change.verdict == verdict),
            key=lambda change: (change.concept.category in LOW_LEVEL, -max(change.first, change.second)),
        )
        for change in chosen[:3]:
            text = (
                f"**{_lead(change, a, b)}**: it covers {percent(change.first)} of the pixels of {a} "
                f"and {percent(change.second)} of those of {b} (difference {percent(change.low)} to {percent(change.high)})."
            )
            tested = (
                f"{PERMUTATIONS} exchanges of {lineup.n} samples of each, adjusted over all concepts: p = {change.p:.2g}; "
                "the difference with its 95 % bootstrap interval"
            )
            weight = 0.7 if change.concept.category in LOW_LEVEL else 0.95
            found.append(Finding(text, Trust(f"p = {change.p:.2g} · n = {lineup.n}", tested), weight))
    return found


def _lead(change: ConceptChange, a: str, b: str) -> str:
    name, gone = f"“{change.concept.name}”", min(change.first, change.second) < LEAST
    if change.verdict == "lost":
        return f"{b} draws no {name} any more" if gone else f"{b} draws less than a tenth of the {name} of {a}"
    return f"{b} draws {name}, which {a} does not" if gone else f"{b} draws more than ten times the {name} of {a}"
