"""The geometry of latent space as sections of a report.

list(Geometry({"pairs": 4}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Session, Want
from gandissect_plugins.directions import LARGEST_LATENT, concept_rulers, property_rulers
from gandissect_plugins.directions.references import KARRAS, RADFORD, WHITE

from .sections import ROY, rank_section, truncation_section
from .walk_sections import arithmetic_section, interpolation_section, sweep_section

FEWEST = 24


@dataclass(frozen=True)
class GeometryOptions:
    """Options of the geometry of latent space."""

    samples: int = option(1000, "samples that latent arithmetic takes its means from")
    around: int = option(8, "samples around which the local rank is measured")
    directions: int = option(64, "directions along which it is measured at most")
    pairs: int = option(6, "pairs of samples that are interpolated between")
    concepts: int = option(4, "concepts that latent arithmetic tries, the most telling")


class Geometry(Analyzer):
    """Coordinates that do nothing, local rank, interpolation, truncation and arithmetic, each beside a reference."""

    name = "geometry"
    order = 455
    needs = Needs(latent_vector=True)
    references = (KARRAS, ROY, RADFORD, WHITE)
    Options: ClassVar[type] = GeometryOptions

    def wants(self, session: Session) -> Iterable[Want]:
        yield Want((Images(),), KeepSpec(), session.n)
        if session.vocabulary.concepts:
            yield Want((Areas(),), KeepSpec(), session.n)

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(GeometryOptions, self.options)
        size, n = session.gan.generator.latent.size, min(session.n, options.samples)
        if size > LARGEST_LATENT:
            why = f"needs latents of at most {LARGEST_LATENT} numbers (--latent SHAPE says another shape); here {size}"
            yield Section("Geometry of the latent space", summary=why, status="skipped")
            return
        yield sweep_section(session)
        yield rank_section(session, options.around, options.directions)
        yield interpolation_section(session, options.pairs)
        yield truncation_section(session)
        if n < FEWEST:
            why = f"needs at least {FEWEST} samples, here {n} (--samples N)"
            yield Section("Latent arithmetic", summary=why, status="skipped")
            return
        rulers, concepts = property_rulers(session, n), concept_rulers(session, n, options.concepts)
        yield arithmetic_section(session, n, rulers, concepts)
