"""Words for a kind of region, from what sets its pixels apart from all others, with the effect size of each word.

look = Surfaces(images, (16, 16)).describe(masks)   # float32 [n, C, H, W], bool [n, 256]
look.words                                          # ("green", "textured", "at the bottom")
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect_plugins.vocabularies.colours import Colours
from gandissect_plugins.vocabularies.looks import CONTRAST, LIGHT, looks

LARGE = 0.8
"""Cohen's d from which on a difference is a word (Cohen 1988: large)."""
COLOUR_GAIN = 0.2
"""How much more of the region than of the rest has a colour that names it."""
_PLAIN = "no distinct look"


@dataclass(frozen=True)
class Look:
    """The words, and for each of what they rest on (name, effect in words)."""

    words: tuple[str, ...]
    effects: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ", ".join(self.words) or _PLAIN


_PAIRS = (("light", "dark", "bright"), ("local contrast", "flat", "textured"))


class Surfaces:
    """How the cells of some samples look: colour terms, light and local contrast, measured once for all regions."""

    def __init__(self, images: Tensor, grid: tuple[int, int]) -> None:
        """Samples float32 [n, C, H, W] in [-1, 1] and the cells (height, width) they are divided into."""
        source = Colours(grey=images.shape[1] == 1)
        self._grid = grid
        self._names = [concept.name for concept in source.concepts]
        parts = [
            torch.cat([source.segment(part, range(len(part))).float(), looks(part)[:, [LIGHT, CONTRAST]]], 1)
            for part in torch.split(images, 32)
        ]
        pooled = torch.cat([F.adaptive_avg_pool2d(part, grid) for part in parts])
        self._cells = pooled.permute(0, 2, 3, 1).reshape(-1, pooled.shape[1])

    def describe(self, masks: Tensor) -> Look:
        """What dominates in the cells of ``masks`` bool [n, cells] beside all other cells of the same samples."""
        inside = masks.flatten()
        if bool(inside.all()) or not bool(inside.any()):
            return Look((), ())
        colour, told = self._colour(inside)
        words, effects = [colour] if colour else [], [("colour", told)]
        for (name, low, high), values in zip(_PAIRS, self._cells[:, -2:].unbind(1), strict=True):
            d = cohens_d(values[inside], values[~inside])
            effects.append((name, _of_d(d)))
            if abs(d) >= LARGE and colour not in ("black", "white"):
                words.append(high if d > 0 else low)
        place, said = _place(inside, self._grid)
        return Look((*words, *([place] if place else [])), (*effects, *said))

    def _colour(self, inside: Tensor) -> tuple[str, str]:
        """The colour term whose part of the region exceeds its part of the rest most, where it dominates, and both parts."""
        own, rest = (self._cells[rows, :-2].mean(0) for rows in (inside, ~inside))
        best = int((own - rest).argmax())
        told = f"{self._names[best]} {100 * float(own[best]):.0f} % of it, {100 * float(rest[best]):.0f} % of the rest"
        dominates = float(own[best] - rest[best]) >= COLOUR_GAIN and float(own[best]) >= 0.75 * float(own.max())
        return (self._names[best] if dominates else ""), told


def cohens_d(inside: Tensor, outside: Tensor) -> float:
    """Difference of the means of float [M] and float [L] in standard deviations within the two groups (Cohen 1988)."""
    a, b = inside.double(), outside.double()
    pooled = ((a.var(correction=0) * len(a) + b.var(correction=0) * len(b)) / (len(a) + len(b))).sqrt()
    return float((a.mean() - b.mean()) / pooled.clamp(min=1e-9)) if float((a.mean() - b.mean()).abs()) > 1e-9 else 0.0


def _of_d(d: float) -> str:
    return f"d = {d:+.1f}".replace("-", "−")


def _place(inside: Tensor, grid: tuple[int, int]) -> tuple[str, list[tuple[str, str]]]:
    """Where it mostly is, if anywhere, and the effects."""
    height, width = grid
    rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    y = rows[:, None].expand(height, width).flatten().repeat(len(inside) // (height * width))
    x = columns.expand(height, width).flatten().repeat(len(inside) // (height * width))
    r = torch.hypot(x, y)
    down, right, out = (cohens_d(values[inside], values[~inside]) for values in (y, x, r))
    named = [("at the bottom" if down > 0 else "at the top", abs(down)), ("on the right" if right > 0 else "on the left", abs(right)),
             ("at the rim" if out > 0 else "in the middle", abs(out))]  # fmt: skip
    word, size = max(named, key=lambda pair: pair[1])
    said = [("height (down)", _of_d(down)), ("side (right)", _of_d(right)), ("distance from the middle", _of_d(out))]
    return (word if size >= LARGE else ""), said
