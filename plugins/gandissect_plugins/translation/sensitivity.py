"""How much a translator makes of a little noise in its input.

found = sensitivity(session, pictures)
found.gain.mean(1)                       # float64 [L], output change over input change at each noise level
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.session import Session

from .pictures import LEVEL, Pictures, again, from_input, rms, to_input

Rows = NDArray[np.float64]
NOISE = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the noise, in grey levels of 255."""
TRIED = 16


@dataclass(frozen=True)
class Sensitivity:
    """Output changes under Gaussian noise in the input.

    Attributes:
        levels: the noise's standard deviations in grey levels.
        change: float64 [L, M], root mean square change of each output, in [-1, 1].
        gain: float64 [L, M], that over the root mean square change of the input; 1 for a copy, less for a smoothing.
    """

    levels: tuple[float, ...]
    change: Rows
    gain: Rows


def sensitivity(session: Session, seen: Pictures) -> Sensitivity:
    """The same noise pattern at every level, clipped where a picture ends; gains are of what was left of it."""
    latent = session.gan.generator.latent
    m = min(TRIED, len(seen.latents), max(4, session.affordable(TRIED * len(NOISE)) // len(NOISE)))
    clean = from_input(seen.latents[:m], latent)
    pattern = gaussian(session, "translation: noise", clean)
    noisy = [(clean + level * LEVEL * pattern).clamp(-1, 1) for level in NOISE]
    outputs = [again(session, to_input(part, latent)) for part in noisy]
    change = torch.stack([rms(part - seen.outputs[:m]) for part in outputs]).numpy()
    given = torch.stack([rms(part - clean) for part in noisy]).numpy()
    return Sensitivity(NOISE, change, change / np.maximum(given, 1e-12))


def gaussian(session: Session, name: str, like: Tensor) -> Tensor:
    """Standard normal noise of the shape of ``like``, from the session's randomness of that name: float32."""
    return torch.from_numpy(session.rng(name).standard_normal(tuple(like.shape), dtype=np.float32))
