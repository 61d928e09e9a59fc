"""Translators of pictures: what they change, whether they follow their input, and whether the way back works.

from gandissect_plugins.translation import cycle, follows, translated

seen = translated(session, 200)
follows(session, seen).copies            # the output is its input
cycle(session, seen, back).hidden        # the way back lives on details that nobody sees
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Translation
from .back import Opposite, opposite
from .changes import Change, changes, spectrum
from .cycle import Cycle, Loss, cycle
from .follows import Follows, follows, likeness, mantel
from .pictures import Pictures, is_translator, translated
from .sensitivity import Sensitivity, sensitivity

__all__ = [
    "Change",
    "Cycle",
    "Follows",
    "Loss",
    "Opposite",
    "Pictures",
    "Sensitivity",
    "Translation",
    "changes",
    "cycle",
    "follows",
    "is_translator",
    "likeness",
    "mantel",
    "opposite",
    "register_analyzers",
    "sensitivity",
    "spectrum",
    "translated",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The analysis of translators."""
    return [Translation]
