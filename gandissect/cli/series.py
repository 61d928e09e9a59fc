"""``gandissect series``: the checkpoints of one training, and its losses.

gandissect series run/*.pt --log losses.csv -o out.html
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast

import click

from gandissect.cli.analyze import opening_options, typed
from gandissect.cli.compare import ReportOptions, labels, report_options, write_comparison
from gandissect.errors import UsageError

Order = Literal["natural", "given", "time"]
COUNTED = ("epoch", "epochs", "step", "steps", "iter", "iters", "iteration", "iterations", "kimg", "batch")


@click.command()
@click.argument("checkpoints", nargs=-1)
@click.option(
    "--order",
    type=click.Choice(["natural", "given", "time"]),
    default="natural",
    help="By numbers in the names (epoch_2 before epoch_10), as typed, or by the files' times.",
)
@click.option(
    "--log", "log_path", type=click.Path(path_type=Path), help="Losses: a CSV file, a TensorBoard event file or folder."
)
@opening_options
@report_options
def series(checkpoints: tuple[str, ...], **given: object) -> int:
    """Follow a training through its CHECKPOINTS, its --log, or both, in one HTML file with its JSON beside it.

    The report goes to gandissect-reports/series.html unless -o says otherwise. All checkpoints are opened one after the
    other on the same latents; only one is in memory at a time.
    """
    opened, made = typed(given, ReportOptions)
    paths = in_order(matched_files(checkpoints), cast(Order, given["order"]))
    log_path = cast("Path | None", given["log_path"])
    if not paths and log_path is None:
        raise UsageError("no checkpoints and no log; type: gandissect series run/*.pt, or --log losses.csv")
    log = None
    if log_path is not None:
        from gandissect.comparing.training_log import read_log

        log = read_log(log_path)
    names = labels(paths)
    places, axis = numbered(names)
    return write_comparison(
        paths,
        names,
        opened,
        made,
        of="series",
        target=made.output or Path("gandissect-reports") / "series.html",
        places=places,
        axis=axis,
        log=log,
    )


def matched_files(typed: Sequence[str]) -> list[Path]:
    """The files that were typed; patterns that the shell left as they are stand for the files they match.

    Raises:
        UsageError: a pattern that matches nothing.
    """
    from gandissect.files.fetching import fetched, is_address

    found: list[Path] = []
    for text in typed:
        if is_address(text):
            found.append(fetched(text))
        elif Path(text).exists() or not glob.has_magic(text):
            found.append(Path(text))
        else:
            files = sorted(glob.glob(text, recursive=True))
            if not files:
                raise UsageError(f"no files match {text!r}")
            found += [Path(file) for file in files]
    return list(dict.fromkeys(found))


def in_order(paths: Sequence[Path], order: Order) -> list[Path]:
    """The checkpoints in the order of training.

    Raises:
        UsageError: times are asked of a file that is not there.
    """
    if order == "given":
        return list(paths)
    if order == "time":
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise UsageError(f"--order time: no file {missing[0]}")
        return sorted(paths, key=lambda path: (path.stat().st_mtime, _natural(str(path))))
    return sorted(paths, key=lambda path: _natural(str(path.with_suffix(""))))


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A key by which numbers in names sort as numbers, and a name without the number (``G``, the final one) after ``G_9``."""
    parts = re.findall(r"\d+|\D+", text)
    return [*((0, int(part), "") if part.isdigit() else (1, 0, part.rstrip("_-. ")) for part in parts), (2, 0, "")]


def numbered(names: Sequence[str]) -> tuple[tuple[float, ...], str]:
    """(place of each name on the axis, what the axis counts): the number in the names that rises, else 1, 2, 3, …

    Where a word such as "epoch" stands before that number it names the axis; otherwise it is "no.".
    """
    numbers = [re.findall(r"\d+", name) for name in names]
    if len(names) > 1 and len({len(found) for found in numbers}) == 1:
        for place in range(len(numbers[0])):
            values = [int(found[place]) for found in numbers]
            if all(a < b for a, b in pairwise(values)):
                before = re.split(r"\d+", names[0])[place].lower()
                words = [word for word in re.findall(r"[a-z]+", before) if word in COUNTED]
                return tuple(float(value) for value in values), words[-1] if words else "no."
    return tuple(float(i + 1) for i in range(len(names))), "checkpoint"
