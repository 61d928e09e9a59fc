"""The cycle as a section."""

from __future__ import annotations

import numpy as np

from gandissect.blocks import Bar, Cell, Finding, ImageGrid, Section, Series, Table, Trust, to_uint8
from gandissect.wording import p_value, percent
from gandissect_plugins.distribution.words import number
from gandissect_plugins.features.spaces import thumbnails
from gandissect_plugins.geometry.means import with_interval

from .cycle import LOST, Cycle
from .pictures import LEVEL, Pictures
from .references import CHU, ZHU

SHOWN = 8
TITLE = "Cycle consistency"


def cycle_section(seen: Pictures, found: Cycle, where: str) -> Section:
    """There and back: pictures, errors, and what disturbances of the translated picture do."""
    count = min(SHOWN, len(found.backs))
    grid = ImageGrid(
        np.concatenate([to_uint8(thumbnails(part[:count], 128)) for part in (seen.inputs, found.backs)]),
        f"{count} inputs and what comes back",
        columns=count,
        row_labels=("input", "there and back"),
        column_labels=tuple(f"input {place}" for place in range(count)),
    )
    rows: list[tuple[Cell, ...]] = [
        ("error to the own input", with_interval(found.error / LEVEL), ""),
        ("error to another input", with_interval(found.control / LEVEL), ""),
        *(
            (f"error after {loss.name}", with_interval(loss.error / LEVEL), _share(loss.share))
            for loss in found.losses
        ),
    ]  # fmt: skip
    columns = ("measure", "grey levels of 255", "of the cycle lost")
    table = Table(columns, rows, sortable=False, caption="Root mean square over pixels; 95 % intervals.")
    return Section(
        TITLE,
        grid,
        table,
        _lost(found),
        summary=_summary(found, where),
        findings=_alarms(found),
        meaning=_MEANING,
        references=(ZHU, CHU),
    )


def _lost(found: Cycle) -> Bar:
    names = [loss.name for loss in found.losses]
    return Bar(
        (
            Series(
                "lost",
                names,
                [100 * loss.share[0] for loss in found.losses],
                [100 * loss.share[1] for loss in found.losses],
                [100 * loss.share[2] for loss in found.losses],
            ),
        ),
        "disturbance of the translated picture",
        "% of the way to the error of another input",
        "How much of the cycle is lost when the translated picture is disturbed a little",
        caption=f"The first three are not visible; more than {100 * LOST:.0f} % there is told.",
    )


def _share(share: tuple[float, float, float]) -> str:
    return f"{percent(share[0])} ({percent(share[1])} to {percent(share[2])})"


def _summary(found: Cycle, where: str) -> str:
    ratio, low, high = found.ratio
    error, control = float(found.error.mean()) / LEVEL, float(found.control.mean()) / LEVEL
    exact = " The cycle is exact to less than one grey level." if error < 1 else ""
    return (
        f"There and back by {where}, the error is {number(error)} grey levels, {number(control)} to another input (ratio "
        f"{number(ratio)}, CI {number(low)} to {number(high)}).{exact}"
    )


def _alarms(found: Cycle) -> list[Finding]:
    n = len(found.error)
    if found.broken:
        ratio, low, high = found.ratio
        text = (
            "**The cycle does not come back**: F(G(x)) is as far from x as from another input (ratio "
            f"{ratio:.2f}, CI {low:.2f} to {high:.2f})."
        )
        tested = f"{n} inputs, error to the own input against that to the next one, signs flipped, {p_value(found.p)}"
        return [Finding(text, Trust(f"shuffled pairs · n = {n}", tested), 0.9)]
    if found.hidden:
        worst = max((loss for loss in found.losses if loss.unseen), key=lambda loss: loss.share[1])
        text = (
            f"**The way back lives on details that nobody sees**: {worst.name} in the translated picture raises the error from "
            f"{number(float(found.error[: len(worst.error)].mean()) / LEVEL)} to {number(float(worst.error.mean()) / LEVEL)} grey levels."
        )
        tested = (
            f"{_share(worst.share)} of the way to the error of another input, on {len(worst.error)} pictures; "
            f"a cycle that reads what is visible loses a few per cent"
        )
        return [Finding(text, Trust(f"disturbed · n = {len(worst.error)}", tested), 0.85)]
    return []


_MEANING = """
x goes there and back: F(G(x)). Its distance to x is compared with that to another input of the set, which is what a way
back that knows nothing of x would reach. A small error alone is no praise: a pair of translators may keep what it needs to
restore x in a pattern too faint to see, while the visible picture drops it (Chu et al. 2017). So the translated picture is
rounded to 8 bits and noise of one and two grey levels is added, which nobody sees. *Of the cycle lost* is the rise of the
error as a part of what separates the error from that of another input. A way back that reads visible content loses a few
per cent; one that reads a hidden pattern loses most.
"""
