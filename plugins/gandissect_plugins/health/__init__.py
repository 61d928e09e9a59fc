"""Is this generator healthy? Collapse, duplicates, copies, dead latents and labels, idle units, spectrum and pixels.

gandissect analyze ckpt.pt -a health --data photos/
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Health
from .diversity import Collisions, Modes, collisions, contrast, modes, picture_rows
from .latents import LabelEffect, LatentEffects, half_turn, label_effect, latent_effects
from .memory import Copying, Coverage, copying, coverage
from .pixels import PixelHealth, pixel_health
from .units import DuplicateUnits, duplicate_units

__all__ = [
    "Collisions",
    "Copying",
    "Coverage",
    "DuplicateUnits",
    "Health",
    "LabelEffect",
    "LatentEffects",
    "Modes",
    "PixelHealth",
    "collisions",
    "contrast",
    "copying",
    "coverage",
    "duplicate_units",
    "half_turn",
    "label_effect",
    "latent_effects",
    "modes",
    "picture_rows",
    "pixel_health",
    "register_analyzers",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """The health check."""
    return [Health]
