"""How much beyond chance is enough: the floors that networks with random weights stay under.

iou_floors(40, concepts)                            # float64 [K]: 0.04, or 0.09 for edges, textures and clusters
correlation_floor(1000, 40, 1024)                   # 0.4
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gandissect.concepts import Concept

FLOOR = 0.04  # as in Bau et al. 2020, but above the null's mean
CONTRAST_FLOOR = 0.09
CORRELATION_FLOOR = 0.4
LEAST_CELLS = 16
CONTRAST = frozenset({"edge", "texture", "cluster"})
"""Categories of contrast: where any unit of any network is strongly active there is more of it. Clusters are fitted to the
network's own images, and some of them are textures."""


def iou_floors(units: int, concepts: Sequence[Concept]) -> Tensor:
    """The least IoU above the null's mean of a label that is a finding, in a layer of so many units: float64 [K].

    With random weights, too, an image is a sum over a layer's units, and each has a share of about 1/√units in what it
    looks like: that overlap is real and means nothing.
    """
    share = 1.0 / math.sqrt(max(units, 1))
    contrast, other = max(CONTRAST_FLOOR, 0.36 * share), max(FLOOR, 0.3 * share)
    return torch.tensor([contrast if item.category in CONTRAST else other for item in concepts], dtype=torch.float64)


def correlation_floor(samples: int, units: int, cells: int) -> float:
    """The least correlation above position's of a label that is a finding; infinite for maps of fewer than 16 cells.

    On those r is little more than one number per image against another, and random networks reach 0.66.

    Between random pairings of ``n`` samples r varies with a standard deviation of at most 1/√(n − 1) (Cauchy–Schwarz on
    the inner products of two samples' maps); five of those leave nothing to chance.
    """
    if cells < LEAST_CELLS:
        return math.inf
    return max(CORRELATION_FLOOR, 1.2 / math.sqrt(max(units, 1)), 5.0 / math.sqrt(max(samples - 1, 1)))
