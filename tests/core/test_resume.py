import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from gandissect.analyzer import Analyzer
from gandissect.blocks import Section, Table
from gandissect.concepts import CallableSegmenter
from gandissect.passes.cache import Cache, want_key
from gandissect.reducers import CrossSpec, KeepSpec, MomentsSpec, TailSpec
from gandissect.report import Report
from gandissect.run import analyze
from gandissect.session import Activations, Areas, CellAreas, Images, Session, Want
from gandissect.streams import Derived
from gandissect.testing import tiny_gan


def is_bright(images: torch.Tensor) -> torch.Tensor:
    return images.mean(1) > 0


class Everything(Analyzer):
    """The sum of all bits of some evidence."""

    name = "everything"

    def wants(self, session: Session) -> Iterable[Want]:
        act, n = Activations("act2"), session.n
        return [
            Want((act,), MomentsSpec(), n),
            Want((act,), TailSpec(50), n),
            Want((act, CellAreas(8, 8)), CrossSpec(), n - 40),
            Want((Areas(),), KeepSpec(), n),
            Want((Derived("mean", lambda images: images.mean((1, 2, 3))),), KeepSpec(), n),
        ]

    def run(self, session: Session) -> Iterator[Section]:
        rows = []
        for want in self.wants(session):
            result = session[want] if not isinstance(want.streams[0], Derived) else session.images()
            values = [result] if isinstance(result, torch.Tensor) else vars(result).values()
            rows += [[float(value.double().sum()).hex()] for value in values if isinstance(value, torch.Tensor)]
        yield Section("Evidence", Table(("sum",), rows))


class Counted:
    """Counts the samples that are generated, and stops the run when there are ``limit``."""

    def __init__(self, limit: int = 10**9) -> None:
        self.gan, self.seen = tiny_gan("random"), 0
        forward = self.gan.generator.module.forward

        def counting(z: torch.Tensor) -> torch.Tensor:
            self.seen += len(z)
            if self.seen - len(z) <= limit < self.seen:
                raise KeyboardInterrupt
            return forward(z)  # type: ignore[no-any-return]

        self.gan.generator.module.forward = counting


def report_of(counted: Counted, n: int = 300, seed: int = 0, **options: object) -> Report:
    concepts = [CallableSegmenter(is_bright, ["bright"])]
    report = analyze(counted.gan, [Everything], n=n, seed=seed, concepts=concepts, **options)  # type: ignore[arg-type]
    assert not report.failed
    return report


def told(report: Report) -> str:
    """Everything in the report but the times."""
    text = report.to_dict()
    assert isinstance(text["provenance"], dict)
    provenance = {
        key: value for key, value in text["provenance"].items() if key not in ("seconds", "created", "command")
    }
    sections = [{**section, "seconds": 0} for section in text["sections"]]  # type: ignore[union-attr,dict-item]
    return json.dumps({**text, "provenance": provenance, "sections": sections})


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder with what a run left behind that was stopped after 200 of 300 samples."""
    folder = tmp_path / "parts"
    counted = Counted(200)
    assert report_of(counted, cache=Cache(folder, seconds=0)).interrupted
    assert list(folder.glob("part-*"))
    return folder


def test_a_resumed_run_gives_the_report_of_an_undisturbed_one(killed: Path) -> None:
    counted, undisturbed = Counted(), Counted()
    resumed = report_of(counted, cache=Cache(killed, resume=True))
    assert told(resumed) == told(report_of(undisturbed))


def test_what_is_on_disk_is_not_generated_again(tmp_path: Path) -> None:
    wants = [Want((Activations("act2"),), MomentsSpec(), 300), Want((Images(),), KeepSpec(), 300)]
    cut = Counted(200)
    with pytest.raises(KeyboardInterrupt):
        Session(cut.gan, n=300, cache=Cache(tmp_path, seconds=0)).prepare(wants)
    resumed, plain = Counted(), Counted()
    Session(resumed.gan, n=300, cache=Cache(tmp_path, resume=True)).prepare(wants)
    Session(plain.gan, n=300).prepare(wants)
    assert resumed.seen <= plain.seen - 128


@pytest.mark.parametrize("change", ["seed", "weights", "batch size"])
def test_parts_of_another_run_are_not_used_and_one_line_says_so(killed: Path, change: str) -> None:
    def changed(cache: Cache | None = None) -> Report:
        counted = Counted()
        if change == "weights":
            with torch.no_grad():
                counted.gan.generator.module.get_parameter("to_rgb.bias")[0] += 1e-6
        seed, batch = (5 if change == "seed" else 0), (7 if change == "batch size" else 64)
        return report_of(counted, seed=seed, batch_size=batch, cache=cache)

    lines: list[str] = []
    resumed = changed(cache=Cache(killed, resume=True, say=lines.append))
    assert told(resumed) == told(changed())
    assert len(lines) == 1
    assert "of another run" in lines[0]


def test_a_file_cut_off_at_any_byte_is_ignored(killed: Path) -> None:
    draws, expected = Random(0), told(report_of(Counted()))
    for path in sorted(killed.glob("part-*"))[::2]:
        whole = path.read_bytes()
        path.write_bytes(whole[: draws.randrange(len(whole))])
    (killed / "part-x.safetensors.writing").write_bytes(b"half")
    assert told(report_of(Counted(), cache=Cache(killed, resume=True))) == expected


def test_parts_that_overlap_count_once(killed: Path) -> None:
    assert report_of(Counted(150), cache=Cache(killed, seconds=0)).interrupted
    assert told(report_of(Counted(), cache=Cache(killed, resume=True))) == told(report_of(Counted()))


def test_the_cache_is_removed_and_a_stranger_in_its_folder_stays(killed: Path) -> None:
    (killed / "notes.txt").write_text("mine")
    Cache(killed).remove()
    assert [path.name for path in killed.iterdir()] == ["notes.txt"]
    (killed / "notes.txt").unlink()
    Cache(killed).remove()
    assert not killed.exists()


def test_a_folder_that_cannot_be_written_costs_one_line_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    lines: list[str] = []
    report = report_of(Counted(), cache=Cache(tmp_path / "file" / "parts", seconds=0, say=lines.append))
    assert told(report) == told(report_of(Counted()))
    assert len(lines) == 1
    assert "going on without" in lines[0]


def test_a_want_with_a_function_in_it_is_not_kept() -> None:
    assert want_key(Want((Derived("x", is_bright),), KeepSpec(), 5)) == ""
    assert want_key(Want((Images(),), KeepSpec(), 5)) != want_key(Want((Images(),), KeepSpec(), 6)) != ""


KILLED = """
import sys, time, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_resume import Cache, Counted, report_of
counted = Counted()
forward = counted.gan.generator.module.forward
def slow(z):
    time.sleep(0.05)
    return forward(z)
counted.gan.generator.module.forward = slow
report_of(counted, n=2000, cache=Cache(Path(sys.argv[1]), seconds=0.05))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_with_sigkill_resumes_to_the_same_report(tmp_path: Path, seed: int) -> None:
    folder, draws = tmp_path / "parts", Random(seed)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent)])
    deadline = time.monotonic() + 60
    while len(list(folder.glob("part-*"))) < draws.randint(2, 6) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(draws.random() / 5)
    process.kill()
    assert process.wait() == -9
    resumed = report_of(Counted(), n=2000, cache=Cache(folder, resume=True))
    assert told(resumed) == told(report_of(Counted(), n=2000))
