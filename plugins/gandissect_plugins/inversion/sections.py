"""Inversions as sections of the report: own images first, as the ceiling, then real ones.

own_section(session, measured(session, Sizes(), Effort()))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Finding,
    Fold,
    Histogram,
    ImageGrid,
    Line,
    Pixels,
    Reference,
    Section,
    Series,
    Table,
    Text,
    Trust,
    to_uint8,
)
from gandissect.inverting import Effort
from gandissect.session import Session
from gandissect.wording import p_value, percent
from gandissect_plugins.geometry.means import with_interval

from .lost import LEAST_LOST, RATE, Loss
from .measuring import Measured, Sizes, Tried

OWN = "Inversion: what comes back of its own images"
REAL = "Inversion: what the generator cannot make"
EACH = 4
"""Best and worst inversions that are shown, so many of each."""
SHOWN = 16
FAR, FARTHER, VISIBLE = 0.001, 1.25, 1.0
"""Real images are farther off than own ones below this p, by this factor, and where the error is so many per cent of the range."""
TOLD = 3
REFERENCES = (
    Reference("Bau, D. et al.", 2019, "Seeing what a GAN cannot generate", "ICCV"),
    Reference("Zhu, J.-Y. et al.", 2016, "Generative visual manipulation on the natural image manifold", "ECCV"),
    Reference("Creswell, A. & Bharath, A. A.", 2018, "Inverting the generator of a GAN", "IEEE TNNLS 30"),
    Reference("Nocedal, J. & Wright, S. J.", 2006, "Numerical optimization", "Springer"),
)
Matrix = NDArray[np.float64]


def own_section(session: Session, found: Measured, sizes: Sizes, effort: Effort) -> Section:
    """What the search reaches where an exact answer exists, beside shuffled pixels; ``sizes`` and ``effort`` are what was asked for."""
    own = found.own
    summary = (
        f"Of {len(own.images)} of the generator's own images inversion gives back all but {_percent(own.error)} of the range of a "
        f"pixel (root mean square; PSNR {own.found.psnr.mean():.1f} dB); found and true latents have |cosine| "
        f"{with_interval(found.cosine, 2)}, {found.chance:.2g} by chance."
    )
    blocks: list[Block] = [_overview(found)]
    if not found.sound:
        blocks.append(Text(_UNSOUND.format(p=p_value(found.worse))))
    blocks += [] if found.real else [_histogram(found)]
    blocks += [_shown(own, "own images"), _coordinates(found), Text(_not_recovered(session, found))]
    if found.classes is not None:
        classes = session.gan.generator.num_classes
        blocks.append(
            Text(f"{percent(found.classes)} are found under their own class; {percent(1 / classes)} by chance.")
        )
    if found.real is None:
        blocks.append(Text("Real images (`--data FOLDER`) would tell what the generator cannot make."))
    if (len(own.images), found.effort) != (sizes.own, effort):
        done = f"{len(own.images)} images of each kind with {found.effort.steps} steps in place of {sizes.own} with {effort.steps}"
        blocks.append(
            Text(f"This generator is large: {done}; `--set inversion.images={sizes.own + 1}` leaves nothing out.")
        )
    if not session.gan.capabilities.deterministic:
        blocks.append(
            Text("The generator draws fresh noise; it was held fixed, and what other noise changes counts as error.")
        )
    return Section(OWN, *blocks, summary=summary, meaning=_meaning(found), references=REFERENCES)


def real_section(session: Session, found: Measured, real: Tried, lost: Sequence[Loss]) -> Section:
    """How far real images are from what the generator makes, and which concepts are lost on the way."""
    outside, count = int((real.p < RATE).sum()), len(real.images)
    told = [one.name for one in lost if one.told]
    summary = (
        f"Inversions of {count} real images are off by {_percent(real.error)} of the range, those of own images by "
        f"{_percent(found.own.error)}; {outside} of {count} are farther off than {100 * (1 - RATE):.0f} % of the own ones."
    )
    if lost:
        summary += f" Of {len(lost)} concepts {len(told)} lose area{': ' + ', '.join(told[:6]) if told else ''}."
    blocks: list[Block] = []
    if not found.sound:
        blocks.append(Text(_UNSOUND.format(p=p_value(found.worse))))
    blocks += [
        _shown(real, "real images"),
        _histogram(found),
        *_concept_blocks(session, lost, len(found.own.images)),
        Fold("Every real image", (_each(real),)),
    ]
    findings = [*_lost_findings(found, real, lost), *_far_finding(found, real)] if found.sound else []
    return Section(REAL, *blocks, summary=summary, findings=findings, meaning=_meaning(found), references=REFERENCES)


def _percent(errors: Matrix) -> str:
    """Mean error as a share of the range, with its interval."""
    return f"{with_interval(50 * errors, 2)} %"


def _kinds(found: Measured) -> list[tuple[str, Tried]]:
    real = [] if found.real is None else [("real images", found.real)]
    return [("own images", found.own), *real, ("shuffled pixels", found.control)]


def _overview(found: Measured) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            what,
            len(tried.images),
            with_interval(50 * tried.nearest),
            *([] if tried.found.encoded is None else [with_interval(50 * tried.found.encoded)]),
            with_interval(50 * tried.error),
            with_interval(tried.found.psnr),
            with_interval(_lengths(tried)),
        )
        for what, tried in _kinds(found)
    ]
    alone = () if found.own.found.encoded is None else ("encoder alone, %",)
    return Table(
        ("kind", "images", "nearest sample, %", *alone, "inversion, %", "PSNR, dB", "length of the point"),
        rows,
        caption="Root mean square difference in per cent of the range of a pixel, means with 95 % intervals. The length is that of "
        "the point found, a root mean square coordinate.",
    )


def _lengths(tried: Tried) -> Matrix:
    return np.asarray(tried.found.points.double().flatten(1).square().mean(1).sqrt().numpy())


def _histogram(found: Measured) -> Histogram:
    groups = {what: [float(50 * error) for error in tried.error] for what, tried in _kinds(found)}
    return Histogram(
        groups, "root mean square error, % of the range", f"Errors of inversions of {', '.join(groups)}", bins=24
    )


def _shown(tried: Tried, what: str) -> ImageGrid:
    """The best and the worst inversions, and where they are off."""
    order = tried.order
    places = order if len(order) <= 2 * EACH else [*order[:EACH], *order[-EACH:]]
    coloured, full = error_colours(tried.maps[places].double().numpy())
    rows = [to_uint8(tried.images[places]), to_uint8(tried.found.images[places]), coloured]
    each = f"{EACH} best and {EACH} worst" if len(places) < len(order) else f"{len(order)}"
    return ImageGrid(
        np.concatenate(rows),
        f"The {each} inversions of {len(order)} {what}, and where they are off",
        columns=len(places),
        labels=(*(tried.names[i] for i in places), *[""] * (2 * len(places))),
        row_labels=("image", "inversion", "error"),
        column_labels=tuple(percent(tried.error[i] / 2) for i in places),
        caption=f"The {each} inversions of {len(order)} {what}, with their errors. Error maps: absolute difference from 0 "
        f"(dark violet) to {percent(full)} of the range or more (yellow).",
    )


def error_colours(maps: Matrix) -> tuple[Pixels, float]:
    """Maps [N, H, W] in viridis on one scale: uint8 [N, H, W, 3], and the value that gets the full colour.

    That is the 99.5 % point of all pixels: single ones would leave the rest dark.
    """
    from matplotlib import colormaps

    full = float(np.quantile(maps, 0.995)) or 1.0
    return np.asarray(colormaps["viridis"](np.minimum(maps / full, 1.0), bytes=True)[..., :3], np.uint8), full


def _coordinates(found: Measured) -> Line:
    sorted_ = np.sort(found.recovered)[::-1]
    places = list(range(1, len(sorted_) + 1))
    normal = _chance_curve(len(sorted_), len(found.cosine))
    return Line(
        (
            Series("found", places, [float(value) for value in sorted_]),
            Series("by chance", places, [float(value) for value in normal], role="baseline"),
        ),
        "coordinate, by correlation",
        "correlation of true and found value",
        f"Correlation of {len(places)} coordinates with the values that inversion finds",
        caption=f"Over {len(found.cosine)} own images. By chance: sorted quantiles of the correlation of independent values.",
    )


def _chance_curve(size: int, count: int) -> Matrix:
    """Quantiles of Pearson's r of ``count`` independent pairs of normal values, largest first: float64 [size]."""
    from scipy.stats import t

    quantile = t.isf((np.arange(size) + 0.5) / size, count - 2)
    return np.asarray(quantile / np.sqrt(count - 2 + quantile**2))


def _not_recovered(session: Session, found: Measured) -> str:
    missed = np.flatnonzero(found.adjusted >= RATE)
    size = len(found.adjusted)
    if not len(missed):
        return (
            f"All {size} coordinates are found again better than by chance (false-discovery rate {100 * RATE:.0f} %)."
        )
    some = ", ".join(map(str, missed[np.argsort(found.recovered[missed], kind="stable")][:12]))
    own = found.own.found.space == session.gan.generator.latent.name
    more = " *Latent coordinates* of `geometry` tells which change nothing at all." if own else ""
    return (
        f"{size - len(missed)} of {size} coordinates are found again better than by chance (false-discovery rate {100 * RATE:.0f} %). "
        f"Least: {some}. The image says little about those, or the search did not get that far.{more}"
    )


def _concept_blocks(session: Session, lost: Sequence[Loss], own: int) -> list[Block]:
    if not lost:
        what = "No concept is in enough of the images" if session.vocabulary.concepts else "No concepts to look for"
        return [Text(f"{what}: `--concepts NAME` names a segmenter that reads pixels.")]
    names = [one.name for one in lost[:SHOWN]]
    bars = Bar(
        (
            Series(
                "lost of real images",
                names,
                [100 * one.lost for one in lost[:SHOWN]],
                [100 * one.low for one in lost[:SHOWN]],
                [100 * one.high for one in lost[:SHOWN]],
                role="real",
            ),
            Series("lost of own images", names, [100 * one.own for one in lost[:SHOWN]], role="generated"),
        ),
        "concept",
        "area lost, % of the image",
        f"Area that {len(names)} concepts lose between images and their inversions",
        caption="95 % intervals over the real images; below 0, inversions have more of it.",
    )
    rows: list[tuple[Cell, ...]] = [
        (
            one.name,
            one.images,
            100 * one.real,
            100 * one.inverted,
            100 * one.lost,
            100 * one.low,
            100 * one.high,
            100 * one.own,
            100 * one.kept,
            100 * one.own_kept,
            one.inside,
            one.p,
        )
        for one in lost
    ]
    columns = (
        "concept",
        "images",
        "real, %",
        "inverted, %",
        "lost",
        "low",
        "high",
        "lost of own",
        "kept, %",
        "kept of own, %",
    )
    caption = (
        "Mean share of the image in per cent, and what inversions lose of it with its 95 % interval. *Kept*: pixels that are still of "
        "the concept. *Error inside*: over the mean error of the same image. p: the larger of flipped signs over the images and of "
        f"exchanges with {own} own images, adjusted."
    )
    return [bars, Table((*columns, "error inside", "adjusted p"), rows, caption=caption)]


def _each(real: Tried) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            real.names[i],
            float(50 * real.error[i]),
            float(50 * real.nearest[i]),
            float(real.found.psnr[i]),
            float(real.p[i]),
        )
        for i in reversed(real.order)
    ]
    return Table(
        ("image", "error, %", "nearest sample, %", "PSNR, dB", "p"),
        rows,
        caption="p: share of the own images (and this one) whose error is as large.",
    )


def _lost_findings(found: Measured, real: Tried, lost: Sequence[Loss]) -> list[Finding]:
    """Things before looks; looks only where no thing is lost."""
    passed = [one for one in lost if one.told]
    chosen = [one for one in passed if one.thing] or passed[:1]
    tested = (
        f"{len(real.images)} real images and their inversions, signs of the losses flipped; exchanges with the losses of "
        f"{len(found.own.images)} own images; the larger p, adjusted over {len(lost)} concepts"
    )
    return [
        Finding(
            f"{_how_far(one)}: {_points(one.real)} % of their area, "
            f"{_points(one.inverted)} % after inversion (they lose {_points(one.low)} to {_points(one.high)} percentage points, its "
            f"own images {_points(one.own)}).",
            Trust(p_value(one.p), tested),
            min(0.9, 0.4 + 0.5 * one.lost / one.real),
        )
        for one in chosen[:TOLD]
    ]


def _how_far(one: Loss) -> str:
    if one.lost < 0.5 * one.real:
        return f"The generator does not fully reach the *{one.name}* of real images"
    return f"The generator cannot make the *{one.name}* of real images"


def _points(share: float) -> str:
    return f"{100 * share:.2g}".replace("-", "−")


def _far_finding(found: Measured, real: Tried) -> list[Finding]:
    visible = 50 * real.error.mean() >= VISIBLE and real.error.mean() >= FARTHER * found.own.error.mean()
    if found.beyond >= FAR or not visible:
        return []
    outside, count = int((real.p < RATE).sum()), len(real.images)
    text = (
        f"Real images are farther from what the generator makes than its own: inversions are off by {50 * real.error.mean():.2g} % of "
        f"the range against {50 * found.own.error.mean():.2g} %, {outside} of {count} by more than {100 * (1 - RATE):.0f} % of its own."
    )
    tested = f"errors of {count} real and {len(found.own.images)} held-out own images, inverted alike (Mann–Whitney)"
    return [Finding(text, Trust(f"p < {FAR:g}", tested), 0.35 + 0.2 * outside / count)]


_UNSOUND = (
    "**Shuffled pixels are inverted no worse than own images** ({p}): the search does not find what is there, and nothing "
    "follows for real images. More steps may help (`--set inversion.steps=160`)."
)


def _meaning(found: Measured) -> str:
    effort = found.effort
    encoder = "" if found.own.found.encoded is None else ", or what the file's own encoder says where that is nearer"
    starts = (
        ""
        if effort.starts < 2
        else f" {effort.starts - 1} further start(s) are the nearest samples; the best after {effort.trial} steps goes on."
    )
    return f"""
For each image the point of *{found.own.found.space}* is sought whose image is nearest: {effort.steps} steps of L-BFGS on
the mean over the scales of a pyramid of the mean squared difference, plus {effort.prior:g} times the mean squared
coordinate (a normal prior; under a uniform one no coordinate leaves its span). The start is a kernel ridge regression
from the session's samples to their latents{encoder}.{starts} One image costs {effort.images} images' worth of work.

- *Own images* are held-out samples, for which an exact answer exists. Their error is the search's own, so an error of a
  real image counts only beyond theirs (p, by rank), and a lost concept only beyond what they lose.
- *Shuffled pixels* have the colours of an image and no structure; they must be worse, or nothing is said.
- A concept is named where its area shrinks in the inversions, with both p below {RATE:g} at a controlled false-discovery
  rate. At least {100 * LEAST_LOST:.0f} % of its area has to go: an inversion is always a little smoother.
- A point that the search misses looks like one that does not exist. More steps lower both errors; the comparison stays.
- A low |cosine| beside a small error means that different latents give nearly this image, or that the search stopped
  before it mattered: directions in which the generator cannot be inverted.
"""
