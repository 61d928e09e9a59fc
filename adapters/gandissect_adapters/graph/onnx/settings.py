"""What an ONNX node says beside its inputs, and the checks that all of its operators share.

settings = Settings(opset=17, outputs=1, held={"axis": 1})
settings.integer("axis", -1)             # 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

MAX_NUMBERS = 2**30
MAX_PER_SAMPLE = 2**26
"""Numbers in one result, and for each entry of its first axis: a graph of a few bytes could ask for any."""


@dataclass(frozen=True)
class Settings:
    """Attributes of a node, the version of the operators it is written in, and how many results it has."""

    opset: int
    outputs: int = 1
    held: Mapping[str, object] = field(default_factory=dict)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.held.get(name, default)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        """A number attribute."""
        value = self.held.get(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.held.get(name, default)
        return value if isinstance(value, str) else default

    def integers(self, name: str) -> list[int] | None:
        """A list of integers, None where it is not given."""
        value = self.held.get(name)
        return [int(item) for item in value] if isinstance(value, (list, tuple)) else None

    def numbers(self, name: str) -> list[float] | None:
        """A list of numbers, None where it is not given."""
        value = self.held.get(name)
        return [float(item) for item in value] if isinstance(value, (list, tuple)) else None


Value = Tensor | list[int] | None
"""What an operator is given: a tensor, a constant shape as a list, nothing for an input that is left out."""


def at(values: Sequence[Value], position: int) -> Tensor | None:
    """The tensor at a position, None where it is left out."""
    value = values[position] if position < len(values) else None
    return torch.tensor(value) if isinstance(value, list) else value


def need(values: Sequence[Value], position: int = 0) -> Tensor:
    """The tensor at a position.

    Raises:
        ValueError: it is left out.
    """
    value = at(values, position)
    if value is None:
        raise ValueError(f"input {position} is missing")
    return value


def integers(values: Sequence[Value], position: int) -> list[int] | None:
    """The integers at a position, None where they are left out."""
    value = values[position] if position < len(values) else None
    return value.reshape(-1).tolist() if isinstance(value, Tensor) else value


def together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on one device: shapes are computed on the CPU, samples elsewhere."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), torch.device("cpu"))
    return tuple(t.to(device) for t in tensors)


def joint_shape(*shapes: Sequence[int]) -> list[int]:
    """What the shapes are broadcast to.

    Raises:
        ValueError: it has more numbers than any network's result.
        RuntimeError: they do not fit.
    """
    return limited(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]  # torch has no annotation


def limited(shape: Sequence[int]) -> list[int]:
    """The shape as it is.

    Raises:
        ValueError: it has more numbers than any network's.
    """
    if prod(max(size, 0) for size in shape) > min(MAX_NUMBERS, MAX_PER_SAMPLE * max([1, *shape[:1]])):
        raise ValueError(f"a result of shape {tuple(shape)} is beyond the limit of {MAX_PER_SAMPLE:,} numbers a sample")
    return [int(size) for size in shape]
