"""What a comparison is: what it looks at in each checkpoint while that is open, and what it tells of all of them.

class Brightness(Comparer[float]):
    name, of = "brightness", "pair"
    def look(self, session):
        return float(session.images().mean())
    def tell(self, seen, lineup):
        yield Section("Brightness", Table(lineup.names, [seen]))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

import numpy as np

from gandissect import sampling
from gandissect.blocks import Reference, Section
from gandissect.concepts import Concept
from gandissect.gan import Gan
from gandissect.options import NoOptions, OptionValues, load_options

if TYPE_CHECKING:
    from gandissect.comparing.training_log import TrainingLog
    from gandissect.session import Session, Want

Kind = Literal["pair", "series"]
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A checkpoint that can be opened: what it is called, how, and where it lies on the axis of a series."""

    name: str
    open: Callable[[], Gan]
    place: float = 0.0


@dataclass(frozen=True)
class Lineup:
    """What all comparers know about the checkpoints, in their order.

    Attributes:
        names: what each is called.
        places: where each lies on the axis, such as its epoch; ``axis`` is the axis's name.
        n, seed: samples of each, and their seed.
        concepts: what areas and masks are of.
        real: how many real images were given, 0 for none.
        latents_differ: why sample i of one is not sample i of another, in a sentence; empty where it is.
        log: losses of the training, where a log was given.
    """

    names: tuple[str, ...]
    places: tuple[float, ...]
    axis: str
    n: int
    seed: int
    concepts: tuple[Concept, ...] = ()
    real: int = 0
    latents_differ: str = ""
    log: TrainingLog | None = None

    def rng(self, name: str) -> np.random.Generator:
        """Randomness for one purpose, the same in every run with this seed."""
        return sampling.named_rng(self.seed, name)


class Comparer(ABC, Generic[T]):
    """One kind of comparison: what it looks at in each checkpoint, and what it tells of all.

    Attributes:
        name: kebab-case, unique.
        of: "pair" for two checkpoints, "series" for those of one training.
        order: place in the report, small first.
        least: checkpoints without which there is nothing to tell.
        references: printed under every section that gives none of its own.
        Options: a frozen dataclass whose fields all have defaults.
    """

    name: ClassVar[str]
    of: ClassVar[Kind]
    order: ClassVar[int] = 500
    least: ClassVar[int] = 2
    references: ClassVar[tuple[Reference, ...]] = ()
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: OptionValues | object | None = None) -> None:
        """A comparison with its options; see :class:`gandissect.analyzer.Analyzer`."""
        self.options = load_options(self.Options, options, self.name)

    def wants(self, session: Session) -> Iterable[Want]:
        """What to gather of one checkpoint, in the pass that all comparers share."""
        return ()

    @abstractmethod
    def look(self, session: Session) -> T:
        """What is kept of one checkpoint, while it is open; nothing of it may hold on to the networks."""

    @abstractmethod
    def tell(self, seen: Sequence[T], lineup: Lineup) -> Iterator[Section]:
        """Sections on what was seen, one entry for each checkpoint; those yielded before an exception are kept."""
