import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import run
from small_gans import Dcgan

from gandissect.testing import PlantedGenerator

FAST = ["-n", "24", "-a", "overview"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    net = Dcgan().train()
    with torch.no_grad():
        for _ in range(80):  # running statistics come to those of its own samples
            net(torch.randn(64, 12, 1, 1))
    path = tmp_path_factory.mktemp("checkpoint") / "small-gan.pth"
    torch.save(net.state_dict(), path)
    return str(path)


def test_analyze_writes_the_report_and_its_json(
    capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "r.html"
    code, out, _ = run(capsys, "analyze", checkpoint, *FAST, "-o", str(target))
    assert (code, out.strip()) == (0, str(target))
    assert json.loads(target.with_suffix(".json").read_text())["schema"]


def test_the_default_place_is_gandissect_reports(
    capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "analyze", checkpoint, *FAST, "-q")[0] == 0
    assert (tmp_path / "gandissect-reports" / "small-gan.html").exists()


@pytest.mark.slow
def test_the_demo_takes_its_concepts_from_a_configuration_that_names_some(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text('concepts = ["colours"]\n')
    target = tmp_path / "r.json"
    code, _, _ = run(
        capsys, "demo", "-n", "24", "-a", "vocabulary", "--config", str(tmp_path / "my.toml"), "-q", "-o", str(target)
    )
    assert code == 0
    said = target.read_text()
    assert "purple" in said
    assert "window" not in said


def test_json_prints_one_object(capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "analyze", checkpoint, *FAST, "--json", "-o", str(tmp_path / "r.json"))
    assert code == 0
    assert json.loads(out)["provenance"]["samples"] == 24


def test_an_error_under_json_is_an_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "analyze", str(tmp_path / "none.pt"), "--json")
    assert (code, json.loads(out)["error"]["exit_code"]) == (4, 4)


@pytest.mark.slow
def test_the_reproducing_command_is_in_the_report(checkpoint: str, tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    command = [sys.executable, "-m", "gandissect", "analyze", checkpoint, *FAST, "-o", str(target), "-q"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert "-n 24 -a overview" in json.loads(target.read_text())["provenance"]["command"]


def test_settings_come_from_a_file_and_the_command_line_wins(
    capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path
) -> None:
    config = tmp_path / "my.toml"
    config.write_text('n = 9\nseed = 5\nanalyzers = ["overview"]\n[overview]\nsamples = 4\n')
    target = tmp_path / "r.json"
    code, _, _ = run(capsys, "analyze", checkpoint, "--config", str(config), "--seed", "6", "-o", str(target), "-q")
    provenance = json.loads(target.read_text())["provenance"]
    assert code == 0
    assert (provenance["samples"], provenance["seed"], provenance["options"]["overview"]["samples"]) == (9, 6, 4)


def test_inspect_says_what_would_be_possible(capsys: pytest.CaptureFixture[str], checkpoint: str) -> None:
    code, out, _ = run(capsys, "inspect", checkpoint, "--json")
    card = json.loads(out)
    assert code == 0
    assert card["opened"]
    assert card["analyses"]["overview"] == "would run"
    assert card["can"]["edits"]


def test_inspect_runs_the_checks_and_writes_the_network_as_code(
    capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path
) -> None:
    target = tmp_path / "model.py"
    code, out, _ = run(capsys, "inspect", checkpoint, "--verify", "--export", str(target), "--json")
    card = json.loads(out)
    verdicts = {check["name"]: check["verdict"] for check in card["checks"]}
    assert code == 0
    assert verdicts["independent of the batch"] == verdicts["repeatable"] == "ok"
    assert card["exported"] == [str(target), str(target.with_suffix(".safetensors"))]
    assert all(Path(written).exists() for written in card["exported"])


def test_a_file_that_does_not_open_exports_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"not a checkpoint at all")
    assert run(capsys, "inspect", str(bad), "--verify", "--export", str(tmp_path / "model.py"))[0] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def test_layers_marks_what_is_analyzed(capsys: pytest.CaptureFixture[str], checkpoint: str) -> None:
    code, out, _ = run(capsys, "layers", checkpoint)
    assert code == 0
    assert "generator:" in out
    assert " * " in out


def test_plugins_lists_all_and_describes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "dissection" in run(capsys, "plugins")[1]
    assert "quantile" in run(capsys, "plugins", "dissection")[1]


def test_a_broken_plugin_is_named_and_the_report_is_written(
    capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path
) -> None:
    broken = tmp_path / "my_broken.py"
    broken.write_text("import there_is_no_such_library")
    target = tmp_path / "r.json"
    code, _, err = run(capsys, "analyze", checkpoint, *FAST, "--plugin", str(broken), "-o", str(target))
    assert code == 0
    assert "my_broken" in err
    assert any("my_broken" in note for note in json.loads(target.read_text())["provenance"]["notes"])


def test_a_raising_analyzer_gives_exit_code_3(
    capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path
) -> None:
    raising = tmp_path / "my_raising.py"
    raising.write_text(
        "from gandissect import Analyzer, hookimpl\n"
        "class Raises(Analyzer):\n    name = 'raises'\n    def run(self, session):\n        raise ValueError('x')\n        yield\n"
        "@hookimpl\ndef register_analyzers():\n    return [Raises]\n"
    )
    arguments = ["-n", "8", "-a", "overview,raises", "--plugin", str(raising), "-o", str(tmp_path / "r.html"), "-q"]
    assert run(capsys, "analyze", checkpoint, *arguments)[0] == 3
    assert (tmp_path / "r.html").exists()


def test_a_command_of_a_plugin_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "no-such-command")
    assert code == 2
    assert "no-such-command" in err


@pytest.mark.slow
def test_new_writes_a_package_whose_test_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "new", "analyzer", "my-thing", "--into", str(tmp_path))[0] == 0
    package = tmp_path / "gandissect-my-thing"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(package), "tests"]
    environment = {"PYTHONPATH": str(package), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_new_refuses_to_overwrite(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "gandissect-x").mkdir()
    assert run(capsys, "new", "analyzer", "x", "--into", str(tmp_path))[0] == 2


def test_user_code_opens_what_is_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code_file = tmp_path / "mine.py"
    code_file.write_text(
        "from gandissect.testing import PlantedGenerator as G\ndef build(nz=3):\n    assert nz == 16\n    return G()\n"
    )
    torch.save(PlantedGenerator().state_dict(), tmp_path / "g.pt")
    arguments = ["--generator", f"{code_file}:build", "--set-generator", "nz=16", "-o", str(tmp_path / "r.json"), "-q"]
    assert run(capsys, "analyze", str(tmp_path / "g.pt"), *FAST, *arguments)[0] == 0
