"""What is in a file, read without running anything of it.

peek("ckpt.pt").container               # "torch-zip"
peek("ckpt.pt").tensors["g_ema.main.0.weight"].shape
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import cast

from gandissect.errors import NotOpened
from gandissect.files.archives import DAMAGED, member_bytes, open_zip
from gandissect.files.containers import MAX_HEADER, container_of, safetensors_header
from gandissect.files.ghost import Ghost, TensorRef, Unpickled, array_ref, check_order, ghost_name, read_buffer
from gandissect.files.locating import Located, located
from gandissect.files.opcodes import PickleRefused

MAX_PICKLE = 2**28  # bytes of a data.pkl; tensors are not in it
MAX_NESTING = 40
MAX_OBJECTS = 500_000  # met on a walk; a list that holds itself twice, forty times over, would never end
MAX_TENSORS = 100_000
MAX_PATH = 1_000  # characters of a dotted name
_HARMLESS = re.compile(
    r"torch\.(\w*Storage|storage\.\w*Storage|u?int\d+|b?float\w*|half|double|long|bool|complex\d+|qu?int\d+|device)"
    r"|collections\.(defaultdict|Counter)|_codecs\.encode"
    r"|torch\._utils\._rebuild_\w+|numpy\.(_?core\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)|dtype|ndarray)"
)
_PLAIN = {int, float, bool, str, type(None)}
_NUMBERED = re.compile(r"(\d+)")
SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip
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
    parts: tuple[Path, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the whole file (the archive, where it is in one), or of its parts one after the other."""
        digest = sha256()
        for path in self.parts or (self.path,):
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()


def peek(path: str | Path) -> Peek:
    """What is in the file at ``path``; a folder or archive with one checkpoint in it, or ``archive.zip::member``, is looked into.

    Raises:
        NotOpened: missing, empty, truncated, a Git LFS pointer, a web page, text, of no known kind, or several to choose from.
    """
    with located(path) as found:
        if found.shards:
            return _peek_shards(found)
        container = container_of(found.file)
        if found.wrapped and container in ("torchscript", "export", "onnx"):
            raise NotOpened(f"{found.path} is a {container} file in an archive; unpack it and pass it directly")
        size = found.outer.stat().st_size
        if container == "onnx":
            return Peek(found.path, container, size)
        if container == "safetensors":
            tensors, facts = _safetensors(found.file)
            return Peek(found.path, container, size, tensors, metadata=facts, parts=(found.outer,))
        if container == "export":
            return _peek_export(found.file, size)
        return _peek_pickle(found, container, size)


def _peek_pickle(found: Located, container: str, size: int) -> Peek:
    facts: dict[str, str] = {}
    read = unpickle(found.file, container, facts)
    facts["root"] = ghost_name(read.root) or type(read.root).__name__
    sink = _Sink(found.file, facts)
    try:
        _walk(read.root, "", sink, 0)
    except PickleRefused as error:
        raise NotOpened(f"{found.file} cannot be read as a checkpoint: {error}") from error
    named = tuple(name for name in read.seen if not _HARMLESS.fullmatch(name))
    return Peek(
        found.path, container, size, sink.tensors, tuple(sink.modules), named, sink.metadata, (found.outer,)
    )  # fmt: skip


def _peek_shards(found: Located) -> Peek:
    """The parts' tensors together."""
    parts = [peek(shard) for shard in found.shards]
    tensors = {name: spec for part in parts for name, spec in part.tensors.items()}
    ordered = {name: tensors[name] for name in sorted(tensors, key=natural_key)}
    size = sum(part.size for part in parts)
    facts = {"root": "dict", "parts": str(len(parts))}
    named = tuple(dict.fromkeys(name for part in parts for name in part.globals))
    return Peek(found.path, parts[0].container, size, ordered, globals=named, metadata=facts, parts=found.shards)


def unpickle(path: Path, container: str, facts: dict[str, str] | None = None) -> Unpickled:
    """The objects of a pickle-based container, tensors as TensorRefs, unknown classes as ghosts; ``end`` is where they end.

    Args:
        container: torch-zip, torchscript, torch-legacy or pickle.
        facts: gets ``archive``, the stem the file was saved under.

    Raises:
        NotOpened: the pickle is damaged or beyond the limits.
    """
    try:
        if container in ("torch-zip", "torchscript"):
            return _read_zip_pickle(path, {} if facts is None else facts)
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 0
        for part in range(3 if container == "torch-legacy" else 0):  # magic number, protocol, system facts
            read = read_buffer(data, start)
            start = read.end
            if part == 2:
                check_order(read.root)
        return read_buffer(data, start)
    except PickleRefused as error:
        raise NotOpened(f"{path} cannot be read as a checkpoint: {error}; save or copy it again") from error


def _read_zip_pickle(path: Path, facts: dict[str, str]) -> Unpickled:
    with open_zip(path) as archive:
        members = archive.infolist()
        member = next(info for info in members if info.filename.partition("/")[2] == "data.pkl")
        facts["archive"] = stem = member.filename.partition("/")[0]
        order = next((info for info in members if info.filename == f"{stem}/byteorder"), None)
        if order is not None and member_bytes(archive, order, 100).strip() == b"big":
            raise NotOpened(f"{path} was saved on a big-endian machine; load it there and save it as safetensors")
        pickled = member_bytes(archive, member, MAX_PICKLE)
    return read_buffer(pickled)


@dataclass
class _Sink:
    """Where ``_walk`` puts what it finds."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    open_nodes: set[int] = field(default_factory=set)
    met: int = 0


def join(prefix: str, key: object) -> str:
    """A dotted name.

    Raises:
        PickleRefused: absurdly long.
    """
    text = key_text(key)
    name = f"{prefix}.{text}" if prefix else text
    if len(name) > MAX_PATH:
        raise PickleRefused(f"it holds a name of over {MAX_PATH:,} characters ({name[:40]!r} …)")
    return name


def key_text(key: object) -> str:
    """A mapping's key as text; of classes and objects their class name."""
    if isinstance(key, str):
        return key
    if isinstance(key, (tuple, frozenset)) and (len(key) > 10 or not all(map(_is_short, key))):
        return type(key).__name__
    if key is None or isinstance(key, (int, float, tuple, frozenset)) or _is_short(key):
        return str(key)
    return ghost_name(key) or type(key).__name__


def _is_short(value: object) -> bool:
    return value is None or isinstance(value, (int, float)) or (isinstance(value, (str, bytes)) and len(value) <= 100)


def _walk(node: object, prefix: str, sink: _Sink, depth: int) -> None:
    """Flatten containers and ghosts into ``sink``; cycles and absurd nesting are left out."""
    sink.met += 1 + breadth(node)
    if sink.met > MAX_OBJECTS:
        raise PickleRefused(f"it holds over {MAX_OBJECTS:,} objects, or the same ones over and over")
    spec = _spec(node)
    if spec is not None:
        sink.tensors[prefix or "tensor"] = spec
        if len(sink.tensors) > MAX_TENSORS:
            raise PickleRefused(f"it holds over {MAX_TENSORS:,} tensors")
        return
    if isinstance(node, (str, int, float, bool)):
        if prefix and len(sink.metadata) < 1000:
            sink.metadata.setdefault(prefix, str(node)[:200])
        return
    if depth > MAX_NESTING or id(node) in sink.open_nodes or is_history(node):
        return
    sink.open_nodes.add(id(node))
    for key, value in children(node):
        _walk(value, join(prefix, key) if key != "" else prefix, sink, depth + 1)
    sink.open_nodes.discard(id(node))
    sink.modules.extend(
        join(prefix, path) if path else prefix for path in listed_modules(node) if isinstance(path, str)
    )


def is_history(node: object) -> bool:
    """Whether it is a long list of plain values, such as the losses of every step."""
    return isinstance(node, (list, tuple)) and len(node) > 100 and {type(item) for item in node} <= _PLAIN


def breadth(node: object) -> int:
    """How many entries are looked through for what is under ``node``."""
    if isinstance(node, dict):
        return len(node) + len(listed_modules(node))
    if isinstance(node, (list, tuple)):
        return len(node) // 20
    if not isinstance(node, Ghost):
        return 0
    state = state_of(node)
    return len(node.entries) + len(node.elements) + (len(state) if isinstance(state, (dict, tuple)) else 0)


def listed_modules(node: object) -> dict[object, object]:
    """A state dict's ``_metadata``, whose keys are the paths of its submodules; nothing for anything else."""
    listed = getattr(node, "__dict__", {}).get("_metadata") if isinstance(node, dict) else None
    return listed if isinstance(listed, dict) else {}


def children(node: object) -> list[tuple[object, object]]:
    """(key, value) pairs of a container or ghost; of a pickled module the parameters, buffers and submodules."""
    if isinstance(node, dict):
        return list(dict.items(node))
    if isinstance(node, (list, tuple)):
        return list(enumerate(node)) if len(node) <= 100_000 else []
    if not isinstance(node, Ghost):
        return []
    pairs = list(node.entries) + list(enumerate(node.elements))
    if len(node.args) == 1 and isinstance(node.args[0], dict) and ghost_name(node) == "collections.Counter":
        pairs.extend(dict.items(node.args[0]))
    state = state_of(node)
    if isinstance(state, dict):
        if "_parameters" in state or "_modules" in state:
            for part in ("_parameters", "_buffers", "_modules"):
                pairs.extend(children(state.get(part)))
            state = {key: value for key, value in dict.items(state) if not key_text(key).startswith("_")}
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
    ref = node if isinstance(node, TensorRef) else array_ref(node) if isinstance(node, Ghost) else None
    return None if ref is None else TensorSpec(ref.shape, ref.dtype)


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts ``main.2`` before ``main.12``: safetensors keeps keys sorted as text, registration order is lost."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in _NUMBERED.split(name) if part]


def _safetensors(path: Path) -> tuple[dict[str, TensorSpec], dict[str, str]]:
    header, _start = safetensors_header(path)
    facts = {str(key)[:MAX_PATH]: str(value)[:200] for key, value in list(header.pop("__metadata__").items())[:1000]}
    if long := next((name for name in header if len(name) > MAX_PATH), None):
        raise NotOpened(
            f"{path} cannot be read as a checkpoint: it holds a name of over {MAX_PATH:,} characters ({long[:40]!r} …)"
        )
    tensors = {
        name: TensorSpec(
            tuple(cast("list[int]", header[name]["shape"])),
            SAFETENSORS_DTYPES.get(str(header[name].get("dtype")), str(header[name].get("dtype"))[:20]),
        )
        for name in sorted(header, key=natural_key)
    }
    return tensors, facts | {"root": "dict"}


def _peek_export(path: Path, size: int) -> Peek:
    """Weights listed by torch.export.save of torch 2.9 or later (``data/weights/*_weights_config.json``)."""
    tensors: dict[str, TensorSpec] = {}
    facts: dict[str, str] = {}
    try:
        with open_zip(path) as archive:
            for member in archive.infolist():
                facts.setdefault("archive", member.filename.partition("/")[0])
                if member.filename.endswith(".json") and member.file_size > 2 * MAX_HEADER:
                    raise NotOpened(
                        f"{path} holds {member.file_size:,} bytes of JSON in one piece; no exported network does"
                    )
                if member.filename.endswith("_weights_config.json"):
                    config = json.loads(member_bytes(archive, member, MAX_HEADER)).get("config", {})
                    tensors.update({join("", key): _export_spec(entry) for key, entry in config.items()})
    except PickleRefused as error:
        raise NotOpened(f"{path} cannot be read as a checkpoint: {error}") from error
    except NotOpened:
        raise
    except DAMAGED as error:
        raise NotOpened(f"{path} is a damaged torch.export archive ({error}); save or copy it again") from error
    return Peek(path, "export", size, tensors, metadata=facts | {"root": "ExportedProgram"})


def _export_spec(entry: Mapping[str, Mapping[str, object]]) -> TensorSpec:
    meta = entry["tensor_meta"]
    sizes = cast("list[dict[str, int]]", meta["sizes"])
    code = cast("int", meta["dtype"])
    return TensorSpec(tuple(int(size.get("as_int", -1)) for size in sizes), _EXPORT_DTYPES.get(code, str(code)))
