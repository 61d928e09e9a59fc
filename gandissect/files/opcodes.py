"""The instructions of a pickle, walked through without carrying any of them out, so that limits hold before memory is spent.

scan(mapped, 0).end                     # where the pickle ends
scan(mapped, 0).reduced                 # the same pickle with its long byte strings left in the file
"""

from __future__ import annotations

import mmap
import pickletools
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_INSTRUCTIONS = 1_500_000  # 25 per tensor of a state dict, one per number of a list of losses
MAX_DEPTH = 500  # of nesting; hash() of a deeper tuple could exhaust the C stack
MAX_REDUCED = 2**27  # bytes of a pickle without the long byte strings
MAX_KEY_WEIGHT = 20_000  # objects inside all keys: a tuple that holds itself twice, 40 times over, would hash for years
MAX_ARGUMENTS = 50_000_000  # objects inside the arguments of all calls, which a call copies
MAX_WIDE = 1_000  # integers over 64 bits: their hashes can be made to collide
MAX_DIGITS = 1_024
LONG_BYTES = 4_096  # byte strings from this length on stay in the file

Buffer = bytes | mmap.mmap


class PickleRefused(ValueError):
    """A pickle that is damaged, or larger or deeper than any checkpoint; the message says which."""


class Op(NamedTuple):
    """One instruction: how long its argument is and what it does to the stack."""

    name: str
    size: int  # of the argument; below 0 for the ways of pickletools to say that it varies
    pops: int
    marked: bool
    pushes: tuple[bool, ...]  # True for a mark


_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"}
_LINES = {"GLOBAL": 2, "INST": 2}
_BYTES = {"BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_NARROW = {"INT": 20, "LONG": 20, "LONG1": 8, "LONG4": 8}  # characters or bytes of a number that 64 bits hold
_PREFIX = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _table() -> list[Op | None]:
    table: list[Op | None] = [None] * 256
    for known in pickletools.opcodes:
        before = known.stack_before
        marked = pickletools.markobject in before
        pops = before.index(pickletools.markobject) if marked else len(before)
        pushes = tuple(kind is pickletools.markobject for kind in known.stack_after)
        table[ord(known.code)] = Op(known.name, known.arg.n if known.arg else 0, pops, marked, pushes)
    return table


_OPS = _table()
_ATOM = (1, 1)
_MARK = (-1, 0)


@dataclass
class Scan:
    """What a walk through a pickle found; ``lumps`` are (start, size) of the byte strings that ``reduced`` leaves out.

    In ``reduced`` a lump is the persistent id of its position in ``lumps``.
    """

    end: int
    reduced: bytes
    lumps: list[tuple[int, int]] = field(default_factory=list)


def scan(data: Buffer, start: int = 0) -> Scan:
    """Walk through the pickle that begins at ``start``.

    Raises:
        PickleRefused: no pickle, cut short, or beyond a limit.
    """
    try:
        return _Walk(data, start).result()
    except IndexError as error:
        raise PickleRefused("it is damaged or truncated") from error


class _Walk:
    """The stack of a pickle as (depth, weight) of each object, its memo, and what is copied."""

    def __init__(self, data: Buffer, start: int) -> None:
        self.data, self.position, self.copied = data, start, start
        self.stack: list[tuple[int, int]] = []
        self.memo: dict[int, tuple[int, int]] = {}
        self.count = self.keys = self.called = self.wide = self.kept = 0
        self.parts: list[bytes] = []
        self.lumps: list[tuple[int, int]] = []

    def result(self) -> Scan:
        """Every instruction up to STOP."""
        data, ops = self.data, _OPS
        while True:
            at = self.position
            op = ops[data[at]]
            self.count += 1
            if op is None or op.name in _REFUSED:
                raise PickleRefused(f"byte {at:,} is no instruction of a checkpoint's pickle")
            if self.count > MAX_INSTRUCTIONS:
                raise PickleRefused(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            self.position = at + 1
            argument = self._argument(op)
            if op.name == "STOP":
                if not self.stack:
                    raise IndexError
                self._keep(self.position)
                return Scan(self.position, b"".join(self.parts), self.lumps)
            if op.name == "FRAME":  # lengths would no longer fit; frames are only a hint
                self._keep(at)
                self.copied = self.position
            elif op.name in _BYTES and argument[1] >= LONG_BYTES:
                self._leave_out(at, argument)
            self._step(op, argument)

    def _argument(self, op: Op) -> tuple[int, int]:
        """(start, length) of the argument, which lies inside the data; the position moves past it."""
        start, size = self.position, op.size
        if size in _PREFIX:
            width = _PREFIX[size]
            size = int.from_bytes(self.data[start : start + width], "little", signed=op.name == "LONG4")
            start += width
        elif size < 0:
            end = start
            for _ in range(_LINES.get(op.name, 1)):
                end = self.data.find(b"\n", end) + 1
                if end == 0:
                    raise IndexError
            size = end - start
        if size < 0 or start + size > len(self.data):
            raise PickleRefused("it is damaged or truncated")
        self.position = start + size
        if op.name in _NARROW and size > _NARROW[op.name]:
            self.wide += 1
            if size > MAX_DIGITS or self.wide > MAX_WIDE:
                raise PickleRefused("it has absurdly large numbers")
        return start, size

    def _keep(self, end: int) -> None:
        self.kept += end - self.copied
        if self.kept > MAX_REDUCED:
            raise PickleRefused(f"it has over {MAX_REDUCED:,} bytes of names and numbers")
        self.parts.append(self.data[self.copied : end])

    def _leave_out(self, at: int, argument: tuple[int, int]) -> None:
        self._keep(at)
        self.parts.append(b"J" + len(self.lumps).to_bytes(4, "little") + b"Q")
        self.lumps.append(argument)
        self.copied = self.position

    def _step(self, op: Op, argument: tuple[int, int]) -> None:
        name, stack = op.name, self.stack
        if "PUT" in name or name == "MEMOIZE":
            index = len(self.memo) if name == "MEMOIZE" else self._index(op, argument)
            if index > 4 * self.count + 1024:  # the C unpickler allocates a table up to the index
                raise PickleRefused("its memo table is absurdly large")
            self.memo[index] = stack[-1]
        elif "GET" in name:
            stack.append(self.memo.get(self._index(op, argument), _ATOM))
        elif name == "POP" and stack and stack[-1] is _MARK:
            stack.pop()
        elif op.pops or op.marked:
            self._combine(op)
        else:
            stack.extend(_MARK if mark else _ATOM for mark in op.pushes)

    def _index(self, op: Op, argument: tuple[int, int]) -> int:
        raw = self.data[argument[0] : sum(argument)]
        try:
            return int(raw) if op.size < 0 else int.from_bytes(raw, "little")
        except ValueError as error:
            raise PickleRefused("it is damaged or truncated") from error

    def _combine(self, op: Op) -> None:
        """Objects taken off the stack and put into one."""
        stack = self.stack
        taken: list[tuple[int, int]] = []
        if op.marked:
            while (top := stack.pop()) is not _MARK:
                taken.append(top)
            taken.reverse()
        self._weigh_keys(op.name, taken)
        for _ in range(op.pops):
            taken.append(stack.pop())
        depth = max(taken, default=_ATOM)[0] + 1 if taken else 1
        if depth > MAX_DEPTH:
            raise PickleRefused(f"it is nested more than {MAX_DEPTH} deep")
        made = depth, min(1 + sum(weight for _depth, weight in taken), 2**40)
        if op.name in _CALLS:
            self.called += made[1]
            if self.called > MAX_ARGUMENTS:
                raise PickleRefused("it repeats the same calls over and over")
        stack.extend(_MARK if mark else made for mark in op.pushes)

    def _weigh_keys(self, name: str, taken: list[tuple[int, int]]) -> None:
        if name in ("SETITEMS", "DICT"):
            keys = taken[::2]
        elif name in ("ADDITEMS", "FROZENSET"):
            keys = taken
        elif name == "SETITEM":
            keys = self.stack[-2:-1]
        else:
            return
        self.keys += sum(weight for _depth, weight in keys if weight > 1)
        if self.keys > MAX_KEY_WEIGHT:
            raise PickleRefused("its keys are absurdly large")
