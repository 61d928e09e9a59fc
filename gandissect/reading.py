"""Tensors out of a checkpoint, without running anything of it.

tree = read_tensors(Path("ckpt.pt"))
tree["g_ema"]["conv.weight"]            # a torch.Tensor on the CPU
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from gandissect.containers import container_of
from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.ghost import Ghost, PickleRefused, StorageRef, TensorRef, ghost_name, read_pickle
from gandissect.peek import children, natural_key, read_tree, skip_legacy_header
from gandissect.records import is_module, plain, read_module

_MAX_NESTING = 40


def read_tensors(path: Path, container: str | None = None) -> dict[str, object]:
    """The file's mapping, nested as it was saved, with real tensors; ``_metadata`` stays on its state dicts.

    torch's own reader is asked first (``weights_only=True``). Where it refuses because of a class it does not know (an
    argparse.Namespace, a config object), that object is read as a plain dict of its attributes; it is never built. A pickled
    module is read as its state dict (``records.PickledModule``).

    Raises:
        NotOpened: damaged, or no mapping of tensors.
        UnsafeCheckpoint: tensors hidden behind code that would have to run.
    """
    container = container or container_of(path)
    if container == "safetensors":
        return _read_safetensors(path)
    if container not in ("torch-zip", "torch-legacy", "pickle"):
        raise NotOpened(f"{path} is a {container} file, not a state dict; open it without --adapter state-dict")
    tree: object = None
    if container != "pickle":
        try:
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=container == "torch-zip")
        except Exception:  # torch raises many kinds; the ghost reader below says what is wrong
            tree = None
    if not isinstance(tree, dict):
        tree = _read_ghostly(path, container)
    if not isinstance(tree, dict) or isinstance(tree, Pickled):
        raise UnsafeCheckpoint(
            f"{path} holds a pickled object, not a state dict, and building it would run code; "
            "save `net.state_dict()` instead, or pass --trust if you trust where it comes from"
        )
    return cast("dict[str, object]", tree)


def _read_safetensors(path: Path) -> dict[str, object]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise NotOpened(f"{path} is a safetensors file; type: pip install safetensors") from error
    try:
        loaded = load_file(str(path))
    except Exception as error:  # safetensors_rust.SafetensorError is private
        raise NotOpened(f"{path} is a damaged safetensors file ({error}); copy or save it again") from error
    return {name: loaded[name] for name in sorted(loaded, key=natural_key)}


def _read_ghostly(path: Path, container: str) -> object:
    """The tree with tensors, ghosts turned into dicts of their attributes."""
    tree = read_tree(path, container, {}, {})
    if container == "torch-zip":
        storages: _Storages = _ZipStorages(path)
    elif container == "torch-legacy":
        storages = _LegacyStorages(path)
    else:
        storages = _Storages(path)
    return _materialise(tree, storages, 0)


class _Storages:
    """Bytes behind a file's StorageRefs; a plain pickle has none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loaded: dict[str, Tensor] = {}

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor that ``ref`` describes, once its storage is known to be large enough."""
        flat = self.loaded.get(ref.storage.key)
        if ref.storage.raw is not None:
            flat = _bytes_to_tensor(ref.storage.raw)
        elif flat is None:
            flat = self.loaded[ref.storage.key] = self.load(ref.storage)
        dtype = getattr(torch, ref.dtype, None)
        if not isinstance(dtype, torch.dtype) or len(ref.shape) != len(ref.stride):
            raise self.damaged(f"a tensor of unknown kind {ref.dtype!r}")
        flat = flat.view(dtype)
        reach = ref.offset + sum((extent - 1) * step for extent, step in zip(ref.shape, ref.stride, strict=True)) + 1
        if 0 not in ref.shape and (ref.offset < 0 or reach > flat.numel()):
            raise self.damaged("a tensor reaches beyond its storage")
        return flat.as_strided(ref.shape, ref.stride, ref.offset)

    def load(self, ref: StorageRef) -> Tensor:
        """uint8 [bytes] of one storage."""
        raise self.damaged(f"storage {ref.key} is not in the file")

    def damaged(self, why: str) -> NotOpened:
        """The error for a file whose tensors are not all there."""
        return NotOpened(f"{self.path} is damaged: {why}; copy or download it again")


def _bytes_to_tensor(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)


class _ZipStorages(_Storages):
    def load(self, ref: StorageRef) -> Tensor:
        try:
            with zipfile.ZipFile(self.path) as archive:
                stem = archive.namelist()[0].partition("/")[0]
                return _bytes_to_tensor(archive.read(f"{stem}/data/{ref.key}"))
        except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
            raise self.damaged(f"storage {ref.key} cannot be read ({error})") from error


class _LegacyStorages(_Storages):
    """After the pickles of a legacy file: a list of keys, then for each its element count (int64) and its bytes."""

    def load(self, ref: StorageRef) -> Tensor:
        if not self.loaded:
            self._index()
        if ref.key not in self._places:
            raise self.damaged(f"storage {ref.key} is not in the file")
        itemsize = torch.empty(0, dtype=getattr(torch, ref.dtype)).element_size()
        return self._scan(ref, itemsize)

    def _index(self) -> None:
        try:
            with self.path.open("rb") as file:
                skip_legacy_header(file)
                self._sizes = _storage_sizes(read_pickle(file))
                keys = read_pickle(file)
                self._start = file.tell()
        except PickleRefused as error:
            raise self.damaged(str(error)) from error
        self._places = [str(key) for key in cast("list[object]", keys)] if isinstance(keys, list) else []

    def _scan(self, ref: StorageRef, itemsize: int) -> Tensor:
        with self.path.open("rb") as file:
            file.seek(self._start)
            for key in self._places:
                count = int.from_bytes(file.read(8), "little")
                size = count * (itemsize if key == ref.key else self._sizes.get(key, 4))
                if key == ref.key:
                    raw = file.read(size)
                    if len(raw) < size:
                        raise self.damaged("its last tensors are missing")
                    return _bytes_to_tensor(raw)
                file.seek(size, 1)
        raise self.damaged(f"storage {ref.key} is not in the file")


def _storage_sizes(tree: object) -> dict[str, int]:
    """Storage key -> bytes per element, of every TensorRef in the tree."""
    sizes: dict[str, int] = {}
    todo, done = [tree], set()
    while todo:
        node = todo.pop()
        if id(node) in done:
            continue
        done.add(id(node))
        if isinstance(node, TensorRef):
            dtype = getattr(torch, node.storage.dtype)
            sizes[node.storage.key] = torch.empty(0, dtype=dtype).element_size()
        todo.extend(value for _key, value in children(node))
    return sizes


def _materialise(node: object, storages: _Storages, depth: int) -> object:
    if isinstance(node, TensorRef):
        return storages.tensor(node)
    if depth > _MAX_NESTING:
        return None
    if isinstance(node, dict):
        made: OrderedDict[object, object] = OrderedDict(
            (key, _materialise(value, storages, depth + 1)) for key, value in dict.items(node)
        )
        listed = getattr(node, "__dict__", {}).get("_metadata")
        if isinstance(listed, dict):
            made.__dict__["_metadata"] = listed
        return made
    if isinstance(node, (list, tuple)):
        return [_materialise(value, storages, depth + 1) for value in node]
    if isinstance(node, Ghost) and is_module(node):
        return read_module(node, storages.tensor)
    if isinstance(node, Ghost) and ghost_name(node).endswith("multiarray.scalar"):
        return plain(node)
    if isinstance(node, Ghost):  # of config objects only plain attributes survive
        return Pickled((str(key), _materialise(value, storages, depth + 1)) for key, value in children(node))
    return node


class Pickled(OrderedDict[str, object]):
    """The attributes of an object whose class was not built."""
