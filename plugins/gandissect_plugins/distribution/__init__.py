"""Real against generated images as a whole: distances, what is covered, what is missing, how diverse samples are.

from gandissect_plugins.distribution import Distribution

report = gandissect.analyze(gan, [Distribution({"spaces": "pixels,inception=FILE"})], data="photos/")
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.extractor import Extractor
from gandissect.plugins import hookimpl

from .analyzer import Distribution
from .evidence import Comparison, Measured
from .spaces import EXTRACTORS, ComparisonSpace, comparison_spaces

__all__ = [
    "Comparison",
    "ComparisonSpace",
    "Distribution",
    "Measured",
    "comparison_spaces",
    "register_analyzers",
    "register_extractors",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The comparison with real images."""
    return [Distribution]


@hookimpl
def register_extractors() -> Iterable[type[Extractor]]:
    """The feature spaces that come with it."""
    return EXTRACTORS
