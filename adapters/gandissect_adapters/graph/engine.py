"""A module that runs a graph of operators, and whose layers are ordinary submodules.

module = new_interpreted("Sequential", shared)
module.graph_programs["forward"] = Program(...)
module(z)                            # child modules run through nn.Module.__call__, so their hooks fire
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import cast

import torch
from torch import Tensor, nn

from gandissect.probing.latents import first_tensor
from gandissect_adapters.graph.onnx.operators import PREFIX, evaluate
from gandissect_adapters.graph.onnx.settings import Settings, Value
from gandissect_adapters.graph.operators import call, functional_name
from gandissect_adapters.graph.program import CALL, FUNCTION, OWN, Program, Step

Env = dict[int, object]

_SHAPE_FIRST = {"aten::zeros", "aten::ones", "aten::randn", "aten::rand", "aten::empty", "aten::full"}
_SHAPE_SECOND = {
    "aten::view", "aten::reshape", "aten::_unsafe_view", "aten::expand", "aten::repeat", "aten::new_zeros", "aten::new_ones",
    "aten::new_full", "aten::broadcast_to", "onnx::Reshape", "onnx::Expand",
}  # fmt: skip
_RESHAPES = {"aten::view", "aten::reshape", "aten::_unsafe_view", "onnx::Reshape"}


@dataclass
class Shared:
    """What all modules of one graph have in common while it runs.

    ``batch`` is the number of samples of the run; ``traced_batch`` the number that the graph was recorded with and holds as
    a constant, 0 where it holds none. ``record`` collects (module, operator, its arguments by name) when it is a list.
    """

    functional: bool = True
    batch: int = 0
    traced_batch: int = 0
    chunk: int = 0
    one_hot: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    record: list[tuple[nn.Module, str, dict[str, object]]] | None = None


class Interpreted(nn.Module):
    """Runs ``programs["forward"]``; parameters, buffers and children carry the names that the file has for them."""

    def __init__(self, shared: Shared, *, is_root: bool = False) -> None:
        super().__init__()
        self.graph_programs: dict[str, Program] = {}
        self.graph_values: dict[str, object] = {}
        self.graph_shared = shared
        self.graph_is_root = is_root

    def forward(self, *args: object, **kwargs: object) -> object:
        """What the file's ``forward`` returns for the same arguments; of the outermost module, the image among it."""
        if not self.graph_is_root:
            return self.graph_run("forward", (*args, *kwargs.values()))
        tensors = tuple(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        shared, count = self.graph_shared, len(tensors[0])
        if shared.one_hot:
            tensors = (tensors[0], nn.functional.one_hot(tensors[1], shared.one_hot).to(tensors[0].dtype), *tensors[2:])
        shared.device = tensors[0].device
        size = shared.chunk or count
        parts = []
        for start in range(0, count, size):
            part = tuple(padded(tensor[start : start + size], size) for tensor in tensors)
            shared.batch = size
            parts.append(first_tensor(self.graph_run("forward", part)))
        if len(parts) == 1 and not shared.chunk:
            return parts[0]
        return torch.cat([part for part in parts if part is not None])[:count]

    def graph_run(self, method: str, args: tuple[object, ...]) -> object:
        """The result of one of the module's programs."""
        program = self.graph_programs[method]
        missing = len(program.inputs) - 1 - len(args)
        if missing > 0 and missing <= len(program.defaults):
            args = (*args, *program.defaults[len(program.defaults) - missing :])
        env: Env = dict(zip(program.inputs, (self, *args), strict=True))
        run_steps(self, program, env)
        results = tuple(env[slot] for slot in program.outputs)
        return results[0] if len(results) == 1 else results

    def graph_attribute(self, name: str) -> object:
        """A parameter, buffer, child or plain value of the module; ``training`` is always False."""
        if name == "training":
            return False
        return self.graph_values[name] if name in self.graph_values else getattr(self, name)


def padded(samples: Tensor, count: int) -> Tensor:
    """``samples`` [n, ...] with the last one repeated up to ``count``."""
    missing = count - len(samples)
    return torch.cat([samples, samples[-1:].expand(missing, *samples.shape[1:])]) if missing > 0 else samples


@lru_cache(maxsize=256)
def _interpreted_class(kind: str) -> type[Interpreted]:
    return type(kind, (Interpreted,), {"__module__": __name__, "__doc__": f"A {kind} run from a graph."})


def new_interpreted(kind: str, shared: Shared, *, is_root: bool = False) -> Interpreted:
    """An empty module whose class is called ``kind``, so that it is listed under the original's class name."""
    return _interpreted_class(kind or "Module")(shared, is_root=is_root)


def run_steps(owner: Interpreted, program: Program, env: Env) -> None:
    """Runs the steps of ``program``, reading and filling the slots of ``env``."""
    for step in program.steps:
        control = _CONTROL.get(step.op)
        if control is not None:
            control(owner, step, env)
        else:
            values = tuple(env[slot] for slot in step.inputs)
            _store(env, step, _compute(owner, step, values))


def _store(env: Env, step: Step, result: object) -> None:
    if len(step.outputs) == 1:
        env[step.outputs[0]] = result
    elif step.outputs:
        env.update(zip(step.outputs, result, strict=True))  # type: ignore[call-overload]  # a tuple of the operator


def _compute(owner: Interpreted, step: Step, values: tuple[object, ...]) -> object:
    shared = owner.graph_shared
    if shared.traced_batch and shared.batch != shared.traced_batch:
        values = _rebatch(step.op, values, shared)
    result = _result(shared, step, values)
    if shared.record is not None and isinstance(result, Tensor):
        shared.record.append((owner, step.op, dict(zip(step.names, values, strict=False))))
    return result


def _result(shared: Shared, step: Step, values: tuple[object, ...]) -> object:
    if step.op.startswith(PREFIX):
        return evaluate(step.op, cast("Settings", step.value), cast("tuple[Value, ...]", values))
    op = functional_name(step.op, step.overload) if shared.functional else step.op
    return call(op, step.overload, values, step.keywords)


def _rebatch(op: str, values: tuple[object, ...], shared: Shared) -> tuple[object, ...]:
    """Arguments with the recorded number of samples replaced by that of this run."""
    if not values:
        return values
    if op in _SHAPE_FIRST and isinstance(values[0], list):
        return (_rebatched(values[0], shared), *values[1:])
    if op in _SHAPE_SECOND and len(values) > 1 and isinstance(values[1], list) and isinstance(values[0], Tensor):
        shape = values[1]
        if op in _RESHAPES and len(values[0]) != shared.batch:
            return values
        if op == "aten::repeat" and len(values[0]) == shared.batch:
            return values
        return (values[0], _rebatched(shape, shared), *values[2:])
    return values


def _rebatched(shape: list[int], shared: Shared) -> list[int]:
    return [shared.batch, *shape[1:]] if shape and shape[0] == shared.traced_batch else shape


def _constant(_owner: Interpreted, step: Step, env: Env) -> None:
    value = step.value
    if isinstance(value, torch.device):
        value = _owner.graph_shared.device
    env[step.outputs[0]] = list(value) if isinstance(value, list) else value


def _get(_owner: Interpreted, step: Step, env: Env) -> None:
    module = env[step.inputs[0]]
    value = module.graph_attribute(step.name) if isinstance(module, Interpreted) else getattr(module, step.name)
    env[step.outputs[0]] = value


def _set(_owner: Interpreted, step: Step, env: Env) -> None:
    module, value = env[step.inputs[0]], env[step.inputs[1]]
    assert isinstance(module, Interpreted)
    if step.name in module.graph_values:
        module.graph_values[step.name] = value
    else:
        setattr(module, step.name, value)


def _call_child(owner: Interpreted, step: Step, env: Env) -> None:
    """Runs a child; one that became an ordinary module takes the one tensor it works on."""
    child = owner.get_submodule(step.name)
    values = tuple(env[slot] for slot in step.inputs)
    _store(env, step, _enter(child, values))


def _call_method(_owner: Interpreted, step: Step, env: Env) -> None:
    module, *values = (env[slot] for slot in step.inputs)
    assert isinstance(module, nn.Module)
    if step.name != "forward":
        assert isinstance(module, Interpreted)
        _store(env, step, module.graph_run(step.name, tuple(values)))
    else:
        _store(env, step, _enter(module, tuple(values)))


def _enter(module: nn.Module, values: tuple[object, ...]) -> object:
    if isinstance(module, Interpreted):
        return module(*values)
    return module(next(value for value in values if isinstance(value, Tensor)))


def _call_function(owner: Interpreted, step: Step, env: Env) -> None:
    body = step.blocks[0]
    values = tuple(env[slot] for slot in step.inputs)
    missing = len(body.inputs) - len(values)
    inner: Env = dict(zip(body.inputs, (*values, *body.defaults[len(body.defaults) - missing :]), strict=True))
    run_steps(owner, body, inner)
    results = tuple(inner[slot] for slot in body.outputs)
    _store(env, step, results[0] if len(results) == 1 else results)


def _own(owner: Interpreted, step: Step, env: Env) -> None:
    env[step.outputs[0]] = attrgetter(step.name)(owner)


def _if(owner: Interpreted, step: Step, env: Env) -> None:
    block = step.blocks[0 if env[step.inputs[0]] else 1]
    run_steps(owner, block, env)
    env.update(zip(step.outputs, (env[slot] for slot in block.outputs), strict=True))


def _loop(owner: Interpreted, step: Step, env: Env) -> None:
    limit, condition, *carried = (env[slot] for slot in step.inputs)
    block, turn = step.blocks[0], 0
    while condition and turn < limit:  # type: ignore[operator]  # the graph's own types
        env.update(zip(block.inputs, (turn, *carried), strict=True))
        run_steps(owner, block, env)
        condition, *carried = (env[slot] for slot in block.outputs)
        turn += 1
    env.update(zip(step.outputs, carried, strict=True))


def _unpack(_owner: Interpreted, step: Step, env: Env) -> None:
    values = env[step.inputs[0]]
    env.update(zip(step.outputs, values, strict=True))  # type: ignore[call-overload]  # a tuple or list of the graph


def _raise(_owner: Interpreted, step: Step, env: Env) -> None:
    raise RuntimeError(str(env[step.inputs[0]]))


_CONTROL: dict[str, Callable[[Interpreted, Step, Env], None]] = {
    "prim::Constant": _constant,
    "prim::GetAttr": _get,
    "prim::SetAttr": _set,
    "prim::CallMethod": _call_method,
    CALL: _call_child,
    FUNCTION: _call_function,
    OWN: _own,
    "prim::If": _if,
    "prim::Loop": _loop,
    "prim::ListUnpack": _unpack,
    "prim::TupleUnpack": _unpack,
    "prim::RaiseException": _raise,
}
