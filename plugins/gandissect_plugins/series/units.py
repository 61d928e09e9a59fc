"""When units become what they are at the end: each unit's answers to the same latents against its own at the last checkpoint.

kept = kept_units(rows, rows_at_the_end, rng)
kept.r.mean(), kept.passed.mean()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Line, Section, Series, Table
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.session import Session, Want
from gandissect.trust import adjusted, interval
from gandissect_plugins.comparison.layers import LayersSeen, layer_wants, layers_seen

from .axis import at

TITLE = "When units settle"
STRONG = 0.5
RATE = 0.05
MEANING = f"""
Units keep their place during a training: unit *i* of a layer is compared with unit *i* of the same layer at the last checkpoint, by
the correlation *r* of its mean over the image on the same latents. *Settled*: r above {STRONG}, and above what the
same units give on latents whose coordinates are exchanged and change their signs, at a false-discovery rate of {100 * RATE:.0f} % within
the layer. A unit that does not vary at either checkpoint counts as not settled. Bands are Wilson's 95 % intervals over units.
"""
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class KeptUnits:
    """``r`` float64 [U] with the last checkpoint, 0 where a unit does not vary; ``passed`` bool [U], settled."""

    r: Rows
    passed: NDArray[np.bool_]


def kept_units(rows: Rows, last: Rows, turned: Rows) -> KeptUnits:
    """Each unit against itself at the end.

    Args:
        rows: float64 [n, U] of one checkpoint.
        last: float64 [n, U] of the last one, the same samples.
        turned: float64 [m, U] of the last one on turned latents, m ≤ n.
    """
    from scipy.stats import norm

    r, chance = _correlations(rows, last), _correlations(rows[: len(turned)], turned)
    z, null = np.arctanh(r.clip(-0.999999, 0.999999)), np.arctanh(chance.clip(-0.999999, 0.999999))
    deviation = max(float(np.sqrt(np.square(null).mean())), len(rows) ** -0.5)
    return KeptUnits(r, (adjusted(norm.sf(z / deviation)) <= RATE) & (r > STRONG))


def _correlations(first: Rows, second: Rows) -> Rows:
    a, b = first - first.mean(0), second - second.mean(0)
    lengths = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return np.asarray(np.where(lengths > 1e-12, (a * b).sum(0) / np.where(lengths > 1e-12, lengths, 1.0), 0.0))


class UnitSeries(Comparer[LayersSeen]):
    """Units against themselves at the end of the training."""

    name: ClassVar[str] = "units"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 300

    def wants(self, session: Session) -> Iterable[Want]:
        return layer_wants(session)

    def look(self, session: Session) -> LayersSeen:
        return layers_seen(session)

    def tell(self, seen: Sequence[LayersSeen], lineup: Lineup) -> Iterator[Section]:
        why = next((one.lacking for one in seen if one.lacking), "")
        shapes = [[(layer.layer.name, layer.layer.channels) for layer in one.layers] for one in seen]
        for name, own in zip(lineup.names, shapes, strict=True):
            why = why or ("" if own == shapes[-1] else f"{name} has other layers than {lineup.names[-1]}")
        if why:
            yield Section(TITLE, summary=why, status="skipped")
            return
        yield _section(seen, lineup)


def _section(seen: Sequence[LayersSeen], lineup: Lineup) -> Section:
    last = seen[-1].layers
    table = [
        [kept_units(own.rows, end.rows, end.turned) for own, end in zip(one.layers, last, strict=True)]
        for one in seen[:-1]
    ]
    lines, rows = [], []
    for k, layer in enumerate(last):
        counts = [(int(row[k].passed.sum()), len(row[k].r)) for row in table]
        ends = [interval(*count) for count in counts]
        share = [hits / units for hits, units in counts]
        x = lineup.places[:-1]
        lines.append(Series(layer.layer.name, x, share, [low for low, _ in ends], [high for _, high in ends]))
        half = next((at(lineup, place) for place, value in enumerate(share) if value >= 0.5), "")
        median = [float(np.median(row[k].r)) for row in table]
        rows.append((layer.layer.name, counts[-1][1], share[0], share[-1], median[0], median[-1], half))
    before = sum(int(one.passed.sum()) for one in table[-1])
    units = sum(len(one.r) for one in table[-1])
    text = f"At {at(lineup, len(seen) - 2)}, the checkpoint before the last, {before} of {units} units answer as they do at the end."
    plot = Line(
        tuple(lines), lineup.axis, "share of the units settled", "share of each layer's units that answer as at the end"
    )
    columns = (
        "layer",
        "units",
        "settled at the start",
        "before the last",
        "median r at the start",
        "median r before the last",
        "half of them from",
    )
    return Section(TITLE, plot, Table(columns, rows), summary=text, meaning=MEANING)
