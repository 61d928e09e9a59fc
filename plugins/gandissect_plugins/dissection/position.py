"""What position alone explains: the literature's IoU > 0.04 beside the same IoU with the masks of other samples.

tally = literature(result)["layer4"]                # Passing(units=512, passing=75, found=48, …)
yield position_section(result)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Block, Cell, Finding, Guide, Scatter, Section, Table, Trust

from .dissect import Dissection, LayerTable
from .significance.floors import FLOOR

LITERATURE = 0.04  # Bau et al. 2020: a unit with a larger IoU is called interpretable
MANY = 0.2  # part of the passing units that is a headline when it does not survive
LEAST = 5  # passing units below which there is no headline
POINTS = 400
FOUND, TOO_LITTLE, BY_POSITION, PLACE, BELOW = (
    "found", "too little above chance", "position suffices", "place only", "IoU 0.04 or less",
)  # fmt: skip
MEANING = f"""The literature calls a unit interpretable when its IoU with some concept exceeds {LITERATURE:g} (Bau et al. 2020).
Where images are aligned, as faces are, a concept lies in the same place in every image, and so does what a unit draws:
any unit of that place overlaps with the concept without following it. The test is to lay the masks of *other* samples
over the same units. How often the concept occurs and where stay as they are; what the unit does in each sample is lost.

A unit that passes the literature's rule is *{FOUND}* when it also passes that test (false-discovery rate and floor). Of the
others, "*{BY_POSITION}*" means that the mean IoU with the masks of other samples exceeds {LITERATURE:g} as well; "*{TOO_LITTLE}*"
means that it does not, but that the true IoU is not far enough above it. Places (top left, centre, …) are the same in every
sample, so that their IoU *is* their null: a unit that passes with a place and with nothing else ("*{PLACE}*")
simply is active there.

In the figure a unit on the diagonal has the IoU that chance gives it. Units that are found lie clearly above it."""


@dataclass(frozen=True)
class Passing:
    """How many units of a layer pass which rule.

    Attributes:
        layer: its name; "all layers" for a sum.
        units: all of them.
        passing: IoU > 0.04 with a tested concept; the sum of the next three.
        found, by_position, too_little: of these, findings; those whose IoU with the masks of other samples exceeds 0.04 on
            average; the rest.
        place: no such IoU but with a mere place.
        found_below: findings whose IoU is 0.04 or less (by correlation).
    """

    layer: str
    units: int
    passing: int
    found: int
    by_position: int
    too_little: int
    place: int
    found_below: int


@dataclass(frozen=True)
class _Best:
    """For each unit of a layer its best concept by IoU, a place only where no concept reaches 0.04 and a place does.

    ``concept`` int64 [U], ``iou`` and ``null`` float64 [U], ``kind`` the name of its group.
    """

    layer: str
    concept: NDArray[np.int64]
    iou: NDArray[np.float64]
    null: NDArray[np.float64]
    kind: list[str]
    found: NDArray[np.bool_]


def _best(result: Dissection, table: LayerTable) -> _Best:
    spatial = np.array([concept.spatial for concept in result.concepts])
    iou, null, found = table.iou.numpy(), table.null_iou.numpy(), table.found.numpy()
    everyone = np.arange(len(iou))
    tested = np.where(result.tested.numpy(), iou, -1.0)
    concept, passing = tested.argmax(1), tested.max(1) > LITERATURE
    places = np.where(spatial, iou, -1.0)
    only_place = ~passing & (places.max(1) > LITERATURE) & ~found
    concept = np.where(only_place, places.argmax(1), concept)
    chosen, chance = iou[everyone, concept], null[everyone, concept]
    kind = np.select(
        [found, only_place, ~passing, chance > LITERATURE], [FOUND, PLACE, BELOW, BY_POSITION], TOO_LITTLE
    )  # fmt: skip
    return _Best(table.layer.name, concept, chosen, chance, [str(name) for name in kind], found)


def literature(result: Dissection) -> dict[str, Passing]:
    """Layer -> how many of its units pass the literature's rule, and how many of those the test against chance."""
    return {table.layer.name: _passing(_best(result, table)) for table in result.layers}


def _passing(best: _Best) -> Passing:
    kinds, passes = np.array(best.kind), best.iou > LITERATURE
    found = best.found & passes
    by_position, too_little, place = (int((kinds == kind).sum()) for kind in (BY_POSITION, TOO_LITTLE, PLACE))
    passing = int(found.sum()) + by_position + too_little
    below = int((best.found & ~passes).sum())
    return Passing(best.layer, len(kinds), passing, int(found.sum()), by_position, too_little, place, below)


def total(rows: Iterable[Passing]) -> Passing:
    """The sum over layers."""
    parts = list(rows)
    names = ("units", "passing", "found", "by_position", "too_little", "place", "found_below")
    return Passing("all layers", *(sum(getattr(part, name) for part in parts) for name in names))


def position_section(result: Dissection) -> Section | None:
    """The literature's rule beside the test against chance, or None where nothing could be tested."""
    if not result.layers or not bool(result.tested.any()):
        return None
    rows = literature(result)
    whole = total(rows.values())
    blocks: list[Block] = [_scatter(result, whole), _table([*rows.values(), whole])]
    findings = [_finding(result, whole)] if _headline(whole) else []
    return Section("What position alone explains", *blocks, summary=_told(whole), findings=findings, meaning=MEANING)


def _headline(whole: Passing) -> bool:
    """Whether it belongs on the first screen; of a network in which nothing is found that is said already."""
    lost = whole.passing - whole.found
    return whole.passing >= LEAST and lost >= MANY * whole.passing and whole.found + whole.found_below > 0


def _told(whole: Passing) -> str:
    """The main sentence."""
    passes = "pass" if whole.by_position > 1 else "passes"
    if not whole.passing:
        text = f"No unit of {whole.units} has an IoU above {LITERATURE:g} with a concept"
    else:
        text = (
            f"{whole.passing - whole.found} of {whole.passing} units that pass the literature's IoU > {LITERATURE:g} do not "
            f"survive masks of other samples; {whole.by_position or 'none'} of them {passes} with those masks as well, by position alone"
        )
    places = f"; {whole.place} more match a place and nothing else" if whole.place else ""
    return f"{text}{places}."


def _finding(result: Dissection, whole: Passing) -> Finding:
    tested = f"IoU against that with the masks of other samples, {result.draws} shuffles or more; {whole.units} units"
    lost = (whole.passing - whole.found) / whole.passing
    return Finding(
        _told(whole), Trust(f"null {LITERATURE:g} · FDR {100 * result.fdr:.0f} %", tested), 0.5 + 0.25 * lost
    )


def _table(rows: list[Passing]) -> Table:
    columns = (
        "layer", "units", f"IoU > {LITERATURE:g}", "found", BY_POSITION, TOO_LITTLE, PLACE, f"found ≤ {LITERATURE:g}",
    )  # fmt: skip
    cells: list[list[Cell]] = [
        [row.layer, row.units, row.passing, row.found, row.by_position, row.too_little, row.place, row.found_below]
        for row in rows
    ]
    caption = f"The literature's rule and the test against chance; a finding needs {FLOOR:g} or more above chance."
    return Table(columns, cells, caption=caption)


def _scatter(result: Dissection, whole: Passing) -> Scatter:
    best = [_best(result, table) for table in result.layers]
    names = [concept.name for concept in result.concepts]
    points = np.concatenate([np.stack([one.null, one.iou], 1) for one in best])
    kinds = [kind for one in best for kind in one.kind]
    keys = [(one.layer, unit) for one in best for unit in range(len(one.kind))]
    concepts = [names[k] for one in best for k in one.concept]
    order = np.argsort(-points[:, 1], kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(POINTS, len(order))).round().astype(int)]
    reach, top = max(float(points[:, 0].max()), LITERATURE / 2), float(points[:, 1].max())
    guides = [
        Guide((0.0, 0.0), (reach, reach), "IoU = chance"),
        Guide((0.0, LITERATURE), (reach, LITERATURE), "IoU 0.04"),
    ]
    if reach > LITERATURE:
        guides.append(Guide((LITERATURE, 0.0), (LITERATURE, top), "chance 0.04"))
    alt = f"IoU of each unit's best concept against its mean with the masks of other samples. {_told(whole)}"
    caption = "Each point is a unit with its best concept. On the diagonal the IoU is what position and frequency give."
    if len(order) < len(points):
        caption += f" {len(order)} of {len(points)} units are shown, evenly over the order of their IoU."
    return Scatter(
        points[order],
        ("mean IoU with the masks of other samples", "IoU"),
        alt,
        groups=tuple(kinds[i] for i in order),
        labels=tuple(f"{keys[i][0]} · {keys[i][1]}, {concepts[i]}, IoU {points[i, 1]:.3f}, chance {points[i, 0]:.3f}" for i in order),
        links=tuple("" if kinds[i] == BELOW else f"{keys[i][0]}/{keys[i][1]}" for i in order),
        muted=BELOW if BELOW in (kinds[i] for i in order) else "",
        guides=tuple(guides),
        caption=caption,
    )  # fmt: skip
