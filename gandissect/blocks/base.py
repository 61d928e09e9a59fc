"""What all blocks share: trust and findings, references, and how a block becomes JSON.

Finding("**12 units** draw eyes.", Trust("p < 0.001", "masks of other samples"))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
Cell = str | int | float | bool | None
Status = Literal["done", "partly", "skipped", "failed"]


@dataclass(frozen=True)
class Trust:
    """How far to trust a statement: a few words for the chip, and what was tested against what.

    ``level`` is "checked" (a test was passed), "weak" (a test was not passed) or "unchecked" (none was made).
    """

    label: str
    tested: str
    level: Literal["checked", "weak", "unchecked"] = "checked"


UNCHECKED = Trust("unchecked", "nothing was measured that could refute this", "unchecked")


@dataclass(frozen=True)
class Finding:
    """One sentence with its number, how far to trust it, and how much it matters (0 to 1, for the first screen)."""

    text: str
    trust: Trust
    weight: float = 0.5


@dataclass(frozen=True)
class Reference:
    """Where a method comes from."""

    authors: str
    year: int
    title: str
    venue: str = ""

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}). {self.title}.{' ' + self.venue + '.' if self.venue else ''}"


@dataclass(frozen=True)
class Block:
    """Base of all blocks; ``kind`` is the name in JSON."""

    kind: ClassVar[str] = "block"

    def to_json(self) -> dict[str, Json]:
        """The block without its pixels: images are replaced by their shape."""
        out: dict[str, Json] = {"kind": self.kind}
        for item in fields(self):
            out[item.name] = jsonable(getattr(self, item.name))
        return out


def jsonable(value: object) -> Json:
    """``value`` as JSON: floats rounded to 7 significant digits, NaN and infinities as null, pixels as their shape."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            return float(f"{value:.7g}") if np.isfinite(value) else None
        case np.integer():
            return int(value)
        case np.bool_():
            return bool(value)
        case np.ndarray():
            if value.dtype == np.uint8:
                return {"pixels": list(value.shape)}
            return [jsonable(row) for row in value] if value.ndim else jsonable(value.item())
        case Block():
            return value.to_json()
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case Sequence():
            return [jsonable(item) for item in value]
        case _ if hasattr(value, "__dataclass_fields__"):
            return {name: jsonable(getattr(value, name)) for name in value.__dataclass_fields__}
    return str(value)
