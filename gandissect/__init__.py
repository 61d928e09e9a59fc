"""Open any GAN checkpoint and explain it, with evidence.

    import gandissect

    gan = gandissect.open("ckpt.pt")
    report = gandissect.analyze(gan)
    report.save("report.html")

Names are imported when they are first used: ``import gandissect`` loads neither torch nor any plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gandissect.__about__ import __version__
from gandissect.errors import GandissectError

if TYPE_CHECKING:
    from gandissect.adapter import Adapter, Hints, Match, Networks
    from gandissect.analyzer import Analyzer, Needs
    from gandissect.blocks import Bar, Code, Finding, Image, ImageGrid, Line, Scatter, Section, Table, Text, Trust
    from gandissect.concepts import Concept, Segmenter, Vocabulary
    from gandissect.extractor import Extractor
    from gandissect.gan import Discriminator, Gan, Generator, LatentSpace, LayerInfo
    from gandissect.opening import open, wrap
    from gandissect.options import option
    from gandissect.plugins import hookimpl
    from gandissect.report import Renderer, Report
    from gandissect.run import analyze
    from gandissect.session import Session, Want
    from gandissect.tap import tap

API = (1, 0)
"""Version of what plugins rely on: the first number changes when something they use goes away."""

_HOMES = {
    "adapter": ("Adapter", "Hints", "Match", "Networks"),
    "analyzer": ("Analyzer", "Needs"),
    "blocks": ("Bar", "Code", "Finding", "Image", "ImageGrid", "Line", "Scatter", "Section", "Table", "Text", "Trust"),
    "concepts": ("Concept", "Segmenter", "Vocabulary"),
    "extractor": ("Extractor",),
    "gan": ("Discriminator", "Gan", "Generator", "LatentSpace", "LayerInfo"),
    "opening": ("open", "wrap"),
    "options": ("option",),
    "plugins": ("hookimpl",),
    "report": ("Renderer", "Report"),
    "run": ("analyze",),
    "session": ("Session", "Want"),
    "tap": ("tap",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "API",
    "Adapter",
    "Analyzer",
    "Bar",
    "Code",
    "Concept",
    "Discriminator",
    "Extractor",
    "Finding",
    "Gan",
    "GandissectError",
    "Generator",
    "Hints",
    "Image",
    "ImageGrid",
    "LatentSpace",
    "LayerInfo",
    "Line",
    "Match",
    "Needs",
    "Networks",
    "Renderer",
    "Report",
    "Scatter",
    "Section",
    "Segmenter",
    "Session",
    "Table",
    "Text",
    "Trust",
    "Vocabulary",
    "Want",
    "__version__",
    "analyze",
    "hookimpl",
    "open",
    "option",
    "tap",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'gandissect' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gandissect.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
