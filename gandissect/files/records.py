"""A pickled torch module read as data: its state dict, and what each submodule's attributes say.

module = read_module(ghost, tensor=storages.tensor)
module["synthesis.b4.const"], module.records["synthesis.b4.conv1"].attributes["up"]
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from torch import Tensor

from gandissect.files.ghost import Ghost, TensorRef, ghost_name
from gandissect.files.opcodes import PickleRefused
from gandissect.files.peek import MAX_OBJECTS, breadth, join, state_of

_MAX_NESTING = 40
_MAX_ITEMS = 10_000
_SCALARS = {
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u1": "B",
    "u4": "I",
    "u8": "Q",
    "b1": "?",
}


@dataclass(frozen=True)
class Record:
    """What a pickle says of one module: its class and its plain attributes (numbers, strings, lists and dicts of them).

    ``class_name`` is "package.module.Class", or the bare class name in NVlabs' pickles. Constructor arguments stand under
    ``_init_kwargs`` where the module kept them.
    """

    class_name: str
    attributes: Mapping[str, object] = field(default_factory=dict)


class PickledModule(OrderedDict[str, object]):
    """A pickled module's state dict, names to tensors as ``module.state_dict()`` would give them; nothing was built or run.

    ``records`` maps the path of every submodule ("" for the module itself) to its Record.
    """

    records: dict[str, Record]

    def __init__(self) -> None:
        super().__init__()
        self.records = {}


def is_module(node: object) -> bool:
    """Whether a ghost stands for a pickled torch module."""
    if not isinstance(node, Ghost):
        return False
    state = state_of(node)
    return isinstance(state, dict) and isinstance(state.get("_modules"), dict) and "_parameters" in state


def read_module(ghost: Ghost, tensor: Callable[[TensorRef], Tensor]) -> PickledModule:
    """The state dict of a pickled module and the records of its parts.

    Args:
        tensor: makes the tensor that a reference points to.
    """
    module = PickledModule()
    _fill(module, ghost, "", tensor, 0, Budget())
    module.__dict__["_metadata"] = {path: {} for path in module.records}
    return module


@dataclass
class Budget:
    """How many more objects may be met: shared ones count each time, or a few bytes could unfold without end."""

    left: int = MAX_OBJECTS

    def take(self, count: int = 1) -> None:
        """Objects are met.

        Raises:
            PickleRefused: too many were.
        """
        self.left -= count
        if self.left < 0:
            raise PickleRefused(f"it holds over {MAX_OBJECTS:,} objects, or the same ones over and over")


def _fill(
    module: PickledModule, ghost: Ghost, path: str, tensor: Callable[[TensorRef], Tensor], depth: int, budget: Budget
) -> None:
    state = state_of(ghost)
    budget.take(1 + breadth(ghost))
    if depth > _MAX_NESTING or not isinstance(state, dict):
        return
    kept = {key: plain(value, budget) for key, value in dict.items(state) if isinstance(key, str) and _is_fact(key)}
    module.records[path] = Record(
        _class_name(ghost), {key: value for key, value in kept.items() if value is not UNKNOWN}
    )
    passing = state.get("_non_persistent_buffers_set") or ()
    for part in ("_parameters", "_buffers"):
        for key, value in _items(state.get(part)):
            if isinstance(value, TensorRef) and not (part == "_buffers" and key in passing):
                module[join(path, key)] = tensor(value)
    for key, child in _items(state.get("_modules")):
        if isinstance(child, Ghost):
            _fill(module, child, join(path, key), tensor, depth + 1, budget)


def _is_fact(key: str) -> bool:
    return not key.startswith("_") or key in ("_init_kwargs", "_init_args")


def _items(node: object) -> list[tuple[object, object]]:
    return list(dict.items(node)) if isinstance(node, dict) else []


def _class_name(ghost: Ghost) -> str:
    if len(ghost.args) == 1 and isinstance(ghost.args[0], dict) and "class_name" in ghost.args[0]:
        return str(ghost.args[0]["class_name"])
    return ghost_name(ghost)


UNKNOWN = object()
"""What ``plain`` gives for anything that is not plain data."""


def plain(node: object, budget: Budget, depth: int = 0) -> object:
    """Numbers, strings, None, and lists, tuples and dicts of them; NumPy scalars as numbers; UNKNOWN for the rest."""
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    budget.take(1 + breadth(node))
    if depth > _MAX_NESTING:
        return UNKNOWN
    if isinstance(node, dict):
        pairs = [(key, plain(value, budget, depth + 1)) for key, value in islice(dict.items(node), _MAX_ITEMS)]
        return {key: value for key, value in pairs if isinstance(key, (str, int)) and value is not UNKNOWN}
    if isinstance(node, (list, tuple, set, frozenset)):
        values = [plain(value, budget, depth + 1) for value in islice(node, _MAX_ITEMS)]
        if any(value is UNKNOWN for value in values):
            return UNKNOWN
        return tuple(values) if isinstance(node, tuple) else values
    if isinstance(node, Ghost):
        return _plain_ghost(node, budget, depth)
    return UNKNOWN


def _plain_ghost(node: Ghost, budget: Budget, depth: int) -> object:
    if ghost_name(node).endswith("multiarray.scalar"):
        return _scalar(node)
    if node.entries and not node.elements:  # a dict subclass such as dnnlib.util.EasyDict
        return plain(_entries(node), budget, depth + 1)
    return UNKNOWN


def _entries(node: Ghost) -> dict[str, object]:
    return {key: value for key, value in node.entries if isinstance(key, str)}


def _scalar(node: Ghost) -> object:
    """numpy.core.multiarray.scalar(dtype, bytes) as a Python number."""
    if len(node.args) != 2 or not isinstance(node.args[0], Ghost) or not node.args[0].args:
        return UNKNOWN
    kind, raw = _SCALARS.get(str(node.args[0].args[0])), node.args[1]
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if kind is None or not isinstance(raw, bytes) or len(raw) != struct.calcsize(kind):
        return UNKNOWN
    return cast("object", struct.unpack(f"<{kind}", raw)[0])
