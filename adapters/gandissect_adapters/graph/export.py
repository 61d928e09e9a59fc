"""torch.export archives as modules whose layers can be read and edited, rebuilt from their JSON.

graph = read(Path("gan.pt2"))
graph.module(z)                      # children carry the names of the original submodules
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import nn

from gandissect.errors import NotOpened
from gandissect_adapters.graph.container import DTYPES, Contents, Json, sizes_of
from gandissect_adapters.graph.engine import Interpreted, Shared, new_interpreted
from gandissect_adapters.graph.graph import Argument, Graph, baked_numbers
from gandissect_adapters.graph.operators import plain_name, refuse_impure
from gandissect_adapters.graph.placing import Node, ensure, place
from gandissect_adapters.graph.program import Step

_STACK_ENTRY = re.compile(r"[^,]*,([^,]*),(.*)")


def read(path: Path) -> Graph:
    """The archive as a module; nothing of it has run, and torch.export has not seen it, when this returns.

    Raises:
        NotOpened: damaged or of an unknown layout.
        UnsafeCheckpoint: it uses an operator that may do more than compute.
    """
    contents = Contents(path)
    try:
        return _Builder(contents).graph(path)
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise NotOpened(
            f"{path.name} has a layout that this version does not know ({type(error).__name__}: {error})"
        ) from error


@dataclass
class _Builder:
    contents: Contents
    slots: dict[str, int] = field(default_factory=dict)
    fresh: int = 1_000_000

    def graph(self, path: Path) -> Graph:
        table = cast("Json", self.contents.model["graph_module"])
        graph = cast("Mapping[str, list[Json]]", table["graph"])
        signature = cast("Mapping[str, list[Mapping[str, Json]]]", table["signature"])
        ops = (_op(str(node["target"]))[0] for node in graph["nodes"])
        refuse_impure(ops, path.name, "export the network without them, or save net.state_dict()")
        nodes = [self._node(node) for node in graph["nodes"]]
        stored, inputs = self._inputs(signature["input_specs"])
        root = self._root(stored, nodes)
        outputs = [spec["user_output"] for spec in signature["output_specs"] if "user_output" in spec]
        results = [self._slot(cast("Json", output["arg"])["as_tensor"]) for output in outputs]
        root.graph_programs["forward"] = place(root, nodes, stored, [self.slots[name] for name in inputs], results)
        shapes = [sizes_of(graph["tensor_values"][name]) for name in inputs]  # type: ignore[call-overload]  # a table, not a list
        batch = shapes[0][0] if shapes and shapes[0] else 0
        danger = self.contents.harmless()
        original = None if danger else _library_module(path)
        return Graph(
            root,
            path.name,
            original,
            tuple(Argument(name, "Tensor", optional=False) for name in inputs),
            tuple(dict.fromkeys(([batch] if batch else []) + list(baked_numbers(root)))),
            tuple(shape[1:] for shape in shapes),
            "torch.export",
            batch,
            danger,
        )

    def _slot(self, argument: object) -> int:
        name = str(cast("Json", argument)["name"])
        return self.slots.setdefault(name, len(self.slots))

    def _inputs(self, specs: Sequence[Mapping[str, Json]]) -> tuple[dict[int, str], list[str]]:
        """Slots of stored tensors with their dotted names, and the names of the user's arguments."""
        stored: dict[int, str] = {}
        names: list[str] = []
        for spec in specs:
            kind, entry = next((k, v) for k, v in spec.items() if v is not None)
            if kind == "user_input":
                argument = cast("Json", entry["arg"])
                if "as_tensor" not in argument:
                    raise NotOpened(
                        f"{self.contents.file} takes an argument that is no tensor; export a version without it"
                    )
                names.append(str(cast("Json", argument["as_tensor"])["name"]))
                self._slot(argument["as_tensor"])
            else:
                key = {
                    "parameter": "parameter_name",
                    "buffer": "buffer_name",
                    "tensor_constant": "tensor_constant_name",
                }[kind]
                stored[self._slot(entry["arg"])] = str(entry[key])
        return stored, names

    def _root(self, stored: Mapping[int, str], nodes: Sequence[Node]) -> Interpreted:
        """The tree of modules, holding the stored tensors under their names."""
        root = new_interpreted("Module", Shared(), is_root=True)
        tensors = self.contents.tensors()
        trainable = set(self._parameter_names())
        for name in stored.values():
            path, _, leaf = name.rpartition(".")
            holder = ensure(root, path)
            if name in trainable:
                holder.register_parameter(
                    leaf, nn.Parameter(tensors[name], requires_grad=tensors[name].is_floating_point())
                )
            else:
                holder.register_buffer(leaf, tensors[name])
        return root

    def _parameter_names(self) -> Iterator[str]:
        table = cast("Mapping[str, Mapping[str, list[Mapping[str, Json]]]]", self.contents.model["graph_module"])
        for spec in table["signature"]["input_specs"]:
            if spec.get("parameter"):
                yield str(spec["parameter"]["parameter_name"])

    def _node(self, node: Json) -> Node:
        op, overload = _op(str(node["target"]))
        steps: list[Step] = []
        arguments = cast("list[Json]", node["inputs"])
        slots = [self._value(cast("Json", argument["arg"]), steps) for argument in arguments]
        names = tuple(str(argument["name"]) for argument in arguments)
        keywords = tuple(str(argument["name"]) for argument in arguments if argument.get("kind") == 2)
        outputs, after = self._outputs(cast("list[Json]", node["outputs"]))
        steps.append(
            Step(op, tuple(slots), after[0].inputs if after else outputs, overload, names=names, keywords=keywords)
        )
        metadata = cast("Json", node.get("metadata") or {})
        path, kind = _last_module(str(metadata.get("nn_module_stack", "")))
        return Node((*steps, *after), path, kind, plain_name(op), outputs)

    def _outputs(self, outputs: Sequence[Json]) -> tuple[tuple[int, ...], list[Step]]:
        """Slots of the results, and the step that takes a list of results apart."""
        slots: list[int] = []
        for output in outputs:
            kind, value = next(iter(output.items()))
            if kind == "as_tensors":
                slots = [self._slot(entry) for entry in cast("list[Json]", value)]
                return tuple(slots), [Step("prim::ListUnpack", (self._new(),), tuple(slots))]
            if kind == "as_tensor":
                slots.append(self._slot(value))
            elif kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
                slots.append(self._slot({"name": cast("Json", value)["as_name"]}))
            else:
                slots.append(self._new())
        return tuple(slots), []

    def _new(self) -> int:
        self.fresh += 1
        return self.fresh

    def _value(self, argument: Json, steps: list[Step]) -> int:
        """The slot of an argument; constants and lists get a step of their own."""
        kind, value = next(iter(argument.items()))
        if kind == "as_tensor" or (kind == "as_optional_tensor" and cast("Json", value).get("as_tensor")):
            return self._slot(value if kind == "as_tensor" else cast("Json", value)["as_tensor"])
        if kind in ("as_sym_int", "as_sym_bool", "as_sym_float") and "as_name" in cast("Json", value):
            return self._slot({"name": cast("Json", value)["as_name"]})
        slot = self._new()
        if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
            entries = cast("list[Json]", value)
            single = {"as_tensors": "as_tensor"}.get(kind)
            parts = [self._value({single: entry} if single else _single(entry), steps) for entry in entries]
            steps.append(Step("prim::ListConstruct", tuple(parts), (slot,)))
        else:
            steps.append(Step("prim::Constant", (), (slot,), value=_constant(kind, value)))
        return slot


def _library_module(path: Path) -> Callable[..., object]:
    """The archive as torch.export loads it; what it logs about a damaged one is left out, as the error says it."""
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        return cast("Callable[..., object]", torch.export.load(str(path)).module())
    finally:
        log.setLevel(level)


def _single(entry: Json) -> Json:
    """An entry of a list as an argument: {"as_name": "s0"} stands for a symbolic number, the rest are arguments already."""
    return {"as_sym_int": entry} if "as_name" in entry else entry


def _constant(kind: str, value: object) -> object:
    if kind in ("as_none", "as_memory_format"):
        return None
    if kind == "as_scalar_type":
        return DTYPES[int(str(value))]
    if kind == "as_device":
        return torch.device(str(cast("Json", value)["type"]))
    if kind == "as_layout":
        return torch.strided
    if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools", "as_strings"):
        return float(str(value)) if kind == "as_float" else value
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return next(iter(cast("Json", value).values()))
    raise NotOpened(f"the graph holds an argument of the unknown kind {kind}")


def _op(target: str) -> tuple[str, str]:
    """("aten::relu", "") for ``torch.ops.aten.relu.default``."""
    if match := re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target):
        return f"aten::{match[1]}", "" if match[2] == "default" else match[2]
    if match := re.fullmatch(r"_?operator\.(\w+)", target):
        return f"operator::{match[1]}", ""
    return target, ""


def _last_module(stack: str) -> tuple[str, str]:
    """Path and class name of the innermost submodule that an operator ran in."""
    match = _STACK_ENTRY.fullmatch(stack.rsplit(";", maxsplit=1)[-1])
    if match is None or "nn_module_stack" in stack.split(",", maxsplit=1)[0]:
        return "", ""
    return re.sub(r"@\d+", "", match[1]), match[2].rpartition(".")[2]
