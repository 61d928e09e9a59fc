import os
import subprocess
import sys
from pathlib import Path

import pytest

from gandissect.errors import UnknownName
from gandissect.plugins import Hooks, load_plugins

GOOD = """
from gandissect import Analyzer, Section, hookimpl
class Good(Analyzer):
    name = "good"
    def run(self, session):
        yield Section("Good", summary=str(session.images(4).shape))
@hookimpl
def register_analyzers():
    return [Good]
"""


def plugin(folder: Path, name: str, source: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(source, "utf-8")
    return path


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    registry = load_plugins([plugin(tmp_path, "good_one", GOOD)])
    assert "good" in registry.analyzers()


def test_a_plugin_that_fails_to_import_is_named_and_harms_no_other(tmp_path: Path) -> None:
    files = [plugin(tmp_path, "broken", "import there_is_no_such_library"), plugin(tmp_path, "good_two", GOOD)]
    registry = load_plugins(files)
    broken = next(p for p in registry.plugins if p.name == "broken")
    assert broken.broken
    assert "there_is_no_such_library" in broken.status
    assert "good" in registry.analyzers()


def test_a_hook_that_raises_is_named_and_harms_no_other(tmp_path: Path) -> None:
    raising = "from gandissect import hookimpl\n@hookimpl\ndef register_analyzers():\n    raise OSError('disk')\n"
    registry = load_plugins([plugin(tmp_path, "raising", raising), plugin(tmp_path, "good_three", GOOD)])
    assert "good" in registry.analyzers()
    assert "disk" in registry.failures["raising"]


def test_a_mistyped_hook_is_an_error_that_names_the_right_one(tmp_path: Path) -> None:
    mistyped = "from gandissect import hookimpl\n@hookimpl\ndef register_analysers():\n    return []\n"
    registry = load_plugins([plugin(tmp_path, "mistyped", mistyped)])
    status = next(p.status for p in registry.plugins if p.name == "mistyped")
    assert "register_analyzers" in status


def test_a_taken_name_does_not_evict_the_first(tmp_path: Path) -> None:
    registry = load_plugins([plugin(tmp_path, "dissection", GOOD)])
    assert any("already taken" in p.status for p in registry.plugins)


def test_a_disabled_plugin_is_not_imported(tmp_path: Path) -> None:
    registry = load_plugins([plugin(tmp_path, "never", "raise RuntimeError")], disable=["never"])
    assert next(p.status for p in registry.plugins if p.name == "never") == "disabled"


def test_all_built_in_plugins_load() -> None:
    assert [(p.name, p.status) for p in load_plugins().plugins if p.source == "built-in" and p.broken] == []


def test_an_unknown_analyzer_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="dissection"):
        load_plugins().get_analyzer("disection")


def test_strict_lets_the_exception_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANDISSECT_STRICT", "1")
    with pytest.raises(ModuleNotFoundError):
        load_plugins([plugin(tmp_path, "broken", "import there_is_no_such_library")])


@pytest.mark.parametrize("hook", [name for name in dir(Hooks) if not name.startswith("_")])
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    root = Path(__file__).resolve().parents[2]
    assert getattr(Hooks, hook).__doc__
    assert hook in (root / "docs" / "plugins.md").read_text("utf-8")
    tests = "".join(path.read_text("utf-8") for path in (root / "tests").rglob("test_*.py"))
    assert f"def {hook}(" in tests, f"no test implements {hook}"


def test_importing_gandissect_and_its_help_import_no_torch_and_no_plugin() -> None:
    code = (
        "import sys, gandissect\nfrom gandissect.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'numpy', 'jinja2', 'rich', 'gandissect_plugins', 'gandissect_adapters', 'gandissect_reports'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
