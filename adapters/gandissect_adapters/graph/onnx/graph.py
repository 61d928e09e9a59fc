"""ONNX graphs as modules whose layers can be read and edited, with the names that the exporter left in the file.

graph = read(Path("gan.onnx"))
graph.module(z)                      # main.0, main.1, ... are torch's own layers where they do the same
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect_adapters.graph.compiler import kind_of
from gandissect_adapters.graph.engine import Interpreted, Shared, new_interpreted
from gandissect_adapters.graph.graph import Argument, Graph, baked_numbers
from gandissect_adapters.graph.onnx.file import MAX_INPUT, load, opset, tensor
from gandissect_adapters.graph.onnx.lowering import OnnxNode, lower
from gandissect_adapters.graph.onnx.naming import WEIGHTED, assign, layer_name, owner, role, scope
from gandissect_adapters.graph.onnx.operators import PREFIX
from gandissect_adapters.graph.onnx.runtime import original
from gandissect_adapters.graph.onnx.settings import Settings
from gandissect_adapters.graph.placing import Node, ensure, place
from gandissect_adapters.graph.program import Step

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto

TOLERANCE = 1e-3
"""How far ONNX Runtime, whose kernels sum in other orders, may be from torch on images in about -1..1."""

_PASSING = frozenset(("Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity"))
_INTEGERS = frozenset((6, 7))  # TensorProto.INT32, INT64
_SETTINGS = frozenset(("Resize", "Upsample", "Pad", "Clip", "OneHot", "Range", "Tile"))
_LABELS = ("label", "class", "cond", "onehot", "one_hot")


@dataclass(frozen=True)
class _Input:
    name: str
    sizes: tuple[int, ...]
    is_label: bool


def read(path: Path, num_classes: int = 0) -> Graph:
    """The file as a module; nothing of it has run when this returns.

    Args:
        num_classes: of a second input that holds labels, where the user said so.

    Raises:
        NotOpened: damaged, or beyond what is read; the sentence says which.
        UnsafeCheckpoint: it uses operators of its own, or names files elsewhere.
    """
    model = load(path)
    try:
        return _Builder(model, path.name).graph(num_classes)
    except NotOpened:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError, StopIteration) as error:
        raise NotOpened(f"{path.name} is damaged or of an unknown layout ({type(error).__name__}: {error})") from error


@dataclass
class _Builder:
    model: ModelProto
    file: str
    constants: dict[str, Tensor] = field(default_factory=dict)
    stored: dict[int, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    paths: set[str] = field(default_factory=set)
    fresh: int = 1_000_000
    root: Interpreted = field(default_factory=lambda: new_interpreted("Module", Shared(), is_root=True))

    def graph(self, num_classes: int) -> Graph:
        self.constants = {held.name: tensor(held) for held in self.model.graph.initializer}
        inputs = sorted((self._input(entry) for entry in self._entries()), key=lambda entry: entry.is_label)
        for entry in inputs:
            self.slots[entry.name] = len(self.slots)
        nodes = self._nodes()
        outputs = [entry.name for entry in self.model.graph.output]
        self.uses.update(name for node in nodes for name in node.inputs)
        nodes = self._with_sums(nodes, set(outputs))
        data = self._data(nodes, inputs)
        assign(nodes, data)
        self.paths = {node.path for node in nodes}
        placed = [self._placed(node, is_data) for node, is_data in zip(nodes, data, strict=True)]
        results = [self.slots[name] for name in outputs]
        slots = [self.slots[entry.name] for entry in inputs]
        self.root.graph_programs["forward"] = place(self.root, placed, self.stored, slots, results)
        return self._described(inputs, nodes, num_classes)

    def _entries(self) -> list[ValueInfoProto]:
        """The inputs that the user gives; old files list their weights among them."""
        return [entry for entry in self.model.graph.input if entry.name not in self.constants]

    def _input(self, entry: ValueInfoProto) -> _Input:
        kind = entry.type.tensor_type
        sizes = tuple(int(dim.dim_value) if dim.HasField("dim_value") else 0 for dim in kind.shape.dim)
        if any(size < 0 for size in sizes) or prod(size or 1 for size in sizes) > MAX_INPUT:
            raise NotOpened(f"{self.file} takes an input of shape {sizes}, beyond the limit of {MAX_INPUT:,} numbers")
        return _Input(entry.name, sizes, kind.elem_type in _INTEGERS)

    def _described(self, inputs: Sequence[_Input], nodes: Sequence[OnnxNode], num_classes: int) -> Graph:
        if not inputs:
            raise NotOpened(f"{self.file} takes no input, so there is no latent to vary")
        batch = inputs[0].sizes[0] if inputs[0].sizes else 0
        known = bool(inputs[0].sizes) and all(inputs[0].sizes[1:])
        run, reason = original(self.model, [entry.name for entry in inputs])
        return Graph(
            self.root,
            self.file,
            run,
            tuple(Argument(entry.name, "Tensor", optional=False) for entry in inputs),
            tuple(dict.fromkeys(([batch] if batch else []) + list(baked_numbers(self.root)))),
            (inputs[0].sizes[1:],) if known else (),
            "ONNX Runtime",
            batch,
            reason,
            TOLERANCE,
            self._classes(inputs, nodes, num_classes),
        )

    def _classes(self, inputs: Sequence[_Input], nodes: Sequence[OnnxNode], given: int) -> int:
        """Number of labels of a second input: given, rows of the matrix it chooses from, or width of a one-hot label."""
        if len(inputs) != 2:
            return 0
        if not inputs[1].is_label:
            width = inputs[1].sizes[-1] if len(inputs[1].sizes) == 2 else 0
            named = inputs[1].name.lower() in ("c", "y") or any(word in inputs[1].name.lower() for word in _LABELS)
            self.root.graph_shared.one_hot = given or (width if named else 0)
            return self.root.graph_shared.one_hot
        labels, rows = {inputs[1].name}, set()
        for node in nodes:
            if node.op in _PASSING and node.inputs[0] in labels:
                labels.update(node.outputs)
            elif node.op == "Gather" and node.given(1) in labels and node.inputs[0] in self.constants:
                rows.add(len(self.constants[node.inputs[0]]))
            elif node.op == "OneHot" and node.inputs[0] in labels and node.given(1) in self.constants:
                rows.add(int(self.constants[node.given(1)].item()))
            elif node.op == "Equal" and node.inputs[0] in labels and node.given(1) in self.constants:
                rows.add(self.constants[node.given(1)].numel())
        if given or len(rows) == 1:
            return given or rows.pop()
        raise NotOpened(
            f"{self.file} takes labels ({inputs[1].name}) but not how many there are; pass --assume num_classes=10"
        )

    def _nodes(self) -> list[OnnxNode]:
        """The nodes that compute, in order; constants and copies are taken out."""
        version, known = opset(self.model), {*self.slots, *self.constants, ""}
        same: dict[str, str] = {}
        found: list[OnnxNode] = []
        for proto in self.model.graph.node:
            inputs = [same.get(name, name) for name in proto.input]
            if missing := [name for name in inputs if name not in known]:
                raise NotOpened(f"{self.file} is damaged: {missing[0][:60]!r} is read before it is made")
            if any(name in known for name in proto.output if name):
                raise NotOpened(f"{self.file} is damaged: {proto.output[0][:60]!r} is made twice")
            known.update(proto.output)
            if proto.op_type == "Constant":
                self.constants[proto.output[0]] = _constant(proto)
            elif proto.op_type == "Identity" and inputs[0] in self.constants:
                self.constants[proto.output[0]] = self.constants[inputs[0]].clone()
            elif proto.op_type == "Identity" and proto.output[0] not in {o.name for o in self.model.graph.output}:
                same[proto.output[0]] = inputs[0]
            else:
                found.append(self._node(proto, inputs, version))
        return found

    def _node(self, proto: NodeProto, inputs: list[str], version: int) -> OnnxNode:
        outputs = list(proto.output)
        if proto.op_type != "Split":
            if any(outputs[1:]) and proto.op_type not in ("Dropout", "BatchNormalization"):
                raise NotOpened(f"{self.file} uses further results of {proto.op_type}, which are not read")
            outputs = outputs[:1]
        held = {attribute.name: _attribute(attribute) for attribute in proto.attribute}
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        path, kind = scope(proto.name, metadata)
        node = OnnxNode(proto.op_type, inputs, outputs, Settings(version, len(outputs), held), path, kind)
        weight = self.constants.get(node.given(1))
        if node.op in WEIGHTED and "batch_norm" in metadata.get("pkg.torch.onnx.name_scopes", ""):
            # a norm that was folded into the convolution before it
            node.path, node.kind = owner(node.given(1)) or owner(node.given(2)) or node.path, ""
        kernel = node.settings.integers("kernel_shape")
        node.layer = layer_name(node, weight.dim() - 2 if weight is not None else len(kernel) if kernel else 2)
        return node

    def _with_sums(self, nodes: list[OnnxNode], outputs: set[str]) -> list[OnnxNode]:
        """A matrix product and the bias that is added to it, in one node."""
        made = {node.outputs[0]: node for node in nodes if node.outputs and node.outputs[0] not in outputs}
        joined: dict[int, OnnxNode] = {}
        dropped: set[int] = set()
        for node in nodes:
            product = next((made[n] for n in node.inputs if n in made and made[n].op == "MatMul"), None)
            bias = next((n for n in node.inputs if n in self.constants), "")
            if node.op == "Add" and product is not None and self._is_linear(product, bias, node.path):
                joined[id(product)] = replace(
                    product, op="Gemm", layer="linear", inputs=[*product.inputs, bias], outputs=node.outputs
                )
                dropped.add(id(node))
        return [joined.get(id(node), node) for node in nodes if id(node) not in dropped]

    def _is_linear(self, product: OnnxNode, bias: str, path: str) -> bool:
        matrix, added = self.constants.get(product.given(1)), self.constants.get(bias)
        if (
            matrix is None
            or added is None
            or matrix.dim() != 2
            or product.path != path
            or not added.is_floating_point()
        ):
            return False
        alone = self.uses[product.given(1)] == 1 and self.uses[product.outputs[0]] == 1
        return alone and tuple(added.shape) == (matrix.shape[1],)

    def _data(self, nodes: Sequence[OnnxNode], inputs: Sequence[_Input]) -> list[bool]:
        """Whether each node works on samples or weights, not on shapes alone."""
        data = {entry.name for entry in inputs}
        data |= {name for name, held in self.constants.items() if held.is_floating_point() and held.numel() > 1}
        found = []
        for node in nodes:
            found.append(node.op not in ("Shape", "Size") and any(name in data for name in node.inputs[:2]))
            if found[-1]:
                data.update(node.outputs)
        return found

    def _placed(self, node: OnnxNode, is_data: bool) -> Node:
        ensure(self.root, node.path)
        for name in node.outputs:
            self.slots[name] = len(self.slots)
        outputs = tuple(self.slots[name] for name in node.outputs)
        steps = lower(node, self)
        if steps is not None:
            steps[-1] = replace(steps[-1], outputs=outputs)
        else:
            steps = []
            slots = tuple(self.slot(node, position, steps) for position in range(len(node.inputs)))
            steps.append(Step(f"{PREFIX}{node.op}", slots, outputs, value=node.settings))
        layer = node.layer if is_data else ""
        return Node(tuple(steps), node.path, node.kind or (kind_of(layer) if layer else ""), layer, outputs)

    def constant(self, name: str) -> Tensor | None:
        """The value of an input where the file holds it."""
        return self.constants.get(name)

    def slot(self, node: OnnxNode, position: int, steps: list[Step]) -> int:
        """The slot of an input; steps that fetch a constant are appended."""
        name = node.given(position)
        if name in self.slots:
            return self.slots[name]
        if not name:
            return self.plain(None, steps)
        held, kept = self.constants[name], role(node.op, position)
        if node.op in ("Reshape", "Expand") and position == 1:
            return self.plain(held.reshape(-1).tolist(), steps)
        setting = kept == "constant" and (held.numel() <= 1 or (node.op in _SETTINGS and position > 0))
        if setting or not held.is_floating_point():
            return self.plain(held, steps)
        return self.weights[name] if name in self.weights else self._store(node, name, kept, held)

    def shaped(self, node: OnnxNode, position: int, value: Tensor) -> int | None:
        """The slot of a stored weight in another layout; None where other nodes use it too."""
        name = node.given(position)
        if self.uses[name] > 1 or name in self.weights:
            return None
        return self._store(node, name, role(node.op, position), value)

    def plain(self, value: object, steps: list[Step]) -> int:
        """The slot of a number, list, small tensor or None."""
        self.fresh += 1
        steps.append(Step("prim::Constant", (), (self.fresh,), value=value))
        return self.fresh

    def _store(self, node: OnnxNode, name: str, kept: str, value: Tensor) -> int:
        path = owner(name)
        leaf = kept if path in ("", node.path) else name.rpartition(".")[2]
        if path == node.path and path and kept == "constant":
            leaf = name.rpartition(".")[2]
        path = path or node.path
        base, number = leaf, 1
        holder = ensure(self.root, path)
        while hasattr(holder, leaf) or (f"{path}.{leaf}" if path else leaf) in self.paths:
            number += 1
            leaf = f"{base}_{number}"
        if base.startswith("running_"):
            holder.register_buffer(leaf, value)
        else:
            holder.register_parameter(leaf, nn.Parameter(value))
        self.weights[name] = self.fresh = self.fresh + 1
        self.stored[self.fresh] = f"{path}.{leaf}" if path else leaf
        return self.fresh


def _attribute(attribute: AttributeProto) -> object:
    """An attribute as a plain value: number, text, list or tensor."""
    if attribute.type == 3:
        return attribute.s.decode("utf-8", "replace")
    if attribute.type == 4:
        return tensor(attribute.t)
    return {1: attribute.f, 2: attribute.i, 6: list(attribute.floats), 7: list(attribute.ints)}.get(attribute.type)


def _constant(proto: NodeProto) -> Tensor:
    held = {attribute.name: _attribute(attribute) for attribute in proto.attribute}
    value = next(iter(held.values()))
    if isinstance(value, Tensor):
        return value
    whole = "int" in next(iter(held))
    return torch.tensor(value, dtype=torch.int64 if whole else torch.float32)
