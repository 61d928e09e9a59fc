"""How evenly the image changes along a path through the latents.

found = perceptual_path_length(features_of, starts, ends, positions)
found.mean, found.lengths
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import UsageError
from gandissect.metrics.arrays import Matrix

STEP = 1e-4
KEPT = (1.0, 99.0)
"""Percentiles between which lengths count."""


@dataclass(frozen=True)
class PathLength:
    """Squared lengths per squared step.

    Attributes:
        mean: over the lengths between the 1st and 99th percentile.
        kept: float64 [K], those lengths.
        lengths: float64 [N], all of them, in the order of the paths.
    """

    mean: float
    kept: Matrix
    lengths: Matrix


def slerp(start: Tensor, end: Tensor, position: Tensor) -> Tensor:
    """Points on the great circle between the directions of two latents, with lengths interpolated linearly.

    Shoemake 1985. Normal latents keep their typical length along it, which a straight line does not.

    Args:
        start: float [N, D].
        end: float [N, D].
        position: float [N] in 0..1.
    """
    a, b = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    first, second = start / a.clamp(min=1e-12), end / b.clamp(min=1e-12)
    angle = torch.acos((first * second).sum(1, keepdim=True).clamp(-1 + 1e-7, 1 - 1e-7))
    t = position[:, None]
    direction = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)
    points: Tensor = direction * ((1 - t) * a + t * b)
    return points


def perceptual_path_length(
    features_of: Callable[[Tensor], Tensor],
    starts: Tensor,
    ends: Tensor,
    positions: Tensor,
    *,
    step: float = STEP,
    spherical: bool = True,
) -> PathLength:
    """Mean of d(g(t), g(t + ε)) / ε² over paths (Karras et al. 2019, eq. 2 and 3), d the mean squared difference of features.

    With LPIPS as features it is the published PPL; in any other space, name that space.

    Args:
        features_of: latents float32 [N, D] to features [N, …]; called twice, with a point of each path.
        starts: float [N, D].
        ends: float [N, D].
        positions: float [N] in 0..1, where on the path is measured.
        step: ε.
        spherical: along great circles (for normal latents) or along straight lines (for w and for uniform ones).

    Raises:
        UsageError: no path, or shapes that differ.
    """
    if starts.shape != ends.shape or len(positions) != len(starts) or not len(starts):
        shapes = ", ".join(str(tuple(part.shape)) for part in (starts, ends, positions))
        raise UsageError(f"expected starts [N, D], ends [N, D] and positions [N] with N at least 1, got {shapes}")
    first, last, t = starts.double(), ends.double(), positions.double()

    def at(place: Tensor) -> Tensor:
        point = slerp(first, last, place) if spherical else torch.lerp(first, last, place[:, None])
        return features_of(point.float()).double().flatten(1)

    lengths = ((at(t + step) - at(t)).square().mean(1) / step**2).numpy()
    low = np.percentile(lengths, KEPT[0], method="lower")
    high = np.percentile(lengths, KEPT[1], method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    return PathLength(float(kept.mean()), kept, lengths)
