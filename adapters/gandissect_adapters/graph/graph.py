"""A network that was read from a file as a graph, before it is known what it is for.

graph.module(z)                      # runs layer by layer; graph.original(z) as the file's own library runs it
graph.arguments                      # (Argument("z", "Tensor", optional=False),)
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from gandissect.errors import GandissectError, NotOpened
from gandissect_adapters.graph.engine import Interpreted


@dataclass(frozen=True)
class Argument:
    """An argument of the file's forward: its name, its type as the file writes it, and whether it may be left out."""

    name: str
    kind: str
    optional: bool


@dataclass(frozen=True)
class Graph:
    """The module, the file it is from, the file's own way to run it (None: unknown), its arguments.

    ``baked`` are numbers that stand first in a constant shape: the recorded batch size is one of them, if there is one.
    ``shapes`` are those of the arguments for one sample where the file says so. ``library`` names what runs the original,
    which takes ``original_batch`` samples at a time where that is not 0 and may differ by ``tolerance``; ``not_run`` says why
    ``original`` is None. ``num_classes`` is set where the file itself says how many labels there are.
    """

    module: Interpreted
    file: str
    original: Callable[..., object] | None
    arguments: tuple[Argument, ...]
    baked: tuple[int, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    library: str = "TorchScript"
    original_batch: int = 0
    not_run: str = ""
    tolerance: float = 1e-5
    num_classes: int = 0


def baked_numbers(module: Interpreted) -> tuple[int, ...]:
    """Positive numbers that stand first in a list of constants anywhere in the programs of ``module``."""
    found: dict[object, None] = {}
    for child in module.modules():
        for program in child.graph_programs.values() if isinstance(child, Interpreted) else ():
            constants: dict[int, object] = {}
            for step in program.walk():
                if step.op == "prim::Constant":
                    constants[step.outputs[0]] = step.value
                    if isinstance(step.value, list) and step.value:
                        found[step.value[0]] = None
                elif step.op == "prim::ListConstruct" and step.inputs:
                    found[constants.get(step.inputs[0])] = None
    return tuple(number for number in found if type(number) is int and number > 0)


@contextmanager
def refusing_damage(file: str) -> Generator[None]:
    """Errors of the block as NotOpened: readers of archives raise whatever a damaged one leads them into."""
    try:
        yield
    except GandissectError:
        raise
    except Exception as error:
        raise NotOpened(f"{file} is damaged, or beyond what can be interpreted ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says anything, cut to 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
