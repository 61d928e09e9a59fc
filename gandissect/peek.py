"""What is in a file, read without running anything of it.

peek("ckpt.pt").container               # "torch-zip"
peek("ckpt.pt").tensors["g_ema.main.0.weight"].shape
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from gandissect.containers import container_of, safetensors_header
from gandissect.errors import NotOpened
from gandissect.ghost import Ghost, PickleRefused, TensorRef, ghost_name, read_pickle, read_pickle_bytes

MAX_PICKLE = 2**29  # bytes of a data.pkl; tensors are not in it
_MAX_NESTING = 40
_HARMLESS = re.compile(
    r"torch\.(\w*Storage|storage\.\w*Storage|u?int\d+|b?float\w*|half|double|long|bool|complex\d+|qu?int\d+|device)"
    r"|collections\.(defaultdict|Counter)|_codecs\.encode"
    r"|torch\._utils\._rebuild_\w+|numpy\.(_?core\.multiarray\.(_reconstruct|scalar)|dtype|ndarray)"
)
_NUMBERED = re.compile(r"(\d+)")
_SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NUMPY_DTYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "u1": "uint8",
    "b1": "bool",
}
_EXPORT_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"}


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one tensor, dtype like "float32"."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Peek:
    """What a file holds, found without running anything of it.

    ``container`` is torch-zip, torch-legacy, torchscript, export, safetensors, pickle or onnx. ``tensors`` are named with
    dotted keys in file order. ``modules`` are the submodule paths that a state dict's ``_metadata`` lists, those without
    parameters included. ``globals`` are "package.Class" names in the pickle beyond torch's harmless ones. ``metadata``
    holds plain facts: ``archive`` (the stem it was saved under), ``root`` (class of the outermost object), scalars.
    """

    path: Path
    container: str
    size: int
    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the whole file."""
        digest = sha256()
        with self.path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
        return digest.hexdigest()


def peek(path: str | Path) -> Peek:
    """What is in the file at ``path``.

    Raises:
        NotOpened: missing, empty, a directory, truncated, a Git LFS pointer, a web page, text, or of no known kind.
    """
    path = Path(path).expanduser()
    container = container_of(path)
    size = path.stat().st_size
    if container == "onnx":
        return Peek(path, container, size)
    if container == "safetensors":
        return _peek_safetensors(path, size)
    if container == "export":
        return _peek_export(path, size)
    seen: dict[str, None] = {}
    facts: dict[str, str] = {}
    tree = read_tree(path, container, seen, facts)
    facts["root"] = ghost_name(tree) or type(tree).__name__
    sink = _Sink(metadata=facts)
    _walk(tree, "", sink, 0)
    named = tuple(name for name in seen if not _HARMLESS.fullmatch(name))
    return Peek(path, container, size, sink.tensors, tuple(sink.modules), named, sink.metadata)


def read_tree(path: Path, container: str, seen: dict[str, None], facts: dict[str, str]) -> object:
    """The objects of a pickle-based container, tensors as TensorRefs, unknown classes as ghosts.

    Args:
        container: torch-zip, torchscript, torch-legacy or pickle.
        seen: gets the globals that became ghosts.
        facts: gets ``archive``, the stem the file was saved under.

    Raises:
        NotOpened: the pickle is damaged or beyond the limits.
    """
    try:
        if container in ("torch-zip", "torchscript"):
            return _read_zip_pickle(path, seen, facts)
        with path.open("rb") as file:
            if container == "torch-legacy":
                skip_legacy_header(file)
            return read_pickle(file, seen)
    except PickleRefused as error:
        raise NotOpened(f"{path} cannot be read as a checkpoint: {error}; save or copy it again") from error


def skip_legacy_header(file: BinaryIO) -> None:
    """Move past the magic number, protocol and system facts of a file from before torch 1.6."""
    for _ in range(3):
        read_pickle(file)


def _read_zip_pickle(path: Path, seen: dict[str, None], facts: dict[str, str]) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(info for info in archive.infolist() if info.filename.partition("/")[2] == "data.pkl")
            if member.file_size > MAX_PICKLE:
                raise PickleRefused(f"its data.pkl claims {member.file_size:,} bytes")
            facts["archive"] = member.filename.partition("/")[0]
            pickled = archive.read(member)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise NotOpened(
            f"{path} is damaged: its data.pkl cannot be read ({error}); copy or download it again"
        ) from error
    return read_pickle_bytes(pickled, seen)


@dataclass
class _Sink:
    """Where ``_walk`` puts what it finds."""

    metadata: dict[str, str]
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    open_nodes: set[int] = field(default_factory=set)


def _join(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _walk(node: object, prefix: str, sink: _Sink, depth: int) -> None:
    """Flatten containers and ghosts into ``sink``; cycles and absurd nesting are left out."""
    spec = _spec(node)
    if spec is not None:
        sink.tensors[prefix or "tensor"] = spec
        return
    if isinstance(node, (str, int, float, bool)):
        if prefix and len(sink.metadata) < 1000:
            sink.metadata.setdefault(prefix, str(node)[:200])
        return
    if depth > _MAX_NESTING or id(node) in sink.open_nodes:
        return
    sink.open_nodes.add(id(node))
    for key, value in children(node):
        _walk(value, _join(prefix, key) if key != "" else prefix, sink, depth + 1)
    sink.open_nodes.discard(id(node))
    listed = getattr(node, "__dict__", {}).get("_metadata") if isinstance(node, dict) else None
    if isinstance(listed, dict):
        sink.modules.extend(
            _join(prefix, path) if path else prefix for path in dict.keys(listed) if isinstance(path, str)
        )


def children(node: object) -> list[tuple[object, object]]:
    """(key, value) pairs of a container or ghost; of a pickled module the parameters, buffers and submodules."""
    if isinstance(node, dict):
        return list(dict.items(node))
    if isinstance(node, (list, tuple)):
        return list(enumerate(node)) if len(node) <= 100_000 else []
    if not isinstance(node, Ghost):
        return []
    pairs = list(node.entries) + list(enumerate(node.elements))
    state = state_of(node)
    if isinstance(state, dict):
        if "_parameters" in state or "_modules" in state:
            for part in ("_parameters", "_buffers", "_modules"):
                pairs.extend(children(state.get(part)))
            state = {key: value for key, value in state.items() if not str(key).startswith("_")}
        pairs.extend(dict.items(state))
    return pairs


def state_of(ghost: Ghost) -> object:
    """The ``__dict__`` (or whatever else) that a pickle gives an object, its slots left out; None where it gives none."""
    state = ghost.state
    if state is None and len(ghost.args) == 1 and isinstance(ghost.args[0], dict):
        state = ghost.args[0].get("state")  # NVlabs' torch_utils.persistence: {"module_src": …, "state": …}
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        state = state[0]
    return state


def _spec(node: object) -> TensorSpec | None:
    if isinstance(node, TensorRef):
        return TensorSpec(node.shape, node.dtype)
    if isinstance(node, Ghost) and ghost_name(node).endswith("multiarray._reconstruct"):
        state = node.state  # ndarray.__setstate__((version, shape, dtype, fortran, bytes))
        if isinstance(state, tuple) and len(state) == 5 and isinstance(state[1], tuple):
            code = state[2].args[0] if isinstance(state[2], Ghost) and state[2].args else ""
            return TensorSpec(cast("tuple[int, ...]", state[1]), _NUMPY_DTYPES.get(str(code), str(code)))
    return None


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts ``main.2`` before ``main.12``: safetensors keeps keys sorted as text, registration order is lost."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _NUMBERED.split(name) if part]


def _peek_safetensors(path: Path, size: int) -> Peek:
    header = safetensors_header(path)
    facts = {str(key): str(value)[:200] for key, value in header.pop("__metadata__", {}).items()}
    tensors = {
        name: TensorSpec(
            tuple(int(extent) for extent in cast("list[int]", header[name]["shape"])),
            _SAFETENSORS_DTYPES.get(str(header[name].get("dtype")), str(header[name].get("dtype"))),
        )
        for name in sorted(header, key=natural_key)
    }
    return Peek(path, "safetensors", size, tensors, metadata=facts | {"root": "dict"})


def _peek_export(path: Path, size: int) -> Peek:
    """Weights listed by torch.export.save of torch 2.9 or later (``data/weights/*_weights_config.json``)."""
    tensors: dict[str, TensorSpec] = {}
    facts: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                facts.setdefault("archive", name.partition("/")[0])
                if name.endswith("_weights_config.json") and archive.getinfo(name).file_size < MAX_PICKLE:
                    config = json.loads(archive.read(name)).get("config", {})
                    tensors.update({key: _export_spec(entry) for key, entry in config.items()})
    except (zipfile.BadZipFile, OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise NotOpened(f"{path} is a damaged torch.export archive ({error}); save or copy it again") from error
    return Peek(path, "export", size, tensors, metadata=facts | {"root": "ExportedProgram"})


def _export_spec(entry: Mapping[str, Mapping[str, object]]) -> TensorSpec:
    meta = entry["tensor_meta"]
    sizes = cast("list[dict[str, int]]", meta["sizes"])
    code = cast("int", meta["dtype"])
    return TensorSpec(tuple(int(size.get("as_int", -1)) for size in sizes), _EXPORT_DTYPES.get(code, str(code)))
