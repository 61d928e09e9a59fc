"""``gandissect compare`` writes one report on two checkpoints, or says in one sentence why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import run
from small_gans import Dcgan

from gandissect.cli.compare import labels

FAST = ["-n", "40", "--concepts", "colours"]


def saved(path: Path, seed: int, nz: int = 12) -> str:
    torch.manual_seed(seed)
    net = Dcgan(nz).train()
    with torch.no_grad():
        for _ in range(60):
            net(torch.randn(64, nz, 1, 1))
    torch.save(net.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pair")
    saved(made / "a.pth", 0)
    saved(made / "b.pth", 1)
    saved(made / "wide.pth", 2, nz=20)
    torch.save(
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 2, 1), torch.nn.Conv2d(8, 1, 8)).state_dict(), made / "D.pth"
    )
    return made


def test_one_report_holds_both_and_its_command(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "r.html"
    code, out, _ = run(capsys, "compare", str(folder / "a.pth"), str(folder / "b.pth"), *FAST, "-o", str(target))
    assert (code, out.strip()) == (0, str(target))
    told = json.loads(target.with_suffix(".json").read_text())
    assert told["title"] == "a against b"
    assert {section["analyzer"] for section in told["sections"]} == {
        "same-latents", "concepts", "distances", "matched-units", "layers", "unit-labels", "directions",
    }  # fmt: skip
    assert [one["title"] for one in told["sections"] if one["status"] != "done"] == ["Against the real images"]
    assert 'alt="the first 5 samples of a, then of b, seed 0"' in target.read_text()
    assert (told["provenance"]["samples"], len(told["provenance"]["sha256"].split(", "))) == (40, 2)
    assert "src=" not in target.read_text().replace('src="data:', "")


def test_identical_files_say_so_and_make_no_finding(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "copy.pth"
    other.write_bytes((folder / "a.pth").read_bytes())
    target = tmp_path / "r.json"
    code, _, _ = run(capsys, "compare", str(folder / "a.pth"), str(other), *FAST, "-o", str(target), "-q")
    told = json.loads(target.read_text())
    assert (code, told["findings"], len(told["sections"])) == (0, [], 1)
    assert "a and copy hold the same generator" in told["sections"][0]["summary"]


def test_other_latents_are_skipped_with_the_reason_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "r.md"
    code, _, err = run(capsys, "compare", str(folder / "a.pth"), str(folder / "wide.pth"), *FAST, "-o", str(target))
    assert code == 0
    assert err.count("wide takes z of 20 latent coordinates") == 4
    assert "Concepts gained and lost" in target.read_text()


@pytest.mark.parametrize(
    ("second", "extra", "code", "says"),
    [
        ("none.pth", (), 4, "no such file"),
        ("D.pth", (), 4, "holds a discriminator, not a generator"),
        ("b.pth", ("-a", "concept"), 2, "did you mean concepts"),
        ("b.pth", ("--set", "distances.space=pixels"), 2, "did you mean spaces"),
        ("b.pth", ("--set", "distances.spaces=pixel"), 2, "did you mean pixels"),
        ("b.pth", ("-o", "r.pdf"), 2, "expected a name that ends in"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    capsys: pytest.CaptureFixture[str], folder: Path, second: str, extra: tuple[str, ...], code: int, says: str
) -> None:
    found, out, err = run(capsys, "compare", str(folder / "a.pth"), str(folder / second), *FAST, "-q", *extra)
    assert (found, out, len(err.strip().splitlines())) == (code, "", 1)
    assert says in err


def test_plugins_lists_comparisons_and_describes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "comparisons: same-latents, concepts" in run(capsys, "plugins")[1]
    _, out, _ = run(capsys, "plugins", "progress")
    assert "needs: a training (gandissect series)" in out
    assert "progress.spaces" in out
    assert "needs: two checkpoints" in run(capsys, "plugins", "distances")[1]


def test_names_are_stems_with_folders_where_those_are_equal() -> None:
    assert labels([Path("run/a.pt"), Path("run/b.pt")]) == ["a", "b"]
    assert labels([Path("one/G.pt"), Path("two/G.pt")]) == ["one/G", "two/G"]
    assert labels([Path("G.pt"), Path("G.pt")]) == ["G (1)", "G (2)"]
    assert labels([]) == []
