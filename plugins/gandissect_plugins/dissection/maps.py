"""Units by concepts as a matrix whose rows and columns are clustered, and as a map in which like units lie together.

yield matrix(result)                                # Section with two heat maps, or None where no unit has a label
yield unit_map(result, seed=0)                      # Section with PCA and UMAP, or None where too few units
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gandissect.blocks import Block, Heatmap, Scatter, Section, Table, Tabs, Text
from gandissect.concepts import Concept
from gandissect.sampling import named_rng
from gandissect.wording import percent
from gandissect_plugins.features.embedding import MINIMUM, TITLES, Method, embed, neighbour_trust

from .dissect import Dissection, UnitLabel
from .sections import absent_names
from .significance.floors import FLOOR

Array = NDArray[np.float64]
ROWS, COLUMNS = 60, 30  # of the heat maps
POINTS = 500  # units on the map
NEAR = 5  # neighbours at which maps and labels are compared
COLOURS = 7  # concepts with a colour of their own; red–green blindness leaves about so many apart
SHAPES = 6
NOT_FOUND, OTHERS = "not beyond chance", "other concepts"
MATRIX_MEANING = """Every cell is one unit against one concept. **IoU** is what the literature reports. **Above chance** is the
IoU less its mean with the masks of other samples: what position and frequency of the concept explain is gone.
**In standard deviations** divides that by the spread of the IoU over the shuffles; ±2 is within chance for one cell, and a
matrix of a thousand cells has some cells beyond ±3 by chance.

Rows and columns are put in order by average-linkage clustering of the values above chance, each row or column scaled to
length 1, so that like profiles lie together and not equal strengths; the leaves of the tree are then turned so that
neighbours are as close as they can be (Bar-Joseph et al. 2001). The **cophenetic correlation** is that of the distances in
the tree with those in the matrix (Sokal & Rohlf 1962): 1 where the tree says everything about the distances. Clustering
gives groups in noise, too, so the same number is given for matrices whose columns were permuted."""
MAP_MEANING = """Each point is a unit. It is described by its IoU above chance with every tested concept; profiles longer than
the floor of findings are scaled to one length, so that units which follow the same concept lie together however strongly
they do, and units that follow none lie near the origin.

**PCA** is linear: its axes say how much of the variance they hold. **UMAP** keeps neighbourhoods; distances between its
groups mean nothing, and it can draw groups where there are none. So both are checked against the whole table:
*trustworthiness* (Venna & Kaski 2001) falls when strangers become neighbours, *kept* is the share of each unit's 5 nearest
units that are still among its 5 nearest in the map, and *same concept* is the share of the 5 nearest that have the unit's
own concept, beside what permuted labels give. A label comes from the same table, so that agreement says the map shows the
table well, not that the labels are right: for that there is the test against chance."""


@dataclass(frozen=True)
class Profiles:
    """Some units against all tested concepts.

    Attributes:
        rows: the units.
        concepts: the columns.
        iou: float64 [R, K]; ``null`` the mean and ``spread`` the standard deviation of its null.
    """

    rows: tuple[UnitLabel, ...]
    concepts: tuple[Concept, ...]
    iou: Array
    null: Array
    spread: Array

    @property
    def excess(self) -> Array:
        """IoU above the mean of its null: float64 [R, K]."""
        return self.iou - self.null

    @property
    def score(self) -> Array:
        """The excess in standard deviations of its null: float64 [R, K], NaN where the null never varies."""
        varies = self.spread > 1e-9
        return np.where(varies, self.excess / np.where(varies, self.spread, 1.0), np.nan)

    @property
    def directions(self) -> Array:
        """The excess of each unit, scaled to length 1 where it is longer than the floor: float64 [R, K]."""
        length = np.linalg.norm(self.excess, axis=1, keepdims=True)
        return np.asarray(self.excess / np.maximum(length, FLOOR))


def profiles(result: Dissection, rows: Sequence[UnitLabel]) -> Profiles:
    """The tables of ``rows`` with the tested concepts."""
    tested = result.tested.numpy()

    def stack(name: str) -> Array:
        tables = {table.layer.name: getattr(table, name).numpy() for table in result.layers}
        return np.stack([tables[row.layer][row.unit][tested] for row in rows])

    concepts = tuple(concept for concept, chosen in zip(result.concepts, tested, strict=True) if chosen)
    return Profiles(tuple(rows), concepts, stack("iou"), stack("null_iou"), stack("null_sd"))


@dataclass(frozen=True)
class Clustered:
    """An order of things in which like ones are neighbours.

    Attributes:
        order: places in the new order.
        cophenetic: −1..1, correlation of distances in the tree and in the data; NaN below three things.
    """

    order: list[int]
    cophenetic: float


def clustered(values: Array) -> Clustered:
    """The rows of ``values`` [R, C] by average linkage of their directions, leaves in optimal order."""
    from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
    from scipy.spatial.distance import pdist

    if len(values) < 3:
        return Clustered(list(range(len(values))), float("nan"))
    length = np.linalg.norm(values, axis=1, keepdims=True)
    # Between rows of length 1 the Euclidean distance is √(2 − 2 cos): it is defined for rows of zeros, too.
    distances = pdist(np.divide(values, length, out=np.zeros_like(values), where=length > 0))
    # Sokal & Michener 1958 (average linkage); Bar-Joseph, Gifford & Jaakkola 2001 (optimal leaf order)
    tree = linkage(distances, "average", optimal_ordering=True)
    agreement = float(cophenet(tree, distances)[0]) if np.ptp(distances) > 0 else float("nan")
    return Clustered([int(leaf) for leaf in leaves_list(tree)], agreement)


def permuted_cophenetic(values: Array, rng: np.random.Generator, draws: int = 20) -> float:
    """The mean cophenetic correlation of matrices whose columns were permuted, each on its own."""
    return float(np.mean([clustered(rng.permuted(values, axis=0)).cophenetic for _ in range(draws)]))


def beyond_shuffled(result: Dissection) -> float:
    """The share of the excess matrix's sum of squares that shuffled samples do not give: at most 1.

    Over all labelled units and tested concepts. A matrix made with shuffled samples has, on average over the shuffles, the
    variance of the null in each cell as its sum of squares.
    """
    whole = profiles(result, result.labels())
    total = float((whole.excess**2).sum())
    return 1.0 - float((whole.spread**2).sum()) / total if total > 0 else float("nan")


def matrix(result: Dissection) -> Section | None:
    """The clustered heat maps of the best units: IoU, above chance, in standard deviations of the null."""
    rows = result.labels()[:ROWS]
    if not rows or not bool(result.tested.any()):
        return None
    full = profiles(result, rows)
    strongest = np.argsort(-full.excess.max(0), kind="stable")[:COLUMNS]
    columns = np.sort(strongest[full.excess.max(0)[strongest] > 0])
    if not len(columns):
        return None
    shown = full.excess[:, columns]
    down, across = clustered(shown), clustered(shown.T)
    places = np.ix_(np.array(down.order), columns[across.order])
    names = tuple(full.concepts[k].name for k in columns[across.order])
    ordered = [rows[i] for i in down.order]
    best = max(rows, key=lambda row: row.iou)
    largest = f"{best.iou:.2f}, {best.layer} {best.unit} with {best.concept}"
    size = f"{len(rows)} units with {len(names)} concepts"
    panels = (
        ("IoU", full.iou, False, "IoU", f"IoU of {size}; largest {largest}."),
        ("above chance", full.excess, True, "IoU above chance", f"IoU above chance of {size}; most {_peak(full)}."),
        ("in standard deviations", full.score, True, "standard deviations of the null", f"The same over the null's spread, {size}."),
    )  # fmt: skip
    maps = tuple(_heatmap(values[places], ordered, names, alt, signed, unit) for _, values, signed, unit, alt in panels)
    text = Text(" ".join(filter(None, (_trust(result, shown, down, across), _left_out(result, full, len(names))))))
    summary = f"The largest IoU is {best.iou:.2f}: {best.layer} · {best.unit} with {best.concept}."
    tabs = Tabs(tuple(panel[0] for panel in panels), maps)
    return Section("Units by concepts", tabs, text, summary=summary, meaning=MATRIX_MEANING)


def _heatmap(
    values: Array, rows: Sequence[UnitLabel], names: tuple[str, ...], alt: str, signed: bool, unit: str
) -> Heatmap:
    labels = tuple(f"{row.layer} · {row.unit}" for row in rows)
    links = tuple(f"{row.layer}/{row.unit}" for row in rows)
    return Heatmap(values, labels, names, alt, signed=signed, unit=unit, row_links=links)


def _peak(full: Profiles) -> str:
    """ "0.21, layer4 7 with tree" for the largest excess."""
    i, k = np.unravel_index(int(full.excess.argmax()), full.excess.shape)
    row = full.rows[int(i)]
    return f"{full.excess[i, k]:.2f}, {row.layer} {row.unit} with {full.concepts[int(k)].name}"


def _trust(result: Dissection, shown: Array, down: Clustered, across: Clustered) -> str:
    """How much of the matrix and of its clusters is more than chance."""
    rng = named_rng(result.seed, "dissection clusters")
    share = percent(beyond_shuffled(result))
    parts = [
        f"{share} of the variance above chance of all {len(result.labels())} units is more than shuffled samples give."
    ]
    if not np.isnan(down.cophenetic):
        chance = permuted_cophenetic(shown, rng)
        parts.append(f"Cophenetic correlation {down.cophenetic:.2f} for units ({chance:.2f} with permuted columns)")
        parts[-1] += f", {across.cophenetic:.2f} for concepts." if not np.isnan(across.cophenetic) else "."
    return " ".join(parts)


def _left_out(result: Dissection, full: Profiles, columns: int) -> str:
    """What is not in the matrix, and why."""
    parts = []
    if len(full.rows) < len(result.labels()):
        parts.append(f"The {len(full.rows)} units furthest beyond chance of {len(result.labels())} are shown.")
    if columns < len(full.concepts):
        parts.append(f"The {columns} concepts with the largest excess of {len(full.concepts)} tested are shown.")
    names = absent_names(result)
    if names:
        parts.append(f"Not tested, so left out: {', '.join(names)}.")
    return " ".join(parts)


@dataclass(frozen=True)
class UnitMap:
    """A low-dimensional map of units and how far to trust it.

    Attributes:
        method: "pca" or "umap".
        points: float32 [R, 2].
        axes: what each axis is.
        settings: what the method was run with.
        trustworthiness: 0..1, at ``NEAR`` neighbours.
        kept: share of the nearest neighbours that stay; ``by_chance`` for points at random.
        same: share of the nearest found units that have a found unit's concept; ``permuted`` that with permuted labels;
            ``p`` of the permutations; NaN where fewer than 10 units were found.
    """

    method: Method
    points: NDArray[np.float32]
    axes: tuple[str, ...]
    settings: str
    trustworthiness: float
    kept: float
    by_chance: float
    same: float
    permuted: float
    p: float


def unit_maps(chosen: Profiles, seed: int) -> list[UnitMap]:
    """PCA and, from 100 units on, UMAP; the same for the same profiles and seed."""
    maps = []
    methods: tuple[Method, ...] = ("pca", "umap")
    for method in methods:
        if len(chosen.rows) < max(MINIMUM[method], 2 * NEAR):
            continue
        made = embed(chosen.directions, method, 2, seed=seed)
        trust, kept, chance, _ = neighbour_trust(chosen.directions, made.points, NEAR)
        purity = label_purity(made.points, chosen.rows, named_rng(seed, f"dissection labels {method}"))
        maps.append(UnitMap(method, made.points, made.axes, made.settings, trust, kept, chance, *purity))
    return maps


def label_purity(
    points: NDArray[np.float32], rows: Sequence[UnitLabel], rng: np.random.Generator, draws: int = 999
) -> tuple[float, float, float]:
    """(share of the nearest found units with the same concept, its mean with permuted labels, p)."""
    from sklearn.neighbors import NearestNeighbors

    found = np.array([row.found for row in rows])
    if found.sum() < 2 * NEAR:
        return float("nan"), float("nan"), float("nan")
    _, labels = np.unique([row.concept for row in rows if row.found], return_inverse=True)
    near = NearestNeighbors(n_neighbors=NEAR).fit(points[found]).kneighbors(return_distance=False)
    same = float((labels[near] == labels[:, None]).mean())
    orders = [rng.permutation(labels) for _ in range(draws)]
    null = np.array([(order[near] == order[:, None]).mean() for order in orders])
    return same, float(null.mean()), float((1 + (null >= same - 1e-12).sum()) / (1 + draws))


def unit_map(result: Dissection, seed: int) -> Section | None:
    """Units as points, coloured by concept, shaped by layer, linked to their cards."""
    rows = result.labels()[:POINTS]
    if not any(row.found for row in rows) or int(result.tested.sum()) < 3:
        return None
    layers = [table.layer.name for table in result.layers]
    named, groups = _groups(rows)
    rank = {name: place for place, name in enumerate((*named, OTHERS, NOT_FOUND))}
    rows.sort(key=lambda row: (rank[groups[row]], layers.index(row.layer), row.unit))  # the order of the legend
    chosen = profiles(result, rows)
    maps = unit_maps(chosen, seed)
    if not maps:
        return None
    last = maps[-1]
    summary = f"{percent(last.kept)} of each unit's {NEAR} nearest units stay its nearest in {TITLES[last.method]}"
    summary += f" ({percent(last.by_chance)} by chance)"
    if not np.isnan(last.same):
        summary += f"; {percent(last.same)} of a found unit's neighbours have its concept,"
        summary += f" {percent(last.permuted)} with permuted labels"
    scatters = tuple(_scatter(chosen, item, layers, named, [groups[row] for row in rows]) for item in reversed(maps))
    names = tuple(TITLES[item.method] for item in reversed(maps))
    blocks: list[Block] = [Tabs(names, scatters) if len(scatters) > 1 else scatters[0], _trust_table(maps)]
    if len(rows) < len(result.labels()):
        blocks.append(Text(f"The {len(rows)} units furthest beyond chance of {len(result.labels())} are on the map."))
    return Section("Map of units", *blocks, summary=f"{summary}.", meaning=MAP_MEANING)


def _groups(rows: Sequence[UnitLabel]) -> tuple[tuple[str, ...], dict[UnitLabel, str]]:
    """The concepts that most units follow, and for each unit one of them, "other concepts" or "not beyond chance"."""
    counts = Counter(row.concept for row in rows if row.found)
    named = tuple(name for name, _ in counts.most_common(COLOURS + (len(counts) == COLOURS + 1)))
    return named, {row: (row.concept if row.concept in named else OTHERS) if row.found else NOT_FOUND for row in rows}


def _scatter(
    chosen: Profiles, item: UnitMap, layers: Sequence[str], named: tuple[str, ...], groups: Sequence[str]
) -> Scatter:
    counts = Counter(row.concept for row in chosen.rows if row.found)
    told = f"Trustworthiness {item.trustworthiness:.2f}; {percent(item.kept)} of {NEAR} nearest units kept"
    told += f" ({percent(item.by_chance)} by chance)"
    if not np.isnan(item.same):
        told += f"; {percent(item.same)} of neighbours have the same concept"
        told += f" ({percent(item.permuted)} with permuted labels, p {_p(item.p)})"
    title = TITLES[item.method]
    largest = ", ".join(f"{name} {count}" for name, count in counts.most_common(3))
    alt = (
        f"{title} of {len(groups)} units by concept, {sum(counts.values())} of them beyond chance ({largest}). {told}."
    )
    return Scatter(
        item.points,
        item.axes,
        alt,
        groups=tuple(groups),
        labels=tuple(_label(row) for row in chosen.rows),
        links=tuple(f"{row.layer}/{row.unit}" if row.found else "" for row in chosen.rows),
        shapes=layer_ranges([row.layer for row in chosen.rows], layers),
        muted=NOT_FOUND if NOT_FOUND in groups else "",
        named=named,
        caption=f"{title} of {len(groups)} units, {item.settings}; pale: {NOT_FOUND}. {told}.",
    )


def _p(p: float) -> str:
    return "< 0.002" if p < 0.002 else f"= {p:.2g}"


def _label(row: UnitLabel) -> str:
    """ "layer4 · 7, tree, IoU 0.31 (chance 0.04)"; units that are not beyond chance have no concept."""
    what = row.concept if row.found else f"nearest to {row.concept}"
    return f"{row.layer} · {row.unit}, {what}, IoU {row.iou:.2f} (chance {row.null_iou:.2f})"


def layer_ranges(names: Sequence[str], layers: Sequence[str]) -> tuple[str, ...]:
    """For each name its layer or, of more than 6 ``layers``, the range of consecutive ones that holds it."""
    parts = np.array_split(np.array(layers), min(SHAPES, len(layers)))
    label = {
        str(name): str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts for name in part
    }
    return tuple(label[name] for name in names)


def _trust_table(maps: Sequence[UnitMap]) -> Table:
    columns = ("map", "trustworthiness", "kept", "kept by chance", "same concept", "permuted labels", "p")
    rows = [
        (TITLES[item.method], item.trustworthiness, item.kept, item.by_chance, item.same, item.permuted, item.p)
        for item in maps
    ]  # fmt: skip
    return Table(columns, rows, caption=f"How far each map can be trusted, at {NEAR} neighbours.")
