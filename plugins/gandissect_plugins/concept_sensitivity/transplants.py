"""A concept put into other samples in pixels, beside other content put into the same place, and what the logit does.

found = transplant(session, images, masks[:, k], rng)
found.change, found.gap(1).p                             # 0.8, 0.0002
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.session import Session
from gandissect_plugins.attributions.checks import Paired, paired

LEAST_AREA, MOST_AREA = 0.005, 0.7
LACKS = 0.25
"""A sample lacks a concept in a region of which it covers less than this part."""
FEWEST = 8
BLOCKS = 8
"""Rows and columns of the blocks; one belongs to a concept that covers a quarter of it."""


@dataclass(frozen=True)
class Transplant:
    """The logit with a concept put into a sample, less the logit with other content in the very same pixels.

    Attributes:
        change: mean over donors, in logits.
        up, down: the same as a paired difference that is above, below 0.
        donors: samples that the concept was taken from.
        with_concept, without: float32 [n, C, H, W] in [-1, 1], the images that are compared.
    """

    change: float
    up: Paired
    down: Paired
    donors: tuple[int, ...]
    with_concept: Tensor
    without: Tensor

    def gap(self, sign: int) -> Paired:
        """The difference in the sense of ``sign`` (1: the concept raises the logit)."""
        return self.up if sign > 0 else self.down


def transplant(session: Session, images: Tensor, masks: Tensor, rng: np.random.Generator) -> Transplant | None:
    """Cut a concept out of each sample that has it, in blocks, and paste it into one that lacks it there.

    The same blocks of a third sample that lacks it too, pasted into the same host, are what it is compared with: both images have
    the same seam, so what is left is the content. Blocks and not the concept's outline, which would fit its own content only.

    Args:
        session: its discriminator is asked.
        images: float32 [n, C, H, W] in [-1, 1], the first n samples.
        masks: bool [n, H, W], where the concept is.
        rng: draws hosts and the others, and flips signs.

    Returns:
        None where fewer than 8 samples have it and two others lack it there.
    """
    flat = masks.flatten(1).float()
    area = flat.mean(1)
    inside = (flat @ flat.T) / flat.sum(1).clamp(
        min=1
    )  # [host, donor]: part of the donor's region that the host covers
    blocks = _blocks(masks)
    size = blocks.float().mean((1, 2))
    trios = []
    for donor in ((area >= LEAST_AREA) & (size > 0) & (size <= MOST_AREA)).nonzero()[:, 0].tolist():
        lacking = (inside[:, donor] < LACKS).nonzero()[:, 0].numpy()
        if len(lacking) >= 2:
            host, other = rng.choice(lacking, 2, replace=False).tolist()
            trios.append((donor, host, other))
    if len(trios) < FEWEST:
        return None
    donors, hosts, others = (list(side) for side in zip(*trios, strict=True))
    region = blocks[donors][:, None]
    put, plain = (torch.where(region, images[source], images[hosts]) for source in (donors, others))
    labels = session.labels(hosts, "discriminator")
    gap = (session.score(put, labels) - session.score(plain, labels)).double()
    return Transplant(float(gap.mean()), paired(gap, rng), paired(-gap, rng), tuple(donors), put, plain)


def _blocks(masks: Tensor) -> Tensor:
    """The blocks of which a mask covers a quarter or more, as pixels: bool [n, H, W] from bool [n, H, W]."""
    sides = (min(BLOCKS, masks.shape[1]), min(BLOCKS, masks.shape[2]))
    held = F.adaptive_avg_pool2d(masks[:, None].float(), sides) >= 0.25
    return F.interpolate(held.float(), size=masks.shape[1:], mode="nearest")[:, 0] > 0
