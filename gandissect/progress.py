"""Who is told how far a run is.

with progress.phase("generating samples", total=1000) as advance:
    advance(64)
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows phases; the command line's draws bars on a terminal, :class:`Silent` shows nothing."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """A phase of ``total`` steps; the function it yields is called with the number of steps just done."""
        ...


class Silent:
    """Shows nothing."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Advance]:
        return nullcontext(lambda steps: None)
