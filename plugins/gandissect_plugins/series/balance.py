"""The discriminator against the generator over the training: scores of samples and of real images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gandissect.blocks import Cell, Line, Section, Series, Table
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.reducers import KeepSpec
from gandissect.session import Scores, Session, Want
from gandissect.trust import interval

TITLE = "Discriminator against generator"
Rows = NDArray[np.float64]
MEANING = """
Each checkpoint's discriminator (or the one given with `--discriminator` for all) scores its own generator's samples, and the real images
where there are any. *Fooled*: share of samples that it calls real (logit above 0). With real images the *share told
apart* is the area under the ROC curve: the chance that a real image scores above a sample; 1 where D sees every difference
and G learns little from it, ½ where D is lost or the two distributions are equal. A critic without a sigmoid (Wasserstein, hinge)
has no threshold at 0: look at the curve under ROC only. Bands are 95 % intervals over images.
"""


@dataclass(frozen=True)
class Judged:
    """Logits float64 [n] of samples and of real images; None where there is no discriminator or no real image."""

    samples: Rows | None
    real: Rows | None


class Balance(Comparer[Judged]):
    """Scores over the training."""

    name: ClassVar[str] = "balance"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 400

    def wants(self, session: Session) -> Iterable[Want]:
        if session.gan.discriminator is not None:
            yield Want((Scores(),), KeepSpec(), session.n)
            if session.real is not None:
                yield Want((Scores(),), KeepSpec(), len(session.real), real=True)

    def look(self, session: Session) -> Judged:
        found = [_logits(session[want]) for want in self.wants(session)]
        return Judged(found[0] if found else None, found[1] if len(found) > 1 else None)

    def tell(self, seen: Sequence[Judged], lineup: Lineup) -> Iterator[Section]:
        places = [place for place, one in enumerate(seen) if one.samples is not None and len(one.samples)]
        if not places:
            why = "needs a discriminator in the checkpoints (or pass --discriminator FILE for all)"
            yield Section(TITLE, summary=why, status="skipped")
            return
        yield _section([(place, seen[place]) for place in places], lineup)


def _logits(kept: object) -> Rows:
    values = cast(Tensor, kept).double().numpy()
    return np.asarray(values[np.isfinite(values)], np.float64)


def _section(seen: Sequence[tuple[int, Judged]], lineup: Lineup) -> Section:
    x = [lineup.places[place] for place, _ in seen]
    groups: dict[str, list[Rows]] = {"samples": [cast(Rows, one.samples) for _, one in seen]}
    if all(one.real is not None for _, one in seen):
        groups["real images"] = [cast(Rows, one.real) for _, one in seen]
    scores = Line(
        tuple(_spread(name, x, sets) for name, sets in groups.items()),
        lineup.axis,
        "logit of D",
        "scores of the discriminator over the training",
        caption="Median; the band is the middle half of the images.",
    )
    fooled = [int((one > 0).sum()) for one in groups["samples"]]
    ends = [interval(hits, len(one)) for hits, one in zip(fooled, groups["samples"], strict=True)]
    share = [hits / len(one) for hits, one in zip(fooled, groups["samples"], strict=True)]
    lines = [Series("fooled: samples called real", x, share, [low for low, _ in ends], [high for _, high in ends])]
    text = f"At the end D calls {100 * share[-1]:.3g} % of the samples real (CI {100 * ends[-1][0]:.3g} to {100 * ends[-1][1]:.3g} %)"
    if "real images" in groups:
        found = [told_apart(real, own) for real, own in zip(groups["real images"], groups["samples"], strict=True)]
        areas, low, high = (list(column) for column in zip(*found, strict=True))
        lines.append(Series("told apart (area under ROC)", x, areas, low, high))
        text += f" and tells samples from real images with an area under ROC of {areas[-1]:.2f}"
    shares = Line(tuple(lines), lineup.axis, "share", "how often the discriminator is right over the training")
    names = [lineup.names[place] for place, _ in seen]
    rows: list[list[Cell]] = [[name, *(line.y[i] for line in (*scores.series, *lines))] for i, name in enumerate(names)]
    heads = [f"median logit, {series.label}" for series in scores.series] + [series.label for series in lines]
    table = Table(("checkpoint", *heads), rows)
    return Section(TITLE, scores, shares, table, summary=f"{text}.", meaning=MEANING)


def _spread(name: str, x: Sequence[float], sets: Sequence[Rows]) -> Series:
    """Median and middle half of each checkpoint's scores."""
    middle, low, high = np.transpose([np.percentile(one, [50, 25, 75]) for one in sets])
    role: Literal["real", "generated"] = "generated" if name == "samples" else "real"
    return Series(name, x, middle.tolist(), low.tolist(), high.tolist(), role)


def told_apart(real: Rows, samples: Rows) -> tuple[float, float, float]:
    """Area under the ROC curve with its 95 % interval.

    References:
        Hanley & McNeil 1982, The meaning and use of the area under a ROC curve, eq. 1 and 2.
    """
    from scipy.stats import rankdata

    n, m = len(real), len(samples)
    ranks = rankdata(np.concatenate([real, samples]))[:n]
    area = float((ranks.sum() - n * (n + 1) / 2) / (n * m))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)) / (n * m)
    half = 1.96 * max(0.0, variance) ** 0.5
    return area, max(0.0, area - half), min(1.0, area + half)
