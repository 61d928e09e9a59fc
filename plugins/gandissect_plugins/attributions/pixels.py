"""Attributions of the score with their checks: deletion, insertion, shuffled weights.

found = check_attributions(session, session.images(8))
found.trained, [check.passed for check in found.checks]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gandissect.borrow import borrowed
from gandissect.errors import NoSuchCapability
from gandissect.gan import Discriminator
from gandissect.probing.surveying import survey
from gandissect.session import AFFORDABLE, Session
from gandissect.trust import adjusted
from gandissect_plugins.attributions.checks import (
    SIMILAR,
    Paired,
    paired,
    rank_correlation,
    shuffled_weights,
)
from gandissect_plugins.attributions.curves import Curves, curves
from gandissect_plugins.attributions.methods import METHODS, Attribution, Effort, Method, attribute
from gandissect_plugins.attributions.trained import TRAINED, judge, score_all, trained_p

TOP = 0.1
"""Fraction of the pixels whose removal is named in sentences."""


@dataclass(frozen=True)
class AttributionCheck:
    """One method's maps and how far to trust them.

    Attributes:
        attribution: the maps.
        curves: deletion and insertion, with those of the moved maps.
        deletion: gain in the area of the deletion curve over the moved maps, in logits.
        insertion: likewise for insertion.
        adjusted: p of the deletion gain, adjusted over the methods for the false-discovery rate.
        similarity: mean |Spearman| with the maps of the network with shuffled weights, 0..1.
        trained: see :class:`ScoreExplained`.
    """

    attribution: Attribution
    curves: Curves
    deletion: Paired
    insertion: Paired
    adjusted: float
    similarity: float
    trained: float

    @property
    def passed(self) -> bool:
        """Deletion beats the moved maps, the maps depend on the weights, and the network differs from shuffled ones."""
        return self.sound and self.trained <= TRAINED

    @property
    def sound(self) -> bool:
        """Deletion beats the moved maps (FDR 5 %), and the maps depend on the weights."""
        return self.adjusted < 0.05 and self.deletion.low > 0 and self.similarity < SIMILAR

    def loss(self) -> tuple[float, float]:
        """Mean fall of the score without the top 10 % of the pixels: (by the map, by the moved map), in logits."""
        place = int((self.curves.fractions - TOP).abs().argmin())
        start = self.curves.deletion[:, 0]
        falls = [start - curve[:, place] for curve in (self.curves.deletion, self.curves.deletion_control)]
        return float(falls[0].mean()), float(falls[1].mean())


@dataclass(frozen=True)
class ScoreExplained:
    """All methods on the same images.

    Attributes:
        images: float32 [N, C, H, W].
        scores: float32 [N].
        silent: bool [N], images at which the gradient of the score is zero everywhere.
        trained: see :func:`gandissect_plugins.attributions.trained.trained_p`.
        checks: one for each method; empty where all images are silent.
    """

    images: Tensor
    scores: Tensor
    silent: Tensor
    trained: float
    checks: tuple[AttributionCheck, ...]


def check_attributions(
    session: Session,
    images: Tensor,
    methods: Sequence[Method] = METHODS,
    *,
    effort: Effort | None = None,
    shuffles: int = 49,
    alike: int = 2,
) -> ScoreExplained:
    """Maps of every method with deletion, insertion and randomisation checks.

    Args:
        session: its discriminator is explained.
        images: float32 [N, C, H, W] in [-1, 1]; a class-conditional discriminator is asked about the classes of the first
            N samples.
        methods: which.
        effort: of each.
        shuffles: copies with shuffled weights that the network is compared with.
        alike: images whose maps are compared with those of a network with shuffled weights.
    """
    discriminator = session.gan.discriminator
    if discriminator is None:
        raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
    labels = session.labels(range(len(images)), "discriminator")
    scores = score_all(discriminator, images, labels)
    silent = (gradient_times_input(discriminator, images, labels) == 0).flatten(1).all(1)
    if silent.all():
        return ScoreExplained(images, scores, silent, 1.0, ())
    rng = session.rng("attributions/score")
    trained = trained_p(discriminator, images, shuffles, rng, labels=labels)
    explain = partial(attribute, discriminator, baselines=session.images(min(16, session.n)), effort=effort)
    maps = [explain(method, images, seed=session.seed, labels=labels) for method in methods]
    few, classes = images[:alike], None if labels is None else labels[:alike]
    settle = partial(judge, discriminator, classes, few.to(discriminator.device))
    with borrowed(discriminator.module), shuffled_weights(discriminator.module, rng, settle):
        others = [explain(method, few, seed=session.seed, labels=classes) for method in methods]
    found = [curves(partial(score_all, discriminator, labels=labels), images, row.maps, rng) for row in maps]
    gains = [(paired(row.deletion_gain, rng), paired(row.insertion_gain, rng)) for row in found]
    rows = zip(maps, others, found, gains, adjusted([deletion.p for deletion, _ in gains]), strict=True)
    checks = [
        AttributionCheck(row, curve, deletion, insertion, float(p), _similarity(row, other), trained)
        for row, other, curve, (deletion, insertion), p in rows
    ]
    return ScoreExplained(images, scores, silent, trained, tuple(checks))


def affordable_methods(session: Session, methods: Sequence[Method], images: int, effort: Effort) -> tuple[Method, ...]:
    """The methods that a very large discriminator leaves: those that take the most runs per image are dropped first."""
    discriminator = session.gan.discriminator
    assert discriminator is not None
    image, labels = session.images(1).to(discriminator.device), session.labels(range(1), "discriminator")
    with borrowed(discriminator.module):
        cost = survey(discriminator.module, lambda _net, x: discriminator(x, labels), image).effort
    windows = (effort.windows + 1) ** 2
    runs = {"kernel-shap": effort.perturbations, "lime": effort.perturbations, "occlusion": windows}
    kept = list(methods)
    for name in runs:
        if cost * images * sum(runs.get(method, effort.steps) for method in kept) > AFFORDABLE:
            kept = [method for method in kept if method != name] or kept
    return tuple(kept)


def _similarity(found: Attribution, other: Attribution) -> float:
    correlation = rank_correlation(found.maps[: len(other.maps)], other.maps.nan_to_num())
    return float(correlation.abs().mean())


def gradient_times_input(discriminator: Discriminator, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """∂score/∂x · x summed over colours, one backward pass: float32 [N, H, W]; zeros where the score has no gradient."""
    with borrowed(discriminator.module):
        start = images.detach().to(discriminator.device).requires_grad_(True)
        scores = judge(discriminator, labels, start)
        if not scores.requires_grad:
            return torch.zeros(len(images), *images.shape[2:])
        gradient = torch.autograd.grad(scores.sum(), start, allow_unused=True)[0]
    return torch.zeros(images[:, 0].shape) if gradient is None else (gradient * start).detach().sum(1).cpu()
