"""The same latents through both networks: pairs of pictures, and how far apart they are beside other pairs.

found = pair_distances(rows_a, rows_b, rng)
found.same.mean() / found.other.mean()   # 0 for the same network, about 1 for unrelated ones
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.blocks import Cell, Compare, Finding, Histogram, Section, Table, Trust, to_uint8
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Images, Session, Want
from gandissect.trust import Z95
from gandissect_plugins.health import picture_rows

from .words import p_words

TITLE = "The same latents in both"
DRAWS = 999
CLEAR = 0.01
RELATED, SAME = 0.9, 0.25
"""Mean distance of pairs from one latent, as a part of that of other pairs, below which pictures are called related, and the same."""
Rows = NDArray[np.float64]
MEANING = f"""
Sample *i* of one network and sample *i* of the other are drawn from the same latent. Their distance is the root mean square
of the difference of their pixels, on a grid of at most 32×32; pixels go from −1 to 1. *Other latents* are all pairs of
sample *i* of the one and sample *j* ≠ *i* of the other: what a pair of unrelated pictures gives. p counts {DRAWS} random
pairings of the samples. *Found again* is the share of samples whose nearest picture among all of the other network's is
the one from their own latent. Two networks that were trained apart have nothing in common here, however alike their
pictures are as a whole.
"""


@dataclass(frozen=True)
class PairDistances:
    """Distances in pixels of -1..1: ``same`` float64 [n], ``other`` float64 [n (n - 1)], ``again`` 0..1, p of the same being less."""

    same: Rows
    other: Rows
    again: float
    p: float


def pair_distances(first: Rows, second: Rows, rng: np.random.Generator) -> PairDistances:
    """Distances of all pairs of pictures, those of one latent apart.

    Args:
        first: float64 [n, D], pictures as rows, n ≥ 2.
        second: ditto, of the same latents in the same order.
        rng: draws the random pairings.
    """
    one, two = torch.from_numpy(first), torch.from_numpy(second)
    apart = (torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist") / first.shape[1] ** 0.5).numpy()
    n = len(apart)
    same, own = np.diag(apart).copy(), ~np.eye(n, dtype=bool)
    drawn = [apart[np.arange(n), rng.permutation(n)].mean() for _ in range(DRAWS)]
    p = float((1 + (np.asarray(drawn) <= same.mean()).sum()) / (DRAWS + 1))
    return PairDistances(same, apart[own], float((apart.argmin(1) == np.arange(n)).mean()), p)


@dataclass(frozen=True)
class PairOptions:
    """Options of the pairs of pictures."""

    shown: int = option(16, "pairs of pictures that are shown")
    samples: int = option(250, "pairs whose distance is measured")


class SameLatents(Comparer[Tensor]):
    """Pairs of pictures from the same latents."""

    name: ClassVar[str] = "same-latents"
    of: ClassVar[Kind] = "pair"
    order: ClassVar[int] = 100
    Options: ClassVar[type] = PairOptions
    options: PairOptions

    def wants(self, session: Session) -> Iterable[Want]:
        return [Want((Images(),), KeepSpec(), min(session.n, self.options.samples))]

    def look(self, session: Session) -> Tensor:
        return session.images(min(session.n, self.options.samples))

    def tell(self, seen: Sequence[Tensor], lineup: Lineup) -> Iterator[Section]:
        if lineup.latents_differ:
            yield Section(TITLE, summary=lineup.latents_differ, status="skipped")
            return
        if len(seen[0]) < 16:
            yield Section(TITLE, summary="needs at least 16 samples (pass -n N)", status="skipped")
            return
        first, second = (picture_rows(images) for images in seen)
        found = pair_distances(first, second, lineup.rng(self.name))
        yield self._section(seen, found, lineup)

    def _section(self, seen: Sequence[Tensor], found: PairDistances, lineup: Lineup) -> Section:
        (a, b), n = lineup.names, len(found.same)
        usual, mean = float(found.other.mean()), float(found.same.mean())
        half = Z95 * float(found.same.std()) / n**0.5
        ratio = mean / max(usual, 1e-12)
        text = (
            f"Pictures from the same latent are {mean:.3g} apart (CI {mean - half:.3g} to {mean + half:.3g}), from "
            f"different latents {usual:.3g}; {100 * found.again:.3g} % are found again by their nearest picture "
            f"({100 / n:.2g} % by chance)."
        )
        findings = []
        if found.p <= CLEAR and ratio < RELATED:
            words = "almost the same picture" if ratio < SAME else "a related picture"
            tested = f"{DRAWS} random pairings of {n} samples, {p_words(found.p, DRAWS)}"
            lead = f"**{b} draws {words} from the same latent as {a}.** {text}"
            findings = [Finding(lead, Trust(p_words(found.p, DRAWS), tested), 0.5)]
        elif found.p > CLEAR:
            text += f" The latents of the two have nothing to do with each other ({p_words(found.p, DRAWS)})."
        shown = self.options.shown
        pictures = Compare(
            to_uint8(seen[0][:shown]),
            to_uint8(seen[1][:shown]),
            f"the first samples of {a} and of {b} from the same latents",
            a,
            b,
            tuple(f"sample {i}" for i in range(min(shown, n))),
            caption="Each pair is one latent; drag the seam.",
        )
        spread = Histogram(
            {
                "same latent": found.same.tolist(),
                "other latents": found.other[:: max(1, len(found.other) // 4000)].tolist(),
            },
            "root mean square difference of the pixels",
            f"distances of pairs from one latent, {mean:.3g} on average, and of other pairs, {usual:.3g}",
        )
        columns = ("pairs", "number", "mean distance", "middle 95 % from", "to")
        rows: list[list[Cell]] = [
            [name, len(values), float(values.mean()), *(float(end) for end in np.percentile(values, [2.5, 97.5]))]
            for name, values in (("same latent", found.same), ("other latents", found.other))
        ]
        return Section(
            TITLE,
            pictures,
            spread,
            Table(columns, rows),
            summary=findings[0].text if findings else text,
            findings=findings,
            meaning=MEANING,
        )
