"""Blocks of words and numbers.

Table(("R", "G", "B"), [(0.1, 0.2, -0.3)])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gandissect.blocks.base import Block, Cell, Json


@dataclass(frozen=True)
class Text(Block):
    """A paragraph or more of Markdown: paragraphs, ``*emphasis*``, ``**strong**``, `` `code` ``, lists; no HTML."""

    kind: ClassVar[str] = "text"
    markdown: str


@dataclass(frozen=True)
class Fold(Block):
    """Blocks behind a summary line, closed at first ("What does this mean?")."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Tabs(Block):
    """Blocks of which the reader sees one at a time, by name; all of them where scripts are off and on paper."""

    kind: ClassVar[str] = "tabs"
    names: tuple[str, ...]
    blocks: tuple[Block, ...]


def in_tabs(named: Mapping[str, Block]) -> list[Block]:
    """Blocks by name, of which the reader sees one at a time; one alone needs no tab."""
    return [Tabs(tuple(named), tuple(named.values()))] if len(named) > 1 else list(named.values())


def all_blocks(blocks: Iterable[Block]) -> list[Block]:
    """Blocks in reading order, those inside folds and tabs included."""
    out: list[Block] = []
    for block in blocks:
        out.append(block)
        if isinstance(block, Fold | Tabs):
            out.extend(all_blocks(block.blocks))
    return out


@dataclass(frozen=True)
class Table(Block):
    """Rows of cells; numbers are right-aligned, in HTML with three significant digits (p and q with two), whole in JSON."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = True


@dataclass(frozen=True)
class Code(Block):
    """Source or a command, monospaced."""

    kind: ClassVar[str] = "code"
    source: str
    language: str = ""


@dataclass(frozen=True)
class Data(Block):
    """Anything JSON for programs; in HTML only its name is shown."""

    kind: ClassVar[str] = "data"
    name: str
    value: Json


@dataclass(frozen=True)
class Html(Block):
    """Raw HTML: shown in a sandboxed frame, labelled as made by a plugin; ``alt`` stands for it everywhere else."""

    kind: ClassVar[str] = "html"
    source: str
    alt: str
