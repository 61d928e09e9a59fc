"""In which order units matter, and how the effect grows with the dose.

order = greedy(session, "layer4", "tree", candidates, 8, samples=training)
curve(session, "layer4", "greedy", order, "tree", [1, 2, 4, 8], samples=held_out).left
dose_response(session, "layer4", units, "tree", samples=held_out).effects
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gandissect.session import Session

from .ablation import Ablation, Baseline, ablate, check_editable, edited
from .edits import Blend, random_weights, weights_of
from .resampling import Effect

DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""What units are multiplied by: 0 is switched off, 1 is as they are, 2 is twice as strong."""


@dataclass(frozen=True)
class Curve:
    """What of a concept is left after the first units of an order are switched off.

    Attributes:
        name: of the order.
        units: in the order; none for random units.
        sizes: how many were switched off.
        effects: one for each size, on samples that the order was not made from.
    """

    name: str
    units: tuple[int, ...]
    sizes: tuple[int, ...]
    effects: tuple[Effect, ...]

    @property
    def mean_removed(self) -> float:
        """The part removed, averaged over the sizes: one number for the order."""
        return sum(effect.removed for effect in self.effects) / max(1, len(self.effects))


@dataclass(frozen=True)
class OrderComparison:
    """Orders of the units of one concept, compared on held-out samples; ``note`` says what could not be compared."""

    concept: str
    layer: str
    curves: tuple[Curve, ...]
    samples: int
    note: str = ""


@dataclass(frozen=True)
class DoseResponse:
    """What becomes of a concept when its units are multiplied by each of ``doses``.

    Attributes:
        concept, layer, units, doses: what was done.
        ablations: the measurement at each dose.
    """

    concept: str
    layer: str
    units: tuple[int, ...]
    doses: tuple[float, ...]
    ablations: tuple[Ablation, ...]

    def area(self, concept: str) -> list[Effect]:
        """What is *left* of a concept at each dose as a part of its area at dose 1, in ``removed``, with its interval."""
        found = [ablation.removed(concept) for ablation in self.ablations]
        return [Effect(1 - one.removed, 1 - one.high, 1 - one.low, one.area) for one in found]

    def most_changed(self, count: int) -> list[str]:
        """The other concepts whose area changes most between the extreme doses, as parts of the image."""
        spread = torch.stack([ablation.after.double().mean(0) for ablation in self.ablations])
        change = spread.amax(0) - spread.amin(0)
        names = self.ablations[0].concepts
        change[names.index(self.concept)] = 0.0
        order = change.argsort(descending=True, stable=True)[:count].tolist()
        return [names[k] for k in order if float(change[k]) > 0]


def greedy(
    session: Session, layer: str, concept: str, candidates: Sequence[int], size: int, *, samples: Baseline
) -> tuple[int, ...]:
    """The order in which each next unit removes most of what is left: ``size`` of the ``candidates``."""
    chosen: list[int] = []
    rest = list(candidates)
    while rest and len(chosen) < size:
        left = [
            float(1 - ablate(session, layer, [*chosen, unit], concept, samples=samples).removed().removed)
            for unit in rest
        ]
        chosen.append(rest.pop(int(torch.tensor(left).argmin())))
    return tuple(chosen)


def curve(
    session: Session, layer: str, name: str, units: Sequence[int], concept: str, sizes: Sequence[int], *, samples: Baseline
) -> Curve:  # fmt: skip
    """What is removed by the first units of an order, at each of ``sizes``."""
    effects = [ablate(session, layer, units[:size], concept, samples=samples).removed() for size in sizes]
    return Curve(name, tuple(units), tuple(sizes), tuple(effects))


def random_curve(session: Session, layer: str, concept: str, sizes: Sequence[int], *, samples: Baseline) -> Curve:
    """The same for random orders, another one in each sample."""
    channels = session.gan.generator.layer(layer).channels
    drawn = torch.from_numpy(session.rng(f"random order {layer}").random((len(samples.indices), channels)))
    effects = []
    for size in sizes:
        edit = Blend(random_weights(len(drawn), channels, size, drawn))
        effects.append(edited(session, layer, edit, samples, concept=concept).removed())
    return Curve("random", (), tuple(sizes), tuple(effects))


def dose_response(
    session: Session, layer: str, units: Sequence[int], concept: str, *, samples: Baseline, doses: Sequence[float] = DOSES
) -> DoseResponse:  # fmt: skip
    """Units multiplied by each dose: x(1 − a) with a = 1 − dose, so a dose above 1 is a boost."""
    check_editable(session, layer, units)
    one: Tensor = weights_of(units, session.gan.generator.layer(layer).channels)
    made = [edited(session, layer, Blend(one * (1 - dose)), samples, units=units, concept=concept) for dose in doses]
    return DoseResponse(concept, layer, tuple(units), tuple(doses), tuple(made))
