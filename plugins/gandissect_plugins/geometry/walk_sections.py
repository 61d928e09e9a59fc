"""Walks through latent space as sections: coordinates, interpolation, arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import Tensor

from gandissect.blocks import (
    Bar,
    Block,
    Compare,
    Finding,
    ImageGrid,
    Line,
    Section,
    Series,
    Table,
    Trust,
    to_uint8,
)
from gandissect.session import Session
from gandissect.trust import interval
from gandissect_plugins.directions import Rulers
from gandissect_plugins.directions.effects import Matrix
from gandissect_plugins.directions.references import KARRAS, RADFORD, WHITE
from gandissect_plugins.health import LatentEffects

from .jacobian import effective_rank
from .means import with_interval
from .walks import (
    Arithmetic,
    Closer,
    Interpolation,
    Path,
    PathLengths,
    arithmetic,
    interpolate,
    look_closer,
    pixel_path_lengths,
    sweep,
)

PATHS: tuple[Path, ...] = ("linear", "spherical")
SHOWN = 128
JUMP = 0.8
"""A step whose largest eighth is more than this share of it does not get smaller when it is divided."""
SEEN = 0.02
"""A step of less root mean square change than this (images in 0..1) is not called a jump."""


def sweep_section(session: Session) -> Section:
    """What each coordinate does on its own, and those that do nothing."""
    found = sweep(session)
    size, count, every = len(found.change), len(found.unused), session.gan.generator.latent.size
    names = [f"z{i}" for i in found.tried]
    order = [int(i) for i in np.argsort(-found.change, kind="stable")]
    total = float(found.change.sum())
    half = int(np.searchsorted(np.cumsum(found.change[order]), total / 2)) + 1 if total > 0 else 0
    shown = range(size) if size <= SHOWN else sorted(order[:SHOWN])
    each = found.by_sample[list(shown)]
    bars = Series(
        "change", [names[i] for i in shown], each.mean(1).tolist(), each.min(1).tolist(), each.max(1).tolist()
    )
    left_out = "" if size <= SHOWN else f" The {SHOWN} coordinates with the largest change of {size}."
    if size < every:
        left_out += f" This generator is large: {size} of {every} coordinates were tried, evenly spaced."
    bar = Bar(
        (bars,),
        "coordinate of the latent",
        "mean pixel change, 0 to 1",
        f"Pixel change along each of {len(shown)} coordinates",
        caption=f"From −2σ to +2σ, one coordinate at a time, on the same {found.seeds} fresh samples; whiskers "
        f"reach from the least to the most of them.{left_out}",
    )
    known, findings = session.recall(LatentEffects), []
    if count and not (known is not None and set(found.unused) <= set(known.dead)):  # else the health check has said it
        tested = f"the image from −2σ to +2σ on {found.seeds} fresh samples: no pixel moves by half a grey level of 256"
        which = ", ".join(f"z{i}" for i in found.unused[:6]) + (" …" if count > 6 else "")
        text = f"{count} of {size} latent coordinates change nothing in the image: {which}."
        findings.append(Finding(text, Trust(f"measured · {found.seeds} samples", tested), min(1.0, 0.3 + count / size)))
    rows = [(names[i], float(found.change[i]), float(found.largest[i])) for i in order[:10]]
    table = Table(("coordinate", "mean pixel change", "largest"), rows, caption="The ten coordinates that change most.")
    used = [effective_rank(values) for values in found.by_sample.T]
    summary = (
        f"{count} of {size} coordinates are unused; half of all change comes from {half}. The effective number is "
        f"{np.mean(used):.3g} ({min(used):.3g} to {max(used):.3g} on {found.seeds} samples); {size} if all did equally much."
    )
    listed = ", ".join(f"z{i}" for i in found.unused[:40])
    blocks: list[Block] = [bar, table]
    if count:
        blocks.append(Table(("unused coordinates",), [(listed + (" …" if count > 40 else ""),)]))
    return Section("Latent coordinates", *blocks, summary=summary, findings=findings, meaning=_ALONE)


def interpolation_section(session: Session, pairs: int = 6, frames: int = 9) -> Section:
    """Linear and spherical ways between samples, and how even they are."""
    pairs = max(1, min(pairs, session.n // 2))
    latents = session.latents(2 * pairs)
    start, end, labels = latents[::2], latents[1::2], session.labels(range(0, 2 * pairs, 2))
    ways = {p: interpolate(session, start, end, steps=frames, method=p, labels=labels) for p in PATHS}
    lengths = {p: pixel_path_lengths(session, method=p) for p in PATHS}
    closer = look_closer(session, ways["spherical"], start, end, labels)
    steps = Line(
        tuple(Series(p, list(range(1, frames)), [float(v) for v in ways[p].steps.mean(0)]) for p in PATHS),
        "step",
        "root mean square pixel change, 0 to 1",
        "Size of each step in pixels, mean over the pairs",
        caption=f"Mean over {pairs} pairs.",
    )
    way = ways["spherical"]
    summary = (
        f"On spherical ways the largest of {frames - 1} steps is {with_interval(way.unevenness)} times the mean step (1 on a "
        f"straight line in pixels); divided into eight, its largest part is {with_interval(closer.largest)} of it (0.125 where "
        "it is even, 1 where it is a jump)."
    )
    return Section(
        "Interpolation",
        _grid(ways, min(3, pairs)),
        steps,
        _ways_table(ways, lengths, pairs),
        summary=summary,
        findings=_jumps(closer, frames),
        meaning=_WAYS,
        references=(KARRAS, WHITE),
    )


def _ways_table(ways: Mapping[Path, Interpolation], lengths: Mapping[Path, PathLengths], pairs: int) -> Table:
    columns = (
        "way",
        "largest step / mean step",
        "length / distance of ends",
        "norm at the middle",
        "pixel path length",
        "that of a cross-fade",
    )
    rows = [
        (
            p,
            with_interval(way.unevenness),
            with_interval(way.detour),
            with_interval(way.norms[:, way.norms.shape[1] // 2]),
            with_interval(lengths[p].ways),
            with_interval(lengths[p].fade),
        )
        for p, way in ways.items()
    ]
    caption = (
        f"Means with 95 % intervals over {pairs} pairs ({len(lengths['linear'].ways)} for the path length). A cross-fade of the "
        "two ends has 1 in the second and third column, and so has a linear generator on linear ways."
    )
    return Table(columns, rows, caption=caption)


def _jumps(closer: Closer, frames: int) -> list[Finding]:
    """A finding where some way does not get smoother when it is divided."""
    jumps = (closer.largest > JUMP) & (closer.step > SEEN)
    if not jumps.any():
        return []
    count, share = int(jumps.sum()), 1 / (8 * (frames - 1))
    text = (
        f"The image jumps on {count} of {len(jumps)} ways between samples: {closer.largest[jumps].mean():.0%} of the largest "
        f"step happens within {share:.1%} of the way."
    ).replace("%", " %")
    tested = "the largest step of each way divided into eight: a continuous change has about 12 % of it in each part"
    return [Finding(text, Trust(f"measured · {len(jumps)} pairs", tested), 0.3 + 0.4 * count / len(jumps))]


def _grid(ways: Mapping[Path, Interpolation], shown: int) -> ImageGrid:
    """The first pairs, their linear way above the spherical one."""
    frames = next(iter(ways.values())).images.shape[1]
    return ImageGrid(
        np.concatenate([to_uint8(way.images[i]) for i in range(shown) for way in ways.values()]),
        f"{shown} pairs of samples, linear and spherical ways between them",
        columns=frames,
        row_labels=tuple(f"{2 * i} → {2 * i + 1}, {path}" for i in range(shown) for path in ways),
        column_labels=tuple(f"{t:.2f}" for t in np.linspace(0, 1, frames)),
    )


_ALONE = """
Each coordinate is moved alone, so effects that need two of them together do not show. A prior without preferred axes
(a normal one) lets training spread each cause over all coordinates: even bars are the rule, and a single tall bar is
the exception.
"""

_WAYS = """
Nine frames from one sample to another. A step far above the mean is a jump: the generator changes abruptly there. A
straight line between two normal latents passes nearer to the origin than samples do (*norm at the middle*, 1 is
that of the ends); the spherical way does not.

*Pixel path length* is the perceptual path length (Karras 2019, eq. 2) with the mean squared difference of pixels in
place of LPIPS: mean squared change per squared step, over 32 pairs. A *cross-fade* is the shortest way in pixels
between the same ends, so the ratio of both says how far the generator strays from it. The length compares snapshots
of one model; it is not comparable with published values.

The largest step is also divided into eight. In a continuous generator the parts are about an eighth of it each; where
one part holds nearly all of it, the image jumps.
"""


def arithmetic_section(session: Session, n: int, rulers: Rulers, concepts: Rulers) -> Section:
    """Adding what tells samples apart to other samples, for the concepts that vary most (properties where there are none)."""
    title, source = "Latent arithmetic", concepts if concepts.names else rulers
    found = []
    for k, name in enumerate(source.names[:3]):
        of = partial(_column, source.of, k)
        result = arithmetic(session, name, source.values[:, k], of, session.rng(f"directions: adding {name}"))
        if result is not None:
            found.append(result)
    if not found:
        return Section(
            title,
            summary="needs a concept or property that varies, and more samples (--samples N, --concepts NAME)",
            status="skipped",
            meaning=_SUMS,
        )
    rows = [
        (f.name, f.success / f.tried, *interval(f.success, f.tried), f.chance / f.tried, f.tried, f.p, f.length)
        for f in found
    ]
    columns = ("added", "success", "low", "high", "success of random additions", "samples", "p", "length (σ)")
    best = min(found, key=lambda f: (f.p, -f.success))
    blocks: list[Block] = [
        Table(
            columns, rows, caption="Low and high: 95 % interval (Wilson). p is Fisher's exact, one-sided, not adjusted."
        ),
        _compare(session, best),
    ]
    summary = (
        f"Adding *{best.name}* gives much of it in {best.success} of {best.tried} held-out samples that had little; "
        f"random additions of the same length do in {best.chance}."
    )
    return Section(title, *blocks, summary=summary, meaning=_SUMS, references=(RADFORD,))


def _column(of: Callable[[Tensor], Matrix], k: int, images: Tensor) -> Matrix:
    return of(images)[:, k]


_SUMS = """
The mean latent of the samples with much of something, minus that of the samples with little (a quarter from each
end), is added to held-out samples that have little. It succeeds where they are above the median afterwards. Random
additions are differences between the means of random groups, scaled to the same length. The numbers of samples are
small; read the counts. A network with random weights can show an effect here too, so this is a description and no
finding.
"""


def _compare(session: Session, found: Arithmetic) -> Compare:
    count = min(8, found.tried)
    labels = None if found.labels is None else found.labels[:count]
    before = session.generate(found.latents[:count], labels=labels)
    after = session.generate(found.added[:count], labels=labels)
    return Compare(
        to_uint8(before),
        to_uint8(after),
        f"{count} held-out samples before and after adding {found.name}",
        before_label="before",
        after_label=f"+ {found.name}",
    )
