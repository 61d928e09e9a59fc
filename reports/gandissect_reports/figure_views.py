"""Blocks made of numbers and words: plots, matrices, graphs, tables, text.

view(Table(("layer", "IoU"), [("layer4", 0.31)]), Page(), "sections/0/blocks/0")     # Markup
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from gandissect.blocks import (
    Bar,
    Cell,
    Code,
    Data,
    Floats,
    Fold,
    Graph,
    Heatmap,
    Histogram,
    Html,
    Line,
    Multiples,
    Scatter,
    Series,
    Table,
    Tabs,
    Text,
)
from gandissect_reports.colours import diverging, gradient, is_dark, names_to_variables, viridis
from gandissect_reports.layers import arrange
from gandissect_reports.page import Numbers, Page, to_cells, to_numbers, view
from gandissect_reports.picture_views import _padded
from gandissect_reports.plots import bar_plot, histogram_bins, histogram_plot, line_plot, multiples_plot, series_points
from gandissect_reports.projection import HEIGHT, WIDTH, place_points
from gandissect_reports.prose import markdown, number
from gandissect_reports.sheets import label_width, make_sheet, shrink, to_png

CELLS_AS_TABLE = 420  # a matrix of at most so many cells shows its numbers
ROWS_NAMED = 320  # a matrix of more rows names them only on hover
THUMBNAIL = 48  # px
SHAPES = (
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
    "M0-4.2L4.2 0L0 4.2L-4.2 0z",
    "M0-4L3.8 3H-3.8z",
    "M-3-3H3V3H-3z",
    "M0 4L3.8-3H-3.8z",
    "M-1.2-4H1.2V-1.2H4V1.2H1.2V4H-1.2V1.2H-4V-1.2H-1.2z",
)
SHAPE_OF = {"real": 0, "generated": 1, "fake": 1}


@view.register
def _(block: Text, page: Page, path: str) -> Markup:
    return page.fill("text", html=markdown(block.markdown))


@view.register
def _(block: Fold, page: Page, path: str) -> Markup:
    inside = [page.show(inner, f"{path}/blocks/{index}") for index, inner in enumerate(block.blocks)]
    return page.fill("fold", block=block, inside=inside)


@view.register
def _(block: Tabs, page: Page, path: str) -> Markup:
    inside = [page.show(inner, f"{path}/blocks/{index}") for index, inner in enumerate(block.blocks)]
    return page.fill("tabs", tabs=list(zip(block.names, inside, strict=True)))


@view.register
def _(block: Code, page: Page, path: str) -> Markup:
    return page.fill("code", block=block)


@view.register
def _(block: Data, page: Page, path: str) -> Markup:
    return page.fill("data", block=block)


@view.register
def _(block: Html, page: Page, path: str) -> Markup:
    return page.fill("html", block=block)


@view.register
def _(block: Table, page: Page, path: str) -> Markup:
    rows = [list(row) for row in block.rows]
    numeric = [any(_is_number(row[i]) for row in rows if i < len(row)) for i in range(len(block.columns))]
    behind = to_numbers(block.columns, rows) if len(rows) > 12 else None
    return page.fill("table", block=block, rows=to_cells(rows, block.columns), numeric=numeric, behind=behind)


@view.register
def _(block: Line, page: Page, path: str) -> Markup:
    svg, keys = line_plot(block, page.name("p"))
    return page.fill("plot", block=block, svg=svg, keys=keys, numbers=series_to_numbers(block.series, block.x_label))


@view.register
def _(block: Bar, page: Page, path: str) -> Markup:
    svg, keys = bar_plot(block, page.name("p"))
    return page.fill("plot", block=block, svg=svg, keys=keys, numbers=series_to_numbers(block.series, block.x_label))


@view.register
def _(block: Histogram, page: Page, path: str) -> Markup:
    svg, keys = histogram_plot(block, page.name("p"))
    edges, shares = histogram_bins(block)
    rows = [
        [float(edges[i]), float(edges[i + 1]), *(float(share[i]) for share in shares.values())]
        for i in range(len(edges) - 1)
    ]
    return page.fill("plot", block=block, svg=svg, keys=keys, numbers=to_numbers(["from", "to", *shares], rows))


@view.register
def _(block: Multiples, page: Page, path: str) -> Markup:
    svg, keys = multiples_plot(block, page.name("p"))
    rows: list[list[Cell]] = [
        [
            panel,
            name,
            block.groups[b],
            *(float(table[p, b]) for table in (block.values, block.expected, block.expected_high)),
        ]
        for p, panel in enumerate(block.panels)
        for b, name in enumerate(block.names)
    ]
    columns = ["", "", "group", block.value_label, block.expected_label, "to"]
    return page.fill("plot", block=block, svg=svg, keys=keys, numbers=to_numbers(columns, rows))


def series_to_numbers(series: Sequence[Series], x_label: str) -> Numbers:
    """One row for each point: series, x, y, and the interval where there is one."""
    has_interval = any(len(one.low) and len(one.high) for one in series)
    rows: list[list[Cell]] = []
    for one in series:
        for i, (x, y) in enumerate(series_points(one)):
            interval: list[Cell] = [None, None]
            if len(one.low) and len(one.high):
                interval = [float(one.low[i]), float(one.high[i])]
            rows.append([one.label, x, y, *interval[: 2 * has_interval]])
    return to_numbers(["series", x_label or "x", "y", *(["low", "high"] if has_interval else [])], rows)


@view.register
def _(block: Heatmap, page: Page, path: str) -> Markup:
    values = np.asarray(block.values, dtype=float)
    finite = values[np.isfinite(values)]
    peak = float(np.abs(finite).max(initial=0.0)) or 1.0
    low = -peak if block.signed else float(min(0.0, finite.min(initial=0.0)))
    high = peak if block.signed else float(finite.max(initial=0.0)) or 1.0
    colours = diverging(values / peak) if block.signed else viridis((values - low) / (high - low))
    colours[~np.isfinite(values)] = (150, 150, 150)
    links = [page.card_anchor(key) if key else "" for key in _padded(block.row_links, len(block.rows))]
    small = values.size <= CELLS_AS_TABLE
    rows: list[list[Cell]] = [[name, *(float(v) for v in row)] for name, row in zip(block.rows, values, strict=True)]
    return page.fill(
        "heatmap",
        block=block,
        cells=_table_of_cells(values, colours, block) if small else None,
        picture="" if small else to_png(colours.repeat(4, axis=0).repeat(4, axis=1)),
        side=label_width(block.rows, 176),
        row=18 if len(values) <= 40 else 14 if len(values) <= ROWS_NAMED else 5,
        dense=len(values) > ROWS_NAMED,
        links=links,
        path=path,
        low=number(low),
        high=number(high),
        gradient=gradient(block.signed),
        gaps=int(np.isnan(values).sum()),
        numbers=to_numbers(["", *block.columns], rows),
        name=page.name("h"),
    )


def _table_of_cells(values: np.ndarray, colours: np.ndarray, block: Heatmap) -> list[list[dict[str, object]]]:
    """A cell's number, its colours and what it says on hover, for a matrix small enough to show them all."""
    decimals = _decimals(values, 2 if values.shape[1] > 8 else 3)

    def cell(r: int, c: int) -> dict[str, object]:
        value, colour = float(values[r, c]), colours[r, c]
        said = "not measured" if np.isnan(value) else number(value)
        return {
            "text": _fixed(value, decimals),
            "back": "#" + bytes(int(v) for v in colour).hex(),
            "ink": "#fff" if is_dark(colour) else "#000",
            "hover": f"{block.rows[r]}, {block.columns[c]}: {said}",
        }

    return [[cell(r, c) for c in range(values.shape[1])] for r in range(values.shape[0])]


def _decimals(values: np.ndarray, digits: int) -> int:
    """Decimals that give the largest of ``values`` so many significant digits."""
    largest = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
    return digits - 1 - math.floor(math.log10(largest)) if largest else 0


def _fixed(value: float, decimals: int) -> str:
    """A cell with the decimals of its matrix, so that cells can be compared; a plain 0 where it is exactly that."""
    if not value or not math.isfinite(value) or not 0 <= decimals <= 4:
        return number(float(f"{value:.2g}"))
    text = f"{value:.{decimals}f}"
    return (text if float(text) else text.lstrip("-")).replace("-", "−")


@view.register
def _(block: Scatter, page: Page, path: str) -> Markup:
    placed = place_points(block)
    values = point_values(block)
    marks, keys = _marks(block, placed.order, placed.xy, values)
    anchors = [page.card_anchor(key) if key else "" for key in _padded(block.links, len(marks))]
    thumbs = None
    if block.thumbnails is not None and len(block.thumbnails):
        small = shrink(block.thumbnails, min(THUMBNAIL, page.fidelity.cell))
        thumbs = make_sheet(small, 40, fidelity=page.fidelity, smallest=28, widest=1120)
    return page.fill(
        "scatter",
        block=block,
        placed=placed,
        marks=[(mark, anchors[mark.index]) for mark in marks],
        linked=sum(map(bool, anchors)),
        keys=keys,
        colourings=list(values),
        legend=_legend(values, bool(block.groups)),
        gradient=gradient(False),
        thumbs=thumbs,
        solid=np.asarray(block.points).shape[1] == 3,
        path=path,
        size=(WIDTH, HEIGHT),
        numbers=_scatter_numbers(block, values),
        name=page.name("x"),
    )


@dataclass(frozen=True)
class Mark:
    """A point as it is drawn: "x y", its CSS colour, its outline, its place in the data, and whether it is pale."""

    at: str
    fill: str
    shape: str
    index: int
    pale: bool


def _marks(
    block: Scatter, order: Sequence[int], xy: Floats, values: Mapping[str, Floats]
) -> tuple[list[Mark], list[tuple[str, str, str]]]:
    """The points in the order in which they are drawn, and the legend: (name, CSS variable, outline)."""
    groups, kinds = (
        sorted(dict.fromkeys(block.groups), key=lambda name: name == block.muted),
        list(dict.fromkeys(block.shapes)),
    )
    variables = names_to_variables([name for name in groups if name != block.muted])
    if block.muted:
        variables[block.muted] = "--muted"
    shapes = {name: SHAPE_OF.get(name.lower(), index % len(SHAPES)) for index, name in enumerate(kinds or groups)}
    by_shape = block.shapes or block.groups
    fills = value_fills(values[next(iter(values))]) if values and not groups else []
    marks = [
        Mark(
            f"{xy[i, 0]:.1f} {xy[i, 1]:.1f}",
            f"var({variables[block.groups[i]]})" if groups else (fills[i] if fills else "var(--c0)"),
            SHAPES[shapes[by_shape[i]] if by_shape else 0],
            i,
            bool(block.muted) and block.groups[i] == block.muted,
        )
        for i in order
    ]
    keys = [(name, variables[name], SHAPES[0 if kinds else shapes[name]]) for name in groups]
    return marks, keys + [(name, "--muted", SHAPES[shapes[name]]) for name in kinds]


def point_values(block: Scatter) -> dict[str, Floats]:
    """Every number that points can be coloured by, float [N] each; ``values`` first."""
    named = {} if block.values is None else {block.value_label or "value": np.asarray(block.values, dtype=float)}
    return named | {name: np.asarray(column, dtype=float) for name, column in block.colourings.items()}


def value_fills(values: Floats) -> list[str]:
    """The sequential colour of each value as "#rrggbb"; grey where there is none."""
    array = np.asarray(values, dtype=float)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    colours = viridis((array - low) / ((high - low) or 1.0))
    return [
        "#" + colour.tobytes().hex() if ok else "#969696"
        for colour, ok in zip(colours, np.isfinite(array), strict=True)
    ]


def _legend(values: Mapping[str, Floats], groups: bool) -> tuple[str, str, str] | None:
    """Name, lowest and highest of the numbers by which points are coloured at first."""
    if groups or not values:
        return None
    name = next(iter(values))
    array = np.asarray(values[name], dtype=float)
    finite = array[np.isfinite(array)]
    return (name, number(float(finite.min())), number(float(finite.max()))) if len(finite) else (name, "–", "–")


def _scatter_numbers(block: Scatter, values: Mapping[str, Floats]) -> Numbers:
    """A row for each point: its label, where it is, its group, and every number it can be coloured by."""
    points = np.asarray(block.points, dtype=float)
    labels = _padded(block.labels, len(points))
    rows: list[list[Cell]] = [
        [
            labels[i] or str(i),
            *(float(v) for v in points[i]),
            *([block.groups[i]] if block.groups else []),
            *(float(column[i]) for column in values.values()),
        ]
        for i in range(len(points))
    ]
    return to_numbers(["point", *block.axes[: points.shape[1]], *(["group"] if block.groups else []), *values], rows)


@view.register
def _(block: Graph, page: Page, path: str) -> Markup:
    return page.fill("graph", block=block, drawing=arrange(block.nodes, block.edges), name=page.name("n"))


def _is_number(cell: Cell) -> bool:
    """Whether a cell is a number (a truth value is none)."""
    return isinstance(cell, int | float) and not isinstance(cell, bool)
