"""How the networks arrange samples: maps of their layers, and which layer tells what apart.

from gandissect_plugins.features import embed, separability

embed(session.activations("layer4", 400).mean((2, 3)).numpy(), "tsne", 2).trustworthiness
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import FeatureSpace
from .embedding import Components, Embedding, embed, neighbour_trust, principal_components
from .separability import Separability, separability
from .spaces import Space, gather, layer_spaces

__all__ = [
    "Components",
    "Embedding",
    "FeatureSpace",
    "Separability",
    "Space",
    "embed",
    "gather",
    "layer_spaces",
    "neighbour_trust",
    "principal_components",
    "register_analyzers",
    "separability",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The feature-space analysis."""
    return [FeatureSpace]
