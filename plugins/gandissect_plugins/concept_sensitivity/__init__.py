"""Which concepts the discriminator's logit is sensitive to, and whether pasting them into other samples agrees.

gandissect analyze ckpt.pt --discriminator d.pt -a concept-sensitivity
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import ConceptSensitivity
from .evidence import SensedLayer, moved_logits, slopes
from .transplants import Transplant, transplant
from .vectors import Answers, Sensitivity, Space, Vector, fit, random_answers, sensitivity, tcav

__all__ = [
    "Answers",
    "ConceptSensitivity",
    "SensedLayer",
    "Sensitivity",
    "Space",
    "Transplant",
    "Vector",
    "fit",
    "moved_logits",
    "random_answers",
    "register_analyzers",
    "sensitivity",
    "slopes",
    "tcav",
    "transplant",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """Concept sensitivity."""
    return [ConceptSensitivity]
