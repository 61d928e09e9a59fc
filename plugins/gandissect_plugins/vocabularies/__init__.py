"""Who finds concepts in images, without any download.

Colours().segment(images, range(len(images)))       # bool [N, K, H, W]
MaskFolder("masks")                                 # the user's masks
"""

from __future__ import annotations

from gandissect.concepts import Segmenter
from gandissect.plugins import hookimpl

from .clusters import Clusters
from .colours import Colours, Light, colour_name
from .edges import Edges, Texture
from .given import Demo, MaskFolder
from .position import Position

__all__ = [
    "Clusters",
    "Colours",
    "Demo",
    "Edges",
    "Light",
    "MaskFolder",
    "Position",
    "Texture",
    "colour_name",
    "register_segmenters",
]

SEGMENTERS: tuple[type[Segmenter], ...] = (Colours, Light, Edges, Texture, Position, Clusters, MaskFolder, Demo)


@hookimpl
def register_segmenters() -> list[type[Segmenter]]:
    """The segmenters of this package."""
    return list(SEGMENTERS)
