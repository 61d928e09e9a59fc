"""``gandissect analyze`` and ``gandissect demo``.

gandissect analyze ckpt.pt -a dissection --set dissection.quantile=0.005 -n 2000 -o report.html
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click

from gandissect.cli.console import bars
from gandissect.cli.settings import parse_assignments, parse_assumptions, parse_latent, parse_literals, read_config
from gandissect.cli.source import located
from gandissect.errors import EXIT_INTERRUPTED, EXIT_SECTION_FAILED, UsageError

if TYPE_CHECKING:
    from gandissect.gan import Gan
    from gandissect.passes.cache import Cache
    from gandissect.passes.sharding import Shard
    from gandissect.plugins import Registry
    from gandissect.real import RealImages
    from gandissect.report import Report

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


def opening_options(command: F) -> F:
    """The options that say how a file is opened; shared by all commands that open one."""
    for add in reversed(
        [
            click.option("--discriminator", metavar="FILE", help="Discriminator: a checkpoint, or file.py:Class."),
            click.option(
                "--generator",
                metavar="CODE",
                help="file.py:Class or package.module:factory; not needed where recognised.",
            ),
            click.option("--set-generator", multiple=True, metavar="K=V", help="Keyword argument for it; repeatable."),
            click.option(
                "--set-discriminator", multiple=True, metavar="K=V", help="The same for the discriminator's class."
            ),
            click.option("--latent", metavar="SHAPE", help="Shape of one latent, such as 100 or 100,1,1."),
            click.option(
                "--assume",
                multiple=True,
                metavar="K=V",
                help="Override what is searched: activation=lrelu0.2,prior=uniform.",
            ),
            click.option("--adapter", metavar="NAME", help="Open with this adapter."),
            click.option("--trust", is_flag=True, help="Allow running code that comes out of the file."),
            click.option("--device", default=None, metavar="NAME", help="auto (default), cpu, cuda, cuda:1, mps."),
            click.option(
                "--plugin",
                "plugin_files",
                multiple=True,
                type=click.Path(path_type=Path),
                help="A Python file that is a plugin.",
            ),
            click.option("--disable-plugin", multiple=True, metavar="NAME", help="Do not load this plugin."),
        ]
    ):
        command = add(command)
    return command


def run_options(command: F) -> F:
    """The options of a run; shared by ``analyze`` and ``demo``."""
    for add in reversed(
        [
            click.option(
                "-o", "--output", type=click.Path(path_type=Path), help="Report to write (.html, .json or .md)."
            ),
            click.option("-a", "--analyzers", metavar="NAMES", help="Comma-separated; all by default."),
            click.option("--skip", metavar="NAMES", help="Analyzers to leave out."),
            click.option("-n", "--samples", type=click.IntRange(min=1), help="Number of samples (1000)."),
            click.option("--seed", type=int, help="All randomness follows from it (0)."),
            click.option(
                "--batch-size", type=click.IntRange(min=1), help="Samples in memory at a time; changes no number."
            ),
            click.option(
                "--concepts",
                multiple=True,
                metavar="NAME",
                help="Vocabulary: a name, masks:FOLDER or file.py:function.",
            ),
            click.option("--data", metavar="SOURCE", help="Real images: folder, zip, npz, npy, torchvision:NAME@ROOT."),
            click.option(
                "--set", "settings", multiple=True, metavar="A.K=V", help="Option of an analyzer; repeatable."
            ),
            click.option("--config", type=click.Path(path_type=Path), help="TOML file with the same settings."),
            click.option(
                "--max-size", type=float, metavar="MB", help="Largest report; pictures get coarser to fit (25)."
            ),
            click.option(
                "--processes", type=click.IntRange(min=1), default=1, help="Share the work among so many (1)."
            ),
            click.option("--resume", is_flag=True, help="Go on where a run that was killed left off."),
            click.option(
                "--cache",
                metavar="FOLDER",
                help="Where finished parts are kept for --resume (REPORT.cache); 'none' keeps none.",
            ),
            click.option("--keep-cache", is_flag=True, help="Leave them there when the report is written."),
            click.option("--strict", is_flag=True, help="Stop at the first exception of an analyzer."),
            click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout."),
            click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
        ]
    ):
        command = add(command)
    return command


@dataclass(frozen=True)
class RunOptions:
    """What was typed for a run."""

    output: Path | None
    analyzers: str | None
    skip: str | None
    samples: int | None
    seed: int | None
    batch_size: int | None
    concepts: tuple[str, ...]
    data: str | RealImages | None
    settings: tuple[str, ...]
    config: Path | None
    max_size: float | None
    processes: int
    resume: bool
    cache: str | None
    keep_cache: bool
    strict: bool
    as_json: bool
    quiet: bool


@dataclass(frozen=True)
class OpenOptions:
    """What was typed about the file."""

    discriminator: str | None = None
    generator: str | None = None
    set_generator: tuple[str, ...] = ()
    set_discriminator: tuple[str, ...] = ()
    latent: str | None = None
    assume: tuple[str, ...] = ()
    adapter: str | None = None
    trust: bool = False
    device: str | None = None
    plugin_files: tuple[Path, ...] = ()
    disable_plugin: tuple[str, ...] = ()


@click.command()
@click.argument("checkpoint", callback=located)
@opening_options
@run_options
def analyze(checkpoint: Path, **given: object) -> int:
    """Explain CHECKPOINT in one HTML file, with its JSON beside it.

    The report goes to gandissect-reports/NAME.html unless -o says otherwise. Exit code 3 means that the report was
    written and a section of it failed.
    """
    opened, run = typed(given, RunOptions)
    return run_analysis(checkpoint, opened, run)


@click.command()
@run_options
@click.option("--device", default=None, metavar="NAME", help="auto (default), cpu, cuda.")
def demo(**given: object) -> int:
    """Analyze the bundled GAN of procedural scenes with its segmenter and training pictures: no file, no network."""
    from gandissect.demo import demo_checkpoint, demo_real_images

    opened, run = typed(given, RunOptions)
    config, _ = read_config(run.config)
    bundled = {
        "concepts": run.concepts or tuple(words(config.get("concepts"))) or ("default", "demo"),
        "data": run.data or config.get("data") or demo_real_images(),
    }
    return run_analysis(demo_checkpoint(), opened, RunOptions(**{**vars(run), **bundled}))


def typed(given: dict[str, object], kind: type[T]) -> tuple[OpenOptions, T]:
    """What was typed, as what opens files and as the fields of another dataclass, such as :class:`RunOptions`."""
    opening = {name: value for name, value in given.items() if name in OpenOptions.__dataclass_fields__}
    rest = {field.name: given[field.name] for field in fields(kind) if field.name in given}  # type: ignore[arg-type]  # a dataclass
    return OpenOptions(**opening), kind(**rest)  # type: ignore[arg-type]  # click converted them


def open_with(
    checkpoint: Path, opened: OpenOptions, registry: Registry | None = None, device: str | None = None
) -> Gan:
    """The Gan in ``checkpoint``, opened as typed."""
    import gandissect
    from gandissect.plugins import load_plugins

    return gandissect.open(
        checkpoint,
        discriminator=opened.discriminator,
        generator=opened.generator,
        settings=parse_literals(opened.set_generator, "--set-generator"),
        discriminator_settings=parse_literals(opened.set_discriminator, "--set-discriminator"),
        latent=parse_latent(opened.latent),
        assume=parse_assumptions(opened.assume),
        adapter=opened.adapter,
        trust=opened.trust,
        device=opened.device or device or "auto",
        registry=registry or load_plugins(opened.plugin_files, opened.disable_plugin),
    )


def run_analysis(checkpoint: Path, opened: OpenOptions, run: RunOptions) -> int:
    """Open, analyze, write; the exit code. In several processes the first one writes and speaks."""
    from gandissect.passes.sharding import joined, several

    if run.processes > 1 and not several():
        from gandissect.cli.processes import in_processes

        return in_processes(run.processes, click.get_current_context().obj)
    with joined() as shard:
        return _analyze_in(shard, checkpoint, opened, run)


def _analyze_in(shard: Shard, checkpoint: Path, opened: OpenOptions, run: RunOptions) -> int:
    quiet = run.quiet or not shard.first
    config, tables = read_config(run.config)
    options = {name: dict(table) for name, table in tables.items()}
    for name, values in parse_assignments(run.settings).items():
        options.setdefault(name, {}).update(values)
    target = run.output or Path("gandissect-reports") / f"{checkpoint.stem}.html"
    if target.suffix not in (".html", ".json", ".md"):
        raise UsageError(f"-o {target}: expected a name that ends in .html, .json or .md")

    from gandissect.plugins import load_plugins
    from gandissect.run import analyze as run_all
    from gandissect.run import planned
    from gandissect.vocabulary import build_vocabulary

    files = (*opened.plugin_files, *(Path(name) for name in words(config.get("plugins"))))
    registry = load_plugins(files, (*opened.disable_plugin, *words(config.get("disable"))))
    if not quiet:
        name_broken(registry)
    # what is typed wrong is said before a file is opened
    chosen = words(run.analyzers or config.get("analyzers")) or None
    plan = planned(chosen, options, words(run.skip or config.get("skip")), registry)
    vocabulary = build_vocabulary(run.concepts or words(config.get("concepts")) or ("default",), registry)
    gan = open_with(checkpoint, opened, registry, cast("str | None", config.get("device")) or _own_device(shard))
    cache = _cache(run, target, quiet)
    with bars(quiet=quiet or run.as_json) as progress:
        report = run_all(
            gan,
            plan,
            n=run.samples or _integer(config, "n", 1000),
            seed=run.seed if run.seed is not None else _integer(config, "seed", 0),
            concepts=vocabulary.segmenters,
            data=run.data or cast("str | None", config.get("data")),
            batch_size=run.batch_size or _integer(config, "batch_size", 64),
            registry=registry,
            progress=progress,
            strict=run.strict,
            command=shlex.join(["gandissect", *sys.argv[1:]]),
            shard=shard,
            cache=cache,
        )
    if not shard.first:
        return EXIT_INTERRUPTED if report.interrupted else 0
    report.save(target, max_size=int((run.max_size or 25.0) * 1e6))
    if cache is not None and not run.keep_cache and not report.interrupted:
        cache.remove()
    say_report(report, target, as_json=run.as_json, quiet=run.quiet)
    return EXIT_INTERRUPTED if report.interrupted else EXIT_SECTION_FAILED if report.failed else 0


def _own_device(shard: Shard) -> str | None:
    """A GPU for each process of this machine, where there are any; None leaves the choice to ``auto``."""
    import torch

    if shard.size == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', shard.rank)) % torch.cuda.device_count()}"


def _cache(run: RunOptions, target: Path, quiet: bool) -> Cache | None:
    """Where finished parts are kept, after a word on those that an earlier run left there."""
    from gandissect.passes.cache import Cache

    if run.cache == "none":
        return None

    def say(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    cache = Cache(Path(run.cache or target.with_suffix(".cache")), resume=run.resume, say=say)
    if cache.files and not run.resume:
        say(f"{cache.folder} holds parts of an earlier run; --resume goes on from them")
    return cache


def name_broken(registry: Registry) -> None:
    """Name every broken plugin on stderr."""
    for plugin in registry.plugins:
        if plugin.broken:
            click.echo(f"plugin {plugin.name} was not loaded: {plugin.status}", err=True)


def say_report(report: Report, target: Path, *, as_json: bool, quiet: bool) -> None:
    """Findings and what was not done on stderr, the report's path (or the report as JSON) on stdout."""
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False))
        return
    if quiet:
        return
    for finding, _ in report.findings():
        click.echo(f"• {finding.text.replace('**', '')}  [{finding.trust.label}]", err=True)
    for section in report.sections:
        if section.status in ("skipped", "failed"):
            click.echo(f"{section.status}: {section.title}: {section.summary}", err=True)
    if report.interrupted:
        click.echo("interrupted: the report holds what was done", err=True)
    click.echo(str(target))


def words(value: object) -> tuple[str, ...]:
    """A comma-separated string or a list of strings."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    if isinstance(value, Sequence):
        return tuple(str(word) for word in value)
    raise UsageError(f"expected a list of names, got {value!r}")


def _integer(config: dict[str, object], key: str, default: int) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UsageError(f"setting {key}: expected a whole number, got {value!r}")
    return value
