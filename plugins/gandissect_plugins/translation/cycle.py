"""There and back again: does F(G(x)) give x, and does it live on details that nobody sees?

found = cycle(session, pictures, back)
found.error, found.control               # float64 [N]: to the own input, to another one
found.hidden                             # True: noise that nobody sees destroys the way back
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.blocks import to_uint8
from gandissect.gan import Generator
from gandissect.metrics import bootstrap_weights, middle
from gandissect.session import Session
from gandissect_plugins.conditions import larger_p

from .pictures import LEVEL, Pictures, resized, rms, through
from .sensitivity import gaussian

Rows = NDArray[np.float64]
LEVELS = (1.0, 2.0, 4.0, 8.0)
UNSEEN = 2.0
"""Noise of so many grey levels of 255 is not seen in a picture."""
LOST = 0.25
"""Part of what the cycle knows of its input whose loss under unseen noise is told."""
TRIED = 48
WORKS = 0.5
BROKEN = 0.9
BOOTSTRAP = 1000


@dataclass(frozen=True)
class Loss:
    """The error of the way back after the translated pictures were disturbed.

    Attributes:
        name: "noise of 2 grey levels", "rounding to 8 bits".
        error: float64 [M], root mean square distance to the own input.
        share: mean rise of the error over that from the undisturbed error to the control's, with its interval; 1: all is lost.
        unseen: the disturbance is not visible.
    """

    name: str
    error: Rows
    share: tuple[float, float, float]
    unseen: bool


@dataclass(frozen=True)
class Cycle:
    """The cycle x → G(x) → F(G(x)).

    Attributes:
        backs: float32 [N, C, H, W], F(G(x)).
        error: float64 [N], root mean square distance from F(G(x)) to x; ``control`` to another input.
        ratio: mean error over mean control, with its interval (bootstrap).
        p: that the error is no smaller than the control (signs flipped).
        losses: what disturbances of G(x) do.
    """

    backs: Tensor
    error: Rows
    control: Rows
    ratio: tuple[float, float, float]
    p: float
    losses: tuple[Loss, ...]

    @property
    def broken(self) -> bool:
        """F(G(x)) is hardly nearer to x than to another input."""
        return self.p >= 0.05 or self.ratio[1] > BROKEN

    @property
    def works(self) -> bool:
        """F(G(x)) is much nearer to x than to another input."""
        return self.p < 0.05 and self.ratio[2] < WORKS

    @property
    def hidden(self) -> bool:
        """Disturbances that nobody sees destroy much of a cycle that works: what it needs was hidden in G(x)."""
        return self.works and any(loss.unseen and loss.share[1] > LOST for loss in self.losses)


def cycle(session: Session, seen: Pictures, back: Generator) -> Cycle:
    """Errors of the way back, beside those to another input, and after disturbing the translated pictures (Chu et al. 2017, sec. 4)."""
    backs = resized(through(session, back, seen.outputs), tuple(seen.inputs.shape[1:]))
    error, control = _rows(backs - seen.inputs), _rows(backs - seen.inputs.roll(1, 0))
    rng = session.rng("translation: cycle")
    weights = bootstrap_weights(len(error), BOOTSTRAP, rng)
    low, high = middle((weights @ error) / np.maximum(weights @ control, 1e-12))
    ratio = (float(error.mean() / max(control.mean(), 1e-12)), float(low), float(high))
    p = float(larger_p((control - error)[:, None], rng)[0])
    m = min(TRIED, len(error), max(8, session.affordable(TRIED * 6) // 6))
    losses = tuple(
        _loss(name, _rows(resized(through(session, back, disturbed), tuple(seen.inputs.shape[1:])) - seen.inputs[:m]),
              error[:m], control[:m], unseen, rng)
        for name, disturbed, unseen in disturbances(session, seen.outputs[:m])
    )  # fmt: skip
    return Cycle(backs, error, control, ratio, p, losses)


def disturbances(session: Session, pictures: Tensor) -> list[tuple[str, Tensor, bool]]:
    """(name, disturbed pictures, whether nobody sees it): rounding to bytes, Gaussian noise, JPEG."""
    rounded = torch.from_numpy(np.round((pictures.numpy().clip(-1, 1) + 1) * 127.5) / 127.5 - 1).float()
    pattern = gaussian(session, "translation: hidden", pictures)
    noisy = [
        (
            f"noise of {level:g} grey level{'s' if level > 1 else ''}",
            (pictures + level * LEVEL * pattern).clamp(-1, 1),
            level <= UNSEEN,
        )
        for level in LEVELS
    ]
    found = [("rounding to 8 bits", rounded, True), *noisy]
    if pictures.shape[1] in (1, 3):
        found.append(("JPEG of quality 90", _jpeg(pictures), False))
    return found


def _jpeg(pictures: Tensor) -> Tensor:
    from PIL import Image

    parts = []
    for pixels in to_uint8(pictures):
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "JPEG", quality=90)
        read = np.asarray(Image.open(stored), np.float32).transpose(2, 0, 1) / 127.5 - 1
        parts.append(torch.from_numpy(read[: pictures.shape[1]].copy()))
    return torch.stack(parts)


def _loss(name: str, disturbed: Rows, error: Rows, control: Rows, unseen: bool, rng: np.random.Generator) -> Loss:
    """How much of the way from the error to the control the disturbance goes, with a bootstrap interval over pictures."""
    rise, room = disturbed - error, control - error
    weights = bootstrap_weights(len(rise), BOOTSTRAP, rng)
    replicates = (weights @ rise) / np.maximum(weights @ room, 1e-9)
    low, high = middle(replicates)
    return Loss(name, disturbed, (float(rise.mean() / max(room.mean(), 1e-9)), float(low), float(high)), unseen)


def _rows(difference: Tensor) -> Rows:
    return np.asarray(rms(difference).numpy())
