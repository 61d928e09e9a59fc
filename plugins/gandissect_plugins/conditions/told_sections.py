"""What a condition tells of the images: bits about measured properties, classes told apart, units and concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gandissect.analyzer import left_out
from gandissect.blocks import Bar, Block, Cell, Heatmap, Line, Section, Series, Table, Text
from gandissect.session import Session
from gandissect.trust import adjusted, interval
from gandissect.wording import percent
from gandissect_plugins.distribution.words import number

from .condition import Condition
from .effect_sections import by_name
from .evidence import Evidence, layers_of
from .information import DRAWS, Information, information
from .probe import Leak, Probe
from .references import BENJAMINI, KRUSKAL, LOPEZ_PAZ, MILLER, PHIPSON
from .units import UnitEffects, differing

RATE = 0.05
SHOWN = 12
LEAKED = 0.1
"""More answers in common for one z than this are told."""
TITLES = ("What the condition tells", "Which values can be told apart", "Units and concepts by condition")


def information_section(session: Session, conditions: Sequence[Condition], seen: Evidence) -> Section:
    """Bits between every condition and every measured property."""
    measured = seen.measured
    if not measured:
        return Section(TITLES[0], summary="needs images that vary; here every property is constant", status="skipped")
    values = np.stack(list(measured.values()), 1)
    found = {
        one.name: information(one.groups(seen.given), values, session.rng(f"information: {one.name}"))
        for one in conditions
    }
    corrected = adjusted(np.stack([one.p for one in found.values()]))
    adjusted_by = dict(zip(found, corrected, strict=True))
    bars: dict[str, Block] = {name: _bits(one, name, list(measured)) for name, one in found.items()}
    rows = [row for name, one in found.items() for row in _rows(name, one, list(measured), adjusted_by[name])]
    columns: tuple[str, ...] = (
        "condition",
        "property",
        "bits",
        "bias taken off",
        "95 % of chance",
        "p",
        "adjusted p",
        "of its entropy",
    )
    caption = f"{len(seen.given)} samples; p counts {DRAWS} permutations and is adjusted over all rows."
    return Section(
        TITLES[0],
        *by_name(bars),
        Table(columns, rows, caption=caption),
        summary=" ".join(_told(name, one, list(measured), adjusted_by[name]) for name, one in found.items()),
        meaning=_INFORMATION,
        references=(MILLER, PHIPSON, BENJAMINI),
    )


def _bits(found: Information, name: str, names: Sequence[str]) -> Bar:
    order = np.argsort(-found.bits, kind="stable")[:SHOWN]
    chosen = [names[place] for place in order]
    return Bar(
        (
            Series("bits", chosen, [float(found.bits[place]) for place in order]),
            Series("95 % of chance", chosen, [float(found.high[place]) for place in order], role="null"),
        ),
        "property",
        "bits",
        f"What the {name} tells about each of {len(chosen)} properties",
        caption=f"The {name} holds {number(found.entropy)} bits in these samples.",
    )


def _rows(name: str, found: Information, names: Sequence[str], q: np.ndarray) -> list[tuple[Cell, ...]]:
    order = np.argsort(-found.bits, kind="stable")
    return [
        (
            name,
            names[place],
            float(found.bits[place]),
            float(found.null[place]),
            float(found.high[place]),
            float(found.p[place]),
            float(q[place]),
            percent(float(found.bits[place]) / found.entropy) if found.entropy > 0 else "",
        )
        for place in order
    ]


def _told(name: str, found: Information, names: Sequence[str], q: np.ndarray) -> str:
    passed = [place for place in np.argsort(-found.bits, kind="stable") if q[place] < RATE]
    if not passed:
        return f"The {name} tells nothing about {len(names)} properties beyond chance."
    best = passed[0]
    return (
        f"The {name} tells most about *{names[best]}* ({number(float(found.bits[best]))} of {number(found.entropy)} bits); "
        f"{len(passed)} of {len(names)} properties are above chance."
    )


_INFORMATION = """
*Bits* are the mutual information between the condition and a property of the image: how much the answer to "which value
was set?" is narrowed down by measuring that one property. Properties are cut into equally full bins; a continuous code
into eighths. Counting few samples gives too many bits; the mean over permuted conditions, which tell nothing, is taken
off and shown. What two properties tell overlaps: a class that is brighter also has more contrast, so rows do not add up.
A concept's row is about the area that it covers.
"""


def classes_section(
    conditions: Sequence[Condition], probes: Mapping[str, Probe | None], leaks: Mapping[str, Leak]
) -> Section:
    """Held-out accuracy, confusions, pairs that are not told apart, and what z alone decides."""
    usable = {one.name: (one, seen) for one in conditions if (seen := probes[one.name]) is not None}
    if not usable:
        why = "needs two values of a condition with at least 8 samples each (--samples N)"
        return Section(TITLES[1], summary=why, status="skipped")
    measures = [_probe_measures(seen, leaks.get(name)) for name, (_, seen) in usable.items()]
    table = Table(
        ("measure", *usable),
        [(name, *(each[name] for each in measures)) for name in measures[0]],
        caption="Intervals are 95 % (Wilson).",
        sortable=False,
    )
    confusions: dict[str, Block] = {
        name: Heatmap(
            seen.confusion, _groups(one), _groups(one), f"Confusions of a probe for the {name}", unit="share of the row",
            caption=f"Rows are the values that were set, columns the probe's answers on {seen.held_out} held-out samples.",
        )
        for name, (one, seen) in usable.items()
    }  # fmt: skip
    pairs = [row for name, (one, seen) in usable.items() if one.discrete for row in _pair_rows(one, seen)]
    blocks: list[Block] = [table, *by_name(confusions)]
    if pairs:
        caption = "The pairs that are told apart worst, by the classifier fitted on the two alone; 0.5 is chance; p is adjusted."
        blocks.append(Table(("condition", "pair", "accuracy", "low", "high", "adjusted p"), pairs, caption=caption))
    return Section(
        TITLES[1],
        *blocks,
        summary=" ".join(_apart(one, seen, leaks.get(name)) for name, (one, seen) in usable.items()),
        meaning=_CLASSES,
        references=(LOPEZ_PAZ, PHIPSON),
    )


def _groups(condition: Condition) -> tuple[str, ...]:
    return condition.value_names if condition.discrete else tuple(f"eighth {place + 1}" for place in range(8))


def _probe_measures(seen: Probe, leaked: Leak | None) -> dict[str, Cell]:
    return {
        "held-out accuracy": percent(seen.accuracy),
        "its interval": f"{percent(seen.low)} to {percent(seen.high)}",
        "chance": percent(seen.chance),
        "p of the accuracy": seen.p,
        "answer is the value set, same z for all values": "" if leaked is None else percent(leaked.right),
        "same answer for two values of one z": "" if leaked is None else percent(leaked.same),
        "same answer for two values of different z": "" if leaked is None else percent(leaked.expected),
        "p that z decides": None if leaked is None else leaked.p,
    }


def _pair_rows(condition: Condition, seen: Probe) -> list[tuple[Cell, ...]]:
    names = condition.value_names
    worst = sorted(seen.pairs, key=lambda pair: (pair.right / pair.total, pair.first, pair.second))[:SHOWN]
    return [
        (
            condition.name,
            f"{names[pair.first]} and {names[pair.second]}",
            pair.right / pair.total,
            *interval(pair.right, pair.total),
            pair.p,
        )
        for pair in worst
    ]


def _apart(condition: Condition, seen: Probe, leaked: Leak | None) -> str:
    text = (
        f"A probe names the {condition.name} of {percent(seen.accuracy)} of {seen.held_out} held-out samples (CI "
        f"{percent(seen.low)} to {percent(seen.high)}, chance {percent(seen.chance)})"
    )
    mixed = [pair for pair in seen.pairs if not pair.told] if condition.discrete else []
    if mixed:
        names = condition.value_names
        listed = ", ".join(f"{names[pair.first]} with {names[pair.second]}" for pair in mixed[:4])
        more = " …" if len(mixed) > 4 else ""
        text += f"; {len(mixed)} of {len(seen.pairs)} pairs of values are not told apart ({listed}{more})"
    if leaked is not None and leaked.p < RATE and leaked.same > leaked.expected + LEAKED:
        text += (
            f"; z decides much of what it sees: two values of one z get one answer in {percent(leaked.same)} of pairs, of "
            f"different z in {percent(leaked.expected)}"
        )
    return f"{text}."


_CLASSES = """
The probe is a support vector machine on pixels averaged on a grid of at most 16×16 and the measured properties, fitted on
one half of the samples and tested on the other. It is a simple one: values that it confuses may differ in ways that it
cannot see, and the p of a pair says that a difference was seen, not that there is none where p is large.

*Same answer for the same z*: the probe looks at fresh latents under every value. Where z decides what is drawn whatever
the condition says, images of one z get the same answer more often than images of different z (p permutes the z of each
value). A generator that obeys its condition gives each its own answer.
"""


def units_section(session: Session, conditions: Sequence[Condition], seen: Evidence) -> Section:
    """Units that differ by condition, layer by layer, and the concept areas of every value."""
    layers = layers_of(session)
    blocks: list[Block] = []
    sentences = []
    if layers:
        effects = {
            one.name: differing(seen.units, one.groups(seen.given), session.rng(f"units: {one.name}"))
            for one in conditions
        }
        blocks += [
            *by_name({name: _depth(name, found) for name, found in effects.items()}),
            _unit_table(conditions, effects),
        ]
        sentences += [_most(name, found) for name, found in effects.items()]
        every = len(session.gan.generator.main_layers())
        sentences.append(left_out(len(layers), every, "the others may differ more"))
    by_concept = {one.name: made for one in conditions if (made := _concepts(one, seen)) is not None}
    blocks += by_name(by_concept)
    if not blocks:
        return Section(TITLES[2], summary="needs readable layers, or concepts (pass --concepts NAME)", status="skipped")
    if not by_concept:
        blocks.append(Text("No concept's area varies; `--concepts NAME` names a segmenter that reads pixels."))
    summary = " ".join(filter(None, sentences)) or "The mean area of each concept under each value."
    return Section(TITLES[2], *blocks, summary=summary, meaning=_UNITS, references=(KRUSKAL, BENJAMINI))


def _depth(name: str, found: Mapping[str, UnitEffects]) -> Block:
    layers = list(found)
    return Line(
        (
            Series("mean over units", layers, [float(one.eta.mean()) for one in found.values()]),
            Series("largest unit", layers, [float(one.eta.max()) for one in found.values()]),
            Series("mean of permuted values", layers, [one.null for one in found.values()], role="null"),
        ),
        "layer",
        "η², part of a unit's variation",
        f"How much of the units' variation goes with the {name}, over {len(layers)} layers",
    )


def _unit_table(conditions: Sequence[Condition], effects: Mapping[str, Mapping[str, UnitEffects]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in conditions:
        names = _groups(one)
        for layer, found in effects[one.name].items():
            for unit in np.argsort(-found.eta, kind="stable")[:3]:
                most = names[int(found.most[unit])]
                rows.append(
                    (one.name, layer, int(unit), float(found.eta[unit]), found.null_high, float(found.p[unit]), most)
                )
    columns: tuple[str, ...] = (
        "condition",
        "layer",
        "unit",
        "η²",
        "95 % of chance",
        "adjusted p",
        "largest mean under",
    )
    return Table(columns, rows, caption="The three units of each layer that differ most; p is adjusted over all units.")


def _most(name: str, found: Mapping[str, UnitEffects]) -> str:
    counts = {layer: int(one.told.sum()) for layer, one in found.items()}
    told, units = sum(counts.values()), sum(len(one.eta) for one in found.values())
    if not told:
        return f"No unit of {units} differs by {name} beyond chance."
    layer = max(found, key=lambda key: float(found[key].eta.max()))
    unit = int(found[layer].eta.argmax())
    return (
        f"{told} of {units} units differ by {name}; most does unit {unit} of `{layer}` (η² = "
        f"{number(float(found[layer].eta[unit]))}, chance {number(found[layer].null)})."
    )


def _concepts(condition: Condition, seen: Evidence) -> Block | None:
    """Mean area of the concepts under each value, in standard deviations from their mean over all samples."""
    varying = {name: row for name, row in seen.concepts.items() if np.ptp(row) > 0}
    if not varying:
        return None
    groups = condition.groups(seen.given)
    members = np.eye(int(groups.max()) + 1)[groups]
    values = np.stack(list(varying.values()), 1)
    standard = (values - values.mean(0)) / values.std(0)
    means = members.T @ standard / members.sum(0)[:, None]
    order = np.argsort(-np.abs(means).max(0), kind="stable")[:SHOWN]
    names = [list(varying)[place].removeprefix("area of ") for place in order]
    return Heatmap(
        means[:, order], _groups(condition)[: len(means)], tuple(names),
        f"Concept areas under each value of the {condition.name}", signed=True, unit="standard deviations from the mean",
        caption=f"The {len(names)} concepts whose mean area differs most; *What the condition tells* has the tests.",
    )  # fmt: skip


_UNITS = """
η² is the part of the variance (of ranks) of a unit's mean activation that lies between values of the condition: 0 where
the unit takes no notice, 1 where the condition alone sets it. Groups that mean nothing give (K − 1)/(n − 1) on average,
which the line shows from permutations. A unit that differs need not cause what differs in the image.
"""
