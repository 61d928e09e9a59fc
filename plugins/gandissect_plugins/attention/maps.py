"""Attention maps of a network for chosen places, and whether they are what the network used.

subject = Subject.of(session, "generator", 32)
for layer in attention_layers(subject, [(0.25, 0.25)]):
    layer.maps                           # float32 [N, P, h, w], every map sums to 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import log

import torch
from torch import Tensor

from gandissect.gan import Network
from gandissect.passes.running import BLOCK, filled
from gandissect.session import Session
from gandissect.streams import Role
from gandissect.tap import tap
from gandissect_plugins.attention.trace import Mixing, attending

Grid = tuple[int, int]
STATISTICS = 8
"""Queries on a grid of so many rows and columns stand for all of a layer."""
EXACT = 1e-4
"""Largest error of the recomputed output, as a part of its root mean square."""


@dataclass(frozen=True)
class Subject:
    """A network, and samples to run it on.

    Attributes:
        network: generator or discriminator.
        given: latents float32 [N, D] or images float32 [N, C, H, W] in [-1, 1].
        labels: int64 [N] or None.
        images: float32 [N, C, H, W], what the samples look like.
    """

    session: Session = field(repr=False)
    network: Network
    given: Tensor
    labels: Tensor | None
    images: Tensor

    @classmethod
    def of(cls, session: Session, role: Role, count: int) -> Subject:
        """The network of that role with the first ``count`` samples."""
        images = session.images(count)
        given = session.latents(count) if role == "generator" else images
        return cls(session, session.gan.network(role), given, session.labels(range(len(images)), role), images)

    def run(
        self, look: Callable[[range, Mixing], Tensor | None] | None = None, layers: Sequence[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's outputs float32 [N, …] and those of ``layers``, in whole blocks and without gradients.

        ``look`` sees each attention with the samples of the block (rows beyond them fill it up) and may replace what it gives.
        """
        outputs: list[Tensor] = []
        kept: dict[str, list[Tensor]] = {name: [] for name in layers}
        network = self.network
        assert callable(network)
        for start in range(0, len(self.given), BLOCK):
            rows = range(start, min(start + BLOCK, len(self.given)))
            given = filled(self.given[rows.start : rows.stop], BLOCK).to(network.device)
            labels = None if self.labels is None else filled(self.labels[rows.start : rows.stop], BLOCK)
            seen = nullcontext() if look is None else attending(network.module, lambda m, rows=rows: look(rows, m))  # type: ignore[misc]  # a default argument
            with self.session.borrowed(), torch.no_grad(), tap(network.module, layers) as acts, seen:
                outputs.append(network(given, labels)[: len(rows)].float().cpu())
            for name in layers:
                kept[name].append(acts[name][: len(rows)].float().cpu())
        return torch.cat(outputs), {name: torch.cat(parts) for name, parts in kept.items()}


@dataclass(frozen=True)
class AttentionLayer:
    """What an attention looks at.

    Attributes:
        name: module in which values are mixed.
        queries, keys: rows and columns of the places that ask and of those that are asked.
        heads: how many maps each place has; ``maps`` are their mean.
        points: int64 [P], flat places of the queries, the first ``shown`` of them asked for.
        maps: float32 [N, P, h, w].
        received: float32 [N, K], mean over all queries of what each place is given.
        entropy: of the rows, mean over heads, queries and samples, as a part of log K: 1 is uniform.
        gates: numbers that the module multiplies something with, by name.
        error: of the outputs recomputed from the map, the largest as a part of the output's root mean square.
    """

    name: str
    queries: Grid
    keys: Grid
    heads: int
    points: Tensor
    shown: int
    maps: Tensor
    received: Tensor
    entropy: float
    gates: Mapping[str, float]
    error: float

    @property
    def reproduced(self) -> bool:
        """The layer's own output follows from the map."""
        return self.error <= EXACT

    @property
    def rows(self) -> Tensor:
        """``maps`` without their shape: float32 [N, P, K]."""
        return self.maps.flatten(2)


@dataclass
class _Kept:
    """One layer's parts as they come, block by block."""

    grids: tuple[Grid, Grid]
    points: Tensor
    shown: int
    heads: int
    maps: list[Tensor] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)
    entropy: list[Tensor] = field(default_factory=list)
    error: float = 0.0


def attention_layers(
    subject: Subject, points: Sequence[tuple[float, float]]
) -> tuple[list[AttentionLayer], dict[str, str]]:
    """Every attention over places, in the order of execution, and why others are left out: name -> reason.

    Args:
        subject: network and samples.
        points: (row, column) of queries that are shown, each 0..1 from the upper left corner.
    """
    kept: dict[str, _Kept] = {}
    refused: dict[str, str] = {}

    def look(rows: range, mixing: Mixing) -> Tensor | None:
        if mixing.name not in kept and mixing.name not in refused:
            found = _started(subject, mixing, points)
            if isinstance(found, str):
                refused[mixing.name] = found
                return None
            kept[mixing.name] = found
        if mixing.name in kept:
            _keep(kept[mixing.name], mixing, len(rows))
        return None

    whole, _ = subject.run(look)
    errors = _replayed(subject, list(kept), whole) if kept else {}
    layers = [_finished(subject, name, parts, errors[name]) for name, parts in kept.items()]
    return layers, refused


def _started(subject: Subject, mixing: Mixing, points: Sequence[tuple[float, float]]) -> _Kept | str:
    shape = subject.images.shape[2:]
    asking, asked = mixing.weights.shape[2:]
    queries, keys = grid_of(asking, shape), grid_of(asked, shape)
    if queries is None or keys is None:
        return f"{asking} queries and {asked} keys are no grids of places in {shape[1]}×{shape[0]} pixels"
    chosen = [min(int(at * side), side - 1) for point in points for at, side in zip(point, queries, strict=True)]
    shown = [row * queries[1] + column for row, column in zip(chosen[::2], chosen[1::2], strict=True)]
    steps = [torch.linspace(0, side - 1, min(STATISTICS, side)).round().long() for side in queries]
    even = (steps[0][:, None] * queries[1] + steps[1]).flatten()
    return _Kept(
        (queries, keys), torch.cat([torch.tensor(shown, dtype=torch.long), even]), len(shown), mixing.weights.shape[1]
    )


def grid_of(count: int, shape: Sequence[int]) -> Grid | None:
    """(rows, columns) of so many places in a picture of (height, width); None where they make no grid of 2×2 or more."""
    rows = round((count * shape[0] / shape[1]) ** 0.5)
    columns = count // max(rows, 1)
    fits = (
        rows > 1 and columns > 1 and rows * columns == count and abs(rows * shape[1] - columns * shape[0]) < max(shape)
    )
    return (rows, columns) if fits else None


def _keep(kept: _Kept, mixing: Mixing, count: int) -> None:
    weights = mixing.weights[:count].float()
    rows = weights[:, :, kept.points]
    rows = rows / rows.sum(-1, keepdim=True).clamp(min=1e-12)
    own, again = mixing.mixed, mixing.weights @ mixing.values
    kept.maps.append(rows.mean(1).cpu())
    kept.received.append(weights.mean((1, 2)).cpu())
    even = rows[:, :, kept.shown :]
    kept.entropy.append((torch.special.entr(even).sum(-1).mean((1, 2)) / log(weights.shape[3])).cpu())
    kept.error = max(kept.error, _error(again, own))


def _error(found: Tensor, truth: Tensor) -> float:
    """The largest difference as a part of the truth's root mean square."""
    scale = float(truth.float().square().mean().sqrt())
    gap = float((found - truth).abs().max())
    return gap / scale if scale > 0 else gap


def _replayed(subject: Subject, names: Sequence[str], whole: Tensor) -> dict[str, float]:
    """How far each module's output and the network's are off when values are mixed again from the map."""
    modules = {name: name.partition("@")[0] for name in names}
    readable = sorted({module for module in modules.values() if module})
    own = subject.run(None, readable)[1]

    def again(_rows: range, mixing: Mixing) -> Tensor | None:
        return mixing.weights @ mixing.values if mixing.name in modules else None

    replayed, blocks = subject.run(again, readable)
    all_of_it = _error(replayed, whole)
    return {
        name: max(all_of_it, _error(blocks[module], own[module]) if module else 0.0) for name, module in modules.items()
    }


def _finished(subject: Subject, name: str, parts: _Kept, error: float) -> AttentionLayer:
    module = subject.network.module.get_submodule(name.partition("@")[0])
    gates = {key: float(value.detach()) for key, value in module.named_parameters(recurse=False) if value.numel() == 1}
    maps = torch.cat(parts.maps)
    return AttentionLayer(
        name, *parts.grids, parts.heads, parts.points, parts.shown, maps.reshape(*maps.shape[:2], *parts.grids[1]),
        torch.cat(parts.received), float(torch.cat(parts.entropy).mean()), gates, max(error, parts.error),
    )  # fmt: skip
