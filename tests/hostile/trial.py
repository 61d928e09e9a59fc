"""One file opened in a forked process under limits, and what came of it.

outcome = attempt(lambda: peek(path), canaries=folder)
outcome.kind                            # "opened", "refused", or what must not be: "fault", "hang", "crash", "memory", "ran"
"""

from __future__ import annotations

import io
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from gandissect.errors import NotOpened

GIB = 2**30
MEMORY = 2 * GIB
SECONDS = 10.0  # of the processor; ten times as many may pass on a busy machine
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "os.remove", "os.rename",
              "os.rmdir", "os.chmod", "os.symlink", "os.link", "shutil.", "socket.", "ctypes.dlopen",
              "pty.spawn", "webbrowser.open", "urllib.Request", "builtins.input")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_OURS = "gandissect-"  # prefix of the private temporary files that unpacking makes


@dataclass(frozen=True)
class Outcome:
    """What came of one file: kind, the sentence or traceback, seconds, peak resident bytes, and the events that must not be."""

    kind: str
    text: str = ""
    seconds: float = 0.0
    peak: int = 0
    events: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> bool:
        """Opened or refused in a sentence, and nothing of the file ran."""
        return self.kind in ("opened", "refused") and not self.events


def attempt(work: Callable[[], object], *, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """The outcome of ``work`` in a forked process with limited memory and time, watched by an audit hook."""
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(work, writer, memory)
    os.close(writer)
    peak, killed = _watch(pid, reader, seconds, memory)
    raw = _read(reader)
    _, status = os.waitpid(pid, 0)
    spent = time.monotonic() - started
    if killed:
        return Outcome(killed, f"after {spent:.1f} s", spent, peak)
    if not raw:
        return Outcome("crash", f"wait status {status}", spent, peak)
    told = json.loads(raw)
    return Outcome(told["kind"], told["text"], spent, max(peak, told["peak"]), told["events"])


def _watch(pid: int, reader: int, seconds: float, memory: int) -> tuple[int, str]:
    peak = 0
    deadline = time.monotonic() + 10 * seconds
    while not select.select([reader], [], [], 0.02)[0]:
        peak = max(peak, resident(pid))
        late = processor_seconds(pid) > seconds or time.monotonic() > deadline
        over = "memory" if peak > memory else "hang" if late else ""
        if over:
            os.kill(pid, signal.SIGKILL)
            return peak, over
    return peak, ""


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor, 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Resident bytes of a process, 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def _data() -> int:
    """Bytes of private writable memory that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def _read(reader: int) -> bytes:
    chunks = []
    while chunk := os.read(reader, 65536):
        chunks.append(chunk)
    os.close(reader)
    return b"".join(chunks)


def _child(work: Callable[[], object], writer: int, memory: int) -> None:
    events: list[str] = []
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (_data() + 2 * memory,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.addaudithook(lambda event, given: _note(events, event, given))
        kind, text = _outcome(work)
    except BaseException:
        kind, text = "fault", traceback.format_exc()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    kind = "memory" if peak > memory else kind
    report = json.dumps({"kind": kind, "text": text[-20_000:], "peak": peak, "events": events[:20]})
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(report.encode())
    os._exit(0)


def _outcome(work: Callable[[], object]) -> tuple[str, str]:
    try:
        said = work()
    except NotOpened as error:
        return "refused", str(error)
    except Exception:
        return "fault", traceback.format_exc()
    return "opened", said if isinstance(said, str) else ""


def command_line(*arguments: str) -> str:
    """What ``gandissect`` prints and exits with, as JSON: code, out, err."""
    from gandissect.cli import main

    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stopped:
            code = stopped.code
    return json.dumps({"code": code, "out": out.getvalue()[:5_000], "err": err.getvalue()[:5_000]})


def _note(events: list[str], event: str, given: tuple[object, ...]) -> None:
    if event == "open":
        path, _mode, flags = given[:3]
        if isinstance(flags, int) and flags & _WRITING and _OURS not in str(path) and "/dev/null" not in str(path):
            events.append(f"open for writing {str(path)[:200]}")
    elif event in ("os.remove", "os.rmdir") and given[-1] != -1:
        return  # inside an open folder: how a temporary folder is taken away
    elif event.startswith(_FORBIDDEN) and not any(_OURS in str(value) for value in given):
        events.append(f"{event} {str(given)[:200]}")
