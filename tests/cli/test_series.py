"""``gandissect series`` orders checkpoints as people number them, and reads logs with and without them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from command_line import run
from small_gans import Dcgan

from gandissect.cli.series import in_order, matched_files, numbered
from gandissect.errors import UsageError

FAST = ["-n", "40", "--concepts", "colours", "-q"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    net = Dcgan().train()
    for epoch in (2, 10, 100):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
            for _ in range(40):
                net(torch.randn(64, 12, 1, 1))
        torch.save(net.state_dict(), made / f"epoch_{epoch}.pth")
    (made / "losses.csv").write_text("step,d_loss,g_loss\n" + "".join(f"{i},1.4,0.7\n" for i in range(50)))
    return made


def test_numbers_in_names_order_a_series_and_are_its_axis() -> None:
    files = [Path(f"run/epoch_{i}.pt") for i in (10, 2, 100)]
    assert [path.stem for path in in_order(files, "natural")] == ["epoch_2", "epoch_10", "epoch_100"]
    assert in_order(files, "given") == files
    final = [Path(name) for name in ("G.pt", "G_final.pt", "G_9.pt", "G_10.pt")]
    assert [path.stem for path in in_order(final, "natural")] == ["G_9", "G_10", "G", "G_final"]
    assert numbered(["epoch_2", "epoch_10"]) == ((2.0, 10.0), "epoch")
    assert numbered(["G2_step-5", "G2_step-40"]) == ((5.0, 40.0), "step")
    assert numbered(["net-07", "net-08"]) == ((7.0, 8.0), "no.")
    assert numbered(["first", "second"]) == ((1.0, 2.0), "checkpoint")
    assert numbered(["epoch_2", "last"])[1] == "checkpoint"


def test_times_order_a_series_where_they_are_asked_for(tmp_path: Path) -> None:
    for age, name in enumerate(("c", "a", "b")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert [path.name for path in in_order(sorted(tmp_path.iterdir()), "time")] == ["c", "a", "b"]
    with pytest.raises(UsageError, match="no file"):
        in_order([tmp_path / "d"], "time")


def test_patterns_the_shell_left_alone_are_matched_here(tmp_path: Path) -> None:
    for name in ("a1.pt", "a2.pt", "b[1].pt"):
        (tmp_path / name).touch()
    assert [path.name for path in matched_files([str(tmp_path / "a*.pt"), str(tmp_path / "a1.pt")])] == [
        "a1.pt",
        "a2.pt",
    ]
    assert [path.name for path in matched_files([str(tmp_path / "b[1].pt")])] == ["b[1].pt"]
    with pytest.raises(UsageError, match="no files match"):
        matched_files([str(tmp_path / "c*.pt")])


def test_checkpoints_and_log_make_one_report(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    log = str(folder / "losses.csv")
    code, _, err = run(capsys, "series", str(folder / "*.pth"), "--log", log, *FAST, "-o", str(target))
    told = json.loads(target.with_suffix(".json").read_text())
    status = {section["analyzer"]: section["status"] for section in told["sections"]}
    assert (code, err, told["title"]) == (0, "", "epoch_2 to epoch_100, 3 checkpoints")
    assert {name for name, state in status.items() if state == "done"} == {
        "film", "diversity", "progress", "onsets", "units", "losses",
    }  # fmt: skip
    assert status["balance"] == "skipped"
    film = next(section for section in told["sections"] if section["analyzer"] == "film")
    assert film["blocks"][0]["column_labels"] == ["2", "10", "100"]


def test_a_log_alone_works(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    code, _, _ = run(capsys, "series", "--log", str(folder / "losses.csv"), "-o", str(target), "-q")
    told = json.loads(target.with_suffix(".json").read_text())
    assert (code, told["title"]) == (0, "losses.csv")
    assert "2 ln 2 = 1.386" in next(one["summary"] for one in told["sections"] if one["analyzer"] == "losses")


@pytest.mark.parametrize(
    ("typed", "code", "says"),
    [
        ((), 2, "no checkpoints and no log"),
        (("nothing*.pt",), 2, "no files match 'nothing*.pt'"),
        (("nothing.pt",), 4, "no such file"),
        (("--log", "nothing.csv"), 2, "--log nothing.csv: cannot be read"),
        (("--log", "."), 2, "no event file"),
        (("nothing.pt", "--order", "time"), 2, "no file nothing.pt"),
    ],
)
def test_what_cannot_be_followed_is_one_sentence(
    capsys: pytest.CaptureFixture[str], typed: tuple[str, ...], code: int, says: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, "series", *typed, *FAST)
    assert (found, len(err.strip().splitlines())) == (code, 1)
    assert says in err
    assert list(tmp_path.iterdir()) == []
