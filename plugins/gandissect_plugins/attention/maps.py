"""Attention maps of a network for chosen places, and whether they are what the network used.

subject = Subject.of(session, "generator", 32)
for layer in attention_layers(subject, [(0.25, 0.25)]):
    layer.maps                           # float32 [N, P, h, w], every map sums to 1
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf, isnan, log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.gan import Network
from gandissect.passes.running import BLOCK, filled
from gandissect.session import Session
from gandissect.streams import Role
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

    def first(self) -> Subject:
        """The samples of the first block alone."""
        labels = None if self.labels is None else self.labels[:BLOCK]
        return replace(self, given=self.given[:BLOCK], labels=labels, images=self.images[:BLOCK])

    def run(
        self,
        look: Callable[[range, Mixing], Tensor | None] | None = None,
        layers: Sequence[str] = (),
        *,
        only: str | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's outputs float32 [N, …] and all those of modules ``layers``, in whole blocks and without gradients.

        ``look`` sees each attention with the samples of the block (rows beyond them fill it up) and may replace what it gives;
        ``only`` as for :func:`attending`.
        """
        outputs: list[Tensor] = []
        kept: dict[str, list[Tensor]] = {name: [] for name in layers}
        network = self.network
        assert callable(network)
        for start in range(0, len(self.given), BLOCK):
            rows = range(start, min(start + BLOCK, len(self.given)))
            given = filled(self.given[rows.start : rows.stop], BLOCK).to(network.device)
            labels = None if self.labels is None else filled(self.labels[rows.start : rows.stop], BLOCK)
            seen = nullcontext() if look is None else attending(network.module, partial(look, rows), only=only)
            with self.session.borrowed(), torch.no_grad(), _outputs(network.module, kept), seen:
                outputs.append(network(given, labels)[: len(rows)].float().cpu())
        return torch.cat(outputs), {name: torch.cat(parts) for name, parts in kept.items()}


@contextmanager
def _outputs(net: nn.Module, kept: Mapping[str, list[Tensor]]) -> Generator[None]:
    """Append what each module called so gives, flat, for the block: the first of several where it gives a tuple."""

    def keep(name: str, _module: nn.Module, _args: object, output: object) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor):
            kept[name].append(first.float().cpu().flatten())

    with ExitStack() as hooks:
        for name in kept:
            hooks.callback(net.get_submodule(name).register_forward_hook(partial(keep, name)).remove)
        yield


@dataclass(frozen=True)
class Places:
    """Which tokens are places of the picture, row by row, and which of them are asked.

    Attributes:
        queries, keys: rows and columns of the places that ask and of those that are asked.
        skipped: tokens before the places among queries and keys: 1 where there is one more than a grid has (a class token).
        points: int64 [P], flat places of the queries, the first ``shown`` of them asked for.
    """

    queries: Grid
    keys: Grid
    skipped: tuple[int, int]
    points: Tensor
    shown: int

    def rows(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What the points take from each place, float32 [N, heads, P, K], each row of sum 1; and their sums before, [N, heads, P]."""
        first, count = self.skipped[1], self.keys[0] * self.keys[1]
        taken = weights[:, :, self.points + self.skipped[0], first : first + count].float()
        whole = taken.sum(-1)
        return taken / whole[..., None].clamp(min=1e-12), whole

    def tokens(self, places: Tensor, total: int) -> Tensor:
        """bool [N, K] of places, as bool [N, total] of all the keys."""
        first = self.skipped[1]
        return F.pad(places, (first, total - first - places.shape[1]))


@dataclass(frozen=True)
class AttentionLayer:
    """What an attention looks at.

    Attributes:
        name: module in which values are mixed.
        places: which tokens are places.
        heads: how many maps each place has; ``maps`` are their mean.
        maps: float32 [N, P, h, w].
        received: float32 [N, K], mean over all queries of what each place is given.
        entropy: of the rows, mean over heads, queries and samples, as a part of log K: 1 is uniform.
        by_head: float32 [heads, P', K], mean rows over samples, of the queries that are not only shown.
        head_entropy: float32 [heads].
        aside: the part of the attention that goes to tokens that are no places, 0..1.
        gates: numbers that the module multiplies something with, by name.
        error: of the outputs recomputed from the map, the largest as a part of the output's root mean square.
    """

    name: str
    places: Places
    heads: int
    maps: Tensor
    received: Tensor
    entropy: float
    by_head: Tensor
    head_entropy: Tensor
    aside: float
    gates: Mapping[str, float]
    error: float

    @property
    def queries(self) -> Grid:
        """Rows and columns of the places that ask."""
        return self.places.queries

    @property
    def keys(self) -> Grid:
        """Rows and columns of the places that are asked."""
        return self.places.keys

    @property
    def points(self) -> Tensor:
        """int64 [P], flat places of the queries."""
        return self.places.points

    @property
    def shown(self) -> int:
        """How many of ``points`` were asked for."""
        return self.places.shown

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

    places: Places
    heads: int
    maps: list[Tensor] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)
    by_head: list[Tensor] = field(default_factory=list)
    entropy: list[Tensor] = field(default_factory=list)
    aside: list[Tensor] = field(default_factory=list)
    error: float = 0.0

    def add(self, mixing: Mixing, count: int) -> None:
        weights = mixing.weights[:count]
        rows, whole = self.places.rows(weights)
        even, first = rows[:, :, self.places.shown :], self.places.skipped[1]
        self.maps.append(rows.mean(1).cpu())
        self.received.append(weights.float().mean((1, 2))[:, first : first + rows.shape[-1]].cpu())
        self.by_head.append(even.sum(0).cpu())
        self.entropy.append((torch.special.entr(even).sum(-1).mean(2) / log(rows.shape[-1])).cpu())
        if rows.shape[-1] < weights.shape[-1]:
            self.aside.append(1 - whole[:, :, self.places.shown :].mean((1, 2)).cpu())
        self.error = max(self.error, _error(mixing.again(), mixing.own))


@dataclass
class _Placeless:
    """An attention whose tokens have no known places: only how spread it is can be said, and nothing where heads are unknown (0)."""

    reason: str
    heads: int
    spread: list[Tensor] = field(default_factory=list)
    error: float = 0.0

    def add(self, mixing: Mixing, count: int) -> None:
        weights = mixing.weights[:count].float()
        self.spread.append((torch.special.entr(weights).sum(-1).mean((1, 2)) / log(max(weights.shape[-1], 2))).cpu())
        self.error = max(self.error, _error(mixing.again(), mixing.own))

    def told(self) -> str:
        if not self.heads:
            return self.reason
        if self.error > EXACT:
            return f"{self.reason}, and its output does not follow from its weights (error {self.error:.2g})"
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        return f"{self.reason} ({heads}, entropy {float(torch.cat(self.spread).mean()):.2f} of uniform)"


def attention_layers(
    subject: Subject, points: Sequence[tuple[float, float]]
) -> tuple[list[AttentionLayer], dict[str, str]]:
    """Every attention over places, in the order of execution, and why others are left out: name -> reason.

    Args:
        subject: network and samples.
        points: (row, column) of queries that are shown, each 0..1 from the upper left corner.
    """
    seen: dict[str, _Kept | _Placeless] = {}

    def look(rows: range, mixing: Mixing) -> Tensor | None:
        if mixing.name not in seen:
            seen[mixing.name] = _started(subject, mixing, points)
        seen[mixing.name].add(mixing, len(rows))
        return None

    subject.run(look)
    kept = {name: parts for name, parts in seen.items() if isinstance(parts, _Kept)}
    errors = _replayed(subject, list(kept)) if kept else {}
    layers = [_finished(subject, name, parts, errors[name]) for name, parts in kept.items()]
    return layers, {name: parts.told() for name, parts in seen.items() if isinstance(parts, _Placeless)}


def _started(subject: Subject, mixing: Mixing, points: Sequence[tuple[float, float]]) -> _Kept | _Placeless:
    shape = subject.images.shape[2:]
    heads, asking, asked = mixing.weights.shape[1:]
    queries, keys = _tokens(asking, shape), _tokens(asked - mixing.extra, shape)
    if mixing.groups != 1:
        if not mixing.groups:
            return _Placeless("what it takes for its batch are not the samples (batch first or second?)", 0)
        why = f"attends within each of {mixing.groups} groups of {asking} tokens, so their places are unknown"
        return _Placeless(why, heads // mixing.groups)
    if queries is None or keys is None:
        reason = f"{asking} queries and {asked} keys are no grids of places in {shape[1]}×{shape[0]} pixels"
        return _Placeless(reason, heads)
    grid = queries[0]
    chosen = [min(int(at * side), side - 1) for point in points for at, side in zip(point, grid, strict=True)]
    shown = [row * grid[1] + column for row, column in zip(chosen[::2], chosen[1::2], strict=True)]
    steps = [torch.linspace(0, side - 1, min(STATISTICS, side)).round().long() for side in grid]
    even = (steps[0][:, None] * grid[1] + steps[1]).flatten()
    asked_for = torch.cat([torch.tensor(shown, dtype=torch.long), even])
    return _Kept(Places(grid, keys[0], (queries[1], keys[1]), asked_for, len(shown)), heads)


def _tokens(count: int, shape: Sequence[int]) -> tuple[Grid, int] | None:
    """The grid that so many tokens make, and 0; with 1 where they make one without the first; None where neither is so."""
    for skipped in (0, 1):
        grid = grid_of(count - skipped, shape)
        if grid is not None:
            return grid, skipped
    return None


def grid_of(count: int, shape: Sequence[int]) -> Grid | None:
    """(rows, columns) of so many places in a picture of (height, width); None where they make no grid of 2×2 or more."""
    rows = round((count * shape[0] / shape[1]) ** 0.5)
    columns = count // max(rows, 1)
    fits = (
        rows > 1 and columns > 1 and rows * columns == count and abs(rows * shape[1] - columns * shape[0]) < max(shape)
    )
    return (rows, columns) if fits else None


def _error(found: Tensor, truth: Tensor) -> float:
    """The largest difference as a part of the truth's root mean square; infinite where there is none to speak of."""
    if found.shape != truth.shape:
        return inf
    scale = float(truth.float().square().mean().sqrt())
    gap = float((found - truth).abs().max())
    error = gap / scale if scale > 0 else gap
    return inf if isnan(error) else error


def _replayed(subject: Subject, names: Sequence[str]) -> dict[str, float]:
    """How far each module's output and the network's are off when values are mixed again from the map."""
    modules = {name: name.partition("@")[0] for name in names}
    readable = sorted({module for module in modules.values() if module})
    whole, own = subject.run(None, readable)

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
    maps, entropy = torch.cat(parts.maps), torch.cat(parts.entropy)
    return AttentionLayer(
        name, parts.places, parts.heads, maps.reshape(*maps.shape[:2], *parts.places.keys), torch.cat(parts.received),
        float(entropy.mean()), torch.stack(parts.by_head).sum(0) / len(maps), entropy.mean(0),
        float(torch.cat(parts.aside).mean()) if parts.aside else 0.0, gates, max(error, parts.error),
    )  # fmt: skip
