"""Who finds concepts in images, without any download.

build_segmenter("colours")                          # by name
build_segmenter("masks:FOLDER")                     # the user's masks
build_segmenter("segment.py:red")                   # the user's function
build_vocabulary(["colours", "position"])           # several as one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gandissect.concepts import Segmenter, Vocabulary
from gandissect.errors import unknown_name
from gandissect.plugins import hookimpl

from .clusters import Clusters
from .colours import Colours, Light, colour_name
from .edges import Edges, Texture
from .given import Demo, MaskFolder, load_function
from .position import Position

__all__ = [
    "LOW_LEVEL",
    "Clusters",
    "Colours",
    "Demo",
    "Edges",
    "Light",
    "MaskFolder",
    "Position",
    "Texture",
    "build_segmenter",
    "build_vocabulary",
    "colour_name",
    "load_function",
    "register_segmenters",
]

SEGMENTERS: tuple[type[Segmenter], ...] = (Colours, Light, Edges, Texture, Position, Clusters, MaskFolder, Demo)
LOW_LEVEL = ("colours", "light", "edges", "texture", "position", "clusters")
"""Those that need no model and fit every GAN; the default where nothing better is there."""


@hookimpl
def register_segmenters() -> list[type[Segmenter]]:
    """The segmenters of this package."""
    return list(SEGMENTERS)


def build_segmenter(spec: str, known: Mapping[str, Callable[..., Segmenter]] | None = None) -> Segmenter:
    """The segmenter that ``spec`` names: ``name``, ``name:ARGUMENT``, or ``file.py:function``.

    Args:
        spec: see above.
        known: name -> class or factory, from the plugins; those of this package where left out.

    Raises:
        UnknownName: no segmenter of that name; the message names the nearest.
    """
    own: dict[str, Callable[..., Segmenter]] = {cls.name: cls for cls in SEGMENTERS}
    segmenters = own if known is None else known
    name, colon, argument = spec.partition(":")
    if name in segmenters:
        return segmenters[name](argument) if colon else segmenters[name]()
    if colon and (".py:" in spec or name.replace(".", "").isidentifier()):
        return load_function(spec)
    raise unknown_name("concepts", spec, segmenters, "(or masks:FOLDER, or file.py:function)")


def build_vocabulary(
    specs: Iterable[str] | Sequence[str] = LOW_LEVEL, known: Mapping[str, Callable[..., Segmenter]] | None = None
) -> Vocabulary:
    """Several segmenters as one, in the order of ``specs``."""
    return Vocabulary([build_segmenter(spec, known) for spec in specs])
