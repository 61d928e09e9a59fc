"""Concepts without a segmenter: clusters of activations and of pixels that agree, their looks, and their units.

found = discover(session)
units = units_of(session, found)
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analysis import DiscoveryAnalyzer
from .discover import Candidate, Concept, Discovery, Read, discover
from .reading import Discovered
from .units import Removal, Units, units_of

__all__ = [
    "Candidate",
    "Concept",
    "Discovered",
    "Discovery",
    "DiscoveryAnalyzer",
    "Read",
    "Removal",
    "Units",
    "discover",
    "register_analyzers",
    "units_of",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """The discovery."""
    return [DiscoveryAnalyzer]
