"""Two checkpoints against each other on the same latents: pictures, units, layers, concepts, directions, distributions.

gandissect compare a.pt b.pt -o out.html
"""

from __future__ import annotations

from typing import Any

from gandissect.comparer import Comparer
from gandissect.plugins import hookimpl

from .concepts import ConceptChange, Concepts, concept_changes
from .directions import DirectionDrift, Overlap, subspace_overlap
from .distances import Distances
from .labels import UnitLabels
from .layers import LayersSeen, PooledLayer, layers_seen, like_depth
from .pairs import SameLatents
from .representation import Representation, cka_table
from .units import MatchedUnits, Matching, matched

__all__ = [
    "ConceptChange",
    "Concepts",
    "DirectionDrift",
    "Distances",
    "LayersSeen",
    "MatchedUnits",
    "Matching",
    "Overlap",
    "PooledLayer",
    "Representation",
    "SameLatents",
    "UnitLabels",
    "cka_table",
    "concept_changes",
    "layers_seen",
    "like_depth",
    "matched",
    "register_comparers",
    "subspace_overlap",
]


@hookimpl
def register_comparers() -> list[type[Comparer[Any]]]:
    """What is told of two checkpoints."""
    return [SameLatents, Concepts, MatchedUnits, Representation, UnitLabels, DirectionDrift, Distances]
