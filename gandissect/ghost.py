"""Read a pickle without running anything of it: what is not known to be harmless becomes an inert record.

with open("ckpt.pkl", "rb") as file:
    tree = read_pickle(file)
tree["args"].ghost_name                 # "argparse.Namespace"; its attributes are in tree["args"].state
tree["g_ema"]["conv.weight"].shape      # TensorRef: where a tensor is, not the tensor
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, cast

MAX_OPCODES = 5_000_000
MAX_DEPTH = 500  # of nesting; hash() of a deeper tuple could exhaust the C stack
DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError,
    UnicodeError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


class PickleRefused(ValueError):
    """A pickle that is damaged, or larger or deeper than any checkpoint; the message says which."""


@dataclass(frozen=True, eq=False)
class StorageRef:
    """A storage that a pickle points to: ``key`` names its bytes, ``numel`` counts elements of ``dtype``.

    ``raw`` are the bytes themselves where the pickle carries them inline, as plain pickles of tensors do.
    """

    dtype: str
    key: str
    numel: int
    raw: bytes | None = None


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A view into a storage: offset, shape and stride in elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str


class Ghost:
    """What a pickle says of an object of a class we do not import: class name, arguments, state, entries.

    Calling, building and filling it only records; nothing is imported and nothing runs.
    """

    ghost_name: ClassVar[str] = ""
    args: tuple[object, ...]
    state: object
    entries: list[tuple[object, object]]
    elements: list[object]

    def __new__(cls, *args: object, **_settings: object) -> Ghost:
        self = object.__new__(cls)
        self.args, self.state, self.entries, self.elements = args, None, [], []
        return self

    def __init__(self, *args: object, **settings: object) -> None:
        """Nothing: ``__new__`` has recorded the arguments."""

    def __call__(self, *args: object, **_settings: object) -> Ghost:
        return Ghost(self, *args)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        self.entries.append((key, value))

    def append(self, value: object) -> None:
        """Record one element of a list-like object."""
        self.elements.append(value)

    add = append

    def extend(self, values: object) -> None:
        """Record the elements of a list-like object."""
        self.elements.extend(cast("list[object]", values))


def ghost_name(value: object) -> str:
    """ "package.Class" of a ghost or of a ghost class, "" for anything else."""
    kind = value if isinstance(value, type) else type(value)
    return kind.ghost_name if issubclass(kind, Ghost) else ""


_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8", "_UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
}  # fmt: skip


def _ints(values: object) -> tuple[int, ...]:
    items = tuple(cast("tuple[int, ...]", values))
    if not all(isinstance(item, int) and item >= 0 for item in items):
        raise PickleRefused("a tensor's shape is not made of numbers")
    return items


def _tensor(storage: object, offset: object, size: object, stride: object, *_rest: object) -> object:
    if not isinstance(storage, StorageRef) or not isinstance(offset, int):
        return Ghost(storage, offset, size, stride)
    return TensorRef(storage, offset, _ints(size), _ints(stride), storage.dtype)


def _tensor_v3(  # torch._utils._rebuild_tensor_v3: dtypes newer than typed storages (float8, uint16 …)
    storage: object, offset: object, size: object, stride: object, _grad: object, _hooks: object, dtype: object,
    *_rest: object,
) -> object:  # fmt: skip
    plain = _tensor(storage, offset, size, stride)
    if not isinstance(plain, TensorRef):
        return plain
    return TensorRef(plain.storage, plain.offset, plain.shape, plain.stride, ghost_name(dtype).rpartition(".")[2])


def _nested_storage(saved: object = None, *_rest: object) -> object:
    """The storage in a torch file inside the pickle (torch.storage._load_from_bytes), read, not loaded."""
    if not isinstance(saved, bytes):
        return Ghost(saved)
    file = io.BytesIO(saved)
    for _ in range(3):  # magic number, protocol, system facts
        read_pickle(file)
    storage = read_pickle(file)
    read_pickle(file)  # keys
    file.seek(8, 1)  # element count
    if not isinstance(storage, StorageRef):
        return Ghost(saved)
    return StorageRef(storage.dtype, storage.key, storage.numel, file.read())


def _first(data: object, *_rest: object) -> object:
    return data


def _size(values: object = ()) -> tuple[int, ...]:
    return _ints(values)


_KNOWN: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set, ("__builtin__", "set"): set,
    ("builtins", "frozenset"): frozenset, ("__builtin__", "frozenset"): frozenset,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): None,  # carries a function to call: stays a ghost
    ("torch.storage", "_load_from_bytes"): _nested_storage,
    ("torch", "Size"): _size,
}  # fmt: skip


class GhostUnpickler(pickle.Unpickler):
    """An unpickler whose ``find_class`` imports nothing; ``seen`` lists the globals that a pickle names."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self.seen: dict[str, None] = {}
        self._classes: dict[tuple[str, str], type[Ghost]] = {}

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """An inert stand-in for ``module.name``, or one of the few rebuild functions rewritten here."""
        known = _KNOWN.get((module, name))
        if known is not None:
            return cast("Callable[..., object]", known)
        self.seen[f"{module}.{name}"] = None
        key = (module, name)
        if key not in self._classes:
            full = f"{module}.{name}"
            self._classes[key] = type(name.rpartition(".")[2] or "Ghost", (Ghost,), {"ghost_name": full})
        return self._classes[key]

    def persistent_load(self, pid: object) -> object:
        """A StorageRef for torch's ("storage", class, key, location, numel, …), a ghost for anything else."""
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] in ("module", b"module"):
            return pid[1]  # legacy files store a pickled module's class with its source text beside it
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] in ("storage", b"storage"):
            kind = ghost_name(pid[1]).rpartition(".")[2]
            if isinstance(pid[4], int):
                return StorageRef(_STORAGES.get(kind, "float32"), str(pid[2]), pid[4])
        return Ghost(pid)


def check_pickle(file: BinaryIO) -> int:
    """Where the pickle that starts at the file's position ends, once its size and nesting are known to be sane.

    Raises:
        PickleRefused: no pickle, truncated, or beyond the limits on instructions, nesting and memo.
    """
    depths: list[int] = []  # nesting of each object on the pickle's stack, -1 for a mark
    memo: dict[int, int] = {}
    count = 0
    try:
        for opcode, arg, _pos in pickletools.genops(file):
            count += 1
            if count > MAX_OPCODES:
                raise PickleRefused(f"it has more than {MAX_OPCODES:,} instructions")
            _step(opcode, arg, depths, memo, count)
    except PickleRefused:
        raise
    except DAMAGED as error:
        raise PickleRefused(f"it is damaged or truncated ({error})") from error
    return file.tell()


def _step(opcode: pickletools.OpcodeInfo, arg: object, depths: list[int], memo: dict[int, int], count: int) -> None:
    """Follow one instruction: how deep the objects on the stack are nested."""
    name = opcode.name
    if "PUT" in name or name == "MEMOIZE":
        index = len(memo) if name == "MEMOIZE" else int(cast("int", arg))
        if index > MAX_OPCODES or index > 4 * count + 1024:  # the C unpickler allocates a table up to the index
            raise PickleRefused("its memo table is absurdly large")
        memo[index] = depths[-1]
        return
    if "GET" in name:
        depths.append(memo.get(int(cast("int", arg)), 0))
        return
    before = opcode.stack_before
    inner = 0
    marked = pickletools.markobject in before
    if marked or (name == "POP" and depths and depths[-1] < 0):
        while (depth := depths.pop()) >= 0:
            inner = max(inner, depth)
    plain = (before.index(pickletools.markobject) if marked else len(before)) if name != "POP" or depths else 0
    if not (name == "POP" and marked):
        for _ in range(plain):
            inner = max(inner, depths.pop())
    if inner > MAX_DEPTH:
        raise PickleRefused(f"it is nested more than {MAX_DEPTH} deep")
    depths.extend(-1 if kind is pickletools.markobject else inner + 1 for kind in opcode.stack_after)


def read_pickle(file: BinaryIO, seen: dict[str, None] | None = None) -> object:
    """The objects of the pickle at the file's position, as plain containers, TensorRefs and ghosts.

    Args:
        file: seekable; it is left at the end of the pickle.
        seen: gets the names of the globals that became ghosts.

    Raises:
        PickleRefused: damaged, truncated, or beyond the limits.
    """
    start = file.tell()
    end = check_pickle(file)
    file.seek(start)
    reader = GhostUnpickler(file)
    try:
        tree: object = reader.load()
    except DAMAGED as error:
        raise PickleRefused(f"it is damaged ({error})") from error
    file.seek(end)
    if seen is not None:
        seen.update(reader.seen)
    return tree


def read_pickle_bytes(pickled: bytes, seen: dict[str, None] | None = None) -> object:
    """``read_pickle`` of bytes in memory."""
    return read_pickle(io.BytesIO(pickled), seen)
