"""Which unit of one network does what which unit of the other does: matched by correlation, tested on other samples.

found = matched(layer_a, layer_b)        # PooledLayer of the same latents
found.second[0], found.r[0], found.passed[0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Bar, Block, Data, Finding, Reference, Section, Series, Table, Trust
from gandissect.comparer import Lineup
from gandissect.trust import adjusted, interval

from .layers import LayerComparer, LayersSeen, PooledLayer, like_depth

TITLE = "Matched units"
RATE = 0.05
Rows = NDArray[np.float64]
Places = NDArray[np.intp]
MEANING = f"""
Every unit is averaged over the image, on the same latents in both networks. Within a pair of layers of like depth units
are assigned one to one so that the sum of their correlations is largest (the Hungarian method; Li et al. 2015), on every
other sample. The correlation *r* of each assigned pair is then measured on the samples that were left out: a unit that only
looked alike by luck falls back there.

*By chance*: any two networks that are fed the same latents correlate, also untrained ones. So the same is done once more with
one of the two on latents whose coordinates are exchanged and change their signs: equally good latents, in which a network
cannot keep what it learned about single coordinates. A pair counts as matched where its r exceeds what those pairs give
(normal tail of their Fisher z), at a false-discovery rate of {100 * RATE:.0f} % within the layer.

A match says that both units answer to the same latents alike. It does not say that they do so for the same reason, nor that
a unit without a match draws something new: several units of one network may share the work of one unit of the other.
"""


@dataclass(frozen=True)
class Matching:
    """Units assigned one to one.

    Attributes:
        first, second: int [P], a unit of each network.
        r: float64 [P], their correlation on samples that the assignment did not see.
        chance: float64 [C], that of pairs assigned in the same way where one network got turned latents.
        p: float64 [P], how likely chance gives as much.
        passed: bool [P], after Benjamini & Hochberg within the layer.
        still: pairs that were left out as one of the two never varies.
    """

    first: Places
    second: Places
    r: Rows
    chance: Rows
    p: Rows
    passed: NDArray[np.bool_]
    still: int


def matched(first: PooledLayer, second: PooledLayer) -> Matching:
    """The best assignment of units by their correlation on even samples, tested on odd ones.

    Args:
        first: a layer's units on n samples, n ≥ 8.
        second: another one's, on the same samples.

    References:
        Li, Yosinski, Clune, Lipson, Hopcroft 2015, Convergent learning, sec. 3; Hungarian assignment.
    """
    from scipy.stats import norm

    rows, columns, r, still = _assigned(first.rows, second.rows)
    m = len(first.turned)
    chance = np.concatenate([_assigned(first.rows[:m], second.turned)[2], _assigned(first.turned, second.rows[:m])[2]])
    if not len(r) or len(chance) < 2:
        return Matching(rows, columns, r, chance, np.ones(len(r)), np.zeros(len(r), bool), still)
    z, null = (np.arctanh(np.clip(values, -0.999999, 0.999999)) for values in (r, chance))
    p = norm.sf((z - null.mean()) / max(float(null.std(ddof=1)), (len(first.rows) / 2) ** -0.5))
    return Matching(rows, columns, r, chance, p, adjusted(p) <= RATE, still)


def _assigned(first: Rows, second: Rows) -> tuple[Places, Places, Rows, int]:
    """(units, the other's units, their r on odd samples, pairs of which one never varies there)."""
    from scipy.optimize import linear_sum_assignment

    fit = _standard(first[::2]).T @ _standard(second[::2])
    rows, columns = linear_sum_assignment(fit, maximize=True)
    a, b = _standard(first[1::2])[:, rows], _standard(second[1::2])[:, columns]
    moving = a.any(0) & b.any(0)
    return rows[moving], columns[moving], np.asarray((a * b).sum(0)[moving]), int((~moving).sum())


def _standard(rows: Rows) -> Rows:
    """Columns with mean 0 and length 1; 0 where one does not vary."""
    centred = rows - rows.mean(0)
    length = np.linalg.norm(centred, axis=0)
    varies = length > 1e-9 * np.maximum(1e-30, np.linalg.norm(rows, axis=0))
    return np.asarray(np.where(varies, centred / np.where(varies, length, 1.0), 0.0))


class MatchedUnits(LayerComparer):
    """Units of one network and their counterparts in the other."""

    name: ClassVar[str] = "matched-units"
    title: ClassVar[str] = TITLE
    order: ClassVar[int] = 300
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Li, Y. et al.", 2015, "Convergent learning: do different networks learn the same representations?", "FEW @ NIPS"),
        Reference("Kuhn, H. W.", 1955, "The Hungarian method for the assignment problem", "Naval Res. Logist. Q. 2"),
        Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"),
    )  # fmt: skip

    def section(self, seen: Sequence[LayersSeen], lineup: Lineup) -> Section:
        pairs = like_depth(*(one.layers for one in seen))
        return _section(pairs, [matched(a, b) for a, b in pairs], lineup)


def _section(pairs: Sequence[tuple[PooledLayer, PooledLayer]], found: Sequence[Matching], lineup: Lineup) -> Section:
    a, b = lineup.names
    units, hits = sum(len(one.r) for one in found), sum(int(one.passed.sum()) for one in found)
    strong = sum(int((one.passed & (one.r > 0.5)).sum()) for one in found)
    low, high = interval(hits, units)
    usual = float(np.median(np.concatenate([one.chance for one in found]))) if units else 0.0
    median = float(np.median(np.concatenate([one.r for one in found]))) if units else 0.0
    text = (
        f"{hits} of {units} pairs of units ({100 * hits / max(units, 1):.3g} %, CI {100 * low:.3g} to {100 * high:.3g} %) "
        f"answer more alike than chance, {strong} of them with r above 0.5; the median r is {median:.2f}, {usual:.2f} by chance."
    )
    findings = []
    if low > 0.1:
        tested = f"r on held-out samples against pairs on turned latents, false-discovery rate {100 * RATE:.0f} % within each layer"
        lead = f"**{100 * hits / units:.3g} % of the units of {a} have a counterpart in {b}.** {text}"
        findings = [Finding(lead, Trust(f"FDR {100 * RATE:.0f} % · {units} pairs", tested), 0.45)]
    blocks = [_plot(pairs, found), _table(pairs, found), _data(pairs, found)]
    return Section(TITLE, *blocks, summary=findings[0].text if findings else text, findings=findings, meaning=MEANING)


def _names(pairs: Sequence[tuple[PooledLayer, PooledLayer]]) -> list[str]:
    return [a.layer.name if a.layer.name == b.layer.name else f"{a.layer.name} ~ {b.layer.name}" for a, b in pairs]


def _plot(pairs: Sequence[tuple[PooledLayer, PooledLayer]], found: Sequence[Matching]) -> Block:
    names = [a.layer.name for a, _ in pairs]
    middle = [float(np.median(one.r)) if len(one.r) else 0.0 for one in found]
    usual = [float(np.median(one.chance)) if len(one.chance) else 0.0 for one in found]
    ends = [tuple(np.percentile(one.r, [25, 75])) if len(one.r) else (0.0, 0.0) for one in found]
    spread = [tuple(np.percentile(one.chance, [25, 75])) if len(one.chance) else (0.0, 0.0) for one in found]
    return Bar(
        (
            Series("assigned pairs", names, middle, [low for low, _ in ends], [high for _, high in ends]),
            Series("by chance", names, usual, [low for low, _ in spread], [high for _, high in spread], "null"),
        ),
        "layer",
        "r on held-out samples",
        "correlation of assigned units, layer by layer, beside that of pairs on turned latents",
        caption="Median over the pairs of units; whiskers are the middle half.",
    )


def _table(pairs: Sequence[tuple[PooledLayer, PooledLayer]], found: Sequence[Matching]) -> Block:
    rows = []
    for (a, b), one in zip(pairs, found, strict=True):
        median = float(np.median(one.r)) if len(one.r) else None
        null = float(np.percentile(one.chance, 95)) if len(one.chance) else None
        counts = (len(one.r), int(one.passed.sum()), int((one.passed & (one.r > 0.5)).sum()))
        rows.append((a.layer.name, b.layer.name, *counts, median, null, one.still))
    columns = ("layer", "of the other", "pairs", "matched", "with r > 0.5", "median r", "95 % of chance", "never vary")
    return Table(columns, rows)


def _data(pairs: Sequence[tuple[PooledLayer, PooledLayer]], found: Sequence[Matching]) -> Block:
    """All matched pairs for programs: layer -> [unit, unit of the other, r], the strongest first."""
    told = {}
    for name, one in zip(_names(pairs), found, strict=True):
        order = [place for place in np.argsort(-one.r, kind="stable") if one.passed[place]]
        told[name] = [[int(one.first[i]), int(one.second[i]), float(one.r[i])] for i in order]
    return Data("matched units", told)
