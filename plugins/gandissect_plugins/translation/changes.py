"""What a translation changes: properties, concept areas, colours, frequencies.

for one in changes(session, pictures):
    one.name, one.difference, one.p      # "saturation", 0.21, 0.0005
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.properties import luminance
from gandissect.session import Session
from gandissect.trust import adjusted
from gandissect_plugins.conditions.evidence import concepts_of, properties_of
from gandissect_plugins.conditions.paired import larger_p
from gandissect_plugins.geometry.means import mean_interval

from .pictures import Pictures

Rows = NDArray[np.float64]
BANDS = 12


@dataclass(frozen=True)
class Change:
    """A quantity of every picture, before and after.

    Attributes:
        name: what it is; ``concept`` where it is a concept's area.
        before, after: its mean.
        low, high: 95 % interval of the mean difference.
        p: signs of the differences flipped at random, two-sided, adjusted over all quantities.
    """

    name: str
    before: float
    after: float
    low: float
    high: float
    p: float
    concept: bool

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before


def changes(session: Session, seen: Pictures) -> list[Change]:
    """Properties, the mean of each channel, and the areas of all concepts, in inputs (at the outputs' size) and outputs."""
    first, second = seen.before, seen.outputs
    before, after = ({**properties_of(part), **_channels(part)} for part in (first, second))
    areas = [concepts_of(session, first), concepts_of(session, second, len(second) if seen.own else 0)]
    names = [*before, *areas[0]]
    old, new = (
        np.stack([*rows.values(), *found.values()], 1) for rows, found in zip((before, after), areas, strict=True)
    )
    difference = new - old
    rng = session.rng("translation: changes")
    one_sided = [larger_p(sign * difference, rng) for sign in (1.0, -1.0)]
    p = adjusted(np.minimum(1.0, 2 * np.minimum(*one_sided)))
    return [
        Change(
            name.removeprefix("area of "),
            float(old[:, place].mean()),
            float(new[:, place].mean()),
            *mean_interval(difference[:, place])[1:],
            float(p[place]),
            place >= len(before),
        )
        for place, name in enumerate(names)
    ]


def _channels(pictures: Tensor) -> Mapping[str, Rows]:
    """Mean of each colour channel, 0 to 1: float64 [N] each."""
    names: Sequence[str] = ("red", "green", "blue") if pictures.shape[1] >= 3 else ()
    means = (pictures.double().clamp(-1, 1).mean((2, 3)) + 1) / 2
    return {f"mean {name}": np.asarray(means[:, place].numpy()) for place, name in enumerate(names)}


def spectrum(pictures: Tensor) -> tuple[Rows, Rows]:
    """Frequencies in cycles per pixel [B], and the luminance's amplitude at each of every picture: float64 [N, B].

    Root mean power over rings of the Fourier transform under a Hann window, which keeps the picture's edges from counting as
    detail.
    """
    grey = luminance(pictures).double()[:, 0]
    height, width = grey.shape[1:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    tapered = (grey - grey.mean((1, 2), keepdim=True)) * window.double()
    power = torch.fft.rfft2(tapered, norm="ortho").abs().square().flatten(1)
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :]).flatten()
    bands = min(BANDS, max(2, min(height, width) // 2))
    ring = (radius * 2 * bands).long()
    rings = [ring == band for band in range(bands)]
    amplitude = torch.stack([power[:, inside].mean(1).sqrt() for inside in rings], 1)
    return (np.arange(bands) + 0.5) / (2 * bands), np.asarray(amplitude.numpy())
