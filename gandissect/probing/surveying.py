"""One run of a network on a sample or two, from which its layers, their connections and the cost of a run are read.

seen = survey(net, lambda net, x: net(x), z[:1])
seen.calls                              # what ran, in order
seen.effective                          # layers whose output reaches the network's
seen.effort                             # multiply-adds of one sample, about
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

Run = Callable[[nn.Module, Tensor], Tensor]
"""(network, samples) -> its output, [N, ...]."""

_TOUCHED = 30  # what reading and writing one number costs, in multiply-adds
_DEPTHWISE = 6  # a grouped convolution is so many times slower per multiply-add
_LARGE = 2**18  # numbers in a layer's output from which on freed memory is handed back behind it


@dataclass(frozen=True)
class Call:
    """One call of one module: the shape of its output without the batch, and the autograd nodes of its inputs and output."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    node: object
    inputs: tuple[object, ...]


@dataclass(frozen=True)
class Survey:
    """What a run showed.

    ``calls`` are those that gave one tensor with the batch in front. ``effective`` names those that the network's output
    depends on; ``sensitive`` is whether it depends on the samples, ``repeatable`` whether no random numbers were drawn.
    """

    calls: tuple[Call, ...]
    output: Tensor
    effective: frozenset[str]
    sensitive: bool
    repeatable: bool
    effort: float


def survey(net: nn.Module, run: Run, samples: Tensor, also: Collection[str] = ()) -> Survey:
    """Run ``net`` once, watching its leaf modules; the autograd graph is kept without the tensors that a backward pass needs.

    Args:
        samples: float [N, ...], few of them.
        also: composite modules to be watched beside the leaves; they come after their parts.
    """
    start = samples.detach().clone().requires_grad_()
    meter = _Meter()
    before = _random_state(start.device)
    with torch.enable_grad(), saved_tensors_hooks(_forget, _forget), meter:
        calls, output = _watch(net, lambda: run(net, start), also)
    repeatable = torch.equal(before, _random_state(start.device))
    nodes = _history(output)
    sensitive = any(getattr(node, "variable", None) is start for node in nodes)
    effective = frozenset(call.name for call in calls if call.node in nodes)
    return Survey(tuple(calls), output.detach(), effective, sensitive, repeatable, meter.effort / max(len(samples), 1))


def _forget(saved: Tensor) -> Tensor:
    return saved.new_empty(0)


def _hand_back() -> None:
    """Freed memory to the system: glibc keeps blocks of up to 32 MiB below the graph's small nodes, which live on."""
    trim = _trimmer()
    if trim is not None:
        trim(0)


@cache
def _trimmer() -> Callable[[int], int] | None:
    """malloc_trim of the C library, None where it has none."""
    try:
        return cast("Callable[[int], int]", ctypes.CDLL(None).malloc_trim)
    except (AttributeError, OSError, TypeError):
        return None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _watch(net: nn.Module, run: Callable[[], Tensor], also: Collection[str]) -> tuple[list[Call], Tensor]:
    """Every call of a leaf module, or one named in ``also``, that gives one tensor; each output gets a node of its own."""
    calls: list[Call] = []
    counts: Counter[str] = Counter()

    def seen(name: str, module: nn.Module, args: tuple[object, ...], output: object) -> Tensor | None:
        number = counts[name]
        counts[name] += 1
        if not isinstance(output, Tensor) or output.dim() not in (2, 4):
            return None
        if output.numel() > _LARGE:
            _hand_back()
        marked = _marked(output)
        inputs = tuple(arg.grad_fn for arg in args if isinstance(arg, Tensor))
        call = f"{name}@{number}" if number else name
        calls.append(Call(call, module, tuple(output.shape), marked.grad_fn, inputs))
        return marked

    with ExitStack() as hooks:
        for name, module in net.named_modules():
            if name and (name in also or not any(True for _ in module.children())):
                hooks.callback(module.register_forward_hook(partial(seen, name)).remove)
        output = run()
    batch = len(output) if output.dim() else -1
    return [
        Call(call.name, call.module, call.shape[1:], call.node, call.inputs) for call in calls if call.shape[0] == batch
    ], output


def _marked(output: Tensor) -> Tensor:
    """The same numbers behind an autograd node of their own."""
    if output.requires_grad or not output.is_floating_point():
        return output.view_as(output)
    return output * torch.ones((), dtype=output.dtype, device=output.device, requires_grad=True)


def _history(output: Tensor) -> set[object]:
    """All nodes of the autograd graph behind ``output``."""
    nodes: set[object] = set()
    stack: list[object] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        stack += [parent for parent, _ in getattr(node, "next_functions", ())]
    return nodes


class _Meter(TorchFunctionMode):
    """Adds up what the functions called inside cost: multiply-adds, and the numbers written."""

    def __init__(self) -> None:
        super().__init__()
        self.effort = 0.0

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            shapes = [arg.shape for arg in (*args, *(kwargs or {}).values()) if isinstance(arg, Tensor)]
            self.effort += out.numel() * _TOUCHED + _multiplications(getattr(func, "__name__", ""), shapes, out)
        return out


def _multiplications(name: str, shapes: Sequence[Sequence[int]], out: Tensor) -> float:
    """Multiply-adds of a convolution or matrix product of tensors of those shapes; 0 for any other function."""
    if len(shapes) < 2:
        return 0.0
    given, weight = shapes[0], shapes[1]
    if name.startswith("conv"):
        transposed = "transpose" in name  # every number of the input meets the weights, else every one of the output
        grouped = weight[1] != (out.shape[1] if transposed else given[1])
        met = math.prod(given) if transposed else out.numel()
        return float(met) * math.prod(weight[1:]) * (_DEPTHWISE if grouped else 1)
    if name in ("linear", "matmul", "__matmul__", "mm", "bmm"):
        return float(out.numel()) * given[-1]
    return 0.0
