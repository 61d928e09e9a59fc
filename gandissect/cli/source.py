"""A checkpoint as it is typed: a path, or an address that is fetched first.

@click.argument("checkpoint", callback=located)
"""

from __future__ import annotations

from pathlib import Path

import click


def located(_context: click.Context, _parameter: click.Parameter, typed: str) -> Path:
    """The path of a file or folder; what an https:// or hf:// address stands for is fetched to one."""
    from gandissect.files.fetching import fetched, is_address

    return fetched(typed) if is_address(typed) else Path(typed)
