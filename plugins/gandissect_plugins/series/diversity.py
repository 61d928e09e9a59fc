"""How different samples are from each other over the training, and when they suddenly stop to be.

found = diversity(rows, rng)             # Diversity: mean distance, its interval, near-duplicates
collapses([found_0, found_1, ...])       # [Collapse(place=7, ...)]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from gandissect.blocks import Finding, Line, Reference, Section, Series, Table, Trust
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.metrics import bootstrap_weights
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Images, Session, Want
from gandissect_plugins.health import collisions, contrast, picture_rows

from .axis import at, between

TITLE = "Diversity"
FEWEST = 32
RESAMPLES = 400
BEFORE = 3
"""Checkpoints before a fall that it is measured against."""
FALL = 0.3
"""Least part of the diversity that a collapse takes away."""
Rows = NDArray[np.float64]
MEANING = f"""
*Mean distance*: root mean square difference of the pixels of two samples (on a grid of at most 32×32, pixels from −1 to 1),
averaged over all pairs; its band is a bootstrap's 95 % interval over samples. *Near-duplicates*: pairs that differ by at most 1 % of
a picture's energy.

*Collapse*: the mean distance falls from one checkpoint to the next so that its interval lies below the intervals of all of the {BEFORE}
checkpoints before it, with intervals so wide that all of the series hold together at 95 % (Bonferroni), and by more than {100 * FALL:.0f} %
of the least of them. Slow losses are no collapse; they show in the line. Pictures of an untrained network are alike as well: a
line that starts low is no alarm.
"""


@dataclass(frozen=True)
class Diversity:
    """One checkpoint's samples.

    Attributes:
        mean: mean distance of two samples, in pixels of −1..1.
        replicates: float64 [R], of resampled sets, moved so that their mean is ``mean``.
        duplicates: share of near-duplicate pairs, 0..1; ``low``, ``high`` its 95 % interval.
    """

    mean: float
    replicates: Rows
    duplicates: float
    low: float
    high: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The middle ``level`` of the mean distance, by the spread of the replicates (normal)."""
        from scipy.stats import norm

        half = float(norm.ppf((1 + level) / 2)) * float(self.replicates.std(ddof=1))
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Collapse:
    """A sudden fall at checkpoint ``place``: from ``before`` (the least of those before it) to ``after``.

    ``again`` is the first later checkpoint that is back within ``FALL`` of what was before, None where there is none.
    """

    place: int
    before: float
    after: float
    again: int | None


def diversity(rows: Rows, energy: float, rng: np.random.Generator) -> Diversity:
    """Mean distance and near-duplicates of pictures as rows.

    Args:
        rows: float64 [n, D], n ≥ 3.
        energy: of a picture, see :func:`gandissect_plugins.health.contrast`.
        rng: resamples.
    """
    points = torch.from_numpy(rows)
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").numpy() / rows.shape[1] ** 0.5
    n = len(rows)
    mean = float(apart.sum() / (n * (n - 1)))
    weights = bootstrap_weights(n, RESAMPLES, rng)
    # A sample drawn twice is no pair with itself: only pairs of different samples count.
    pairs = weights.sum(1) ** 2 - np.square(weights).sum(1)
    drawn = ((weights @ apart) * weights).sum(1) / pairs
    close = collisions(rows, energy, rng, draws=1)
    return Diversity(mean, drawn - drawn.mean() + mean, close.rate, close.low, close.high)


def collapses(found: Sequence[Diversity]) -> list[Collapse]:
    """Every sudden fall, dated by the first checkpoint that has it; a checkpoint that stays down is no second one."""
    level = 1 - 0.05 / max(1, len(found))
    ends = [one.interval(level) for one in found]
    told: list[Collapse] = []
    for place in range(1, len(found)):
        earlier = range(max(0, place - BEFORE), place)
        if any(told and told[-1].place <= i and told[-1].again is None for i in earlier):
            continue
        low = min(ends[i][0] for i in earlier)
        before = min(found[i].mean for i in earlier)
        if ends[place][1] < low and found[place].mean < (1 - FALL) * before:
            back = (later for later in range(place + 1, len(found)) if found[later].mean >= (1 - FALL) * before)
            told.append(Collapse(place, before, found[place].mean, next(back, None)))
    return told


@dataclass(frozen=True)
class DiversityOptions:
    """Options of the diversity."""

    samples: int = option(250, "samples of each checkpoint that are compared with each other")


class DiversitySeries(Comparer[Diversity | None]):
    """Diversity over the training, with collapses dated."""

    name: ClassVar[str] = "diversity"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 110
    Options: ClassVar[type] = DiversityOptions
    options: DiversityOptions
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Efron, B.", 1979, "Bootstrap methods: another look at the jackknife", "Ann. Stat. 7"),
    )

    def wants(self, session: Session) -> Iterable[Want]:
        return [Want((Images(),), KeepSpec(), min(session.n, self.options.samples))]

    def look(self, session: Session) -> Diversity | None:
        images = session.images(min(session.n, self.options.samples))
        if len(images) < FEWEST:
            return None
        return diversity(picture_rows(images), contrast(images), session.rng(self.name))

    def tell(self, seen: Sequence[Diversity | None], lineup: Lineup) -> Iterator[Section]:
        found = [one for one in seen if one is not None]
        if len(found) < len(seen):
            yield Section(TITLE, summary=f"needs at least {FEWEST} samples (pass -n N)", status="skipped")
            return
        yield _section(found, lineup)


def _section(found: Sequence[Diversity], lineup: Lineup) -> Section:
    told = collapses(found)
    findings = [_finding(one, found, lineup) for one in told]
    text = findings[0].text if findings else (
        f"No sudden fall: the mean distance of two samples goes from {found[0].mean:.3g} ({at(lineup, 0)}) to "
        f"{found[-1].mean:.3g} ({at(lineup, len(found) - 1)})."
    )  # fmt: skip
    ends = [one.interval() for one in found]
    x = lineup.places
    distance = Line(
        (Series("mean distance of two samples", x, [one.mean for one in found], [low for low, _ in ends], [high for _, high in ends]),),
        lineup.axis,
        "mean distance",
        "mean distance of two samples over the training",
        caption="The band is the 95 % interval.",
    )  # fmt: skip
    duplicates = Line(
        (
            Series(
                "near-duplicate pairs",
                x,
                [100 * one.duplicates for one in found],
                [100 * one.low for one in found],
                [100 * one.high for one in found],
            ),
        ),
        lineup.axis,
        "% of the pairs",
        "near-duplicate pairs of samples over the training",
    )
    rows = [
        (name, one.mean, *one.interval(), one.duplicates)
        for name, one in zip(lineup.names, found, strict=True)
    ]  # fmt: skip
    table = Table(("checkpoint", "mean distance", "low", "high", "near-duplicate pairs"), rows)
    return Section(TITLE, distance, duplicates, table, summary=text, findings=findings, meaning=MEANING)


def _finding(one: Collapse, found: Sequence[Diversity], lineup: Lineup) -> Finding:
    low, high = found[one.place].interval()
    text = (
        f"**{between(lineup, one.place)} samples collapse**: the mean distance of two samples falls from {one.before:.3g} to "
        f"{one.after:.3g} (CI {low:.3g} to {high:.3g}); {100 * found[one.place].duplicates:.2g} % of the pairs are near-duplicates "
        f"({100 * found[one.place - 1].duplicates:.2g} % before)."
    )
    text += f" It is back at {at(lineup, one.again)}." if one.again is not None else " It does not come back."
    tested = (
        f"bootstrap intervals of this and the {BEFORE} checkpoints before it do not overlap, at 95 % over all {len(found)} checkpoints; "
        f"the fall is more than {100 * FALL:.0f} %"
    )
    return Finding(text, Trust(f"95 % · {len(found)} checkpoints", tested), 0.95)
