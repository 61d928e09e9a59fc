"""TorchScript archives as modules whose layers can be read and edited.

    graph = read(Path("gan.ts"))         # refuses what could do more than compute, before any of it runs
    graph.module(z)                      # equals graph.original(z)

What loading an archive runs: objects of classes that define ``__setstate__`` call it while ``torch.jit.load`` unpickles
them, and custom C++ classes do the same. Both are looked for in the archive's text, read with the same zip reader, before
it is loaded. Nothing else of the code runs on load; the operators of every graph are checked before the first call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect_adapters.graph import library
from gandissect_adapters.graph.compiler import Compiler, Seen
from gandissect_adapters.graph.engine import Interpreted, Shared, new_interpreted
from gandissect_adapters.graph.graph import Argument, Graph, baked_numbers, first_line
from gandissect_adapters.graph.library import LibraryFunction, LibraryModule
from gandissect_adapters.graph.operators import refuse_impure


def refuse_code_on_load(path: Path) -> None:
    """Nothing, or the error that says which part of the archive would run while it is loaded."""
    try:
        reader = torch._C.PyTorchFileReader(str(path))
        records = reader.get_all_records()
    except RuntimeError as error:
        raise NotOpened(f"{path.name} is damaged or cut short: its zip directory cannot be read") from error
    if len(set(records)) != len(records):
        raise UnsafeCheckpoint(
            f"{path.name} holds two records of the same name; no such file is written by torch.jit.save"
        )
    for record in records:
        if record.endswith(".py"):
            text = reader.get_record(record)
            for token in (b"__setstate__", b"torch.classes"):
                if token in text:
                    raise UnsafeCheckpoint(
                        f"{path.name} defines {token.decode()} in {record}, which would run while the file is loaded; "
                        "pass --trust to allow it"
                    )


def read(path: Path) -> Graph:
    """The archive as a module; nothing of it has run when this returns.

    Raises:
        NotOpened: it is damaged or has no forward.
        UnsafeCheckpoint: it could do more than compute.
    """
    refuse_code_on_load(path)
    try:
        root, functions = library.load(path)
    except RuntimeError as error:
        raise NotOpened(f"{path.name} is no readable TorchScript archive: {first_line(error)}") from error
    if not root._has_method("forward"):
        raise NotOpened(f"{path.name} is a TorchScript archive without a forward method")
    module = _Reader(functions, path.name).module(root)
    schema = root._get_method("forward").schema.arguments[1:]
    arguments = tuple(Argument(a.name, str(a.type), a.has_default_value()) for a in schema)
    original = library.wrap(root).eval()
    return Graph(module, path.name, original, arguments, baked_numbers(module))


@dataclass
class _Reader:
    """Turns the library's objects into modules and programs."""

    functions: tuple[LibraryFunction, ...]
    file: str
    shared: Shared = field(default_factory=Shared)
    parameters: dict[tuple[object, ...], nn.Parameter] = field(default_factory=dict)

    def module(self, root: LibraryModule) -> Interpreted:
        """The module that stands for ``root``, with all its programs."""
        pairs: list[tuple[Interpreted, LibraryModule]] = []
        top = self._mirror(root, pairs, is_root=True)
        seen = Seen(self.functions)
        done: set[tuple[int, str]] = set()
        while True:
            work = [(mirror, cpp, name) for mirror, cpp in pairs for name in sorted(seen.methods)
                    if (id(mirror), name) not in done and cpp._has_method(name)]  # fmt: skip
            if not work:
                break
            for mirror, cpp, name in work:
                done.add((id(mirror), name))
                mirror.graph_programs[name] = Compiler(seen, mirror, _is_own(cpp, mirror)).callable(
                    cpp._get_method(name)
                )
        refuse_impure(seen.ops, self.file, "pass --trust to run the file as it is, without layers")
        for mirror, cpp in pairs:
            self._plain_values(mirror, cpp, seen.attributes)
        return top

    def _mirror(
        self, cpp: LibraryModule, pairs: list[tuple[Interpreted, LibraryModule]], *, is_root: bool = False
    ) -> Interpreted:
        if cpp._get_forward_hooks() or cpp._get_forward_pre_hooks():
            raise UnsafeCheckpoint(
                f"{self.file} holds forward hooks of its own; pass --trust to run it as it is, without layers"
            )
        mirror = new_interpreted(cpp._type().name(), self.shared, is_root=is_root)
        pairs.append((mirror, cpp))
        for name, tensor in library.parameters(cpp):
            mirror.register_parameter(name, self._parameter(tensor))
        for name, tensor in library.buffers(cpp):
            mirror.register_buffer(name, tensor.detach())
        for name, child in library.children(cpp):
            mirror.add_module(name, self._mirror(child, pairs))
        return mirror

    def _parameter(self, tensor: Tensor) -> nn.Parameter:
        """One Parameter per stored tensor, so that a weight used twice counts once."""
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in self.parameters:
            trainable = tensor.requires_grad and (tensor.is_floating_point() or tensor.is_complex())
            self.parameters[key] = nn.Parameter(tensor.detach(), requires_grad=trainable)
        return self.parameters[key]

    def _plain_values(self, mirror: Interpreted, cpp: LibraryModule, names: set[str]) -> None:
        known = {*mirror._parameters, *mirror._buffers, *mirror._modules}
        for name in sorted(names - known - {"training"}):
            if cpp.hasattr(name):
                value = cpp.getattr(name)
                if isinstance(value, Tensor):
                    mirror.register_buffer(name, value.detach(), persistent=False)
                else:
                    mirror.graph_values[name] = value


def _is_own(cpp: LibraryModule, mirror: Interpreted) -> bool:
    """Whether operators between the calls of children deserve layers: not in torch's own classes, nor in leaf modules."""
    library = cpp._type().qualified_name().startswith("__torch__.torch.nn.modules.")
    return mirror.graph_is_root or (not library and bool(mirror._modules))
