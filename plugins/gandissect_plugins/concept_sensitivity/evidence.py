"""What the discriminator's layers hold of each sample, and how its logit would change with them.

layer = SensedLayer.of(session.gan.discriminator.layer("layer3"))
session[layer.want(400)]                                 # float32 [400, C, rows, columns]
slopes(session, [layer], 64)["layer3"]                   # float64 [64, C · rows · columns]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.gan import LayerInfo
from gandissect.passes.running import BLOCK, filled
from gandissect.reducers import KeepSpec
from gandissect.session import Session, Want
from gandissect.streams import Batch, Role, Stream
from gandissect.tap import as_map, followed, tap

CELLS = 4
"""Maps are averaged over a grid of at most so many rows and columns."""


@dataclass(frozen=True)
class CoarseActivations(Stream):
    """A discriminator's layer averaged over ``rows`` × ``columns`` cells: float32 [N, C, rows, columns]."""

    name: str
    rows: int
    columns: int

    def of(self, batch: Batch) -> Tensor:
        return F.adaptive_avg_pool2d(as_map(batch.discriminator[self.name]), (self.rows, self.columns))

    def layer(self, role: Role) -> str | None:
        return self.name if role == "discriminator" else None


@dataclass(frozen=True)
class SensedLayer:
    """A layer and the grid it is read on; its cells are all of one size."""

    name: str
    channels: int
    rows: int
    columns: int

    @classmethod
    def of(cls, layer: LayerInfo) -> SensedLayer:
        """The grid of at most 4×4 cells that divides the layer's map."""
        sides = [max(k for k in range(1, CELLS + 1) if side % k == 0) for side in (layer.height, layer.width)]
        return cls(layer.name, layer.channels, *sides)

    def want(self, n: int) -> Want:
        """Its coarse activations of the first ``n`` samples."""
        return Want((CoarseActivations(self.name, self.rows, self.columns),), KeepSpec(), n)

    def spread(self, direction: Tensor, activation: Tensor) -> Tensor:
        """A direction float [C · rows · columns] in the layer's own shape: 1 in the coarse one is 1 in every cell of the map."""
        coarse = direction.reshape(1, self.channels, self.rows, self.columns).to(activation)
        if activation.dim() == 2:
            return coarse[..., 0, 0]
        return F.interpolate(coarse, size=activation.shape[2:], mode="nearest")


def slopes(session: Session, layers: Sequence[SensedLayer], count: int) -> dict[str, Tensor]:
    """∂logit/∂(coarse activation) of the first ``count`` samples: layer -> float64 [count, C · rows · columns].

    A coarse activation moves all cells of its part of the map alike, so its slope is the sum of theirs.
    """
    discriminator = session.gan.discriminator
    assert discriminator is not None
    images, names = session.images(count), [layer.name for layer in layers]
    labels = session.labels(range(count), "discriminator")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, count, BLOCK):
        given = filled(images[start : start + BLOCK], BLOCK).to(discriminator.device).requires_grad_()
        classes = None if labels is None else filled(labels[start : start + BLOCK], BLOCK)
        with session.borrowed(), torch.enable_grad(), tap(discriminator.module, names, followed) as acts:
            logits = discriminator(given, classes)
        found = torch.autograd.grad(logits.sum(), [acts[name] for name in names], allow_unused=True)
        for layer, slope in zip(layers, found, strict=True):
            whole = as_map(torch.zeros_like(acts[layer.name]) if slope is None else slope)
            cells = whole.shape[2] * whole.shape[3] / (layer.rows * layer.columns)
            coarse = F.adaptive_avg_pool2d(whole, (layer.rows, layer.columns)) * cells
            parts[layer.name].append(coarse[: count - start].flatten(1).double().cpu())
    return {name: torch.cat(rows) for name, rows in parts.items()}


def moved_logits(session: Session, layer: SensedLayer, direction: Tensor, count: int) -> Tensor:
    """The logits of the first ``count`` samples with ``direction`` added to the layer: float64 [count]."""
    discriminator = session.gan.discriminator
    assert discriminator is not None
    images, labels = session.images(count), session.labels(range(count), "discriminator")
    parts = []

    def add(_name: str, activation: Tensor) -> Tensor:
        return activation + layer.spread(direction, activation)

    for start in range(0, count, BLOCK):
        given = filled(images[start : start + BLOCK], BLOCK).to(discriminator.device)
        classes = None if labels is None else filled(labels[start : start + BLOCK], BLOCK)
        with session.borrowed(), torch.no_grad(), tap(discriminator.module, [layer.name], add):
            parts.append(discriminator(given, classes)[: count - start].double().cpu())
    return torch.cat(parts)
