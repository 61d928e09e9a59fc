"""What the vocabulary found in the samples, how sure it was, and what it never found.

section = next(VocabularySeen().run(session))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Block, Cell, ImageGrid, Pixels, Section, Table, Text, to_uint8
from gandissect.concepts import LOW_LEVEL, Concept, telling_first
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Session, Want
from gandissect.streams import Batch, Masks, Stream

LINE = (255, 0, 255)
SMALL, LARGE = 128, 256  # pixels: pictures are repeated up to the former and averaged down to the latter


@dataclass(frozen=True)
class Sureness(Stream):
    """Per image and concept, the sum of the soft score inside the mask, and the mask's pixels: float32 [N, K, 2]."""

    def of(self, batch: Batch) -> Tensor:
        """NaN sums where a concept has no soft score; one image at a time, for a score of each concept takes much memory."""
        masks = batch.get(Masks())
        rows = [_sureness(batch.cut(row, row + 1), masks[row]) for row in range(len(masks))]
        return torch.stack(rows) if rows else torch.zeros(0, masks.shape[1], 2)


def _sureness(one: Batch, mask: Tensor) -> Tensor:
    """float32 [K, 2] of a batch of one image, whose masks are bool [K, H, W]."""
    soft, inside = one.soft(), mask.float()
    total = torch.full((len(mask),), torch.nan)
    if soft is not None:
        scores = soft[0].cpu()
        unknown = scores.isnan().flatten(1).any(1)
        total = (scores.nan_to_num() * inside).sum((1, 2)).masked_fill(unknown, torch.nan)
    return torch.stack([total, inside.sum((1, 2))], 1)


@dataclass(frozen=True)
class Support:
    """What was seen of one concept.

    Attributes:
        samples: how many of the samples have it, of ``of``.
        area: mean part of the image where it is present, 0..1.
        confidence: mean soft score inside its masks, 0..1; NaN where there is none.
    """

    concept: Concept
    samples: int
    of: int
    area: float
    confidence: float


def supports(concepts: Sequence[Concept], areas: Tensor, sureness: Tensor) -> list[Support]:
    """One row per concept that is not spatial, in their order.

    Args:
        areas: float32 [n, K] in 0..1.
        sureness: float32 [m, K, 2], see :class:`Sureness`.
    """
    present = areas > 0
    area = areas.double().sum(0) / present.sum(0).clamp(min=1)
    inside = sureness.double().sum(0)
    confidence = torch.where(inside[:, 1] > 0, inside[:, 0] / inside[:, 1].clamp(min=1), torch.nan)
    return [
        Support(concept, int(present[:, k].sum()), len(areas), float(area[k]), float(confidence[k]))
        for k, concept in enumerate(concepts)
        if not concept.spatial
    ]


class VocabularySeen(Analyzer):
    """Which concepts the samples hold at all, and how sure the vocabulary is of them."""

    name = "vocabulary"
    needs = Needs(concepts=True)
    order = 150

    @dataclass(frozen=True)
    class Options:
        """What is measured and shown."""

        samples: int = option(64, "samples in which confidence is measured and from which pictures are taken")
        concepts: int = option(5, "concepts whose masks are shown")
        examples: int = option(6, "samples shown for each of them")

    options: Options
    COLUMNS: ClassVar[tuple[str, ...]] = (
        "concept", "category", "samples with it", "of samples, %", "mean area there, %", "mean confidence",
    )  # fmt: skip

    def _wants(self, session: Session) -> tuple[Want, Want]:
        looked = min(session.n, max(1, self.options.samples))
        areas = Want((Areas(),), KeepSpec(), session.n)
        return areas, Want((Sureness(),), KeepSpec(), looked)

    def wants(self, session: Session) -> Iterable[Want]:
        """Areas of all samples, confidence in the first of them."""
        return self._wants(session)

    def run(self, session: Session) -> Iterator[Section]:
        """The table, what is absent, and pictures."""
        wanted = self._wants(session)
        areas, sureness = cast(Tensor, session[wanted[0]]), cast(Tensor, session[wanted[1]])
        rows = supports(session.vocabulary.concepts, areas, sureness)
        if not rows:
            yield Section("What the vocabulary saw", summary="The vocabulary holds nothing but places.")
            return
        absent = [row.concept.name for row in rows if not row.samples]
        found = _categories(rows, session, areas)
        told = [_row(row) for row in rows if row.samples]
        blocks: list[Block] = [Table(self.COLUMNS, told, _caption(len(sureness)))] if told else []
        blocks.append(Table(("category", "concepts", "absent", "samples with any"), found))
        if absent:
            blocks.append(Text(f"**Absent from all {len(areas)} samples:** {', '.join(absent)}."))
        yield Section(
            "What the vocabulary saw",
            *blocks,
            *self._pictures(session, areas[: len(sureness)]),
            summary=_summary(len(rows), absent, found, len(areas)),
            meaning=_MEANING,
        )

    def _pictures(self, session: Session, areas: Tensor) -> Iterator[Block]:
        concepts = session.vocabulary.concepts
        present = [k for k in telling_first(concepts, areas) if bool((areas[:, k] > 0).any())][: self.options.concepts]
        chosen = {k: _from_most_to_least(areas[:, k], self.options.examples) for k in present}
        indices = sorted({index for row in chosen.values() for index in row})
        if not indices:
            return
        images = session.generate(session.latents_at(indices), labels=session.labels(indices))
        masks = dict(zip(indices, session.segment(images, indices), strict=True))
        pictures = dict(zip(indices, images, strict=True))
        columns = max(map(len, chosen.values()))
        shown = [(i, k) for k, row in chosen.items() for i in (row + row[-1:] * columns)[:columns]]
        names = tuple(concepts[k].name for k in chosen)
        yield ImageGrid(
            np.stack([outlined(pictures[i], masks[i][k]) for i, k in shown]),
            f"Samples with the outlines of {', '.join(names)}.",
            columns=columns,
            row_labels=names,
            caption=f"Outlines of the masks in the first {len(areas)} samples, from the largest area (left) to the smallest; "
            "the last picture is repeated where fewer samples hold the concept.",
        )


_MEANING = (
    "Everything that is said of concepts rests on these masks. *Samples with it* counts samples in which at least one pixel is "
    "claimed; a concept without any is absent, and no unit can be found for it. *Mean confidence* is the mean of the segmenter's "
    "own score (0 to 1) over the pixels that it claims; segmenters are not calibrated against each other, and one that was trained "
    "on photographs can be sure and wrong on samples of a GAN: look at the outlines. For colours, edges and texture the score says "
    "how far a pixel is from the border of its term. No number stands where a segmenter gives no score."
)


def _caption(looked: int) -> str:
    return f"Confidence is measured in the first {looked} samples."


def _row(row: Support) -> list[Cell]:
    sure = None if np.isnan(row.confidence) else round(row.confidence, 2)
    share = round(100 * row.samples / max(row.of, 1), 1)
    return [row.concept.name, row.concept.category, row.samples, share, round(100 * row.area, 2), sure]


def _categories(rows: Sequence[Support], session: Session, areas: Tensor) -> list[list[Cell]]:
    """For each category: how many concepts, how many were never seen, and the samples that hold any."""
    listed: list[list[Cell]] = []
    concepts = session.vocabulary.concepts
    for category in dict.fromkeys(row.concept.category for row in rows):
        places = [k for k, concept in enumerate(concepts) if concept.category == category and not concept.spatial]
        covered = int((areas[:, places] > 0).any(1).sum())
        never = sum(not row.samples for row in rows if row.concept.category == category)
        listed.append([category, len(places), never, covered])
    return listed


def _summary(concepts: int, absent: Sequence[str], categories: Sequence[Sequence[Cell]], samples: int) -> str:
    """One sentence: how many concepts were seen, which kinds of thing not in every sample, and what is absent."""
    partly = [f"{row[0]} in {row[3]}" for row in categories if row[0] not in LOW_LEVEL and row[3] != samples]
    where = f" ({', '.join(partly[:4])} of them)" if partly else ""
    names = ", ".join([*absent[:8], "…"] if len(absent) > 8 else absent)
    seen = f"{concepts - len(absent)} of {concepts}" if absent else f"All {concepts}"
    return f"{seen} concepts were seen in {samples} samples{where}{f'; absent: {names}' if absent else ''}."


def _from_most_to_least(areas: Tensor, count: int) -> list[int]:
    """At most ``count`` samples that hold a concept, evenly over the order of its area float [n], largest first."""
    order = areas.argsort(descending=True, stable=True)[: int((areas > 0).sum())]
    places = torch.linspace(0, len(order) - 1, max(0, min(count, len(order)))).round().long()
    return [int(index) for index in order[places].tolist()]


def outlined(image: Tensor, mask: Tensor) -> Pixels:
    """A picture uint8 [h, w, 3] of float32 [C, H, W] in [-1, 1], with a line inside the border of bool [H, W]."""
    height, width = image.shape[1:]
    times = max(1, SMALL // max(height, width))
    size = (height * times, width * times)
    if max(size) > LARGE:
        size = (max(1, height * LARGE // max(height, width)), max(1, width * LARGE // max(height, width)))
    picture = F.interpolate(image[None].float(), size, mode="area" if times == 1 else "nearest")
    inside = F.interpolate(mask[None, None].float().cpu(), size, mode="nearest-exact")
    outside = F.pad(1 - inside, (1, 1, 1, 1))  # the border of the picture is no border of the mask
    line = (inside[0, 0] > 0) & (F.max_pool2d(outside, 3, 1)[0, 0] > 0)
    pixels: Pixels = to_uint8(picture)[0]
    pixels[line.numpy()] = LINE
    return pixels
