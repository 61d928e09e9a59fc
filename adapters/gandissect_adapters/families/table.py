"""All families, in the order in which they are asked.

family, role = recognised(state)        # (StyleGan2(), "generator"), or (None, "")
"""

from __future__ import annotations

from importlib import import_module

from gandissect_adapters.families.family import Family
from gandissect_adapters.recognise.unwrap import Role, StateDict

# module of this package -> classes in it; the first family that claims a network gets it.
MODULES: dict[str, tuple[str, ...]] = {}


def families() -> list[Family]:
    """One of each family."""
    return [
        getattr(import_module(f"gandissect_adapters.families.{module}"), name)()
        for module, names in MODULES.items()
        for name in names
    ]


def recognised(net: StateDict, known: list[Family] | None = None) -> tuple[Family | None, Role]:
    """The family that ``net`` belongs to and its role there."""
    for family in families() if known is None else known:
        if role := family.role(net):
            return family, role
    return None, ""
