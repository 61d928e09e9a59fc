"""How large a page may be, and what is given up for it.

step = first_step(report.sections, 20_000_000)      # chosen from a few cards, without writing the page
STEPS[step].fidelity                                # Fidelity(quality=62, cell=128, …)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gandissect.blocks import Gallery, Section, all_blocks
from gandissect.errors import UsageError
from gandissect_reports.picture_views import card_sheet
from gandissect_reports.sheets import Fidelity

DEFAULT_SIZE = 25_000_000  # bytes: what mail, issue trackers and chat still take
TRIED = 12  # cards of a gallery from which its size is guessed


@dataclass(frozen=True)
class Step:
    """A fidelity, and roughly the share of the full one's bytes that it needs."""

    fidelity: Fidelity
    share: float


# From full to least: quality first, then the size of a picture, then samples on a card.
STEPS: tuple[Step, ...] = (
    Step(Fidelity(crisp=True), 1.0),
    Step(Fidelity(), 0.8),
    Step(Fidelity(quality=78), 0.6),
    Step(Fidelity(quality=62), 0.42),
    Step(Fidelity(quality=62, cell=128), 0.32),
    Step(Fidelity(quality=62, cell=96), 0.25),
    Step(Fidelity(quality=55, cell=64), 0.14),
    Step(Fidelity(quality=55, cell=64, samples=9), 0.09),
    Step(Fidelity(quality=45, cell=64, samples=4), 0.05),
    Step(Fidelity(quality=35, cell=48, samples=2), 0.02),
    Step(Fidelity(quality=25, cell=32, samples=1), 0.01),
)


def first_step(sections: Sequence[Section], room: int) -> int:
    """The best step at which the galleries alone would fit into ``room`` bytes, guessed from a few cards of each."""
    galleries = [block for section in sections for block in all_blocks(section.blocks) if isinstance(block, Gallery)]
    for index, step in enumerate(STEPS):
        if sum(gallery_bytes(gallery, step.fidelity) for gallery in galleries) <= room:
            return index
    return len(STEPS) - 1


def gallery_bytes(gallery: Gallery, fidelity: Fidelity) -> int:
    """About how many bytes the pictures of a gallery take; exact where it has few cards."""
    tried = gallery.cards[:: max(1, len(gallery.cards) // TRIED)]
    sizes = [len(sheet.uri) for card in tried if (sheet := card_sheet(card, fidelity))]
    return round(sum(sizes) / max(1, len(tried)) * len(gallery.cards))


def next_step(step: int, room: float) -> int:
    """The next step that may need no more than ``room`` of the bytes that this one needed."""
    wanted = STEPS[step].share * room
    return next((i for i in range(step + 1, len(STEPS)) if STEPS[i].share <= wanted), len(STEPS) - 1)


def to_bytes(limit: object) -> int:
    """A size in bytes, from a number or from text like "25MB".

    Raises:
        UsageError: it is neither.
    """
    text = str(limit).strip().lower().removesuffix("b")
    factor = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:], 1)
    try:
        return int(float(text.rstrip("kmg")) * factor)
    except ValueError:
        raise UsageError(f"max_size is {limit!r}; expected bytes or a size such as 25MB") from None


def shortened(fidelity: Fidelity, limit: int) -> str:
    """What was done to the pictures to keep to the limit, for the reader."""
    samples = f", at most {fidelity.samples} pictures on a card" if fidelity.samples else ""
    return (
        f"Pictures were reduced to keep the page within {limit / 1e6:.3g} MB: WebP quality {fidelity.quality}, "
        f"at most {fidelity.cell} px each{samples}. A larger max_size keeps more."
    )
