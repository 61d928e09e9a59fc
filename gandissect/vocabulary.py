"""Concepts by name, as the command line and configuration files give them.

build_vocabulary(["colours", "texture", "masks:drawn/", "mine.py:is_red"], registry)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from gandissect.concepts import CallableSegmenter, Segmenter, Vocabulary
from gandissect.errors import UsageError, unknown_name
from gandissect.plugins import Registry, SegmenterFactory

DEFAULT = ("colours", "light", "edges", "texture", "position", "clusters")
"""What needs no download, no label and no training."""


def build_vocabulary(specs: Sequence[str | Segmenter], registry: Registry) -> Vocabulary:
    """All named segmenters as one vocabulary.

    Args:
        specs: a registered name, ``name:ARGUMENT``, ``file.py:function`` of an image batch, or a segmenter itself; "default" stands
            for :data:`DEFAULT`, "none" for nothing.
        registry: where names are looked up.

    Raises:
        UsageError: no such segmenter, file or function.
    """
    segmenters: list[Segmenter] = []
    known = registry.segmenters()
    for spec in specs:
        for part in DEFAULT if spec == "default" else () if spec == "none" else (spec,):
            segmenters.append(part if isinstance(part, Segmenter) else _build(part, known))
    return Vocabulary(segmenters)


def _build(spec: str, known: Mapping[str, SegmenterFactory]) -> Segmenter:
    name, _, argument = spec.partition(":")
    if name in known:
        return known[name](argument) if argument else known[name]()
    if name.endswith(".py") and argument:
        return _from_file(Path(name), argument)
    raise unknown_name("vocabulary", name, known, "(`gandissect plugins` lists all; file.py:function works too)")


def _from_file(file: Path, function: str) -> Segmenter:
    if not file.is_file():
        raise UsageError(f"no file {file} to take the concept function {function!r} from")
    spec = importlib.util.spec_from_file_location(f"gandissect_concept_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: object = getattr(module, function, None)
    if isinstance(found, type) and issubclass(found, Segmenter):
        return found()
    if isinstance(found, Segmenter):
        return found
    if not callable(found) or isinstance(found, type):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise unknown_name("function", function, names, f"in {file}")
    return CallableSegmenter(found, [function])
