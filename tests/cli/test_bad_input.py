"""Whatever is wrong with a file or an argument: one sentence, the right exit code, no traceback, no report, no code run."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gandissect.cli import main
from gandissect.demo import demo_checkpoint
from gandissect.testing import RandomGenerator


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def truncated(folder: Path) -> Path:
    torch.save(RandomGenerator().state_dict(), folder / "whole.pt")
    (folder / "cut.pt").write_bytes((folder / "whole.pt").read_bytes()[:-4000])
    return folder / "cut.pt"


def text(folder: Path) -> Path:
    (folder / "notes.pt").write_text("these are my notes on the training\n" * 50)
    return folder / "notes.pt"


def hostile(folder: Path) -> Path:
    (folder / "evil.pkl").write_bytes(pickle.dumps({"g": Hostile(folder / "executed")}))
    return folder / "evil.pkl"


def hostile_zip(folder: Path) -> Path:
    torch.save({"state_dict": Hostile(folder / "executed")}, folder / "evil.pt")
    return folder / "evil.pt"


def language_model(folder: Path) -> Path:
    state = {"transformer.wte.weight": torch.randn(100, 16), "transformer.wpe.weight": torch.randn(32, 16)}
    for layer in range(2):
        state |= {
            f"transformer.h.{layer}.attn.c_attn.weight": torch.randn(16, 48),
            f"transformer.h.{layer}.ln_1.weight": torch.ones(16),
        }
    torch.save({**state, "lm_head.weight": torch.randn(100, 16)}, folder / "gpt.pt")
    return folder / "gpt.pt"


def nan_weights(folder: Path) -> Path:
    state = RandomGenerator().state_dict()
    state["conv2.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, folder / "nan.pt")
    return folder / "nan.pt"


def directory(folder: Path) -> Path:
    (folder / "dir.pt").mkdir()
    return folder / "dir.pt"


def empty(folder: Path) -> Path:
    (folder / "empty.pt").touch()
    return folder / "empty.pt"


def missing(folder: Path) -> Path:
    return folder / "not-there.pt"


def discriminator(folder: Path) -> Path:
    convs = [
        nn.Conv2d(3, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.BatchNorm2d(32),
        nn.LeakyReLU(0.2),
    ]
    torch.save(nn.Sequential(*convs, nn.Conv2d(32, 1, 8, 1, 0)).state_dict(), folder / "D.pth")
    return folder / "D.pth"


def random_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    return folder / "photos.zip"


def pickled_module(folder: Path) -> Path:
    torch.save(RandomGenerator(), folder / "module.pt")
    return folder / "module.pt"


FILES: list[Callable[[Path], Path]] = [
    truncated,
    text,
    hostile,
    hostile_zip,
    language_model,
    nan_weights,
    directory,
    empty,
    missing,
    discriminator,
    random_zip,
    pickled_module,
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    err = capsys.readouterr().err
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, err


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_a_bad_file_gets_one_sentence_and_exit_code_4(
    make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, err = run(capsys, "analyze", str(path), "-o", str(tmp_path / "r.html"))
    assert code == 4
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert path.name in err
    assert sorted(tmp_path.rglob("*")) == before, "something was written"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-a", "disection"], "dissection"),
        (["--set", "dissection.quantil=1"], "quantile"),
        (["--set", "dissection"], "ANALYZER.OPTION=VALUE"),
        (["--set", "dissection.layers=nolayer", "-a", "dissection"], "layer"),
        (["--concepts", "colors"], "colours"),
        (["--data", "nowhere"], "nowhere"),
        (["--latent", "abc"], "--latent"),
        (["--device", "warp"], "warp"),
        (["--adapter", "state-dit"], "state-dict"),
        (["-o", "report.docx"], ".html"),
        (["-n", "0"], "samples"),
        (["--config", "none.toml"], "none.toml"),
        (["--generator", "nofile.py:G"], "nofile.py"),
        (["--frobnicate"], "frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_argument_gets_one_sentence_and_exit_code_2(
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = run(capsys, "analyze", str(demo_checkpoint()), "-n", "8", *arguments)
    lines = [line for line in err.strip().splitlines() if not line.startswith("generating")]
    assert code == 2, err
    assert len(lines) == 1, err
    assert named in err
    assert list(tmp_path.iterdir()) == []
