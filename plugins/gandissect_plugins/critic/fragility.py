"""How small a change of an image turns the discriminator's verdict round, against random changes of the same size.

found = fragility(discriminator, images, threshold=0.0, rng=rng)
found.median("pgd"), found.median("random")     # 0.5 and 32 steps of 1/255
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.borrow import borrowed
from gandissect.gan import Discriminator

SIZES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Largest change of a value, in steps of 8-bit images (1/255 of the range)."""
STEP = 2 / 255
PGD_STEPS = 5
RANDOM = 8


@dataclass(frozen=True)
class Fragility:
    """The smallest change, of those in ``SIZES``, that takes an image's score across the threshold.

    Attributes:
        sizes: "fgsm", "pgd", "random" -> float64 [N], infinite where none of them does. Of the random directions it is the smallest size
            at which at least half of ``RANDOM`` directions do.
        threshold: logit.
        silent: share of images at which the score has no gradient.
        p: one-sided sign test that PGD needs less than random directions do.
    """

    sizes: dict[str, NDArray[np.float64]]
    threshold: float
    silent: float
    p: float

    @property
    def fragile(self) -> bool:
        """PGD needs at most two steps in half of the images, and random directions eight times more than that."""
        worst = self.median("pgd")
        return worst <= 2 and self.median("random") >= 8 * worst and self.p <= 0.01

    def median(self, attack: str) -> float:
        """In steps of 1/255; infinite where more than half of the images withstand."""
        return float(np.quantile(self.sizes[attack], 0.5, method="higher"))


def fragility(
    discriminator: Discriminator,
    images: Tensor,
    *,
    threshold: float,
    rng: np.random.Generator,
    labels: Tensor | None = None,
) -> Fragility:
    """FGSM (Goodfellow et al. 2015), PGD (Madry et al. 2018, ℓ∞, 5 steps of ε/3, from the image itself) and random signs.

    Args:
        discriminator: left as it was.
        images: float32 [N, C, H, W] in [-1, 1]; all changes stay in that range.
        threshold: the logit that parts "real" from "generated".
        rng: draws the random directions.
        labels: int64 [N], for discriminators that take any.
    """
    from scipy.stats import binomtest

    x = images.to(discriminator.device)
    given = None if labels is None else labels.to(discriminator.device)

    def scores(pictures: Tensor) -> Tensor:
        return discriminator(pictures, given) - threshold

    with borrowed(discriminator.module):
        start, slope = _gradient(scores, x)
        side = start.sign()
        away = -(slope.sign() * side[:, None, None, None])
        flat = (slope == 0).flatten(1).all(1)
        random = [
            torch.from_numpy(rng.choice([-1.0, 1.0], tuple(x.shape)).astype(np.float32)).to(x) for _ in range(RANDOM)
        ]
        crossed: dict[str, list[Tensor]] = {"fgsm": [], "pgd": [], "random": []}
        for size in SIZES:
            crossed["fgsm"].append(_turned(scores, (x + size * STEP * away).clamp(-1, 1), side))
            crossed["pgd"].append(_turned(scores, _pgd(scores, x, side, size * STEP), side))
            votes = [_turned(scores, (x + size * STEP * way).clamp(-1, 1), side).double() for way in random]
            crossed["random"].append(torch.stack(votes).mean(0) >= 0.5)
    sizes = {name: _smallest(torch.stack(rows).cpu()) for name, rows in crossed.items()}
    wins, losses = int((sizes["pgd"] < sizes["random"]).sum()), int((sizes["pgd"] > sizes["random"]).sum())
    p = float(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue) if wins + losses else 1.0
    return Fragility(sizes, threshold, float(flat.double().mean()), p)


def _gradient(scores: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    asked = x.detach().clone().requires_grad_()
    value = scores(asked)
    slope = torch.autograd.grad(value.sum(), asked, allow_unused=True)[0]
    return value.detach(), torch.zeros_like(x) if slope is None else slope.nan_to_num()


def _pgd(scores: Callable[[Tensor], Tensor], x: Tensor, side: Tensor, size: float) -> Tensor:
    moved = x
    for _ in range(PGD_STEPS):
        slope = _gradient(scores, moved)[1]
        moved = moved - size / 3 * slope.sign() * side[:, None, None, None]
        moved = torch.minimum(torch.maximum(moved, x - size), x + size).clamp(-1, 1)
    return moved


def _turned(scores: Callable[[Tensor], Tensor], pictures: Tensor, side: Tensor) -> Tensor:
    with torch.no_grad():
        return scores(pictures).sign() != side


def _smallest(crossed: Tensor) -> NDArray[np.float64]:
    """The first size at which bool [S, N] holds: float64 [N]."""
    sizes = torch.tensor([*SIZES, torch.inf], dtype=torch.float64)
    first = torch.where(crossed.any(0), crossed.double().argmax(0), len(SIZES))
    return sizes[first].numpy()
