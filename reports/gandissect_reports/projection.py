"""Where the points of a scatter plot are drawn: 2-D with axes, 3-D seen from a fixed side that the reader can turn.

plot = place_points(block)
plot.xy                                    # float [N, 2], CSS px in a drawing of WIDTH × HEIGHT
plot.lines, plot.texts                     # frame, ticks and names of the axes
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from gandissect.blocks import Floats, Scatter
from gandissect_reports.prose import number

WIDTH, HEIGHT = 760, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 52
AZIMUTH, ELEVATION = 0.65, 0.42  # radians; scatter.js starts from the same side
AXES = ((0, 4), (0, 2), (2, 3))  # edges between corners, numbered as in binary (x, y, z): x, y and z axis
REACH = 215  # CSS px from the centre to the middle of a face of the cube


@dataclass(frozen=True)
class Segment:
    """A line of the frame; ``kind`` is "axis" or "grid"."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str = "grid"


@dataclass(frozen=True)
class Word:
    """A word of the frame and how it is anchored ("start", "middle", "end"); ``turned`` by 90° for the y axis."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    turned: bool = False
    strong: bool = False


@dataclass(frozen=True)
class Placed:
    """Points in the drawing, their order (muted, then mixed; or far ones first), the frame, and words over the points."""

    xy: Floats
    order: list[int]
    lines: list[Segment]
    words: list[Word]
    tags: list[Word] = field(default_factory=list)


def place_points(block: Scatter) -> Placed:
    """Points and frame of ``block``, in CSS pixels."""
    points = np.nan_to_num(np.asarray(block.points, dtype=float))
    return _cube(points, block.axes) if points.shape[1] == 3 else _plane(points, block)


def nice_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """About ``wanted`` round numbers from ``low`` to ``high``."""
    if high <= low:
        high = low + 1.0
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _plane(points: Floats, block: Scatter) -> Placed:
    """Two dimensions: a grid with round numbers, the axes named, guides and the names of groups."""
    ends = np.array([end for guide in block.guides for end in (guide.start, guide.end)], dtype=float).reshape(-1, 2)
    inside = np.concatenate([points, ends])
    low = inside.min(axis=0) if len(inside) else np.zeros(2)
    high = inside.max(axis=0) if len(inside) else np.ones(2)
    margin = np.where(high > low, (high - low) * 0.04, 0.5)
    low, high = low - margin, high + margin
    span = np.array([WIDTH - LEFT - RIGHT, -(HEIGHT - TOP - BOTTOM)], dtype=float)
    start = np.array([LEFT, HEIGHT - BOTTOM], dtype=float)
    xy = start + (points - low) / (high - low) * span
    guides = start + (ends - low) / (high - low) * span
    lines: list[Segment] = []
    words: list[Word] = []
    for tick in nice_ticks(low[0], high[0]):
        x = float(start[0] + (tick - low[0]) / (high[0] - low[0]) * span[0])
        lines.append(Segment(x, TOP, x, HEIGHT - BOTTOM))
        words.append(Word(x, HEIGHT - BOTTOM + 18, number(tick)))
    for tick in nice_ticks(low[1], high[1]):
        y = float(start[1] + (tick - low[1]) / (high[1] - low[1]) * span[1])
        lines.append(Segment(LEFT, y, WIDTH - RIGHT, y))
        words.append(Word(LEFT - 8, y + 4, number(tick), "end"))
    lines += [
        Segment(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"),
        Segment(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "axis"),
    ]
    tags: list[Word] = []
    for guide, (from_x, from_y), (to_x, to_y) in zip(block.guides, guides[::2], guides[1::2], strict=True):
        lines.append(Segment(float(from_x), float(from_y), float(to_x), float(to_y), "guide"))
        above = float(to_y) - 5 if to_x > from_x else float(to_y) + 12
        while any(abs(above - tag.y) < 14 and abs(float(to_x) - 4 - tag.x) < 7 * len(guide.label) for tag in tags):
            above -= 3
        tags.append(Word(float(to_x) - 4, above, guide.label, "end"))
    names = [*block.axes, "", ""]
    words.append(Word((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, names[0], strong=True))
    words.append(Word(16, (TOP + HEIGHT - BOTTOM) / 2, names[1], turned=True, strong=True))
    order = [int(i) for i in np.random.default_rng(0).permutation(len(points))]  # mixed: no group hides another
    if block.muted:
        order.sort(key=lambda i: block.groups[i] != block.muted)
    return Placed(xy, order, lines, words, tags + _group_names(xy, block))


def _group_names(xy: Floats, block: Scatter) -> list[Word]:
    """Names over the middle of their groups' points, moved up where one would lie on another."""
    groups = np.array(block.groups)
    middle = {name: np.median(xy[groups == name], axis=0) for name in block.named if name in block.groups}
    placed: list[Word] = []
    for name, centre in sorted(middle.items(), key=lambda item: -float(item[1][1])):
        half = 4 * len(name) + 4
        x, y = float(np.clip(centre[0], LEFT + half, WIDTH - RIGHT - half)), float(centre[1]) - 8
        taken = [word.y for word in placed if abs(word.x - x) < half + 4 * len(word.text)]
        while any(abs(y - other) < 15 for other in taken):
            y -= 3
        placed.append(Word(x, y, name, strong=True))
    return placed


def _cube(points: Floats, axes: tuple[str, ...]) -> Placed:
    """Three dimensions: the cube around the points, seen from one side without perspective."""
    unit = to_cube(points)
    seen = _turn(unit)
    corners = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], dtype=float)
    flat = _turn(corners)
    lines = [
        Segment(*_pair(flat[a]), *_pair(flat[b]), "axis" if (a, b) in AXES else "grid")
        for a in range(8)
        for b in range(a + 1, 8)
        if abs(corners[a] - corners[b]).sum() == 2
    ]
    ends = _turn(np.array([[1.16, -1, -1], [-1, 1.16, -1], [-1, 1, 1.16]], dtype=float))
    words = [Word(float(x), float(y) + 4, axis, strong=True) for (x, y, _), axis in zip(ends, axes, strict=False)]
    return Placed(seen[:, :2], [int(i) for i in np.argsort(seen[:, 2], kind="stable")], lines, words)


def _pair(point: Floats) -> tuple[float, float]:
    """The first two numbers of a point."""
    return float(point[0]), float(point[1])


def to_cube(points: Floats) -> Floats:
    """Points scaled to -1..1 on each axis, float [N, 3]."""
    if not len(points):
        return points
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray((points - low) / np.where(high > low, high - low, 1.0) * 2.0 - 1.0)


def _turn(cube: Floats) -> Floats:
    """Points of the cube as x, y in the drawing and nearness, float [N, 3]; the same sums as in scatter.js."""
    ca, sa, ce, se = math.cos(AZIMUTH), math.sin(AZIMUTH), math.cos(ELEVATION), math.sin(ELEVATION)
    x, y, z = cube.T
    across, depth = x * ca - y * sa, x * sa + y * ca
    return np.stack(
        [WIDTH / 2 + REACH * 0.78 * across, HEIGHT / 2 - REACH * 0.78 * (z * ce + depth * se), z * se - depth * ce],
        axis=1,
    )
