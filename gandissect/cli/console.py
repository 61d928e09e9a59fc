"""What a person sees while a command runs: on stderr, bars only on a terminal.

with bars(quiet=False) as progress:
    analyze(gan, progress=progress)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import click

from gandissect.progress import Advance, Progress, Silent


class PlainLines:
    """One line when a phase ends, for logs and pipes."""

    @contextmanager
    def phase(self, name: str, total: int) -> Generator[Advance]:
        """Says what was done and how long it took."""
        began = time.perf_counter()
        yield lambda steps: None
        click.echo(f"{name} ({total}): {time.perf_counter() - began:.1f} s", err=True)


class Bars:
    """A bar for each phase, with the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )

    @contextmanager
    def phase(self, name: str, total: int) -> Generator[Advance]:
        """A bar that goes away when the phase ends."""
        task = self.rich.add_task(name, total=total)
        try:
            yield lambda steps: self.rich.advance(task, steps)
        finally:
            self.rich.remove_task(task)


def printable(text: str, keep: str = "") -> str:
    """``text`` with characters that steer a terminal or cannot be shown as \\u escapes: a file's names may hold any.

    Args:
        keep: characters that stay although they are not printable.
    """
    return "".join(c if c.isprintable() or c in keep else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    if code > 0xFFFF:  # as JSON writes it: two surrogates
        return _escape(0xD7C0 + (code >> 10)) + _escape(0xDC00 + (code & 0x3FF))
    return f"\\u{code:04x}"


@contextmanager
def bars(*, quiet: bool) -> Generator[Progress]:
    """Bars on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        shown = Bars()
        with shown.rich:
            yield shown
    else:
        yield PlainLines()
