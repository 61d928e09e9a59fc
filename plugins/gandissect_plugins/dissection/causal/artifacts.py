"""Units that spoil the picture: without them the discriminator's score rises, or a measured defect shrinks.

tests = artifact_units(session, ["layer3", "layer4"], count=16, samples=16)
[test for test in tests if test.found]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gandissect.properties import checkerboard, clipping
from gandissect.session import Session
from gandissect.trust import adjusted

from .ablation import scored
from .edits import Blend, weights_of
from .resampling import Resampling
from .screening import first_order

LEAST_CHANGE = 0.1
"""The least change that counts, in standard deviations over samples."""
SCORE = "discriminator's score"


DEFECTS: dict[str, Callable[[Tensor], Tensor]] = {"checkerboard energy": checkerboard, "clipped values": clipping}
"""Less of each is better."""


@dataclass(frozen=True)
class ArtifactTest:
    """What switching a unit off does to one measure.

    Attributes:
        layer, unit, measure: which.
        before, after: means over samples.
        low, high: the 95 % bootstrap interval of the change.
        better: the change in the good direction, in standard deviations of the measure over samples.
        p, q: one-sided, that it gets better; after Benjamini–Hochberg over all units and measures.
        fdr: the rate asked for.
    """

    layer: str
    unit: int
    measure: str
    before: float
    after: float
    low: float
    high: float
    better: float
    p: float
    fdr: float
    q: float = float("nan")

    @property
    def found(self) -> bool:
        """The measure gets better by at least ``LEAST_CHANGE``, beyond chance."""
        return self.better >= LEAST_CHANGE and self.q <= self.fdr


@dataclass(frozen=True)
class Artifacts:
    """All tests, best first, and before and after of the best units.

    ``images`` are (layer, unit, before, after) with float32 [m, C, H, W] in [-1, 1].
    """

    tests: tuple[ArtifactTest, ...]
    images: tuple[tuple[str, int, Tensor, Tensor], ...]
    samples: int
    units: int
    screened: bool

    def found(self) -> list[ArtifactTest]:
        """The artifact units."""
        return [test for test in self.tests if test.found]


def artifact_units(
    session: Session, layers: Sequence[str], *, count: int, samples: int = 16, fdr: float = 0.05, shown: int = 3
) -> Artifacts:
    """Switch units off one at a time and measure what becomes of the discriminator's score and of the defects.

    Args:
        session: without a discriminator only the defects are measured.
        layers: names of editable layers.
        count: units to test: those whose removal should help most by the gradient, or spread over the layers without one.
        samples: the first so many.
        fdr: false-discovery rate over units and measures.
        shown: so many of the units found keep their images.
    """
    indices = range(min(samples, session.n))
    latents, labels = session.latents_at(indices), session.labels(indices)
    images = session.generate(latents, labels=labels)
    chosen, screened = _candidates(session, layers, count, indices)
    before = _measured(session, images, indices)
    chance = Resampling.of(len(indices), session.rng("artifacts"))
    tests: list[ArtifactTest] = []
    for layer, unit in chosen:
        after = _measured(session, _without(session, layer, unit, latents, labels), indices)
        tests += [_test(layer, unit, measure, before[measure], after[measure], chance, fdr) for measure in before]
    q = adjusted([test.p for test in tests])
    tests = [replace(test, q=float(value)) for test, value in zip(tests, q, strict=True)]
    tests.sort(key=lambda test: (not test.found, -test.better, test.layer, test.unit))
    best = list(dict.fromkeys((test.layer, test.unit) for test in tests if test.found))[:shown]
    pictures = tuple(
        (layer, unit, images[:8], _without(session, layer, unit, latents[:8], None if labels is None else labels[:8]))
        for layer, unit in best
    )
    return Artifacts(tuple(tests), pictures, len(indices), len(chosen), screened)


def _without(session: Session, layer: str, unit: int, latents: Tensor, labels: Tensor | None) -> Tensor:
    off = Blend(weights_of([unit], session.gan.generator.layer(layer).channels))
    return session.generate(latents, edit=off, layers=[layer], labels=labels)


def _measured(session: Session, images: Tensor, indices: Sequence[int]) -> dict[str, Tensor]:
    """Every measure of every image: name -> float64 [N]."""
    found = {name: defect(images).double() for name, defect in DEFECTS.items()}
    scores = scored(session, images, list(indices))
    if scores is not None:
        found[SCORE] = scores.double()
    return found


def _test(
    layer: str, unit: int, measure: str, before: Tensor, after: Tensor, chance: Resampling, fdr: float
) -> ArtifactTest:
    change = after - before
    low, high = chance.interval(change, torch.ones_like(change))
    better = change if measure == SCORE else -change
    spread = max(float(before.std(correction=0)), 1e-9 * (1 + float(before.abs().mean())))
    return ArtifactTest(
        layer, unit, measure, float(before.mean()), float(after.mean()), low, high,
        float(better.mean()) / spread, chance.p_more(better), fdr,
    )  # fmt: skip


def _candidates(
    session: Session, layers: Sequence[str], count: int, indices: Sequence[int]
) -> tuple[list[tuple[str, int]], bool]:
    """Units to test, and whether gradients chose them."""
    channels = {layer: session.gan.generator.layer(layer).channels for layer in layers}
    every = [(layer, unit) for layer in layers for unit in range(channels[layer])]
    if len(every) <= count or not count:
        return every[:count], False
    can = session.gan.capabilities
    if not can.gradients:
        return [every[place * len(every) // count] for place in range(count)], False
    wishes: list[Callable[[Tensor], Tensor]] = [lambda images: -checkerboard(images)]
    if can.discriminator_gradients and session.gan.discriminator is not None:
        judge, classes = session.gan.discriminator, session.labels(indices, "discriminator")
        wishes.append(lambda images: judge(images, classes))
    queues = []
    for wish in wishes:
        rise = first_order(session, layers, wish, indices)
        queues.append(sorted(every, key=lambda pair: -float(rise[pair[0]][pair[1]])))
    turn = [pair for rank in range(count) for queue in queues for pair in queue[rank : rank + 1]]
    return list(dict.fromkeys(turn))[:count], True
