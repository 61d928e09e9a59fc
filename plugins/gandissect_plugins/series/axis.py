"""What the lines of a series have in common: their axis, and words for places on it.

at(lineup, 3)                            # "epoch 12"
"""

from __future__ import annotations

from collections.abc import Sequence

from gandissect.comparer import Lineup


def at(lineup: Lineup, place: int) -> str:
    """A checkpoint in a sentence: "epoch 12", or its name where names hold no numbers."""
    return lineup.names[place] if lineup.axis == "checkpoint" else f"{lineup.axis} {lineup.places[place]:g}"


def between(lineup: Lineup, place: int) -> str:
    """ "Between epoch 12 and 13": the gap before a checkpoint."""
    if lineup.axis == "checkpoint":
        return f"Between {lineup.names[place - 1]} and {lineup.names[place]}"
    return f"Between {lineup.axis} {lineup.places[place - 1]:g} and {lineup.places[place]:g}"


def columns(lineup: Lineup) -> tuple[str, ...]:
    """Names of the checkpoints for the heads of pictures: numbers where they have some."""
    return lineup.names if lineup.axis == "checkpoint" else tuple(f"{place:g}" for place in lineup.places)


def chosen(count: int, most: int) -> Sequence[int]:
    """At most so many of ``count`` places, evenly spread, the first and the last among them."""
    if count <= most:
        return range(count)
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
