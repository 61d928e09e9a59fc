"""Tensors out of a checkpoint, without running anything of it.

tree = read_tensors(Path("ckpt.pt"))
tree["g_ema"]["conv.weight"]            # a torch.Tensor on the CPU
tree["config"]                          # the table in config.json beside it, where there is one
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from copy import copy
from math import prod
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZipInfo

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.files.archives import member_bytes, open_zip, stored_at
from gandissect.files.containers import container_of, safetensors_header
from gandissect.files.ghost import (
    SIZES,
    Ghost,
    StorageRef,
    TensorRef,
    Unpickled,
    array_ref,
    ghost_name,
    read_buffer,
    row_strides,
)  # fmt: skip
from gandissect.files.locating import Located, located
from gandissect.files.opcodes import PickleRefused
from gandissect.files.peek import (
    MAX_NESTING,
    MAX_OBJECTS,
    MAX_PATH,
    MAX_TENSORS,
    SAFETENSORS_DTYPES,
    breadth,
    children,
    is_history,
    key_text,
    listed_modules,
    natural_key,
    unpickle,
)  # fmt: skip
from gandissect.files.records import Budget, is_module, plain, read_module

MAX_SHARED = 20  # bytes of all tensors over bytes of the file: views of one storage and expanded tensors take none
_SLACK = 2**26
_CHUNK = 2**24
_UNREAD = {"_rebuild_qtensor": "quantised", "_rebuild_sparse_tensor": "sparse", "_rebuild_nested_tensor": "nested"}


def read_tensors(path: Path, container: str | None = None) -> dict[str, object]:
    """The file's mapping, nested as it was saved, with real tensors; ``_metadata`` stays on its state dicts.

    It is what ``torch.load(weights_only=True)`` gives, wherever that gives anything, with parameters as plain tensors. An object
    of a class that would have to be imported (an argparse.Namespace, a config) becomes a dict of its attributes; it is never
    built. A pickled module is read as its state dict (``records.PickledModule``), a NumPy array as a tensor. Tensors of an
    uncompressed file share its memory until they are written to. A JSON table beside the file is under "config", unless the
    file has that key.

    Args:
        path: a file, a folder or archive with one checkpoint, or ``archive::member``.
        container: what ``peek`` found, so that it is not looked for again.

    Raises:
        NotOpened: damaged, or no mapping of tensors.
        UnsafeCheckpoint: tensors hidden behind code that would have to run.
    """
    with located(path) as found:
        tree = _read_shards(found) if found.shards else _read(found.file, container or container_of(found.file))
        if not isinstance(tree, dict) or isinstance(tree, Pickled):
            raise UnsafeCheckpoint(
                f"{found.path} holds a pickled object, not a state dict, and building it would run code; "
                "save `net.state_dict()` instead, or pass --trust if you trust where it comes from"
            )
        if found.config is not None:
            tree.setdefault("config", found.config)
        return cast("dict[str, object]", tree)


def _read(path: Path, container: str) -> object:
    if container == "safetensors":
        return _read_safetensors(path)
    if container not in ("torch-zip", "torch-legacy", "pickle"):
        raise NotOpened(f"{path} is a {container} file, not a state dict; open it without --adapter state-dict")
    read = unpickle(path, container)
    kinds = {"torch-zip": _ZipStorages, "torch-legacy": _LegacyStorages}
    storages = kinds.get(container, _Storages)(path, read)
    try:
        return _Materialiser(storages).made(read.root, 0)
    except PickleRefused as error:
        raise NotOpened(f"{path} cannot be read as a checkpoint: {error}; save or copy it again") from error


def _read_shards(found: Located) -> dict[str, object]:
    tensors: dict[str, object] = {}
    for shard in found.shards:
        part = _read(shard, container_of(shard))
        if not isinstance(part, dict):
            raise NotOpened(f"{shard} is one part of a checkpoint but holds no mapping of tensors; download it again")
        tensors |= part
    return {name: tensors[name] for name in sorted(tensors, key=natural_key)}


def _read_safetensors(path: Path) -> dict[str, object]:
    header, start = safetensors_header(path)
    header.pop("__metadata__")
    storages = _Storages(path)
    tensors: dict[str, object] = {}
    for name in sorted(header, key=natural_key):
        shape = tuple(cast("list[int]", header[name]["shape"]))
        first, end = cast("list[int]", header[name]["data_offsets"])
        dtype = SAFETENSORS_DTYPES.get(str(header[name].get("dtype")), "")
        if dtype not in SIZES or prod(shape) * SIZES[dtype] != end - first:
            raise NotOpened(f"{path} is damaged: {name[:100]!r} does not fit its bytes; copy or save it again")
        storage = StorageRef(dtype, str(first), prod(shape))
        storages.loaded[storage.key] = storages.at(start + first, end - first, SIZES[dtype])
        tensors[name] = storages.tensor(TensorRef(storage, 0, shape, row_strides(shape), dtype))
    return tensors


class _Storages:
    """Bytes behind a file's StorageRefs; a plain pickle carries them inline."""

    def __init__(self, path: Path, read: Unpickled | None = None) -> None:
        self.path, self.read, self.size = path, read, path.stat().st_size
        self.loaded: dict[str, Tensor] = {}
        self._inline: dict[StorageRef, Tensor] = {}
        self.left = MAX_SHARED * self.size + _SLACK
        self._whole: Tensor | None = None

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor that ``ref`` describes, once its storage is known to be large enough."""
        storage = ref.storage
        dtype = getattr(torch, ref.dtype, None)
        if ref.dtype not in SIZES or not isinstance(dtype, torch.dtype) or len(ref.shape) != len(ref.stride):
            raise self.damaged(f"a tensor of a kind that is not read ({ref.dtype[:40]!r})")
        size = SIZES[ref.dtype]
        flat = self._bytes(storage)
        held = len(flat) // size
        reach = storage.start + ref.offset
        reach += sum((extent - 1) * step for extent, step in zip(ref.shape, ref.stride, strict=True)) + 1
        if 0 not in ref.shape and (ref.offset < 0 or reach > held):
            raise self.damaged("a tensor reaches beyond its storage")
        self.left -= prod(ref.shape) * size
        if self.left < 0:
            raise self.damaged(f"its tensors have over {MAX_SHARED} times the numbers that are in it")
        if 0 in ref.shape:
            return torch.empty(tuple(min(extent, 2**20) for extent in ref.shape), dtype=dtype)
        if flat.storage_offset() % size:  # another tensor reads the same storage as smaller numbers
            flat = flat.clone()
        typed = flat[: held * size].view(dtype)
        return typed.as_strided(ref.shape, ref.stride, typed.storage_offset() + storage.start + ref.offset)

    def _bytes(self, storage: StorageRef) -> Tensor:
        """uint8 [bytes] of a storage, aligned for its dtype."""
        if storage.raw is not None:
            if storage not in self._inline:
                self._inline[storage] = _copied(storage.raw)
            return self._inline[storage]
        if storage.key not in self.loaded:
            self.loaded[storage.key] = self.load(storage)
        return self.loaded[storage.key]

    def load(self, storage: StorageRef) -> Tensor:
        """uint8 [bytes] of one storage that is not inline."""
        raise self.damaged(f"storage {storage.key[:40]!r} is not in the file")

    def at(self, start: int, size: int, align: int) -> Tensor:
        """uint8 [size] of the file from ``start``: its own pages where they are aligned, else a copy."""
        if start + size > self.size:
            raise self.damaged("its last tensors are missing")
        if size == 0:
            return torch.empty(0, dtype=torch.uint8)
        if start % align == 0:
            if self._whole is None:
                held = cast("torch.UntypedStorage", torch.UntypedStorage.from_file(str(self.path), False, self.size))
                self._whole = torch.empty(0, dtype=torch.uint8).set_(held)
            return self._whole[start : start + size]
        made = torch.empty(size, dtype=torch.uint8)
        with self.path.open("rb") as file:
            file.seek(start)
            if cast("BinaryIO", file).readinto(made.numpy()) != size:  # type: ignore[attr-defined]  # a buffered reader has it
                raise self.damaged("its last tensors are missing")
        return made

    def damaged(self, why: str) -> NotOpened:
        """The error for a file whose tensors are not all there."""
        return NotOpened(f"{self.path} is damaged: {why}; copy or download it again")


def _copied(raw: bytes | memoryview) -> Tensor:
    """The bytes in memory of their own; pages of a mapped file are let go of on the way, so that they are not held twice."""
    made = torch.empty(len(raw), dtype=torch.uint8)
    for start in range(0, len(raw), _CHUNK):
        made.numpy()[start : start + _CHUNK] = np.frombuffer(raw[start : start + _CHUNK], np.uint8)
        if isinstance(raw, memoryview) and isinstance(raw.obj, mmap.mmap) and len(raw) > _CHUNK // 64:
            raw.obj.madvise(mmap.MADV_DONTNEED)
    return made


class _ZipStorages(_Storages):
    """Records ``data/<key>`` of a torch zip; torch aligns them to 64 bytes and leaves them uncompressed."""

    def __init__(self, path: Path, read: Unpickled | None = None) -> None:
        super().__init__(path, read)
        with open_zip(path) as archive:
            stem = next(n.partition("/")[0] for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
            self._members: dict[str, ZipInfo] = {
                info.filename.removeprefix(f"{stem}/data/"): info
                for info in archive.infolist()
                if info.filename.startswith(f"{stem}/data/")
            }

    def load(self, storage: StorageRef) -> Tensor:
        size = storage.numel * SIZES.get(storage.dtype, 1)
        member = self._members.get(storage.key)
        if member is None or member.file_size < size:
            raise self.damaged(f"storage {storage.key[:40]!r} is not all there")
        with self.path.open("rb") as file:
            start = stored_at(file, member, self.size)
        if start is not None:
            return self.at(start, size, SIZES.get(storage.dtype, 1))
        with open_zip(self.path) as archive:
            return _copied(member_bytes(archive, member, member.file_size))[:size]


class _LegacyStorages(_Storages):
    """After the pickles of a legacy file: a list of keys, then for each its element count (int64) and its bytes."""

    def __init__(self, path: Path, read: Unpickled | None = None) -> None:
        super().__init__(path, read)
        assert read is not None
        self._places: dict[str, tuple[int, int]] = {}
        with path.open("rb") as file:
            file.seek(read.end)
            keys = self._keys(file)
            for key in keys if isinstance(keys, list) else []:
                count = int.from_bytes(file.read(8), "little")
                known = read.storages.get(str(key))
                size = count * (SIZES.get(known.dtype, 1) if known else 1)
                if known is None or file.tell() + size > self.size:
                    raise self.damaged("its last tensors are missing")
                self._places[str(key)] = file.tell(), size
                file.seek(size, 1)

    def _keys(self, file: BinaryIO) -> object:
        start = file.tell()
        head = file.read(2**24)
        try:
            read = read_buffer(head)
        except PickleRefused as error:
            raise self.damaged(str(error)) from error
        file.seek(start + read.end)
        return read.root

    def load(self, storage: StorageRef) -> Tensor:
        if storage.key not in self._places:
            raise self.damaged(f"storage {storage.key[:40]!r} is not in the file")
        return self.at(*self._places[storage.key], SIZES.get(storage.dtype, 1))


class _Materialiser:
    """Turns references into tensors and ghosts into dicts of their attributes."""

    def __init__(self, storages: _Storages) -> None:
        self.storages = storages
        self.open_nodes: set[int] = set()
        self.met = self.tensors = 0

    def made(self, node: object, depth: int) -> object:
        """What stands for ``node`` in the mapping; None in place of cycles and of what is nested absurdly."""
        self.met += 1 + breadth(node)
        if self.met > MAX_OBJECTS:
            raise PickleRefused(f"it holds over {MAX_OBJECTS:,} objects, or the same ones over and over")
        if node is None or isinstance(node, (bool, int, float, complex, str, bytes)):
            return node
        if isinstance(node, TensorRef):
            return self._tensor(node)
        if depth > MAX_NESTING or id(node) in self.open_nodes:
            return None
        self.open_nodes.add(id(node))
        made = self._ghost(node, depth) if isinstance(node, Ghost) else self._container(node, depth)
        self.open_nodes.discard(id(node))
        return made

    def _tensor(self, ref: TensorRef) -> Tensor:
        self.tensors += 1
        if self.tensors > MAX_TENSORS:
            raise PickleRefused(f"it holds over {MAX_TENSORS:,} tensors")
        return self.storages.tensor(ref)

    def _container(self, node: object, depth: int) -> object:
        if isinstance(node, dict):
            pairs = ((_key(key), self.made(value, depth + 1)) for key, value in dict.items(node))
            if not isinstance(node, OrderedDict):
                return dict(pairs)
            made = OrderedDict(pairs)
            if "_metadata" in node.__dict__:
                made.__dict__["_metadata"] = listed_modules(node)
            return made
        if is_history(node):
            return copy(node)
        if isinstance(node, (list, tuple)):
            values = [self.made(value, depth + 1) for value in node]
            return values if isinstance(node, list) else tuple(values)
        if isinstance(node, (set, frozenset)):
            return {item for item in node if item is None or isinstance(item, (str, bytes, int, float))}
        return ghost_name(node) or None  # a class is its name; storages and functions are nothing

    def _ghost(self, node: Ghost, depth: int) -> object:
        name = ghost_name(node)
        for ending, kind in _UNREAD.items():
            if name.endswith(ending):
                raise PickleRefused(f"it holds {kind} tensors, which are not read; save the network with ordinary ones")
        if is_module(node):
            return read_module(node, self._tensor)
        if name.endswith("multiarray.scalar"):
            return plain(node, Budget())
        array = array_ref(node)
        if array is not None:
            return self._tensor(array)
        return Pickled((key_text(key)[:MAX_PATH], self.made(value, depth + 1)) for key, value in children(node))


def _key(key: object) -> object:
    """A mapping's key; of classes and objects, their class name."""
    if isinstance(key, str) and len(key) > MAX_PATH:
        raise PickleRefused(f"it holds a name of over {MAX_PATH:,} characters ({key[:40]!r} …)")
    return key if key is None or isinstance(key, (str, int, float, bytes)) else key_text(key)


class Pickled(OrderedDict[str, object]):
    """The attributes of an object whose class was not built."""
