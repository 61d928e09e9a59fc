"""The losses in a log against the levels that a balanced game has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import ClassVar

import numpy as np

from gandissect.blocks import Block, Finding, Line, Reference, Section, Series, Table, Text, Trust
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.comparing.training_log import Curve, TrainingLog
from gandissect.session import Session

TITLE = "Losses"
POINTS = 200
"""Points of a curve that are drawn; each is the median of its neighbours, the band their middle 80 %."""
END = 0.1
"""Part of a curve, from its end, that the table is about."""
MOST_OTHERS = 6
MEANING = """
Levels belong to one formula: cross-entropy with D = ½ everywhere (Goodfellow et al. 2014). D's loss −E[ln D(x)] − E[ln(1 − D(G(z)))]
is then **2 ln 2 = 1.386** where both terms are added and **ln 2 = 0.693** where they are averaged; G's non-saturating loss
−E[ln D(G(z))] is ln 2. Which of the two your code logs is not in the log: both levels are drawn. Wasserstein, hinge and
least-squares losses have other levels; a loss that is negative somewhere is none of these, and no level is drawn.

Losses of a GAN do not measure quality: both sides move. D near 0 for long means that G gets little to learn from; a level line met
exactly may also mean that D is switched off. Whose loss a column is was guessed from its name.
"""


class Losses(Comparer[None]):
    """Loss curves from a log."""

    name: ClassVar[str] = "losses"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 410
    least: ClassVar[int] = 0
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Goodfellow, I. et al.", 2014, "Generative adversarial nets", "NeurIPS"),
    )

    def look(self, session: Session) -> None:
        return None

    def tell(self, seen: Sequence[None], lineup: Lineup) -> Iterator[Section]:
        if lineup.log is None:
            why = "needs a log (pass --log losses.csv, or a TensorBoard event file or folder)"
            yield Section(TITLE, summary=why, status="skipped")
            return
        yield _section(lineup.log)


def _section(told: TrainingLog) -> Section:
    sides = [curve for role in ("generator", "discriminator") for curve in told.losses(role)]
    others = [curve for curve in told.curves if curve.role == "other"]
    named = ", ".join(f"`{curve.name}` as the {curve.role}'s" for curve in sides)
    guess = f"Taken from the names: {named}." if named else "No column's name says whose loss it is."
    blocks: list[Block] = [Text("\n\n".join((guess, *told.notes)))]
    negative = any(len(curve.values) and curve.values.min() < 0 for curve in sides)
    if any(len(curve.values) for curve in sides):
        caption = (
            "No level is drawn: a loss below 0 is no cross-entropy."
            if negative
            else "Levels of cross-entropy with D = ½ everywhere."
        )
        levels = () if negative else (("ln 2 (G; D where averaged)", log(2)), ("2 ln 2 (D where added)", 2 * log(2)))
        blocks.append(_plot(sides, told.step_name, "loss", levels, caption))
    blocks += [_plot([curve], told.step_name, curve.name) for curve in _moving(others)[:MOST_OTHERS]]
    rows = [_row(curve) for curve in (*sides, *others)]
    columns = (
        "curve",
        "taken as",
        "points",
        "no numbers",
        "median of the last tenth",
        "its middle 80 % from",
        "to",
        "not finite at",
    )
    blocks.append(Table(columns, rows))
    findings = _findings(told)
    ends = [f"{curve.name} {np.median(_last(curve)):.3g}" for curve in sides if len(curve.values)]
    text = f"At the end (median of the last tenth): {', '.join(ends)}; ln 2 = 0.693, 2 ln 2 = 1.386." if ends else guess
    return Section(TITLE, *blocks, summary=findings[0].text if findings else text, findings=findings, meaning=MEANING)


def _moving(curves: Sequence[Curve]) -> list[Curve]:
    """Those that are worth a plot: not the same number all the time."""
    return [curve for curve in curves if len(curve.values) > 1 and np.ptp(curve.values) > 0]


def _plot(
    curves: Sequence[Curve], x_label: str, y_label: str, levels: Sequence[tuple[str, float]] = (), caption: str = ""
) -> Line:
    series = [_smoothed(curve) for curve in curves if len(curve.values)]
    steps = np.concatenate([curve.steps for curve in curves])
    ends = [float(steps.min()), float(steps.max())]
    series += [
        Series(name, ends, [level, level], role="null" if i else "baseline") for i, (name, level) in enumerate(levels)
    ]
    return Line(tuple(series), x_label, y_label, f"{y_label} over the training", caption)


def _smoothed(curve: Curve) -> Series:
    """At most ``POINTS`` places, each the median of those it stands for."""
    if len(curve.values) <= POINTS:
        return Series(curve.name, curve.steps.tolist(), curve.values.tolist())
    steps = [float(part.mean()) for part in np.array_split(curve.steps, POINTS)]
    middle, low, high = np.transpose(
        [np.percentile(part, [50, 10, 90]) for part in np.array_split(curve.values, POINTS)]
    )
    return Series(curve.name, steps, middle.tolist(), low.tolist(), high.tolist())


def _last(curve: Curve) -> np.ndarray:
    return curve.values[-max(1, round(END * len(curve.values))) :]


def _row(curve: Curve) -> tuple[str | float | int | None, ...]:
    if not len(curve.values):
        return (curve.name, curve.role, 0, curve.missing, None, None, None, curve.broken)
    end = _last(curve)
    low, high = np.percentile(end, [10, 90])
    return (
        curve.name,
        curve.role,
        len(curve.values),
        curve.missing,
        float(np.median(end)),
        float(low),
        float(high),
        curve.broken,
    )


def _findings(told: TrainingLog) -> list[Finding]:
    """What is certain and harmful: a loss that stops to be a number."""
    broken = [curve for curve in told.curves if curve.broken is not None and curve.role != "other"]
    if not broken:
        return []
    first = min(broken, key=lambda curve: curve.broken or 0.0)
    text = f"**{first.name} is not a finite number from {told.step_name} {first.broken:g} on, or at it**: the training diverged there."
    return [Finding(text, Trust("exact", "every entry of the log was read"), 0.9)]
