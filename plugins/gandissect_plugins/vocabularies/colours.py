"""The eleven basic colour terms, and light and dark, told from each pixel's colour alone.

Colours().segment(images, range(len(images)))       # bool [N, 11, H, W]
colour_name((0.9, 0.1, 0.1))                        # "red"
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Concept, Segmenter

COLOURS = ("black", "blue", "brown", "grey", "green", "orange", "pink", "purple", "red", "white", "yellow")
GREYS = ("black", "grey", "white")
LIGHT = ("dark", "bright", "vivid", "pale")

# Berlin & Kay 1969: eleven basic terms. Boundaries in CIELAB lightness L, chroma C and hue h (degrees).
_BLACK, _WHITE = 16.4, 78.4  # L of what has no hue
_NEUTRAL = 9.5  # C below which a colour has no hue ...
_NEUTRAL_DARK = 16.0  # ... and where it is nearly black, because little chroma is seen there
_HUES = (41.6, 77.1, 114.0, 187.2, 308.0, 346.7, 366.3)  # red | orange | yellow | green | blue | purple | pink | red
_HUE_NAMES = ("orange", "yellow", "green", "blue", "purple", "pink", "red")
_BROWN_ORANGE, _BROWN_YELLOW, _BROWN_RED = 57.5, 45.4, 27.9  # L below which orange, yellow and weak red are brown
_WEAK = 47.5  # C below which a dark red is brown and a light red is pink
_PINK_RED, _DEEP_PINK = 57.5, 45.4  # L above which a weak red is pink, and below which pink is purple or red
_STEPS = 32  # colours per channel in the table
_BORDER = 1.5  # cells of the table over which a soft score goes from 0.5 to 0.73


def rgb_to_lch(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """CIELAB lightness 0..100, chroma and hue 0..360 (D65, 2°) of sRGB float [..., 3] in 0..1."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4)
    matrix = rgb.new_tensor(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = linear @ matrix.T / rgb.new_tensor([0.95047, 1.0, 1.08883])
    f = torch.where(
        xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29
    )  # CIE 15:2004
    a, b = 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    hue = torch.rad2deg(torch.atan2(b, a)) % 360
    return 116 * f[..., 1] - 16, torch.hypot(a, b), hue


def basic_colour(rgb: Tensor) -> Tensor:
    """The place in ``COLOURS`` of each sRGB colour float [..., 3] in 0..1: int64 [...]."""
    light, chroma, hue = rgb_to_lch(rgb)
    turned = torch.where(hue < _HUES[-1] - 360, hue + 360, hue)
    sector = torch.bucketize(turned, torch.tensor(_HUES))
    named = torch.tensor([COLOURS.index(name) for name in ("red", *_HUE_NAMES)])[sector]

    def put(where: Tensor, name: str) -> None:
        named[where] = COLOURS.index(name)

    red, orange, yellow, pink = (named == COLOURS.index(name) for name in ("red", "orange", "yellow", "pink"))
    put(orange & (light < _BROWN_ORANGE), "brown")
    put(yellow & (light < _BROWN_YELLOW), "brown")
    put(red & (light < _BROWN_RED) & (chroma < _WEAK), "brown")
    put(red & (light > _PINK_RED) & (chroma < _WEAK), "pink")
    put(pink & (light < _DEEP_PINK), "purple")
    limit = _NEUTRAL + (_NEUTRAL_DARK - _NEUTRAL) * (1 - light / 30).clamp(0, 1)
    grey = chroma < limit
    put(grey, "grey")
    put(light < _BLACK * (0.5 + 0.5 * (1 - chroma / 60).clamp(0, 1)), "black")
    put(grey & (light > _WHITE), "white")
    return named


def _cube() -> Tensor:
    """The middle of every cell of the colour table: float [_STEPS³, 3] in 0..1, blue fastest."""
    axis = torch.arange(_STEPS) / (_STEPS - 1)
    return torch.cartesian_prod(axis, axis, axis)


def _places(images: Tensor) -> Tensor:
    """Each pixel's place in the colour table: int64 [N, H, W]; grey images are repeated to three channels."""
    steps = ((images[:, :3].float() + 1) * ((_STEPS - 1) / 2)).round().clamp(0, _STEPS - 1).nan_to_num().long()
    red, green, blue = steps.expand(-1, 3, -1, -1).unbind(1) if steps.shape[1] == 1 else steps[:, :3].unbind(1)
    return (red * _STEPS + green) * _STEPS + blue


@cache
def _colour_table() -> Tensor:
    return basic_colour(_cube()).to(torch.uint8)


@cache
def _light_table() -> Tensor:
    """bool [4, _STEPS³]: dark below L 25, bright above L 75, vivid above C 50, pale between C 5 and 20 above L 50."""
    light, chroma, _ = rgb_to_lch(_cube())
    return torch.stack([light < 25, light > 75, chroma > 50, (chroma > 5) & (chroma < 20) & (light > 50)])


def _soft_volume(inside: Tensor) -> Tensor:
    """A score in 0..1 for every cell of the table, above 0.5 exactly inside: float32 [K, _STEPS, _STEPS, _STEPS].

    The logistic function of the signed distance to the border of the region, in cells: smooth where the rule has corners and
    where hue has no meaning, so that its slope is finite for every colour.

    Args:
        inside: bool [K, _STEPS³].
    """
    scores = []
    for region in inside.reshape(-1, _STEPS, _STEPS, _STEPS).numpy():
        if region.all() or not region.any():
            scores.append(torch.full((_STEPS,) * 3, float(region.any())))
            continue
        distance = distance_transform_edt(region) - distance_transform_edt(~region)  # never 0: ±1 beside the border
        scores.append(torch.sigmoid(torch.from_numpy(distance).float() / _BORDER))
    return torch.stack(scores)


def _soft_score(volume: Tensor, images: Tensor) -> Tensor:
    """Scores between the cells of a table, linear in each channel and differentiable: float32 [N, K, H, W]."""
    red, green, blue = images[:, :3].float().clamp(-1, 1).nan_to_num().expand(-1, 3, -1, -1).unbind(1)
    places = torch.stack([blue, green, red], -1)[:, None]  # grid_sample counts the last dimension first
    table = volume.to(images.device).expand(len(images), -1, -1, -1, -1)
    return F.grid_sample(table, places, padding_mode="border", align_corners=True)[:, :, 0]


@cache
def _soft_colours() -> Tensor:
    return _soft_volume(_colour_table() == torch.arange(len(COLOURS))[:, None])


@cache
def _soft_light() -> Tensor:
    return _soft_volume(_light_table())


def colour_name(rgb: Sequence[float]) -> str:
    """The basic colour term of one sRGB colour in 0..1."""
    return COLOURS[int(basic_colour(torch.tensor(list(rgb), dtype=torch.float32)[None])[0])]


class Colours(Segmenter):
    """Eleven basic colour terms by a rule in CIELAB; a grey image has black, grey and white only.

    References:
        Berlin & Kay 1969, Basic Color Terms; van de Weijer et al. 2009, Learning Color Names for Real-World Applications.
    """

    name = "colours"

    def __init__(self, grey: bool = False) -> None:
        self._names = GREYS if grey else COLOURS

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "colour") for name in self._names)

    def fitted(self, images: Tensor) -> Colours:
        """Three terms instead of eleven where the images have one channel."""
        return Colours(grey=images.shape[1] == 1)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 11, H, W] (3 when fitted to grey images): each pixel has exactly one term."""
        terms = _colour_table()[_places(images)]
        numbers = torch.tensor([COLOURS.index(name) for name in self._names], dtype=torch.uint8)
        return terms[:, None] == numbers[:, None, None]

    def soft(self, images: Tensor) -> Tensor:
        """float32 [N, 11, H, W] (3 when fitted to grey images): by the distance, in RGB, to the border of each term's region."""
        rows = [COLOURS.index(name) for name in self._names]
        return _soft_score(_soft_colours()[rows], images)


class Light(Segmenter):
    """Dark and bright by CIELAB lightness, vivid and pale by chroma; a pixel may be none of them."""

    name = "light"

    def __init__(self, grey: bool = False) -> None:
        self._names = LIGHT[:2] if grey else LIGHT

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "light" if name in LIGHT[:2] else "saturation") for name in self._names)

    def fitted(self, images: Tensor) -> Light:
        """Dark and bright only where the images have one channel."""
        return Light(grey=images.shape[1] == 1)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 4, H, W] (2 when fitted to grey images)."""
        places, table = _places(images), _light_table()
        return torch.stack([table[row][places] for row in range(len(self._names))], 1)

    def soft(self, images: Tensor) -> Tensor:
        """float32 [N, 4, H, W] (2 when fitted to grey images): by the distance, in RGB, to the border of each region."""
        return _soft_score(_soft_light()[: len(self._names)], images)
