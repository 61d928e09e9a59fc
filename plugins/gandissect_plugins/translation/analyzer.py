"""A translator of pictures as sections of a report.

list(Translation({"inputs": "photos/", "back": "G_BtoA.pth"}).run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from gandissect.analyzer import Analyzer
from gandissect.blocks import Section
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Session, Want

from .back import opposite
from .cycle import cycle
from .cycle_section import TITLE, cycle_section
from .follows import follows
from .pictures import is_translator, translated
from .references import ISOLA, ZHU
from .sections import changes_section, follows_section, pictures_section
from .sensitivity import sensitivity

FEWEST = 8
NONE = (
    "needs a generator that turns pictures into pictures; this one draws from latents (where its input is a picture, "
    "--set translation.inputs=FOLDER says so)"
)


@dataclass(frozen=True)
class TranslationOptions:
    """Options of the analysis of translators."""

    inputs: str = option("", "folder or zip of pictures to translate; made-up ones where left out")
    samples: int = option(200, "pictures that are looked at, at most")
    back: str = option("", "checkpoint of the opposite direction; the same file's other generator where left out")
    network: str = option("", "which generator of that file is the opposite direction")


class Translation(Analyzer):
    """What a translator changes, whether its output follows its input, and whether the way back works."""

    name = "translation"
    order = 445
    references = (ISOLA, ZHU)
    Options: ClassVar[type] = TranslationOptions

    def wants(self, session: Session) -> Iterable[Want]:
        options = cast(TranslationOptions, self.options)
        if is_translator(session.gan.generator.latent) and not options.inputs:
            count = min(session.n, options.samples)
            yield Want((Images(),), KeepSpec(), count)
            if session.vocabulary.concepts and session.vocabulary.reads_pixels:
                yield Want((Areas(),), KeepSpec(), count)

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(TranslationOptions, self.options)
        if not is_translator(session.gan.generator.latent, bool(options.inputs)):
            yield Section("Translation", summary=NONE, status="skipped")
            return
        seen = translated(session, min(session.n, options.samples), options.inputs)
        yield pictures_section(seen)
        if len(seen.outputs) < FEWEST:
            why = f"needs at least {FEWEST} pictures, here {len(seen.outputs)} (--samples N)"
            yield Section("What the translation changes", summary=why, status="skipped")
            return
        yield changes_section(session, seen)
        found = follows(session, seen)
        yield follows_section(seen, found, sensitivity(session, seen))
        back = opposite(session.gan, options.back, options.network)
        if back.generator is None:
            yield Section(TITLE, summary=back.where, status="skipped")
            return
        yield cycle_section(seen, cycle(session, seen, back.generator), back.where)
