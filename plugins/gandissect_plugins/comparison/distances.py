"""How far apart the two distributions of images are, beside what two halves of one network's samples give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from gandissect.blocks import Finding, Reference, Section, Table, Trust
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.options import option
from gandissect.session import Session, Want
from gandissect.trust import adjusted
from gandissect_plugins.distribution import Comparison, ComparisonSpace, Measured, comparison_spaces
from gandissect_plugins.distribution.spaces import gathered
from gandissect_plugins.distribution.words import number, span

from .against_real import FEWEST, Features, against_real

TITLE = "Distance of the two distributions"
RATE = 0.05
MEANING = """
- *Fréchet distance*: the squared distance of Gaussians fitted to the features of both sets. It is called **FID** only with the
  Inception network and weights that the name belongs to (`--set distances.spaces=pixels,inception=FILE`). *Kernel distance*
  (KID there): the unbiased squared MMD with the kernel (xᵀy/D + 1)³, 0 on average for equal distributions; its p counts
  400 exchanges of the samples between the networks, adjusted over the spaces.
- *Precision*: share of the second network's samples that lie among those of the first; *recall*: share of the
  first network's samples that lie among those of the second: what of the first is still drawn. Density and coverage
  likewise, less sensitive to outliers.
- *Within the first*: random halves of the first network's samples against each other, at the size at which the two networks
  are compared: what no difference looks like. Only what is clear of it is a finding.
- *pixels* are averages on a grid of 8×8: colours and layout, no content.
"""


@dataclass(frozen=True)
class DistanceOptions:
    """Options of the distances."""

    spaces: tuple[str, ...] = option(
        ("pixels",), "feature spaces: pixels, demo-segmenter, mobilenet_v2=FILE, inception=FILE (FID), dinov2=FOLDER, clip=FOLDER"
    )  # fmt: skip
    halves: int = option(20, "random halves of the first network's samples that show what no difference looks like")
    resamples: int = option(200, "bootstrap resamples of each interval")


class ImageSpaces:
    """Feature spaces that depend on the images alone, opened once for all checkpoints; a discriminator's is another one in each file."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = [name for name in names if name != "discriminator"]
        self._opened: tuple[ComparisonSpace, ...] | None = None

    def of(self, session: Session) -> tuple[ComparisonSpace, ...]:
        """The spaces, as :func:`comparison_spaces` finds them.

        Raises:
            UsageError: an unknown space, or one whose weights are not there.
        """
        if self._opened is None:
            self._opened = comparison_spaces(session, self._names)
        return self._opened

    def wants(self, session: Session) -> Iterator[Want]:
        """What :meth:`look` needs of the pass."""
        for space in self.of(session):
            yield space.want(session.n, real=False)
            if session.real is not None:
                yield space.want(len(session.real), real=True)

    def look(self, session: Session) -> list[Features]:
        """Features of the session's samples, and of its real images where it has any, one for each space."""
        real = len(session.real) if session.real is not None else 0
        return [
            Features(
                space,
                gathered(session, space, session.n, real=False),
                gathered(session, space, real, real=True) if real else None,
            )
            for space in self.of(session)
        ]


class Distances(Comparer[list[Features]]):
    """Fréchet and kernel distance, precision and recall: of the second network against the first, of both against real images."""

    name: ClassVar[str] = "distances"
    of: ClassVar[Kind] = "pair"
    order: ClassVar[int] = 250
    Options: ClassVar[type] = DistanceOptions
    options: DistanceOptions
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Heusel, M. et al.", 2017, "GANs trained by a two time-scale update rule", "NeurIPS"),
        Reference("Bińkowski, M. et al.", 2018, "Demystifying MMD GANs", "ICLR"),
        Reference("Kynkäänniemi, T. et al.", 2019, "Improved precision and recall metric", "NeurIPS"),
        Reference("Naeem, M. F. et al.", 2020, "Reliable fidelity and diversity metrics", "ICML"),
    )

    def __init__(self, options: object | None = None) -> None:
        super().__init__(options)
        self._spaces = ImageSpaces(self.options.spaces)

    def wants(self, session: Session) -> Iterable[Want]:
        return self._spaces.wants(session)

    def look(self, session: Session) -> list[Features]:
        return self._spaces.look(session)

    def tell(self, seen: Sequence[list[Features]], lineup: Lineup) -> Iterator[Section]:
        if lineup.n < FEWEST:
            yield Section(TITLE, summary=f"needs at least {FEWEST} samples (pass -n N)", status="skipped")
            return
        comparisons = [
            Comparison(
                first.space,
                first.generated,
                second.generated,
                lineup.rng(f"distances {first.space.name}"),
                draws=self.options.halves,
                resamples=self.options.resamples,
            )
            for first, second in zip(*seen, strict=True)
        ]
        yield _section(comparisons, lineup)
        yield against_real(seen, lineup, name=self.name, draws=self.options.halves, resamples=self.options.resamples)


def _section(comparisons: Sequence[Comparison], lineup: Lineup) -> Section:
    a, b = lineup.names
    found = [one for comparison in comparisons for one in (*comparison.distances(), *comparison.neighbourhoods())]
    corrected = iter(adjusted([one.p for one in found if one.p is not None]).tolist())
    found = [one if one.p is None else replace(one, p=next(corrected)) for one in found]
    clear = [one for one in found if one.apart]
    tested = [one for one in clear if one.p is not None and one.p <= RATE]
    if not tested:
        text = f"At n = {comparisons[0].size} no kernel distance of {a} and {b} is clear of that of two halves of {a}."
    else:
        text = _words(tested[0], a, b)
    worse = next((one for one in clear if one.metric.startswith("recall")), None)
    if worse is not None:
        text += f" {worse.metric.capitalize()}: {worse.same.mean:.2f}, {worse.floor.mean:.2f} within {a}."
    findings = []
    if tested:
        one = tested[0]
        trust = Trust(
            f"p = {one.p:.2g} · n = {lineup.n}",
            f"exchanged samples, adjusted; and random halves of {one.size} samples do not overlap",
        )
        findings = [Finding(f"**{a} and {b} draw different distributions.** {text}", trust, 0.5)]
    values = Table(
        ("metric [space]", f"{b} against {a}", "low", "high", "∞ samples", "adjusted p"),
        [(one.metric, one.value, one.low, one.high, one.infinite, one.p) for one in found],
        caption=f"{lineup.n} samples of each; low to high is the 95 % interval.",
    )
    floor = Table(
        ("metric [space]", f"{b} against {a}", "low", "high", f"within {a}", "low ", "high ", "apart"),
        [
            (
                one.metric,
                one.same.mean,
                one.same.low,
                one.same.high,
                one.floor.mean,
                one.floor.low,
                one.floor.high,
                one.apart,
            )
            for one in found
        ],
        caption=f"What no difference looks like: mean and middle 95 % over random halves of {comparisons[0].size} samples.",
    )
    return Section(
        TITLE, values, floor, summary=findings[0].text if findings else text, findings=findings, meaning=MEANING
    )


def _words(one: Measured, a: str, b: str) -> str:
    return (
        f"{one.metric.capitalize() if one.metric[0].islower() else one.metric}: {number(one.value)} (CI "
        f"{span(one.low, one.high)}) between {a} and {b}; at most {one.floor.high:.2g} between halves of {a}."
    )
