"""Directions in latent space and probes of what can be read from it.

from gandissect_plugins.directions import ganspace, measure_effects, property_rulers

found = ganspace(session, "layer1", 4)
effects = measure_effects(session, found.by_name, property_rulers(session, 500))
effects.percentile(0, 0)                                 # share of random directions that do less
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import LARGEST_LATENT, LatentDirections
from .basis import Directions, factorised, ganspace, ganspace_of, regress_to_latent, sefa
from .effects import (
    Baseline,
    Effects,
    Rulers,
    concept_rulers,
    measure_effects,
    property_rulers,
    random_baseline,
    random_directions,
)
from .probes import Probe, boundary, conditioned, probe
from .rescoring import Rescored, rescore

__all__ = [
    "LARGEST_LATENT",
    "Baseline",
    "Directions",
    "Effects",
    "LatentDirections",
    "Probe",
    "Rescored",
    "Rulers",
    "boundary",
    "concept_rulers",
    "conditioned",
    "factorised",
    "ganspace",
    "ganspace_of",
    "measure_effects",
    "probe",
    "property_rulers",
    "random_baseline",
    "random_directions",
    "register_analyzers",
    "regress_to_latent",
    "rescore",
    "sefa",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The analysis of latent directions."""
    return [LatentDirections]
