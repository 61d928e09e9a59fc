"""Read a pickle without running anything of it: what is not known to be harmless becomes an inert record.

with open("ckpt.pkl", "rb") as file:
    tree = read_pickle(file)
tree["args"].ghost_name                 # "argparse.Namespace"; its attributes are in tree["args"].state
tree["g_ema"]["conv.weight"].shape      # TensorRef: where a tensor is, not the tensor
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO, ClassVar, cast

from gandissect.files.opcodes import MAX_REDUCED, Buffer, PickleRefused, scan

MAX_GLOBALS = 5_000
MAX_NAME = 500  # characters of "package.Class"
DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError,
    UnicodeError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
MAX_SPENT = 5_000_000  # elements and bytes that calls may copy; a pickle can repeat a call in three bytes
MAX_NESTED = 20_000
_ARGUMENTS = 16
_LEGACY_HEADER = 4096  # bytes; a storage that is pickled by itself is a whole legacy file with a short header


@dataclass(frozen=True, eq=False, slots=True)
class StorageRef:
    """A storage that a pickle points to: ``key`` names its bytes, ``numel`` counts elements of ``dtype``.

    ``raw`` are the bytes themselves where the pickle carries them inline, as plain pickles of tensors do. ``start`` is the
    first element of a storage that is part of another (files from before torch 0.4).
    """

    dtype: str
    key: str
    numel: int
    raw: bytes | memoryview | None = None
    start: int = 0

    def __setstate__(self, state: object) -> None:
        """Nothing: a pickle cannot change what it has said."""


@dataclass(frozen=True, eq=False, slots=True)
class TensorRef:
    """A view into a storage: offset, shape and stride in elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    def __setstate__(self, state: object) -> None:
        """Nothing, as above."""


class Ghost:
    """What a pickle says of an object of a class we do not import: class name, arguments, state, entries.

    Calling, building and filling it only records; nothing is imported and nothing runs.
    """

    __slots__ = ("args", "elements", "entries", "state")
    ghost_name: ClassVar[str] = ""
    args: tuple[object, ...]
    state: object
    entries: list[tuple[object, object]]
    elements: list[object]

    def __new__(cls, *args: object, **_settings: object) -> Ghost:
        self = object.__new__(cls)
        self.args, self.state, self.entries, self.elements = args[:_ARGUMENTS], None, [], []
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


class Known:
    """A function that a pickle may call: one of those rewritten here. Unlike a function it has nothing that a pickle can set."""

    __slots__ = ("_work",)

    def __init__(self, work: Callable[..., object]) -> None:
        self._work = work

    def __call__(self, *args: object) -> object:
        return self._work(*args)

    def __setstate__(self, state: object) -> None:
        raise PickleRefused("it changes a function")


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
_ARRAYS = {
    "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128", "b1": "bool",
    "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}  # fmt: skip
SIZES = {
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "complex32": 4, "bfloat16": 2,
    **{dtype: int(code[1:]) for code, dtype in _ARRAYS.items()},
}  # fmt: skip
"""Bytes of one element of every dtype that is read."""


def _ints(values: object) -> tuple[int, ...]:
    sane = isinstance(values, (tuple, list)) and len(values) <= 64
    if not sane or not all(type(item) is int and 0 <= item < 2**60 for item in cast("tuple[object]", values)):
        raise PickleRefused("a tensor's shape is not made of numbers")
    return tuple(cast("tuple[int, ...]", values))


def _tensor(
    storage: object = None, offset: object = 0, size: object = (), stride: object = (), *_rest: object
) -> object:
    if not isinstance(storage, StorageRef) or type(offset) is not int:
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


def check_order(facts: object) -> None:
    """Refuse a file whose system facts say that it was written on a big-endian machine."""
    if isinstance(facts, dict) and facts.get("little_endian") is False:
        raise PickleRefused("its numbers are big-endian")


def _first(data: object = None, *_rest: object) -> object:
    return data


def _is_atom(value: object) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, complex))


def _copied(kind: object = None, _base: object = None, state: object = None, *_rest: object) -> object:
    """copyreg._reconstructor: how protocols before 2 write objects."""
    if not (isinstance(kind, type) and issubclass(kind, Ghost)):
        return Ghost(kind, state)
    made = kind()
    made.entries.extend(dict.items(state) if isinstance(state, dict) else ())
    return made


_TENSORS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor, ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3, ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}  # fmt: skip


class GhostUnpickler(pickle.Unpickler):
    """An unpickler whose ``find_class`` imports nothing.

    ``seen`` lists the globals that a pickle names, ``storages`` the storages it points to.
    """

    def __init__(self, file: BinaryIO, lumps: list[memoryview], nested: bool = False) -> None:
        super().__init__(file, encoding="latin1")
        self.seen: dict[str, None] = {}
        self.storages: dict[str, StorageRef] = {}
        self._lumps, self._spent, self._kept_text = lumps, 0, 0
        self._nested: dict[int, tuple[object, object]] = {}
        self._classes: dict[tuple[str, str], type[Ghost]] = {}
        self._known = {key: Known(work) for key, work in _TENSORS.items()}
        if not nested:
            self._known |= {
                ("torch._tensor", "_rebuild_from_type_v2"): Known(self._of_a_type),
                ("torch.storage", "_load_from_bytes"): Known(self._nested_storage),
                ("torch", "Size"): Known(_ints),
                ("_codecs", "encode"): Known(self._encoded),
                ("copyreg", "_reconstructor"): Known(_copied), ("copy_reg", "_reconstructor"): Known(_copied),
            }  # fmt: skip
        self._known["collections", "OrderedDict"] = Known(self._ordered)
        for module in ("builtins", "__builtin__"):
            self._known |= {(module, "set"): Known(self._set), (module, "frozenset"): Known(self._set)}

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """An inert stand-in for ``module.name``, or one of the few rebuild functions rewritten here."""
        key = (module, name)
        if key in self._known:
            return self._known[key]
        if key not in self._classes:
            full = f"{module}.{name}"
            if len(self._classes) >= MAX_GLOBALS or len(full) > MAX_NAME:
                raise PickleRefused("it names absurdly many classes, or one of an absurdly long name")
            self.seen[full] = None
            self._classes[key] = type(
                name.rpartition(".")[2] or "Ghost", (Ghost,), {"ghost_name": full, "__slots__": ()}
            )
        return self._classes[key]

    def persistent_load(self, pid: object) -> object:
        """A StorageRef for torch's ("storage", class, key, location, numel, …), a ghost for anything else."""
        if type(pid) is int and 0 <= pid < len(self._lumps):
            return self._lumps[pid]
        if isinstance(pid, tuple) and len(pid) >= 2 and pid[0] in ("module", b"module"):
            return pid[1]  # legacy files store a pickled module's class with its source text beside it
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] in ("storage", b"storage"):
            return self._storage(pid) or Ghost(pid)
        return Ghost(pid)

    def _storage(self, pid: tuple[object, ...]) -> StorageRef | None:
        kind = ghost_name(pid[1]).rpartition(".")[2]
        key, numel = pid[2], pid[4]
        if type(numel) is not int or not 0 <= numel < 2**60 or not isinstance(key, (str, int)):
            return None
        dtype = _STORAGES.get(kind, kind)
        made = whole = StorageRef(dtype, str(key), numel)
        part = pid[5] if len(pid) > 5 else None
        if isinstance(part, tuple) and len(part) == 3 and type(part[1]) is int and part[1] >= 0:
            made = StorageRef(dtype, str(key), numel, start=part[1])  # (its own key, first element, elements)
        self.storages.setdefault(whole.key, whole)
        return made

    def _spend(self, amount: int) -> None:
        self._spent += amount
        if self._spent > MAX_SPENT:
            raise PickleRefused("it repeats the same calls over and over")

    def _of_a_type(self, work: object = None, _kind: object = None, args: object = (), _state: object = None) -> object:
        """torch._tensor._rebuild_from_type_v2: a tensor of a class of its own; only what rebuilds tensors is called."""
        if isinstance(args, tuple) and any(work is self._known[name] for name in _TENSORS):
            return cast("Known", work)(*args[:_ARGUMENTS])
        return Ghost(work, args)

    def _nested_storage(self, saved: object = None, *_rest: object) -> object:
        """The storage in a torch file inside the pickle (torch.storage._load_from_bytes), read, not loaded."""
        if not isinstance(saved, (bytes, memoryview)):
            return Ghost(saved)
        if id(saved) not in self._nested:
            if len(self._nested) >= MAX_NESTED:
                raise PickleRefused(f"it holds more than {MAX_NESTED:,} files")
            self._nested[id(saved)] = (saved, _read_nested(saved))
        return self._nested[id(saved)][1]

    def _encoded(self, text: object = "", encoding: object = "", *_rest: object) -> object:
        """_codecs.encode(text, "latin1"): how protocols before 3 write bytes."""
        if isinstance(text, str) and encoding in ("latin1", "latin-1"):
            self._kept_text += len(text)
            if self._kept_text > MAX_REDUCED:
                raise PickleRefused("it repeats the same calls over and over")
            return text.encode("latin1")
        return Ghost(text, encoding)

    def _set(self, values: object = (), *_rest: object) -> object:
        if isinstance(values, (list, tuple, set)):
            self._spend(len(values))
            if all(map(_is_atom, values)):
                return set(values)
        return Ghost(values)

    def _ordered(self, pairs: object = (), *_rest: object) -> object:
        """An OrderedDict; Python 2 passed its items as a list of pairs."""
        made: OrderedDict[object, object] = OrderedDict()
        if isinstance(pairs, (list, tuple)):
            self._spend(len(pairs))
            for pair in pairs:
                if isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_atom(pair[0]):
                    made[pair[0]] = pair[1]
        return made


def _read_nested(saved: bytes | memoryview) -> object:
    head = bytes(saved[:_LEGACY_HEADER])
    position = 0
    parts: list[object] = []
    for _ in range(5):  # magic number, protocol, system facts, the storage, keys
        part = read_buffer(head, position, nested=True)
        parts.append(part.root)
        position = part.end
    check_order(parts[2])
    if not isinstance(parts[3], StorageRef):
        return Ghost(parts[3])
    return replace(parts[3], raw=memoryview(saved)[position + 8 :])  # after the element count


@dataclass
class Unpickled:
    """The objects of one pickle, where it ends, the classes it names and the storages it points to."""

    root: object
    end: int
    seen: dict[str, None] = field(default_factory=dict)
    storages: dict[str, StorageRef] = field(default_factory=dict)


def read_buffer(data: Buffer, start: int = 0, nested: bool = False) -> Unpickled:
    """The objects of the pickle at ``start``: plain containers, TensorRefs and ghosts; long byte strings as views of ``data``.

    Args:
        nested: the pickle is inside another; then it cannot hold files in turn.

    Raises:
        PickleRefused: damaged, truncated, or beyond the limits.
    """
    found = scan(data, start)
    whole = memoryview(data)
    lumps = [whole[begin : begin + size] for begin, size in found.lumps]
    reader = GhostUnpickler(io.BytesIO(found.reduced), lumps, nested)
    try:
        root: object = reader.load()
    except PickleRefused:
        raise
    except DAMAGED as error:
        raise PickleRefused(f"it is damaged ({error})") from error
    return Unpickled(root, found.end, reader.seen, reader.storages)


def read_pickle_bytes(pickled: bytes) -> object:
    """The objects of a pickle in memory."""
    return read_buffer(pickled).root


def read_pickle(file: BinaryIO) -> object:
    """The objects of the pickle at the file's position, which moves to its end."""
    start = file.tell()
    found = read_buffer(file.read())
    file.seek(start + found.end)
    return found.root


def array_ref(node: Ghost) -> TensorRef | None:
    """Where the numbers of a pickled NumPy array are; None for anything else.

    Raises:
        PickleRefused: an array of objects, text or big-endian numbers.
    """
    name = ghost_name(node)
    if name.endswith("multiarray._reconstruct") and isinstance(node.state, tuple) and len(node.state) == 5:
        _version, shape, kind, columns, raw = node.state  # ndarray.__setstate__
    elif name.endswith("numeric._frombuffer") and len(node.args) == 4:
        raw, kind, shape, order = node.args
        columns = order == "F"
    else:
        return None
    code = kind.args[0] if isinstance(kind, Ghost) and kind.args else ""
    order_mark = (
        kind.state[1] if isinstance(kind, Ghost) and isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    )
    dtype = _ARRAYS.get(code.lstrip("<|=")) if isinstance(code, str) else None
    if dtype is None or order_mark == ">":
        raise PickleRefused(
            f"it holds an array of {str(code)[:20]!r} numbers; save it as float32 in little-endian order"
        )
    if isinstance(raw, (str, bytearray)):
        raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    extents = _ints(shape)
    if not isinstance(raw, (bytes, memoryview)):
        raise PickleRefused("an array's bytes are missing")
    storage = StorageRef(dtype, "", len(raw) // SIZES[dtype], raw)
    return TensorRef(storage, 0, extents, row_strides(extents[::-1])[::-1] if columns else row_strides(extents), dtype)


def row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor, in elements."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step = min(step * max(extent, 1), 2**61)
    return tuple(reversed(strides))
