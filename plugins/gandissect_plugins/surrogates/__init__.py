"""Models that are small enough to be read, in place of networks that are not: rules, linear fits, importances.

gandissect analyze ckpt.pt --discriminator d.pt -a surrogates
"""

from __future__ import annotations

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Surrogates
from .critic_section import Explained, explain_scores
from .evidence import Features, grouped
from .heldout import HeldOut, Judge
from .importance import Importances, ablation, importances, permutation, shapley
from .models import Linear, Model, Tree, fit_linear, fit_tree
from .reading import Reading, readings
from .rules import Rule, read_rules

__all__ = [
    "Explained",
    "Features",
    "HeldOut",
    "Importances",
    "Judge",
    "Linear",
    "Model",
    "Reading",
    "Rule",
    "Surrogates",
    "Tree",
    "ablation",
    "explain_scores",
    "fit_linear",
    "fit_tree",
    "grouped",
    "importances",
    "permutation",
    "read_rules",
    "readings",
    "register_analyzers",
    "shapley",
]


@hookimpl
def register_analyzers() -> list[type[Analyzer]]:
    """The surrogates."""
    return [Surrogates]
