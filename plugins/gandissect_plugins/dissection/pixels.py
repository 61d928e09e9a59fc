"""The same overlaps at the resolution of the image: activations are upsampled, masks are not pooled.

counts = PixelCounts(units=96, concepts=8)
counts.add(activations, masks, level)               # float32 [N, U, h, w], bool [N, K, H, W], float64 [U]
counts.overlap                                      # int64 [U, K], pixels
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.reducers import BitsResult, BitsSpec, Reducer, State
from gandissect.session import Session, Want
from gandissect.streams import Activations, Batch, Masks, Stream
from gandissect.tap import as_map

from .counting.blocks import WORTH, Grid, PixelTable, block_counts, map_counts
from .counting.levels import information_quality
from .counting.overlap import iou
from .evidence import Plan

if TYPE_CHECKING:
    from .dissect import Dissection, LayerTable


class PixelCounts(Reducer):
    """Counts a :class:`~.blocks.PixelTable` from whole maps: any size of map and image, any level."""

    exact: ClassVar[bool] = True

    def __init__(self, level: Tensor, groups: Tensor, *, compiled: bool = False) -> None:
        """Levels float64 [U]; ``groups`` bool [K, K], which concepts are of one category; ``compiled``: see :func:`~.blocks.map_counts`."""
        self._level, self._groups, self._compiled = level, groups, compiled
        units, concepts = len(level), len(groups)
        self.overlap = torch.zeros(units, concepts, dtype=torch.int64)
        self.active_in = torch.zeros(units, concepts, dtype=torch.int64)
        self.active = torch.zeros(units, dtype=torch.int64)
        self.area = torch.zeros(concepts, dtype=torch.int64)

    def add(self, indices: Sequence[int], *streams: Tensor) -> None:
        maps, masks = as_map(streams[0].detach()), streams[1]
        pixels = torch.from_numpy(
            np.bitwise_count(np.packbits(masks.flatten(2).numpy(), axis=2)).sum(2, dtype=np.int64)
        )
        present = ((pixels > 0).float() @ self._groups.float()) > 0
        self.area += pixels.sum(0)
        grid = Grid.under(masks.shape[2:], maps.shape[2:])
        if grid is not None:
            shared, active = map_counts(
                maps, self._level, masks, grid, compiled=self._compiled
            )  # int64 [N, U, K] and [N, U]
            self.overlap += shared.sum(0)
            self.active += active.sum(0)
            self.active_in += (active.double().T @ present.double()).long()
            return
        for row, mask, held in zip(maps, masks, present, strict=True):
            self._one(row, mask.flatten(1), held, (int(mask.shape[1]), int(mask.shape[2])))

    def _one(self, row: Tensor, mask: Tensor, held: Tensor, size: tuple[int, int]) -> None:
        # Bilinear values never exceed the largest cell, so units below their level everywhere are left out.
        units = (row.flatten(1).amax(1).double() > self._level).nonzero()[:, 0]
        if not len(units):
            return
        upsampled = F.interpolate(row[None, units].double(), size, mode="bilinear", align_corners=False)[0].flatten(1)
        lit = upsampled > self._level[units, None]
        count = lit.sum(1)
        # Products of 0 and 1 in float32 are exact up to 2^24 pixels.
        self.overlap[units] += (lit.float() @ mask.float().T).long()
        self.active[units] += count
        self.active_in[units] += count[:, None] * held

    def merge(self, other: Self) -> None:
        self.overlap += other.overlap
        self.active_in += other.active_in
        self.active += other.active
        self.area += other.area

    def state(self) -> State:
        return {name: getattr(self, name) for name in ("overlap", "active_in", "active", "area")}

    def load(self, state: State) -> None:
        self.overlap, self.active_in = state["overlap"].clone(), state["active_in"].clone()
        self.active, self.area = state["active"].clone(), state["area"].clone()

    def result(self) -> PixelTable:
        return PixelTable(self.overlap, self.active_in, self.active, self.area)


@dataclass(frozen=True)
class PixelSpec:
    """Counts at the image's resolution for known levels."""

    levels: tuple[float, ...]
    groups: tuple[tuple[bool, ...], ...]
    compiled: bool = False

    def __call__(self) -> PixelCounts:
        levels = torch.tensor(self.levels, dtype=torch.float64)
        return PixelCounts(levels, torch.tensor(self.groups), compiled=self.compiled)


@dataclass(frozen=True)
class KnownMasks(Stream):
    """The concept masks that an earlier pass has kept, bool [N, K, H, W]: no segmenter runs again."""

    masks: BitsResult = field(compare=False, repr=False)
    needs_images = False

    def of(self, batch: Batch) -> Tensor:
        return self.masks.unpack(batch.indices[0], batch.indices[-1] + 1)


def at_image_resolution(session: Session, result: Dissection, plan: Plan) -> Dissection:
    """The same dissection with IoU counted at the image's resolution: from kept neighbours, else from one more pass.

    The null and its test are those of the layer's grid; the null's mean and 95 % point are scaled by the same factor as the IoU.
    """
    categories = [concept.category for concept in result.concepts]
    groups = tuple(tuple(a == b for b in categories) for a in categories)
    masks = cast(BitsResult, session[Want((Masks(),), BitsSpec(), result.n)])
    units = sum(len(table.threshold) for table in result.layers)
    compiled = result.n * units * math.prod(masks.shape[1:]) >= WORTH
    if plan.around:
        return replace(
            result, layers=tuple(_kept(table, masks, torch.tensor(groups), compiled) for table in result.layers)
        )
    wants = {
        table.layer.name: Want(
            (Activations(table.layer.name), KnownMasks(masks)),
            PixelSpec(tuple(table.threshold.tolist()), groups, compiled),
            result.n,
        )
        for table in result.layers
    }
    session.prepare(wants.values())
    tables = [
        _refined(table, cast(PixelTable, session[wants[table.layer.name]]), masks.shape) for table in result.layers
    ]
    return replace(result, layers=tuple(tables))


def _kept(table: LayerTable, masks: BitsResult, groups: Tensor, compiled: bool) -> LayerTable:
    grid = Grid.under(masks.shape[1:], (table.layer.height, table.layer.width))
    if grid is None:
        raise ValueError(f"masks of {masks.shape[1:]} pixels do not divide into the cells of {table.layer.name}")
    return _refined(
        table, block_counts(table.tail, table.threshold, masks, grid, groups, compiled=compiled), masks.shape
    )


def _refined(table: LayerTable, counts: PixelTable, shape: tuple[int, ...]) -> LayerTable:
    fine = iou(counts.overlap, counts.active, counts.area)
    scale = torch.where(table.iou > 0, fine / table.iou.clamp(min=1e-20), 1.0)
    pixels = max(table.tail.count // (table.layer.height * table.layer.width), 1) * shape[1] * shape[2]
    active = counts.active.double() / pixels
    quality = information_quality(counts.overlap.double() / pixels, counts.area.double() / pixels, active[:, None])
    return replace(
        table,
        active=counts.active,
        fraction=active,
        iqr=quality.iqr,
        iou=fine,
        iou_in_category=iou(counts.overlap, counts.active_in, counts.area),
        null_iou=table.null_iou * scale,
        null_95=table.null_95 * scale,
        null_sd=table.null_sd * scale,
    )
