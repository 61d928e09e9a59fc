"""Network dissection: which units follow which concepts, beyond chance, and what switching them off removes.

result = dissect(session)                           # tables, labels, p-values
effect = ablate(session, "layer4", [17, 23], "tree").removed()
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analysis import DissectionAnalyzer
from .causal import Ablation, Effect, ablate, baseline
from .dissect import Dissection, LayerTable, UnitLabel, dissect, dissection_wants
from .effects import CausalTests, ConceptTest, Plan, causal_tests

__all__ = [
    "Ablation",
    "CausalTests",
    "ConceptTest",
    "Dissection",
    "DissectionAnalyzer",
    "Effect",
    "LayerTable",
    "Plan",
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
