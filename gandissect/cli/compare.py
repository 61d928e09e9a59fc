"""``gandissect compare``: two checkpoints on the same latents.

gandissect compare a.pt b.pt --data photos/ -o out.html
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from gandissect.cli.analyze import OpenOptions, name_broken, open_with, opening_options, say_report, typed, words
from gandissect.cli.console import bars
from gandissect.cli.settings import parse_assignments
from gandissect.cli.source import located
from gandissect.errors import EXIT_SECTION_FAILED, NotOpened, UsageError

if TYPE_CHECKING:
    from gandissect.comparer import Kind, Source
    from gandissect.comparing.training_log import TrainingLog
    from gandissect.plugins import Registry

F = TypeVar("F", bound=Callable[..., object])


def report_options(command: F) -> F:
    """The options of a comparison; shared by ``compare`` and ``series``."""
    for add in reversed(
        [
            click.option(
                "-o", "--output", type=click.Path(path_type=Path), help="Report to write (.html, .json or .md)."
            ),
            click.option("-a", "--comparisons", metavar="NAMES", help="Comma-separated; all by default."),
            click.option("--skip", metavar="NAMES", help="Comparisons to leave out."),
            click.option(
                "--data",
                metavar="SOURCE",
                help="Real images to compare with: folder, zip, npz, npy, torchvision:NAME@ROOT.",
            ),
            click.option("-n", "--samples", type=click.IntRange(min=1), default=500, help="Samples of each (500)."),
            click.option("--seed", type=int, default=0, help="All randomness follows from it (0)."),
            click.option("--concepts", multiple=True, metavar="NAME", help="Vocabulary, as for analyze; repeatable."),
            click.option(
                "--set", "settings", multiple=True, metavar="C.K=V", help="Option of a comparison; repeatable."
            ),
            click.option("--max-size", type=float, default=25.0, metavar="MB", help="Largest report (25)."),
            click.option("--strict", is_flag=True, help="Stop at the first exception of a comparison."),
            click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout."),
            click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
        ]
    ):
        command = add(command)
    return command


@dataclass(frozen=True)
class ReportOptions:
    """What was typed for a comparison."""

    output: Path | None
    comparisons: str | None
    skip: str | None
    data: str | None
    samples: int
    seed: int
    concepts: tuple[str, ...]
    settings: tuple[str, ...]
    max_size: float
    strict: bool
    as_json: bool
    quiet: bool


@click.command()
@click.argument("first", callback=located)
@click.argument("second", callback=located)
@opening_options
@report_options
def compare(first: Path, second: Path, **given: object) -> int:
    """Compare SECOND with FIRST on the same latents in one HTML file, with its JSON beside it.

    The report goes to gandissect-reports/FIRST-against-SECOND.html unless -o says otherwise. With --data it says which of the two
    is nearer to these real images. Comparisons that are impossible (other latents, no layers) are skipped and say why.
    """
    opened, made = typed(given, ReportOptions)
    names = labels([first, second])
    target = (
        made.output or Path("gandissect-reports") / f"{'-against-'.join(name.replace('/', '-') for name in names)}.html"
    )
    return write_comparison([first, second], names, opened, made, of="pair", target=target)


def labels(paths: Sequence[Path]) -> list[str]:
    """What each checkpoint is called: its stem, with folders before it where those are not all different, numbered where it is one file."""
    for depth in range(1, 4):
        names = ["/".join((*path.parts[:-1][-depth + 1 :][: depth - 1], path.stem)) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.stem} ({number + 1})" for number, path in enumerate(paths)]


def write_comparison(
    paths: Sequence[Path],
    names: Sequence[str],
    opened: OpenOptions,
    made: ReportOptions,
    *,
    of: Kind,
    target: Path,
    places: Sequence[float] = (),
    axis: str = "checkpoint",
    log: TrainingLog | None = None,
) -> int:
    """Open, compare, write; the exit code."""
    if target.suffix not in (".html", ".json", ".md"):
        raise UsageError(f"-o {target}: expected a name that ends in .html, .json or .md")
    for path in paths:
        if "::" not in str(path) and not path.exists():
            raise NotOpened(f"{path}: no such file or folder")

    from gandissect.comparing.compare import compare as run_all
    from gandissect.plugins import load_plugins

    registry = load_plugins(opened.plugin_files, opened.disable_plugin)
    if not made.quiet:
        name_broken(registry)
    with bars(quiet=made.quiet or made.as_json) as progress:
        report = run_all(
            _sources(paths, names, places, opened, registry),
            of=of,
            n=made.samples,
            seed=made.seed,
            concepts=made.concepts or ("default",),
            data=made.data,
            log=log,
            axis=axis,
            options=parse_assignments(made.settings),
            only=words(made.comparisons) or None,
            skip=words(made.skip),
            registry=registry,
            progress=progress,
            strict=made.strict,
            command=shlex.join(["gandissect", *sys.argv[1:]]),
        )
    report.save(target, max_size=int(made.max_size * 1e6))
    say_report(report, target, as_json=made.as_json, quiet=made.quiet)
    return EXIT_SECTION_FAILED if report.failed else 0


def _sources(
    paths: Sequence[Path], names: Sequence[str], places: Sequence[float], opened: OpenOptions, registry: Registry
) -> list[Source]:
    from gandissect.comparer import Source

    where = places or range(1, len(paths) + 1)
    return [
        Source(name, partial(open_with, path, opened, registry), float(place))
        for path, name, place in zip(paths, names, where, strict=True)
    ]
