"""Scripted graphs as programs; operators that no submodule stands for become child modules.

compiler = Compiler(Seen(functions), module, probes=True)
module.graph_programs["forward"] = compiler.callable(method)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gandissect_adapters.graph.engine import Interpreted, new_interpreted
from gandissect_adapters.graph.library import LibraryFunction
from gandissect_adapters.graph.operators import READABLE, plain_name
from gandissect_adapters.graph.program import CALL, FUNCTION, OWN, Program, Step

_KINDS = {"conv1d": "Conv1d", "conv2d": "Conv2d", "conv3d": "Conv3d", "conv_transpose1d": "ConvTranspose1d",
          "conv_transpose2d": "ConvTranspose2d", "conv_transpose3d": "ConvTranspose3d", "relu": "ReLU", "leaky_relu": "LeakyReLU",
          "batch_norm": "BatchNorm2d", "instance_norm": "InstanceNorm2d", "group_norm": "GroupNorm", "layer_norm": "LayerNorm",
          "addmm": "Linear", "elu": "ELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU", "prelu": "PReLU"}  # fmt: skip


def kind_of(op: str) -> str:
    """The class name a layer made of this operator is listed under (``ReLU`` for ``relu``)."""
    if op in _KINDS:
        return _KINDS[op]
    return "Upsample" if op.startswith(("upsample", "interpolate")) else "".join(part.title() for part in op.split("_"))


def free_name(module: nn.Module, base: str) -> str:
    """``base_1``, ``base_2``, ...: the first that the module has no attribute for."""
    number = 1
    while hasattr(module, f"{base}_{number}"):
        number += 1
    return f"{base}_{number}"


def add_weight(module: nn.Module, name: str, tensor: Tensor) -> str:
    """The name under which a constant was registered: a parameter, or a buffer for statistics and integers."""
    name = name if name and not hasattr(module, name) else free_name(module, name or "constant")
    if name.startswith("running_") or not tensor.is_floating_point() or tensor.dim() == 0:
        module.register_buffer(name, tensor.detach().clone())
    else:
        module.register_parameter(name, nn.Parameter(tensor.detach().clone()))
    return name


@dataclass
class Seen:
    """What was met while compiling: the file's functions, and the names of operators, methods and attributes in use."""

    functions: tuple[LibraryFunction, ...]
    ops: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=lambda: {"forward"})
    attributes: set[str] = field(default_factory=set)

    def candidates(self, node: torch._C.Node, code: str) -> list[LibraryFunction]:
        """The functions that a call may mean; several only where their graphs differ and the code does not tell."""
        name = next(node.inputs()).node().s("name")
        found = [function for function in self.functions if function.name == name and not _is_method(function)]
        if len(found) > 1:
            named = [f for f in found if re.search(rf"\b{re.escape(f.qualified_name)}(?![\w.])", code)]
            found = named or found
            texts = {re.sub(r"#.*", "", str(function.graph)) for function in found}
            found = found[:1] if len(texts) == 1 else found
        return found


def _is_method(function: LibraryFunction) -> bool:
    first = next(iter(function.graph.inputs()), None)
    return first is not None and str(first.type()).startswith("__torch__")


def _nodes(holder: torch._C.Graph | torch._C.Block) -> Iterator[torch._C.Node]:
    for node in holder.nodes():
        yield node
        for block in node.blocks():
            yield from _nodes(block)


def _gives_tensor(node: torch._C.Node) -> bool:
    outputs = list(node.outputs())
    return len(outputs) == 1 and str(outputs[0].type()) == "Tensor"


def _takes_tensor(node: torch._C.Node) -> bool:
    return any(str(v.type()) == "Tensor" and v.node().kind() != "prim::Constant" for v in node.inputs())


def _is_readable(node: torch._C.Node) -> bool:
    known = node.kind().startswith("aten::") and plain_name(node.kind()) in READABLE
    return known and _gives_tensor(node) and _takes_tensor(node)


def _layer_name(node: torch._C.Node) -> str:
    """What a layer made of this node is called, without its number."""
    name = plain_name(node.kind())
    if name == "convolution":
        return "conv_transpose2d" if list(node.inputs())[6].toIValue() else "conv2d"
    return name


def _schema(node: torch._C.Node) -> tuple[str, tuple[str, ...]]:
    """The overload of the node's operator and the names of its arguments."""
    if not node.kind().startswith("aten::"):
        return "", ()
    try:
        schema = torch._C.parse_schema(node.schema())
    except RuntimeError:
        return "", ()
    return schema.overload_name, tuple(argument.name for argument in schema.arguments)


@dataclass
class Compiler:
    """Compiles the graphs of ``module``; ``probes`` says whether its own operators become children."""

    seen: Seen
    module: Interpreted
    probes: bool = False

    def callable(self, callable_: LibraryFunction) -> Program:
        """The program of a method or function; calls that cannot be told apart are inlined."""
        graph, code = callable_.graph, callable_.code
        calls = [node for node in _nodes(graph) if node.kind() == "prim::CallFunction"]
        if any(len(self.seen.candidates(node, code)) != 1 for node in calls):
            graph = callable_.inlined_graph
        defaults = tuple(a.default_value for a in callable_.schema.arguments if a.has_default_value())
        return self._program(graph, code, defaults)

    def _program(self, graph: torch._C.Graph | torch._C.Block, code: str, defaults: Sequence[object] = ()) -> Program:
        steps = tuple(step for node in graph.nodes() for step in self._steps(node, code))
        outputs = tuple(value.unique() for value in graph.outputs())
        return Program(tuple(value.unique() for value in graph.inputs()), steps, outputs, tuple(defaults))

    def _steps(self, node: torch._C.Node, code: str) -> Iterator[Step]:
        op, outputs = node.kind(), tuple(value.unique() for value in node.outputs())
        inputs = tuple(value.unique() for value in node.inputs())
        if op == "prim::Constant":
            yield from self._constant(node, outputs)
        elif op == "prim::CallFunction":
            yield self._function(node, code, inputs[1:], outputs)
        elif op in ("prim::GetAttr", "prim::SetAttr", "prim::CallMethod"):
            (self.seen.methods if op == "prim::CallMethod" else self.seen.attributes).add(node.s("name"))
            yield Step(op, inputs, outputs, name=node.s("name"))
        else:
            self.seen.ops.add(op)
            overload, names = _schema(node)
            blocks = tuple(self._program(block, code) for block in node.blocks())
            step = Step(op, inputs, outputs, overload, names=names, blocks=blocks)
            yield self._probe(node, step) if self.probes and _is_readable(node) else step

    def _constant(self, node: torch._C.Node, outputs: tuple[int, ...]) -> Iterator[Step]:
        value = next(node.outputs())
        if str(value.type()) == "Function":
            return
        constant = value.toIValue()
        if not isinstance(constant, Tensor):
            yield Step("prim::Constant", (), outputs, value=constant)
        elif not (self.probes and all(_is_readable(use.user) for use in value.uses())):
            yield Step(OWN, (), outputs, name=add_weight(self.module, "", constant))

    def _function(self, node: torch._C.Node, code: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Step:
        """A call of a function: a child where layers are wanted, else a block with slots of its own."""
        function = self.seen.candidates(node, code)[0]
        if not (self.probes and _gives_tensor(node)):
            return Step(
                FUNCTION,
                inputs,
                outputs,
                name=function.name,
                blocks=(Compiler(self.seen, self.module).callable(function),),
            )
        layer = plain_name(function.name)
        child = new_interpreted(kind_of(layer), self.module.graph_shared)
        body = Compiler(self.seen, child).callable(function)
        child.graph_programs["forward"] = Program((-1, *body.inputs), body.steps, body.outputs, body.defaults)
        name = free_name(self.module, layer)
        self.module.add_module(name, child)
        return Step(CALL, inputs, outputs, name=name)

    def _probe(self, node: torch._C.Node, step: Step) -> Step:
        """A child that runs the operator and holds the constants it works with as its parameters."""
        layer = _layer_name(node)
        child = new_interpreted(kind_of(layer), self.module.graph_shared)
        steps: list[Step] = []
        passed: dict[int, None] = {}
        slots = list(step.inputs)
        for position, value in enumerate(node.inputs()):
            constant = value.toIValue() if value.node().kind() == "prim::Constant" else None
            if isinstance(
                constant, Tensor
            ):  # one constant may serve as weight and variance: each gets a slot of its own
                slots[position] = -2 - position
                name = step.names[position] if step.names else ""
                steps.append(Step(OWN, (), (slots[position],), name=add_weight(child, name, constant)))
            else:
                passed[slots[position]] = None
        run = replace(step, inputs=tuple(slots))
        child.graph_programs["forward"] = Program((-1, *passed), (*steps, run), step.outputs)
        name = free_name(self.module, layer)
        self.module.add_module(name, child)
        return Step(CALL, tuple(passed), step.outputs, name=name)
