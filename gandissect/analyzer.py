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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gandissect.blocks import Reference, Section
from gandissect.options import NoOptions, OptionValues, load_options

if TYPE_CHECKING:
    from gandissect.session import Session, Want


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
