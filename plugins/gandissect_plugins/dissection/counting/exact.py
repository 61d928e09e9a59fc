"""The level of greatest information quality as it is defined: upsampled activations, their exact quantiles, all levels counted.

found = exact_levels(activations, masks, groups)    # float [N, U, h, w], bool [N, K, H, W], bool [K, K]
found.level, found.concept                          # float64 [U], int64 [U]

Slow and in memory; :func:`~.levels.best_levels` gets nearly the same from one streaming pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .levels import AGREEMENT, FRACTIONS, RAREST, information_quality

UNTALLIED = 1e-4
"""The reference does not count concepts that cover less; they are taken to be wholly active."""


@dataclass(frozen=True)
class ExactLevels:
    """The greatest information quality ratio of each pair and where it is; float64 [U, K] but for the last four.

    Attributes:
        iqr, iqr_level, iqr_fraction, agreement, iou: the maximum over ``FRACTIONS``, the level and the fraction it is at, and what holds
            there.
        levels: float64 [U, 100], the activation at each fraction.
        every: float64 [U, K, 100], the ratio at each level, 0 where it does not count.
        concept: int64 [U], whose maximum is the greatest; ``level`` float64 [U], its level.
    """

    iqr: Tensor
    iqr_level: Tensor
    iqr_fraction: Tensor
    agreement: Tensor
    iou: Tensor
    levels: Tensor
    every: Tensor
    concept: Tensor
    level: Tensor


def exact_levels(activations: Tensor, masks: Tensor, groups: Tensor) -> ExactLevels:
    """Bau et al. 2019 (GAN Dissection), section 3.1: the level that maximises mutual information by joint entropy.

    Candidates are the mid-rank quantiles of the upsampled activations (bilinear, ``align_corners=False``). The active part of a concept
    is counted over the samples that hold its category; what a concept covers, over all samples.

    Args:
        activations: float [N, U, h, w].
        masks: bool [N, K, H, W].
        groups: bool [K, K], which concepts are of one category.
    """
    held = (masks.flatten(2).any(2).double() @ groups.double()) > 0  # [N, K]
    area = masks.double().mean((0, 2, 3))
    parts = [_unit(activations[:, unit], masks, held) for unit in range(activations.shape[1])]
    levels, joint, active = (torch.stack(part) for part in zip(*parts, strict=True))
    joint = torch.where(area[:, None] < UNTALLIED, area[:, None], joint)  # [U, K, 100]
    quality = information_quality(joint, area[:, None], active)
    counts = (area[:, None] >= RAREST) & (quality.agreement > AGREEMENT) & (levels[:, None] > 0) & (FRACTIONS < 1)
    every = quality.iqr.where(counts, 0.0)
    iqr, place = every.max(2)

    def at(values: Tensor) -> Tensor:
        return values.expand_as(every).gather(2, place[..., None])[..., 0]

    concept = iqr.argmax(1)
    level = at(levels[:, None])
    return ExactLevels(
        iqr, level, at(FRACTIONS.double()), at(quality.agreement), at(quality.iou), levels, every, concept,
        level.gather(1, concept[:, None])[:, 0],
    )  # fmt: skip


def _unit(maps: Tensor, masks: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One unit's levels [100], the active part of every concept and the active part where its category is, [K, 100] each."""
    size = (int(masks.shape[2]), int(masks.shape[3]))
    values = F.interpolate(maps[:, None].double(), size, mode="bilinear", align_corners=False).flatten(1)
    levels = np.quantile(values.numpy(), (1 - FRACTIONS).double().numpy(), method="hazen")[::-1]  # rising
    passed = np.searchsorted(levels, values.numpy().ravel(), side="left")  # levels strictly below each value
    whole = values.numel()

    def above(weights: Tensor) -> Tensor:
        """Sums of ``weights`` over the pixels above each level, for the falling levels."""
        sums = np.bincount(passed, weights=weights.expand_as(values).reshape(-1).double().numpy(), minlength=101)
        return torch.from_numpy(sums[::-1].cumsum()[:100].copy())

    pixels = masks.flatten(2)
    joint = torch.stack([above(pixels[:, k]) for k in range(masks.shape[1])]) / whole
    present = held.sum(0).clamp(min=1).double() * values.shape[1]
    active = torch.stack([above(held[:, k, None]) / present[k] for k in range(masks.shape[1])])
    return torch.from_numpy(levels[::-1].copy()), joint, active
