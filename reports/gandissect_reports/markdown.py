"""The report as Markdown: words and tables, with each figure's description in its place.

MarkdownRenderer().render(report, {})           # text for an issue, a model card, a chat
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from itertools import zip_longest
from typing import ClassVar

import numpy as np

from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Code,
    Data,
    Fold,
    Gallery,
    Heatmap,
    Line,
    Multiples,
    Section,
    Strip,
    Table,
    Tabs,
    Text,
    jsonable,
)
from gandissect.report import Report
from gandissect_reports.plots import series_points
from gandissect_reports.prose import in_column, printable

ROWS = 30  # of a table; the JSON has all
FENCE = "````"


class MarkdownRenderer:
    """Writes findings, sections with their tables and captions, and provenance; pictures are described, not shown."""

    name: ClassVar[str] = "markdown"
    suffix: ClassVar[str] = ".md"

    def render(self, report: Report, options: Mapping[str, object]) -> str:
        """The whole file as text; ``options`` has nothing that concerns Markdown."""
        return printable("\n\n".join(part for part in _parts(report) if part)) + "\n"


def _parts(report: Report) -> Iterator[str]:
    """The paragraphs of the whole report."""
    yield f"# {plain(report.title)}"
    yield safe(report.summary)
    if report.interrupted:
        yield "**Interrupted.** The run was stopped before its end."
    yield "## Findings"
    yield "\n".join(
        f"- {safe(finding.text)} *({plain(finding.trust.label)}: {plain(finding.trust.tested)})*{_more(section, more)}"
        for finding, section, more in report.headlines()
    )
    undone = [section for section in report.sections if section.status != "done"]
    if undone:
        yield "## Not done, or only partly"
        yield "\n".join(f"- {section.status}: {plain(section.title)}. {safe(section.summary)}" for section in undone)
    for section in report.sections:
        yield from _section(section)
    yield "## Provenance"
    yield code(report.provenance.command)
    facts = jsonable(report.provenance)
    assert isinstance(facts, Mapping)
    rows: list[list[Cell]] = [
        [name.replace("_", " "), _words(value)] for name, value in facts.items() if name != "command"
    ]
    yield table(("what", "value"), rows)


def _more(section: Section, more: int) -> str:
    """Where the other findings of a kind are."""
    return f" And {more} more in *{plain(section.title)}*." if more else ""


def _section(section: Section) -> Iterator[str]:
    """The paragraphs of one section."""
    yield f"## {plain(section.title)}"
    if section.status != "done":
        yield f"*{section.status}*"
    yield safe(section.summary)
    yield "\n".join(
        f"- {safe(finding.text)} *({plain(finding.trust.label)})*"
        for finding in section.findings
        if finding.text not in section.summary
    )
    for block in section.blocks:
        yield words(block)
    if section.meaning:
        yield f"**What does this mean?** {safe(section.meaning)}"
    if section.references:
        yield "\n".join(f"- {plain(str(reference))}" for reference in section.references)
    if section.details:
        yield code(section.details)


@singledispatch
def words(block: object) -> str:
    """A block as Markdown; a figure is its description and caption."""
    described = getattr(block, "alt", "") or f"a block of the kind {getattr(block, 'kind', type(block).__name__)}"
    caption = safe(getattr(block, "caption", ""))
    return f"*[{plain(described)}]*{' ' + caption if caption else ''}"


@words.register
def _(block: Text) -> str:
    return safe(block.markdown)


@words.register
def _(block: Fold) -> str:
    return "\n\n".join([f"**{plain(block.title)}**", *(words(inner) for inner in block.blocks)])


@words.register
def _(block: Tabs) -> str:
    return "\n\n".join(
        f"**{plain(name)}**\n\n{words(inner)}" for name, inner in zip(block.names, block.blocks, strict=True)
    )


@words.register
def _(block: Code) -> str:
    return code(block.source, block.language)


@words.register
def _(block: Data) -> str:
    return f"*[data `{plain(block.name)}`, in the JSON]*"


@words.register
def _(block: Table) -> str:
    return _captioned(table(block.columns, block.rows), block.caption)


@words.register
def _(block: Gallery) -> str:
    names = list(dict.fromkeys(bar.label for card in block.cards for bar in card.bars))
    rows = [
        [card.title, card.label, *({bar.label: bar.value for bar in card.bars}.get(name) for name in names)]
        for card in block.cards
    ]
    return _captioned(table(("card", "label", *names), rows), block.caption or block.alt)


@words.register(Line)
@words.register(Bar)
def _(block: Line | Bar) -> str:
    rows: list[list[Cell]] = [[one.label, x, y] for one in block.series for x, y in series_points(one)]
    return _captioned(table(("series", block.x_label or "x", block.y_label or "y"), rows), block.caption or block.alt)


@words.register
def _(block: Multiples) -> str:
    rows: list[list[Cell]] = [
        [panel, name, float(value), float(chance)]
        for panel, values, expected in zip(block.panels, block.values, block.expected, strict=True)
        for name, value, chance in zip(block.names, values, expected, strict=True)
        if value
    ]
    return _captioned(table(("", "", block.value_label, block.expected_label), rows), block.caption or block.alt)


@words.register
def _(block: Heatmap) -> str:
    values = np.asarray(block.values, dtype=float)
    if values.size > 200:
        return words.dispatch(Block)(block)
    rows: list[list[Cell]] = [
        [name, *(float(value) for value in row)] for name, row in zip(block.rows, values, strict=True)
    ]
    return _captioned(table(("", *block.columns), rows), block.caption or block.alt)


@words.register
def _(block: Strip) -> str:
    facts = "; ".join(f"{plain(name)}: {plain(value)}" for name, value in block.facts)
    trust = f" *({plain(block.trust.label)}: {plain(block.trust.tested)})*" if block.trust else ""
    return " ".join(
        part
        for part in (f"**{plain(block.title)}**{trust}", f"*[{plain(block.alt)}]*", facts, safe(block.caption))
        if part
    )


def safe(text: str) -> str:
    """Markdown of a report without HTML: nothing in it can become an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def plain(text: str) -> str:
    """``text`` on one line, its characters of Markdown taken literally."""
    escaped = safe(" ".join(text.split()))
    return "".join("\\" + letter if letter in "\\`*_[]|#" else letter for letter in escaped)


def code(source: str, language: str = "") -> str:
    """A fenced block that its own content cannot close."""
    return f"{FENCE}{language if language.isalnum() else ''}\n{source.replace(FENCE, '')}\n{FENCE}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table of the first rows, and how many there are where that is not all."""
    lines = [_line([plain(name) or " " for name in columns]), _line(["---"] * len(columns))]
    lines += [
        _line([plain(in_column(cell, name)) for cell, name in zip_longest(row, columns[: len(row)], fillvalue="")])
        for row in rows[:ROWS]
    ]
    more = f"\n\n*The first {ROWS} of {len(rows)} rows; the JSON has all.*" if len(rows) > ROWS else ""
    return "\n".join(lines) + more


def _line(cells: Sequence[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"


def _captioned(text: str, caption: str) -> str:
    """``text`` under its caption."""
    return f"{safe(caption)}\n\n{text}" if caption else text


def _words(value: object) -> str:
    """A field of the provenance on one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_words(item) for item in value)
    return str(value)
