"""Parts that the BigGAN codebases share: reading sizes off a file, and the space in which classes mix.

attention_at(tensors, "blocks.3.1", THETA_PHI)   # the self-attention that stands there, or None
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect.gan import InnerSpace
from gandissect_adapters.families.residual.ops import AttentionNames, SelfAttention


def shape_of(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of the tensor called ``name``, ``dimensions`` sizes above 0.

    Raises:
        NotOpened: there is none, or it is of another kind.
    """
    if name not in tensors:
        raise NotOpened(f"the network is laid out like a BigGAN but has no '{name}'; pass its class")
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise NotOpened(
            f"'{name}' has shape {shape}, where a BigGAN has {dimensions} dimensions; pass the network's class"
        )
    return shape


def check_chain(widths: Sequence[tuple[int, int]], *, widening: bool = True) -> None:
    """Nothing, where each of the blocks (units in, units out) takes what the one before it gives.

    Args:
        widening: whether a block may give more units than it takes.

    Raises:
        NotOpened: one does not.
    """
    for i, (inside, outside) in enumerate(widths):
        if i and inside != widths[i - 1][1]:
            raise NotOpened(f"block {i} takes {inside} units where the one before it gives {widths[i - 1][1]}")
        if outside > inside and not widening:
            raise NotOpened(f"block {i} gives {outside} units of {inside} with nothing on its skip to widen it")


def side_of(rows: int, channels: int) -> int:
    """Side of the square map that a first linear layer of ``rows`` outputs gives with ``channels`` units.

    Raises:
        NotOpened: there is no such side.
    """
    side = round(math.sqrt(rows / channels))
    if side < 1 or side * side * channels != rows:
        raise NotOpened(f"the first linear layer has {rows} outputs, which are no square map of {channels} units")
    return side


@dataclass(frozen=True)
class AttentionPlan:
    """Sizes of a pooled self-attention and what its parts are called."""

    channels: int
    narrow: int
    gate_shape: tuple[int, ...]
    names: AttentionNames

    def build(self) -> SelfAttention:
        """The module, its weights not set."""
        return SelfAttention(
            self.channels, pooled=True, names=self.names, gate_shape=self.gate_shape, narrow=self.narrow
        )


def attention_at(tensors: Mapping[str, Tensor], path: str, names: AttentionNames) -> AttentionPlan | None:
    """The pooled self-attention under ``path``, sized by its weights; None where there is none."""
    if f"{path}.{names.gate}" not in tensors:
        return None
    narrow, channels = shape_of(tensors, f"{path}.{names.query}.weight", 4)[:2]
    gate = tensors[f"{path}.{names.gate}"]
    if gate.numel() != 1:
        raise NotOpened(
            f"'{path}.{names.gate}' has {gate.numel()} values, where a BigGAN's self-attention has one gate"
        )
    return AttentionPlan(channels, narrow, tuple(gate.shape), names)


def labels_or_cycle(labels: Tensor | None, like: Tensor, classes: int) -> Tensor:
    """``labels``, or class ``i % classes`` for row i of ``like`` [N, ...] where there are none; int64 [N]."""
    return torch.arange(len(like), device=like.device) % classes if labels is None else labels


def class_space(draw: Callable[[Tensor, Tensor], Tensor], embedding: nn.Embedding, latent: int) -> InnerSpace:
    """z [latent] beside the embedded class [shared]: the space in which classes can be mixed.

    Its centre is z = 0 and the mean class.
    """
    classes, shared = embedding.weight.shape

    def enter(z: Tensor, labels: Tensor | None) -> Tensor:
        return torch.cat([z, embedding(labels_or_cycle(labels, z, classes))], dim=1)

    def leave(x: Tensor, labels: Tensor | None) -> Tensor:
        return draw(x[:, :latent], x[:, latent:])

    centre = torch.cat([embedding.weight.new_zeros(latent), embedding.weight.detach().mean(0)])
    return InnerSpace("z+class", (latent + shared,), enter, leave, centre)


def last_of_each_size(names: Iterable[str], grows: Sequence[bool]) -> tuple[str, ...]:
    """Of blocks in order, those after which the map grows (``grows`` says where a block doubles it), and the last."""
    listed = list(names)
    last = len(listed) - 1
    return tuple(name for i, name in enumerate(listed) if i == last or grows[i + 1])
