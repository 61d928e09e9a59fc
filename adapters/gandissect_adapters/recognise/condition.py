"""How a class label gets into a generator: an embedding or a one-hot vector, joined to z.

ways = conditions_of(chain, None)       # {"embedding after z": Condition(...), ...}; {"": None} for no label
ways["embedding after z"].join(z, labels)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.probing.verifying import gaussian_kl
from gandissect_adapters.recognise.build import Rebuilt, attach
from gandissect_adapters.recognise.chain import Chain

_JUMP = 1.3  # least ratio between the weakest label column and the strongest z column, or the other way round
_MAX_ONE_HOT = 256
_EXPLAINED = 0.004  # mismatch at which z alone explains the first norm
_BETTER = 3.0  # and how many times better a label must
_USUAL = frozenset({16, 20, 32, 50, 62, 64, 90, 100, 118, 128, 200, 256, 512})  # sizes of z beside a label


@dataclass(frozen=True, eq=False)
class Condition:
    """One way of joining a label to z: ``classes`` labels become ``width`` numbers before, after or times z."""

    how: str
    classes: int
    width: int
    table: Tensor | None = None
    name: str = ""

    def vector(self, labels: Tensor) -> Tensor:
        """float32 [N, width] of int64 [N]."""
        if self.table is not None:
            return self.table.to(labels.device)[labels]
        return F.one_hot(labels, self.classes).float()

    def join(self, z: Tensor, label: Tensor) -> Tensor:
        """What goes into the first layer, from z [N, D] or [N, D, 1, 1] and a label's vector [N, width]."""
        label = label.reshape(*label.shape, *[1] * (z.dim() - 2))
        if self.how == "times":
            return z * label
        return torch.cat([label, z] if self.how == "before" else [z, label], 1)

    def latent_units(self, units: int) -> int:
        """Size of z when the first layer takes ``units``."""
        return units if self.how == "times" else units - self.width


def conditions_of(chain: Chain, assume: str | None) -> dict[str, Condition | None]:
    """Ways in which the first layer's input may be made, by name; {"": None} for plain z."""
    first = chain.ops[0]
    if assume == "none":
        return {"": None}
    if assume and (said := re.fullmatch(r"(\d+)(?:\W(after|before))?", assume)) and 1 < int(said[1]) < first.into:
        how = said[2] or "after"
        return {f"one-hot {how} z": Condition(how, int(said[1]), int(said[1]))}
    table = chain.embedding
    if table is not None and table.weight is not None:
        classes, width = int(table.weight.shape[0]), int(table.weight.shape[1])
        if width == first.into:
            return {"embedding times z": Condition("times", classes, width, table.weight, table.name)}
        if width < first.into:
            return {
                f"embedding {how} z": Condition(how, classes, width, table.weight, table.name)
                for how in ("after", "before")
            }
    if chain.label:
        return {"one-hot after z": Condition("after", chain.label, chain.label)}
    if table is None and first.weight is not None and first.weight.dim() > 1:
        split = _one_hot(first.weight, units_first=first.kind == "deconv")
        if split is not None:
            how, classes = split
            return {f"one-hot {how} z": Condition(how, classes, classes)}
        return {"": None, **_by_statistics(chain)}
    return {"": None}


def common_one_hot(chain: Chain) -> dict[str, Condition | None]:
    """A one-hot label of ten classes before or after z, where that leaves a z of a usual size; empty where it does not."""
    if chain.embedding is not None or chain.label or chain.ops[0].into - 10 not in _USUAL:
        return {}
    return {f"one-hot {how} z": Condition(how, 10, 10) for how in ("after", "before")}


def _by_statistics(chain: Chain) -> dict[str, Condition | None]:
    """One-hot labels that explain the statistics of a norm right behind the first layer far better than z alone does.

    Means and variances of its outputs follow in closed form: a column of z adds its square to the variance, each label's column
    shifts the output for a share 1 / K of the samples.
    """
    first, norm = chain.ops[0], chain.ops[1] if len(chain.ops) > 1 else chain.ops[0]
    if norm.mean is None or norm.var is None or first.weight is None or first.out % norm.into:
        return {}
    columns = (first.weight if first.kind == "deconv" else first.weight.transpose(0, 1)).reshape(
        first.into, norm.into, -1
    )
    bias = torch.zeros(norm.into, 1) if first.bias is None else first.bias.reshape(norm.into, -1)
    stored = norm.mean, norm.var

    def misfit(z: Tensor, shifts: Tensor) -> float:
        """The better of both priors, for [D, C, P] columns of z and [K, C, P] outputs without z."""
        mean, spread = shifts.mean((0, 2)), shifts.var((0, 2), correction=0)
        squares = (z**2).sum(0).mean(1)
        return min(gaussian_kl((mean, spread + squares * share), stored) for share in (1.0, 1.0 / 3.0))

    plain = misfit(columns, bias[None])
    if plain <= _EXPLAINED:
        return {}
    made: dict[str, Condition | None] = {}
    for how in ("after", "before"):
        fits = {
            k: misfit(
                columns[:-k] if how == "after" else columns[k:],
                bias + (columns[-k:] if how == "after" else columns[:k]),
            )
            for k in range(2, min(_MAX_ONE_HOT, first.into // 2) + 1)
        }
        classes = min(fits, key=lambda k: fits[k], default=0)
        beside = [fits[k] for k in (classes - 1, classes + 1) if k in fits]
        if classes and fits[classes] * _BETTER < min(plain, *beside):  # codes beside a label blur where it ends
            made[f"one-hot {how} z"] = Condition(how, classes, classes)
    return made


def _one_hot(weight: Tensor, *, units_first: bool) -> tuple[str, int] | None:
    """(before or after, classes) where the first layer's input columns fall into two kinds by their norm.

    One-hot inputs show as a jump of column norms (0.85 against 6.97, 4.1 against 11 in two wild nets).
    """
    columns = weight if units_first else weight.transpose(0, 1)
    norms = columns.flatten(1).norm(dim=1).double()
    total = len(norms)
    best: tuple[float, str, int] = (_JUMP, "", 0)
    for classes in range(2, min(_MAX_ONE_HOT, total // 2) + 1):
        for how, labels, latent in (
            ("after", norms[-classes:], norms[:-classes]),
            ("before", norms[:classes], norms[classes:]),
        ):
            gap = max(float(labels.min() / latent.max()), float(latent.min() / labels.max()))
            if gap > best[0]:
                best = (gap, how, classes)
    return (best[1], best[2]) if best[2] else None


class Conditional(nn.Module):
    """A rebuilt network that takes z and labels; the layers keep their names."""

    def __init__(self, net: Rebuilt, condition: Condition) -> None:
        super().__init__()
        self.order = net.order
        self.condition = replace(condition, table=None)  # the table is a submodule, which moves between devices
        self.named = condition.name if condition.table is not None else ""
        for name in net.order:
            attach(self, name, net.get_submodule(name))
        if condition.table is not None:
            attach(self, condition.name, nn.Embedding(condition.classes, condition.width, _weight=condition.table))
        self.eval()

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float32 [N, D] or [N, D, 1, 1] and labels int64 [N] -> [N, C, H, W]."""
        vector = self.get_submodule(self.named)(labels) if self.named else self.condition.vector(labels)
        x = self.condition.join(z, vector)
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x
