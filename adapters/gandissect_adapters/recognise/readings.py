"""What chains the tensors of a generator can be: the plain one, with branches joined, with doubtful layers the other way.

readings(tensors, slots)[0]             # the usual reading; raises NoChain where there is none
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gandissect_adapters.recognise.chain import Chain, NoChain, Op, read_chain
from gandissect_adapters.recognise.plan import activate

_MAX_CLASSES = 256
_LABEL = re.compile(r"label|class|cond|emb|(^|[._\d])[yc](_|$|\d|[._])", re.I)
_VECTORS = ("none", "relu", "lrelu0.2")  # what may follow a layer that a one-hot label goes through

Fields = dict[str, Tensor]


def readings(tensors: Mapping[str, Tensor], slots: tuple[str, ...] | None) -> list[Chain]:
    """Chains in the order in which they are to be tried.

    Raises:
        NoChain: there is none; the message is that of the plain reading.
    """
    made = [*_joined(tensors), *_tabled(tensors)]
    if made:
        return made
    plain = read_chain(tensors, slots)
    return [plain, *(read_chain(tensors, slots, frozenset({kernel})) for kernel in plain.undecided)]


@dataclass(frozen=True)
class _Branch:
    """A first layer with its norm: (name, fields) of each."""

    layer: str
    fields: Fields
    norm: str = ""
    normed: Fields | None = None

    @property
    def weight(self) -> Tensor:
        return self.fields["weight"]

    @property
    def into(self) -> int:
        return int(self.weight.shape[0 if self.weight.dim() == 4 else 1])

    @property
    def out(self) -> int:
        return int(self.weight.shape[1 if self.weight.dim() == 4 else 0])


def _groups(tensors: Mapping[str, Tensor]) -> dict[str, Fields]:
    groups: dict[str, Fields] = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        groups.setdefault(module, {})[leaf] = tensor
    return groups


def _branches(groups: Mapping[str, Fields]) -> tuple[_Branch, _Branch, Tensor, list[str]] | None:
    """The first two layers, the weight of the third, and the names of what comes behind the first two."""
    left = list(groups)
    found: list[_Branch] = []
    while left and len(found) < 2:
        name = left.pop(0)
        fields = groups[name]
        if "weight" not in fields or fields["weight"].dim() not in (2, 4):
            return None
        branch = _Branch(name, fields)
        behind = groups[left[0]] if left else {}
        if "running_mean" in behind and len(behind["running_mean"]) == branch.out:
            branch = replace(branch, norm=left.pop(0), normed=behind)
        found.append(branch)
    third = groups[left[0]].get("weight") if left else None
    return None if third is None or len(found) < 2 else (found[0], found[1], third, left)


def _joined(tensors: Mapping[str, Tensor]) -> Iterator[Chain]:
    """Latent and one-hot label each through a layer of its own and then side by side, as one layer of two blocks.

    So does the conditional DCGAN of znxlwm (``deconv1_1``, ``deconv1_2``). Weights [[A, 0], [0, B]] are the same function; which
    branch comes first behind them shows in the statistics only.
    """
    groups = _groups(tensors)
    found = _branches(groups)
    if found is None:
        return
    one, two, third, rest = found
    if third.dim() not in (2, 4):
        return
    takes = {int(third.shape[0]), int(third.shape[1])} if third.dim() == 4 else {int(third.shape[1])}
    small, large = sorted((one, two), key=lambda branch: branch.into)
    alike = one.weight.shape[2:] == two.weight.shape[2:] and one.weight.dim() == two.weight.dim() == third.dim()
    if (
        not alike
        or one.out + two.out not in takes
        or two.into == one.out
        or (one.normed is None) != (two.normed is None)
    ):
        return
    if not 2 <= small.into <= _MAX_CLASSES or small.into == large.into:
        return
    behind = {f"{name}.{leaf}": tensor for name in rest for leaf, tensor in groups[name].items()}
    note = f"'{one.layer}' and '{two.layer}' run side by side, one on z and one on the label; here they are one layer"
    for order in ((one, two), (two, one)):
        head = _side_by_side(order, large)
        chain = read_chain({**head, **behind}, None)
        yield replace(chain, label=small.into, notes=(note,))


def _side_by_side(order: tuple[_Branch, _Branch], latent: _Branch) -> Fields:
    """The tensors of the two branches as one layer that takes z and then the label."""
    one, two = order
    name = _shared(one.layer, two.layer) or f"{one.layer}_{two.layer}"
    spatial = one.weight.shape[2:]
    inputs, outputs = one.into + two.into, one.out + two.out
    weight = torch.zeros(inputs, outputs, *spatial)
    row, column = {id(latent): 0}, 0
    for branch in order:
        start = row.get(id(branch), latent.into)
        block = branch.weight if branch.weight.dim() == 4 else branch.weight.t()
        weight[start : start + branch.into, column : column + branch.out] = block
        column += branch.out
    made = {f"{name}.weight": weight if one.weight.dim() == 4 else weight.t().contiguous()}
    if "bias" in one.fields or "bias" in two.fields:
        made[f"{name}.bias"] = torch.cat([branch.fields.get("bias", torch.zeros(branch.out)) for branch in order])
    for leaf in one.normed or {}:
        both = [(branch.normed or {}).get(leaf) for branch in order]
        if leaf != "num_batches_tracked" and all(tensor is not None for tensor in both):
            made[f"{name}_bn.{leaf}"] = torch.cat([tensor for tensor in both if tensor is not None])
    return made


def _shared(one: str, two: str) -> str:
    """How both names begin: ``deconv1_1`` and ``deconv1_2`` are parts of ``deconv1``."""
    length = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    return one[:length].rstrip("._")


def _tabled(tensors: Mapping[str, Tensor]) -> Iterator[Chain]:
    """A one-hot label through a linear layer, then beside z: a table with one row for each class."""
    groups = _groups(tensors)
    first = next((name for name, fields in groups.items() if "weight" in fields and fields["weight"].dim() == 2
                  and "bias" in fields and _LABEL.search(name)), None)  # fmt: skip
    if first is None:
        return
    weight, bias = groups[first]["weight"], groups[first]["bias"]
    rest = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] != first}
    width, classes = int(weight.shape[0]), int(weight.shape[1])
    try:
        chain = read_chain(rest, None)
    except NoChain:
        return
    if not 2 <= classes <= _MAX_CLASSES or chain.embedding is not None or chain.ops[0].into <= width:
        return
    for name in _VECTORS:
        table = activate(name, weight.t() + bias)
        note = f"'{first}' turns a one-hot label into {width} numbers; here it is a table of {classes} rows"
        yield replace(chain, embedding=Op(first, "embedding", width, classes, table), notes=(note,))
