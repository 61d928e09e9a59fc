"""A graph as plain values: what is run in which order, and where results go.

    Step("aten::relu", inputs=(3,), outputs=(4,))       # slot 4 = relu(slot 3)
    Program(inputs=(0, 1), steps=(...), outputs=(4,))

Programs hold no handle of the library that read the file, so the modules that run them can be copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CALL = "call"
"""The operator of a step that runs the child module ``name`` of the module whose program it is."""


FUNCTION = "function"
"""The operator of a step that runs its block with slots of its own."""

OWN = "own"
"""The operator of a step that reads the parameter or buffer ``name`` of the module whose program it is."""


@dataclass(frozen=True)
class Step:
    """One operator: slots it reads, slots it fills.

    ``name`` is the attribute, method, function or child that the operator is about; ``value`` a constant; ``names`` the
    operator's argument names in the order of ``inputs``, ``keywords`` those of the last ones that are passed by name.
    """

    op: str
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    overload: str = ""
    name: str = ""
    value: object = None
    names: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    blocks: tuple[Program, ...] = ()


@dataclass(frozen=True)
class Program:
    """Steps in order, the slots that arguments are put in, and the slots whose values come back.

    ``defaults`` belong to the last inputs.
    """

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    defaults: tuple[object, ...] = ()

    def walk(self) -> Iterator[Step]:
        """All steps, those of inner blocks after the step that holds them."""
        for step in self.steps:
            yield step
            for block in step.blocks:
                yield from block.walk()
