"""Inversion as an analysis.

list(Inversion({"steps": 200, "images": 48}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section
from gandissect.inverting import MOST_SAMPLES, Effort
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Images, Session, Want

from .lost import losses
from .measuring import FEWEST, Sizes, affordable, measured
from .sections import OWN, REFERENCES, own_section, real_section


@dataclass(frozen=True)
class InversionOptions:
    """Options of inversion."""

    images: int = option(24, "images of each kind, the generator's own and real ones, that are inverted; at least 20")
    control: int = option(8, "images of shuffled pixels that are inverted")
    steps: int = option(28, "steps of L-BFGS; 160 give clearly smaller errors at six times the cost")
    starts: int = option(1, "points to start from: a regression from the samples, then the nearest samples")
    prior: float = option(1e-4, "weight of the prior beside the mean squared error of images in [-1, 1]")
    space: str = option("", "where to search: w where left out and the generator has it, else its latent")


class Inversion(Analyzer):
    """Images are inverted to latents: what comes back of the generator's own images, and what is lost of real ones."""

    name = "inversion"
    order = 460
    needs = Needs(gradients=True, latent_vector=True)
    references = REFERENCES
    Options: ClassVar[type] = InversionOptions

    def wants(self, session: Session) -> Iterable[Want]:
        yield Want((Images(),), KeepSpec(), min(session.n, MOST_SAMPLES))

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(InversionOptions, self.options)
        if lacking := _lacking(session, options):
            yield Section(OWN, summary=lacking, status="skipped")
            return
        effort = Effort(max(1, options.starts), max(1, options.steps), options.prior)
        count = min(options.images, len(session.real)) if session.real is not None else 0
        sizes = Sizes(options.images, count, max(4, options.control))
        usual = options == replace(InversionOptions(), space=options.space, prior=options.prior)
        plan = affordable(session, sizes, effort) if usual else (sizes, effort)
        if plan is None:
            why = (
                f"{sizes.total} inversions cost as much as {sizes.total * effort.images} images, too much for this large generator "
                "(--set inversion.images=20 does it all the same; `gandissect invert` inverts single images)"
            )
            yield Section(OWN, summary=why, status="skipped")
            return
        found = measured(session, *plan, options.space or _usual_space(session))
        yield own_section(session, found, sizes, effort)
        if found.real is not None:
            yield real_section(session, found, found.real, losses(session, found.real, found.own))


def _lacking(session: Session, options: InversionOptions) -> str:
    """Why nothing can be measured; empty where it can."""
    for count, what in ((session.n, "samples (--samples N)"), (options.images, "images (inversion.images)")):
        if count < FEWEST:
            return f"needs at least {FEWEST} samples and images, here {count} {what}"
    if not session.images(min(session.n, MOST_SAMPLES)).isfinite().all():
        return "needs images of finite numbers; some samples are not (see `health`)"
    return ""


def _usual_space(session: Session) -> str:
    """w where the generator has it: its images answer more evenly to w than to z, and the search gets farther there."""
    generator = session.gan.generator
    return "w" if any(inner.name == "w" for inner in generator.inner) else generator.latent.name
