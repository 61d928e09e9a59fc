"""The geometry of latent space: unused coordinates, local rank, continuity, truncation, arithmetic.

from gandissect_plugins.geometry import local_rank, sweep

sweep(session).unused                    # coordinates that change nothing
local_rank(session).effective.mean()     # directions that carry the change around a sample
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Geometry
from .jacobian import LocalRank, effective_rank, local_rank
from .truncation import Truncation, truncation
from .walks import (
    Arithmetic,
    Closer,
    Interpolation,
    PathLengths,
    Sweep,
    arithmetic,
    interpolate,
    look_closer,
    pixel_path_lengths,
    sweep,
)

__all__ = [
    "Arithmetic",
    "Closer",
    "Geometry",
    "Interpolation",
    "LocalRank",
    "PathLengths",
    "Sweep",
    "Truncation",
    "arithmetic",
    "effective_rank",
    "interpolate",
    "local_rank",
    "look_closer",
    "pixel_path_lengths",
    "register_analyzers",
    "sweep",
    "truncation",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The geometry of latent space."""
    return [Geometry]
