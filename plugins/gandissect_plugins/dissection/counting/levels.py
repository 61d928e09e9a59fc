"""Above which activation a unit counts as active: a fixed fraction, or the level that tells most about a concept.

quality = information_quality(joint, concept, active)      # IQR, agreement, IoU
choice = best_levels(candidates, tested, quantile=0.01)
choice.level.gather(1, choice.place[:, None])               # float64 [U, 1]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .bins import BinsResult

FRACTIONS = torch.logspace(-3, 0, 100)
"""Tail fractions that are tried, float32 [100], as in Bau et al. 2019."""
AGREEMENT = 0.8
RAREST = 1e-3
"""Least part of all pixels that a concept covers to choose a level."""


@dataclass(frozen=True)
class Quality:
    """How much units and concepts tell about each other; float64 of one shape each.

    Attributes:
        iqr: mutual information by joint entropy of the table (active, concept), 0..1.
        agreement: part of all cells where both or neither are.
        iou: intersection over union.
    """

    iqr: Tensor
    agreement: Tensor
    iou: Tensor


def information_quality(joint: Tensor, concept: Tensor, active: Tensor) -> Quality:
    """The information quality ratio (Bau et al. 2019, GAN Dissection, section 3.1), natural logarithms, 0 where nothing varies.

    Args:
        joint: part of all pixels that are active and have the concept, float64.
        concept: part that have the concept; ``active`` part that are active; both broadcast with ``joint``.
    """
    concept, active = concept.expand_as(joint), active.expand_as(joint)
    union = concept + active - joint
    table = [part.clamp(0, 1) for part in (joint, active - joint, concept - joint, 1 - union)]
    products = [active * concept, active * (1 - concept), (1 - active) * concept, (1 - active) * (1 - concept)]
    information = sum(
        (
            torch.special.xlogy(part, part / product.clamp(min=1e-300))
            for part, product in zip(table, products, strict=True)
        ),
        start=torch.zeros_like(joint),
    )
    entropy = sum((torch.special.entr(part) for part in table), start=torch.zeros_like(joint))
    iqr = torch.where(entropy > 0, information / entropy.clamp(min=1e-300), 0.0)
    return Quality(iqr, joint + 1 - union, joint / union.clamp(min=1e-20))


@dataclass(frozen=True)
class Candidates:
    """Levels that units may take and what is above them, on a grid of ``cells`` cells in all samples.

    Attributes:
        level: float64 [U, J]; ``active`` float64 [U, J], cells above it.
        overlap: float64 [U, J, K], concept area above it in cells; ``area`` float64 [K], in all cells.
    """

    level: Tensor
    active: Tensor
    overlap: Tensor
    area: Tensor
    cells: int


@dataclass(frozen=True)
class LevelChoice:
    """The level of each unit and what was known at every candidate.

    Attributes:
        place: int64 [U], which candidate was chosen; ``concept`` int64 [U], whose IQR chose it, −1 where none did.
        level, fraction: float64 [U, J], every candidate and the part of the cells above it.
        iqr: float64 [U, K], the greatest over all candidates; ``iqr_place`` int64 [U, K], at which.
        iou: float32 [U, J, K], at every candidate.
    """

    place: Tensor
    concept: Tensor
    level: Tensor
    fraction: Tensor
    iqr: Tensor
    iqr_place: Tensor
    iou: Tensor


def best_levels(candidates: Candidates, tested: Tensor, quantile: float) -> LevelChoice:
    """For each unit the candidate at which it tells most about its best concept.

    Levels count where they are not negative and agreement is above ``AGREEMENT``; concepts below ``RAREST`` or not ``tested``
    (bool [K]) choose none. A unit without any takes the level whose fraction is nearest to ``quantile``.
    """
    fraction = candidates.active / max(candidates.cells, 1)
    concept = candidates.area / max(candidates.cells, 1)
    quality = information_quality(candidates.overlap / max(candidates.cells, 1), concept, fraction[..., None])
    usable = (
        (quality.agreement > AGREEMENT) & (concept >= RAREST) & ((fraction < 1) & (candidates.level >= 0))[..., None]
    )
    iqr, where = quality.iqr.where(usable, 0.0).max(1)  # [U, K]
    best, chosen = iqr.masked_fill(~tested, 0.0).max(1)
    fixed = (fraction.clamp(min=1e-12).log() - math.log(quantile)).abs().argmin(1)
    place = torch.where(best > 0, where.gather(1, chosen[:, None])[:, 0], fixed)
    return LevelChoice(
        place, chosen.masked_fill(best <= 0, -1), candidates.level, fraction, iqr, where, quality.iou.float()
    )


def bin_candidates(bins: BinsResult) -> tuple[Candidates, Tensor]:
    """The levels of the bins that come nearest to ``FRACTIONS`` by ratio, and their places among those of the bins int64 [U, J]."""
    concepts = len(bins.area)
    active = bins.above[..., concepts]  # [U, E], falling
    rows = (active / max(bins.cells, 1)).flip(1).clamp(min=1e-12).log().contiguous()
    goal = FRACTIONS.double().log().expand(len(rows), -1).contiguous()
    right = torch.searchsorted(rows, goal).clamp(1, rows.shape[1] - 1)
    closer = (rows.gather(1, right) - goal).abs() < (rows.gather(1, right - 1) - goal).abs()
    edges = rows.shape[1] - 1 - torch.where(closer, right, right - 1)
    overlap = bins.above[..., :concepts].gather(1, edges[..., None].expand(-1, -1, concepts))
    level = bins.levels().double().gather(1, edges)
    return Candidates(level, active.gather(1, edges), overlap, bins.area, bins.cells), edges
