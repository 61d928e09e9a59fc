"""What units cause: switched off, switched on, alone and together, beside random units of the same layer.

tests = causal_tests(session, dissect(session), Plan(), session.areas())
ablate(session, "layer4", [17, 23], "tree").removed()
"""

from __future__ import annotations

from .ablation import Ablation, Baseline, ablate, ablate_random, baseline, where_present
from .ace import Examples, ace_loss, examples, optimise
from .artifacts import Artifacts, artifact_units
from .effects import CausalTests, ConceptTest, causal_tests
from .insertion import Insertion, InsertionMap, PlaceGrid, insert, insertion_map, mean_present_level, places_of
from .orders import DoseResponse, OrderComparison, dose_response, greedy
from .plan import Plan
from .resampling import Effect, Gain
from .roles import Role, UnitCause, role_of

__all__ = [
    "Ablation",
    "Artifacts",
    "Baseline",
    "CausalTests",
    "ConceptTest",
    "DoseResponse",
    "Effect",
    "Examples",
    "Gain",
    "Insertion",
    "InsertionMap",
    "OrderComparison",
    "PlaceGrid",
    "Plan",
    "Role",
    "UnitCause",
    "ablate",
    "ablate_random",
    "ace_loss",
    "artifact_units",
    "baseline",
    "causal_tests",
    "dose_response",
    "examples",
    "greedy",
    "insert",
    "insertion_map",
    "mean_present_level",
    "optimise",
    "places_of",
    "role_of",
    "where_present",
]
