"""Switch units on where a concept is absent, and see whether it appears there.

grid = PlaceGrid.of(layer)
there = places_of(session, grid, samples)           # what each place holds, unedited
insert(session, layer, [17, 23], "tree", samples=samples, level=level, there=there).gain()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.gan import LayerInfo
from gandissect.reducers import CrossResult
from gandissect.session import Session

from .ablation import NAN, Baseline, check_editable
from .edits import Blend, weights_of
from .resampling import Gain, Resampling

MOST_PLACES = 8
"""Places along each side of an image at most."""
LEAST_PLACES = 6
"""Samples that must have a place without the concept, below which no gain is told."""


@dataclass(frozen=True)
class PlaceGrid:
    """Where things are inserted: windows of a coarse grid, a quarter of the image high and wide where the layer allows.

    Attributes:
        layer: the layer whose cells are edited.
        rows, columns: places of the grid, at most ``MOST_PLACES`` a side, never finer than the layer.
        height, width: of a window, in places.
    """

    layer: LayerInfo
    rows: int
    columns: int
    height: int
    width: int

    @staticmethod
    def of(layer: LayerInfo) -> PlaceGrid:
        """The grid for a layer; a single place that covers the image where the layer is a vector."""
        rows, columns = min(MOST_PLACES, layer.height), min(MOST_PLACES, layer.width)
        return PlaceGrid(layer, rows, columns, max(1, rows // 4), max(1, columns // 4))

    @property
    def windows(self) -> tuple[int, int]:
        """How many windows there are (down, across); they overlap."""
        return self.rows - self.height + 1, self.columns - self.width + 1

    def held(self, areas: Tensor) -> Tensor:
        """The part of each window that is covered: float64 [N, windows] from float [N, rows, columns]."""
        pooled = F.avg_pool2d(areas.double()[:, None], (self.height, self.width), stride=1)
        return pooled[:, 0].flatten(1)

    def usual(self, held: Tensor) -> float:
        """What the fullest window of a sample holds on average where there is any, from float64 [N, windows]; NaN without."""
        fullest = held.amax(1)
        return float(fullest[fullest > 0].mean())

    def cells(self, windows: Tensor) -> Tensor:
        """The layer's cells in each window (int64 [N]): float32 [N, h, w] of 0 and 1."""
        across = self.windows[1]
        row, column = windows // across, windows % across
        inside = []
        for first, extent, count, size in (
            (row, self.height, self.rows, self.layer.height),
            (column, self.width, self.columns, self.layer.width),
        ):
            place = torch.arange(size) * count // size
            inside.append((place >= first[:, None]) & (place < first[:, None] + extent))
        return (inside[0][:, :, None] & inside[1][:, None, :]).float()


@dataclass(frozen=True)
class Insertion:
    """What switching units on did at one window of each sample.

    Attributes:
        grid, units, concept: where and what was switched on, and which concept was absent there.
        places: int64 [m], the samples (places in the baseline) that had such a window.
        windows: int64 [m], which one.
        gained: float64 [m], what the concept covers of the window after, over what it usually covers where it is.
        images: float32 [k, C, H, W] in [-1, 1], the first samples after.
        chance: bootstrap draws and sign flips for these samples.
    """

    grid: PlaceGrid
    units: tuple[int, ...]
    concept: str
    places: Tensor
    windows: Tensor
    gained: Tensor
    images: Tensor
    chance: Resampling

    def gain(self) -> Gain:
        """What was gained."""
        return self._gain(self.gained)

    def beyond(self, other: Insertion) -> Gain:
        """How much more than random units gain at the same windows, paired."""
        return self._gain(self.gained - other.gained)

    def p(self, other: Insertion) -> float:
        """One-sided, of more gain than random units; NaN where too few samples have a place."""
        if len(self.gained) < LEAST_PLACES:
            return NAN
        return self.chance.p_more(self.gained - other.gained)

    def framed(self, images: Tensor) -> Tensor:
        """The first images float32 [k, C, H, W] with a one-pixel frame around their window."""
        out = images.clone()
        height, width = images.shape[2:]
        across = self.grid.windows[1]
        for image, window in zip(out, self.windows.tolist(), strict=False):
            row, column = window // across, window % across
            top, left = row * height // self.grid.rows, column * width // self.grid.columns
            bottom = (row + self.grid.height) * height // self.grid.rows - 1
            right = (column + self.grid.width) * width // self.grid.columns - 1
            image[:, [top, bottom], left : right + 1] = 1.0
            image[:, top : bottom + 1, [left, right]] = 1.0
        return out

    def _gain(self, values: Tensor) -> Gain:
        if len(values) < LEAST_PLACES:
            return Gain(NAN, NAN, NAN, len(values))
        low, high = self.chance.interval(values, torch.ones_like(values))
        return Gain(float(values.mean()), low, high, len(values))


def mean_present_level(cross: CrossResult, concept: int) -> Tensor:
    """The mean of each unit where the concept is, cells weighted by the part it covers: float64 [U].

    Bau et al. 2019 (GAN Dissection), section 3.2: the constant that units are set to when a concept is inserted.
    """
    return cross.products[:, concept] / cross.second[concept].sum().clamp(min=1e-12)


def places_of(session: Session, grid: PlaceGrid, samples: Baseline) -> Tensor:
    """The part of each place that each concept covers in the unedited samples: float32 [n, K, rows, columns]."""
    return _place_areas(session, grid, samples.images, samples.indices)


def _place_areas(session: Session, grid: PlaceGrid, images: Tensor, indices: Sequence[int]) -> Tensor:
    parts = [torch.zeros(0, len(session.vocabulary.concepts), grid.rows, grid.columns)]
    for start in range(0, len(images), 16):
        masks = session.segment(images[start : start + 16], list(indices[start : start + 16]))
        parts.append(F.adaptive_avg_pool2d(masks.float(), (grid.rows, grid.columns)))
    return torch.cat(parts)


def absent_windows(held: Tensor, indices: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One window without the concept for each sample that has any: (places int64 [m], windows int64 [m]).

    Args:
        held: float64 [n, windows], from :meth:`PlaceGrid.held`.
        indices: sample numbers; the choice in a sample depends on its number alone.
        rng: decides which.
    """
    order = torch.from_numpy(rng.random((max(indices, default=0) + 1, held.shape[1])))[list(indices)]
    score = order.masked_fill(held > 0, -1.0)
    best, window = score.max(1)
    places = (best >= 0).nonzero()[:, 0]
    return places, window[places]


def insert(
    session: Session,
    layer: str,
    units: Sequence[int],
    concept: str,
    *,
    samples: Baseline,
    level: Tensor,
    there: Tensor,
    alpha: Tensor | None = None,
    keep_images: int = 0,
) -> Insertion:
    """Set units to ``level`` in one window of each sample that holds none of the concept, and measure it there.

    Args:
        session: its vocabulary must read pixels.
        layer: name of an editable layer.
        units: which of its units.
        concept: what is looked for.
        samples: the unedited side.
        level: float [U], what units are set to.
        there: from :func:`places_of` for the same samples.
        alpha: float32 [n, U], other units in each sample, instead of ``units``.
        keep_images: so many images are kept.
    """
    check_editable(session, layer, units)
    grid = PlaceGrid.of(session.gan.generator.layer(layer))
    k = [item.name for item in session.vocabulary.concepts].index(concept)
    rng = session.rng(f"absent {concept} {grid.rows} {grid.columns}")
    before = grid.held(there[:, k])
    places, windows = absent_windows(before, samples.indices, rng)
    usual = grid.usual(before)
    if math.isnan(usual):  # in none of the samples, so nothing says how much of it is much
        places, windows = places[:0], windows[:0]
    weight = weights_of(units, grid.layer.channels) if alpha is None else alpha[places]
    images, held = _set_at(session, grid, k, weight, level, places, windows, samples)
    return Insertion(
        grid, tuple(units), concept, places, windows, held / usual, images[:keep_images].clone(),
        samples.chance.rows(places),
    )  # fmt: skip


def _set_at(
    session: Session, grid: PlaceGrid, k: int, alpha: Tensor, level: Tensor, places: Tensor, windows: Tensor,
    samples: Baseline,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Images with units set at a window each, and what concept ``k`` covers there: float32 [m, C, H, W], float64 [m]."""
    indices = [samples.indices[place] for place in places.tolist()]
    if not indices:
        return samples.images[:0], torch.zeros(0, dtype=torch.float64)
    edit = Blend(alpha, level.float(), grid.cells(windows))
    images = session.generate(
        samples.latents[places], edit=edit, layers=[grid.layer.name], labels=session.labels(indices)
    )
    moved = (images != samples.images[places]).flatten(1).any(1).nonzero()[:, 0]
    areas = torch.zeros(
        len(indices), grid.rows, grid.columns
    )  # where nothing moved, the concept is as absent as before
    if len(moved):
        areas[moved] = _place_areas(session, grid, images[moved], [indices[row] for row in moved.tolist()])[:, k]
    held = grid.held(areas).gather(1, windows[:, None])[:, 0]
    return images, held


@dataclass(frozen=True)
class InsertionMap:
    """Where in the image a concept can be inserted.

    Attributes:
        concept, layer, units: what was switched on.
        gain: float64 [down, across], the mean gain of the samples without the concept in that window, over what a window usually
            holds where it is; NaN where fewer than two.
        samples: int64 [down, across], how many those are.
        mean_image: float32 [C, H, W], the mean of the unedited samples.
        share: float64 [down, across], how much of the window the concept covers in the unedited samples on average.
    """

    concept: str
    layer: str
    units: tuple[int, ...]
    gain: Tensor
    samples: Tensor
    mean_image: Tensor
    share: Tensor

    @property
    def best(self) -> tuple[int, int, float]:
        """(row, column, gain) of the window where most is gained; NaN where nothing was measured."""
        flat = self.gain.nan_to_num(-1.0).flatten()
        place = int(flat.argmax())
        across = self.gain.shape[1]
        return place // across, place % across, float(self.gain.flatten()[place])


def insertion_map(
    session: Session, layer: str, units: Sequence[int], concept: str, *, samples: Baseline, level: Tensor, there: Tensor,
    each: int,
) -> InsertionMap:  # fmt: skip
    """Insert at every window in turn, in ``each`` samples that hold none of the concept there."""
    check_editable(session, layer, units)
    grid = PlaceGrid.of(session.gan.generator.layer(layer))
    k = [item.name for item in session.vocabulary.concepts].index(concept)
    held = grid.held(there[:, k])
    order = torch.from_numpy(session.rng(f"map {concept}").random(held.shape)).masked_fill(held > 0, 2.0)
    ranked = order.argsort(0)[:each]  # [each, windows]
    usable = order.gather(0, ranked) < 2.0
    places, windows = ranked[usable], torch.arange(held.shape[1]).expand_as(ranked)[usable]
    _, gained = _set_at(session, grid, k, weights_of(units, grid.layer.channels), level, places, windows, samples)
    total = torch.zeros(held.shape[1], dtype=torch.float64).index_add_(0, windows, gained / grid.usual(held))
    count = torch.bincount(windows, minlength=held.shape[1])
    mean = (total / count.clamp(min=1)).masked_fill(count < 2, math.nan)
    shape = grid.windows
    return InsertionMap(
        concept, layer, tuple(units), mean.reshape(shape), count.reshape(shape), samples.images.mean(0),
        held.mean(0).reshape(shape),
    )  # fmt: skip
