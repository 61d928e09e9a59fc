"""Losses of a training, from a CSV file or from TensorBoard's event files; which curve is whose is guessed from its name.

log = read_log(Path("losses.csv"))
log.curves[0].name, log.curves[0].role   # "D_loss", "discriminator"
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gandissect.comparing.event_files import read_events
from gandissect.errors import UsageError

Role = Literal["generator", "discriminator", "other"]
Values = NDArray[np.float64]
STEPS = ("step", "steps", "global_step", "iteration", "iterations", "iter", "it", "kimg", "epoch", "epochs", "batch")
NO_LOSS = (
    "lr",
    "learning",
    "time",
    "wall",
    "real",
    "fake",
    "acc",
    "accuracy",
    "grad",
    "norm",
    "score",
    "fid",
    "kid",
    "psnr",
)
SIDES: dict[str, Role] = {
    "g": "generator", "gen": "generator", "generator": "generator", "netg": "generator",
    "d": "discriminator", "disc": "discriminator", "discriminator": "discriminator", "netd": "discriminator",
    "critic": "discriminator", "c": "discriminator", "dis": "discriminator",
}  # fmt: skip
LARGEST = 256 * 2**20


@dataclass(frozen=True)
class Curve:
    """One column of a log: float64 [N] values at float64 [N] steps; what is no number was left out.

    Attributes:
        role: whose loss it is, as its name says; "other" where it says nothing, or something else than a loss.
        missing: entries that were no numbers (empty cells, text).
        broken: step of the first NaN or infinite value; None where there is none.
    """

    name: str
    steps: Values
    values: Values
    role: Role = "other"
    missing: int = 0
    broken: float | None = None


@dataclass(frozen=True)
class TrainingLog:
    """The curves of a log, what its steps are called, and what is to be said about reading it."""

    name: str
    curves: tuple[Curve, ...]
    step_name: str
    notes: tuple[str, ...] = ()

    def losses(self, role: Role) -> tuple[Curve, ...]:
        """The curves of one side."""
        return tuple(curve for curve in self.curves if curve.role == role)


def read_log(path: Path) -> TrainingLog:
    """The log in a CSV file, an event file, or a folder of event files.

    Raises:
        UsageError: no such file, one that is too large, or no numbers in it.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*tfevents*") if file.is_file())
        if not files:
            raise UsageError(f"--log {path}: no event file (*tfevents*) in that folder; expected one, or a CSV file")
        return _from_events(path, files)
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UsageError(f"--log {path}: {size / 1e6:.0f} MB, at most {LARGEST / 1e6:.0f} MB are read")
        head = path.open("rb").read(12)
    except OSError as error:
        raise UsageError(f"--log {path}: cannot be read ({error.strerror})") from error
    if "tfevents" in path.name or _is_record(head):
        return _from_events(path, [path])
    return _from_csv(path)


def role_of(name: str) -> Role:
    """Whose loss a curve called ``name`` is: "G_loss", "loss/discriminator", "errD", "lossG", "train/d_loss"."""
    parts = re.findall(r"[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*", name)
    words = [part.lower() for part in parts]
    if any(word in NO_LOSS for word in words):
        return "other"
    sides = {SIDES[word] for word in words if word in SIDES}
    told = any(word in ("loss", "losses", "err", "error", "cost") for word in words) or len(words) == 1
    return sides.pop() if told and len(sides) == 1 else "other"


def _is_record(head: bytes) -> bool:
    return len(head) == 12 and head[4:8] == b"\0\0\0\0"


def _from_events(path: Path, files: list[Path]) -> TrainingLog:
    found: dict[str, list[tuple[int, float]]] = {}
    notes = []
    for file in files:
        events = read_events(file)
        prefix = f"{file.parent.relative_to(path)}/" if path.is_dir() and file.parent != path else ""
        for tag, points in events.scalars.items():
            found.setdefault(prefix + tag, []).extend(points)
        if events.trouble:
            notes.append(f"{file.name}: {events.trouble}; the {events.records} records before it were read")
        if events.passed:
            notes.append(f"{file.name}: {events.passed} records too large for scalars were passed over")
    curves = [
        _curve(tag, [step for step, _ in points], [value for _, value in points])
        for tag, points in sorted(found.items())
    ]
    return _checked(path, [curve for curve in curves if curve is not None], "step", notes)


def _from_csv(path: Path) -> TrainingLog:
    text = path.read_bytes().decode("utf-8-sig", "replace").replace("\0", "")
    try:
        reader = csv.reader(io.StringIO(text), delimiter=_delimiter(text.splitlines()[:20]))
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"--log {path}: no CSV file ({error})") from error
    if not rows:
        raise UsageError(f"--log {path}: the file is empty")
    names = [cell.strip() for cell in rows[0]]
    if any(_number(cell) is not None for cell in names):
        names, body = [f"column {i + 1}" for i in range(len(names))], rows
    else:
        body = rows[1:]
    whole = [row for row in body if len(row) == len(names)]
    notes = (
        [f"{path.name}: {len(body) - len(whole)} rows of another length were left out"]
        if len(whole) < len(body)
        else []
    )
    columns = [[_number(row[i]) for row in whole] for i in range(len(names))]
    place = _step_column(names, columns)
    steps = list(range(len(whole))) if place is None else columns[place]
    notes += [f"{path.name}: no column of steps was found, rows are counted"] if place is None else []
    curves = [_curve(name, steps, columns[i]) for i, name in enumerate(names) if i != place]
    step_name = "row" if place is None else names[place]
    return _checked(path, [curve for curve in curves if curve is not None], step_name, notes)


def _delimiter(lines: list[str]) -> str:
    """What occurs equally often in most lines; a comma last, as it may be a decimal one."""
    for mark in "\t;|":
        counts = [line.count(mark) for line in lines if line.strip()]
        if counts and counts[0] and sum(count == counts[0] for count in counts) >= 0.7 * len(counts):
            return mark
    return ","


def _number(cell: str) -> float | None:
    try:
        return float(cell.strip().replace(",", ".")) if cell.strip() else None
    except ValueError:
        return None


def _step_column(names: list[str], columns: list[list[float | None]]) -> int | None:
    """The column that counts steps: called so, the finest one first, with numbers that rise from row to row."""
    for wanted in STEPS:
        for i, name in enumerate(names):
            values = [value for value in columns[i] if value is not None]
            rises = len(values) > 1 and all(a < b for a, b in pairwise(values))
            if re.sub(r"\W", "_", name.lower()) == wanted and rises:
                return i
    return None


def _curve(name: str, steps: list[int] | list[float | None], values: list[float] | list[float | None]) -> Curve | None:
    """The curve of one column; None where none of it is a number."""
    pairs = [(step, value) for step, value in zip(steps, values, strict=True) if step is not None and value is not None]
    if not pairs:
        return None
    x, y = np.asarray(pairs, np.float64).T
    fine = np.isfinite(y) & np.isfinite(x)
    broken = float(x[~fine][0]) if not fine.all() else None
    order = np.argsort(x[fine], kind="stable")
    return Curve(name, x[fine][order], y[fine][order], role_of(name), len(values) - len(pairs), broken)


def _checked(path: Path, curves: list[Curve], step_name: str, notes: list[str]) -> TrainingLog:
    if not curves:
        why = f"; {notes[0]}" if notes else ""
        raise UsageError(
            f"--log {path}: no numbers in it; expected a CSV file with a header, or TensorBoard scalars{why}"
        )
    return TrainingLog(path.name, tuple(curves), step_name, tuple(notes))
