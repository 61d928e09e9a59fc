"""What units do, measured: switch them off and see which concepts shrink.

effect = ablate(session, "layer4", [17, 23], "tree")
effect.removed("tree")                              # Effect(removed=0.71, low=0.66, high=0.75)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.concepts import concept_areas
from gandissect.errors import NoSuchCapability, UsageError, unknown_name
from gandissect.session import Session
from gandissect.tap import Edit

BOOTSTRAP = 1000


@dataclass(frozen=True)
class Effect:
    """The part of a concept's area that is gone, negative where it grew, with the 95 % bootstrap interval over samples.

    ``area`` is the mean part of the images that the concept covers before. All are NaN where it is in none of the samples.
    """

    removed: float
    low: float
    high: float
    area: float


@dataclass(frozen=True)
class Ablation:
    """What switching off some units of a layer did to the same samples.

    Attributes:
        layer, units: what was switched off.
        concept: the one asked about, or nothing.
        concepts: names of the columns.
        indices: the samples.
        before, after: float32 [n, K], the part of each image that each concept covers.
        images_before, images_after: float32 [m, C, H, W] in [-1, 1], the first samples.
        weights: float64 [B, n], how often each bootstrap draw takes each sample.
    """

    layer: str
    units: tuple[int, ...]
    concept: str | None
    concepts: tuple[str, ...]
    indices: tuple[int, ...]
    before: Tensor
    after: Tensor
    images_before: Tensor
    images_after: Tensor
    weights: Tensor

    def removed(self, concept: str | None = None) -> Effect:
        """What became of one concept, the one asked about by default."""
        k = self._column(concept)
        before, after = self.before[:, k].double(), self.after[:, k].double()
        if not float(before.sum()):
            nan = float("nan")
            return Effect(nan, nan, nan, 0.0)
        low, high = _interval(_ratio(self.weights @ before, self.weights @ after))
        return Effect(float(1 - after.sum() / before.sum()), low, high, float(before.mean()))

    def beyond(self, others: Sequence[Ablation], concept: str | None = None) -> Effect:
        """How much more is removed than by ``others`` (random sets of the same samples) on average, paired over samples."""
        k = self._column(concept)
        before = self.before[:, k].double()
        if not float(before.sum()) or not others:
            nan = float("nan")
            return Effect(nan, nan, nan, float(before.mean()))
        rest = torch.stack([other.after[:, k].double() for other in others]).mean(0)
        more = rest - self.after[:, k].double()
        low, high = _interval(self.weights @ more / (self.weights @ before).clamp(min=1e-12))
        return Effect(float(more.sum() / before.sum()), low, high, float(before.mean()))

    def side_effect(self, concept: str | None = None) -> tuple[str, float]:
        """The other concept whose area changed most, and by how much of all pixels (signed)."""
        change = (self.after - self.before).double().mean(0)
        change[self._column(concept)] = 0.0
        k = int(change.abs().argmax())
        return self.concepts[k], float(change[k])

    def _column(self, concept: str | None) -> int:
        name = concept or self.concept or ""
        if name not in self.concepts:
            raise unknown_name("concept", name, self.concepts)
        return self.concepts.index(name)


def _ratio(before: Tensor, after: Tensor) -> Tensor:
    """1 − after/before of each draw; draws without the concept are left out."""
    there = before > 0
    return 1 - after[there] / before[there]


def _interval(draws: Tensor) -> tuple[float, float]:
    if not len(draws):
        return float("nan"), float("nan")
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return float(low), float(high)


def switch_off(units: Sequence[int], value: float = 0.0) -> Edit:
    """The edit x(1 − a) + r·a with a = 1 at ``units`` and r = ``value`` (Bau et al. 2019, GAN Dissection, eq. 3)."""
    chosen = list(units)

    def edit(_layer: str, activation: Tensor) -> Tensor:
        changed = activation.clone()
        changed[:, chosen] = value
        return changed

    return edit


@dataclass(frozen=True)
class Baseline:
    """Samples as they are, so that many ablations share them: see :func:`baseline`."""

    indices: tuple[int, ...]
    latents: Tensor
    images: Tensor
    areas: Tensor
    weights: Tensor


def baseline(session: Session, indices: Sequence[int]) -> Baseline:
    """The unedited samples ``indices`` and the concept areas in them."""
    latents = session.latents_at(indices)
    images = session.generate(latents, labels=session.labels(indices))
    areas = concept_areas(session.segment(images, list(indices)))
    return Baseline(tuple(indices), latents, images, areas, _bootstrap(len(indices), session.rng("ablation")))


def _bootstrap(n: int, rng: np.random.Generator) -> Tensor:
    counts: NDArray[np.int64] = rng.multinomial(n, np.full(n, 1.0 / n), size=BOOTSTRAP)
    return torch.from_numpy(counts).double()


def ablate(
    session: Session,
    layer: str,
    units: Sequence[int],
    concept: str | None = None,
    *,
    n: int = 64,
    value: float = 0.0,
    samples: Baseline | None = None,
    keep_images: int = 8,
) -> Ablation:
    """Switch units off and measure the area of every concept before and after.

    Args:
        session: its vocabulary must read pixels: masks drawn for given samples say nothing about edited ones.
        layer: name of an editable layer.
        units: which of its units.
        concept: the one :meth:`Ablation.removed` speaks of by default.
        n: the first so many samples, unless ``samples`` says which.
        value: what the units are set to.
        samples: from :func:`baseline`, to share the unedited side.
        keep_images: so many pairs of images are kept.

    Raises:
        NoSuchCapability: the masks do not read pixels, or the layer cannot be edited.
        UsageError: a unit that does not exist.
    """
    _check(session, layer, units)
    start = samples or baseline(session, range(min(n, session.n)))
    images = session.generate(
        start.latents, edit=switch_off(units, value), layers=[layer], labels=session.labels(start.indices)
    )
    after = concept_areas(session.segment(images, list(start.indices)))
    names = tuple(item.name for item in session.vocabulary.concepts)
    return Ablation(
        layer, tuple(units), concept, names, start.indices, start.areas, after,
        start.images[:keep_images], images[:keep_images], start.weights,
    )  # fmt: skip


def _check(session: Session, layer: str, units: Sequence[int]) -> None:
    info = session.gan.generator.layer(layer)
    if not session.vocabulary.reads_pixels:
        raise NoSuchCapability(
            "no causal effect can be measured with masks of given samples; use a segmenter that reads pixels"
        )
    if not info.editable:
        raise NoSuchCapability(f"layer {layer} cannot be edited")
    if any(not 0 <= unit < info.channels for unit in units):
        raise UsageError(f"units {list(units)}: {layer} has units 0 to {info.channels - 1}")
