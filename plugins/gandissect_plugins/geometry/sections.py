"""Local rank and truncation as sections."""

from __future__ import annotations

import numpy as np

from gandissect.blocks import Block, Finding, ImageGrid, Line, Reference, Section, Series, Table, Text, Trust, to_uint8
from gandissect.sampling import prior_words
from gandissect.session import Session
from gandissect.wording import percent
from gandissect_plugins.directions.references import KARRAS

from .jacobian import SMALLEST, LocalRank, local_rank
from .means import mean_interval, with_interval
from .truncation import Truncation, truncation

ROY = Reference("Roy, O. & Vetterli, M.", 2007, "The effective rank: a measure of effective dimensionality", "EUSIPCO")
BARTLETT = Reference("Bartlett, M. S.", 1933, "On the theory of statistical regression", "Proc. R. Soc. Edinb. 53")
BROCK = Reference(
    "Brock, A., Donahue, J. & Simonyan, K.",
    2019,
    "Large scale GAN training for high fidelity natural image synthesis",
    "ICLR",
)
ONLY_FEW = 0.5
"""A rank below this share of the directions tried is a finding."""


def rank_section(session: Session, samples: int, directions: int) -> Section:
    """Singular values of the Jacobian around some samples, beside those of a random linear map."""
    found = local_rank(session, samples=samples, directions=directions)
    count, effective = len(found.singular), found.effective
    mean = [mean_interval(column) for column in found.singular.T]
    line = Line(
        (
            Series(
                "mean over samples",
                list(range(1, found.tried + 1)),
                [m for m, _, _ in mean],
                [max(0.0, low) for _, low, _ in mean],
                [high for _, _, high in mean],
            ),
        ),
        "singular value, by size",
        "root mean square pixel change per σ",
        f"Singular values of the Jacobian around {count} samples",
        caption="The band is the 95 % interval of the mean over the samples.",
    )
    rows = [
        ("effective rank", with_interval(effective), found.reference),
        (f"rank (above {SMALLEST:g} of the largest)", with_interval(found.rank), float(found.tried)),
        (
            "largest over median singular value",
            with_interval(_conditions(found)),
            1.0,
        ),
    ]
    what = _directions(found)
    table = Table(
        ("measure", "generator", "random linear map"),
        rows,
        caption=f"Along {what}, around {count} fresh samples; means with 95 % intervals. 1 is the limit for a large image.",
    )
    share = float(effective.mean()) / found.reference if found.reference else 0.0
    summary = (
        f"Around a sample {with_interval(effective)} directions of {found.tried} carry the change of the image (effective rank); "
        f"a random linear map of this size has {found.reference:.3g}."
    )
    blocks: list[Block] = [line, table]
    if found.tried < found.size:
        blocks.insert(
            0, Text(f"The Jacobian was restricted to {what} of {found.size} coordinates, the same for all samples.")
        )
    return Section(
        "Local rank",
        *blocks,
        summary=summary,
        findings=_few_directions(found, share),
        meaning=_RANK,
        references=(ROY, BARTLETT),
    )


def _directions(found: LocalRank) -> str:
    return (
        f"all {found.size} coordinates" if found.tried == found.size else f"{found.tried} random orthogonal directions"
    )


def _conditions(found: LocalRank) -> list[float]:
    medians = np.median(found.singular, 1)
    return [float(values[0] / middle) for values, middle in zip(found.singular, medians, strict=True) if middle > 0]


def _few_directions(found: LocalRank, share: float) -> list[Finding]:
    rank, count = found.rank, len(found.rank)
    if not found.singular.any():
        text = "The image does not depend on the latent around any sample that was tried."
    elif rank.max() < ONLY_FEW * found.tried:
        text = f"Around each of {count} samples at most {rank.max()} of {found.tried} directions of the latent change the image."
    else:
        return []
    tested = (
        f"singular values of the Jacobian along {_directions(found)}, forward differences around {count} fresh samples; those "
        f"below {SMALLEST:g} of the largest count as zero; a random linear map has {found.tried}"
    )
    return [Finding(text, Trust(f"measured · {count} samples", tested), min(1.0, 0.4 + 0.4 * (1 - share)))]


_RANK = """
The Jacobian says how each pixel answers a small step of the latent. Its singular values are the sizes of the image's
answers along orthogonal directions. *Effective rank* is exp(entropy) of their squares as shares: how many directions
carry the change, each counted by what it carries (Roy and Vetterli take the singular values themselves as shares).
*Rank* counts those above a thousandth of the largest.

A linear generator has the rank of its matrix everywhere. A random linear map of the same size, the reference, uses all
its directions about evenly; training makes some directions matter more, so an effective rank below the reference is
the rule and no fault. Differences are forward, with steps of 0.02σ. What is flat only around these samples is not
told from what is flat everywhere. A finding says that the rank itself, not the effective one, is below half of the
directions tried.
"""


def truncation_section(session: Session) -> Section:
    """Diversity against the distance to the centre, and the discriminator's score where there is one."""
    found = truncation(session)
    psis = list(found.psis)
    lines = (
        Series("diversity", psis, _floats(found.diversity), _floats(found.low), _floats(found.high)),
        Series("linear generator", psis, psis, role="baseline"),
    )
    blocks: list[Block] = [
        _grid(session, found),
        Line(
            lines,
            "ψ, share of the distance to the centre",
            "diversity over that at ψ = 1",
            "Diversity of samples pulled towards the centre, beside that of a linear generator",
            caption=f"Root mean squared distance between {found.images.shape[1]} fresh samples in pixels; bootstrap intervals.",
        ),
        _table(found),
    ]
    half = psis.index(0.5)
    where = (
        "" if found.space != session.gan.generator.latent.name else f" ({prior_words(session.gan.generator.latent)})"
    )
    summary = (
        f"At ψ = 0.5 in {found.space}{where}, {percent(found.diversity[half])} of the diversity is left "
        f"({100 * found.low[half]:.0f} to {percent(found.high[half])}); a linear generator keeps 50 %."
    )
    return Section("Truncation", *blocks, summary=summary, meaning=_TRUNCATION, references=(KARRAS, BROCK))


def _floats(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float]:
    return [float(value) for value in values]


def _table(found: Truncation) -> Table:
    columns = ["ψ", "diversity", "low", "high", "linear generator"]
    rows: list[list[float | str]] = [
        [psi, *map(float, ends), psi]
        for psi, *ends in zip(found.psis, found.diversity, found.low, found.high, strict=True)
    ]
    if found.scores is not None:
        columns.append("discriminator's logit")
        for row, scores in zip(rows, found.scores, strict=True):
            row.append(with_interval(scores))
    return Table(tuple(columns), rows, caption="Intervals are 95 %.")


def _grid(session: Session, found: Truncation) -> ImageGrid:
    shown = min(6, found.images.shape[1])
    return ImageGrid(
        to_uint8(found.images[:, :shown].flatten(0, 1)),
        f"{shown} samples at {len(found.psis)} distances to the centre of {found.space}",
        columns=shown,
        row_labels=tuple(f"ψ = {psi:g}" for psi in found.psis),
        column_labels=tuple(session.sample_name(session.n + i) for i in range(shown)),
    )


_TRUNCATION = """
Each sample is replaced by centre + ψ·(sample − centre) in w where the checkpoint has such a space with its mean
(Karras 2019, appendix B), and in the latent itself otherwise (Brock 2019 truncates the prior; scaling it, as here,
keeps samples comparable one by one). Diversity is measured in pixels. A line above that of a linear generator means
that samples near the centre still differ much; one below, that they look alike early. The discriminator's logit
(higher is "more real" to this discriminator) is no measure of quality of its own.
"""
