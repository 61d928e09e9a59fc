"""What classes and codes do: sweeps, bits, values that do nothing or look the same, units that differ.

from gandissect_plugins.conditions import conditions_of, paired

conditions = conditions_of(session.gan.generator)
paired(session, conditions[0], conditions).dead          # the class changes nothing
"""

from __future__ import annotations

from collections.abc import Iterable

from gandissect.analyzer import Analyzer
from gandissect.plugins import hookimpl

from .analyzer import Conditions
from .change import Kinds, kinds
from .condition import Condition, Given, conditions_of
from .information import Information, information
from .paired import Paired, Shares, larger_p, paired, variance_shares
from .probe import Leak, Probe, leak, probe, simple_features
from .units import UnitEffects, differing

__all__ = [
    "Condition",
    "Conditions",
    "Given",
    "Information",
    "Kinds",
    "Leak",
    "Paired",
    "Probe",
    "Shares",
    "UnitEffects",
    "conditions_of",
    "differing",
    "information",
    "kinds",
    "larger_p",
    "leak",
    "paired",
    "probe",
    "register_analyzers",
    "simple_features",
    "variance_shares",
]


@hookimpl
def register_analyzers() -> Iterable[type[Analyzer]]:
    """The analysis of conditions."""
    return [Conditions]
