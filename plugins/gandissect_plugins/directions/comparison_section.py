"""All directions in one table, what methods agree on, and the vectors themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gandissect.blocks import Block, Data, Heatmap, Section, Table, Text
from gandissect.blocks.base import Cell, Json
from gandissect.session import Session
from gandissect_plugins.features.embedding import Floats

from .basis import Directions
from .consensus import Consensus, consensus
from .effects import Effects, prior_sigma
from .probe_section import RATE, Probed
from .references import BJORCK, SHEN, YANG
from .unlabelled_section import STABLE, standing_out

COLUMNS = (
    "direction",
    "method",
    "property",
    "effect (sd)",
    "random (sd)",
    "beats random",
    "adjusted p",
    "purity",
    "purity of random (95 %)",
    "side effects (sd)",
    "added (sd)",
    "added by random (sd)",
    "stability",
    "nearest of another method",
    "|cosine|",
    "|cosine| of random (95 %)",
    "passes",
)
MEANING = """
Every row is measured on the same fresh samples, beside the same random directions, and sorted by effect.

- *Effect* is the mean change from −2σ to +2σ in standard deviations of the property over the samples.
- *Purity* says how disentangled a direction is: the share of all measured change that falls on the property. Beside
  it the share that 95 % of random directions stay below. *Side effects* are the two properties that change most
  besides. Concepts are measured on fewer samples and against each other.
- *Added* is HiGAN's rescoring, the mean of max(0, change) from the sample itself to +2σ. Negative changes count as
  zero, so random directions add something too; theirs stands beside it. A direction that lowers its property adds
  little.
- *Passes*: visible and coherent, more than every random direction, at a false-discovery rate of 5 %, stable where
  stability is measured, and above chance on held-out samples where it is a probe.

A latent that enters the network once has no layers in which it could act alone; where it enters several times (w+),
the section on layers says where a direction acts.

*Consensus*: the mean cos² of the principal angles between what two methods span, 1 for the same space, beside what
random spaces of the same dimensions have. The two variants of SeFa share their weights, probes and InterFaceGAN their
labels: their agreement is no confirmation, and the nearest direction is never looked for among them.

`gandissect edit CHECKPOINT --direction REPORT.json#NAME --alpha -3..3 -o strip.png` draws any of them.
"""


@dataclass(frozen=True)
class Row:
    """One direction and the property that is told of it; ``readable`` where its probe is above chance on held-out samples."""

    name: str
    method: str
    vector: Floats
    effects: Effects
    row: int
    column: int
    stability: float | None = None
    readable: bool = True

    @property
    def passed(self) -> bool:
        """Beyond chance, visible, and stable or readable where that is measured."""
        stable = self.stability is None or self.stability >= STABLE
        return self.readable and stable and self.effects.passes(self.row, self.column)

    @property
    def effect(self) -> float:
        """Mean magnitude of the change in standard deviations."""
        return float(self.effects.change[self.row, self.column])


def rows_of(
    probes: Sequence[Probed], found: Sequence[tuple[Directions, Effects, int, tuple[str, ...]]]
) -> Iterator[Row]:
    """A row for each probe, and for each of ``found``: (directions, effects, the first one's row there, targets or none)."""
    for item in probes:
        readable, probed = item.q < RATE, item.first
        place = (item.effects, item.row, item.column)
        yield Row(probed.name, "probe, logistic", probed.direction, *place, readable=readable)
    for part, effects, first, targets in found:
        for i, name in enumerate(part.names):
            column = effects.properties.index(targets[i]) if targets else standing_out(effects, first + i)
            stability = float(part.stability[i]) if len(part.stability) else None
            yield Row(name, part.method, part.vectors[i], effects, first + i, column, stability)


def comparison_section(session: Session, rows: Sequence[Row], parts: Sequence[Directions]) -> Section:
    """The table of ``rows``, the consensus of ``parts``, and the vectors for programs."""
    title = "Directions compared"
    if not rows:
        why = "needs at least one direction: no property varies and no layer can be read (--samples N makes more)"
        return Section(title, summary=why, status="skipped", meaning=MEANING)
    parts = [part for part in parts if len(part.names)]
    agreed = consensus(parts, session.rng("directions: consensus")) if len(parts) > 1 else None
    ranked = sorted(rows, key=lambda row: (-row.effect, row.name))
    blocks: list[Block] = [_table(ranked, agreed)]
    if agreed is not None:
        blocks += [_heatmap(agreed), _pairs(agreed)]
    blocks += [
        Text("The vectors are in the report's JSON, for `gandissect edit --direction REPORT.json#NAME`."),
        Data("directions", vectors_of(session, rows)),
    ]
    passed = [row for row in ranked if row.passed]
    summary = f"{len(passed)} of {len(rows)} directions pass against random ones on the same samples."
    if passed:
        purest = max(passed, key=lambda row: row.effects.purity(row.row, row.column))
        summary += (
            f" The purest is {purest.name}: {purest.effects.purity(purest.row, purest.column):.0%} of its change is in "
            f"{purest.effects.properties[purest.column]}.".replace("%", " %")
        )
    if agreed is not None:
        summary += " " + _agreement(agreed)
    return Section(title, *blocks, summary=summary, meaning=MEANING, references=(YANG, SHEN, BJORCK))


def vectors_of(session: Session, rows: Sequence[Row]) -> dict[str, Json]:
    """Name -> space, length of one σ, method and unit vector with five significant digits."""
    space, sigma = session.gan.generator.latent.name, prior_sigma(session)
    return {
        row.name: {
            "space": space,
            "sigma": sigma,
            "method": row.method,
            "vector": [float(f"{value:.5g}") for value in row.vector],
        }
        for row in rows
    }


def _table(rows: Sequence[Row], agreed: Consensus | None) -> Table:
    told: list[tuple[Cell, ...]] = []
    for row in rows:
        e, i, j = row.effects, row.row, row.column
        near = agreed.nearest.get(row.name) if agreed is not None else None
        told.append(
            (
                row.name,
                row.method,
                e.properties[j],
                row.effect,
                float(e.null_change[:, j].mean()),
                e.percentile(i, j),
                float(e.adjusted[i, j]),
                e.purity(i, j),
                e.random_purity(j),
                ", ".join(f"{name} {change:.1f}" for name, change in e.side_effects(i, j)),
                float(e.added[i, j]),
                float(e.null_added[:, j].mean()),
                row.stability,
                near[0] if near else None,
                near[1] if near else None,
                agreed.by_chance.get(row.name) if agreed else None,
                "yes" if row.passed else "no",
            )
        )
    caption = "Sorted by effect; adjusted p over the directions of its section and all properties."
    return Table(COLUMNS, told, caption=caption)


def _heatmap(agreed: Consensus) -> Heatmap:
    return Heatmap(
        agreed.agreement,
        agreed.methods,
        agreed.methods,
        f"Agreement of {len(agreed.methods)} methods",
        unit="mean cos² of the principal angles",
        caption="1 where two methods span the same space; the table below has what random spaces would have.",
    )


def _pairs(agreed: Consensus) -> Table:
    count = len(agreed.methods)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    pairs.sort(key=lambda pair: -agreed.agreement[pair])
    rows: list[tuple[Cell, ...]] = []
    for i, j in pairs:
        numbers = [float(matrix[i, j]) for matrix in (agreed.agreement, agreed.chance, agreed.angles)]
        rows.append((agreed.methods[i], agreed.methods[j], *numbers))
    return Table(("method", "method ", "mean cos²", "random spaces", "smallest angle (°)"), rows)


def _agreement(agreed: Consensus) -> str:
    near = [name for name, (_, cosine) in agreed.nearest.items() if cosine > agreed.by_chance[name]]
    return f"{len(near)} of {len(agreed.nearest)} directions lie nearer to one of another method than 95 % of random directions do."


def logistic_part(probes: Sequence[Probed]) -> Directions | None:
    """The probes that passed as one method."""
    passed = [item for item in probes if item.passed]
    if not passed:
        return None
    return Directions(
        "probes, logistic",
        tuple(item.first.name for item in passed),
        np.stack([item.first.direction for item in passed]),
        np.array([item.first.accuracy for item in passed]),
        "held-out accuracy",
        np.zeros(0),
    )
