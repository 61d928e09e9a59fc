"""The comparison with real images as sections of a report.

list(Distribution({"samples": 500}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from torch import Tensor

from gandissect.analyzer import Analyzer
from gandissect.blocks import Section
from gandissect.metrics import halves
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Session, Want

from .distance_sections import covered_section, distance_section
from .diversity import REFERENCES, diversity_section
from .evidence import FEWEST, Comparison
from .missing import Properties, Sets, concept_sets, missing_section, property_names
from .spaces import ComparisonSpace, comparison_spaces, gathered

TITLE = "Real against generated"
"""What is skipped as one where there is nothing to compare with."""


@dataclass(frozen=True)
class DistributionOptions:
    """Options of the comparison with real images."""

    samples: int = option(1000, "generated samples, and real images, that are compared at most")
    spaces: tuple[str, ...] = option(
        ("pixels", "discriminator"),
        "feature spaces: pixels, discriminator, demo-segmenter, mobilenet_v2=FILE, inception=FILE (FID), dinov2=FOLDER, clip=FOLDER",
    )
    halves: int = option(20, "random halves of the real images that show what no difference looks like")
    resamples: int = option(200, "bootstrap resamples of each interval")
    pairs: int = option(100, "pairs of samples whose similarity is measured")
    paths: int = option(100, "pairs of latents between which path lengths are measured")


class Distribution(Analyzer):
    """How generated images differ from real ones as a whole: distances, coverage, concepts that are missing, diversity."""

    name = "distribution"
    order = 160
    references = REFERENCES
    Options: ClassVar[type] = DistributionOptions

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._opened: tuple[ComparisonSpace, ...] | None = None

    def wants(self, session: Session) -> Iterable[Want]:
        options = cast(DistributionOptions, self.options)
        for real, count in self._counts(session).items():
            yield Want((Images(),), KeepSpec(), min(count, 2 * options.pairs), real)
            if min(self._counts(session).values()) >= FEWEST and session.real is not None:
                yield from (space.want(count, real=real) for space in self._spaces(session))
                yield Want((Properties(),), KeepSpec(), count, real)
                if session.vocabulary.concepts:
                    yield Want((Areas(),), KeepSpec(), count, real)

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(DistributionOptions, self.options)
        counts = self._counts(session)
        lacking = _lacking(session, counts)
        if lacking:
            yield Section(TITLE, summary=lacking, status="skipped")
        else:
            comparisons = [
                Comparison(
                    space,
                    gathered(session, space, counts[True], real=True),
                    gathered(session, space, counts[False], real=False),
                    session.rng(f"distribution: {space.name}"),
                    draws=options.halves,
                    resamples=options.resamples,
                )
                for space in self._spaces(session)
            ]
            yield distance_section(comparisons)
            yield covered_section(comparisons)
            yield self._missing(session, counts[True], counts[False])
        yield diversity_section(session, 2 * options.pairs, options.paths, options.resamples)

    def _missing(self, session: Session, n: int, m: int) -> Section:
        options = cast(DistributionOptions, self.options)
        rng = session.rng("distribution: what is missing")
        draws = list(halves(n, m, options.halves, rng))
        real, generated = (
            cast(Tensor, session[Want((Properties(),), KeepSpec(), count, is_real)]).double().numpy()
            for count, is_real in ((n, True), (m, False))
        )
        names = property_names(session.gan.generator.image_shape[0])
        properties = Sets(names, np.nan_to_num(real), np.nan_to_num(generated), draws, [False] * len(names))
        return missing_section(concept_sets(session, n, m, draws), properties, rng, options.resamples)

    def _counts(self, session: Session) -> dict[bool, int]:
        """How many samples are compared: of generated ones (False), of real ones (True) where there are any."""
        most = cast(DistributionOptions, self.options).samples
        counts = {False: min(session.n, most)}
        return counts if session.real is None else counts | {True: min(len(session.real), most)}

    def _spaces(self, session: Session) -> tuple[ComparisonSpace, ...]:
        """The spaces asked for; their networks are read once."""
        if self._opened is None:
            self._opened = comparison_spaces(session, cast(DistributionOptions, self.options).spaces)
        return self._opened


def _lacking(session: Session, counts: dict[bool, int]) -> str:
    """Why there is nothing to compare, and what to type; empty where there is."""
    if session.real is None:
        return "distances, coverage and what is missing need real images (pass --data FOLDER; a .zip of pictures, .npz or .npy too)"
    if min(counts.values()) < FEWEST:
        short = f"got {counts[True]} and {counts[False]}"
        return f"distances, coverage and what is missing need at least {FEWEST} real images and generated samples (--samples N), {short}"
    return ""
