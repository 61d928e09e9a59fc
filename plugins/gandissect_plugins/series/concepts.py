"""When concepts appear: their area over the training, and the first checkpoint from which it stays above a floor.

onset(low, high)                         # 4: there from the fifth checkpoint on; None: never, or always
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Cell, Finding, Fold, Line, Section, Series, Table, Trust
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.concepts import LOW_LEVEL
from gandissect.metrics import bootstrap_weights
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Session, Want

from .axis import at

TITLE = "When concepts appear"
FLOOR = 0.002
RESAMPLES = 400
SHOWN = 6
Rows = NDArray[np.float64]
MEANING = f"""
A concept's area is the mean part of the pixels that it covers; the band is a bootstrap's interval over samples, so wide that all
checkpoints hold together at 95 % (Bonferroni). A concept *appears* at the first checkpoint from which on its interval stays above
{100 * FLOOR:.2g} % of the pixels, if it was below at the first checkpoint; it *disappears* likewise. A segmenter may see things in
noise: look at the pictures. Concepts that adapt to samples (clusters) adapted to those of the last checkpoint.
"""


def onset(low: Rows, high: Rows, floor: float = FLOOR) -> int | None:
    """The first checkpoint from which on a concept stays; None where it was there from the start, or is not at the end.

    Args:
        low: float64 [T], lower ends of its area's intervals.
        high: float64 [T], upper ends.
        floor: area above which it is there.
    """
    if high[0] >= floor or low[-1] <= floor:
        return None
    return int(np.flatnonzero(low <= floor)[-1]) + 1


class ConceptOnsets(Comparer[Rows]):
    """Areas of concepts over the training."""

    name: ClassVar[str] = "onsets"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 200

    def wants(self, session: Session) -> Iterable[Want]:
        return [Want((Areas(),), KeepSpec(), session.n)] if session.vocabulary.concepts else []

    def look(self, session: Session) -> Rows:
        """float64 [R + 1, K]: mean areas, then those of resampled sets."""
        if not session.vocabulary.concepts:
            return np.zeros((1, 0))
        areas = session.areas().double().numpy()
        drawn = bootstrap_weights(len(areas), RESAMPLES, session.rng(self.name)) @ areas / len(areas)
        return np.concatenate([areas.mean(0)[None], drawn])

    def tell(self, seen: Sequence[Rows], lineup: Lineup) -> Iterator[Section]:
        kept = [place for place, concept in enumerate(lineup.concepts) if not concept.spatial]
        if not kept:
            yield Section(TITLE, summary="needs concepts (pass --concepts NAME)", status="skipped")
            return
        yield _section(np.stack(seen)[:, :, kept], [lineup.concepts[place].name for place in kept], lineup)


def _section(areas: Rows, names: Sequence[str], lineup: Lineup) -> Section:
    from scipy.stats import norm

    half = float(norm.ppf(1 - 0.025 / len(areas))) * areas[:, 1:].std(1)
    mean = areas[:, 0]
    low, high = mean - half, mean + half
    starts = [onset(low[:, k], high[:, k]) for k in range(len(names))]
    ends = [onset(low[::-1, k], high[::-1, k]) for k in range(len(names))]
    looks = {concept.name: concept.category in LOW_LEVEL for concept in lineup.concepts}
    order = sorted(range(len(names)), key=lambda k: (looks[names[k]], -float(np.ptp(mean[:, k])), names[k]))
    lines = [
        Series(names[k], lineup.places, (100 * mean[:, k]).tolist(), (100 * low[:, k]).clip(0).tolist(), (100 * high[:, k]).tolist())
        for k in order[:SHOWN]
    ]  # fmt: skip
    plot = Line(tuple(lines), lineup.axis, "% of the pixels", "area of concepts over the training")
    gone = [None if end is None else len(mean) - end for end in ends]
    rows: list[list[Cell]] = [
        [
            names[k],
            float(mean[0, k]),
            float(mean[-1, k]),
            *("" if place is None else at(lineup, place) for place in (starts[k], gone[k])),
        ]
        for k in order
    ]
    cells = Table(("concept", "area at the start", "at the end", "appears at", "disappears at"), rows)
    dated = {
        word: [(k, place) for k in order if (place := places[k]) is not None]
        for word, places in (("appear", starts), ("disappear", gone))
    }
    findings = [
        _dated(names[k], f"{word}s", place, mean[:, k], (low[-1, k], high[-1, k]), lineup, looks[names[k]])
        for word, found in dated.items()
        for k, place in found[:2]
    ]
    told = [
        f"{len(found)} of {len(names)} concepts {word}"
        + (f" ({', '.join(f'{names[k]} at {at(lineup, place)}' for k, place in found[:4])})" if found else "")
        for word, found in dated.items()
    ]
    return Section(
        TITLE, plot, Fold("All concepts", (cells,)), summary=f"{', '.join(told)}.", findings=findings, meaning=MEANING
    )


def _dated(
    name: str, verb: str, place: int, mean: Rows, end: tuple[float, float], lineup: Lineup, look: bool
) -> Finding:
    text = (
        f"**“{name}” {verb} at {at(lineup, place)}**: {100 * mean[place - 1]:.2g} % of the pixels before, {100 * mean[place]:.2g} % then, "
        f"{100 * mean[-1]:.2g} % (CI {100 * max(0.0, end[0]):.2g} to {100 * end[1]:.2g} %) at the end."
    )
    tested = (
        f"bootstrap interval on one side of {100 * FLOOR:.2g} % of the pixels from there on, on the other at the start; 95 % over "
        "all checkpoints"
    )
    return Finding(text, Trust(f"95 % · {len(mean)} checkpoints", tested), 0.35 if look else 0.6)
