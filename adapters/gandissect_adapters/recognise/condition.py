"""How a class label gets into a generator: an embedding or a one-hot vector, joined to z.

ways = conditions_of(chain, None)       # {"embedding after z": Condition(...), ...}; {"": None} for no label
ways["embedding after z"].join(z, labels)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect_adapters.recognise.build import Rebuilt, attach
from gandissect_adapters.recognise.chain import Chain

_JUMP = 1.3  # least ratio between the weakest label column and the strongest z column, or the other way round
_MAX_ONE_HOT = 256


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
    if table is None and first.weight is not None:
        split = _one_hot(first.weight, units_first=first.kind == "deconv")
        if split is not None:
            how, classes = split
            return {f"one-hot {how} z": Condition(how, classes, classes)}
    return {"": None}


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
        self.condition = condition
        for name in net.order:
            attach(self, name, net.get_submodule(name))
        if condition.table is not None:
            attach(self, condition.name, nn.Embedding(condition.classes, condition.width, _weight=condition.table))
        self.eval()

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """z float32 [N, D] or [N, D, 1, 1] and labels int64 [N] -> [N, C, H, W]."""
        named = self.condition.table is not None
        vector = self.get_submodule(self.condition.name)(labels) if named else self.condition.vector(labels)
        x = self.condition.join(z, vector)
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x
