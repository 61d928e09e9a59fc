"""Network dissection: which units follow which concepts, beyond chance, and what switching them off removes.

result = dissect(session)                           # tables, labels, p-values
effect = ablate(session, "layer4", [17, 23], "tree").removed()
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analysis import DissectionAnalyzer
from .causal import Ablation, CausalTests, ConceptTest, Effect, Plan, Role, UnitCause, ablate, baseline, causal_tests
from .dissect import Dissection, LayerTable, UnitLabel, dissect, dissection_wants

__all__ = [
    "Ablation",
    "CausalTests",
    "ConceptTest",
    "Dissection",
    "DissectionAnalyzer",
    "Effect",
    "LayerTable",
    "Plan",
    "Role",
    "UnitCause",
    "UnitLabel",
    "ablate",
    "baseline",
    "causal_tests",
    "dissect",
    "dissection_wants",
    "register_analyzers",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """The dissection."""
    return [DissectionAnalyzer]
