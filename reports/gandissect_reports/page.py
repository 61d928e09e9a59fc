"""The state of one rendering, and the one function through which every block becomes HTML.

@view.register
def _(block: Code, page: Page, path: str) -> Markup:
    return page.fill("code", block=block)

page.show(block, "sections/0/blocks/2")     # Markup; the path finds the same block in the embedded JSON
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, singledispatch
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gandissect.blocks import Bar1, Block, Card, Cell, Gallery, Section, all_blocks, jsonable
from gandissect_reports.prose import anchor, in_column, inline, markdown, number, slug
from gandissect_reports.sheets import Fidelity

ROWS_SHOWN, CELLS_SHOWN = 100, 600  # at most, of the numbers behind a figure; the CSV has all
OWN_ANCHORS = ("top", "main", "findings", "not-done", "provenance", "report-data")
STATUS = {"done": "●", "partly": "◐", "skipped": "○", "failed": "✕"}
LEVEL = {"checked": "✓", "weak": "~", "unchecked": "?"}


@dataclass(frozen=True)
class Shown:
    """A cell as the reader sees it, and what it is sorted by."""

    text: str
    numeric: bool
    order: str


@dataclass(frozen=True)
class Numbers:
    """The numbers behind a figure: the first rows, how many there are, and all of them as a link to CSV."""

    columns: tuple[str, ...]
    rows: list[list[Shown]]
    total: int
    csv: str


@dataclass
class Page:
    """One page in the making.

    Attributes:
        fidelity: how much of the pictures is kept.
        anchors: for each (section, card key) the anchor of the card; section "" holds the first of each key.
        section: anchor of the section being written.
    """

    fidelity: Fidelity = field(default_factory=lambda: Fidelity(crisp=True))
    anchors: Mapping[tuple[str, str], str] = field(default_factory=dict)
    section: str = ""
    _named: int = 0
    _claimed: set[str] = field(default_factory=set)

    def name(self, prefix: str = "f") -> str:
        """An identifier that no other element of the page has."""
        self._named += 1
        return f"{prefix}{self._named}"

    def show(self, block: Block, path: str) -> Markup:
        """``block`` as HTML."""
        return view(block, self, path)

    def fill(self, template: str, **values: object) -> Markup:
        """A template of ``templates/blocks`` with ``values``."""
        return Markup(environment().get_template(f"blocks/{template}.html").render(page=self, **values))

    def claim(self, name: str) -> str:
        """``name`` if no element has it yet, else with the first number that makes it new."""
        free = next(
            new
            for n in range(1, len(self._claimed) + 2)
            if (new := name if n == 1 else f"{name}-{n}") not in self._claimed
        )
        self._claimed.add(free)
        return free

    def card_anchor(self, key: str) -> str:
        """The anchor of the card ``key``: in this section if it is here, else wherever it is, else nothing."""
        return self.anchors.get((self.section, key)) or self.anchors.get(("", key), "")


@singledispatch
def view(block: object, page: Page, path: str) -> Markup:
    """The HTML of a block; a kind that nobody taught the page is shown as a table of its JSON."""
    content = block.to_json() if isinstance(block, Block) else {"value": str(block)}
    rows = [
        (key, item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)) for key, item in content.items()
    ]
    kind = getattr(block, "kind", type(block).__name__)
    return page.fill("unknown", kind=kind, columns=("field", "value"), rows=to_cells(rows))


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates: everything is escaped, an unknown name is an error."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.filters.update(
        inline=inline, markdown=markdown, number=number, fragment=fragment, short=short, fitting=fitting
    )
    templates.filters.update(dict_json=dict_json, bar_share=bar_share)
    templates.globals.update(STATUS=STATUS, LEVEL=LEVEL)
    return templates


def fragment(text: str) -> str:
    """An anchor as the part of an address after ``#``."""
    return quote(text, safe="/.-_~")


def short(text: str, most: int) -> str:
    """``text`` of at most ``most`` letters, the middle left out where it is longer (both ends of a name tell)."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) - (most - most // 2 - 1) :]}"


def fitting(texts: Sequence[str], most: int) -> str:
    """As many of ``texts`` as ``most`` letters hold, at least one, shortened where it is longer; dots stand for the rest."""
    fit: list[str] = []
    for text in texts:
        if fit and len(", ".join([*fit, text])) > most:
            break
        fit.append(text)
    return short(", ".join(fit), most) + ", …" * (len(fit) < len(texts))


def dict_json(values: object) -> str:
    """A value for a ``data-`` attribute; numbers that are none become null."""
    return json.dumps(jsonable(values), ensure_ascii=False, separators=(",", ":"))


def bar_share(bar: Bar1, value: float) -> str:
    """How much of a bar's length ``value`` takes, "0" to "1"."""
    share = value / bar.full if bar.full and math.isfinite(value) else 0.0
    return f"{min(1.0, max(0.0, share)):.4g}"


def to_cells(rows: Iterable[Sequence[Cell]], columns: Sequence[str] = ()) -> list[list[Shown]]:
    """Rows of cells ready for a table; the names of its columns say which numbers are p-values."""
    return [
        [_to_cell(cell, column) for cell, column in zip_longest(row, columns[: len(row)], fillvalue="")] for row in rows
    ]


def _to_cell(cell: Cell, column: str) -> Shown:
    """One cell: numbers rounded for the eye, whole for sorting."""
    numeric = isinstance(cell, int | float) and not isinstance(cell, bool)
    return Shown(
        in_column(cell, column), numeric, repr(float(cell)) if numeric and isinstance(cell, int | float) else ""
    )


def to_numbers(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Numbers:
    """The numbers behind a figure, as a short table and as CSV."""
    shown = max(10, min(ROWS_SHOWN, CELLS_SHOWN // max(1, len(columns))))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([harmless(name) for name in columns])
    writer.writerows([harmless(cell) for cell in row] for row in rows)
    coded = base64.b64encode(file.getvalue().encode("utf-8", "replace")).decode("ascii")
    return Numbers(
        tuple(columns), to_cells(rows[:shown], columns), len(rows), f"data:text/csv;charset=utf-8;base64,{coded}"
    )


def harmless(cell: Cell) -> Cell:
    """A cell that no spreadsheet takes for a formula; floats with seven digits."""
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{cell}"
    return float(f"{cell:.7g}") if isinstance(cell, float) else cell


def section_names(sections: Sequence[Section]) -> list[str]:
    """An anchor for each section: the analyzer's name, or the title's, numbered where it repeats or the page has it itself."""
    names = list(OWN_ANCHORS)
    for section in sections:
        wanted = slug(section.analyzer or section.title)
        names.append(
            next(
                name
                for n in range(1, len(sections) + len(OWN_ANCHORS) + 2)
                if (name := wanted if n == 1 else f"{wanted}-{n}") not in names
            )
        )
    return names[len(OWN_ANCHORS) :]


def card_anchors(sections: Sequence[Section], names: Sequence[str]) -> dict[tuple[str, str], str]:
    """For each (section, key) the anchor of that card: ``dissection/layer4/unit-123``."""
    anchors: dict[tuple[str, str], str] = {}
    for section, name in zip(sections, names, strict=True):
        for card in _cards(section):
            anchors.setdefault((name, card.key), f"{name}/{anchor(card.key)}")
            anchors.setdefault(("", card.key), anchors[name, card.key])
    return anchors


def _cards(section: Section) -> list[Card]:
    """All cards of a section."""
    return [card for block in all_blocks(section.blocks) if isinstance(block, Gallery) for card in block.cards]
