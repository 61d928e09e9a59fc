"""Several processes as one: who has which share, and how results come together; all that is known of distribution.

with joined() as shard:                                      # alone unless torchrun or --processes started several
    mine = shard.share(16)                                   # range(8, 16) in the second of two processes
    for state in shard.exchange("counts", lambda: {"count": torch.tensor(len(mine))}):
        ...                                                  # every process's state, in order of rank

Every process runs the same program and makes the same calls in the same order; only shares differ. Each exchange begins with
a meeting in which the processes compare what they ask for, so that a difference is one error instead of a wait without end.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from gandissect.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, GandissectError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

RENDEZVOUS = "GANDISSECT_RENDEZVOUS"
"""Environment variable: where processes find each other, as ``torch.distributed.init_process_group`` takes it."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others before it gives up."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 3.0
"""Seconds in which a second signal is the same Ctrl-C, passed on by a launcher: it must not stop the report of what is done."""
_END = "the end of the run"
_TASK: ContextVar[str] = ContextVar("_TASK", default="")
"""What is being done now by this process and not by all; empty where all do the same."""
T = TypeVar("T")


class ProcessesApart(GandissectError, RuntimeError):
    """Processes that were to work together no longer do: one of them ended, or they asked for different things."""

    exit_code: ClassVar[int] = EXIT_INTERNAL


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors as safetensors takes them: whole, and none sharing memory with another."""
    return {name: value.detach().contiguous().clone() for name, value in state.items()}


def given_out(costs: Sequence[float], processes: int) -> list[list[int]]:
    """The places of tasks for each process: the longest task first, always to the process that has least to do so far.

    References:
        Graham 1969, Bounds on Multiprocessing Timing Anomalies (longest processing time first: at most 4/3 of the best).
    """
    burden = [0.0] * processes
    places: list[list[int]] = [[] for _ in burden]
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        rank = burden.index(min(burden))
        burden[rank] += costs[place]
        places[rank].append(place)
    return places


class Shard:
    """One process among ``size``, of number ``rank``; as it is, the only one."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether nothing is shared: there is one process, or this one went on alone."""
        return self.size == 1

    def share(self, count: int) -> range:
        """The consecutive part of ``range(count)`` that is this process's; parts differ by one at most."""
        if self.alone:
            return range(count)
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def share_out(self, what: str, tasks: Sequence[Callable[[], T]], costs: Sequence[float] = ()) -> list[T]:
        """What tasks that need nothing of each other return, in their order, each run by one process.

        Args:
            what: the same words in all processes.
            tasks: pure functions with results that can be pickled. They draw from generators seeded by name, not by order, and
                ask for nothing that processes exchange.
            costs: how long each takes, in any unit; all the same where left out.

        Raises:
            ProcessesApart: see :meth:`exchange`, as for a task's own exception.
            RuntimeError: a task asks for something that processes exchange.
        """
        own = range(len(tasks)) if self.alone else given_out(costs or [1.0] * len(tasks), self.size)[self.rank]
        made: dict[int, T] = {}

        def work() -> dict[str, Tensor]:
            with _not_by_all(what):
                made.update((place, tasks[place]()) for place in own)
            return {} if self.alone else {str(place): _packed(result) for place, result in made.items()}

        for state in self.exchange(f"{what} ({len(tasks)} tasks)", work):
            for place in state.keys() - {str(place) for place in made}:
                made[int(place)] = pickle.loads(state[place].numpy().data)  # written by a process of ours
        return [made[place] for place in range(len(tasks))]

    def exchange(self, what: str, work: Callable[[], Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
        """What ``work`` returns in each process, in order of rank; to be read to its end.

        Args:
            what: the same words in all processes; they are compared.
            work: what this process contributes; the first exception of any process is raised in all.

        Raises:
            ProcessesApart: a process ended, was silent for too long, or asked for something else.
            RuntimeError: it is asked for by a task of :meth:`share_out`, which only one process runs.
        """
        _by_all(what)
        yield work()

    def rows(self, what: str, count: int, unit: int, work: Callable[[range], Tensor]) -> Tensor:
        """The rows [count, …] of which ``work`` makes those of a range, shared out in units of ``unit`` rows."""
        _by_all(what)
        units = -(-count // unit)
        if self.alone or units < 2:
            return work(range(count))
        mine = self.share(units)
        own = range(mine.start * unit, min(mine.stop * unit, count))
        return torch.cat([state["rows"] for state in self.exchange(f"{what} ({count})", lambda: {"rows": work(own)})])

    def union(self, what: str, own: Sequence[str]) -> list[str]:
        """The lines of all processes, each once, those of the first in front."""
        text = torch.tensor(list("\n".join(own).encode()), dtype=torch.uint8)
        states = self.exchange(what, lambda: {"lines": text})
        return list(
            dict.fromkeys(line for state in states for line in bytes(state["lines"].tolist()).decode().splitlines())
        )

    def by_first(self, what: str, work: Callable[[], T]) -> T | None:
        """What ``work`` returns in the first process; None in the others, where it is not run.

        Raises:
            RuntimeError: there are others, and it asks for something that processes exchange.
        """
        if self.alone:
            return work()
        with _not_by_all(what):
            return work() if self.first else None

    def leave(self) -> None:
        """Go on alone: what is exchanged from now on is this process's own (after Ctrl-C, the others may be gone)."""


ALONE = Shard()


def _by_all(what: str) -> None:
    """Refuse what all processes make together where only one of them asks."""
    if task := _TASK.get():
        raise RuntimeError(
            f"{task}, which one process does, asks for {what}, which all make together; ask for it before"
        )


@contextmanager
def _not_by_all(task: str) -> Generator[None]:
    """Inside, this process does something that others do not."""
    token = _TASK.set(task)
    try:
        yield
    finally:
        _TASK.reset(token)


def _packed(result: object) -> Tensor:
    """A pickle as uint8 [bytes]."""
    return torch.frombuffer(bytearray(pickle.dumps(result, pickle.HIGHEST_PROTOCOL)), dtype=torch.uint8)


@dataclass(frozen=True)
class _Word:
    """What one process says in a meeting: the number of the call, what it is, the bytes to come, what went wrong."""

    call: int
    what: str
    size: int
    failure: bytes


class Group(Shard):
    """A process among those of a ``torch.distributed`` group that can exchange CPU tensors (gloo); the default group.

    Attributes:
        open: they still work together.
        lost: they do not, and not all of them know why.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        import torch.distributed as dist

        self._dist, self._group = dist, group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.open = True
        self.lost = False
        self._calls = 0

    @property
    def alone(self) -> bool:
        return not self.open

    def leave(self) -> None:
        self.open = False

    def exchange(self, what: str, work: Callable[[], Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
        _by_all(what)
        if not self.open:
            yield work()
            return
        own: Mapping[str, Tensor] = {}
        payload, failure = b"", None
        try:
            own = work()
            payload = save(plain(own))
        except Exception as error:
            failure = error
        sizes = self._meet(what, len(payload), failure)
        for rank, size in enumerate(sizes):
            received = self._broadcast(payload, rank, size)
            yield own if rank == self.rank else load(received)

    def _broadcast(self, payload: bytes, rank: int, size: int) -> bytes:
        mine = rank == self.rank
        buffer = (
            torch.frombuffer(bytearray(payload), dtype=torch.uint8) if mine else torch.empty(size, dtype=torch.uint8)
        )
        source = rank if self._group is None else self._dist.get_global_rank(self._group, rank)
        try:
            self._dist.broadcast(buffer, source, group=self._group)
        except RuntimeError as error:
            raise self._apart(error) from error
        return b"" if mine else buffer.numpy().tobytes()

    def _meet(self, what: str, size: int, failure: Exception | None) -> list[int]:
        """The bytes that each process is about to give, after comparing what all of them ask for."""
        self._calls += 1
        words: list[_Word] = [_Word(0, "", 0, b"")] * self.size
        try:
            word = _Word(self._calls, what, size, b"" if failure is None else _portable(failure))
            self._dist.all_gather_object(words, word, group=self._group)
        except RuntimeError as error:
            raise self._apart(error) from error
        failures = [rank for rank, word in enumerate(words) if word.failure]
        together = len({(word.call, word.what) for word in words}) == 1
        if not together or what == _END:
            self.open = False
            with suppress(
                RuntimeError
            ):  # who leaves at once may close connections on which others still receive the words
                self._dist.barrier(group=self._group)
        if failures and (together or words[failures[0]].what == _END):
            if failures[0] == self.rank and failure is not None:
                raise failure
            raise pickle.loads(words[failures[0]].failure)  # written by _portable in a process of ours
        if not together:
            asked = "; ".join(
                f"process {rank} asks for {word.what} (call {word.call})" for rank, word in enumerate(words)
            )
            raise ProcessesApart(
                f"processes went different ways: {asked}; a plugin decides by something other than the seed?"
            )
        return [word.size for word in words]

    def _apart(self, error: Exception) -> ProcessesApart:
        self.open, self.lost = False, True
        reason = str(error).partition("\n")[0][:200]
        return ProcessesApart(f"another process ended or did not answer within {PATIENCE}: {reason}")

    def part(self, failure: Exception | None) -> None:
        """Meet the others for the last time and tell them what went wrong here, if anything.

        Raises:
            Exception: what went wrong in the first process in which something did.
        """
        if self.open:
            self._meet(_END, 0, failure)
        elif failure is not None:
            raise failure


def _portable(error: Exception) -> bytes:
    """An exception as bytes that can be raised elsewhere; a plain one of the same words where it cannot be pickled."""
    try:
        told = pickle.dumps(error)
        pickle.loads(told)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return told


def several() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def joined() -> Generator[Shard]:
    """This process's place among those that torchrun (or ``--processes``) started; alone where nobody did.

    What goes wrong in any process is raised in the first one; the others end quietly. SIGTERM, by which torchrun passes
    Ctrl-C on, acts as Ctrl-C.
    """
    if not several():
        yield ALONE
        return
    import torch.distributed as dist

    with _unheard_by_new_threads():
        dist.init_process_group(
            "gloo",
            init_method=os.environ.get(RENDEZVOUS, "env://"),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=PATIENCE,
        )
    group = Group()
    last = -ECHO

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        echo, last = time.monotonic() - last < ECHO, time.monotonic()
        if not echo:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        with _spoken_by_the_first(group):
            yield group
            group.part(None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    dist.destroy_process_group()


@contextmanager
def _unheard_by_new_threads() -> Generator[None]:
    """Threads that begin inside never get Ctrl-C: a signal that ends up in one of them does not wake the main thread."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _spoken_by_the_first(group: Group) -> Generator[None]:
    """Raise what goes wrong in any process in the first one; end the others without a word."""
    try:
        yield
    except KeyboardInterrupt:
        if group.first:
            raise
        raise SystemExit(EXIT_INTERRUPTED) from None
    except Exception as error:
        failure = error
        try:
            group.part(error)
        except Exception as first:
            failure = first
        if group.first:
            raise failure from error
        raise SystemExit(EXIT_INTERNAL if group.lost else 0) from None
