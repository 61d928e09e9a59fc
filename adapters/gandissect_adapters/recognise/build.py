"""A plain module out of a chain and its steps, with the names of the file.

Rebuilt(chain, steps, eps={}, output="tanh")(z)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect_adapters.recognise.attention import built
from gandissect_adapters.recognise.chain import Chain, Op
from gandissect_adapters.recognise.oracle import groups_of, norm_named
from gandissect_adapters.recognise.plan import SHUFFLE, Step, activation


class Rebuilt(nn.Module):
    """Layers that run one after the other; each is a submodule under the name it has in the file.

    ``order`` lists their dotted names as they run. What has no name in the file (an activation called as a function) stands
    beside the layer it follows: ``bn1_act``. (As a child of it, it would make that layer a container.)
    """

    def __init__(self, layers: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.order = tuple(name for name, _ in layers)
        for name, layer in layers:
            attach(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, *latent] -> [N, C, H, W], or images to scores."""
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


_MIXING = ("conv", "deconv", "linear", "attention")


def main_layers(chain: Chain, net: Rebuilt) -> tuple[str, ...]:
    """The last layer of each stage but the last, of a network with self-attention; () for others: probing finds them.

    A stage starts at a convolution, a linear layer or a self-attention block.
    """
    if not any(op.kind == "attention" for op in chain.ops):
        return ()
    starts = [net.order.index(op.name) for op in chain.ops if op.kind in _MIXING]
    stages = [net.order[start:end] for start, end in pairwise(starts)]
    kept = [[name for name in stage if not isinstance(net.get_submodule(name), _RESHAPING)] for stage in stages]
    return tuple(stage[-1] for stage in kept)


_RESHAPING = (nn.Flatten, nn.Unflatten, nn.Upsample)


class Unit(nn.Module):
    """One of the numbers that a network gives for each image."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """[N, K, …] to [N, 1, …]."""
        return x[:, self.index : self.index + 1]


class Namespace(nn.Module):
    """Holds the layers of one dotted prefix; never runs itself."""

    def forward(self, x: Tensor) -> Tensor:
        """Nothing: the network calls the layers inside by name."""
        raise RuntimeError("a namespace of layers is not called")


def attach(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Register ``layer`` under a dotted name, with plain namespaces in between."""
    *parents, leaf = name.split(".")
    node = root
    for part in parents:
        child = node._modules.get(part)
        if child is None:
            child = Namespace()
            node.add_module(part, child)
        node = child
    node.add_module(leaf, layer)


def rebuild(
    chain: Chain,
    steps: Sequence[Step],
    *,
    eps: Mapping[str, float],
    output: str,
    view: tuple[int, ...] | None,
    unit: int | None = None,
    shuffled: bool = False,
) -> Rebuilt:
    """The module in eval mode, float32, without in-place operations.

    Args:
        output: the activation behind the last layer, "none" for none.
        view: (C, H, W) when the last layer gives a vector that is an image; (0,) to flatten a discriminator's map.
        unit: which of a discriminator's outputs is its score; None where it gives only one.
        shuffled: whether a PixelShuffle makes the image of the last layer's units.
    """
    layers: list[tuple[str, nn.Module]] = []
    for index, (op, step) in enumerate(zip(chain.ops, steps, strict=True)):
        extras = _extras(step)
        slots = list(chain.gaps[index].slots or ())
        behind = chain.ops[index - 1].name if index else ""
        layers += _named(extras, slots, behind)
        layers.append((op.name, _layer(op, step, eps.get(op.name, 1e-5))))
    tail: list[tuple[str, nn.Module]] = [] if unit is None else [("unit", Unit(unit))]
    if view == (0,):
        tail.append(("flatten", nn.Flatten(1)))
    if shuffled:
        tail.append(("up", nn.PixelShuffle(2)))
    if output != "none":
        tail.append(("act", activation(output).build()))
    if view is not None and view != (0,):
        tail.append(("view", nn.Unflatten(1, view)))
    layers += _named(tail, list(chain.gaps[-1].slots or ()), chain.ops[-1].name)
    net = Rebuilt(layers).eval()
    return net.requires_grad_(False)


def _extras(step: Step) -> list[tuple[str, nn.Module]]:
    made: list[tuple[str, nn.Module]] = []
    if step.activation != "none":
        made.append(("act", activation(step.activation).build()))
    if step.view is not None:
        made.append(("view", nn.Unflatten(1, step.view)))
    if step.flatten:
        made.append(("flatten", nn.Flatten(1)))
    if step.up > 1:
        made.append(("up", _upsampling(step)))
    return made


def _upsampling(step: Step) -> nn.Module:
    if step.mode == SHUFFLE:
        return nn.PixelShuffle(step.up)
    aligned = None if step.mode == "nearest" else step.mode.endswith("aligned")
    return nn.Upsample(scale_factor=float(step.up), mode=step.mode.partition("-")[0], align_corners=aligned)


def _named(extras: list[tuple[str, nn.Module]], slots: list[str], behind: str) -> list[tuple[str, nn.Module]]:
    """Extras under the names of the file's slots where those are as many; else beside the layer before."""
    flat = [(word, module) for word, module in extras if word in ("act", "up")]
    if flat and len(slots) >= len(flat) and behind:
        names = dict(zip((id(module) for _, module in flat), slots, strict=False))
        return [(names.get(id(module), f"{behind}_{word}"), module) for word, module in extras]
    return [(f"{behind}_{word}" if behind else word, module) for word, module in extras]


def _layer(op: Op, step: Step, eps: float) -> nn.Module:
    """The layer with the file's tensors; made without drawing random numbers, which are the user's."""
    if op.kind == "attention":
        return built(op.parts)
    with torch.random.fork_rng(devices=[]):
        layer = _empty_layer(op, step, eps)
    state = {"weight": op.weight, "bias": op.bias, "running_mean": op.mean, "running_var": op.var}
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.zero_()
        for name, value in state.items():
            place = getattr(layer, name, None)
            if value is None:
                continue
            if not isinstance(place, Tensor) or place.numel() != value.numel():
                raise NotOpened(f"'{op.name}.{name}' has shape {tuple(value.shape)}, which does not fit its layer")
            place.copy_(value.reshape(place.shape))
    return layer


def _empty_layer(op: Op, step: Step, eps: float) -> nn.Module:
    biased, geometry = op.bias is not None, step.geometry
    if op.kind == "linear":
        return nn.Linear(op.into, op.out, bias=biased)
    if op.kind == "conv":
        return nn.Conv2d(
            op.into, op.out, op.kernel, geometry.stride, geometry.padding, bias=biased, padding_mode=geometry.beyond
        )
    if op.kind == "deconv":
        return nn.ConvTranspose2d(
            op.into, op.out, op.kernel, geometry.stride, geometry.padding, geometry.output_padding, bias=biased
        )  # fmt: skip
    if op.kind == "prelu":
        return nn.PReLU(op.into)
    maps = step.out != (0, 0)
    if op.kind == "affine" and op.weight is not None and op.weight.dim() == 3:
        return nn.LayerNorm(tuple(op.weight.shape))
    if op.kind == "affine":
        norm = step.norm or norm_named(op.name)
        if not maps:
            return nn.LayerNorm(op.into)
        if norm == "instance":
            return nn.InstanceNorm2d(op.into, affine=True)
        return nn.GroupNorm(groups_of(norm, op.into), op.into)
    affine = op.weight is not None
    return nn.BatchNorm2d(op.into, eps, affine=affine) if maps else nn.BatchNorm1d(op.into, eps, affine=affine)
