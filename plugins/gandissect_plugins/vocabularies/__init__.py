"""Who finds concepts in images; nothing is downloaded unless an address, or "download", is given.

Colours().segment(images, range(len(images)))       # bool [N, K, H, W]
MaskFolder("masks")                                 # the user's masks
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.concepts import Segmenter
from gandissect.plugins import hookimpl

from .clusters import Clusters
from .colours import Colours, Light, colour_name
from .edges import Edges, Texture
from .faces import Faces
from .folders import Folders
from .given import Demo, MaskFolder
from .painted import Painted
from .position import Position
from .seen import Support, VocabularySeen, supports
from .torchvision_models import TorchvisionModel
from .transformers_models import TransformersModel

__all__ = [
    "Clusters",
    "Colours",
    "Demo",
    "Edges",
    "Faces",
    "Folders",
    "Light",
    "MaskFolder",
    "Painted",
    "Position",
    "Support",
    "Texture",
    "TorchvisionModel",
    "TransformersModel",
    "VocabularySeen",
    "colour_name",
    "register_analyzers",
    "register_segmenters",
    "supports",
]

SEGMENTERS: tuple[type[Segmenter], ...] = (
    Colours,
    Light,
    Edges,
    Texture,
    Position,
    Clusters,
    MaskFolder,
    Demo,
    Painted,
    Folders,
    Faces,
    TorchvisionModel,
    TransformersModel,
)


@hookimpl
def register_segmenters() -> list[type[Segmenter]]:
    """The segmenters of this package."""
    return list(SEGMENTERS)


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """What the vocabulary saw."""
    return [VocabularySeen]
