"""Where the layers of a network are drawn: one rank under the other, shortcuts in lanes at the left.

drawing = arrange(block.nodes, block.edges)
drawing.boxes                              # a Box for each node
drawing.paths                              # SVG paths of the edges
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from gandissect.blocks import Node

LANE, TOP, GAP_X = 14, 6, 18
CHAIN_BOX = (560, 28)
NOTES = 170
"""How much wider the boxes of a chain are where some have notes."""
WIDE_BOX = (230, 46)


@dataclass(frozen=True)
class Box:
    """A node and its rectangle in CSS px."""

    node: Node
    x: float
    y: float
    width: float
    height: float


@dataclass
class Drawing:
    """Boxes and edges; ``chain`` when no two layers share a rank, so that each fits on one line."""

    boxes: list[Box]
    chain: bool
    width: float = 0.0
    height: float = 0.0
    paths: list[str] = field(default_factory=list)
    shortcuts: list[str] = field(default_factory=list)


def ranks(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The rank of each node: one more than the largest of those it follows; edges that would close a circle are ignored."""
    place = {name: index for index, name in enumerate(names)}
    leads_to: dict[str, list[str]] = defaultdict(list)
    waiting = dict.fromkeys(names, 0)
    for start, end in edges:
        if start in place and end in place and start != end:
            leads_to[start].append(end)
            waiting[end] += 1
    rank = dict.fromkeys(names, 0)
    left = list(names)
    while left:
        free = next((name for name in left if waiting[name] <= 0), left[0])
        left.remove(free)
        for follower in leads_to[free]:
            waiting[follower] -= 1
            if follower in left:
                rank[follower] = max(rank[follower], rank[free] + 1)
    return rank


def followers(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How many nodes each node leads to, directly or not."""
    next_to: dict[str, set[str]] = {name: {b for a, b in edges if a == name} for name in names}

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            new = next_to.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += sorted(new)
        return seen

    return {name: len(reached(name)) for name in names}


def arrange(nodes: Sequence[Node], edges: Sequence[tuple[str, str]]) -> Drawing:
    """Boxes and paths for a graph of layers."""
    nodes = list({node.name: node for node in nodes}.values())
    rank = ranks([node.name for node in nodes], edges)
    rows: dict[int, list[Node]] = defaultdict(list)
    after = followers([node.name for node in nodes], edges)
    for node in nodes:
        rows[rank[node.name]].append(node)
    _order(rows, after, edges)
    chain = all(len(row) == 1 for row in rows.values())
    neighbours = [(a, b) for a, b in dict.fromkeys(edges) if a in rank and b in rank and rank[b] == rank[a] + 1]
    far = [
        (a, b) for a, b in dict.fromkeys(edges) if a in rank and b in rank and a != b and (a, b) not in set(neighbours)
    ]
    lanes, count = _lanes(far, rank)
    left = 8 + LANE * (count + 1 if count else 0)
    drawing = Drawing(_boxes(rows, chain, left), chain)
    boxes = {box.node.name: box for box in drawing.boxes}
    drawing.paths = [_straight(boxes[a], boxes[b]) for a, b in neighbours]
    drawing.shortcuts = [_round(boxes[a], boxes[b], left - LANE * (lanes[a] + 1)) for a, b in far]
    drawing.width = max((box.x + box.width for box in drawing.boxes), default=0.0) + 8
    drawing.height = max((box.y + box.height for box in drawing.boxes), default=0.0) + TOP
    return drawing


def _order(rows: dict[int, list[Node]], after: dict[str, int], edges: Sequence[tuple[str, str]]) -> None:
    """Sort each row so that a node is near those it follows, the trunk at the left and side outputs beside it."""
    column: dict[str, int] = {}

    def wish(node: Node) -> tuple[float, int]:
        before = [column[a] for a, b in edges if b == node.name and a in column]
        return (sum(before) / len(before) if before else 0.0, -after[node.name])

    for index in sorted(rows):
        rows[index].sort(key=wish)
        column |= {node.name: place for place, node in enumerate(rows[index])}


def _boxes(rows: dict[int, list[Node]], chain: bool, left: float) -> list[Box]:
    """A rectangle for each node: rows from top to bottom, those of a row side by side."""
    width, height = CHAIN_BOX if chain else WIDE_BOX
    width += NOTES * (chain and any(node.notes for row in rows.values() for node in row))
    boxes: list[Box] = []
    y = float(TOP)
    for index in sorted(rows):
        row = rows[index]
        extra = 0 if chain else 16 * any(node.notes for node in row)
        boxes += [Box(node, left + i * (width + GAP_X), y, width, height + extra) for i, node in enumerate(row)]
        y += height + extra + (14 if chain else 26)
    return boxes


def _lanes(far: Sequence[tuple[str, str]], rank: dict[str, int]) -> tuple[dict[str, int], int]:
    """A lane for each node with shortcuts, shared by all of them and free over its length; and how many lanes."""
    reach: dict[str, tuple[int, int]] = {}
    for start, end in far:
        low, high = reach.get(start, (rank[start], rank[start]))
        reach[start] = (min(low, rank[end]), max(high, rank[end]))
    lanes: dict[str, int] = {}
    taken: list[list[tuple[int, int]]] = []
    for start, (low, high) in sorted(reach.items(), key=lambda item: (item[1][1] - item[1][0], item[1])):
        free = next((i for i, used in enumerate(taken) if all(high <= a or low >= b for a, b in used)), len(taken))
        if free == len(taken):
            taken.append([])
        taken[free].append((low, high))
        lanes[start] = free
    return lanes, len(taken)


def _straight(a: Box, b: Box) -> str:
    """From the bottom of one box to the top of the next."""
    x1, y1, x2, y2 = a.x + a.width / 2, a.y + a.height, b.x + b.width / 2, b.y - 2
    if a.x == b.x:
        x1 = x2 = a.x + 24
    middle = (y1 + y2) / 2
    return f"M{x1:g} {y1:g}C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}"


def _round(a: Box, b: Box, lane: float) -> str:
    """From the left of one box along a lane to the left of another."""
    y1, y2 = a.y + a.height * 0.65, b.y + b.height * 0.4
    bend = 7 if y2 > y1 else -7
    return (
        f"M{a.x:g} {y1:g}H{lane + 7:g}Q{lane:g} {y1:g} {lane:g} {y1 + bend:g}"
        f"V{y2 - bend:g}Q{lane:g} {y2:g} {lane + 7:g} {y2:g}H{b.x - 2:g}"
    )
