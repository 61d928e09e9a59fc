"""Operators of a flat graph put into a tree of modules, by the submodule that each of them ran in.

    root.graph_programs["forward"] = place(root, nodes, stored, inputs, results)

An operator of a module that has others inside becomes a child of its own where its result is worth reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import nn

from gandissect_adapters.graph.compiler import free_name, kind_of
from gandissect_adapters.graph.engine import Interpreted, new_interpreted
from gandissect_adapters.graph.operators import READABLE
from gandissect_adapters.graph.program import CALL, OWN, Program, Step


@dataclass(frozen=True)
class Node:
    """One operator of the file: its steps, the submodule it ran in (``""`` for the outermost) and that one's class.

    ``layer`` is what its result is called where it becomes a layer of its own.
    """

    steps: tuple[Step, ...]
    path: str
    kind: str
    layer: str
    outputs: tuple[int, ...]

    @property
    def needs(self) -> tuple[int, ...]:
        """Slots it reads from outside itself."""
        made = {slot for step in self.steps for slot in step.outputs}
        return tuple(dict.fromkeys(s for step in self.steps for s in step.inputs if s not in made))


def place(
    root: Interpreted, nodes: Sequence[Node], stored: Mapping[int, str], inputs: Sequence[int], results: Sequence[int]
) -> Program:
    """The program of ``root``; those of its submodules are set.

    Args:
        root: holds the stored tensors under their dotted names.
        nodes: in the order they run.
        stored: slot -> dotted name of a parameter or buffer.
        inputs: slots of the arguments.
        results: slots of what comes back.
    """
    paths = {node.path for node in nodes}
    inner = inner_paths(paths)
    groups = [(path, list(group)) for path, group in groupby(nodes, key=lambda node: node.path)]
    body: list[Step] = []
    after = _needed_after(groups, results)
    for (path, group), later in zip(groups, after, strict=True):
        if path in inner:
            for node in group:
                body += _layer(root, path, node, stored) if node.layer in READABLE else node.steps
        else:
            body.append(_call(root, path, group, stored, later))
    made = {slot for step in body for slot in step.outputs}
    wanted = dict.fromkeys(slot for step in body for slot in step.inputs if slot in stored and slot not in made)
    fetched = [Step(OWN, (), (slot,), name=stored[slot]) for slot in wanted]
    return Program((-1, *inputs), (*fetched, *body), tuple(results))


def inner_paths(paths: set[str]) -> set[str]:
    """The outermost module and every other that has one of ``paths`` inside."""
    found = {""}
    for path in paths:
        parts = path.split(".")
        found |= {".".join(parts[:count]) for count in range(1, len(parts))}
    return found & (paths | {""})


def _needed_after(groups: Sequence[tuple[str, list[Node]]], results: Sequence[int]) -> list[set[int]]:
    """Of each group, the slots that later ones or the caller read."""
    needed, found = set(results), []
    for _, group in reversed(groups):
        found.append(set(needed))
        needed |= {slot for node in group for slot in node.needs}
    return found[::-1]


def _layer(root: Interpreted, path: str, node: Node, stored: Mapping[int, str]) -> list[Step]:
    """An operator between submodules as a child of the module it ran in."""
    parent = ensure(root, path)
    name = free_name(parent, node.layer)
    parent.add_module(name, new_interpreted(kind_of(node.layer), root.graph_shared))
    return [_call(root, f"{path}.{name}" if path else name, [node], stored, set(node.outputs))]


def ensure(root: Interpreted, path: str) -> nn.Module:
    """The submodule at ``path``, made with all its parents where it is missing."""
    holder: nn.Module = root
    for part in path.split(".") if path else ():
        if part not in holder._modules:
            holder.add_module(part, new_interpreted("Module", root.graph_shared))
        holder = holder.get_submodule(part)
    return holder


def _call(root: Interpreted, path: str, group: Sequence[Node], stored: Mapping[int, str], later: set[int]) -> Step:
    """Makes the operators of ``group`` the program of the submodule at ``path``; the step that runs it."""
    child = ensure(root, path)
    assert isinstance(child, Interpreted)
    if (
        child.graph_programs
    ):  # a module that is called more than once: the next call gets a child that shares its tensors
        path, child = _another(root, path, child)
    if group[0].kind and type(child).__name__ == "Module":
        child.__class__ = type(new_interpreted(group[0].kind, root.graph_shared))
    own = {slot: name.removeprefix(f"{path}.") for slot, name in stored.items() if name.startswith(f"{path}.")}
    steps = tuple(step for node in group for step in node.steps)
    made = {slot for step in steps for slot in step.outputs}
    needs = dict.fromkeys(slot for step in steps for slot in step.inputs if slot not in made)
    fetched = tuple(Step(OWN, (), (slot,), name=own[slot]) for slot in needs if slot in own)
    passed = tuple(slot for slot in needs if slot not in own)
    results = tuple(slot for step in steps for slot in step.outputs if slot in later)
    child.graph_programs["forward"] = Program((-1, *passed), (*fetched, *steps), results)
    return Step(CALL, passed, results, name=path)


def _another(root: Interpreted, path: str, first: Interpreted) -> tuple[str, Interpreted]:
    parent, _, name = path.rpartition(".")
    holder = root.get_submodule(parent) if parent else root
    free = free_name(holder, f"{name}_call")
    child = new_interpreted(type(first).__name__, root.graph_shared)
    holder.add_module(free, child)
    return f"{parent}.{free}" if parent else free, child
