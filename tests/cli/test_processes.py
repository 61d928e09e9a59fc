import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gandissect.cli import main
from gandissect.cli.analyze import analyze
from gandissect.testing import PlantedGenerator

pytestmark = pytest.mark.slow
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
GANDISSECT = [sys.executable, "-m", "gandissect"]
PLUGIN = """
import os, time
from gandissect import Analyzer, Section, hookimpl
RANK = os.environ.get("RANK", "0")
class Fails(Analyzer):
    name = "fails"
    def run(self, session):
        if RANK == "1":
            raise SystemError("only here")
        yield Section("Different")
class Uneven(Analyzer):
    name = "uneven"
    def run(self, session):
        if RANK == "1":
            session.generate(session.latents(40))
        session.generate(session.latents(50))
        yield Section("Never")
class Dies(Analyzer):
    name = "dies"
    def run(self, session):
        if RANK == "1":
            os._exit(9)
        session.generate(session.latents())
        yield Section("Never")
class Waits(Analyzer):
    name = "waits"
    order = 900
    def run(self, session):
        yield Section("Before the wait")
        open(f"waiting{RANK}", "w").close()
        time.sleep(100)
class Threads(Analyzer):
    name = "threads"
    def run(self, session):
        import threadpoolctl, torch
        pools = threadpoolctl.threadpool_info()
        counts = {torch.get_num_threads(), *(pool["num_threads"] for pool in pools)}
        all_counts = session.share_out("counts", [lambda: counts] * session.shard.size)
        yield Section("Threads", summary=str(max(map(max, all_counts))))
@hookimpl
def register_analyzers():
    return [Fails, Uneven, Dies, Waits, Threads]
@hookimpl
def section_done(section, session):
    with open(f"told{RANK}", "a") as file:
        file.write(section.title + "\\n")
@hookimpl
def report_done(report):
    return [Section("Added", summary=f"by process {RANK}")]
"""


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """The arguments that open a tiny GAN, with a plugin of analyzers that misbehave."""
    (tmp_path / "mine.py").write_text(
        "from gandissect.testing import PlantedGenerator as G\ndef build():\n    return G()\n"
    )
    (tmp_path / "misbehaving.py").write_text(PLUGIN)
    torch.save(PlantedGenerator().state_dict(), tmp_path / "g.pt")
    files = ["--generator", "mine.py:build", "--plugin", "misbehaving.py"]
    return ["analyze", "g.pt", *files, "-n", "100", "--concepts", "colours", "-q"]


def run(command: list[str], folder: Path, threads: int = 1) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False, timeout=280
    )


def told(path: Path) -> dict[str, object]:
    """Everything in a report's JSON but times and the command."""
    report = json.loads(path.read_text())
    for key in ("seconds", "created", "command"):
        report["provenance"].pop(key)
    for section in report["sections"]:
        section.pop("seconds", None)
    return report  # type: ignore[no-any-return]


def test_one_two_and_three_processes_and_torchrun_write_the_same_report(given: list[str], tmp_path: Path) -> None:
    chosen = ["-a", "overview,dissection,features", "--set", "features.methods=pca,tsne"]
    for count in (1, 2, 3):
        done = run([*GANDISSECT, *given, *chosen, "--processes", str(count), "-o", f"{count}.json"], tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    done = run([*LAUNCHER, *GANDISSECT, *given, *chosen, "-o", "torchrun.json"], tmp_path)
    assert done.returncode == 0, done.stderr
    reports = [told(tmp_path / f"{name}.json") for name in ("1", "2", "3", "torchrun")]
    assert all(report == reports[0] for report in reports)
    assert not list(tmp_path.glob("*.cache"))


def test_processes_share_the_threads_and_only_the_first_calls_hooks(given: list[str], tmp_path: Path) -> None:
    done = run([*GANDISSECT, *given, "-a", "threads", "--processes", "2", "-o", "r.json"], tmp_path, threads=4)
    assert (done.returncode, done.stderr) == (0, "")
    sections = json.loads((tmp_path / "r.json").read_text())["sections"]
    assert [(section["title"], section["summary"]) for section in sections] == [
        ("Threads", str(max(1, min(4, os.cpu_count() or 1) // 2))), ("Added", "by process 0"),
    ]  # fmt: skip
    assert [path.name for path in tmp_path.glob("told*")] == ["told0"]


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_a_mistyped_option_is_said_by_the_first_process_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str, lines: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", "--nope"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == lines


@pytest.mark.parametrize(("name", "words"), [("uneven", "went different ways"), ("dies", "another process ended")])
def test_processes_that_come_apart_end_all_with_one_line(
    given: list[str], tmp_path: Path, name: str, words: str
) -> None:
    began = time.monotonic()
    done = run([*GANDISSECT, *given, "-a", f"overview,{name}", "--processes", "2", "-o", "r.json"], tmp_path)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("ProcessesApart") == 1
    assert not (tmp_path / "r.json").exists()
    assert time.monotonic() - began < 120


def test_an_error_that_all_processes_meet_is_said_once(given: list[str], tmp_path: Path) -> None:
    done = run([*GANDISSECT, *given, "-a", "overvew", "--processes", "2", "-o", "r.json"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("no analyzer 'overvew'") == 1


def test_ctrl_c_writes_what_is_done(given: list[str], tmp_path: Path) -> None:
    command = [*GANDISSECT, *given, "-a", "overview,waits", "--processes", "2", "-o", "r.json"]
    process = subprocess.Popen(
        command, cwd=tmp_path, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("waiting*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["interrupted"]
    assert "Before the wait" in [section["title"] for section in report["sections"]]


def test_options_of_scale_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    names = {option for parameter in analyze.params for option in parameter.opts}
    for option in ("--processes", "--resume", "--cache", "--keep-cache"):
        assert option in names
        assert option in page
