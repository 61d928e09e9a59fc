"""The sections of a dissection: overview, units.

yield overview(result, tests)
"""

from __future__ import annotations

import numpy as np

from gandissect.blocks import (
    Block,
    Cell,
    Data,
    Finding,
    Gallery,
    Json,
    Multiples,
    Section,
    Table,
    Text,
    Trust,
)  # fmt: skip
from gandissect.wording import p_value, percent

from .causal import CausalTests
from .causal.words import effect_percent, units_of, whole
from .dissect import Dissection
from .significance.floors import CONTRAST_FLOOR, CORRELATION_FLOOR, FLOOR, LEAST_CELLS

MEANING = f"""A unit is *active* where its output exceeds a threshold that a fixed fraction of all its cells exceed; the
threshold is exact. A unit follows a concept when the active cells and the concept's area overlap:
IoU = intersection / union over all samples. The grid is the layer's own: concept areas are pooled to its cells.

**Chance.** The masks of other samples are laid over the same units. Position and frequency of every concept stay, only
which sample it is in is lost, so an overlap that position alone explains gets no credit. p is the rank of the true
overlap among the shuffles, standardised and pooled over the units of a layer where the rank alone does not resolve it.
The false-discovery rate is held by Benjamini–Hochberg over all units, concepts and layers together.

**Floors.** A label is reported when it passes that test *and* its IoU exceeds the shuffled mean by {FLOOR:g}, or
{CONTRAST_FLOOR:g} for edges, textures and clusters (in a layer of few units by 0.3/√units, or 0.36/√units). A unit that is
active in 1 % of its cells cannot have a large IoU with a concept that covers much more: at most quantile / area. A unit
without such an IoU is reported by *correlation* when Pearson's r over all cells exceeds what position alone gives by
{CORRELATION_FLOOR:g} (1.2/√units in a layer of fewer than 9 units, 5/√(n − 1) below 158 samples), in maps of at least
{LEAST_CELLS} cells. Floors are needed because with random weights, too, single units overlap with colours and textures
a little, and truly so. @CALIBRATION@

**Limits.** Overlap is not cause; the causal section measures that. Concepts are only as good as whoever finds them: a
segmenter trained on photographs errs on generated images."""

CALIBRATION = """Set from 144 networks with random weights (DCGANs of 28 to 64 pixels with 4 to 128 units per layer, fitted
and fresh BatchNorm, default and DCGAN initialisation, and multilayer perceptrons; 60 to 1000 samples): none gives a
finding; the largest IoU above chance is 0.8 of its floor, the largest correlation above position's 0.37 in maps of at
least 16 cells. Fifty others, made after the floors were set, give none either."""


def few(count: float) -> str:
    """A mean count with one digit, "fewer than 0.1" below that."""
    return f"{count:.1f}" if count >= 0.1 else "fewer than 0.1"


def overview(result: Dissection, tests: CausalTests, note: str = "") -> Section:
    """How many units follow which concepts, per layer, beside what chance explains."""
    found = result.found()
    if found:
        summary = (
            f"{len(found)} of {result.units} units follow one of {len(result.ranking())} concepts; "
            f"chance explains {few(result.chance)}."
        )
    else:
        summary = f"None of {result.units} units follows a concept beyond chance and the floor of overlap."
    blocks: list[Block] = [Text(note)] if note else []
    blocks += [_counts_table(result)] if result.layers else []
    blocks += _histograms(result)
    blocks += [Text(line) for line in (_absent(result), _too_large(result)) if line]
    value: dict[str, Json] = {layer: dict(named) for layer, named in result.layer_concepts().items()}
    blocks.append(Data("layer-concepts", value))
    return Section("Units and concepts", *blocks, summary=summary, findings=_findings(result, tests), meaning=meaning())


def meaning() -> str:
    """The method and its limits, with the measured calibration."""
    return MEANING.replace("@CALIBRATION@", CALIBRATION)


def _findings(result: Dissection, tests: CausalTests) -> list[Finding]:
    """A sentence for each of the first concepts in the ranking."""
    findings = []
    for rank, (name, count) in enumerate(result.ranking()[:5]):
        k = [concept.name for concept in result.concepts].index(name)
        by_chance = sum(float(table.chance[k]) for table in result.layers)
        text = f"{count} of {result.units} units {'follow' if count > 1 else 'follows'} *{name}*"
        test = tests.of(name)
        if test is not None and test.causal:
            text += f": switching off {units_of(len(test.units))} of `{test.layer}` removes {effect_percent(test.effect)} of its area"
            text += f", random units {whole(test.random)} %"
        elif test is not None:
            text += f", but switching off {units_of(len(test.units))} of `{test.layer}` removes no more of it than random units do"
        worst = max(row.p for row in result.found() if row.concept == name)
        label = f"{p_value(worst).replace('=', '≤')} · FDR {100 * result.fdr:.0f} %"
        tested = f"overlap against {result.draws} shuffles of the samples"
        weight = (0.9 if test is not None and test.causal else 0.6) - 0.05 * rank
        findings.append(Finding(f"{text}; chance explains {few(by_chance)} of them.", Trust(label, tested), weight))
    return findings


def _counts_table(result: Dissection) -> Table:
    rows: list[list[Cell]] = []
    concepts = result.layer_concepts()
    for table in result.layers:
        named = concepts[table.layer.name]
        words = ", ".join(f"{name} {count}" for name, count in list(named.items())[:6]) or "none"
        size = f"{table.layer.channels}×{table.layer.height}×{table.layer.width}"
        rows.append([table.layer.name, size, sum(named.values()), round(float(table.chance.sum()), 2), words])
    columns = ("layer", "size", "units found", "by chance", "concepts")
    return Table(columns, rows, caption=f"Units found per layer, n = {result.n}. {_counting(result)}")


def _counting(result: Dissection) -> str:
    """How levels were chosen and overlaps counted."""
    if result.levels == "fixed":
        rule = f"A unit is active above the level that {percent(result.quantile)} of its cells exceed"
    elif result.levels == "iqr":
        rule = "A unit is active above the level at which it tells most about a concept (information quality ratio)"
    else:
        rule = f"A unit is active in that fraction of its cells, of {result.levels}, at which it tells most about a concept"
    grid = "on the layer's grid" if result.resolution == "cell" else "at the image's resolution, bilinearly"
    null = f" Chance is measured with the masks of the first {result.shuffled}." if result.shuffled < result.n else ""
    return f"{rule}; overlaps are counted {grid}.{null}"


def _histograms(result: Dissection, most: int = 18) -> list[Block]:
    """One figure: for each layer the units per concept, beside what shuffled samples give, concepts by category."""
    found = result.ranking()
    if not found:
        return []
    places = {concept.name: k for k, concept in enumerate(result.concepts)}
    category = {concept.name: concept.category for concept in result.concepts}
    order = list(dict.fromkeys(category[name] for name, _ in found))
    shown = sorted((name for name, _ in found[:most]), key=lambda name: order.index(category[name]))
    counts, columns = result.layer_concepts(), [places[name] for name in shown]
    tables = result.layers
    values = np.array([[counts[table.layer.name].get(name, 0) for name in shown] for table in tables], float)
    top, (layer, most_units) = (
        found[0],
        max(((name, sum(named.values())) for name, named in counts.items()), key=lambda item: item[1]),
    )
    alt = f"Units per concept in {len(tables)} layers by depth: {top[0]} has {top[1]}; {layer} has most, {most_units}."
    left = f" The first {len(shown)} of {len(found)} concepts." if len(shown) < len(found) else ""
    return [
        Multiples(
            tuple(f"{table.layer.name} ({len(table.label)} units)" for table in tables), tuple(shown),
            tuple(category[name] for name in shown), values,
            np.stack([table.chance[columns].numpy() for table in tables]),
            np.stack([table.chance_95[columns].numpy() for table in tables]),
            "units", "shuffled samples: mean to 95 % point", alt,
            caption=f"Units found per concept, layers from the latent to the image; colours are categories.{left}",
        )
    ]  # fmt: skip


def absent_names(result: Dissection) -> list[str]:
    """Concepts of which there is too little to say anything, places left aside."""
    return [
        concept.name
        for concept, tested in zip(result.concepts, result.tested.tolist(), strict=True)
        if not tested and not concept.spatial
    ]


def _absent(result: Dissection) -> str:
    names = absent_names(result)
    return f"Absent from these samples, so nothing is said about them: {', '.join(names)}." if names else ""


def _too_large(result: Dissection) -> str:
    names = [
        f"{concept.name} ({percent(float(area))})"
        for concept, tested, area in zip(result.concepts, result.tested.tolist(), result.area, strict=True)
        if tested and result.quantile < FLOOR * float(area)
    ]
    if not names:
        return ""
    return (
        f"Too large for a high IoU when {100 * result.quantile:g} % of a unit's cells are active: {', '.join(names)} of all "
        "pixels. Their units can be found by correlation only, or with a larger `quantile`."
    )


def units_section(result: Dissection, gallery: Gallery) -> Section:
    """The gallery of units."""
    found = len(result.found())
    summary = f"{len(gallery.cards)} units are shown; {found} passed the test."
    return Section("Units", gallery, summary=summary, meaning=meaning())
