"""What the discriminator says, of what, how surely, and where it looks.

gandissect analyze ckpt.pt --discriminator d.pt -a discriminator --data photos/
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import DiscriminatorCheck
from .belonging import DOUBT, Belonging, belonging
from .fragility import Fragility, fragility
from .gaze import Gaze, gaze
from .perturbed import perturbations
from .standing import OPTIMUM, Separation, Standing, separation, standing
from .unit_section import unit_section
from .units import Agreement, UnitVerdict, UnitVerdicts, unit_verdicts

__all__ = [
    "DOUBT",
    "OPTIMUM",
    "Agreement",
    "Belonging",
    "DiscriminatorCheck",
    "Fragility",
    "Gaze",
    "Separation",
    "Standing",
    "UnitVerdict",
    "UnitVerdicts",
    "belonging",
    "fragility",
    "gaze",
    "perturbations",
    "register_analyzers",
    "separation",
    "standing",
    "unit_section",
    "unit_verdicts",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """The discriminator's check."""
    return [DiscriminatorCheck]
