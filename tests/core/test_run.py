import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest
import torch

import gandissect
from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Section, Table
from gandissect.errors import UnknownName, UsageError
from gandissect.plugins import load_plugins
from gandissect.reducers import KeepSpec
from gandissect.report import Report
from gandissect.run import analyze
from gandissect.session import Images, Session, Want
from gandissect.testing import tiny_gan


class Mean(Analyzer):
    name = "mean"

    def wants(self, session: Session) -> Iterable[Want]:
        return [Want((Images(),), KeepSpec(), session.n)]

    def run(self, session: Session) -> Iterator[Section]:
        yield Section("Mean", Table(("mean",), [[float(session.images().mean())]]))


class Breaks(Analyzer):
    name = "breaks"

    def run(self, session: Session) -> Iterator[Section]:
        yield Section("Before the break")
        raise RuntimeError("as planned")


class Stops(Analyzer):
    name = "stops"
    order = 600

    def run(self, session: Session) -> Iterator[Section]:
        yield Section("Before the stop")
        raise KeyboardInterrupt


class Picky(Analyzer):
    name = "picky"
    needs = Needs(real=True, packages=("there_is_no_such_library",))

    def run(self, session: Session) -> Iterator[Section]:
        yield Section("Never")


class Writes(Analyzer):
    name = "writes"

    def run(self, session: Session) -> Iterator[Section]:
        with torch.no_grad():
            yield Section("Grad mode", summary=str(torch.is_grad_enabled()))


def run(*analyzers: type[Analyzer], **options: object) -> Report:
    return analyze(tiny_gan(), list(analyzers), n=20, concepts=("none",), **options)  # type: ignore[arg-type]


def test_an_exception_becomes_a_failed_section_and_what_came_before_is_kept() -> None:
    report = run(Breaks, Mean)
    assert [(s.title, s.status) for s in report.sections] == [
        ("Before the break", "done"),
        ("Breaks", "failed"),
        ("Mean", "done"),
    ]
    assert "as planned" in report.failed[0].summary
    assert "Traceback" in report.failed[0].details


def test_a_traceback_carries_no_home_folder() -> None:
    assert str(Path.home()) + "/" not in run(Breaks).failed[0].details


def test_strict_lets_the_exception_through() -> None:
    with pytest.raises(RuntimeError, match="as planned"):
        run(Breaks, strict=True)


def test_unmet_needs_become_a_skipped_section_that_says_what_to_pass() -> None:
    section = run(Picky).sections[0]
    assert section.status == "skipped"
    assert "--data" in section.summary
    assert "pip install there_is_no_such_library" in section.summary


def test_an_interrupt_keeps_what_is_done() -> None:
    report = run(Mean, Stops)
    assert report.interrupted
    assert [s.title for s in report.sections] == ["Mean", "Before the stop"]


def test_declared_wants_cost_one_pass() -> None:
    report = run(Mean)
    assert (report.provenance.passes, report.provenance.images_generated) == (1, 20)


def test_an_analyzer_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not an analyzer"):
        analyze(tiny_gan(), [int])  # type: ignore[list-item]


def test_an_unknown_analyzer_or_option_is_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownName, match="overview"):
        analyze(tiny_gan(), ["overvew"])
    with pytest.raises(UnknownName, match="samples"):
        analyze(tiny_gan(), ["overview"], options={"overview": {"sample": 3}})


def test_the_same_seed_gives_the_same_report_and_another_seed_another() -> None:
    first, second, other = (json.dumps(run(Mean, seed=seed).to_dict()["sections"]) for seed in (1, 1, 2))
    assert first == second != other


def test_provenance_names_the_versions_and_options() -> None:
    provenance = run(Mean).provenance
    assert provenance.versions["torch"]
    assert provenance.samples == 20


PLUGIN = """
import click
from gandissect import Adapter, Analyzer, Extractor, Match, Section, Segmenter, Concept, hookimpl
from gandissect.report import Report
seen = []
class Everything(Segmenter):
    name = "everything"
    concepts = (Concept("everything", "test"),)
    def segment(self, images, indices):
        return (images[:, :1] > -9)
class Pixels(Extractor):
    name = "pixels"
    def features(self, images):
        return images.flatten(1)
class Text:
    name, suffix = "text", ".txt"
    def render(self, report, options):
        return report.title
class Never(Adapter):
    name = "never"
    def match(self, peek):
        return None
    def open(self, peek, hints):
        raise NotImplementedError
@hookimpl
def register_adapters():
    return [Never]
@hookimpl
def register_segmenters():
    return [Everything]
@hookimpl
def register_extractors():
    return [Pixels]
@hookimpl
def register_renderers():
    return [Text]
@hookimpl
def register_commands(cli):
    @cli.command()
    def hello():
        click.echo("hello")
@hookimpl
def section_done(section, session):
    seen.append(section.title)
@hookimpl
def report_done(report):
    return [Section("Added", summary=" ".join(seen))]
"""


def test_every_hook_takes_part(tmp_path: Path) -> None:
    path = tmp_path / "everything_plugin.py"
    path.write_text(PLUGIN, "utf-8")
    registry = load_plugins([path])
    assert "never" in [adapter.name for adapter in registry.adapters()]
    assert "pixels" in registry.extractors()
    group = click.Group()
    registry.add_commands(group)
    assert "hello" in group.commands
    report = analyze(tiny_gan(), [Mean], n=5, concepts=["everything"], registry=registry)
    assert (report.sections[-1].title, report.sections[-1].summary) == ("Added", "Mean")
    assert report.save(tmp_path / "r.txt").read_text() == "tiny-planted"
    assert registry.failures == {}


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report = run(Mean)
    with pytest.raises(UsageError, match=r"\.html"):
        report.save(tmp_path / "report.docx")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        report.save(blocked / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_three_lines_of_the_readme_work(tmp_path: Path) -> None:
    gan = gandissect.wrap(tiny_gan().generator.module)
    report = gandissect.analyze(gan, ["overview"], n=20)
    assert "<iframe" in report._repr_html_()
    assert report.save(tmp_path / "out.html").with_suffix(".json").exists()
