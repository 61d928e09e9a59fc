"""What a section is made of: typed blocks that every renderer understands, so that no analyzer writes HTML.

    Section(
        "Mean colour",
        Text("The average over all samples."),
        Table(("R", "G", "B"), [(0.1, 0.2, -0.3)]),
        summary="The samples are bluish.",
    )

Images are uint8 [H, W, 3] (grids [N, H, W, 3]); :func:`to_uint8` makes them from float32 [N, C, H, W] in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Cell = str | int | float | bool | None
Status = Literal["done", "partly", "skipped", "failed"]


@dataclass(frozen=True)
class Trust:
    """How far to trust a statement: a few words for the chip, and what was tested against what.

    ``level`` is "checked" (a test was passed), "weak" (a test was not passed) or "unchecked" (none was made).
    """

    label: str
    tested: str
    level: Literal["checked", "weak", "unchecked"] = "checked"


UNCHECKED = Trust("unchecked", "nothing was measured that could refute this", "unchecked")


@dataclass(frozen=True)
class Finding:
    """One sentence with its number, how far to trust it, and how much it matters (0 to 1, for the first screen)."""

    text: str
    trust: Trust
    weight: float = 0.5


@dataclass(frozen=True)
class Reference:
    """Where a method comes from."""

    authors: str
    year: int
    title: str
    venue: str = ""

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}.{' ' + self.venue + '.' if self.venue else ''}"


@dataclass(frozen=True)
class Block:
    """Base of all blocks; ``kind`` is the name in JSON."""

    kind: ClassVar[str] = "block"

    def to_json(self) -> dict[str, Json]:
        """The block without its pixels: images are replaced by their shape."""
        out: dict[str, Json] = {"kind": self.kind}
        for item in fields(self):
            out[item.name] = jsonable(getattr(self, item.name))
        return out


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
class Image(Block):
    """One picture: uint8 [H, W, 3]."""

    kind: ClassVar[str] = "image"
    pixels: Pixels
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class ImageGrid(Block):
    """Pictures of one size in rows: uint8 [N, H, W, 3]; ``row_labels`` names each row of ``columns`` pictures."""

    kind: ClassVar[str] = "image-grid"
    images: Pixels
    alt: str
    columns: int = 8
    labels: tuple[str, ...] = ()
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Overlay(Block):
    """Maps laid over pictures with an opacity the reader can set (Grad-CAM, attributions).

    Attributes:
        images: uint8 [N, H, W, 3].
        maps: float [N, h, w]; resized to the pictures.
        signed: diverging colours centred at 0 when True, sequential from 0 when False.
        shared_scale: one colour scale for all maps (True) or one for each (False; the legend says so).
        unit: what a value of the map is, for the legend.
    """

    kind: ClassVar[str] = "overlay"
    images: Pixels
    maps: Floats
    alt: str
    signed: bool = True
    shared_scale: bool = False
    labels: tuple[str, ...] = ()
    columns: int = 8
    unit: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Bar1:
    """One bar of a card: a value in ``0..full`` with an optional mark (the null's 95 % point)."""

    label: str
    value: float
    full: float = 1.0
    mark: float | None = None
    mark_label: str = ""


@dataclass(frozen=True)
class Card:
    """One entry of a gallery.

    Attributes:
        key: unique in the gallery, used in links ("layer4/123").
        title: what is shown in monospace ("layer4 · 123").
        images: uint8 [M, H, W, 3], a strip (top samples with the active region lit).
        label: the one word for it ("tree").
        bars: at most two.
        facts: shown when the card is opened.
        sort: values by which a gallery can be ordered.
        facets: values by which it can be filtered ("layer": "layer4", "concept": "tree").
        trust: chip.
        image_labels: one for each picture ("sample 17, activation 3.2").
    """

    key: str
    title: str
    images: Pixels
    label: str = ""
    bars: tuple[Bar1, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    sort: Mapping[str, float] = field(default_factory=dict)
    facets: Mapping[str, str] = field(default_factory=dict)
    trust: Trust | None = None
    image_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gallery(Block):
    """Cards with search, sort and facets."""

    kind: ClassVar[str] = "gallery"
    cards: tuple[Card, ...]
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Heatmap(Block):
    """A matrix with named rows and columns.

    Attributes:
        values: float [R, C]; NaN is drawn as "not measured".
        signed: diverging colours centred at 0.
        unit: what a value is, for the legend ("IoU").
        row_links: for each row the key of the gallery card it belongs to, or nothing.
    """

    kind: ClassVar[str] = "heatmap"
    values: Floats
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    alt: str
    signed: bool = False
    unit: str = ""
    row_links: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Series:
    """One line or set of bars: x and y of the same length, with an optional interval [low, high] for each y."""

    label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    role: Literal["", "real", "generated", "null", "baseline"] = ""


@dataclass(frozen=True)
class Line(Block):
    """Lines over a common x axis; intervals are drawn as bands."""

    kind: ClassVar[str] = "line"
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    alt: str
    caption: str = ""
    log_y: bool = False


@dataclass(frozen=True)
class Bar(Block):
    """Bars, grouped where there is more than one series; intervals are drawn as whiskers."""

    kind: ClassVar[str] = "bar"
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    alt: str
    caption: str = ""
    horizontal: bool = False


@dataclass(frozen=True)
class Histogram(Block):
    """Distributions of several sets of values on common bins."""

    kind: ClassVar[str] = "histogram"
    groups: Mapping[str, Sequence[float]]
    x_label: str
    alt: str
    bins: int = 40
    caption: str = ""


@dataclass(frozen=True)
class Scatter(Block):
    """Points in 2-D or 3-D, with a thumbnail for each on hover and focus.

    Attributes:
        points: float [N, 2] or [N, 3].
        axes: what each axis is ("PC 1, 23 % of variance").
        groups: for each point the name of its group, at most 11 different; "real" and "generated" have fixed colours.
        values: instead of groups, a number for each point, coloured sequentially; ``value_label`` names it.
        colourings: further ways to colour the same points: name -> one number for each point.
        thumbnails: uint8 [N, h, w, 3], or empty.
        labels: one for each point ("sample 17").
    """

    kind: ClassVar[str] = "scatter"
    points: Floats
    axes: tuple[str, ...]
    alt: str
    groups: tuple[str, ...] = ()
    values: Floats | None = None
    value_label: str = ""
    colourings: Mapping[str, Sequence[float]] = field(default_factory=dict)
    thumbnails: Pixels | None = None
    labels: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Table(Block):
    """Rows of cells; numbers are right-aligned and rounded to four significant digits in HTML, kept whole in JSON."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    sortable: bool = True


@dataclass(frozen=True)
class Strip(Block):
    """The same samples while one thing changes: frames uint8 [F, N, H, W, 3], one column of the strip for each value.

    ``origin`` is the frame of the unedited samples; ``facts`` are the numbers under the strip (effect, side effects).
    """

    kind: ClassVar[str] = "strip"
    frames: Pixels
    values: tuple[float, ...]
    title: str
    alt: str
    value_label: str = "α"
    origin: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    trust: Trust | None = None
    caption: str = ""


@dataclass(frozen=True)
class Compare(Block):
    """Before and after with a draggable seam: two uint8 [N, H, W, 3] of the same samples."""

    kind: ClassVar[str] = "compare"
    before: Pixels
    after: Pixels
    alt: str
    before_label: str = "before"
    after_label: str = "after"
    labels: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Node:
    """A layer in a graph: name, its type, "256×8×8", and notes such as the concepts found in it."""

    name: str
    kind: str
    size: str
    notes: tuple[str, ...] = ()
    emphasis: bool = False


@dataclass(frozen=True)
class Graph(Block):
    """How layers connect: nodes and (from, to) edges by name."""

    kind: ClassVar[str] = "graph"
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    alt: str
    caption: str = ""


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


@dataclass(frozen=True, init=False)
class Section:
    """A part of the report: a title, blocks, a one-sentence summary, findings, and how it ended."""

    title: str
    blocks: tuple[Block, ...]
    summary: str
    findings: tuple[Finding, ...]
    status: Status
    references: tuple[Reference, ...]
    meaning: str
    analyzer: str
    details: str
    seconds: float

    def __init__(
        self,
        title: str,
        *blocks: Block,
        summary: str = "",
        findings: Iterable[Finding] = (),
        status: Status = "done",
        references: Iterable[Reference] = (),
        meaning: str = "",
        analyzer: str = "",
        details: str = "",
        seconds: float = 0.0,
    ) -> None:
        """A section.

        Args:
            title: short, without the analyzer's name.
            blocks: in reading order.
            summary: one sentence with the main number; for a skipped or failed section why, and what to type.
            findings: statements for the first screen.
            status: "partly" where something asked for could not be done.
            references: sources of the method.
            meaning: Markdown for "What does this mean?": method, caveats.
            analyzer: filled in by the run.
            details: a traceback, folded.
            seconds: filled in by the run.
        """
        for name, value in {
            "title": title,
            "blocks": tuple(blocks),
            "summary": summary,
            "findings": tuple(findings),
            "status": status,
            "references": tuple(references),
            "meaning": meaning,
            "analyzer": analyzer,
            "details": details,
            "seconds": seconds,
        }.items():
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Json]:
        """The section without pixels; ``seconds`` is kept out, so that equal runs give equal sections."""
        return {
            "title": self.title,
            "analyzer": self.analyzer,
            "status": self.status,
            "summary": self.summary,
            "findings": [jsonable(finding) for finding in self.findings],
            "blocks": [block.to_json() for block in self.blocks],
            "references": [str(reference) for reference in self.references],
            "meaning": self.meaning,
            "details": self.details,
        }


def jsonable(value: object) -> Json:
    """``value`` as JSON: floats rounded to 7 significant digits, NaN and infinities as null, pixels as their shape."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            return float(f"{value:.7g}") if np.isfinite(value) else None
        case np.integer():
            return int(value)
        case np.bool_():
            return bool(value)
        case np.ndarray():
            if value.dtype == np.uint8:
                return {"pixels": list(value.shape)}
            return [jsonable(row) for row in value] if value.ndim else jsonable(value.item())
        case Block() | Section():
            return value.to_json()
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case Sequence():
            return [jsonable(item) for item in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            return {name: jsonable(getattr(value, name)) for name in value.__dataclass_fields__}
    return str(value)


def to_uint8(images: object) -> Pixels:
    """Pictures from float [N, C, H, W] (or [C, H, W]) in [-1, 1]: uint8 [N, H, W, 3] (or [H, W, 3]); grey is repeated.

    Takes torch tensors and arrays alike; values outside the range are clipped, NaN becomes black.
    """
    array = np.asarray(getattr(images, "detach", lambda: images)())
    single = array.ndim == 3
    array = np.nan_to_num(array[None] if single else array, nan=-1.0)
    if array.shape[1] in (1, 2):
        array = np.repeat(array[:, :1], 3, axis=1)
    pixels = np.round((array[:, :3].clip(-1, 1) + 1.0) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels[0] if single else pixels)
