"""Self-attention of both networks: where a place takes from, whether that follows content, and what it changes.

gandissect analyze G.pth --discriminator D.pth -a attention
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Attention
from .content import Following, Head, Locality, follows, heads, locality, same_colour, same_concept
from .effects import Effects, effects
from .maps import AttentionLayer, Subject, attention_layers
from .trace import Mixing, attending

__all__ = [
    "Attention",
    "AttentionLayer",
    "Effects",
    "Following",
    "Head",
    "Locality",
    "Mixing",
    "Subject",
    "attending",
    "attention_layers",
    "effects",
    "follows",
    "heads",
    "locality",
    "register_analyzers",
    "same_colour",
    "same_concept",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """Attention."""
    return [Attention]
