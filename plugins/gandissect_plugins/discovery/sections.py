"""The sections of a discovery: concepts, the clusterings behind them, and their units.

yield concepts_section(session, found, units)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.blocks import (
    Bar1,
    Block,
    Card,
    Cell,
    Data,
    Finding,
    Gallery,
    Heatmap,
    ImageGrid,
    Pixels,
    Section,
    Table,
    Text,
    Trust,
    to_uint8,
)  # fmt: skip
from gandissect.session import Session
from gandissect.wording import p_value, percent
from gandissect_plugins.dissection import UnitLabel

from .clustering import NEAR_BEST
from .discover import BEYOND, FDR, FEW_WAYS, STABLE, Candidate, Concept, Discovery
from .naming import LARGE
from .units import RANDOM_SETS, Removal, Units

EXAMPLES = 6
_OUTLINE = (255, 0, 200)
_DIM = 2  # what is outside is so many times darker
_SHOWN = 128  # pixels along the shorter side from which on pictures are not enlarged

MEANING = f"""No segmenter and no label is used. The activations of a layer are vectors, one per cell of its map; they are
clustered by direction (spherical k-means, each unit's mean taken off). Pixels are clustered by local colour and contrast,
without their place. Both are fitted to two fifths of the samples and, again, to two other fifths; the number of clusters is
the largest whose two clusterings agree within {NEAR_BEST:g} of the best in the samples that neither saw (adjusted mutual
information).

**A concept** is a cluster of activations that (1) comes back: its Jaccard index with its partner from the other samples is
at least {STABLE:g}; and (2) is seen: a classifier of single pixels (local colour and contrast) fitted to some samples tells it
in the others, with (IoU − null) / (1 − null) of at least {BEYOND:g}, and of {FEW_WAYS:g}/√d in a layer whose cells vary in only
d directions (participation ratio of their covariance). The null shuffles the samples, so what position alone explains gets no
credit; Benjamini–Hochberg over all clusters at {100 * FDR:.0f} %. The floor is needed because pixels of any network follow the
direction its activations vary most in. A concept is a finding when units follow it. @CALIBRATION@

**Its name** is what sets its cells apart from all others: a colour term, light, local contrast and place, each with a difference
of at least {LARGE:g} standard deviations (a colour: 20 % more of it than of the rest). It is a description, not a meaning: whether
“blue, bright, at the top” is a sky is for you to see.

**Its units** come from a dissection with the concept as the pixel classifier finds it. Cause is measured by setting the best units
to zero and reading the area again, beside {RANDOM_SETS} random sets of as many other units of the layer."""

CALIBRATION = """Calibrated on 55 networks with random weights (DCGANs of 32 to 128 pixels and upsampling networks, 2 to 128 units
per layer, ReLU and leaky ReLU, with and without BatchNorm, 60 or 200 samples): none has a concept; the largest agreement is 0.84 of its
floor."""


def meaning() -> str:
    """The method and its limits, with the measured calibration."""
    return MEANING.replace("@CALIBRATION@", CALIBRATION)


def concepts_section(session: Session, found: Discovery, units: Units | None) -> Section:
    """The discovered concepts as cards, with a finding for each."""
    tested = sum(item.k for item in found.layers.values())
    if not found.concepts or units is None:
        best = max((item.read.beyond for item in found.candidates), default=0.0)
        summary = (
            f"None of {tested} clusters of activations is a concept: {len(found.candidates)} come back in other samples, and "
            f"pixels agree with the best of them by {best:.2f} beyond position."
        )
        return Section("Concepts without a segmenter", summary=summary, meaning=meaning())
    followed = [item for item in found.concepts if units.of(item.name)]
    cards = tuple(_card(session, item, units, found) for item in found.concepts)
    alt = f"{len(cards)} kinds of region, each with samples in which it is outlined."
    caption = (
        "Outlined as a classifier of single pixels finds it, the rest dimmed, in samples that nothing was fitted to."
    )
    summary = (
        f"{len(cards)} of {tested} clusters of activations are regions of their own kind: they come back in other samples, and "
        f"pixels agree with them beyond position; {len(followed)} of them {'has' if len(followed) == 1 else 'have'} units that "
        "follow."
    )
    findings = [
        _finding(item, units.of(item.name), units.removals.get(item.name), rank) for rank, item in enumerate(followed)
    ]
    return Section(
        "Concepts without a segmenter",
        Gallery(cards, alt, caption),
        summary=summary,
        findings=findings,
        meaning=meaning(),
    )


def _finding(item: Concept, rows: Sequence[UnitLabel], removal: Removal | None, rank: int) -> Finding:
    best, count = item.best, len(rows)
    text = (
        f"A kind of region, **{item.name}**, covers {percent(best.area)} of all pixels: they agree with a cluster of `{best.layer}` "
        f"at an IoU of {best.read.iou:.2f} (position alone {best.read.null:.2f}), and {_count(count)} "
        f"follow{'' if count > 1 else 's'} it"
    )
    if removal is not None and removal.causal:
        text += (
            f": switching off {_count(len(removal.units))} of `{removal.layer}` removes {percent(removal.removed)} of its area, "
            f"random units {percent(removal.random)}"
        )
    weight = (0.7 if removal is not None and removal.causal else 0.45) - 0.04 * rank
    return Finding(f"{text}.", _trust(best), weight)


def _trust(best: Candidate) -> Trust:
    tested = (
        f"comes back in other samples (Jaccard {best.stability:.2f}); read from pixels of samples that nothing was fitted to, "
        "against shuffled samples; units by the dissection's null and floors"
    )
    return Trust(f"{p_value(best.read.p)} · stability {best.stability:.2f}", tested)


def _count(units: int) -> str:
    return f"{units} unit{'s' if units != 1 else ''}"


def _card(session: Session, item: Concept, units: Units, found: Discovery) -> Card:
    best, removal = item.best, units.removals.get(item.name)
    pictures, names = _outlined(session, item, found)
    bars = [Bar1("pixels agree, IoU", best.read.iou, 1.0, best.read.null, "position alone")]
    bars += (
        [Bar1("area removed", max(0.0, removal.removed), 1.0, max(0.0, removal.random), "random units")]
        if removal
        else []
    )
    return Card(
        key=f"{best.layer}/{best.number}",
        title=f"{best.layer} · cluster {best.number + 1}",
        images=pictures,
        label=item.name,
        bars=tuple(bars),
        facts=_facts(item, units, found),
        sort={"agreement beyond position": best.read.beyond, "stability": best.stability, "area": best.area},
        facets={"layer": best.layer},
        trust=_trust(best),
        image_labels=names,
    )


def _facts(item: Concept, units: Units, found: Discovery) -> tuple[tuple[str, str], ...]:
    best, removal, rows = item.best, units.removals.get(item.name), units.of(item.name)
    kind = f"{best.pixels + 1} ({found.kinds[best.pixels]}), IoU {best.match:.2f}; position alone {best.match_null:.2f}"
    right = f"balanced accuracy {percent(best.read.accuracy)}"
    read = f"IoU {best.read.iou:.2f}, {right}; position alone {best.read.null:.2f}"
    others = [f"{layer} · cluster {number + 1} (IoU {iou:.2f})" for layer, number, iou in item.also]
    facts = [
        ("area", f"{percent(best.area)} of all cells"),
        ("stability", f"{best.stability:.2f}; position alone {best.by_position:.2f}"),
        ("read from pixels", read),
        ("cluster of pixels", kind if best.pixels >= 0 else "none"),
        *item.look.effects,
        ("also in", ", ".join(others) or "no other layer"),
        ("units", ", ".join(f"{row.layer} · {row.unit}" for row in rows[:12]) or "none beyond chance"),
    ]  # fmt: skip
    if removal is not None:
        words = "beyond random units" if removal.causal else "not beyond random units"
        off = f"{removal.layer}, units {', '.join(map(str, removal.units))}"
        facts.append(
            ("switched off", f"{off}: {percent(removal.removed)} removed, random {percent(removal.random)}, {words}")
        )
    return tuple(facts)


def _outlined(session: Session, item: Concept, found: Discovery) -> tuple[Pixels, tuple[str, ...]]:
    """The first unseen samples that have at least the median area of the concept, and their names."""
    areas = item.best.mask[found.unseen].double().mean(1)
    level = areas[areas > 0].median()
    places = found.unseen[areas >= level][:EXAMPLES].tolist()
    images = found.evidence.images[places]
    masks = found.segmenter().segment(images, places)[:, found.concepts.index(item)]
    return outline(images, masks), tuple(session.sample_name(place) for place in places)


def outline(images: Tensor, masks: Tensor) -> Pixels:
    """Samples float32 [N, C, H, W] with bool [N, H, W] outlined and the rest dimmed: uint8 [N, h, w, 3], small ones enlarged."""
    factor = max(1, _SHOWN // int(min(images.shape[2:])))
    pixels = np.repeat(np.repeat(to_uint8(images), factor, 1), factor, 2)
    wide = masks[:, None].float().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    inner = -F.max_pool2d(-wide, 3, 1, 1)
    border = ((wide > 0) & (inner == 0))[:, 0].numpy()
    pixels[(wide == 0)[:, 0].numpy()] //= _DIM
    pixels[border] = _OUTLINE
    return pixels


def clusters_section(found: Discovery) -> Section:
    """The clusterings: how they come back, and which cluster of activations is which of pixels."""
    rows: list[list[Cell]] = [["pixels", found.pixels.k, found.pixels.agreement, found.pixels.null, None, None]]
    for name, item in found.layers.items():
        rows.append([name, item.k, item.agreement, item.null, *found.shared[name]])
    columns = ("clustered", "clusters", "agreement of halves", "shuffled", "agreement with pixels", "shuffled ")
    caption = "Adjusted mutual information in samples that the clusterings were not fitted to; 0 is chance, 1 the same."
    blocks: list[Block] = [Table(columns, rows, caption), _heatmap(found)]
    blocks += [
        Text(f"{a} and {b} share {value:.2f} of their clusters ({null:.2f} shuffled).")
        for a, b, value, null in found.steps
    ]
    tried = {name: {str(k): value for k, value in item.tried.items()} for name, item in found.layers.items()}
    blocks.append(Data("agreement-by-clusters", tried))
    name, value = max(((name, pair[0]) for name, pair in found.shared.items()), key=lambda pair: pair[1])
    summary = (
        f"Clusters of {name} agree most with clusters of pixels: {value:.2f} adjusted mutual information, "
        f"{found.shared[name][1]:.2f} shuffled."
    )
    return Section("Clusters of activations and of pixels", *blocks, summary=summary, meaning=meaning())


def _heatmap(found: Discovery) -> Heatmap:
    rows = [f"{name} · {number + 1}" for name, item in found.layers.items() for number in range(item.k)]
    columns = [f"{number + 1} {look}" for number, look in enumerate(found.kinds)]
    values = torch.cat([match.table - match.table_null for match in found.matches.values()]).numpy()
    r, c = np.unravel_index(int(values.argmax()), values.shape)
    alt = (
        f"IoU of {len(rows)} clusters of activations with {len(columns)} of pixels, above shuffled samples; largest "
        f"{values[r, c]:.2f}, {rows[r]} with {columns[c]}."
    )
    return Heatmap(values, tuple(rows), tuple(columns), alt, signed=True, unit="IoU above shuffled samples")


def units_section(found: Discovery, units: Units) -> Section:
    """Which units follow the concepts, and what switching them off removes."""
    rows: list[list[Cell]] = [
        [
            f"{row.layer} · {row.unit}",
            row.concept,
            row.by,
            row.iou,
            row.null_iou,
            row.correlation,
            row.position_correlation,
            row.q,
        ]
        for item in found.concepts
        for row in units.of(item.name)[:12]
    ]
    names = ("unit", "concept", "found by", "IoU", "shuffled", "correlation", "position alone", "q")
    blocks: list[Block] = [_grid(units)] if units.removals else []
    blocks += [_removals(units)] if units.removals else []
    blocks += (
        [Table(names, rows, "At most 12 units of each concept; the null and the floors are those of the dissection.")]
        if rows
        else []
    )
    causal = [(name, item) for name, item in units.removals.items() if item.causal]
    summary = f"{sum(len(units.of(item.name)) for item in found.concepts)} of {units.result.units} units follow a discovered concept"
    if causal:
        name, item = max(causal, key=lambda pair: pair[1].removed)
        removes = f"removes {percent(item.removed)} of {name}, random units {percent(item.random)}"
        summary += f"; switching off {_count(len(item.units))} of {item.layer} {removes}"
    return Section("Units of the discovered concepts", *blocks, summary=f"{summary}.", meaning=meaning())


def _removals(units: Units) -> Table:
    rows: list[list[Cell]] = []
    for name, item in units.removals.items():
        interval = f"{item.beyond.low:.2f} to {item.beyond.high:.2f}".replace("-", "−")
        verdict = "causal" if item.causal else "not beyond random units"
        rows.append(
            [
                name,
                item.layer,
                ", ".join(map(str, item.units)),
                item.removed,
                item.random,
                interval,
                item.beyond.p,
                verdict,
            ]
        )
    columns = ("concept", "layer", "units", "area removed", "random units", "difference, 95 %", "p", "verdict")
    return Table(columns, rows, "Units set to zero in samples that have the concept; areas are read from pixels again.")


def _grid(units: Units) -> ImageGrid:
    """Two rows for each concept: before and after."""
    count = min(len(item.before) for item in units.removals.values())
    rows, labels = [], []
    for name, item in list(units.removals.items())[:5]:
        rows += [to_uint8(item.before[:count]), to_uint8(item.after[:count])]
        labels += [f"{name}: before", f"{name}: {percent(item.removed)} removed"]
    alt = f"Before and after the best units of {', '.join(units.removals)} are switched off."
    return ImageGrid(np.concatenate(rows), alt, columns=count, row_labels=tuple(labels))
