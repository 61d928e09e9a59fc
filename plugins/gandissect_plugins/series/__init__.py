"""The checkpoints of one training: pictures, diversity and collapse, distances, D against G, concepts, units, losses.

gandissect series run/*.pt --log losses.csv -o out.html
"""

from __future__ import annotations

from typing import Any

from gandissect.comparer import Comparer
from gandissect.plugins import hookimpl

from .balance import Balance
from .concepts import ConceptOnsets, onset
from .diversity import Collapse, Diversity, DiversitySeries, collapses, diversity
from .film import FilmStrip
from .losses import Losses
from .progress import DistanceSeries
from .units import UnitSeries, kept_units

__all__ = [
    "Balance",
    "Collapse",
    "ConceptOnsets",
    "DistanceSeries",
    "Diversity",
    "DiversitySeries",
    "FilmStrip",
    "Losses",
    "UnitSeries",
    "collapses",
    "diversity",
    "kept_units",
    "onset",
    "register_comparers",
]


@hookimpl
def register_comparers() -> list[type[Comparer[Any]]]:
    """What is told of a training."""
    return [FilmStrip, DiversitySeries, DistanceSeries, ConceptOnsets, UnitSeries, Balance, Losses]
