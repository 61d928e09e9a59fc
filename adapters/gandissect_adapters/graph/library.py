"""The part of torch's compiled TorchScript interface that is used here, typed; torch's own stubs leave most of it out.

root, functions = load(path)         # of an archive that was found harmless
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import torch
from torch import Tensor

_SOURCE_RANGES, _UNREAD = b".debug_pkl", b".debug_off"


class LibraryArgument(Protocol):
    """An argument in a schema."""

    name: str
    type: object
    default_value: object

    def has_default_value(self) -> bool:
        """Whether it may be left out."""


class LibrarySchema(Protocol):
    """A function's arguments in order."""

    arguments: Sequence[LibraryArgument]


class LibraryFunction(Protocol):
    """A scripted function or method."""

    name: str
    qualified_name: str
    code: str
    graph: torch._C.Graph
    inlined_graph: torch._C.Graph
    schema: LibrarySchema


class LibraryType(Protocol):
    """A scripted class."""

    def name(self) -> str:
        """The class's name in Python."""

    def qualified_name(self) -> str:
        """The same with its package, below ``__torch__``."""


class LibraryModule(Protocol):
    """A scripted module without its Python wrapper."""

    def _has_method(self, name: str) -> bool: ...
    def _get_method(self, name: str) -> LibraryFunction: ...
    def _get_forward_hooks(self) -> Sequence[object]: ...
    def _get_forward_pre_hooks(self) -> Sequence[object]: ...
    def _type(self) -> LibraryType: ...
    def hasattr(self, name: str) -> bool:
        """Whether it has an attribute of that name."""

    def getattr(self, name: str) -> object:
        """That attribute."""


def load(path: Path) -> tuple[LibraryModule, tuple[LibraryFunction, ...]]:
    """The outermost module of an archive and all functions of its code, on the CPU.

    Read from a copy without the records that say where in the author's source each node stood: torch follows the offsets in
    them unchecked, so that a damaged one ends the process.
    """
    unit = torch._C.CompilationUnit()
    with TemporaryDirectory(prefix="gandissect-") as folder:
        copy = _without_source_ranges(path, Path(folder) / "archive.pt")
        root = torch._C.import_ir_module(unit, str(copy), torch.device("cpu"), {}, False)  # type: ignore[call-arg]  # stub lacks one
    functions = cast("Iterable[LibraryFunction]", unit.get_functions())
    return cast("LibraryModule", root), tuple(functions)


def _without_source_ranges(path: Path, copy: Path) -> Path:
    """A copy of the archive in which those records bear a name that torch does not look for."""
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(_SOURCE_RANGES)
        while at >= 0:
            content[at : at + len(_SOURCE_RANGES)] = _UNREAD
            at = content.find(_SOURCE_RANGES, at)
    return copy


def wrap(module: LibraryModule) -> torch.jit.ScriptModule:
    """The module as Python code calls it."""
    wrapped = torch.jit._recursive.wrap_cpp_module(module)  # type: ignore[no-untyped-call]  # torch has no annotation
    return cast("torch.jit.ScriptModule", wrapped)


def parameters(module: LibraryModule) -> Iterable[tuple[str, Tensor]]:
    """Own parameters, without those of children."""
    return cast("Iterable[tuple[str, Tensor]]", torch._C.ParameterDict(module).items())  # type: ignore[attr-defined, arg-type]  # stub


def buffers(module: LibraryModule) -> Iterable[tuple[str, Tensor]]:
    """Own buffers."""
    return cast("Iterable[tuple[str, Tensor]]", torch._C.BufferDict(module).items())  # type: ignore[attr-defined, arg-type]  # stub


def children(module: LibraryModule) -> Iterable[tuple[str, LibraryModule]]:
    """Own submodules."""
    return cast("Iterable[tuple[str, LibraryModule]]", torch._C.ModuleDict(module).items())  # type: ignore[arg-type]  # stub
