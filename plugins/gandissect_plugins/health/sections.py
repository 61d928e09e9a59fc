"""Figures and words of the health check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Histogram,
    ImageGrid,
    Line,
    Reference,
    Section,
    Series,
    Table,
    Text,
    to_uint8,
)
from gandissect.session import Session
from gandissect.wording import p_value, percent

from .checks import Check, verdict_table
from .diversity import Collisions, Modes
from .latents import LabelEffect, LatentEffects
from .memory import Copying, Coverage
from .pixels import PixelHealth
from .units import DuplicateUnits

SHOWN = 8
REFERENCES = (
    Reference(
        "Arora, S. & Zhang, Y.", 2017, "Do GANs learn the distribution? Some theory and empirics", "arXiv 1706.08224"
    ),
    Reference(
        "Meehan, C., Chaudhuri, K. & Dasgupta, S.", 2020, "A non-parametric test to detect data-copying", "AISTATS"
    ),
    Reference("Odena, A., Dumoulin, V. & Olah, C.", 2016, "Deconvolution and checkerboard artifacts", "Distill"),
    Reference("Durall, R., Keuper, M. & Keuper, J.", 2020, "Watch your up-convolution", "CVPR"),
    Reference(
        "Hoeffding, W.", 1948, "A class of statistics with asymptotically normal distribution", "Ann. Math. Stat. 19"
    ),
    Reference("Rousseeuw, P.", 1987, "Silhouettes", "J. Comput. Appl. Math. 20"),
)
MEANING = """
*ok*, *look* and *alarm* are kept apart on purpose: an alarm is a defect that was measured and that chance, or real images, do
not show; *look* is unusual and may be right for your data. Alarms are on the first screen.
"""
REPEATS = """
Two samples are near-duplicates when their difference has at most 1 % of a picture's own energy (−20 dB), on a grid of at most
32×32. If a generator made s equally likely pictures, 1/s of all pairs would be near-duplicates, however many are drawn: the birthday
paradox as a measure of how many different pictures there are. Gaussian samples with the same mean and spectrum have the same
directions of variation; what repeats more than they do is not explained by low contrast or few directions. Clusters count only when
clearer than those that k-means finds in such Gaussian samples, and when each half of the samples gives the same ones.
"""
COPIES = """
The real images are split at random. Clusters and nearest neighbours come from one half (*training*), the other half (*held out*) says
how far a new real image lies from it. If samples lie nearer than that, C_T is negative. Blurred averages lie near as well; a *copy* is
therefore only what is three times nearer to one training image than to any other. If all images given were trained on, the held-out half
is no obstacle: copies of it are missed, copies of the other half are found. Distances are in pixels on a grid of at most 32×32:
a mirrored or shifted copy is missed.
"""
LATENTS = """
Each coordinate is moved by half a turn of its prior (quantile u to u + ½), others fixed, on the same latents. The effect is half the mean
squared change, as a part of the variance of images. What changes nothing is tried again on 16 latents, with both ends of the prior.
"""
SIGNAL = """
The spectrum is the power per coefficient at each distance from the centre of the Fourier plane; natural images follow a power law.
Strided transposed convolutions leave energy at the Nyquist frequency: a checkerboard. A unit is a duplicate when its correlation over
cells with an earlier one is beyond ±0.99 in both halves of the samples.
"""


def verdict_section(checks: Sequence[Check], *, real: bool) -> Section:
    """The verdict table; alarms are the findings."""
    alarms = [check for check in checks if check.verdict == "alarm"]
    looks = sum(check.verdict == "look" for check in checks)
    names = f" ({', '.join(check.name for check in alarms)})" if alarms else ""
    counted = f"{len(alarms)} alarm{'' if len(alarms) == 1 else 's'}{names}"
    summary = f"{counted} and {looks} thing{'' if looks == 1 else 's'} to look at in {len(checks)} checks."
    blocks: list[Block] = [verdict_table(checks)]
    if not real:
        add = "Real images (`--data FOLDER`) would add: modes that get no samples, copies of training images, and what is usual for"
        blocks.append(Text(f"{add} spectrum, checkerboard and clipping."))
    findings = [check.finding for check in alarms if check.finding is not None]
    return Section("Health check", *blocks, summary=summary, findings=findings, meaning=MEANING, references=REFERENCES)


def repeats_section(images: Tensor, found: Collisions, kinds: Modes | None) -> Section:
    """Distances to the nearest sample, the closest pairs, clusters."""
    at_least = "" if found.pairs else "at least "
    summary = (
        f"{found.pairs} of {found.samples * (found.samples - 1) // 2:,} pairs are near-duplicates: as a set of {at_least}"
        f"{found.support:,.0f} different pictures would give ({percent(found.expected)} of pairs expected by chance)."
    )
    groups = {"samples": found.nearest.tolist(), "Gaussian samples": found.expected_nearest.tolist()}
    blocks: list[Block] = [
        Histogram(
            groups,
            "distance to the nearest other sample (1: near-duplicate)",
            f"distances of {found.samples} samples to the nearest other, with those of Gaussian samples",
        ),
        _pairs(
            images,
            images,
            found.closest,
            ("sample", "sample"),
            "The closest pairs, side by side: the numbers of both samples, and their distance (1: near-duplicate).",
        ),
    ]
    if kinds is not None and kinds.count > 1:
        sizes = np.bincount(kinds.labels, minlength=kinds.count)
        names = [f"cluster {place + 1}" for place in range(kinds.count)]
        alt = f"samples in each of {kinds.count} clusters"
        caption = f"Silhouette {kinds.silhouette:.2f} (Gaussian {kinds.expected:.2f}), stability {kinds.stability:.2f}."
        blocks.append(Bar((Series("samples", names, sizes.tolist()),), "cluster", "samples", alt, caption))
    return Section("Diversity and duplicates", *blocks, summary=summary, meaning=REPEATS, references=REFERENCES)


def real_section(images: Tensor, fitted: Tensor, covered: Coverage, copied: Copying) -> Section:
    """Modes, and the nearest training images."""
    rows: list[tuple[Cell, ...]] = [
        (
            place + 1,
            int(covered.real[place]),
            int(covered.generated[place]),
            float(covered.q[place]),
            bool(covered.missed[place]),
        )
        for place in range(len(covered.real))
    ]
    caption = (
        "Counts of held-out real images and of samples in each cluster of the real images; q is adjusted over clusters."
    )
    table = Table(("cluster", "real", "samples", "q", "missed"), rows, caption)
    missed = covered.examples[covered.missed] if covered.missed.any() else covered.examples
    what = "missed" if covered.missed.any() else "found"
    labels = tuple(f"real image {place}" for place in missed[:SHOWN].tolist())
    examples = ImageGrid(
        to_uint8(fitted[torch.from_numpy(missed[:SHOWN])]), f"the centres of the modes that were {what}", labels=labels,
        caption=f"The real image nearest to the centre of each mode that was {what}.",
    )  # fmt: skip
    order = np.argsort(copied.ratio, kind="stable")[:SHOWN].tolist()
    pairs = [(row, int(copied.nearest[row]), float(copied.ratio[row])) for row in order]
    near = _pairs(
        images,
        fitted,
        pairs,
        ("sample", "training image"),
        "Side by side: a sample, and the number of the training image nearest to it, at that distance over the one to the next "
        "nearest.",
    )
    groups = {"samples": copied.generated.tolist(), "held-out real images": copied.held.tolist()}
    alt = "distances of samples and of held-out real images to the nearest training image"
    distances = Histogram(groups, "distance to the nearest training image", alt)
    summary = (
        f"{int(covered.missed.sum())} of {len(rows)} modes with {percent(covered.mass)} of the real images are missed; "
        f"{copied.copies} of {len(copied.ratio)} samples are copies; nearness to training images is C_T = {copied.statistic:.2f} "
        f"(below 0: nearer than other real images are; {p_value(copied.p)})."
    )
    blocks = (table, examples, distances, near)
    return Section("Modes and memory", *blocks, summary=summary, meaning=COPIES, references=REFERENCES)


def latent_section(found: LatentEffects, labels: LabelEffect | None) -> Section:
    """The effect of each coordinate, and of labels."""
    order = np.argsort(-found.effect, kind="stable")
    ranks, effects = list(range(1, len(order) + 1)), found.effect[order].tolist()
    series = (
        Series("effect of a coordinate", ranks, effects),
        Series("a repeated run", ranks, [found.floor] * len(ranks), role="null"),
    )
    line = Line(series, "coordinate, by rank", "part of the variance of images", "the effect of each latent coordinate")
    names = [f"z[{found.coordinates[place]}]" for place in order]
    rows: list[tuple[Cell, ...]] = list(zip(names, effects, strict=True))
    shown = rows if len(rows) <= 40 else [*rows[:20], *rows[-20:]]
    caption = "Effect as a part of the variance of images" + ("; the first and the last 20." if len(rows) > 40 else ".")
    summary = (
        f"{len(found.dead)} of {len(rows)} coordinates change nothing; the median of the others changes {percent(found.typical)} "
        "of the variance of images."
    )
    if labels is not None:
        summary += f" Labels change {percent(labels.between)}, other latents {percent(labels.latent)}."
    blocks = (line, Table(("coordinate", "effect"), shown, caption))
    return Section("What latents and labels do", *blocks, summary=summary, meaning=LATENTS, references=REFERENCES)


def signal_section(found: PixelHealth, real: PixelHealth | None, layers: Sequence[DuplicateUnits]) -> Section:
    """Spectrum, pixels and duplicate units."""
    radii = list(range(1, len(found.power) + 1))
    series = [Series("generated", radii, found.power.tolist(), role="generated")]
    if real is not None:
        series.append(Series("real", radii, real.power.tolist(), role="real"))
    elif np.isfinite(found.fitted).all():
        series.append(Series("power law", radii, found.fitted.tolist(), role="null"))
    line = Line(
        tuple(series), "cycles per image", "power per coefficient", "mean radial spectrum of the images", log_y=True
    )
    both = [found] if real is None else [found, real]
    rows: list[tuple[Cell, ...]] = [
        ("checkerboard energy (% of variation)", *(float(np.median(one.checker)) for one in both)),
        ("above half the Nyquist frequency (% of variation)", *(float(np.median(one.high)) for one in both)),
        ("clipped values (%)", *(float(one.clipped.mean()) for one in both)),
        ("empty images (%)", *(100 * one.empty for one in both)),
        ("images with values that are no numbers (%)", *(100 * one.broken for one in both)),
    ]
    columns = ("measure", "generated", "real")[: len(both) + 1]
    blocks: list[Block] = [line, Table(columns, rows, sortable=False)]
    pairs = [(layer.layer, *pair) for layer in layers for pair in layer.pairs]
    if pairs:
        caption = f"{len(pairs)} pairs of duplicate units, the first 40." if len(pairs) > 40 else "Duplicate units."
        blocks.append(Table(("layer", "unit", "duplicate", "r"), pairs[:40], caption))
    usual = float(np.median(real.checker)) if real is not None else found.smooth
    whose = "in real images" if real is not None else "by a power law"
    summary = (
        f"{float(np.median(found.checker)):.3g} % of the variation is a checkerboard ({usual:.3g} % {whose}); "
        f"{sum(layer.redundant for layer in layers)} of {sum(layer.units for layer in layers)} units repeat another one."
    )
    return Section(
        "Spectrum, pixels and duplicate units", *blocks, summary=summary, meaning=SIGNAL, references=REFERENCES
    )


def short_section(session: Session) -> Section:
    """Said instead of comparisons between samples that there are too few of."""
    why = f"needs at least 32 samples, got {session.n} (pass -n N)"
    return Section("Diversity and duplicates", summary=why, status="skipped", meaning=REPEATS, references=REFERENCES)


def _pairs(
    first: Tensor, second: Tensor, pairs: Sequence[tuple[int, int, float]], names: tuple[str, str], caption: str
) -> ImageGrid:
    """Pairs side by side, four in a row."""
    pictures = [image for one, other, _ in pairs for image in (first[one], second[other])]
    labels = [text for one, other, d in pairs for text in (f"{names[0]} {one}", f"{other} at {d:.3g}")]
    alt = f"{len(pairs)} nearest pairs of {names[0]} and {names[1]}"
    return ImageGrid(to_uint8(torch.stack(pictures)), alt, columns=8, labels=tuple(labels), caption=caption)
