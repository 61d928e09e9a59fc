"""Which concepts have units of their own in one network and in the other: the dissection of both, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gandissect.analyzer import Needs
from gandissect.blocks import Bar, Reference, Section, Series, Table
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.concepts import LOW_LEVEL
from gandissect.options import option
from gandissect.session import Session, Want
from gandissect_plugins.dissection import dissect, dissection_wants

TITLE = "Units that follow concepts"
SHOWN = 16
MEANING = """
Both networks are dissected on the same number of samples (Bau et al. 2019): a unit follows a concept where its active region
overlaps the concept's masks beyond what shuffled samples give, at one false-discovery rate over all units, concepts and layers.
*By chance* is how many units the same floors label when the samples are shuffled. A concept that leaves the list has lost
its units; whether it is still drawn says *Concepts gained and lost*. A difference of a few units is not tested and says
little: another run of the same training changes it too.
"""


@dataclass(frozen=True)
class Labelled:
    """Units found for each concept, ``chance`` on average under shuffled samples; ``units`` in all; ``lacking`` why there are none."""

    found: dict[str, int]
    chance: dict[str, float]
    units: int = 0
    lacking: str = ""


@dataclass(frozen=True)
class LabelOptions:
    """Options of the dissection of both networks."""

    samples: int = option(250, "samples of each network that are dissected")
    draws: int = option(199, "least number of shuffles of the samples")


class UnitLabels(Comparer[Labelled]):
    """How many units follow each concept in both networks."""

    name: ClassVar[str] = "unit-labels"
    of: ClassVar[Kind] = "pair"
    order: ClassVar[int] = 320
    Options: ClassVar[type] = LabelOptions
    options: LabelOptions
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Bau, D. et al.", 2019, "GAN Dissection: Visualizing and understanding GANs", "ICLR"),
    )

    def wants(self, session: Session) -> Iterable[Want]:
        return [] if _lacking(session) else dissection_wants(session.gan, min(session.n, self.options.samples))

    def look(self, session: Session) -> Labelled:
        lacking = _lacking(session)
        if lacking:
            return Labelled({}, {}, lacking=lacking)
        result = dissect(session, n=min(session.n, self.options.samples), draws=self.options.draws)
        chance: Counter[str] = Counter()
        for table in result.layers:
            for place, concept in enumerate(result.concepts):
                chance[concept.name] += float(table.chance[place])  # type: ignore[assignment]  # counts of halves too
        return Labelled(dict(Counter(row.concept for row in result.found())), dict(chance), result.units)

    def tell(self, seen: Sequence[Labelled], lineup: Lineup) -> Iterator[Section]:
        lacking = next(
            (f"{name} {one.lacking}" for name, one in zip(lineup.names, seen, strict=True) if one.lacking), ""
        )
        if lacking:
            yield Section(TITLE, summary=lacking, status="skipped")
            return
        yield _section(seen, lineup)


def _lacking(session: Session) -> str:
    return Needs(layers=True, concepts=True).missing(session)


def _section(seen: Sequence[Labelled], lineup: Lineup) -> Section:
    (a, b), (first, second) = lineup.names, seen
    looks = {concept.name: concept.category in LOW_LEVEL for concept in lineup.concepts}
    names = sorted(
        {*first.found, *second.found},
        key=lambda name: (looks.get(name, False), -max(first.found.get(name, 0), second.found.get(name, 0)), name),
    )
    gone = [name for name in names if name not in second.found]
    new = [name for name in names if name not in first.found]
    counts = [
        f"{sum(one.found.values())} of {one.units} units of {name}"
        for name, one in zip(lineup.names, seen, strict=True)
    ]
    text = f"{counts[0]} and {counts[1]} follow a concept"
    text += f"; no unit of {b} follows {', '.join(gone[:6])}" if gone else ""
    text += f"; no unit of {a} follows {', '.join(new[:6])}" if new else ""
    if not names:
        return Section(TITLE, summary=f"{text}.", meaning=MEANING)
    bars = Bar(
        tuple(
            Series(name, names[:SHOWN], [one.found.get(concept, 0) for concept in names[:SHOWN]])
            for name, one in zip(lineup.names, seen, strict=True)
        ),
        "concept",
        "units",
        f"units that follow each concept in {a} and in {b}",
        horizontal=True,
    )
    rows = [
        (name, *(value for one in seen for value in (one.found.get(name, 0), one.chance.get(name, 0.0))))
        for name in names
    ]
    table = Table(("concept", f"units of {a}", "by chance", f"units of {b}", "by chance "), rows)
    return Section(TITLE, bars, table, summary=f"{text}.", meaning=MEANING)
