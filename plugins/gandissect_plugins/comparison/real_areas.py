"""Which of two checkpoints draws each concept in nearer to the amount that real images have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Bar, Finding, Fold, Reference, Section, Series, Table, Trust
from gandissect.comparer import Lineup
from gandissect.concepts import LOW_LEVEL, Concept
from gandissect.metrics import permutation_p
from gandissect.trust import adjusted
from gandissect.wording import percent

from .nearer import EXCHANGES, RATE, Gap, area_gaps

TITLE = "Concepts against the real images"
SHOWN = 16
TOLD = 3
Rows = NDArray[np.float64]
REFERENCES = (
    Reference("Bau, D. et al.", 2019, "Seeing what a GAN cannot generate", "ICCV"),
    Reference("Phipson, B. & Smyth, G.", 2010, "Permutation p-values should never be zero", "Stat. Appl. Genet. 9"),
    Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"),
)
MEANING = f"""
A concept's area is the part of an image that it covers, by the same segmenter in real images and in samples of both
networks. A concept *differs* where its area in samples of either network is not that of the real images: p ≤ {RATE} of
{EXCHANGES} exchanges of real and generated images, adjusted over all concepts and both networks (Benjamini & Hochberg).

For these alone it is asked which network is nearer: *further by* is how much further the second network's mean area is
from the real images' than the first one's, below 0 where the second is nearer, with its 99 % interval (bootstrap, the
same latents and real images for both). A network is called *nearer* where that interval is clear of 0 and p ≤ {RATE} of
{EXCHANGES} exchanges of samples between the networks, adjusted over the concepts that differ.

The segmenter was trained on neither set. Concepts that adapt to samples (clusters) adapted to those of the first network.
"""


@dataclass(frozen=True)
class AreaLine:
    """One concept: mean areas 0..1, adjusted p of either network's difference from the real images, and which is further."""

    concept: Concept
    real: float
    first: float
    second: float
    p: tuple[float, float]
    gap: Gap | None

    @property
    def differs(self) -> bool:
        """In samples of at least one network its area is not that of the real images."""
        return min(self.p) <= RATE


def area_lines(
    concepts: Sequence[Concept], real: Rows, first: Rows, second: Rows, rng: np.random.Generator, *, paired: bool
) -> list[AreaLine]:
    """Every concept that is no mere place, those that differ first, and of these the most decided.

    Args:
        concepts: K of them.
        real: float64 [m, K], areas 0..1.
        first: float64 [n, K].
        second: float64 [n, K], of the same latents in the same order where ``paired``.
        rng: draws exchanges and resamples.
        paired: sample i of both networks is of one latent.
    """
    kept = [place for place, concept in enumerate(concepts) if not concept.spatial]
    if not kept:
        return []
    r, a, b = real[:, kept], first[:, kept], second[:, kept]
    p = adjusted(np.stack([permutation_p(r, rows, EXCHANGES, rng) for rows in (a, b)]))
    differing = np.flatnonzero(p.min(0) <= RATE)
    gaps: dict[int, Gap] = {}
    if len(differing):
        found = area_gaps(r[:, differing], a[:, differing], b[:, differing], rng, paired=paired)
        again = adjusted([gap.p or 0.0 for gap in found])
        gaps = {int(c): replace(gap, p=float(q)) for c, gap, q in zip(differing, found, again, strict=True)}
    lines = [
        AreaLine(
            concepts[place],
            float(r[:, column].mean()),
            float(a[:, column].mean()),
            float(b[:, column].mean()),
            (float(p[0, column]), float(p[1, column])),
            gaps.get(column),
        )
        for column, place in enumerate(kept)
    ]
    return sorted(
        lines, key=lambda line: (not line.differs, -abs(line.gap.value) if line.gap else 0.0, line.concept.name)
    )


def areas_section(lines: Sequence[AreaLine], lineup: Lineup) -> Section:
    """Areas of concepts in the real images and in samples of both networks, and which is nearer."""
    a, b = lineup.names
    differing = [line for line in lines if line.differs]
    won = {
        side: sum(line.gap is not None and line.gap.ahead == side for line in differing)
        for side in ("first", "second", "")
    }
    text = (
        f"Of {len(lines)} concepts {len(differing)} differ from the {lineup.real} real images in samples of {a} or {b}: "
        f"{b} is nearer in {won['second']}, {a} in {won['first']}, neither clearly in {won['']}."
        if differing
        else f"No area of {len(lines)} concepts differs clearly from the {lineup.real} real images, in samples of {a} or of {b}."
    )  # fmt: skip
    shown = (differing or list(lines))[:SHOWN]
    names = [line.concept.name for line in shown]
    bars = Bar(
        (
            Series("real images", names, [100 * line.real for line in shown], role="null"),
            Series(a, names, [100 * line.first for line in shown]),
            Series(b, names, [100 * line.second for line in shown]),
        ),
        "concept",
        "part of the pixels, %",
        f"part of the pixels that each concept covers in real images, in samples of {a} and of {b}",
        caption="" if differing else "No difference from the real images passes its test.",
        horizontal=True,
    )
    return Section(
        TITLE,
        bars,
        Fold("All concepts", (_table(lines, lineup),)),
        summary=text,
        findings=_findings(differing, lineup),
        meaning=MEANING,
        references=REFERENCES,
    )


def _table(lines: Sequence[AreaLine], lineup: Lineup) -> Table:
    a, b = lineup.names
    sides = {"first": a, "second": b, "": "not clear"}
    rows = [
        (
            line.concept.name, line.real, line.first, line.second, *line.p,
            *((line.gap.value, line.gap.low, line.gap.high, line.gap.p) if line.gap else (None, None, None, None)),
            sides[line.gap.ahead] if line.gap else "no difference",
        )
        for line in lines
    ]  # fmt: skip
    head = (
        "concept",
        "real images",
        a,
        b,
        f"p of {a}",
        f"p of {b}",
        f"{b} further by",
        "99 % from",
        "to",
        "p",
        "nearer",
    )
    caption = (
        f"Mean part of the pixels (0 to 1); {lineup.real} real images, {lineup.n} samples of each; every p is adjusted."
    )
    return Table(head, rows, caption)


def _findings(differing: Sequence[AreaLine], lineup: Lineup) -> list[Finding]:
    """The most decided concepts, things before mere looks."""
    a, b = lineup.names
    decided = sorted(
        (line for line in differing if line.gap and line.gap.ahead),
        key=lambda line: line.concept.category in LOW_LEVEL,
    )
    found = []
    for line in decided[:TOLD]:
        gap = line.gap
        if gap is None:
            continue
        near, far = (a, b) if gap.ahead == "first" else (b, a)
        off = [percent(abs(area - line.real)) for area in (line.first, line.second)]
        text = (
            f"**The area of “{line.concept.name}” is nearer to the real images' in {near} than in {far}**: "
            f"{percent(line.real)} of the pixels of real images, {percent(line.first)} in {a}, {percent(line.second)} in {b}; off by "
            f"{off[0]} and {off[1]} (difference {percent(gap.value)}, CI 99 % {percent(gap.low)} to {percent(gap.high)})."
        )
        tested = (
            f"{EXCHANGES} exchanges of samples between the networks, adjusted over the {len(differing)} concepts that differ from the "
            "real images; the 99 % bootstrap interval is clear of 0"
        )
        trust = Trust(f"p = {gap.p or 0.0:.2g} · n = {lineup.n}, {lineup.real} real", tested)
        found.append(Finding(text, trust, 0.6 if line.concept.category in LOW_LEVEL else 0.9))
    return found
