"""Whether the discriminator can have been trained on this generator's images, by the variances that its BatchNorm stored.

found = belonging(session, images, None)
found.foreign, found.excess              # True, 0.58
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from gandissect.blocks import Finding, Section, Trust
from gandissect.borrow import borrowed
from gandissect.probing.verifying import (
    FOREIGN,
    OWN_EXCESS,
    UNFIT,
    Moments,
    excess_variance,
    norm_moments,
    variance_ratios,
)
from gandissect.session import Session
from gandissect.wording import percent

IMAGES = 128
FEWEST = 32
TOO_MUCH = 3.0
DOUBT = "(Of a discriminator that is probably not of this GAN.)"


@dataclass(frozen=True)
class Belonging:
    """How far images vary beyond what the discriminator's norms stored.

    Attributes:
        excess: of generated images, ≥ 0 (:func:`gandissect.probing.verifying.excess_variance`).
        real: likewise of real images, None without any.
        norm, share: the norm with the largest share of units that vary more than ``TOO_MUCH`` times as much as was stored,
            beyond what all units share.
        norms, images: how many were looked at.
    """

    excess: float
    real: float | None
    norm: str
    share: float
    norms: int
    images: int

    @property
    def foreign(self) -> bool:
        """Neither generated nor, where there are any, real images can be what training saw."""
        return self.excess > FOREIGN and (self.real is None or self.real > FOREIGN)

    def finding(self) -> Finding:
        """The headline of a foreign discriminator."""
        beside = "" if self.real is None else f"; real images by {self.real:.2f}"
        text = (
            f"**The discriminator is probably not of this GAN**: generated images vary inside it more than training stored, by "
            f"{self.excess:.2f} (own discriminators: {OWN_EXCESS} at most){beside}; {percent(self.share)} of the units at "
            f"`{self.norm}` vary more than {TOO_MUCH:g} times as much."
        )
        tested = (
            f"one-sided divergence of variances at {self.norms} BatchNorm layers, {self.images} samples; on its own generator's images "
            f"none of 38 discriminators was above {OWN_EXCESS}, and {FOREIGN} is asked for"
        )
        return Finding(text, Trust(f"{self.excess:.2f} > {FOREIGN}", tested), 0.93)


def belonging(session: Session, images: Tensor, real: Tensor | None) -> Belonging | None:
    """None where nothing can be said: no BatchNorm keeps statistics, few images, or a generator that is not what was trained.

    Args:
        session: its GAN has a discriminator.
        images: float32 [N, C, H, W] in [-1, 1], the first samples; 128 of them are looked at.
        real: likewise real images.
    """
    mismatch = session.gan.opening.mismatch
    if session.gan.generator.latent.prior == "image" or len(images) < FEWEST:
        return None  # translators are fed made-up pictures
    if mismatch is not None and mismatch > UNFIT:
        return None  # its images are not those of training
    seen = _seen(session, images)
    if not seen:
        return None
    beyond = None if real is None or len(real) < FEWEST else excess_variance(_seen(session, real))
    shares = {one.name: float((variance_ratios(one) > TOO_MUCH).float().mean()) for one in seen}
    norm = max(shares, key=lambda name: shares[name])
    return Belonging(excess_variance(seen), beyond, norm, shares[norm], len(seen), min(len(images), IMAGES))


def doubted(section: Section) -> Section:
    """The same section, whose findings say that the discriminator is doubtful."""
    return _with(section, section.summary, [replace(one, text=f"{one.text} {DOUBT}") for one in section.findings])


def headed(section: Section, finding: Finding) -> Section:
    """The same section with ``finding`` before its own, and in its summary."""
    return _with(section, f"{finding.text} {section.summary}", [finding, *section.findings])


def _with(section: Section, summary: str, findings: list[Finding]) -> Section:
    return Section(
        section.title, *section.blocks, summary=summary, findings=findings, status=section.status,
        references=section.references, meaning=section.meaning,
    )  # fmt: skip


def _seen(session: Session, images: Tensor) -> list[Moments]:
    discriminator = session.gan.discriminator
    assert discriminator is not None
    few = images[:IMAGES].to(discriminator.device)
    labels = session.labels(range(len(few)), "discriminator")
    given = None if labels is None else labels.to(discriminator.device)
    with borrowed(discriminator.module):
        return norm_moments(discriminator.module, lambda: discriminator(few, given))
