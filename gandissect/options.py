"""Options of an analyzer: a frozen dataclass, filled from Python, the command line or TOML.

@dataclass(frozen=True)
class Options:
    quantile: float = option(0.01, "fraction of a unit's cells that count as active")

load_options(Options, {"quantile": "0.005"}, "dissection")      # Options(quantile=0.005)
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal, TypeVar, Union, get_args, get_origin

from gandissect.errors import UsageError, unknown_name

OptionValues = Mapping[str, object]
T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """The options of an analyzer that has none."""


def option(default: T, doc: str) -> T:
    """A dataclass field with a default and the sentence that ``gandissect plugins NAME`` prints for it."""
    value: T = field(default=default, metadata={"doc": doc})
    return value


def load_options(cls: type, given: OptionValues | object | None, owner: str) -> object:
    """An instance of ``cls`` from an instance, a mapping (strings are converted), or nothing (the defaults).

    Raises:
        UsageError: an unknown name, or a value that cannot be converted.
    """
    if given is None:
        return cls()
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(f"options of {owner}: expected {cls.__qualname__} or a mapping, got {type(given).__name__}")
    hints = typing.get_type_hints(cls)
    known = [item.name for item in fields(cls)]
    values = {}
    for raw_name, value in given.items():
        name = str(raw_name).replace("-", "_")
        if name not in known:
            raise unknown_name(f"option of {owner}", name, known)
        values[name] = _convert(hints[name], value, f"{owner}.{name}")
    return cls(**values)


def describe_options(cls: type) -> list[tuple[str, str, str, str]]:
    """(name, type, default, doc) of every option."""
    if not is_dataclass(cls):
        return []
    hints = typing.get_type_hints(cls)
    return [
        (item.name, _type_name(hints[item.name]), repr(item.default), str(item.metadata.get("doc", "")))
        for item in fields(cls)
    ]


def _type_name(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint).replace("typing.", "")


def _convert(hint: object, value: object, where: str) -> object:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None or str(value).lower() == "none":
            return None
        return _convert(next(arg for arg in get_args(hint) if arg is not type(None)), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise UsageError(f"{where}: {value!r} is not one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin is tuple:
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            parts = [parts]
        return tuple(_convert(get_args(hint)[0], part, where) for part in parts)
    return _convert_scalar(hint, value, where)


def _convert_scalar(hint: object, value: object, where: str) -> object:
    if hint is bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() in known:
            return known[str(value).lower()]
    elif hint in (int, float, str, Path) and not (hint is int and isinstance(value, float) and value != int(value)):
        try:
            return typing.cast(type, hint)(value)
        except (TypeError, ValueError):
            pass
    raise UsageError(f"{where}: {value!r} is not a {_type_name(hint)}")
