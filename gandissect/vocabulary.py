"""Concepts by name, as the command line and configuration files give them.

build_vocabulary(["colours", "texture", "masks:drawn/", "mine.py:is_red"])
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import Tensor

from gandissect.concepts import CallableSegmenter, Segmenter, Vocabulary
from gandissect.errors import UsageError, unknown_name
from gandissect.importing import import_file
from gandissect.plugins import Registry, load_plugins

DEFAULT = ("colours", "light", "edges", "texture", "position", "clusters")
"""What needs no download, no label and no training."""


def build_vocabulary(specs: Sequence[str | Segmenter] = ("default",), registry: Registry | None = None) -> Vocabulary:
    """All named segmenters as one vocabulary.

    Args:
        specs: what :func:`build_segmenter` takes, or a segmenter itself; "default" stands for :data:`DEFAULT`, "none" for nothing.
        registry: where names are looked up; the installed plugins by default.

    Raises:
        UsageError: no such segmenter, file or function.
    """
    plugins = registry or load_plugins()
    parts: list[str | Segmenter] = []
    for spec in specs:
        parts += DEFAULT if spec == "default" else () if spec == "none" else (spec,)
    return Vocabulary([part if isinstance(part, Segmenter) else build_segmenter(part, plugins) for part in parts])


def build_segmenter(spec: str, registry: Registry | None = None) -> Segmenter:
    """The segmenter that ``spec`` names: ``name``, ``name:ARGUMENT``, ``file.py:function`` or ``package.module:function``.

    Raises:
        UnknownName: no segmenter of that name; the message names the nearest.
        UsageError: no such file or module.
    """
    known = (registry or load_plugins()).segmenters()
    name, colon, argument = spec.partition(":")
    if name in known:
        return known[name](argument) if colon else known[name]()
    if colon and (".py:" in spec or name.replace(".", "").isidentifier()):
        return _load_function(spec)
    raise unknown_name("vocabulary", spec, known, "(or masks:FOLDER, or file.py:function)")


def _load_function(spec: str) -> Segmenter:
    """The segmenter made from ``file.py:function`` or ``package.module:function``.

    The function takes float32 [N, C, H, W] in [-1, 1] and returns [N, K, H, W] or [N, H, W]; the names of its concepts are its
    attribute ``concepts``, its module's ``CONCEPTS``, or its own name. A Segmenter instance or class is taken as it is.

    Raises:
        UsageError: no such file or module.
        UnknownName: no such function in it.
    """
    place, _, name = spec.rpartition(":")
    module = _module(place, spec)
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Segmenter):
        return found()
    if isinstance(found, Segmenter):
        return found
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name("function", name, known, f"in {place}")
    names: Sequence[str] = getattr(found, "concepts", ()) or getattr(module, "CONCEPTS", ())
    return CallableSegmenter(cast(Callable[[Tensor], Tensor], found), tuple(names))


def _module(place: str, spec: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise UsageError(f"concepts {spec!r}: no module {place!r} ({error}); expected file.py:function") from error
    return import_file(Path(place), "file.py:function for concepts")
