"""Draw landscapes whose every pixel has a known concept.

from gandissect.demo.scenes import CONCEPTS, scenes

images, masks, attributes = scenes(seed=0, indices=range(16))
masks[:, CONCEPTS.index("moon")]    # bool [16, 64, 64]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

SIZE = 64
CONCEPTS: tuple[str, ...] = (
    "sky", "cloud", "sun", "moon", "hill", "ground", "tree", "house", "window", "water",
)  # fmt: skip
ATTRIBUTES: tuple[str, ...] = (
    "day", "dusk", "night", "sun", "moon", "clouds", "hills", "trees", "house", "lit", "water", "autumn",
)  # fmt: skip

_DRAWS = 96  # uniform numbers one scene may consume
_SLOTS = 4  # places along the ground, one object each
_ROWS, _COLUMNS = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32), indexing="ij")

# day, dusk, night
_SKY_TOP = np.array([[0.22, 0.50, 0.93], [0.36, 0.25, 0.55], [0.02, 0.03, 0.15]], np.float32)
_SKY_LOW = np.array([[0.75, 0.90, 1.00], [1.00, 0.62, 0.32], [0.12, 0.18, 0.42]], np.float32)
_LIGHT = np.array([[1.00, 1.00, 1.00], [0.85, 0.66, 0.60], [0.34, 0.38, 0.54]], np.float32)
_CLOUD = np.array([[0.98, 0.98, 1.00], [1.00, 0.72, 0.66], [0.32, 0.35, 0.50]], np.float32)
_WALLS = np.array([[0.95, 0.90, 0.80], [0.80, 0.40, 0.32], [0.95, 0.78, 0.40], [0.62, 0.72, 0.86]], np.float32)
_ROOFS = np.array([[0.68, 0.20, 0.16], [0.42, 0.27, 0.20], [0.34, 0.36, 0.42]], np.float32)


@dataclass(frozen=True)
class Scene:
    """One landscape.

    Attributes:
        image: float32 [3, 64, 64] in [-1, 1].
        masks: bool [K, 64, 64] in the order of ``CONCEPTS``.
        attributes: float32 [A] in the order of ``ATTRIBUTES``.
    """

    image: Floats
    masks: Bools
    attributes: Floats


def scene(seed: int, index: int) -> Scene:
    """The landscape number ``index`` of ``seed``; a function of these two only."""
    images, masks, attributes = scenes(seed, [index])
    return Scene(images[0], masks[0], attributes[0])


def scenes(seed: int, indices: Iterable[int]) -> tuple[Floats, Bools, Floats]:
    """Several landscapes at once, each the same as when drawn alone.

    Every pixel belongs to the topmost thing that covers at least half of it. ``house`` includes its windows, ``sky``
    its stars; all other concepts exclude each other.

    Args:
        seed: which family of landscapes.
        indices: which of the family, N of them.

    Returns:
        Images float32 [N, 3, 64, 64] in [-1, 1], masks bool [N, K, 64, 64], attributes float32 [N, A].
    """
    bytes_, labels, attributes = scene_bytes(seed, indices)
    return bytes_to_images(bytes_), labels_to_masks(labels), attributes


def scene_bytes(seed: int, indices: Iterable[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Floats]:
    """Landscapes in a compact form, to hold many in memory.

    Returns:
        Pixels uint8 [N, 64, 64, 3], topmost concept uint8 [N, 64, 64], attributes float32 [N, A].
    """
    numbers = list(indices)
    parts = [_draw(_Draws(seed, numbers[i : i + 64])) for i in range(0, len(numbers), 64)]
    if not parts:
        empty = np.zeros((0, SIZE, SIZE), np.uint8)
        return empty[..., None].repeat(3, -1), empty, np.zeros((0, len(ATTRIBUTES)), np.float32)
    pixels, labels, attributes = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels), np.concatenate(attributes)


def bytes_to_images(pixels: NDArray[np.uint8]) -> Floats:
    """Float32 [N, 3, 64, 64] in [-1, 1] of uint8 [N, 64, 64, 3]."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(127.5) - np.float32(1)


def labels_to_masks(labels: NDArray[np.uint8]) -> Bools:
    """Bool [N, K, 64, 64] of topmost concepts uint8 [N, 64, 64]; a window is also part of its house."""
    masks: Bools = labels[:, None] == np.arange(len(CONCEPTS), dtype=np.uint8)[None, :, None, None]
    masks[:, CONCEPTS.index("house")] |= masks[:, CONCEPTS.index("window")]
    return masks


class _Draws:
    """Uniform numbers for N scenes, taken column by column; row i depends on (seed, indices[i]) only."""

    def __init__(self, seed: int, indices: list[int]) -> None:
        rows = [np.random.default_rng([seed, index]).random(_DRAWS, dtype=np.float32) for index in indices]
        self._table = np.stack(rows)
        self._next = 0

    def between(self, low: float, high: float) -> Floats:
        """Float32 [N, 1, 1] in low..high."""
        column = self._table[:, self._next, None, None]
        self._next += 1
        return np.float32(low) + np.float32(high - low) * column

    def chance(self, probability: float | Floats) -> Bools:
        """Bool [N, 1, 1], true with this probability."""
        result: Bools = self.between(0, 1) < probability
        return result

    def pick(self, palette: Floats) -> Floats:
        """Float32 [N, 1, 1, 3], one of the palette's colours each."""
        column = (self.between(0, 1)[:, 0, 0] * len(palette)).astype(np.int64)
        return palette[np.minimum(column, len(palette) - 1)][:, None, None]


class _Canvas:
    """N pictures under construction and, at each pixel, the concept on top."""

    def __init__(self, background: Floats, light: Floats) -> None:
        self.image = background.copy()
        self.light = light  # float32 [N, 1, 1, 3], what colours on the ground are multiplied by
        self.labels = np.full(background.shape[:3], CONCEPTS.index("sky"), np.uint8)

    def paint(self, concept: str, distance: Floats, colour: Floats, where: Bools | None = None) -> None:
        """Cover what is inside a shape.

        Args:
            concept: what is painted.
            distance: float32 [N, 64, 64] in pixels, negative inside; edges are blended over one pixel.
            colour: float32 broadcastable to [N, 64, 64, 3] in 0..1.
            where: bool [N, 1, 1], the scenes that have this; all by default.
        """
        cover = np.clip(np.float32(0.5) - distance, 0, 1)
        if where is not None:
            cover *= where
        self.image += cover[..., None] * (colour - self.image)
        self.labels[cover >= 0.5] = CONCEPTS.index(concept)


def _draw(u: _Draws) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Floats]:
    """Pixels uint8 [N, 64, 64, 3], concepts uint8 [N, 64, 64] and attributes float32 [N, A] of one batch."""
    hour = np.digitize(u.between(0, 1)[:, 0, 0], [0.50, 0.66])  # 0 day, 1 dusk, 2 night
    autumn = u.chance(0.3)
    horizon = u.between(37, 44)
    canvas = _Canvas(_sky(u, hour, horizon), _LIGHT[hour][:, None, None])
    sun, moon, x = _sun_and_moon(u, canvas, hour)
    clouds = _clouds(u, canvas, hour)
    hills = _hills(u, canvas, horizon)
    ground = _ground(u, canvas, autumn, horizon)
    water = _water(u, canvas, hour, (sun | moon), x)
    house, lit, slot = _house(u, canvas, hour, ground)
    trees = _trees(u, canvas, autumn, ground, np.where(house, slot, -1))
    columns = (hour == 0, hour == 1, hour == 2, sun, moon, clouds, hills, trees, house, lit, water, autumn)
    attributes = np.stack([np.asarray(column, np.float32).reshape(-1) for column in columns], axis=1)
    return np.rint(np.clip(canvas.image, 0, 1) * 255).astype(np.uint8), canvas.labels, attributes


def _sky(u: _Draws, hour: NDArray[np.int64], horizon: Floats) -> Floats:
    """Float32 [N, 64, 64, 3] in 0..1: a vertical gradient, with stars by night."""
    height = np.clip(_ROWS / horizon, 0, 1)[..., None]
    top, low = _SKY_TOP[hour][:, None, None], _SKY_LOW[hour][:, None, None]
    sky = top + (low - top) * height * height
    sky = sky * u.between(0.9, 1.05)[..., None]
    stars = np.zeros(sky.shape[:3], np.float32)
    for _ in range(6):
        across, down = u.between(2, 62), u.between(2, 30)
        stars += np.exp(-((_COLUMNS - across) ** 2 + (_ROWS - down) ** 2) * np.float32(1.4))
    bright = (hour == 2).astype(np.float32)[:, None, None]
    sky = np.clip(sky + (stars * bright * np.float32(0.8))[..., None], 0, 1)
    return np.asarray(sky, np.float32)


def _sun_and_moon(u: _Draws, canvas: _Canvas, hour: NDArray[np.int64]) -> tuple[Bools, Bools, Floats]:
    """Which scenes got a sun and a moon, bool [N, 1, 1] each, and at which column, float32 [N, 1, 1]."""
    when = hour[:, None, None]
    there = u.chance(0.75)
    sun, moon = there & (when < 2), there & (when == 2)
    x, y = u.between(8, 56), u.between(8, 18) + np.float32(9) * (when == 1)
    radius = u.between(4.6, 6.0)
    away = np.hypot(_COLUMNS - x, _ROWS - y)
    glow = np.exp(-np.maximum(away - radius, 0) / np.float32(5)) * np.float32(0.35)
    yellow, orange = _colour([1.0, 0.90, 0.30]), _colour([1.0, 0.50, 0.15])
    colour = np.where(when[..., None] == 1, orange, yellow)
    canvas.image += (glow * sun)[..., None] * (colour - canvas.image)
    canvas.paint("sun", away - radius, colour, sun)
    crater = np.hypot(_COLUMNS - x + 1.5, _ROWS - y - 1) - np.float32(1.6)
    grey = _colour([0.92, 0.92, 0.84]) - np.float32(0.16) * np.clip(0.5 - crater, 0, 1)[..., None]
    canvas.paint("moon", away - radius, grey, moon)
    return sun, moon, x


def _clouds(u: _Draws, canvas: _Canvas, hour: NDArray[np.int64]) -> Floats:
    """How many clouds, float32 [N, 1, 1] in 0..2."""
    count = np.zeros((len(hour), 1, 1), np.float32)
    for side in (0, 1):
        there = u.chance(0.45)
        x, y, size = u.between(8, 28) + np.float32(28 * side), u.between(7, 22), u.between(3.6, 5.2)
        left, right = size * u.between(0.8, 1.1), size * u.between(0.8, 1.1)
        middle = np.hypot(_COLUMNS - x, _ROWS - y + size * np.float32(0.35)) - size
        west = np.hypot(_COLUMNS - x + size, _ROWS - y) - left * np.float32(0.75)
        east = np.hypot(_COLUMNS - x - size, _ROWS - y) - right * np.float32(0.75)
        flat = _ROWS - (y + size * np.float32(0.5))
        shape = np.maximum(np.minimum(np.minimum(middle, west), east), flat)
        canvas.paint("cloud", shape, _CLOUD[hour][:, None, None], there)
        count += there
    return count


def _hills(u: _Draws, canvas: _Canvas, horizon: Floats) -> Floats:
    """How many ranges of hills, float32 [N, 1, 1] in 0..2."""
    count = np.zeros_like(horizon)
    far, near = _colour([0.50, 0.58, 0.70]), _colour([0.33, 0.50, 0.42])
    for colour, chance, low, high in ((far, 0.5, 7.0, 13.0), (near, 0.5, 3.0, 8.0)):
        there = u.chance(chance)
        wave = np.sin(_COLUMNS * u.between(0.10, 0.17) + u.between(0, 6.2832))
        crest = horizon - u.between(low, high) - np.float32(4) * wave
        canvas.paint("hill", crest - _ROWS, colour * canvas.light, there)
        count += there
    return count


def _ground(u: _Draws, canvas: _Canvas, autumn: Bools, horizon: Floats) -> Floats:
    """The row at which the ground begins, float32 [N, 1, 64]."""
    crest: Floats = horizon + np.float32(1.5) * np.sin(_COLUMNS[:1] * np.float32(0.08) + u.between(0, 6.2832))
    green, straw = _colour([0.40, 0.68, 0.27]), _colour([0.74, 0.64, 0.32])
    colour = np.where(autumn[..., None], straw, green) * canvas.light
    shade = np.float32(1.05) - np.float32(0.012) * np.maximum(_ROWS - crest, 0)
    canvas.paint("ground", crest - _ROWS, colour * shade[..., None])
    return crest


def _water(u: _Draws, canvas: _Canvas, hour: NDArray[np.int64], shining: Bools, x: Floats) -> Bools:
    """Which scenes have water along the bottom, bool [N, 1, 1]; it mirrors the sky, and what shines in it."""
    there = u.chance(0.5)
    shore = u.between(51, 56) + np.sin(_COLUMNS * np.float32(0.13) + u.between(0, 6.2832))
    ripple = np.sin((_ROWS - shore) * np.float32(1.9) + np.float32(0.15) * _COLUMNS) * np.float32(0.05)
    colour = _colour([0.75, 0.85, 0.95]) * (_SKY_TOP[hour] * 0.65 + _SKY_LOW[hour] * 0.35)[:, None, None]
    glint = np.exp(-(((_COLUMNS - x) / np.float32(3.5)) ** 2)) * shining * np.float32(0.45)
    gleam = np.array([[1.0, 0.95, 0.7], [1.0, 0.65, 0.35], [0.9, 0.9, 0.8]], np.float32)[hour][:, None, None]
    colour = colour + glint[..., None] * (gleam - colour) + ripple[..., None]
    canvas.paint("water", shore - _ROWS, colour, there)
    return there


def _house(
    u: _Draws, canvas: _Canvas, hour: NDArray[np.int64], ground: Floats
) -> tuple[Bools, Bools, NDArray[np.int64]]:
    """Which scenes have a house, which have its windows lit, bool [N, 1, 1] each, and in which slot it stands."""
    there = u.chance(0.65)
    lit = there & u.chance(np.array([0.0, 0.5, 0.9], np.float32)[hour][:, None, None])
    slot = np.minimum(u.between(0, _SLOTS), _SLOTS - 0.01).astype(np.int64)
    x = np.clip(_slot_x(slot) + u.between(-3, 3), 11, 53)
    half, tall, roof = u.between(7.5, 9.5), u.between(10, 12.5), u.between(6, 8)
    base = ground.mean(axis=2, keepdims=True) + u.between(5, 7)
    aside, top = np.abs(_COLUMNS - x), base - tall
    wall = np.maximum(np.maximum(aside - half, top - _ROWS), _ROWS - base)
    slope = (half + np.float32(1.5)) / roof
    gable = np.maximum((aside - (_ROWS - top + roof) * slope) / np.hypot(1, slope), _ROWS - top)
    canvas.paint("house", wall, u.pick(_WALLS) * canvas.light, there)
    canvas.paint("house", gable, u.pick(_ROOFS) * canvas.light, there)
    glass = np.where(lit[..., None], _colour([1.0, 0.86, 0.35]), _colour([0.25, 0.36, 0.48]) * canvas.light)
    beside = np.abs(aside - half * np.float32(0.5)) - np.float32(2.0)
    pane = np.maximum(beside, np.abs(_ROWS - (top + tall * np.float32(0.42))) - np.float32(2.2))
    canvas.paint("window", pane, glass, there)
    return there, lit, slot


def _trees(u: _Draws, canvas: _Canvas, autumn: Bools, ground: Floats, taken: NDArray[np.int64]) -> Floats:
    """How many trees, float32 [N, 1, 1] in 0..4; none where the house stands."""
    count = np.zeros_like(canvas.light[..., 0])
    trunk = _colour([0.40, 0.27, 0.17]) * canvas.light
    leaf = np.where(autumn[..., None], _colour([0.82, 0.42, 0.12]), _colour([0.16, 0.44, 0.16])) * canvas.light
    needle = _colour([0.08, 0.32, 0.24]) * canvas.light
    for slot in range(_SLOTS):
        there = u.chance(0.45) & (taken != slot)
        conifer = u.chance(0.35)
        x = _slot_x(np.int64(slot)) + u.between(-3, 3)
        base = ground.mean(axis=2, keepdims=True) + u.between(3, 9)
        radius = u.between(4.6, 6.2)
        aside = np.abs(_COLUMNS - x)
        stem = np.maximum(np.maximum(aside - np.float32(1.1), base - 7 - _ROWS), _ROWS - base)
        canvas.paint("tree", stem, trunk, there)
        crown = np.hypot(aside, _ROWS - (base - 5 - radius)) - radius
        tip = base - 4 - np.float32(2.6) * radius
        cone = np.maximum((aside - (_ROWS - tip) * np.float32(0.38)) * np.float32(0.93), _ROWS - (base - 4))
        shape = np.where(conifer, cone, crown)
        shade = np.float32(1) + np.float32(0.02) * (x - _COLUMNS)
        canvas.paint("tree", shape, np.where(conifer[..., None], needle, leaf) * shade[..., None], there)
        count += there
    return count


def _colour(red_green_blue: list[float]) -> Floats:
    """Float32 [3] in 0..1."""
    return np.array(red_green_blue, np.float32)


def _slot_x(slot: NDArray[np.int64] | np.int64) -> Floats:
    """The middle column of a slot."""
    return np.asarray(SIZE / _SLOTS * (slot + 0.5), np.float32)
