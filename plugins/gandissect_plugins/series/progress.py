"""How far each checkpoint is from the last one, and from real images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Block, Finding, Line, Reference, Section, Series, Table, Text, Trust
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.metrics import (
    around,
    bootstrap_weights,
    frechet_deviation,
    frechet_distance,
    mmd,
    polynomial_kernel,
)
from gandissect.options import option
from gandissect.session import Session, Want
from gandissect.trust import Z95
from gandissect_plugins.comparison.against_real import Features
from gandissect_plugins.comparison.distances import ImageSpaces
from gandissect_plugins.distribution import ComparisonSpace
from gandissect_plugins.distribution.words import number, span

from .axis import at

TITLE = "Distance to the end and to real images"
FEWEST = 32
RESAMPLES = 200
HALVES = 20
RATE = 0.01
Rows = NDArray[np.float64]
MEANING = """
*Kernel distance*: the unbiased squared MMD with the kernel (xᵀy/D + 1)³, 0 on average for equal distributions (KID with the
Inception network); its band is a bootstrap's 95 % interval. *Fréchet distance*: of Gaussians fitted to the features, with the
infinitesimal jackknife's interval; it is called **FID** only with the Inception network
(`--set progress.spaces=pixels,inception=FILE`). For few samples it is too large by about the same amount everywhere: the
line's course counts, not its height. *Two halves of the last* is what no difference looks like: 95 % of random halves of
the last checkpoint's samples stay below.

Samples of all checkpoints come from the same latents. *pixels* are averages on a grid of 8×8: colours and layout, no content.
"""


@dataclass(frozen=True)
class Measured:
    """A distance of each checkpoint: values with intervals, and the bootstrap's replicates float64 [R] of each."""

    values: list[float]
    low: list[float]
    high: list[float]
    replicates: list[Rows]


@dataclass(frozen=True)
class ProgressOptions:
    """Options of the distances."""

    spaces: tuple[str, ...] = option(
        ("pixels",), "feature spaces: pixels, demo-segmenter, mobilenet_v2=FILE, inception=FILE (FID), dinov2=FOLDER, clip=FOLDER"
    )  # fmt: skip


class DistanceSeries(Comparer[list[Features]]):
    """Fréchet and kernel distances over the training."""

    name: ClassVar[str] = "progress"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 120
    Options: ClassVar[type] = ProgressOptions
    options: ProgressOptions
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Heusel, M. et al.", 2017, "GANs trained by a two time-scale update rule", "NeurIPS"),
        Reference("Bińkowski, M. et al.", 2018, "Demystifying MMD GANs", "ICLR"),
    )

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._spaces = ImageSpaces(self.options.spaces)

    def wants(self, session: Session) -> Iterable[Want]:
        return self._spaces.wants(session)

    def look(self, session: Session) -> list[Features]:
        return self._spaces.look(session)

    def tell(self, seen: Sequence[list[Features]], lineup: Lineup) -> Iterator[Section]:
        if lineup.n < FEWEST or 0 < lineup.real < FEWEST:
            why = f"needs at least {FEWEST} samples, and as many real images where any are given"
            yield Section(TITLE, summary=why, status="skipped")
            return
        blocks: list[Block] = []
        findings: list[Finding] = []
        text = ""
        for space in zip(*seen, strict=True):
            told, found, words = _in_space(space, lineup)
            blocks += told
            findings += found
            text = text or words
        if not lineup.real:
            blocks.append(Text("Pass `--data FOLDER` for the distance to real images."))
        yield Section(TITLE, *blocks, summary=text, findings=findings, meaning=MEANING)


def _in_space(seen: Sequence[Features], lineup: Lineup) -> tuple[list[Block], list[Finding], str]:
    space, last = seen[0].space, seen[-1].generated
    rng = lineup.rng(f"progress {space.name}")
    sets = [one.generated for one in seen]
    targets = {"to the last checkpoint": last} | (
        {"to real images": seen[-1].real} if seen[-1].real is not None else {}
    )
    kernel = {name: _kernel(sets, target, rng) for name, target in targets.items()}
    frechet = {name: _frechet(sets, target) for name, target in targets.items()}
    x = lineup.places
    order = [rng.permutation(len(last)) for _ in range(HALVES)]
    halves = [(last[o[: len(o) // 2]], last[o[len(o) // 2 :]]) for o in order]
    blocks: list[Block] = []
    for what, standard, found, floor in (
        ("kernel distance", "KID", kernel, np.percentile([_plain(a, b) for a, b in halves], 95)),
        ("Fréchet distance", "FID", frechet, np.percentile([frechet_distance(a, b) for a, b in halves], 95)),
    ):
        lines = [Series(name, x, one.values, one.low, one.high) for name, one in found.items()]
        null = Series("two halves of the last", x, [float(floor)] * len(x), role="null")
        label = space.label(what, standard)
        blocks.append(Line((*lines, null), lineup.axis, label, f"{label} over the training"))
    heads = [f"{what} {name}" for what in ("kernel distance", "Fréchet distance") for name in targets]
    columns = [one.values for found in (kernel, frechet) for one in found.values()]
    blocks.append(Table(("checkpoint", *heads), list(zip(lineup.names, *columns, strict=True)), f"space: {space.name}"))
    towards = kernel["to the last checkpoint"]
    text = (
        f"{_capital(space.label('kernel distance', 'KID'))} to the last checkpoint: {number(towards.values[0])} at {at(lineup, 0)}, "
        f"{number(towards.values[-2])} at {at(lineup, len(x) - 2)}."
    )
    findings = _best(kernel["to real images"], space, lineup) if "to real images" in kernel else []
    return blocks, findings, findings[0].text if findings else text


def _kernel(sets: Sequence[Rows], target: Rows, rng: np.random.Generator) -> Measured:
    """The kernel distance of each set from ``target``, all resampled together; 0 for the target itself."""
    found = Measured([], [], [], [])
    m = len(target)
    others = bootstrap_weights(m, RESAMPLES, rng)
    own = bootstrap_weights(len(sets[0]), RESAMPLES, rng)
    for rows in sets:
        if rows is target:
            value, drawn = 0.0, np.zeros(RESAMPLES)
        else:
            pooled = np.concatenate([rows, target])
            kernel, n = polynomial_kernel(pooled, pooled), len(rows)
            everyone = np.repeat([1.0, 0.0], [n, m])[None]
            value = float(mmd(kernel, everyone, 1 - everyone)[0])
            drawn = mmd(kernel, np.pad(own, ((0, 0), (0, m))), np.pad(others, ((0, 0), (n, 0))))
        low, high = around(value, drawn)
        _add(found, value, low, high, drawn - drawn.mean() + value)
    return found


def _frechet(sets: Sequence[Rows], target: Rows) -> Measured:
    found = Measured([], [], [], [])
    for rows in sets:
        value = 0.0 if rows is target else frechet_distance(rows, target)
        half = 0.0 if rows is target else Z95 * frechet_deviation(rows, target)
        _add(found, value, max(0.0, value - half), value + half, np.zeros(0))
    return found


def _add(found: Measured, value: float, low: float, high: float, drawn: Rows) -> None:
    found.values.append(value)
    found.low.append(low)
    found.high.append(high)
    found.replicates.append(drawn)


def _plain(first: Rows, second: Rows) -> float:
    pooled = np.concatenate([first, second])
    everyone = np.repeat([1.0, 0.0], [len(first), len(second)])[None]
    return float(mmd(polynomial_kernel(pooled, pooled), everyone, 1 - everyone)[0])


def _best(found: Measured, space: ComparisonSpace, lineup: Lineup) -> list[Finding]:
    """The checkpoint nearest to the real images, where it is clearly nearer than the last one."""
    from scipy.stats import norm

    best = int(np.argmin(found.values))
    gain = found.values[-1] - found.values[best]
    error = float((found.replicates[-1] - found.replicates[best]).std(ddof=1))
    needed = float(norm.ppf(1 - RATE / len(found.values))) * error  # one-sided, for the best of all checkpoints
    if found.low[-1] <= 0 or gain <= needed or gain < 0.1 * found.values[-1]:
        return []
    label = space.label("kernel distance", "KID")
    text = (
        f"**{_capital(at(lineup, best))} is closer to the real images than the last checkpoint**: {label} {number(found.values[best])} "
        f"(CI {span(found.low[best], found.high[best])}), at the end {number(found.values[-1])} (CI "
        f"{span(found.low[-1], found.high[-1])})."
    )
    tested = (
        f"the last is clear of 0, and the difference has {gain / error:.1f} bootstrap standard errors, {needed / error:.1f} needed "
        f"(one-sided {100 * RATE:.0f} % over all {len(found.values)} checkpoints); at least a tenth nearer"
    )
    return [Finding(text, Trust(f"{100 * (1 - RATE):.0f} % · {len(found.values)} checkpoints", tested), 0.8)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
