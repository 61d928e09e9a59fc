"""What kind of change a picture went through: brighter, another colour, more contrast, or another picture.

kinds(before, after).brightness          # 0.97: nearly all of the change is one number added to every pixel
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kinds:
    """Shares of the squared change of pictures, which sum to 1; all 0 where nothing changed.

    Attributes:
        brightness: one number for a whole picture explains it.
        colour: a number for each channel explains so much more.
        contrast: a gain on the picture before the change explains so much more.
        structure: the rest: something is drawn, moved or gone.
    """

    brightness: float
    colour: float
    contrast: float
    structure: float

    @property
    def main(self) -> str:
        """The largest share's name."""
        shares = {name: getattr(self, name) for name in ("brightness", "colour", "contrast", "structure")}
        return max(shares, key=lambda name: shares[name])


def kinds(before: Tensor, after: Tensor) -> Kinds:
    """How the change from ``before`` to ``after``, float [N, C, H, W] each, comes about.

    Least squares on each picture's difference, one regressor after another: a constant, a constant for each channel, and
    ``before`` itself less its channel means. Regressors are orthogonal, so that the sums of squares add up.
    """
    first, change = before.double(), (after.double() - before.double())
    total = float(change.square().sum())
    if total <= 0:
        return Kinds(0.0, 0.0, 0.0, 0.0)
    pixels = change[0].numel()
    channel = change.mean((2, 3), keepdim=True)
    whole = channel.mean(1, keepdim=True)
    bright = float(pixels * whole.square().sum())
    colour = float(pixels / change.shape[1] * (channel - whole).square().sum())
    centred = first - first.mean((2, 3), keepdim=True)
    energy = centred.square().sum((1, 2, 3))
    inner = (centred * change).sum((1, 2, 3))
    gained = float(torch.where(energy > 1e-12 * pixels, inner.square() / energy.clamp(min=1e-300), 0.0).sum())
    rest = max(0.0, total - bright - colour - gained)
    return Kinds(bright / total, colour / total, gained / total, rest / total)
