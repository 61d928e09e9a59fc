"""What is clustered: the activations of some layers and the looks of the images, in the same cells of the same samples.

evidence = gather(session, samples=200)
evidence.layers["layer3"]                           # float32 [n, cells, units]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.analyzer import spread
from gandissect.gan import Gan, LayerInfo
from gandissect.reducers import KeepSpec
from gandissect.session import Session, Want
from gandissect.streams import Activations, Batch, Images, Role, Stream
from gandissect_plugins.vocabularies.looks import looks

GRID = 16
"""Cells along each side, at most."""
LEAST_CELLS = 16
LEAST_UNITS = 5
"""Of a layer that is taken without being named: a layer of fewer is the image itself, or nearly."""
MOST_LAYERS = 4
_BYTES = 256 * 2**20  # of activations kept


@dataclass(frozen=True)
class Pooled(Stream):
    """A generator layer's output averaged over a grid: float32 [N, C, height, width]."""

    name: str
    height: int
    width: int

    def of(self, batch: Batch) -> Tensor:
        maps = batch.get(Activations(self.name))
        whole = maps.shape[2:] == (self.height, self.width)
        return maps if whole else F.adaptive_avg_pool2d(maps, (self.height, self.width))

    def layer(self, role: Role) -> str | None:
        return self.name if role == "generator" else None


@dataclass(frozen=True)
class Evidence:
    """Cells of the first n samples.

    Attributes:
        images: float32 [n, C, H, W] in [-1, 1].
        layers: name -> float32 [n, h * w, units] on the layer's own grid.
        grids: name -> (h, w).
        grid: (h, w) of the cells that all clusterings are compared in.
        looks: float32 [n, cells, D], how the pixel in the middle of each of those looks.
    """

    images: Tensor
    layers: dict[str, Tensor]
    grids: dict[str, tuple[int, int]]
    grid: tuple[int, int]
    looks: Tensor

    def common(self, layer: str, labels: Tensor) -> Tensor:
        """Labels int64 [n, h * w] of a layer's cells in the common cells, [n, cells]."""
        maps = labels.reshape(len(labels), 1, *self.grids[layer]).float()
        return F.interpolate(maps, self.grid, mode="nearest-exact").long().flatten(1)


def looked_at(gan: Gan, names: Sequence[str]) -> tuple[LayerInfo, ...]:
    """The named layers, or some main ones that have a map worth the name, spread over depth."""
    if names:
        return tuple(gan.generator.layer(name) for name in names)
    main = gan.generator.main_layers()
    maps = [info for info in main if info.height * info.width >= LEAST_CELLS and info.channels >= LEAST_UNITS]
    return spread(maps, MOST_LAYERS)


def evidence_wants(gan: Gan, n: int, layers: Sequence[str], samples: int) -> list[Want]:
    """What :func:`gather` needs of the shared pass: the first ``samples`` of ``n``, fewer where layers are very wide."""
    infos = looked_at(gan, layers)
    if not infos:
        return []
    each = 4 * sum(info.channels * _side(info.height) * _side(info.width) for info in infos)
    count = max(1, min(n, samples, _BYTES // each))
    streams = [Pooled(info.name, _side(info.height), _side(info.width)) for info in infos]
    return [Want((Images(),), KeepSpec(), count), *(Want((stream,), KeepSpec(), count) for stream in streams)]


def _side(size: int) -> int:
    return min(GRID, size)


def gather(session: Session, layers: Sequence[str], samples: int) -> Evidence | None:
    """The evidence, or None where no layer has a map."""
    wants = evidence_wants(session.gan, session.n, layers, samples)
    if not wants:
        return None
    session.prepare(wants)
    images = session.images(wants[0].n)
    kept: dict[str, Tensor] = {}
    grids: dict[str, tuple[int, int]] = {}
    for want in wants[1:]:
        stream = cast(Pooled, want.streams[0])
        kept[stream.name] = cast(Tensor, session[want]).flatten(2).transpose(1, 2)
        grids[stream.name] = (stream.height, stream.width)
    grid = (max(h for h, _ in grids.values()), max(w for _, w in grids.values()))
    seen = [
        F.interpolate(looks(part), grid, mode="nearest-exact").flatten(2).transpose(1, 2)
        for part in torch.split(images, 16)
    ]
    return Evidence(images, kept, grids, grid, torch.cat(seen))
