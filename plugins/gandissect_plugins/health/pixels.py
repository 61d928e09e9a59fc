"""The signal itself: pixels that are no numbers, empty pictures, clipped colours, the spectrum, the checkerboard.

found = pixel_health(images)
found.power                              # float64 [R], power at radius 1, 2, ... of the Fourier plane
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.properties import checkerboard, clipping

EMPTY = 1e-3
"""Standard deviation of a picture's pixels below which it is empty."""
FEWEST_RADII = 6


@dataclass(frozen=True)
class PixelHealth:
    """What pixels say.

    Attributes:
        broken: share of images with a pixel that is not finite.
        empty: share of images whose pixels all have one value.
        clipped: float64 [N], percent of values at either end.
        checker: float64 [N], percent of the variation at the Nyquist frequency.
        smooth: percent that a power law through the rest of the spectrum gives there; NaN for small or empty images.
        power: float64 [R], mean power per coefficient at radii 1 to R, as a part of the total.
        fitted: float64 [R], the power law.
        high: float64 [N], percent of each image's variation above half the Nyquist frequency.
    """

    broken: float
    empty: float
    clipped: NDArray[np.float64]
    checker: NDArray[np.float64]
    smooth: float
    power: NDArray[np.float64]
    fitted: NDArray[np.float64]
    high: NDArray[np.float64]


def pixel_health(images: Tensor) -> PixelHealth:
    """Everything about images float32 [N, C, H, W] in [-1, 1]."""
    finite = images.isfinite().flatten(1).all(1)
    clean = torch.nan_to_num(images.double(), posinf=1.0, neginf=-1.0)
    empty = clean.flatten(1).std(1, correction=0) < EMPTY
    height, width = (size - size % 2 for size in images.shape[2:])
    if not height or not width:
        none, zero = np.zeros(0), np.zeros(len(images))
        share = float((~finite).double().mean()), float(empty.double().mean())
        return PixelHealth(*share, clipping(clean).numpy(), zero, float("nan"), none, none, zero)
    even = clean[..., :height, :width]
    power = torch.fft.fft2(even - even.mean((2, 3), keepdim=True)).abs().square().mean(1)  # [N, H, W]
    power = power / power.sum((1, 2), keepdim=True).clamp(min=1e-12)
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None] * height, torch.fft.fftfreq(width)[None] * width).double()
    beyond = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]) > 0.25
    mean = power[~empty].mean(0) if (~empty).any() else power.mean(0) * 0
    radial, fitted, smooth = _power_law(mean, radius)
    return PixelHealth(
        float((~finite).double().mean()),
        float(empty.double().mean()),
        clipping(clean).numpy(),
        checkerboard(clean).numpy(),
        smooth,
        radial,
        fitted,
        100 * (power * beyond).sum((1, 2)).numpy(),
    )


def _power_law(power: Tensor, radius: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(radial mean [R], power law [R], percent of the total that it gives at the Nyquist frequency) of power [H, W]."""
    count = min(power.shape) // 2
    rings = radius.round().long()
    sums = torch.bincount(rings.flatten(), power.flatten(), minlength=count + 1)[1 : count + 1]
    radial = (sums / torch.bincount(rings.flatten(), minlength=count + 1)[1 : count + 1].clamp(min=1)).numpy()
    radii = np.arange(1, count + 1)
    inside = (radii >= 2) & (radii <= 0.75 * count) & (radial > 0)
    if count < FEWEST_RADII or inside.sum() < 3:
        return radial, np.full(count, np.nan), float("nan")
    slope, offset = np.polyfit(np.log(radii[inside]), np.log(radial[inside]), 1)
    law = np.exp(offset) * radius.clamp(min=1).numpy() ** slope
    edge = np.zeros(law.shape, bool)
    edge[law.shape[0] // 2], edge[:, law.shape[1] // 2] = True, True
    return radial, np.exp(offset) * radii**slope, 100 * float(law[edge].sum() / max(float(power.sum()), 1e-12))
