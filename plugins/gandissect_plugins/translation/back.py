"""The translator of the opposite direction: in the same file, or in one that was named.

found = opposite(session.gan, "G_B.pth")
found.generator                          # takes what the first one gives, and gives what it takes
"""

from __future__ import annotations

from dataclasses import dataclass

from gandissect.errors import GandissectError
from gandissect.gan import Gan, Generator
from gandissect.opening import open as open_gan

from .pictures import is_translator

HOW = "--set translation.back=FILE names the checkpoint of the opposite direction"


@dataclass(frozen=True)
class Opposite:
    """A translator back with where it was found, or why there is none and what to type."""

    generator: Generator | None
    where: str


def opposite(gan: Gan, file: str = "", network: str = "") -> Opposite:
    """The translator back.

    Args:
        gan: the translator there; a file with both directions says so in ``opening.generators``.
        file: a checkpoint; the translator's own where left out.
        network: which generator of the file; the only other one where left out.
    """
    opening = gan.opening
    path = file or (str(opening.path) if opening.path and (network or len(opening.generators) == 2) else "")
    if not path:
        several = f"the file holds {', '.join(opening.generators)}: --set translation.network=NAME chooses one, or "
        return Opposite(None, f"needs the way back: {several if len(opening.generators) > 2 else ''}{HOW}")
    name = network or ("" if file else opening.generators[1])
    assume = {"network": name} if name else {}
    said = (
        {one.name: one.value for one in opening.assumptions if one.because == "said with --assume"} if not file else {}
    )
    side = {"size": str(gan.generator.image_shape[1])}
    failed = ""
    for given in ({**said, **assume, **side}, {**said, **assume}):
        try:
            found = open_gan(path, assume=given, device=str(gan.generator.device))
        except GandissectError as error:
            failed = failed or f"the way back could not be opened: {error}"
            continue
        wrong = _misfit(gan.generator, found.generator)
        if not wrong:
            return Opposite(found.generator, f"`{name}` of the same file" if not file else f"`{found.name}`")
        failed = wrong
    return Opposite(None, failed)


def _misfit(there: Generator, back: Generator) -> str:
    """Why ``back`` does not take what ``there`` gives; empty where it does."""
    if not is_translator(back.latent):
        return "the way back takes vectors, not pictures"
    if back.latent.shape != there.image_shape:
        sizes = " and ".join("×".join(map(str, shape)) for shape in (there.image_shape, back.latent.shape))
        return (
            f"the way back takes pictures of another size than the way there gives ({sizes}); --assume size=N sets both"
        )
    return ""
