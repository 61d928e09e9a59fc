"""What can go wrong because of what was asked, in one sentence each.

try:
    gan = gandissect.open("ckpt.pt")
except gandissect.GandissectError as error:
    print(error)                        # what, which, what was expected, what to type
    raise SystemExit(error.exit_code)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

# Exit codes of the command line (docs/cli.md): 1 internal, 2 usage, 3 a section failed, 4 not openable, 130 interrupted.
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_SECTION_FAILED = 3
EXIT_NOT_OPENED = 4
EXIT_INTERRUPTED = 130


class GandissectError(Exception):
    """Any error that the person at the keyboard can act on; ``str()`` is one sentence that says how."""

    exit_code: ClassVar[int] = EXIT_USAGE


class UsageError(GandissectError, ValueError):
    """An argument, option or name that does not exist or has the wrong form."""


class UnknownName(UsageError, LookupError):
    """A layer, analyzer, adapter, concept or option that is not there; the message names the nearest ones."""

    def __str__(self) -> str:  # LookupError would print the repr of the message
        return str(self.args[0])


class NotOpened(GandissectError, ValueError):
    """A file that is no checkpoint, is damaged, is not a GAN, or fits no known architecture."""

    exit_code = EXIT_NOT_OPENED


class UnsafeCheckpoint(NotOpened):
    """A file that cannot be read without running code that is in it."""


class NoSuchCapability(GandissectError, RuntimeError):
    """An analysis was asked of a network that cannot give it (no gradients, no discriminator, layer not editable)."""


def strict() -> bool:
    """Whether faults are to be raised as they are, not told in a sentence: ``GANDISSECT_STRICT=1`` in the environment."""
    return os.environ.get("GANDISSECT_STRICT", "") not in ("", "0")


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
    """The error for a ``name`` that is not among ``known``, with up to three near matches."""
    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.4)
    meant = f"; did you mean {', '.join(near)}?" if near else f"; known: {', '.join(names[:20]) or 'none'}"
    return UnknownName(f"no {kind} {name!r}{meant}{' ' + hint if hint else ''}")
