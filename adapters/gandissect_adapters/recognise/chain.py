"""The layers with parameters of one network, in the order they run, and what is known of the gaps between them.

chain = read_chain(tensors, slots, "generator")
chain.ops[0].kind, chain.gaps[0].slots  # "deconv", ("main.2",)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from torch import Tensor

from gandissect_adapters.recognise.attention import attention_blocks, units_of

Kind = Literal["linear", "conv", "deconv", "norm", "affine", "prelu", "embedding", "attention"]


@dataclass(frozen=True, eq=False)
class Op:
    """One layer with parameters.

    ``into`` and ``out`` count units; "norm" has running statistics, "affine" is a norm without (instance, layer;
    a weight [C, H, W] is that of LayerNorm over whole maps). ``parts`` are the tensors of a self-attention block.
    """

    name: str
    kind: Kind
    into: int
    out: int
    weight: Tensor | None
    bias: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of a convolution's kernel."""
        if self.weight is None or self.weight.dim() != 4:
            return (1, 1)
        return int(self.weight.shape[2]), int(self.weight.shape[3])


@dataclass(frozen=True)
class Gap:
    """What may run between two layers with parameters.

    ``slots`` names the parameterless modules known to be there; None where the file does not say. ``tight`` when both
    neighbours sit in one Sequential, so that nothing else can run between them.
    """

    slots: tuple[str, ...] | None = None
    tight: bool = False


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers with parameters in order of execution; ``gaps[i]`` precedes op i, ``gaps[-1]`` follows the last.

    ``undecided`` are kernel sizes of layers that could be a convolution or a transposed one. The last ``label`` inputs of the
    first layer are known to be a one-hot label, where that is not 0.
    """

    ops: tuple[Op, ...]
    gaps: tuple[Gap, ...]
    embedding: Op | None = None
    undecided: tuple[int, ...] = ()
    label: int = 0
    notes: tuple[str, ...] = ()


class NoChain(ValueError):
    """The tensors are no stack of layers we know; the message says which tensor or step does not fit."""


_FIELDS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def read_chain(
    tensors: Mapping[str, Tensor], slots: tuple[str, ...] | None, flipped: frozenset[int] = frozenset()
) -> Chain:
    """The chain that names, shapes and order of ``tensors`` describe.

    Args:
        flipped: kernel sizes whose undecided layers are taken the other way than usual.

    Raises:
        NoChain: a tensor that belongs to no known layer, or numbers of units that do not follow on each other.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    blocks = attention_blocks(tensors)
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        block = next((path for path in blocks if name.startswith(f"{path}.")), None)
        groups.setdefault(block or module, {})[leaf] = tensor
    raw = [_block(path, blocks[path]) if path in blocks else _op(path, fields) for path, fields in groups.items()]
    embedding = next((op for op in raw if op.kind == "embedding"), None)
    ordered = _in_order([op for op in raw if op.kind != "embedding"])
    ops, undecided = _with_direction(ordered, flipped)
    if not any(op.kind in ("linear", "conv", "deconv") for op in ops):
        raise NoChain("it has no linear or convolution layer")
    return Chain(tuple(ops), tuple(_gaps([op.name for op in ops], slots, set(groups))), embedding, undecided)


def _block(path: str, parts: Mapping[str, Tensor]) -> Op:
    return Op(path, "attention", units_of(parts), units_of(parts), None, parts=parts)


def _op(module: str, fields: Mapping[str, Tensor]) -> Op:
    unknown = set(fields) - _FIELDS
    weight = fields.get("weight")
    if unknown or (weight is None and "running_mean" not in fields):
        odd = sorted(unknown or fields)[0]
        raise NoChain(
            f"tensor '{module + '.' if module else ''}{odd}' belongs to no layer that can be rebuilt from a state dict"
        )
    bias, mean, var = fields.get("bias"), fields.get("running_mean"), fields.get("running_var")
    per_unit = {
        leaf: len(field) for leaf, field in fields.items() if leaf != "num_batches_tracked" and field.dim() == 1
    }
    if mean is not None and len(set(per_unit.values())) > 1:
        sizes = ", ".join(f"{leaf} {size}" for leaf, size in per_unit.items())
        raise NoChain(f"the tensors of '{module}' differ in length ({sizes})")
    if mean is not None and var is not None:
        return Op(module, "norm", len(mean), len(mean), weight, bias, mean, var)
    if weight is None:
        raise NoChain(f"'{module}' has a bias but no weight")
    if weight.dim() == 1:
        kind: Kind = "affine" if bias is not None else "prelu"
        return Op(module, kind, len(weight), len(weight), weight, bias)
    if weight.dim() == 2:
        named = bias is None and re.search(r"emb", module, re.I)
        return Op(module, "embedding" if named else "linear", int(weight.shape[1]), int(weight.shape[0]), weight, bias)
    if weight.dim() == 3 and bias is not None and bias.shape == weight.shape:
        return Op(module, "affine", len(weight), len(weight), weight, bias)
    if weight.dim() == 4:
        return Op(module, "conv", int(weight.shape[1]), int(weight.shape[0]), weight, bias)
    raise NoChain(
        f"'{module}.weight' has shape {tuple(weight.shape)}, of no layer that can be rebuilt from a state dict"
    )


def _in_order(ops: list[Op]) -> list[Op]:
    """Norms put behind the layers they fit, where all norms were registered after all other layers (13 of 160 nets).

    A discriminator's last layer, one number out of a vector, goes last where it was registered before the convolutions.
    """
    if ops and ops[0].kind == "linear" and ops[0].out == 1 and ops[-1].kind != "linear":
        ops = [*ops[1:], ops[0]]
    norms = [op for op in ops if op.kind in ("norm", "affine")]
    others = [op for op in ops if op not in norms]
    first = next((i for i, op in enumerate(ops) if op in norms), len(ops))
    if len(norms) < 2 or any(op not in norms for op in ops[first:]) or first < 2:
        return ops
    left, woven = list(norms), []
    for op in others:
        woven.append(op)
        if left and op.weight is not None and left[0].into in op.weight.shape[:2]:
            woven.append(left.pop(0))
    return woven + left


def _with_direction(ops: list[Op], flipped: frozenset[int]) -> tuple[list[Op], tuple[int, ...]]:
    """Convolution or transposed convolution, told by the flow of units; ambiguous ones follow the majority.

    Among transposed convolutions of other kernels, an ambiguous one with an odd kernel is taken for a convolution.
    """
    made: list[Op] = []
    units: int | None = None  # of the tensor that arrives; None for an unknown number of maps
    undecided: list[int] = []
    for index, op in enumerate(ops):
        if op.kind == "conv":
            after = ops[index + 1].into if index + 1 < len(ops) and ops[index + 1].kind in ("norm", "affine") else None
            kind = _direction(op, units, after, ops[index + 1 :])
            if kind is None:
                undecided.append(index)
            elif kind == "deconv":
                made.append(Op(op.name, "deconv", op.out, op.into, op.weight, op.bias))
                units = op.into
                continue
        elif op.kind == "norm" and units is not None and op.into != units and units % op.into:
            raise NoChain(f"'{op.name}' normalises {op.into} units but {units} arrive")
        made.append(op)
        units = op.out if op.kind != "prelu" else units
    up = sum(op.kind == "deconv" for op in made) > sum(op.kind == "conv" for op in made) - len(undecided)
    decided = {max(op.kernel) for op in made if op.kind == "deconv"}
    odd = {k for op in (made[index] for index in undecided) if (k := max(op.kernel)) % 2 and k not in decided}
    turned = [
        Op(op.name, "deconv", op.out, op.into, op.weight, op.bias)
        if index in undecided and (up and max(op.kernel) not in odd) != (max(op.kernel) in flipped) else op
        for index, op in enumerate(made)
    ]  # fmt: skip
    return turned, tuple(dict.fromkeys(max(made[index].kernel) for index in undecided))


def _direction(op: Op, units: int | None, after: int | None, rest: list[Op]) -> Kind | None:
    """conv, deconv, or None when both fit; weights are (out, in) for a conv, (in, out) for a deconv."""
    out, into = op.out, op.into
    conv, deconv = True, True
    if units is not None:
        whole = units in (out, into)
        conv = units == into if whole else units % into == 0
        deconv = units == out if whole else units % out == 0
    if after is not None:
        plain = conv and after == out, deconv and after == into
        conv, deconv = plain if any(plain) else (conv and 4 * after == out, False)  # or a PixelShuffle between
    if op.bias is not None:
        conv, deconv = conv and len(op.bias) == out, deconv and len(op.bias) == into
    if conv and deconv and out != into:  # the first layer, or behind a view: the next layer decides
        following = next((later for later in rest if later.kind == "conv"), None)
        if following is not None and after is None:
            ends = (following.out, following.into)
            conv, deconv = out in ends, into in ends
        elif following is None and units is None:
            conv, deconv = into <= out, into > out
    if not (conv or deconv):
        raise NoChain(
            f"'{op.name}' has shape ({out}, {into}, …) and fits neither the {units} units before nor what follows"
        )
    return None if conv and deconv else "conv" if conv else "deconv"


def _gaps(names: list[str], slots: tuple[str, ...] | None, owners: set[str]) -> list[Gap]:
    if slots is None:
        return [Gap(), *[_numbered_gap(a, b) for a, b in pairwise(names)], Gap()]
    leaves = [s for s in slots if not any(other.startswith(f"{s}.") for other in slots) or s in owners]
    leaves = [
        leaf for leaf in leaves if leaf in owners or not any(leaf.startswith(f"{name}.") for name in owners if name)
    ]
    place = {name: index for index, name in enumerate(leaves)}
    gaps = [Gap()]
    for a, b in pairwise(names):
        if a not in place or b not in place or place[b] <= place[a]:
            gaps.append(Gap())
            continue
        between = tuple(leaf for leaf in leaves[place[a] + 1 : place[b]] if leaf not in owners)
        gaps.append(Gap(between, _sequential(a, b)) if between or _sequential(a, b) else Gap())
    last = names[-1]
    if place.get(last, 0) < max((place.get(name, 0) for name in names), default=0):
        return [*gaps, Gap()]  # registered early, runs last: what the file lists behind it does not follow it
    tail = tuple(leaf for leaf in leaves[place[last] + 1 :] if leaf not in owners) if last in place else ()
    digits = last in place and all(part.isdigit() for part in last.split("."))
    return [*gaps, Gap(tail, digits) if last in place else Gap()]


def _sequential(a: str, b: str) -> bool:
    """Whether both names lie in one (perhaps nested) Sequential: below their common parent only numbers."""
    one, two = a.split("."), b.split(".")
    while one and two and one[0] == two[0]:
        one, two = one[1:], two[1:]
    return bool(one and two) and all(part.isdigit() for part in (*one, *two))


def _numbered_gap(a: str, b: str) -> Gap:
    """Without ``_metadata``: numbers missing between two neighbours of one Sequential are parameterless modules."""
    (parent, _, first), (other, _, second) = a.rpartition("."), b.rpartition(".")
    if parent != other or not (first.isdigit() and second.isdigit()) or int(second) <= int(first):
        return Gap()
    head = f"{parent}." if parent else ""
    return Gap(tuple(f"{head}{number}" for number in range(int(first) + 1, int(second))), tight=True)
