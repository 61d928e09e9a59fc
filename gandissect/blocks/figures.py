"""Blocks that are drawn from numbers.

Line((Series("held-out accuracy", layers, accuracy),), "layer", "accuracy", "accuracy per layer")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from gandissect.blocks.base import Block, Floats, Json, Pixels, jsonable


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

    def to_json(self) -> dict[str, Json]:
        """The counts in each bin, not the values."""
        values = np.concatenate([np.asarray(group, dtype=float) for group in self.groups.values()] or [np.zeros(1)])
        edges = np.histogram_bin_edges(values[np.isfinite(values)], self.bins)
        counts = {name: np.histogram(np.asarray(group, dtype=float), edges)[0] for name, group in self.groups.items()}
        told = {"kind": self.kind, "x_label": self.x_label, "alt": self.alt, "caption": self.caption}
        return {**told, "edges": jsonable(edges), "counts": jsonable(counts)}


@dataclass(frozen=True)
class Multiples(Block):
    """Bars of the same things in several places: one small plot for each place, on a common scale.

    Attributes:
        panels: the places, in reading order (layers, by depth); at most 12 can be read.
        names: what the bars are; ``groups`` of each the name of its group, which gives the colour.
        values: float [P, B].
        expected: float [P, B], what chance gives, drawn as a mark; ``expected_high`` [P, B] the end of its interval from
            the mark upwards.
        value_label: what a value is ("units").
    """

    kind: ClassVar[str] = "multiples"
    panels: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    values: Floats
    expected: Floats
    expected_high: Floats
    value_label: str
    expected_label: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Guide:
    """A straight line in the data of a scatter plot, from one point to another, and what it says."""

    start: tuple[float, float]
    end: tuple[float, float]
    label: str = ""


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
        links: for each point the key of the gallery card it belongs to, or nothing; without ``thumbnails`` the first
            picture of that card is shown.
        shapes: for each point the name of a second group, shown by its shape, at most 6 different; else shape goes with
            ``groups``.
        muted: the group that is drawn pale, behind the others.
        named: groups whose name is written over the middle of their points (2-D).
        guides: straight lines (2-D).
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
    links: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    muted: str = ""
    named: tuple[str, ...] = ()
    guides: tuple[Guide, ...] = ()


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
