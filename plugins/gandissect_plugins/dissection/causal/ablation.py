"""What units do, measured: switch them off and see which concepts shrink.

effect = ablate(session, "layer4", [17, 23], "tree")
effect.removed("tree")                              # Effect(removed=0.71, low=0.66, high=0.75)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import concept_areas
from gandissect.errors import NoSuchCapability, UsageError, unknown_name
from gandissect.session import Session

from .edits import Blend, random_weights, weights_of
from .resampling import Effect, Resampling

NAN = float("nan")


@dataclass(frozen=True)
class Baseline:
    """Samples as they are, so that many edits share them: see :func:`baseline`.

    Attributes:
        indices: the samples; ``latents`` float32 [n, D] and ``images`` float32 [n, C, H, W] theirs.
        areas: float32 [n, K], the part of each image that each concept covers.
        scores: float32 [n], the discriminator's logits; None without a discriminator.
        chance: bootstrap draws and sign flips.
    """

    indices: tuple[int, ...]
    latents: Tensor
    images: Tensor
    areas: Tensor
    scores: Tensor | None
    chance: Resampling


@dataclass(frozen=True)
class Ablation:
    """What an edit of a layer, such as switching some units off, did to the same samples.

    Attributes:
        layer, units: what was edited; no units where they differ from sample to sample.
        concept: the one asked about, or nothing.
        concepts: names of the columns.
        start: the samples before.
        after: float32 [n, K], the part of each image that each concept covers.
        images_after: float32 [m, C, H, W] in [-1, 1], the first samples.
        changed: some pixel of some sample is not what it was.
        scores_after: float32 [n], the discriminator's logits; None without a discriminator.
    """

    layer: str
    units: tuple[int, ...]
    concept: str | None
    concepts: tuple[str, ...]
    start: Baseline
    after: Tensor
    images_after: Tensor
    changed: bool
    scores_after: Tensor | None

    @property
    def indices(self) -> tuple[int, ...]:
        """The samples."""
        return self.start.indices

    @property
    def before(self) -> Tensor:
        """Float32 [n, K], the part of each image that each concept covers before."""
        return self.start.areas

    @property
    def images_before(self) -> Tensor:
        """Float32 [m, C, H, W], as many as ``images_after``."""
        return self.start.images[: len(self.images_after)]

    def removed(self, concept: str | None = None) -> Effect:
        """What became of one concept, the one asked about by default."""
        before, after = self._columns(concept)
        return self._effect(before, before - after)

    def beyond(self, others: Sequence[Ablation], concept: str | None = None) -> Effect:
        """How much more is removed than by ``others`` (random units, same samples) on average, paired over samples."""
        before, _ = self._columns(concept)
        if not others:
            return Effect(NAN, NAN, NAN, float(before.mean()))
        return self._effect(before, self.more_than(others, concept))

    def more_than(self, others: Sequence[Ablation], concept: str | None = None) -> Tensor:
        """The area left by ``others`` on average less the area left here: float64 [n]."""
        return (
            torch.stack([other._columns(concept or self.concept)[1] for other in others]).mean(0)
            - self._columns(concept)[1]
        )

    def side_effect(self, concept: str | None = None) -> tuple[str, float]:
        """The other concept whose area changed most, and by how much of all pixels (signed)."""
        change = (self.after - self.before).double().mean(0)
        change[self._column(concept)] = 0.0
        k = int(change.abs().argmax())
        return self.concepts[k], float(change[k])

    def score_change(self) -> float:
        """How much the discriminator's logit rose on average; NaN without a discriminator."""
        if self.scores_after is None or self.start.scores is None:
            return NAN
        return float((self.scores_after - self.start.scores).double().mean())

    def _effect(self, before: Tensor, gone: Tensor) -> Effect:
        if not float(before.sum()):
            return Effect(NAN, NAN, NAN, 0.0)
        low, high = self.start.chance.interval(gone, before)
        return Effect(float(gone.sum() / before.sum()), low, high, float(before.mean()))

    def _columns(self, concept: str | None) -> tuple[Tensor, Tensor]:
        k = self._column(concept)
        return self.before[:, k].double(), self.after[:, k].double()

    def _column(self, concept: str | None) -> int:
        name = concept or self.concept or ""
        if name not in self.concepts:
            raise unknown_name("concept", name, self.concepts)
        return self.concepts.index(name)


def baseline(session: Session, indices: Sequence[int]) -> Baseline:
    """The unedited samples ``indices``, the concept areas in them and what the discriminator says of them."""
    latents = session.latents_at(indices)
    images = session.generate(latents, labels=session.labels(indices))
    areas = concept_areas(session.segment(images, list(indices)))
    chance = Resampling.of(len(indices), session.rng("ablation"))
    return Baseline(tuple(indices), latents, images, areas, scored(session, images, indices), chance)


def scored(session: Session, images: Tensor, indices: Sequence[int]) -> Tensor | None:
    """The discriminator's logits of images that stand for samples ``indices``: float32 [n]; None without one."""
    if session.gan.discriminator is None:
        return None
    return session.score(images, session.labels(indices, "discriminator"))


def ablate(
    session: Session,
    layer: str,
    units: Sequence[int],
    concept: str | None = None,
    *,
    n: int = 64,
    value: float = 0.0,
    where: Tensor | None = None,
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
        where: float32 [n, h, w] in 0..1 on the layer's grid, see :func:`where_present`; everywhere where left out.
        samples: from :func:`baseline`, to share the unedited side.
        keep_images: so many pairs of images are kept.

    Raises:
        NoSuchCapability: the masks do not read pixels, or the layer cannot be edited.
        UsageError: a unit that does not exist.
    """
    check_editable(session, layer, units)
    channels = session.gan.generator.layer(layer).channels
    start = samples or baseline(session, range(min(n, session.n)))
    edit = Blend(weights_of(units, channels), torch.full((channels,), value) if value else None, where)
    return edited(session, layer, edit, start, units=units, concept=concept, keep_images=keep_images)


def ablate_random(session: Session, layer: str, size: int, samples: Baseline, rounds: int) -> list[Ablation]:
    """Sets of random units of the layer switched off, other units in every sample, so that few rounds see many units."""
    channels = session.gan.generator.layer(layer).channels
    made = []
    for place in range(rounds):
        drawn = session.rng(f"random units {layer} {place}").random((len(samples.indices), channels))
        alpha = random_weights(len(drawn), channels, size, torch.from_numpy(drawn))
        made.append(edited(session, layer, Blend(alpha), samples))
    return made


def edited(
    session: Session, layer: str, edit: Blend, start: Baseline, *, units: Sequence[int] = (), concept: str | None = None,
    keep_images: int = 0,
) -> Ablation:  # fmt: skip
    """The samples of ``start`` with any edit of a layer. Images that are what they were keep their areas and scores."""
    images = session.generate(start.latents, edit=edit, layers=[layer], labels=session.labels(start.indices))
    moved = (images != start.images).flatten(1).any(1).nonzero()[:, 0]
    after, scores = start.areas.clone(), None if start.scores is None else start.scores.clone()
    if len(moved):
        indices = [start.indices[place] for place in moved.tolist()]
        after[moved] = concept_areas(session.segment(images[moved], indices))
        judged = scored(session, images[moved], indices)
        if scores is not None and judged is not None:
            scores[moved] = judged
    names = tuple(item.name for item in session.vocabulary.concepts)
    return Ablation(
        layer, tuple(units), concept, names, start, after, images[:keep_images].clone(), len(moved) > 0, scores
    )


def where_present(session: Session, layer: str, concept: str, samples: Baseline) -> Tensor:
    """Cells of the layer that hold any of the concept in the unedited samples: float32 [n, h, w] of 0 and 1."""
    info = session.gan.generator.layer(layer)
    k = [item.name for item in session.vocabulary.concepts].index(concept)
    parts = []
    for start in range(0, len(samples.indices), 16):
        rows = slice(start, start + 16)
        masks = session.segment(samples.images[rows], list(samples.indices[rows]), only=[k])
        parts.append(F.adaptive_avg_pool2d(masks.float(), (info.height, info.width))[:, 0] > 0)
    return torch.cat(parts).float()


def check_editable(session: Session, layer: str, units: Sequence[int]) -> None:
    """Raise what :func:`ablate` promises."""
    info = session.gan.generator.layer(layer)
    if not session.vocabulary.reads_pixels:
        raise NoSuchCapability(
            "no causal effect can be measured with masks of given samples; use a segmenter that reads pixels"
        )
    if not info.editable:
        raise NoSuchCapability(f"layer {layer} cannot be edited")
    if any(not 0 <= unit < info.channels for unit in units):
        raise UsageError(f"units {list(units)}: {layer} has units 0 to {info.channels - 1}")
