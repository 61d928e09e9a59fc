"""The sections of a dissection: overview, units, matrix, causality.

yield overview(result, tests)
"""

from __future__ import annotations

import numpy as np

from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Compare,
    Data,
    Finding,
    Gallery,
    Heatmap,
    ImageGrid,
    Json,
    Section,
    Series,
    Table,
    Text,
    Trust,
    to_uint8,
)  # fmt: skip

from .dissect import Dissection, UnitLabel
from .effects import RANDOM_SETS, CausalTests, ConceptTest
from .floors import CONTRAST_FLOOR, CORRELATION_FLOOR, FLOOR, LEAST_CELLS
from .gallery import between, percent, shown_units, whole

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


def percent_of(part: float) -> str:
    """ "12 %" of a fraction, with one digit below 10 %."""
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.1f} %"


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
        text = f"{count} of {result.units} units {'follow' if count > 1 else 'follows'} {name}"
        test = tests.of(name)
        if test is not None and test.causal:
            text += (
                f": switching off {_units(len(test.units))} of {test.layer} removes {percent(test.effect)} of its area"
            )
            text += f", random units {whole(test.random)} %"
        elif test is not None:
            text += f", but switching off {_units(len(test.units))} of {test.layer} removes no more of it than random units do"
        worst = max(row.p for row in result.found() if row.concept == name)
        label = f"p {'< 0.001' if worst < 0.001 else f'≤ {worst:.3f}'} · FDR {100 * result.fdr:.0f} %"
        tested = f"overlap against {result.draws} shuffles of the samples"
        weight = (0.9 if test is not None and test.causal else 0.6) - 0.05 * rank
        findings.append(Finding(f"{text}; chance explains {few(by_chance)} of them.", Trust(label, tested), weight))
    return findings


def _units(count: int) -> str:
    return f"{count} unit{'s' if count != 1 else ''}"


def _counts_table(result: Dissection) -> Table:
    rows: list[list[Cell]] = []
    concepts = result.layer_concepts()
    for table in result.layers:
        named = concepts[table.layer.name]
        words = ", ".join(f"{name} {count}" for name, count in list(named.items())[:6]) or "none"
        size = f"{table.layer.channels}×{table.layer.height}×{table.layer.width}"
        rows.append([table.layer.name, size, sum(named.values()), round(float(table.chance.sum()), 2), words])
    columns = ("layer", "size", "units found", "by chance", "concepts")
    return Table(columns, rows, caption=f"Units found per layer, n = {result.n}.")


def _histograms(result: Dissection) -> list[Block]:
    """For each layer with findings: units per concept, and how many chance gives."""
    names = [concept.name for concept in result.concepts]
    blocks: list[Block] = []
    for table in result.layers:
        counts = result.layer_concepts()[table.layer.name]
        if not counts:
            continue
        shown = list(counts)[:8]
        found = Series("units found", shown, [float(counts[name]) for name in shown])
        null = Series(
            "shuffled samples", shown, [float(table.chance[names.index(name)]) for name in shown], role="null"
        )
        top = f"{shown[0]} {counts[shown[0]]}"
        alt = f"Units of {table.layer.name} per concept: most is {top}, of {sum(counts.values())} found."
        blocks.append(
            Bar((found, null), "concept", "units", alt, caption=f"{table.layer.name}", horizontal=len(shown) > 6)
        )
    return blocks


def _absent(result: Dissection) -> str:
    names = [
        concept.name
        for concept, tested in zip(result.concepts, result.tested.tolist(), strict=True)
        if not tested and not concept.spatial
    ]
    if not names:
        return ""
    return f"Absent from these samples, so nothing is said about them: {', '.join(names)}."


def _too_large(result: Dissection) -> str:
    names = [
        f"{concept.name} ({percent_of(float(area))})"
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


def matrix(result: Dissection, rows: int = 40, columns: int = 24) -> Section | None:
    """IoU of the best units with the concepts that any of them overlaps."""
    chosen = result.labels()[:rows]
    if not chosen:
        return None
    chosen.sort(key=lambda row: (row.concept, -row.strength))
    iou = np.stack([result.table(row.layer).iou[row.unit].numpy() for row in chosen])
    null = np.stack([result.table(row.layer).null_iou[row.unit].numpy() for row in chosen])
    score = np.where(result.tested.numpy(), (iou - null).max(0), -1.0)
    places = [int(k) for k in np.argsort(-score, kind="stable")[:columns] if score[k] > 0]
    names = [result.concepts[k].name for k in places]
    cards = {f"{row.layer}/{row.unit}" for row in shown_units(result, 10_000)}
    keys = [f"{row.layer}/{row.unit}" for row in chosen]
    best = max(chosen, key=lambda row: row.iou)
    largest = f"{best.iou:.2f}, {best.layer} {best.unit} with {best.concept}"
    alt = f"IoU of {len(chosen)} units with {len(names)} concepts; largest {largest}."
    block = Heatmap(
        iou[:, places], tuple(f"{row.layer} · {row.unit}" for row in chosen), tuple(names), alt, unit="IoU",
        row_links=tuple(key if key in cards else "" for key in keys), caption="Rows are grouped by the unit's own concept.",
    )  # fmt: skip
    summary = f"The largest IoU is {best.iou:.2f}: {best.layer} · {best.unit} with {best.concept}."
    return Section("Units by concepts", block, summary=summary, meaning=meaning())


CAUSAL_MEANING = f"""The units are set to zero everywhere, x(1 − a) + r·a with r = 0, in the same samples, and the area of
every concept is measured again by the same segmenter. The interval is a 95 % bootstrap over samples, before and after
paired. Beside it, {RANDOM_SETS} random sets of as many units of the same layer are switched off: units are called
causal when they remove more than those (interval above 0) and at least 5 % of the concept. A unit that follows a
concept without feeding the image removes nothing. Switching units off can also push a layer outside what the rest of
the network has seen, so look at the images and at the side effect."""


def causality(result: Dissection, tests: CausalTests) -> Section:
    """What switching units off removes, with pictures."""
    rows = [_test_row(test) for test in tests.concepts]
    columns = (
        "concept", "layer", "units", "chosen by", "area removed", "95 % interval", "random units remove", "beyond random",
        "largest side effect", "verdict",
    )  # fmt: skip
    blocks: list[Block] = []
    strongest = sorted(tests.concepts, key=lambda test: (not test.causal, -_or_zero(test.effect.removed)))
    if strongest:
        blocks.append(_compare(strongest[0]))
        blocks += [_before_after(strongest[:5])] if len(strongest) > 1 else []
        caption = f"Measured in {len(tests.samples)} samples that were chosen to hold the concepts."
        blocks.append(Table(columns, rows, caption=caption))
    if tests.units:
        blocks.append(_single_table(result, tests))
    causal = [test for test in strongest if test.causal]
    if causal:
        first = causal[0]
        summary = (
            f"Switching off {_units(len(first.units))} of {first.layer} removes {percent(first.effect)} of {first.concept} area; "
            f"{len(causal)} of {len(strongest)} tested concepts have causal units."
        )
    else:
        summary = f"None of {len(strongest)} tested sets of units removes its concept beyond random units."
    return Section("What units cause", *blocks, summary=summary, meaning=CAUSAL_MEANING)


def _or_zero(value: float) -> float:
    return 0.0 if np.isnan(value) else value


def _test_row(test: ConceptTest) -> list[Cell]:
    side, change = test.ablation.side_effect()
    return [
        test.concept,
        test.layer,
        ", ".join(map(str, test.units)),
        test.chosen_by,
        test.effect.removed,
        between(test.effect),
        test.random,
        between(test.beyond),
        f"{side} {'+' if change > 0 else '−'}{abs(100 * change):.1f} % of the image",
        test.verdict,
    ]


def _single_table(result: Dissection, tests: CausalTests) -> Table:
    labels: dict[tuple[str, int], UnitLabel] = {(row.layer, row.unit): row for row in result.found()}
    rows: list[list[Cell]] = []
    for (layer, unit), effect in tests.units.items():
        row, interval = labels[layer, unit], between(effect)
        rows.append([f"{layer} · {unit}", row.concept, row.iou, row.correlation, effect.removed, interval])
    columns = ("unit", "concept", "IoU", "correlation", "area removed", "95 % interval")
    return Table(columns, rows, caption="Single units switched off, one at a time.")


def _chosen(test: ConceptTest, count: int = 8) -> list[int]:
    """Places of the samples with most of the concept before."""
    k = test.ablation.concepts.index(test.concept)
    return [int(place) for place in test.ablation.before[:, k].argsort(descending=True, stable=True)[:count]]


def _compare(test: ConceptTest) -> Compare:
    places = _chosen(test)
    labels = tuple(f"sample {test.ablation.indices[place]}" for place in places)
    change = f"{percent(test.effect)} of {test.concept} area is gone"
    alt = f"Samples before and after {_units(len(test.units))} of {test.layer} are switched off: {change}."
    caption = f"{test.concept}: {test.layer}, units {', '.join(map(str, test.units))}."
    return Compare(
        to_uint8(test.ablation.images_before[places]), to_uint8(test.ablation.images_after[places]), alt,
        after_label=f"without {test.concept} units", labels=labels, caption=caption,
    )  # fmt: skip


def _before_after(tests: list[ConceptTest]) -> ImageGrid:
    """Two rows for each concept: before and after."""
    count = min(8, *(len(test.ablation.indices) for test in tests))
    rows, labels = [], []
    for test in tests:
        places = _chosen(test, count)
        rows += [to_uint8(test.ablation.images_before[places]), to_uint8(test.ablation.images_after[places])]
        labels += [f"{test.concept}: before", f"{test.concept}: {percent(test.effect)} removed"]
    alt = f"Before and after the units of {', '.join(test.concept for test in tests)} are switched off."
    return ImageGrid(np.concatenate(rows), alt, columns=count, row_labels=tuple(labels))
