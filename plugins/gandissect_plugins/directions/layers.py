"""Where in a generator with one style for each layer a direction acts, and the single style channels that change something.

acts = layer_effects(session, {"brightness": vector}, rulers, seeds=4)
acts.signed[0]                           # float64 [L, P]: the step at one style alone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gandissect.session import Session
from gandissect.spaces import codes, decoded, space_shape
from gandissect_plugins.features.embedding import Floats
from gandissect_plugins.features.groups import halves

from .effects import Baseline, Effects, Matrix, Rulers, fresh_samples, measure_effects, prior_sigma, random_baseline

SHARE = 0.25
"""The samples with the most of a property, whose styles are compared with all others."""


@dataclass(frozen=True)
class LayerEffects:
    """What a step of +2σ in z does when it reaches the styles of one layer alone: HiGAN's layerwise rescoring.

    Attributes:
        names: the directions, K of them.
        added: float64 [K, L, P], mean of max(0, change) in standard deviations of the property.
        signed: float64 [K, L, P], mean change.
        seeds: samples it was measured on.
    """

    names: tuple[str, ...]
    added: NDArray[np.float64]
    signed: NDArray[np.float64]
    seeds: int

    def locality(self, direction: int, target: int) -> tuple[int, float]:
        """(the layer with the largest mean change of a property, its share of the sum over layers; 1/L where all are alike)."""
        sizes = np.abs(self.signed[direction, :, target])
        total = float(sizes.sum())
        return int(sizes.argmax()), float(sizes.max() / total) if total > 0 else 0.0


def layer_effects(
    session: Session, directions: Mapping[str, Floats], rulers: Rulers, *, seeds: int = 4, reach: float = 2.0
) -> LayerEffects:
    """The effect of z-directions through each style of w+ alone.

    Args:
        session: of a generator with a space w+.
        directions: name -> unit vector [D] in z.
        rulers: what is measured.
        seeds: fresh samples.
        reach: standard deviations of the step.

    References:
        Yang, Shen, Zhou 2021, Semantic hierarchy emerges in deep generative representations, sec. 3.2.
    """
    latents, labels = fresh_samples(session, seeds)
    base = codes(session, "w+", latents, labels)
    before, layers = rulers.of(decoded(session, "w+", base, labels)), base.shape[1]
    spread = np.where(rulers.spread > 0, rulers.spread, np.inf)
    classes = None if labels is None else labels.repeat(layers)
    only = torch.eye(layers)[:, None, :, None]  # [layer that moves, sample, layer, 1]
    added, signed = [], []
    for vector in directions.values():
        step = torch.from_numpy(np.asarray(vector, np.float32)) * (reach * prior_sigma(session))
        moved = codes(session, "w+", latents + step, labels)
        swapped = base + only * (moved - base)
        images = decoded(session, "w+", swapped.flatten(0, 1), classes)
        change = rulers.of(images).reshape(layers, seeds, -1) - before
        added.append(np.maximum(0.0, change).mean(1) / spread)
        signed.append(change.mean(1) / spread)
    shape = (len(directions), layers, len(rulers.names))
    return LayerEffects(tuple(directions), np.array(added).reshape(shape), np.array(signed).reshape(shape), seeds)


def channel_scores(styles: Floats, values: Matrix) -> NDArray[np.float64]:
    """How strongly each style channel marks the samples with much of something: float64 [C].

    Args:
        styles: float [N, C].
        values: float64 [N].
    """
    # Wu et al. 2021, sec. 5: |mean of (s - μ) / σ over the samples with it| over the standard deviation of the same
    count = max(4, round(SHARE * len(values)))
    much = np.argsort(values, kind="stable")[-count:]
    rows = np.asarray(styles, np.float64)
    spread = rows.std(0)
    varying = spread > 1e-6 * max(float(spread.max()), 1e-12)
    normal = np.divide(rows - rows.mean(0), spread, out=np.zeros_like(rows), where=varying)[much]
    deviation = normal.std(0)
    return np.asarray(np.divide(np.abs(normal.mean(0)), deviation, out=np.zeros(len(spread)), where=deviation > 0))


@dataclass(frozen=True)
class Channels:
    """The style channel that marks each property most, and what moving it alone does beside random channels.

    Attributes:
        effects: rows are the channels, "s17" with its number; columns the properties.
        targets: the property of each row.
        scores: float64 [K], Wu's attribute score of each.
        vectors: one-hot float32 [K, C].
    """

    effects: Effects
    targets: tuple[str, ...]
    scores: Matrix
    vectors: NDArray[np.float32]


def style_channels(
    session: Session, n: int, rulers: Rulers, *, most: int = 6, random: int = 24, reach: float = 4.0
) -> Channels | None:
    """The most telling channel of each property, moved from −4σ to +4σ of its own spread, beside random channels.

    References:
        Wu, Lischinski, Shechtman 2021, StyleSpace Analysis, sec. 5.
    """
    (size,) = space_shape(session.gan.generator, "s")
    styles = codes(session, "s", session.latents(n), session.labels(range(n))).numpy()
    found: dict[int, tuple[str, float]] = {}
    for name, values in zip(rulers.names, rulers.values.T, strict=True):
        if halves(values) is None:
            continue
        scores = channel_scores(styles, values)
        best = int(scores.argmax())
        if best not in found or found[best][1] < scores[best]:
            found[best] = name, float(scores[best])
    chosen = sorted(found.items(), key=lambda item: -item[1][1])[:most]
    varying = np.flatnonzero(styles.std(0) > 1e-6 * max(float(styles.std(0).max()), 1e-12))
    others = np.setdiff1d(varying, list(found))
    if not chosen or len(others) < 4:
        return None
    drawn = session.rng("directions: channels").choice(others, min(random, len(others)), replace=False)
    baseline: Baseline = random_baseline(
        session, rulers, reach=reach, space="s", vectors=[_one_hot(c, size) for c in drawn]
    )
    vectors = {f"s{channel}": _one_hot(channel, size) for channel, _ in chosen}
    effects = measure_effects(session, vectors, rulers, baseline=baseline, reach=reach, space="s")
    targets = tuple(name for _, (name, _) in chosen)
    return Channels(effects, targets, np.array([score for _, (_, score) in chosen]), np.stack(list(vectors.values())))


def _one_hot(channel: int, size: int) -> NDArray[np.float32]:
    row = np.zeros(size, np.float32)
    row[channel] = 1.0
    return row
