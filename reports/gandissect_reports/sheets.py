"""Many pictures in one: a WebP sheet, so that a page of ten thousand pictures has few elements.

sheet = make_sheet(images, columns=8, fidelity=Fidelity(), labels=names)
sheet.uri                                  # "data:image/webp;base64,…"
sheet.width, sheet.height                  # CSS pixels at which it is shown
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gandissect.blocks import Pixels

SMALLEST_SHOWN = 96  # CSS px: smaller pictures are enlarged without smoothing
WIDEST = 936  # CSS px of a figure in a window of 1280; wider sheets scroll
LABEL_ROOM = (0, 22, 39, 56)  # CSS px under a picture for none to three lines of words
LETTER = 6.8  # CSS px, about the width of one in labels
GAP = 4  # CSS px between pictures
WEBP_LIMIT = 16383  # px, of the format


@dataclass(frozen=True)
class Fidelity:
    """How much of the pictures is kept; lowered step by step to reach a size.

    Attributes:
        quality: of WebP, 0 to 100.
        cell: most pixels on the longer side of a picture in a sheet.
        samples: most pictures of a card; 0 for all.
        crisp: small pictures are kept at twice their size, so that their colours stay sharp.
    """

    quality: int = 88
    cell: int = 192
    samples: int = 0
    crisp: bool = False


@dataclass(frozen=True)
class Sheet:
    """A sheet in CSS pixels of the page: ``cell`` and ``pitch`` are width, height; it may shrink to ``least`` pixels of width."""

    uri: str
    count: int
    columns: int
    rows: int
    width: float
    height: float
    cell: tuple[float, float]
    pitch: tuple[float, float]
    least: float
    pixelated: bool


def make_sheet(
    images: Pixels,
    columns: int,
    *,
    fidelity: Fidelity,
    labels: Sequence[str] = (),
    smallest: int = SMALLEST_SHOWN,
    widest: int = WIDEST,
) -> Sheet:
    """All pictures on one sheet.

    Args:
        images: uint8 [N, H, W, 3], or [N, H, W, 4] with opacity.
        columns: pictures in a row.
        fidelity: quality and the largest picture.
        labels: words under the pictures, for which up to three lines are left.
        smallest: CSS pixels below which pictures are enlarged.
        widest: CSS pixels the sheet should not exceed, unless pictures would become smaller than ``smallest``.
    """
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    images = shrink(images, min(fidelity.cell, int(WEBP_LIMIT / (1.3 * max(rows, columns)))))
    height, width = images.shape[1:3]
    scale = _shown_scale(width, columns, smallest, widest)
    gap = max(1, round(GAP / scale)) if len(images) > 1 else 0
    below = math.ceil(LABEL_ROOM[_lines(labels, width * scale)] / scale) if any(labels) else gap
    pitch = (width + gap, height + below)
    canvas = _lay_out(images, columns, rows, pitch)
    if fidelity.crisp and scale >= 1.5 and 2 * max(canvas.shape) <= WEBP_LIMIT:
        canvas = canvas.repeat(2, axis=0).repeat(2, axis=1)  # WebP halves the resolution of colour; now it has enough
    return Sheet(
        uri=to_webp(canvas, fidelity.quality),
        count=len(images),
        columns=columns,
        rows=rows,
        width=round(columns * pitch[0] * scale, 2),
        height=round(rows * pitch[1] * scale, 2),
        cell=(round(width * scale, 2), round(height * scale, 2)),
        pitch=(round(pitch[0] * scale, 2), round(pitch[1] * scale, 2)),
        least=round(columns * (0.92 * pitch[0] * scale if any(labels) else min(pitch[0] * scale, smallest + GAP)), 2),
        pixelated=scale >= 2 and scale == int(scale),
    )


def _lay_out(images: Pixels, columns: int, rows: int, pitch: tuple[int, int]) -> Pixels:
    """The sheet, uint8 [H, W, 4]; colours go on through the unseen gaps, which compresses best."""
    canvas = np.zeros((rows * pitch[1], columns * pitch[0], 4), dtype=np.uint8)
    height, width, channels = images.shape[1:]
    for index, image in enumerate(images):
        top, left = (index // columns) * pitch[1], (index % columns) * pitch[0]
        cell = canvas[top : top + pitch[1], left : left + pitch[0]]
        cell[:height, :width, :channels] = image
        if channels == 3:
            cell[:height, :width, 3] = 255
        cell[height:, :width, :3] = image[-1:, :, :3]
        cell[:, width:, :3] = cell[:, width - 1 : width, :3]
    return canvas


def _lines(labels: Sequence[str], width: float) -> int:
    """How many lines the longest of ``labels`` takes in ``width`` CSS pixels: at most three."""
    lines = max(map(len, labels)) * LETTER / (width - GAP)
    return 1 if lines <= 1 else 2 if lines <= 1.7 else 3  # words do not fill their lines


def _shown_scale(width: int, columns: int, smallest: int, widest: int) -> float:
    """CSS pixels for each pixel of a picture: a whole number where pictures are enlarged and there is room."""
    room = widest / columns - GAP
    wanted = math.ceil(smallest / width) if width < smallest else 1
    if wanted * width <= room:
        return float(wanted)
    whole = math.floor(room / width)
    if whole * width >= smallest:
        return float(whole)
    return max(smallest, room) / width


def label_width(labels: Sequence[str], most: int) -> int:
    """Whole CSS pixels for names at the left of pictures (at a broken place pixelated pictures get a false edge)."""
    return round(min(float(most), 8 + LETTER * max(map(len, labels), default=0)))


def shrink(images: Pixels, longest: int) -> Pixels:
    """Pictures whose longer side is at most ``longest`` pixels, uint8 [N, h, w, C]."""
    from PIL import Image

    height, width = images.shape[1:3]
    factor = longest / max(height, width)
    if factor >= 1:
        return images
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images])


def resize_maps(maps: Pixels, height: int, width: int) -> Pixels:
    """Pictures at another size without smoothing between values when enlarged, uint8 [N, height, width, C]."""
    from PIL import Image

    how = Image.Resampling.BICUBIC if maps.shape[1] < height else Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(item).resize((width, height), how)) for item in maps])


def to_webp(pixels: Pixels, quality: int) -> str:
    """One picture uint8 [H, W, 3 or 4] as a ``data:`` address; same pixels and quality, same text."""
    from PIL import Image

    opaque = pixels.shape[-1] == 4 and bool((pixels[..., 3] == 255).all())
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3] if opaque else pixels))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=2, exact=True)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def to_png(pixels: Pixels) -> str:
    """One picture uint8 [H, W, 3] as a lossless ``data:`` address, for pictures whose pixels are values."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
