"""What units of the generator do to the discriminator's score: as the gradient says, and as switching them off shows.

found = unit_verdicts(session, units=12)
found.agreement().rho, found.worst(3)[0].measured        # 0.71, -1.3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.gan import LayerInfo
from gandissect.session import Session
from gandissect_plugins.dissection.causal.edits import Blend, weights_of
from gandissect_plugins.dissection.causal.screening import first_order

DRAWS = 999
LEAST_UNITS = 8
LAYERS = 3
SAMPLES = 8


@dataclass(frozen=True)
class UnitVerdict:
    """One unit switched off everywhere, in logits, mean over samples.

    Attributes:
        predicted: change of the score by the gradient: −Σ activation · ∂score/∂activation.
        measured: the change that was seen; ``error`` its standard error over samples.
    """

    layer: str
    unit: int
    predicted: float
    measured: float
    error: float

    @property
    def gap(self) -> float:
        """How far the gradient is off."""
        return abs(self.measured - self.predicted)

    @property
    def words(self) -> str:
        """How the two disagree."""
        if abs(self.measured) <= 2 * self.error:
            return "no clear effect; the gradient claims one" if self.gap > 2 * self.error else "no clear effect"
        if self.gap <= 2 * self.error:
            return "agree"
        if self.measured * self.predicted < 0:
            return "opposite signs"
        return (
            "the gradient says too little" if abs(self.predicted) < abs(self.measured) else "the gradient says too much"
        )


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of predicted and measured changes over units, with its 95 % bootstrap interval; NaN where one is constant."""

    rho: float
    low: float
    high: float
    units: int


@dataclass(frozen=True)
class UnitVerdicts:
    """All units that were tried, and the samples they were tried on."""

    units: tuple[UnitVerdict, ...]
    samples: int
    seed: tuple[int, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """In the order of execution."""
        return tuple(dict.fromkeys(one.layer for one in self.units))

    def worst(self, count: int) -> list[UnitVerdict]:
        """Those whose measured change is furthest from the gradient's."""
        return sorted(self.units, key=lambda one: (-one.gap, one.layer, one.unit))[:count]

    def agreement(self, layer: str = "") -> Agreement:
        """Over the units of a layer, all units where left out."""
        chosen = [one for one in self.units if not layer or one.layer == layer]
        predicted, measured = (
            np.array(side) for side in zip(*[(one.predicted, one.measured) for one in chosen], strict=True)
        )
        rng = np.random.default_rng(self.seed)
        rows = rng.integers(0, len(chosen), (DRAWS, len(chosen)))
        drawn = _rho(predicted[rows], measured[rows])
        kept = drawn[np.isfinite(drawn)]
        low, high = np.quantile(kept, [0.025, 0.975]) if len(kept) else (np.nan, np.nan)
        return Agreement(float(_rho(predicted[None], measured[None])[0]), float(low), float(high), len(chosen))


def _rho(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's correlation of each row of two float64 [R, n]: float64 [R], NaN where a row is constant."""
    from scipy.stats import rankdata

    a, b = (np.asarray(rankdata(side, axis=1), np.float64) for side in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    found: NDArray[np.float64] = np.divide((a * b).sum(1), scale, out=np.full(len(a), np.nan), where=scale > 0)
    return found


def tried_layers(session: Session) -> tuple[LayerInfo, ...]:
    """Main layers of the generator that can be edited, the image itself left out, spread over depth."""
    layers = [
        layer for layer in session.gan.generator.main_layers() if layer.editable and layer.channels >= LEAST_UNITS
    ]
    return spread(layers, LAYERS)


def unit_verdicts(session: Session, units: int, rng: np.random.Generator) -> UnitVerdicts | None:
    """Random units of some layers switched off one at a time; None where no layer has enough units.

    Args:
        session: both networks are differentiable, the generator's layers can be edited.
        units: of each layer at most; fewer where the generator is large.
        rng: draws them.
    """
    layers = tried_layers(session)
    discriminator = session.gan.discriminator
    if not layers or discriminator is None:
        return None
    wanted = len(layers) * units * SAMPLES
    count = max(LEAST_UNITS, units * session.affordable(wanted) // wanted)
    indices = range(min(session.n, SAMPLES))
    labels = session.labels(indices, "discriminator")
    slopes = first_order(
        session, [layer.name for layer in layers], lambda images: discriminator(images, labels), indices
    )
    before = session.score(session.generate(session.latents_at(indices), labels=session.labels(indices)), labels)
    found: list[UnitVerdict] = []
    for layer in layers:
        chosen = sorted(rng.permutation(layer.channels)[:count].tolist())
        change = (_without(session, layer, chosen, indices, labels) - before).double()
        error = change.std(1) / len(indices) ** 0.5 if len(indices) > 1 else torch.zeros(len(chosen))
        found += [
            UnitVerdict(layer.name, unit, float(slopes[layer.name][unit]), float(change[row].mean()), float(error[row]))
            for row, unit in enumerate(chosen)
        ]
    return UnitVerdicts(tuple(found), len(indices), tuple(rng.integers(0, 2**31, 4).tolist()))


def _without(session: Session, layer: LayerInfo, units: Sequence[int], indices: range, labels: Tensor | None) -> Tensor:
    """Scores of the samples with each of ``units`` switched off: float32 [units, samples]."""
    n, rounds = len(indices), len(units)
    alpha = torch.cat([weights_of([unit], layer.channels).expand(n, -1) for unit in units])
    asked = session.labels(indices)
    latents = session.latents_at(indices).repeat(rounds, 1)
    images = session.generate(
        latents, edit=Blend(alpha), layers=[layer.name], labels=None if asked is None else asked.repeat(rounds)
    )
    return session.score(images, None if labels is None else labels.repeat(rounds)).view(rounds, n)
