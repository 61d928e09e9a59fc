"""What the generator cannot make: images are inverted to latents, and what is lost on the way is measured.

from gandissect_plugins.inversion import measured

found = measured(session, Sizes(own=24, real=24, control=8), Effort(steps=100))
found.real.p                             # float64 [N], rank of each error among those of the generator's own images
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Inversion
from .lost import Loss, losses
from .measuring import Measured, Sizes, Tried, measured

__all__ = ["Inversion", "Loss", "Measured", "Sizes", "Tried", "losses", "measured", "register_analyzers"]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """What the generator cannot make."""
    return [Inversion]
