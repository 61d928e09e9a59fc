"""Read and edit a network's layers for the length of a ``with`` block.

with tap(generator.module, ["layer2", "layer4"]) as acts:
    generator(z)
acts["layer4"]                      # float32 [N, C, H, W]
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import Tensor, nn

from gandissect.errors import unknown_name

Edit = Callable[[str, Tensor], Tensor]
"""(layer name, output [N, C, H, W] or [N, C]) -> what the network shall go on with, same shape."""


def split_call(name: str) -> tuple[str, int]:
    """("relu", 1) for ``relu@1``: the module and which of its calls in one forward pass; call 0 without ``@``."""
    module, _, call = name.partition("@")
    return module, int(call or 0)


def find_layer(net: nn.Module, name: str) -> nn.Module:
    """The submodule called ``name`` (a trailing ``@k`` is ignored), or an error that says what was meant."""
    modules: dict[str, nn.Module] = dict(net.named_modules())
    module = modules.get(split_call(name)[0])
    if module is None:
        raise unknown_name("layer", name, [known for known in modules if known], f"in {type(net).__name__}")
    return module


class _Calls:
    """Counts how often each tapped module ran since the network was last entered."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def reset(self, _module: nn.Module, _args: tuple[object, ...]) -> None:
        self._counts.clear()

    def next(self, name: str) -> int:
        count = self._counts.get(name, 0)
        self._counts[name] = count + 1
        return count


class _AllRead(Exception):
    """Ends a forward pass of which nothing more is needed."""


@contextmanager
def tap(
    net: nn.Module, layers: Sequence[str], edit: Edit | None = None, *, only: bool = False
) -> Generator[dict[str, Tensor]]:
    """Outputs of ``layers`` as the network runs, optionally replaced by ``edit``; every hook is gone afterwards.

    Args:
        net: the module that will be called.
        layers: dotted names; ``relu@1`` is the second call of a module that runs more than once per pass.
        edit: called with (name, output) for each of them; what it returns replaces the output.
        only: nothing but these layers is needed: the block, which is to hold one call of the network, ends when all are read.

    Yields:
        a dict filled by each forward pass: layer name -> its (edited) output, with its autograd history.

    Raises:
        UnknownName: a layer that is not there; nothing has been hooked then.
    """
    wanted: dict[str, dict[int, str]] = {}
    modules: dict[str, nn.Module] = {}
    for name in layers:
        module_name, call = split_call(name)
        modules[module_name] = find_layer(net, name)  # check all before hooking any
        wanted.setdefault(module_name, {})[call] = name
    acts: dict[str, Tensor] = {}
    calls = _Calls()

    def watch(module_name: str, _module: nn.Module, _args: object, output: object) -> Tensor | None:
        name = wanted[module_name].get(calls.next(module_name))
        if name is None or not isinstance(output, Tensor):
            return None
        if edit is None:
            acts[name] = output
            if only and len(acts) == len(layers):
                raise _AllRead
            return None
        acts[name] = edited = edit(name, output)
        return edited

    with ExitStack() as hooks:
        hooks.callback(net.register_forward_pre_hook(calls.reset, prepend=True).remove)
        for module_name, module in modules.items():
            handle = module.register_forward_hook(partial(watch, module_name))
            hooks.callback(handle.remove)
        try:
            yield acts
        except Exception:
            if not only or len(acts) < len(layers):  # scripted modules raise an exception of their own for ours
                raise


def followed(_name: str, output: Tensor) -> Tensor:
    """An edit that changes nothing, and lets gradients begin at outputs without a history, such as a label's embedding."""
    return output if output.requires_grad else output.detach().requires_grad_().clone()


def as_map(activation: Tensor) -> Tensor:
    """An activation as [N, C, H, W]: vectors [N, C] become 1×1 maps, maps stay as they are."""
    return activation[:, :, None, None] if activation.dim() == 2 else activation
