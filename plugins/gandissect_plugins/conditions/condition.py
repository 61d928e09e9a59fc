"""What a generator is told beside z: its class, and codes among the coordinates of its latent (InfoGAN).

conditions_of(session.gan.generator, ("24-33", "34"))    # a one-hot code of ten values, and a continuous one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.errors import UsageError
from gandissect.gan import Generator
from gandissect.sampling import prior_moments
from gandissect.session import Session

Kind = Literal["class", "one-hot", "continuous"]
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Standard deviations of the prior at which a continuous code is looked at."""
LEVELS = 8
"""Equally full groups that the values of a continuous code are sorted into."""


@dataclass(frozen=True)
class Condition:
    """One thing that can be set while z stays as it is.

    Attributes:
        name: "class", or "code z[24–33]".
        kind: a label, a block of latent coordinates of which one is 1, or one latent coordinate.
        values: what is looked at: class numbers, places in the block, values of the coordinate.
        count: how many values there are; 0 for a continuous code.
        places: the latent coordinates that hold it; empty for a class.
    """

    name: str
    kind: Kind
    values: tuple[float, ...]
    count: int = 0
    places: tuple[int, ...] = ()

    @property
    def discrete(self) -> bool:
        """It has values that can be counted."""
        return self.kind != "continuous"

    @property
    def value_names(self) -> tuple[str, ...]:
        """What each of ``values`` is called."""
        if self.discrete:
            return tuple(f"{'class' if self.kind == 'class' else 'value'} {value:.0f}" for value in self.values)
        return tuple(f"{value:.3g}".replace("-", "−") for value in self.values)

    def put(self, given: Given, value: float) -> Given:
        """The same inputs with the condition set to ``value``."""
        latents, labels = given.latents.clone(), given.labels
        if self.kind == "class":
            labels = torch.full((len(latents),), int(value), dtype=torch.int64)
        elif self.kind == "one-hot":
            latents[:, list(self.places)] = 0.0
            latents[:, self.places[int(value)]] = 1.0
        else:
            latents[:, self.places[0]] = value
        return Given(latents, labels)

    def groups(self, given: Given) -> NDArray[np.int64]:
        """Which value each input has: int64 [N], a place in ``values``; of a continuous code the eighth that it is in."""
        if self.kind == "class":
            assert given.labels is not None
            chosen = torch.tensor(self.values)
            return np.asarray((given.labels[:, None] == chosen).int().argmax(1).numpy(), np.int64)
        if self.kind == "one-hot":
            return np.asarray(given.latents[:, list(self.places)].argmax(1).numpy(), np.int64)
        return evenly(given.latents[:, self.places[0]].numpy(), LEVELS)


@dataclass(frozen=True)
class Given:
    """Inputs of a generator: latents float32 [N, D], and labels int64 [N] where it takes any."""

    latents: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.latents)


def evenly(values: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """Values [N] sorted into at most ``bins`` equally full groups, equal values together: int64 [N]."""
    inner = np.quantile(values, np.arange(1, bins) / bins)
    return np.asarray(np.searchsorted(np.unique(inner), values, side="left"), np.int64)


def conditions_of(generator: Generator, codes: Sequence[str] = (), at_most: int = 16) -> tuple[Condition, ...]:
    """The class and the codes of a generator; empty where it has neither.

    Args:
        generator: whose latent may say which of its coordinates are codes.
        codes: "34" is a continuous code, "24-33" a one-hot one; those the file names where left out.
        at_most: values of one condition that are looked at, spread evenly.

    Raises:
        UsageError: no such coordinate.
    """
    found = []
    if generator.num_classes > 1:
        values = spread(range(generator.num_classes), at_most)
        found.append(Condition("class", "class", tuple(map(float, values)), generator.num_classes))
    mean, deviation = prior_moments(generator.latent)
    steps = tuple(mean + deviation * step for step in STEPS)
    for first, last in [_places(code, generator.latent.size) for code in codes] or [
        (place, place) for place in generator.latent.codes
    ]:
        if first == last:
            found.append(Condition(f"code z[{first}]", "continuous", steps, 0, (first,)))
            continue
        places = tuple(range(first, last + 1))
        every = tuple(float(place) for place in range(len(places)))
        found.append(Condition(f"code z[{first}–{last}]", "one-hot", every, len(places), places))
    return tuple(found)


def _places(code: str, size: int) -> tuple[int, int]:
    """First and last coordinate of a code as it is typed."""
    first, _, last = code.partition("-")
    if not first.isdigit() or not (last or first).isdigit() or not int(first) <= int(last or first) < size:
        raise UsageError(
            f"conditions.codes: {code!r} names no coordinates of a latent of {size}; "
            "type 34 for a continuous code, 24-33 for a one-hot one, commas between"
        )
    return int(first), int(last or first)


def plain(conditions: Sequence[Condition]) -> bool:
    """Whether the session's own samples have the conditions as they should be: every class in turn, no one-hot code."""
    return all(
        condition.kind == "continuous" or (condition.kind == "class" and len(condition.values) == condition.count)
        for condition in conditions
    )


def drawn(session: Session, conditions: Sequence[Condition], indices: range) -> Given:
    """Inputs of samples: z from the prior, values of the class and of one-hot codes in turn, each with each other's."""
    given = Given(session.latents_at(indices), session.labels(indices))
    period = 1
    for condition in conditions:
        if not condition.discrete:
            continue
        turn = torch.tensor([(index // period) % len(condition.values) for index in indices])
        period *= len(condition.values)
        if condition.kind == "class":
            given = Given(given.latents, torch.tensor(condition.values).long()[turn])
        else:
            latents = given.latents.clone()
            latents[:, list(condition.places)] = torch.eye(len(condition.places))[turn]
            given = Given(latents, given.labels)
    return given
