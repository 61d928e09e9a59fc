"""Edges by orientation and texture by local contrast, from the luminance alone.

Edges().segment(images, range(len(images)))         # bool [N, 4, H, W]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Concept, Segmenter
from gandissect.properties import luminance

ORIENTATIONS = ("horizontal edge", "diagonal edge /", "vertical edge", "diagonal edge \\")
COHERENCE = 0.5
STRENGTH = 0.03  # root of the structure tensor's trace, luminance 0..1 per pixel
_TINY = 1e-10  # far below STRENGTH⁴: keeps 0 / 0 away
FLAT, TEXTURED = 0.015, 0.06  # local standard deviation of the luminance


def box(maps: Tensor, radius: int) -> Tensor:
    """Local means over a square of ``2 * radius + 1`` pixels, borders replicated: same shape as float [N, C, H, W]."""
    wide = F.avg_pool2d(F.pad(maps, (radius, radius, 0, 0), mode="replicate"), (1, 2 * radius + 1), 1)
    return F.avg_pool2d(F.pad(wide, (0, 0, radius, radius), mode="replicate"), (2 * radius + 1, 1), 1)


def gradients(grey: Tensor) -> Tensor:
    """Central differences of float [N, 1, H, W] along x and y, borders replicated: float [N, 2, H, W]."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.cat([across, down], 1)


def local_variance(grey: Tensor, radius: int = 2) -> Tensor:
    """Variance of float [N, 1, H, W] in a square around each pixel, same shape."""
    centred = grey - 0.5
    both = box(torch.cat([centred, centred.square()], 1), radius)
    variance: Tensor = both[:, 1:] - both[:, :1].square()
    return variance.clamp(min=0)


def structure_tensor(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(xx + yy, xx − yy, xy) of the luminance's structure tensor in 3×3 pixels: float [N, 1, H, W] each."""
    across, down = gradients(luminance(images.float())).chunk(2, 1)
    xx, yy, xy = box(torch.cat([across.square(), down.square(), across * down], 1), 1).chunk(3, 1)
    return xx + yy, xx - yy, xy


def _more(left: Tensor, right: Tensor | float) -> Tensor:
    """left / (left + right) of two values ≥ 0: above 0.5 where ``left`` is more, with a finite slope everywhere."""
    return left / (left + right + _TINY)


class Edges(Segmenter):
    """Edges of four orientations where the structure tensor is strong and coherent.

    References:
        Bigün & Granlund 1987, Optimal Orientation Detection of Linear Symmetry.
    """

    name = "edges"

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(name, "edge") for name in ORIENTATIONS)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 4, H, W]; at most one orientation at a pixel."""
        trace, gap, xy = structure_tensor(images)
        # Bigün & Granlund 1987: the eigenvalues' difference over their sum is the coherence.
        coherence = torch.sqrt(gap.square() + 4 * xy.square()) / trace.clamp(min=1e-12)
        strong = (trace > STRENGTH**2) & (coherence > COHERENCE)
        # The gradient's angle is ½·atan2(2xy, xx − yy): sectors of 45° around 90°, −45° (rows grow downwards: "/"), 0°, 45°.
        level, slope = gap.abs() >= 2 * xy.abs(), xy > 0
        sectors = torch.cat([level & (gap < 0), ~level & slope, level & (gap >= 0), ~level & ~slope], 1)
        return sectors & strong

    def soft(self, images: Tensor) -> Tensor:
        """float32 [N, 4, H, W]: the least of three scores, for strength, coherence and orientation (Zadeh's fuzzy "and")."""
        trace, gap, xy = structure_tensor(images)
        level, slope = gap.square(), (2 * xy).square()
        strength, coherent = _more(trace, STRENGTH**2), _more(level + slope, COHERENCE**2 * trace.square())
        wanted = [
            _more(gap.clamp(max=0).square(), slope),
            _more(xy.clamp(min=0).square() * 4, level),
            _more(gap.clamp(min=0).square(), slope),
            _more(xy.clamp(max=0).square() * 4, level),
        ]
        return torch.minimum(torch.cat(wanted, 1), torch.minimum(strength, coherent))


class Texture(Segmenter):
    """Flat and textured surfaces by the standard deviation of luminance in 5×5 pixels; in between is neither."""

    name = "texture"

    @property
    def concepts(self) -> Sequence[Concept]:
        return (Concept("flat", "texture"), Concept("textured", "texture"))

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 2, H, W]."""
        deviation = local_variance(luminance(images.float())).sqrt()
        return torch.cat([deviation < FLAT, deviation > TEXTURED], 1)

    def soft(self, images: Tensor) -> Tensor:
        """float32 [N, 2, H, W]: the local variance against that at which the hard masks change."""
        variance = local_variance(luminance(images.float()))
        return torch.cat([1 - _more(variance, FLAT**2), _more(variance, TEXTURED**2)], 1)
