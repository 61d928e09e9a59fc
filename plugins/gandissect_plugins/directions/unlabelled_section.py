"""Directions found without labels as a section: what each direction changes, beside random directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gandissect.blocks import Block, Finding, Heatmap, Section, Table, Text, Trust, in_tabs
from gandissect.session import Session
from gandissect.wording import p_value, percent

from .basis import Directions
from .consensus import source
from .effects import Effects
from .probe_section import RATE, direction_strip
from .references import HARKONEN, HYVARINEN, SHEN_ZHOU, YUKSEL

STABLE = 0.7
SAME = 0.8
"""Directions with a larger |cosine| than this are told as one."""
REFERENCES = (HARKONEN, SHEN_ZHOU, HYVARINEN, YUKSEL)
MEANING = """
- **GANSpace** takes the principal components of a layer's activations and finds, by least squares, the latent
  direction that goes with each. *Stability* is the |cosine| with the nearest direction found from either half of
  the samples alone; below 0.7 the direction depends on the samples.
- **SeFa** takes the eigenvectors of AᵀA, where A is the weight of the first layer that takes the latent, each
  output scaled to length 1 as the authors do; *unscaled* as other public code has it. It uses no samples.
- **ICA** unmixes the first 20 principal components of the layer and takes the least normal of its components.
- **LatentCLR** learns directions whose changes of a layer are alike from sample to sample and unlike those of the
  other directions (40 steps of 4 samples; the paper's run is far longer). Its *margin* is the mean cosine between
  changes of the same direction minus that between different ones, on samples that were not learned from.

None of these orders directions by how much they change the picture. The table
shows the change from −2σ to +2σ on the same fresh samples for all, beside random directions. A direction is a
finding when it moves a property visibly, more than every random direction, and at a false-discovery rate of 5 %
over all directions and properties, while the picture changes coherently (the mean colour of some sixteenth moves by
0.08 of its range, and 30 % of the energy of the mean change survives an average over 4×4 pixels).
"""


@dataclass(frozen=True)
class Shown:
    """A direction, the property that it is told by, and how far that is to be trusted: "checked" where it passed."""

    name: str
    part: Directions
    place: int
    row: int
    column: int
    trust: Trust


def shown_by(found: Sequence[Directions], effects: Effects) -> list[Shown]:
    """One for each direction, in the order of ``effects.directions``."""
    stability = _stability(found)
    places = [(part, place, name) for part in found for place, name in enumerate(part.names)]
    out = []
    for row, (part, place, name) in enumerate(places):
        column = standing_out(effects, row)
        out.append(Shown(name, part, place, row, column, _trust(effects, row, column, stability.get(name))))
    return out


def unlabelled_findings(
    found: Sequence[Directions], effects: Effects | None, told: Mapping[str, float]
) -> dict[str, Finding]:
    """Property -> headline, two at most; of ``told`` (property -> change elsewhere) only what is changed more here."""
    if effects is None:
        return {}
    passed = [one for one in shown_by(found, effects) if one.trust.level == "checked"]
    out: dict[str, Finding] = {}
    for one, finding in _findings(passed, effects):
        name = effects.properties[one.column]
        if float(effects.change[one.row, one.column]) > told.get(name, 0.0):
            out.setdefault(name, finding)
    return dict(list(out.items())[:2])


def _stability(found: Sequence[Directions]) -> dict[str, float]:
    return {
        n: float(s) for part in found if len(part.stability) for n, s in zip(part.names, part.stability, strict=True)
    }


def unlabelled_section(
    session: Session,
    found: Sequence[Directions],
    notes: Sequence[str],
    effects: Effects | None,
    strips: int,
    findings: Sequence[Finding],
    *,
    title: str = "Directions found without labels",
    space: str = "",
) -> Section:
    """Effects of all directions, a table of them, and strips of the first ones of each method."""
    if effects is None:
        why = " ".join(notes) or "needs samples that differ in a measured property (--samples N makes more)"
        return Section(title, summary=why, status="skipped", meaning=MEANING, references=REFERENCES)
    shown = shown_by(found, effects)
    blocks: list[Block] = [
        Text(" ".join([*(f"{part.method}: {len(part.names)} directions." for part in found), *notes]))
    ]
    blocks += [_heatmap(effects), _table(found, effects, [one.column for one in shown], _stability(found))]
    strip_of: dict[str, Block] = {}
    for one in shown:
        if one.place < max(1, strips // len(found)):
            facts = _facts(one.part, one.place, effects, one.row, one.column)
            vector = one.part.vectors[one.place]
            strip_of[one.name] = direction_strip(session, vector, one.name, facts, one.trust, space=space)
    blocks += in_tabs(strip_of)
    passed = sum(one.trust.level == "checked" for one in shown)
    summary = f"{passed} of {len(shown)} directions visibly change a property, more than every random direction."
    return Section(title, *blocks, summary=summary, findings=findings, meaning=MEANING, references=REFERENCES)


def standing_out(effects: Effects, row: int) -> int:
    """The property that changes most of those that pass against random directions; that of the smallest p where none does."""
    passing = [column for column in range(len(effects.properties)) if effects.passes(row, column, RATE)]
    if passing:
        return max(passing, key=lambda column: effects.change[row, column])
    return int(effects.p[row].argmin())


def _trust(effects: Effects, row: int, column: int, stability: float | None) -> Trust:
    stable = stability is None or stability >= STABLE
    passed = effects.passes(row, column, RATE) and stable
    label = f"beats {effects.percentile(row, column):.0%} of random".replace("%", " %")
    if stability is not None:
        label += f" · stability {stability:.2f}"
    tested = (
        f"{effects.properties[column]} against {len(effects.null_shift)} random directions on the same {effects.seeds} "
        f"fresh samples, adjusted {p_value(effects.adjusted[row, column])} over {effects.p.size} pairs"
    )
    return Trust(label, tested, "checked" if passed else "weak")


def _findings(passed: Sequence[Shown], effects: Effects) -> list[tuple[Shown, Finding]]:
    """One for each group of directions that are nearly the same, the largest effect first."""
    order = sorted(passed, key=lambda one: (-round(float(effects.change[one.row, one.column]), 1), one.row))
    vectors = [one.part.vectors[one.place] for one in order]
    told: list[int] = []
    findings = []
    for place, one in enumerate(order):
        alike = [other for other in range(len(order)) if abs(float(vectors[place] @ vectors[other])) > SAME]
        if set(alike) & set(told):
            continue
        told.append(place)
        others = sorted({source(order[other].part) for other in alike} - {source(one.part)})
        findings.append((one, _finding(one.name, one.part, effects, one.row, one.column, one.trust, others)))
    return findings


def _finding(
    name: str, part: Directions, effects: Effects, row: int, column: int, trust: Trust, others: Sequence[str]
) -> Finding:
    text = (
        f"{name} ({part.method}) moves {effects.properties[column]} by {effects.shift[row, column]:+.2f} from −2σ to +2σ: "
        f"{effects.change[row, column]:.1f} standard deviations, against {effects.null_change[:, column].mean():.1f} "
        f"for random directions. {percent(effects.purity(row, column))} of all measured change is in it (95 % of random "
        f"directions: below {percent(effects.random_purity(column))})."
    )
    along = [other for other, change in effects.side_effects(row, column) if change > effects.change[row, column] / 2]
    if along:
        text += f" *{' and '.join(along)}* {'move' if len(along) > 1 else 'moves'} along."
    if others:
        text += f" {' and '.join(others)} {'find' if len(others) > 1 else 'finds'} it too (|cosine| above {SAME:g})."
    return Finding(text, trust, min(1.0, float(effects.change[row, column]) / 4))


def _facts(part: Directions, i: int, effects: Effects, row: int, column: int) -> tuple[tuple[str, str], ...]:
    sides = ", ".join(f"{name} {change:.1f} sd" for name, change in effects.side_effects(row, column))
    shift, change = effects.shift[row, column], effects.change[row, column]
    return (
        ("strongest against random", f"{effects.properties[column]} {shift:+.2f}, {change:.1f} sd"),
        ("random directions", f"{effects.null_change[:, column].mean():.1f} sd on average"),
        ("side effects", sides or "none measured"),
        (part.strength_label, f"{part.strengths[i]:.3g}"),
    )


def _heatmap(effects: Effects) -> Heatmap:
    null = np.quantile(effects.null_change, [0.5, 0.95], axis=0)
    return Heatmap(
        np.concatenate([effects.change, null]),
        (*effects.directions, "random, median", "random, 95 %"),
        effects.properties,
        f"Change of {len(effects.properties)} properties along {len(effects.directions)} directions and random ones",
        unit="standard deviations",
        caption=f"Mean magnitude of the change from −2σ to +2σ on {effects.seeds} fresh samples, the same for every row.",
    )


def _table(found: Sequence[Directions], effects: Effects, best: Sequence[int], stability: dict[str, float]) -> Table:
    rows = []
    names = [(part, i, name) for part in found for i, name in enumerate(part.names)]
    for row, (part, i, name) in enumerate(names):
        column = best[row]
        rows.append(
            (
                name,
                float(part.strengths[i]),
                stability.get(name),
                effects.properties[column],
                float(effects.shift[row, column]),
                float(effects.change[row, column]),
                effects.percentile(row, column),
                float(effects.adjusted[row, column]),
                effects.purity(row, column),
            )
        )
    columns = (
        "direction",
        "strength",
        "stability",
        "property",
        "shift",
        "change (sd)",
        "beats random",
        "adjusted p",
        "purity",
    )
    caption = (
        f"The property that stands out most from {len(effects.null_shift)} random directions; strength is "
        + "; ".join(f"{part.method}: {part.strength_label}" for part in found)
    )
    return Table(columns, rows, caption=caption + ".")
