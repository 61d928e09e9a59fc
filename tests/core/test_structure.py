import ast
from pathlib import Path

import pytest

import gandissect

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "gandissect": ROOT / "gandissect",
    "gandissect_adapters": ROOT / "adapters" / "gandissect_adapters",
    "gandissect_plugins": ROOT / "plugins" / "gandissect_plugins",
    "gandissect_reports": ROOT / "reports" / "gandissect_reports",
}
FILES = [path for room in ROOMS.values() for path in room.rglob("*.py")]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_the_core_and_themselves(room: str) -> None:
    others = set(ROOMS) - {room, "gandissect"}
    wrong = {str(path): imported(path) & others for path in ROOMS[room].rglob("*.py") if imported(path) & others}
    assert wrong == {}


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))] == []


def test_files_and_functions_stay_small() -> None:
    long_files = {path.name: n for path in FILES if (n := len(path.read_text("utf-8").splitlines())) > 420}
    long_functions = {
        f"{path.name}:{node.name}": length
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and (length := (node.end_lineno or 0) - node.lineno + 1) > 80
    }
    assert (long_files, long_functions) == ({}, {})


def test_public_names_are_there() -> None:
    assert [name for name in gandissect.__all__ if not hasattr(gandissect, name)] == []
    assert set(gandissect._HOME) <= set(gandissect.__all__)


def test_no_file_names_a_machine_or_a_registry() -> None:
    words = ["/" + "work" + "/", "/" + "root" + "/", "pypi" + ".org", "python" + "hosted"]
    texts = [p for p in ROOT.rglob("*") if p.suffix in {".py", ".md", ".toml", ".html", ".css", ".js", ".txt"}]
    inside = [p for p in texts if not {".venv", ".git", "dist", "gandissect-reports"} & set(p.relative_to(ROOT).parts)]
    assert [str(p) for p in inside if any(word in p.read_text("utf-8", "ignore") for word in words)] == []


def test_every_command_option_is_documented() -> None:
    from gandissect.cli.analyze import analyze, demo
    from gandissect.cli.compare import compare
    from gandissect.cli.edit import edit
    from gandissect.cli.inspect import inspect, layers
    from gandissect.cli.invert import invert
    from gandissect.cli.plugins import plugins
    from gandissect.cli.series import series

    for command in (analyze, compare, demo, edit, inspect, invert, layers, plugins, series):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), f"{command.name} {parameter.name} has no help"
