"""Inputs beside outputs, what changes, and whether the output follows its input, as sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gandissect.blocks import Bar, Block, Cell, Finding, ImageGrid, Line, Section, Series, Table, Trust, to_uint8
from gandissect.metrics import ssim
from gandissect.session import Session
from gandissect.wording import p_value, percent
from gandissect_plugins.conditions import kinds
from gandissect_plugins.distribution.words import number
from gandissect_plugins.features.spaces import thumbnails
from gandissect_plugins.geometry.means import mean_interval, with_interval

from .changes import Change, changes, spectrum
from .follows import SHUFFLES, Follows
from .pictures import LEVEL, Pictures
from .references import BENJAMINI, ISOLA, MANTEL, WANG, ZHU
from .sensitivity import Sensitivity

SHOWN = 8
BARS = 12
RATE = 0.05
SMALLEST = 11
"""Side of SSIM's window."""
COMPARED = 48


def pictures_section(seen: Pictures) -> Section:
    """Inputs above their outputs."""
    count = min(SHOWN, len(seen.outputs))
    rows = [thumbnails(part[:count], 128) for part in (seen.before, seen.outputs)]
    change = (seen.outputs[:count] - seen.before[:count]) / 2
    grid = ImageGrid(
        np.concatenate([*map(to_uint8, rows), to_uint8(thumbnails(change, 128))]),
        f"{count} inputs, their outputs and the change",
        columns=count,
        row_labels=("input", "output", "output − input"),
        column_labels=tuple(f"input {place}" for place in range(count)),
        caption="In the last row grey means no change. "
        + ("" if seen.same_size else "Inputs are shown at the outputs' size (bilinear)."),
    )
    summary = f"Inputs are {seen.source}."
    if seen.source.startswith("made-up"):
        summary += " `--set translation.inputs=FOLDER` takes real ones, which the network was trained on."
    return Section("Inputs and outputs", grid, summary=summary, references=(ISOLA, ZHU))


def changes_section(session: Session, seen: Pictures) -> Section:
    """Properties, concepts, colours, frequencies and structure of outputs against inputs."""
    found = changes(session, seen)
    order = sorted(found, key=lambda one: (one.p >= RATE, -_standard(one)))
    rows = [
        (
            "concept area" if one.concept else "property",
            one.name,
            one.before,
            one.after,
            one.difference,
            one.low,
            one.high,
            one.p,
        )
        for one in order
    ]
    columns = ("kind", "name", "input", "output", "difference", "low", "high", "adjusted p")
    caption = (
        f"Means over {len(seen.outputs)} pictures; intervals of the mean difference are 95 %, p flips signs at random."
    )
    blocks: list[Block] = [*_areas(found), _spectra(seen), _distances(seen), Table(columns, rows, caption=caption)]
    told = [one for one in order if one.p < RATE]
    shares = kinds(seen.before, seen.outputs)
    most = f" {percent(getattr(shares, shares.main))} of the squared change is {shares.main}." if told else ""
    listed = "; ".join(
        f"*{one.name}* {number(round(one.before, 4))} → {number(round(one.after, 4))}" for one in told[:4]
    )
    summary = (
        f"{len(told)} of {len(found)} properties and concept areas change: {listed}.{most}"
        if told
        else f"None of {len(found)} properties and concept areas changes beyond chance."
    )
    return Section(
        "What the translation changes", *blocks, summary=summary, meaning=_CHANGES, references=(WANG, BENJAMINI)
    )


def _standard(one: Change) -> float:
    """The difference over half the width of its interval."""
    return abs(one.difference) / max((one.high - one.low) / 2, 1e-12)


def _areas(found: Sequence[Change]) -> list[Block]:
    areas = sorted((one for one in found if one.concept), key=lambda one: -abs(one.difference))[:BARS]
    if not areas:
        return []
    names = [one.name for one in areas]
    series = (
        Series("input", names, [100 * one.before for one in areas], role="baseline"),
        Series(
            "output",
            names,
            [100 * one.after for one in areas],
            [100 * (one.before + one.low) for one in areas],
            [100 * (one.before + one.high) for one in areas],
            role="generated",
        ),
    )
    alt = f"Mean area of {len(areas)} concepts in inputs and outputs"
    return [
        Bar(series, "concept", "mean area, % of the image", alt, caption="Whiskers: 95 % interval of the difference.")
    ]


def _spectra(seen: Pictures) -> Line:
    series = []
    for name, pictures in (("input", seen.before), ("output", seen.outputs)):
        at, amplitude = spectrum(pictures)
        ends = [mean_interval(column) for column in amplitude.T]
        x = [float(frequency) for frequency in at]
        lows = [max(low, 1e-3 * mean) for mean, low, _ in ends]
        series.append(Series(name, x, [mean for mean, _, _ in ends], lows, [high for _, _, high in ends]))
    return Line(
        tuple(series),
        "cycles per pixel",
        "amplitude of the luminance",
        "Amplitude of inputs and outputs at each spatial frequency",
        caption="Inputs at the outputs' size; the band is the 95 % interval of the mean over pictures.",
        log_y=bool(min(min(one.y) for one in series) > 0),
    )


def _distances(seen: Pictures) -> Table:
    """Distances of outputs to their own and to other inputs, and what kind of change it is."""
    before, outputs = seen.before, seen.outputs
    shares = kinds(before, outputs)
    rows: list[tuple[Cell, ...]] = [
        (
            "root mean square distance, in grey levels of 255",
            *(_levels(outputs - part) for part in (before, before.roll(1, 0))),
        )
    ]
    if min(outputs.shape[2:]) >= SMALLEST:
        likes = [_likeness(outputs, part) for part in (before, before.roll(1, 0))]
        rows.append(("SSIM (Gaussian window)", *map(with_interval, likes)))
    rows += [
        (f"kind of change: {name}", percent(share), "")
        for name, share in vars(shares).items()
    ]  # fmt: skip
    return Table(("measure", "to its own input", "to another input"), rows, sortable=False, caption="95 % intervals.")


def _likeness(outputs: Tensor, pictures: Tensor) -> Tensor:
    """SSIM of the first pictures with their outputs, a few at a time: float64 [n]."""
    pairs = zip(torch.split(outputs[:COMPARED], 8), torch.split(pictures[:COMPARED], 8), strict=True)
    return torch.cat([ssim(one + 1, two + 1, data_range=2) for one, two in pairs])


def _levels(difference: Tensor) -> str:
    return with_interval(difference.flatten(1).double().square().mean(1).sqrt().numpy() / LEVEL)


_CHANGES = """
Every quantity is measured on each input, at the outputs' size, and on its output; the test is paired. Concept areas come
from segmenters that look at both pictures: one that was trained on neither may fail on either. The *kind of change* is
what one number added to every pixel explains of the squared change, then one for each channel, then a gain; *structure*
is the rest. Amplitudes fall with frequency in natural pictures; a bump at the right end is noise or a grid.
"""


def follows_section(seen: Pictures, found: Follows, noise: Sensitivity) -> Section:
    """Copying, ignoring, matching, and what a little noise does."""
    ratio, low, high = found.ratio
    swap_in, swap_out = float(found.apart_in.mean()), float(found.apart_out.mean())
    rows: list[tuple[Cell, ...]] = [
        ("input to its own output", with_interval(found.own / LEVEL)),
        ("another input to that output", with_interval(found.other / LEVEL)),
        ("input to another input", with_interval(found.apart_in / LEVEL)),
        ("output to another output", with_interval(found.apart_out / LEVEL)),
        ("output to the output of a second run", with_interval(found.repeats / LEVEL)),
        ("own over another input's distance, 0 for a copy", f"{ratio:.3g} ({low:.3g} to {high:.3g})"),
        (
            "outputs whose own input is the likest",
            f"{found.matched} of {found.tried} (chance 1), {p_value(found.matched_p)}",
        ),
        (
            "change inside the swapped quarter of the input",
            f"{percent(found.local[0])} (chance 25 %), {p_value(found.local[1])}",
        ),
        ("like inputs have like outputs: r of distances", f"{found.mantel[0]:.3g}, {p_value(found.mantel[1])}"),
    ]
    table = Table(
        ("measure", "value"), rows, sortable=False, caption="Distances are root mean square, in grey levels of 255."
    )
    one = float(noise.change[0].mean() / LEVEL)
    summary = (
        f"Another input changes the output by {number(swap_out / LEVEL)} grey levels (inputs differ by "
        f"{number(swap_in / LEVEL)}); noise of one grey level changes it by {number(one)}. The own input is the likest to "
        f"{found.matched} of {found.tried} outputs (chance 1)."
    )
    return Section(
        "Does the output follow its input",
        table,
        _gains(noise),
        summary=summary,
        findings=_alarms(seen, found),
        meaning=_FOLLOWS,
        references=(ISOLA, MANTEL),
    )


def _gains(noise: Sensitivity) -> Line:
    middle, low_ends, high_ends = ([mean_interval(row)[end] for row in noise.gain] for end in range(3))
    return Line(
        (
            Series("output change over input change", list(noise.levels), middle, low_ends, high_ends),
            Series("a copy", list(noise.levels), [1.0] * len(noise.levels), role="baseline"),
        ),
        "noise in the input, grey levels of 255",
        "gain",
        f"How much of noise in the input reaches the output, on {noise.gain.shape[1]} pictures",
        caption="Root mean square; the band is the 95 % interval of the mean.",
    )  # fmt: skip


def _alarms(seen: Pictures, found: Follows) -> list[Finding]:
    n = len(found.own)
    label = f"swapped inputs · n = {n}"
    if found.ignores:
        text = f"**The output ignores the input**: another input changes no pixel by more than {number(found.peak / LEVEL)} grey levels."
        if found.noisy:
            text = "**The output ignores the input**: another input changes it no more than a second run of the same one does."
        tested = (
            f"{n} inputs ({seen.source}) swapped with each other, against a second run of {len(found.repeats)} of them"
        )
        return [Finding(text, Trust(label, tested), 0.95)]
    if found.copies:
        text = (
            f"**The translator copies its input**: outputs differ from it by {number(float(found.own.mean()) / LEVEL)} grey levels of "
            f"255 on average; other inputs differ by {number(float(found.apart_in.mean()) / LEVEL)}."
        )
        enlarged = "" if seen.same_size else ", enlarged to the output's size (bilinear)"
        tested = (
            f"{n} inputs ({seen.source}){enlarged}; distance to the own input over that to another: CI "
            f"{found.ratio[1]:.2g} to {found.ratio[2]:.2g}"
        )
        return [Finding(text, Trust(f"n = {n}", tested), 0.9)]
    if found.faint:
        return [_faint(seen, found, label)]
    if found.unrelated:
        text = (
            "**The output does not follow the input's content**: its own input is the likest to "
            f"{found.matched} of {found.tried} outputs."
        )
        tested = (
            f"chance gives 1 ({p_value(found.matched_p)}); like inputs do not have like outputs (Mantel's test, {SHUFFLES} "
            f"permutations, {p_value(found.mantel[1])}) and a swapped quarter does not change that quarter more than others "
            f"({p_value(found.local[1])}); inputs are {seen.source}"
        )
        return [Finding(text, Trust(label, tested), 0.8)]
    return []


def _faint(seen: Pictures, found: Follows, label: str) -> Finding:
    swapped = [number(float(part.mean()) / LEVEL) for part in (found.apart_out, found.apart_in)]
    text = (
        f"**The output hardly depends on the input**: another input changes it by {swapped[0]} grey levels of 255 where "
        f"inputs differ by {swapped[1]}."
    )
    tested = (
        f"{len(found.own)} inputs ({seen.source}) swapped with each other; the own input is the likest to {found.matched} of {found.tried} "
        f"outputs (chance 1, {p_value(found.matched_p)})"
    )
    return Finding(text, Trust(label, tested), 0.85)


_FOLLOWS = """
All tests swap inputs: a translator that copies is as near to its input as can be; one that ignores its input gives the same
picture for another. In between, the output should say which input it came from. *Likest* compares what is where, whatever
the colours (absolute correlation of luminance and of its gradients on a coarse grid), so that a negative or a line drawing
counts as like its original. *r of distances* (Mantel 1967) asks whether like inputs have like outputs, and the swapped
quarter whether what is drawn stays in its place.

The gain under noise is 1 for a copy, below 1 for a network that smooths, far above 1 for one that reads fine detail.
"""
