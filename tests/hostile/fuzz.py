"""Damaged checkpoints without end: each must open or be refused in a sentence, within limits, with nothing of it run.

python tests/hostile/fuzz.py --minutes 60 --seed 1 --keep findings/
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"OMP_NUM_THREADS": "1", "GANDISSECT_STRICT": "1"}

from hostile.mutate import mutate
from hostile.samples import samples
from hostile.trial import Outcome, attempt

import gandissect
from gandissect.errors import GandissectError
from gandissect.files.peek import peek
from gandissect.files.reading import read_tensors
from gandissect.plugins import Registry, load_plugins

_BATCH = 100
_OPENED = 50  # one file in so many is opened, too
_LONG = 3.0  # seconds of the processor
_LARGEST = 2**20


def read(path: Path) -> None:
    """Whatever can be told of a file without building a network."""
    seen = peek(path)
    if seen.container not in ("onnx", "torchscript", "export"):
        read_tensors(seen.path, seen.container)


def read_and_open(path: Path, registry: Registry) -> None:
    """``read`` and, where that works, the adapters as well."""
    read(path)
    gandissect.open(path, device="cpu", registry=registry)


class Fuzzer:
    """Seeds to files to outcomes; one line of the log for each outcome that must not be."""

    def __init__(self, folder: Path, keep: Path, seed: int) -> None:
        self.folder, self.keep, self.seed = folder, keep, seed
        sources = folder / "samples"
        sources.mkdir()
        made = list(samples(sources).values())
        self.sources = [path.read_bytes() for path in made]
        self.suffixes = [path.name.partition(".")[2] for path in made]
        self.registry = load_plugins()
        self.findings: Counter[str] = Counter()

    def make(self, index: int) -> tuple[Path, Callable[[], None]]:
        """File ``index`` and what to do with it."""
        chance = random.Random(f"{self.seed}/{index}")
        which = chance.randrange(len(self.sources))
        path = self.folder / f"G_{index}.{self.suffixes[which]}"
        path.write_bytes(mutate(self.sources[which], chance)[:_LARGEST])
        if chance.randrange(_OPENED) == 0:
            return path, lambda: read_and_open(path, self.registry)
        return path, lambda: read(path)

    def batch(self, start: int) -> int:
        """How many files of one batch are done; where the batch as a whole fails, each is tried in a process of its own."""
        made = [self.make(index) for index in range(start, start + _BATCH)]
        outcome = attempt(lambda: _all([work for _, work in made]), seconds=60)
        if outcome.kind != "opened" or outcome.events:
            for index, (path, work) in enumerate(made, start):
                self._single(index, path, work)
        for path, _ in made:
            path.unlink()
        return len(made)

    def _single(self, index: int, path: Path, work: Callable[[], None]) -> None:
        outcome = attempt(work)
        if outcome.allowed or (outcome.kind == "fault" and _refused(outcome)):
            return
        layer = "open" if "opening.py" in outcome.text else "read"
        key = f"{layer} {outcome.kind} " + outcome.text.strip().rpartition("\n")[2][:160]
        self.findings[key] += 1
        if self.findings[key] <= 3:
            self.keep.mkdir(parents=True, exist_ok=True)
            (self.keep / f"{self.seed}-{path.name}").write_bytes(path.read_bytes())
            print(f"FINDING {self.seed}/{index} {path.name} {outcome.kind} {outcome.events}", flush=True)
            print("    " + "\n    ".join(outcome.text.strip().splitlines()[-7:]), flush=True)


def _refused(outcome: Outcome) -> bool:
    """Whether the last line of a traceback is one of our own errors."""
    last = outcome.text.strip().splitlines()[-1].partition(":")[0]
    return last.rpartition(".")[2] in {kind.__name__ for kind in _kinds(GandissectError)}


def _kinds(kind: type[GandissectError]) -> set[type[GandissectError]]:
    return {kind}.union(*(_kinds(below) for below in kind.__subclasses__()))


def _all(works: list[Callable[[], None]]) -> None:
    """Every piece of work; the first one that ends in anything but a sentence, or takes long, is raised at the end."""
    failed = []
    for work in works:
        started = time.process_time()
        try:
            work()
        except GandissectError:
            pass
        except Exception:
            failed.append(traceback.format_exc())
        if time.process_time() - started > _LONG:
            failed.append("slow")
    if failed:
        raise RuntimeError(failed[0])


def main() -> None:
    """Fuzz until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "gandissect-findings")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), given.keep, given.seed)
        os.chdir(folder)
        started = time.monotonic()
        done = 0
        told = 0.0
        while (spent := time.monotonic() - started) < 60 * given.minutes:
            done += fuzzer.batch(done)
            if spent - told > 60:
                told = spent
                print(f"{spent / 60:.0f} min, {done} files, findings {dict(fuzzer.findings)}", flush=True)
        print(f"done: {done} files in {given.minutes} min, findings {dict(fuzzer.findings)}", flush=True)


if __name__ == "__main__":
    main()
