"""Which of two checkpoints is nearer to the real images, as a section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Bar, Block, Finding, Fold, Reference, Section, Series, Table, Trust
from gandissect.comparer import Lineup
from gandissect_plugins.distribution import Comparison, ComparisonSpace, Measured
from gandissect_plugins.distribution.evidence import K
from gandissect_plugins.distribution.words import number, span

from .nearer import COVERAGE_EXCHANGES, EXCHANGES, RATE, Gap, distance_gaps, neighbourhood_gaps, together

TITLE = "Against the real images"
FEWEST = 32
Rows = NDArray[np.float64]
Kind = Literal["distance", "plausible", "covered"]
LEADS: dict[Kind, str] = {
    "distance": "{near} is nearer to the real images than {far}",
    "plausible": "More samples of {near} than of {far} lie among the real images",
    "covered": "{near} covers more of the real images than {far}",
}
REFERENCES = (
    Reference("Heusel, M. et al.", 2017, "GANs trained by a two time-scale update rule", "NeurIPS"),
    Reference("Bińkowski, M. et al.", 2018, "Demystifying MMD GANs", "ICLR"),
    Reference("Gretton, A. et al.", 2012, "A kernel two-sample test", "JMLR 13"),
    Reference("Efron, B.", 1982, "The jackknife, the bootstrap and other resampling plans", "SIAM"),
    Reference("Shao, J. & Wu, C. F. J.", 1989, "A general theory for jackknife variance estimation", "Ann. Stat. 17"),
    Reference("Kynkäänniemi, T. et al.", 2019, "Improved precision and recall metric", "NeurIPS"),
    Reference("Naeem, M. F. et al.", 2020, "Reliable fidelity and diversity metrics", "ICML"),
)
MEANING = f"""
Samples of both networks are compared with the same real images, resized and cropped to the size of the samples.
*Difference* is the second network's number minus the first one's; its interval (99 %) resamples the real images and the
latents for both together (bootstrap, infinitesimal jackknife for the Fréchet distance, random halves for the shares).
Where the two take other latents, samples are resampled in each network by itself, and any are exchanged with any.

- *Fréchet distance*: of Gaussians fitted to the features; called **FID** only with the Inception network
  (`--set distances.spaces=pixels,inception=FILE`). Few samples make it too large, and more so for the more diverse network.
  *Kernel distance* (KID there): the unbiased squared MMD with the kernel (xᵀy/D + 1)³, 0 on average for equal distributions.
- *Precision* and *density* (third neighbour): how many samples lie among the real images; *coverage* and *recall*: how
  many of the real images are reached. Larger is better. A collapsed network may have the higher precision.
- *p* counts {EXCHANGES} exchanges of samples between the two networks, latent by latent ({COVERAGE_EXCHANGES} for the
  coverage, none for the recall), adjusted over all metrics. A network is *better* only where p ≤ {RATE} and the interval
  is clear of 0, and called *nearer* only where the distances do not contradict each other.
- *Real against real*: random halves of the real images; beside it both networks against as many real images. Nothing can
  be expected to be nearer than that.

Nearer in one space does not make better pictures: *pixels* are averages on a grid of 8×8, colours and layout. A network
that copies the images given is the nearest of all.
"""


@dataclass(frozen=True)
class Line:
    """One metric in one space: the first network's, the second one's, and their difference."""

    first: Measured
    second: Measured
    gap: Gap

    @property
    def kind(self) -> Kind:
        """What it is about."""
        if not self.gap.more_is_better:
            return "distance"
        return "plausible" if self.first.metric.startswith(("precision", "density")) else "covered"


@dataclass(frozen=True)
class Features:
    """Of one space: of a checkpoint's samples, and of the real images where there are any."""

    space: ComparisonSpace
    generated: Rows
    real: Rows | None


def lacking(lineup: Lineup) -> str:
    """Why nothing can be told of real images, and what to type; empty where it can."""
    if not lineup.real:
        return "needs real images (pass --data FOLDER; a .zip of pictures, .npz or .npy too)"
    if min(lineup.real, lineup.n) < FEWEST:
        return f"needs at least {FEWEST} real images and samples (pass -n N), got {lineup.real} and {lineup.n}"
    return ""


def against_real(
    seen: Sequence[Sequence[Features]], lineup: Lineup, *, name: str, draws: int, resamples: int
) -> Section:
    """Both checkpoints' distances to the real images, and which is nearer.

    Args:
        seen: for each of two checkpoints, its features in every space, the same spaces in the same order.
        lineup: whose they are.
        name: of the comparison, from which its randomness follows.
        draws: random halves of the real images.
        resamples: of each interval.
    """
    missing = lacking(lineup)
    if missing:
        return Section(TITLE, summary=missing, status="skipped", references=REFERENCES)
    lines: list[Line] = []
    for first, second in zip(*seen, strict=True):
        lines += _lines(first, second, lineup, f"{name}, real, {first.space.name}", draws, resamples)
    gaps = together({line.first.metric: line.gap for line in lines})
    lines = [Line(line.first, line.second, gaps[line.first.metric]) for line in lines]
    return _section(lines, lineup, draws)


def _lines(first: Features, second: Features, lineup: Lineup, name: str, draws: int, resamples: int) -> list[Line]:
    if first.real is None:
        return []
    space, real, paired = first.space, first.real, not lineup.latents_differ
    # The same halves of the real images, and the same latents, for both networks.
    one, two = (
        Comparison(space, real, rows, lineup.rng(name), draws=draws, resamples=resamples)
        for rows in (first.generated, second.generated)
    )
    rng = lineup.rng(f"{name}, difference")
    sets = (real, first.generated, second.generated)
    far = distance_gaps(*sets, rng, paired=paired, resamples=resamples)
    among = neighbourhood_gaps(*sets, K, rng, paired=paired)
    pairs = [
        *zip(one.distances(), two.distances(), far.values(), strict=True),
        *zip(one.neighbourhoods(), two.neighbourhoods(), among.values(), strict=True),
    ]
    return [Line(a, b, gap) for a, b, gap in pairs]


def _section(lines: Sequence[Line], lineup: Lineup, draws: int) -> Section:
    findings = [finding for kind in LEADS for finding in _finding(kind, lines, lineup)]
    sides = {line.gap.ahead for line in lines if line.kind == "distance" and line.gap.ahead}
    text = findings[0].text if findings else _unclear(lines, lineup)
    if len(sides) > 1:
        text = f"{_disagree(lines, lineup)} {findings[0].text if findings else ''}".strip()
    elif findings and not sides:
        text += " By the distances neither is clearly nearer."
    return Section(
        TITLE,
        _picture(lines, lineup),
        *_tables(lines, lineup, draws),
        summary=text,
        findings=findings,
        meaning=MEANING,
        references=REFERENCES,
    )


def _finding(kind: Kind, lines: Sequence[Line], lineup: Lineup) -> list[Finding]:
    """Which network is ahead by the metrics of one kind, where they do not contradict each other."""
    clear = [line for line in lines if line.kind == kind and line.gap.ahead]
    if len({line.gap.ahead for line in clear}) != 1:
        return []
    line = next((line for line in clear if line.first.p is not None), clear[0])  # the kernel distance has no bias
    (a, b), gap = lineup.names, line.gap
    near, far = (a, b) if gap.ahead == "first" else (b, a)
    also = [other.first.metric for other in clear if other is not line]
    usual = f"at n = {line.first.size}, real against real gives {number(line.first.floor.mean)} on average"
    text = (
        f"**{LEADS[kind].format(near=near, far=far)}**: {line.first.metric} {number(line.first.value)} of {a} and "
        f"{number(line.second.value)} of {b} (difference {number(gap.value)}, CI 99 % {span(gap.low, gap.high)})"
        f"{', and so by ' * bool(also)}{', '.join(also)}; {usual}."
    )
    common = "the real images" if lineup.latents_differ else "the latents and the real images"
    tested = (
        f"exchanges of samples between the networks, p adjusted over all metrics; and the 99 % interval of the difference, over "
        f"{common} of both together, is clear of 0"
    )
    trust = Trust(f"p = {gap.p or 0.0:.2g} · n = {lineup.n}, {lineup.real} real", tested)
    return [Finding(text, trust, 0.96 if kind == "distance" else 0.75)]


def _disagree(lines: Sequence[Line], lineup: Lineup) -> str:
    told = {
        name: ", ".join(line.first.metric for line in lines if line.kind == "distance" and line.gap.ahead == side)
        for name, side in zip(lineup.names, ("first", "second"), strict=True)
    }
    return f"The distances disagree: {'; '.join(f'{name} is nearer by {by}' for name, by in told.items())}."


def _unclear(lines: Sequence[Line], lineup: Lineup) -> str:
    a, b = lineup.names
    line = next(line for line in lines if line.first.p is not None)
    return (
        f"With {lineup.n} samples of each and {lineup.real} real images neither is clearly nearer: {line.first.metric} "
        f"{number(line.first.value)} of {a}, {number(line.second.value)} of {b} (difference {number(line.gap.value)}, CI 99 % "
        f"{span(line.gap.low, line.gap.high)})."
    )


def _picture(lines: Sequence[Line], lineup: Lineup) -> Block:
    """The kernel distance of the first space, or the first where it is clear, at the size of a half of the real images."""
    kernels = [line for line in lines if line.first.p is not None]
    line = next((line for line in kernels if line.gap.ahead), kernels[0])
    pair = (line.first, line.second)
    return Bar(
        (
            Series(
                "against real images",
                lineup.names,
                [one.same.mean for one in pair],
                [one.same.low for one in pair],
                [one.same.high for one in pair],
            ),
            Series(
                "real against real",
                lineup.names,
                [one.floor.mean for one in pair],
                [one.floor.low for one in pair],
                [one.floor.high for one in pair],
                "null",
            ),
        ),
        "checkpoint",
        line.first.metric,
        f"{line.first.metric} of {lineup.names[0]} and of {lineup.names[1]} to real images, beside real against real",
        caption=f"Mean and middle 95 % over random halves of {line.first.size} images.",
    )


def _tables(lines: Sequence[Line], lineup: Lineup, draws: int) -> list[Block]:
    (a, b), sides = lineup.names, dict(zip(("first", "second"), lineup.names, strict=True))
    counts = f"{lineup.real} real images and {lineup.n} samples of each"
    gaps = Table(
        ("metric [space]", a, b, "difference", "99 % from", "to", "adjusted p", "better"),
        [
            (
                line.first.metric,
                line.first.value,
                line.second.value,
                line.gap.value,
                line.gap.low,
                line.gap.high,
                line.gap.p,
                sides.get(line.gap.ahead, "not tested" if line.gap.p is None else "not clear"),
            )
            for line in lines
        ],
        caption=f"{counts}; the difference is {b} minus {a}.",
    )
    floor = Table(
        ("metric [space]", a, "low", "high", b, "low ", "high ", "real against real", "low  ", "high  "),
        [
            (
                line.first.metric,
                *(value for one in (line.first.same, line.second.same, line.first.floor) for value in (one.mean, one.low, one.high)),
            )
            for line in lines
        ],
        caption=f"Mean and middle 95 % over {draws} random halves of {lines[0].first.size} images of each set.",
    )  # fmt: skip
    each = Table(
        ("metric [space]", a, "low", "high", "∞ samples", b, "low ", "high ", "∞ samples "),
        [
            (
                line.first.metric,
                *(value for one in (line.first, line.second) for value in (one.value, one.low, one.high, one.infinite)),
            )
            for line in lines
        ],
        caption=f"{counts}; low to high is the 95 % interval of each number by itself.",
    )
    return [gaps, floor, Fold("Each number's own interval", (each,))]
