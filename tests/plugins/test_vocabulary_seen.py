"""The report says of each concept how many samples hold it, how much, and how sure that is; and which are absent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from gandissect_plugins.vocabularies import Colours, Position, VocabularySeen, supports
from gandissect_plugins.vocabularies.seen import LINE, Sureness, outlined
from torch import Tensor

from gandissect.blocks import ImageGrid, Table, Text
from gandissect.concepts import Concept, Segmenter, Vocabulary
from gandissect.run import analyze
from gandissect.streams import Batch
from gandissect.testing import check_analyzer, tiny_gan


class Planted(Segmenter):
    """The left half of every even sample with a score of 0.8, something without a score in sample 1, and nothing."""

    name = "planted"

    @property
    def concepts(self) -> Sequence[Concept]:
        return (Concept("left", "made up"), Concept("once", "made up"), Concept("unicorn", "made up"))

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        masks = torch.zeros(len(images), 3, *images.shape[2:], dtype=torch.bool)
        for row, index in enumerate(indices):
            masks[row, 0, :, : images.shape[3] // 2] = index % 2 == 0
            masks[row, 1, 0, 0] = index == 1
        return masks

    def soft(self, images: Tensor) -> Tensor:
        scores = torch.full((len(images), 3, *images.shape[2:]), 0.8)
        scores[:, 1] = torch.nan
        return scores


def seen(concepts: Sequence[Segmenter], n: int = 32) -> object:
    report = analyze(tiny_gan(), [VocabularySeen], n=n, concepts=concepts, options={})
    return report.sections[0]


def test_planted_supports_areas_and_confidences_are_told() -> None:
    section = seen([Planted(), Position()])
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [list(row)[:4] for row in table.rows] == [["left", "made up", 16, 50.0], ["once", "made up", 1, 3.1]]
    assert list(table.rows[0])[4:] == [50.0, 0.8] and list(table.rows[1])[5] is None
    assert section.summary == "2 of 3 concepts were seen in 32 samples (made up in 17 of them); absent: unicorn."


def test_a_concept_without_support_is_said_to_be_absent() -> None:
    section = seen([Planted()])
    said = [block.markdown for block in section.blocks if isinstance(block, Text)]
    assert said == ["**Absent from all 32 samples:** unicorn."]
    assert "unicorn" not in [row[0] for block in section.blocks if isinstance(block, Table) for row in block.rows]


def test_each_category_says_in_how_many_samples_it_was_found() -> None:
    tables = [block for block in seen([Planted(), Colours()]).blocks if isinstance(block, Table)]
    rows = {row[0]: tuple(row[1:]) for row in tables[1].rows}
    assert rows["made up"] == (3, 1, 17) and rows["colour"][2] == 32


def test_outlines_show_the_concepts_that_tell_most_from_much_to_little() -> None:
    grid = next(block for block in seen([Planted(), Colours()]).blocks if isinstance(block, ImageGrid))
    assert grid.row_labels[:2] == ("left", "once") and len(grid.images) == len(grid.row_labels) * grid.columns
    first = grid.images[0]
    assert (first[:, first.shape[1] // 2 - 1] == LINE).all() and not (first[:, 0] == LINE).all(1).any()


def test_an_outline_runs_along_the_border_inside_the_mask() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:16, 8:16] = True
    picture = outlined(torch.zeros(3, 32, 32), mask)
    line = (picture == LINE).all(2)
    assert picture.shape == (128, 128, 3) and line.sum() == 4 * 32 - 4 and not line[40:56, 40:56].any()
    assert outlined(torch.zeros(1, 512, 256), torch.ones(512, 256).bool()).shape == (256, 128, 3)


def test_confidence_weighs_pixels_and_is_unknown_without_a_score() -> None:
    images = torch.zeros(4, 3, 8, 8)
    batch = Batch(range(4), images[:, :0], images, {}, {}, None, Planted())
    whole = batch.get(Sureness())
    rows = supports(Planted().concepts, torch.tensor([[0.5, 0, 0], [0, 0.1, 0]]), whole)
    assert [round(row.confidence, 3) for row in rows[:1]] == [0.8] and rows[1].confidence != rows[1].confidence
    parts = [batch.cut(start, start + 1).get(Sureness()) for start in range(4)]
    assert torch.equal(torch.cat(parts).nan_to_num(-1), whole.nan_to_num(-1))


def test_a_vocabulary_of_places_alone_says_so() -> None:
    assert "nothing but places" in seen([Position()]).summary


@pytest.mark.parametrize("kind", ["planted", "grey"])
def test_the_analysis_keeps_the_promises_of_every_analyzer(kind: str) -> None:
    check_analyzer(VocabularySeen, kinds=(kind,))  # type: ignore[arg-type]


def test_without_concepts_it_is_skipped_and_says_what_to_pass() -> None:
    section = analyze(tiny_gan(), [VocabularySeen], n=8, concepts=("none",)).sections[0]
    assert section.status == "skipped" and "--concepts" in section.summary
    assert Vocabulary([]).soft(torch.zeros(1, 3, 8, 8)) is None
