"""Settings from the command line, ``gandissect.toml`` and ``[tool.gandissect]`` in ``pyproject.toml``.

parse_assignments(("dissection.quantile=0.005",))        # {"dissection": {"quantile": "0.005"}}
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from gandissect.errors import UsageError, unknown_name

RUN_KEYS = ("n", "seed", "device", "analyzers", "skip", "concepts", "data", "batch_size", "plugins", "disable")


def read_config(given: Path | None) -> tuple[dict[str, object], dict[str, Mapping[str, object]]]:
    """(run settings, analyzer -> options) of ``given``, else of ``gandissect.toml`` or ``pyproject.toml`` in this folder.

    Raises:
        UsageError: no such file, not TOML, or a key that is neither a run setting nor a table.
    """
    table: dict[str, object] = {}
    if given is not None:
        table = _read(given)
        tool = table.get("tool")
        if isinstance(tool, dict) and given.name == "pyproject.toml":
            table = tool.get("gandissect", {})
    elif Path("gandissect.toml").is_file():
        table = _read(Path("gandissect.toml"))
    elif Path("pyproject.toml").is_file():
        tool = _read(Path("pyproject.toml")).get("tool")
        table = tool.get("gandissect", {}) if isinstance(tool, dict) else {}
    settings: dict[str, object] = {}
    options: dict[str, Mapping[str, object]] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if isinstance(value, dict):
            options[key] = value
        elif name in RUN_KEYS:
            settings[name] = value
        else:
            raise unknown_name("setting", key, RUN_KEYS, "(analyzers' options go into tables of their names)")
    return settings, options


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise UsageError(f"no configuration file {path}") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def parse_assignments(given: Iterable[str]) -> dict[str, dict[str, object]]:
    """``analyzer.option=value`` as a nested mapping."""
    found: dict[str, dict[str, object]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        analyzer, dot, option = name.strip().partition(".")
        if not (equals and dot and option):
            raise UsageError(f"--set {text!r}: expected ANALYZER.OPTION=VALUE, such as dissection.quantile=0.005")
        found.setdefault(analyzer, {})[option] = value.strip()
    return found


def parse_literals(given: Iterable[str], flag: str) -> dict[str, object]:
    """``name=value`` pairs with values read as Python literals where they are ones."""
    found: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"{flag} {text!r}: expected NAME=VALUE, such as nz=100")
        try:
            found[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            found[name.strip()] = value.strip()
    return found


def parse_assumptions(given: Iterable[str]) -> dict[str, str]:
    """``activation=lrelu0.2,prior=uniform`` as a mapping; the option may be repeated."""
    found: dict[str, str] = {}
    for text in given:
        for part in filter(None, text.split(",")):
            name, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"--assume {part!r}: expected NAME=VALUE, such as activation=lrelu0.2")
            found[name.strip()] = value.strip()
    return found


def parse_latent(given: str | None) -> tuple[int, ...] | None:
    """``100`` or ``100,1,1`` (or ``100x1x1``) as a shape."""
    if given is None:
        return None
    try:
        shape = tuple(int(part) for part in given.replace("x", ",").split(",") if part.strip())
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(f"--latent {given!r}: expected a shape such as 100 or 100,1,1")
    return shape
