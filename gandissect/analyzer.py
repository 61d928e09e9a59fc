"""What an analysis is: a name, what it needs, its options, and sections made from a session.

class MeanColour(Analyzer):
    \"\"\"The average colour of the samples.\"\"\"
    name = "mean-colour"
    def run(self, session):
        rgb = session.images().mean((0, 2, 3))                # float32 [3]
        yield Section("Mean colour", Table(("R", "G", "B"), [rgb.tolist()]))
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from gandissect.blocks import Reference, Section
from gandissect.options import NoOptions, OptionValues, load_options

if TYPE_CHECKING:
    from gandissect.session import Session, Want


T = TypeVar("T")
VECTOR = (
    "a latent vector (this generator turns pictures into pictures: its input has pixels, no coordinates to walk along)"
)


@dataclass(frozen=True)
class Needs:
    """What must be there for an analysis to make sense; what is missing is named in a skipped section.

    Attributes:
        discriminator: the GAN has one.
        layers: the generator has at least one readable layer.
        edits: the generator's layers can be edited.
        gradients: the generator is differentiable with respect to its latents.
        discriminator_gradients: the discriminator is differentiable with respect to its images.
        labels: the generator takes class labels.
        latent_vector: the generator draws from a vector, not from a picture that it changes into another.
        concepts: the vocabulary is not empty.
        real: real images were given.
        packages: modules that must be importable.
    """

    discriminator: bool = False
    layers: bool = False
    edits: bool = False
    gradients: bool = False
    discriminator_gradients: bool = False
    labels: bool = False
    latent_vector: bool = False
    concepts: bool = False
    real: bool = False
    packages: tuple[str, ...] = ()

    def missing(self, session: Session) -> str:
        """One sentence that says what is not there and what to type; empty when all is."""
        can = session.gan.capabilities
        present = session.gan.discriminator is not None
        asked = self.discriminator or self.discriminator_gradients
        differentiable = can.discriminator_gradients or not present
        checks = [
            (asked, present, "a discriminator (pass --discriminator FILE)"),
            (self.layers, bool(session.gan.generator.layers), "readable layers (this format hides them)"),
            (self.edits, can.edits, "layers that can be edited (this format does not allow it)"),
            (self.gradients, can.gradients, "gradients through the generator (this format gives none)"),
            (
                self.discriminator_gradients,
                differentiable,
                "gradients through the discriminator (this format gives none)",
            ),
            (self.labels, can.labels, "a class-conditional generator"),
            (self.latent_vector, session.gan.generator.latent.prior != "image", VECTOR),
            (self.concepts, bool(session.vocabulary.concepts), "concepts (pass --concepts NAME)"),
            (self.real, session.real is not None, "real images (pass --data FOLDER)"),
        ]
        lacking = [what for needed, there, what in checks if needed and not there]
        lacking += [
            f"the package {package} (pip install {package})"
            for package in self.packages
            if importlib.util.find_spec(package) is None
        ]
        return f"needs {' and '.join(lacking)}" if lacking else ""


def spread(layers: Sequence[T], at_most: int) -> tuple[T, ...]:
    """At most so many of ``layers``, evenly over their order, the first and the last among them."""
    if len(layers) <= at_most:
        return tuple(layers)
    if at_most < 2:
        return tuple(layers[len(layers) // 2 :][:at_most])
    return tuple(layers[round(place * (len(layers) - 1) / (at_most - 1))] for place in range(at_most))


def left_out(seen: int, of: int, how: str) -> str:
    """A sentence on main layers that an analysis did not look at; empty where it looked at all."""
    return f"{seen} of {of} main layers were looked at, spread evenly over depth; {how}." if seen < of else ""


class Analyzer(ABC):
    """One kind of analysis.

    Attributes:
        name: kebab-case, unique; the anchor in the report and the table in configuration files.
        needs: what must be there.
        order: place in the report, small first.
        references: printed under every section that gives none of its own.
        Options: a frozen dataclass whose fields all have defaults.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs()
    order: ClassVar[int] = 500
    references: ClassVar[tuple[Reference, ...]] = ()
    Options: ClassVar[type] = NoOptions

    def __init__(self, options: OptionValues | object | None = None) -> None:
        """An analysis with its options: an ``Options`` instance, a mapping of names to values, or the defaults.

        Raises:
            UsageError: an option that does not exist, or a value of the wrong kind.
        """
        self.options = load_options(self.Options, options, self.name)

    def wants(self, session: Session) -> Iterable[Want]:
        """What to gather in the pass that all analyzers share; undeclared wants work too, at the price of a pass.

        ``session.gan`` says what there is, ``session.n`` how many samples are asked for.
        """
        return ()

    @abstractmethod
    def run(self, session: Session) -> Iterator[Section]:
        """Sections, one by one; those yielded before an exception are kept."""
