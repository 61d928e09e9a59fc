"""Directions in latent space, probes of what can be read from it, and walks through it.

from gandissect_plugins.directions import ganspace, measure_effects, property_rulers

found = ganspace(session, "layer1", 4)
effects = measure_effects(session, found.by_name, property_rulers(session, 500))
effects.percentile(0, 0)                                 # share of random directions that do less
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import LatentDirections
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
from .walks import Arithmetic, Interpolation, Sweep, arithmetic, interpolate, pixel_path_length, sweep

__all__ = [
    "Arithmetic",
    "Baseline",
    "Directions",
    "Effects",
    "Interpolation",
    "LatentDirections",
    "Probe",
    "Rulers",
    "Sweep",
    "arithmetic",
    "boundary",
    "concept_rulers",
    "conditioned",
    "factorised",
    "ganspace",
    "ganspace_of",
    "interpolate",
    "measure_effects",
    "pixel_path_length",
    "probe",
    "property_rulers",
    "random_baseline",
    "random_directions",
    "register_analyzers",
    "regress_to_latent",
    "sefa",
    "sweep",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The analysis of latent directions."""
    return [LatentDirections]
