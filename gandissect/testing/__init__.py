"""Tiny GANs with planted truth, and checks for plugin authors.

gan = tiny_gan()                         # unit 0 draws red, unit 4 only copies it; z[5] is the brightness
check_analyzer(MeanColour, session=tiny_session())
"""

from gandissect.testing.checks import check_adapter, check_analyzer
from gandissect.testing.tiny import (
    PLANTED,
    CornerDiscriminator,
    PlantedGenerator,
    RandomGenerator,
    VectorGenerator,
    tiny_gan,
    tiny_session,
)

__all__ = [
    "PLANTED",
    "CornerDiscriminator",
    "PlantedGenerator",
    "RandomGenerator",
    "VectorGenerator",
    "check_adapter",
    "check_analyzer",
    "tiny_gan",
    "tiny_session",
]
