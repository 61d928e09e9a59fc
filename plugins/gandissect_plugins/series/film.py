"""The same latents through every checkpoint: one row for each latent, one column for each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gandissect.blocks import ImageGrid, Section, to_uint8
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Images, Session, Want

from .axis import chosen, columns

TITLE = "The same latents over the training"


@dataclass(frozen=True)
class FilmOptions:
    """Options of the film strip."""

    samples: int = option(6, "latents, one row each")
    columns: int = option(12, "checkpoints that are shown, spread evenly")


class FilmStrip(Comparer[Tensor]):
    """What becomes of the same latents."""

    name: ClassVar[str] = "film"
    of: ClassVar[Kind] = "series"
    order: ClassVar[int] = 100
    Options: ClassVar[type] = FilmOptions
    options: FilmOptions

    def wants(self, session: Session) -> Iterable[Want]:
        return [Want((Images(),), KeepSpec(), min(session.n, self.options.samples))]

    def look(self, session: Session) -> Tensor:
        return session.images(min(session.n, self.options.samples)).clone()

    def tell(self, seen: Sequence[Tensor], lineup: Lineup) -> Iterator[Section]:
        places = list(chosen(len(seen), self.options.columns))
        frames = torch.stack([seen[place] for place in places], 1)
        count = len(frames)
        heads = [columns(lineup)[place] for place in places]
        grid = ImageGrid(
            to_uint8(frames.flatten(0, 1)),
            f"{count} latents through {len(places)} checkpoints",
            columns=len(places),
            row_labels=tuple(f"sample {i}" for i in range(count)),
            column_labels=tuple(heads),
            caption=f"Rows: latents; columns: {lineup.axis}, in the order of training.",
        )
        shown = "" if len(places) == len(seen) else f" ({len(places)} of {len(seen)} are shown)"
        yield Section(TITLE, grid, summary=f"{count} latents through {len(seen)} checkpoints{shown}.")
