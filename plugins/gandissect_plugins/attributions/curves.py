"""Deletion and insertion: how fast the score goes when a map's highest pixels go, and comes when they come.

found = curves(score, images, maps, session.rng("curves"))
found.deletion.mean(0)                   # float [S + 1], mean score at each fraction
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ScoreFunction = Callable[[Tensor], Tensor]
"""Images float32 [N, C, H, W] in [-1, 1] -> float32 [N] on the CPU."""
GREY = 0.0
"""What a removed pixel becomes: the middle of the range."""


@dataclass(frozen=True)
class Curves:
    """Scores while pixels are removed or added in the order of a map, and in that of the same map at another place.

    Attributes:
        fractions: float [S + 1], 0 to 1.
        deletion: float [N, S + 1], from the image to grey.
        insertion: float [N, S + 1], from grey to the image.
        deletion_control: the same for the moved maps, mean over their draws.
        insertion_control: likewise.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor
    deletion_control: Tensor
    insertion_control: Tensor

    def area(self, curve: Tensor) -> Tensor:
        """Mean score along a curve, by trapezes: float [N]."""
        return torch.trapezoid(curve, self.fractions, dim=1)

    @property
    def deletion_gain(self) -> Tensor:
        """By how much the map's deletion curve lies below the control's: float [N], in logits."""
        return self.area(self.deletion_control) - self.area(self.deletion)

    @property
    def insertion_gain(self) -> Tensor:
        """By how much the map's insertion curve lies above the control's: float [N], in logits."""
        return self.area(self.insertion) - self.area(self.insertion_control)


def curves(
    score: ScoreFunction, images: Tensor, maps: Tensor, rng: np.random.Generator, *, steps: int = 10, controls: int = 2
) -> Curves:
    """Deletion and insertion curves of ``maps`` float [N, H, W] on ``images`` float32 [N, C, H, W].

    The control is the same map shifted around the image, so that the holes have the same shapes; a random order of single pixels
    would mostly measure how a network dislikes noise.

    References:
        Petsiuk et al. 2018, RISE, section 4.3.
    """
    fractions = torch.linspace(0, 1, steps + 1)
    ends = score(torch.cat([images, torch.full_like(images, GREY)])).reshape(2, len(images))
    deletion, insertion = _pair(score, images, maps, fractions, ends)
    others = [_pair(score, images, moved(maps, rng), fractions, ends) for _ in range(controls)]
    control = [torch.stack(kind).mean(0) for kind in zip(*others, strict=True)]
    return Curves(fractions, deletion, insertion, control[0], control[1])


def moved(maps: Tensor, rng: np.random.Generator) -> Tensor:
    """Each map [N, H, W] shifted around by at least a quarter of the image in one direction."""
    _, height, width = maps.shape
    out = []
    for row in maps:
        while True:
            dy, dx = int(rng.integers(height)), int(rng.integers(width))
            if min(dy, height - dy) * 4 >= height or min(dx, width - dx) * 4 >= width:
                break
        out.append(row.roll((dy, dx), (0, 1)))
    return torch.stack(out)


def top_pixels(maps: Tensor, fraction: float) -> Tensor:
    """The highest pixels of each map [N, H, W], ties in reading order: bool [N, H, W]."""
    return ranks(maps) < round(fraction * maps[0].numel())


def ranks(maps: Tensor) -> Tensor:
    """Place of each pixel in descending order of its map [N, H, W]: int64 [N, H, W], 0 is highest."""
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order).contiguous())
    return places.view(maps.shape)


def _pair(score: ScoreFunction, images: Tensor, maps: Tensor, fractions: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """(deletion, insertion) curves, float [N, S + 1] each; ``ends`` are the scores of the images and of grey, [2, N]."""
    places = ranks(maps)
    inner = [places < round(float(fraction) * places[0].numel()) for fraction in fractions[1:-1]]
    masks = torch.stack(inner)[:, :, None]  # [S - 1, N, 1, H, W]
    grey = torch.full_like(images, GREY)
    gone, come = torch.where(masks, grey, images), torch.where(masks, images, grey)
    scores = score(torch.cat([gone, come]).flatten(0, 1)).reshape(2, len(inner), len(images))
    deletion = torch.cat([ends[:1], scores[0], ends[1:]]).T
    insertion = torch.cat([ends[1:], scores[1], ends[:1]]).T
    return deletion, insertion
