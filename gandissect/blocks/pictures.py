"""Blocks made of pictures: uint8 [H, W, 3], grids [N, H, W, 3].

ImageGrid(to_uint8(images), "the first 64 samples")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from gandissect.blocks.base import Block, Floats, Json, Pixels, Trust


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

    def to_json(self) -> dict[str, Json]:
        """The maps with three significant digits, as many as their colours show."""
        told = super().to_json()
        rounded = [float(f"{value:.3g}") if np.isfinite(value) else None for value in np.asarray(self.maps).flatten()]
        return {**told, "maps": {"shape": list(self.maps.shape), "values": rounded}}


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
