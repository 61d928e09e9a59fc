"""Hostile and damaged files open or are refused in a sentence: nothing of them runs, within 10 s and 2 GiB."""

import io
import json
import os
import pickletools
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from gandissect_adapters.graph.script import read as script_graph
from hostile.mutate import mutate
from hostile.samples import MAKERS, samples
from hostile.trial import Outcome, attempt, command_line

from gandissect.errors import NotOpened
from gandissect.files.peek import peek
from gandissect.files.reading import read_tensors

TESTS = Path(__file__).resolve().parents[1]
FAST = ("shapes", "texts", "attacks", "zips", "tars")
SLOW = ("bombs", "pickles", "tensors", "weights", "truncations", "archived")
FLIPPED = ("zip", "legacy", "strange", "pickle", "numpy", "safetensors", "nvlabs")


def prepare() -> None:
    """What is done once, so that the watched processes need not: imports, and a file by which the temporary folder is found."""
    tempfile.gettempdir()
    command_line("layers", "absent.pt")


def made(folder: Path, *groups: str) -> dict[str, list[str]]:
    """The corpus in ``folder``, written by a process of its own: one that has computed cannot fork well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-W", "ignore", "-m", "hostile.make_corpus", str(folder), *groups]
    subprocess.run(command, check=True, env=environment, timeout=200)
    listed: dict[str, list[str]] = json.loads((folder / "corpus.json").read_text())
    return listed


def complaints(path: Path) -> str:
    """What is wrong with how ``gandissect layers`` takes the file; nothing if all is as it should be."""
    outcome = attempt(lambda: command_line("layers", str(path)))
    if outcome.kind != "opened" or outcome.events:
        return f"{outcome.kind} {outcome.events} {outcome.text[-300:]}"
    said = json.loads(outcome.text)
    sentence = said["err"].removesuffix("\n")
    if said["code"] == 0:
        return "" if not sentence and said["out"].replace("\n", "").isprintable() else f"printed {said!r}"
    one_line = sentence.strip() and sentence.isprintable() and said["err"].endswith("\n") and len(sentence) < 1_500
    return "" if said["code"] == 4 and one_line and not said["out"] else f"said {said!r}"


def check(folder: Path, listed: dict[str, list[str]]) -> None:
    prepare()
    wrong = {
        f"{group}/{file}": said
        for group, files in listed.items()
        for file in files
        if (said := complaints(folder / group / file))
    }
    assert wrong == {}
    assert list((folder / "canaries").iterdir()) == [], "code out of a file ran"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("hostile") / "corpus"
    return folder, made(folder, *FAST)


def test_hostile_files_get_one_sentence_and_nothing_of_them_runs(corpus: tuple[Path, dict[str, list[str]]]) -> None:
    assert sum(map(len, corpus[1].values())) >= 100
    check(*corpus)


@pytest.mark.slow
def test_costly_damaged_and_strangely_named_files_get_one_sentence(tmp_path: Path) -> None:
    listed = made(tmp_path / "corpus", *SLOW)
    assert sum(map(len, listed.values())) >= 100
    check(tmp_path / "corpus", listed)


@pytest.mark.slow
def test_the_attacks_are_live_where_their_own_library_opens_them(corpus: tuple[Path, dict[str, list[str]]]) -> None:
    folder = corpus[0]
    names = ["reduce", "stack_global", "inst", "obj", "getattr_chain", "exec", "codecs", "memo", "nested"]
    files = [str(folder / "attacks" / f"{name}.pkl") for name in names]
    code = "import pickle, sys\nfor name in sys.argv[1:]:\n    pickle.load(open(name, 'rb'))"
    subprocess.run([sys.executable, "-c", code, *files], check=True, timeout=100)
    written = list((folder / "canaries").iterdir())
    assert {path.name for path in written} == set(names)
    for path in written:
        path.unlink()


def read(path: Path) -> None:
    seen = peek(path)
    if seen.container not in ("onnx", "torchscript", "export"):
        read_tensors(seen.path, seen.container)


def each_read(paths: list[Path]) -> str:
    """The files that raise anything but NotOpened, as JSON."""
    wrong = []
    for path in paths:
        try:
            read(path)
        except NotOpened:
            pass
        except Exception as error:
            wrong.append(f"{path.name}: {type(error).__name__}: {error}")
    return json.dumps(wrong)


def flipped(raw: bytes, chance: random.Random) -> bytes:
    data = bytearray(raw)
    for _ in range(chance.choice((1, 1, 3))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def damaged(
    folder: Path, count: int, damage: Callable[[bytes, random.Random], bytes], kinds: tuple[str, ...] = tuple(MAKERS)
) -> Outcome:
    """What comes of ``count`` damaged copies of each sample, read one after the other in one watched process."""
    prepare()
    paths = []
    for kind, source in samples(folder, kinds).items():
        raw = source.read_bytes()
        for index in range(count):
            paths.append(source.with_name(f"{index}_{source.name}"))
            paths[-1].write_bytes(damage(raw, random.Random(f"{kind}/{index}")))
    return attempt(partial(each_read, paths), seconds=60)


@pytest.mark.slow
def test_a_thousand_flips_of_bits_open_or_are_refused(tmp_path: Path) -> None:
    outcome = damaged(tmp_path, 150, flipped, FLIPPED)
    assert outcome.allowed, outcome
    assert json.loads(outcome.text) == []


@pytest.mark.slow
def test_damage_that_knows_the_formats_opens_or_is_refused(tmp_path: Path) -> None:
    outcome = damaged(tmp_path, 300, mutate)
    assert outcome.allowed, outcome
    assert json.loads(outcome.text) == []


@pytest.mark.slow
def test_reading_takes_at_most_twice_the_size_of_the_file(tmp_path: Path) -> None:
    code = """if True:
        import argparse, pickle, sys, torch
        torch.set_num_threads(1)
        weights = {f"l{i}.weight": torch.randn(1250, 1000) for i in range(40)}
        torch.save(weights, sys.argv[1] + "/zip.pt")
        torch.save({"g": weights, "args": argparse.Namespace()}, sys.argv[1] + "/ghost.pt")
        torch.save(weights, sys.argv[1] + "/legacy.pt", _use_new_zipfile_serialization=False)
        pickle.dump(weights, open(sys.argv[1] + "/plain.pkl", "wb"))
        pickle.dump({"w": torch.randn(50, 1000, 1000)}, open(sys.argv[1] + "/one.pkl", "wb"))
        pickle.dump({"w": torch.randn(50, 1000, 1000).numpy()}, open(sys.argv[1] + "/array.pkl", "wb"))
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=200)
    prepare()
    before = attempt(lambda: None).peak
    for path in sorted(tmp_path.iterdir()):
        outcome = attempt(partial(read_all, path))
        assert outcome.kind == "opened", outcome
        assert outcome.peak - before < 2 * path.stat().st_size, path.name


def read_all(path: Path) -> None:
    todo: list[object] = [read_tensors(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            todo += node.values()
        elif isinstance(node, torch.Tensor):
            node.numpy().max()


def beyond_the_text(raw: bytes) -> bytes:
    """The archive with records of where its source stood that point to lines which are not there."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(written, "w") as changed:
        for item in archive.infolist():
            content = bytearray(archive.read(item))
            if item.filename.endswith(".debug_pkl"):
                for code, _, place in pickletools.genops(bytes(content)):
                    if code.name == "BININT1" and place is not None:
                        content[place + 1] = 251
            changed.writestr(item.filename, bytes(content))
    return written.getvalue()


def test_source_ranges_beyond_the_text_end_no_process(tmp_path: Path) -> None:
    prepare()
    path = tmp_path / "G.pt"
    path.write_bytes(beyond_the_text(samples(tmp_path, ("script",))["script"].read_bytes()))
    outcome = attempt(lambda: script_graph(path))
    assert outcome.kind == "opened" and not outcome.events, outcome
