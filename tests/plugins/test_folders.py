"""What one folder of pictures has and the other lacks is found in the picture; folders that do not differ are refused."""

from pathlib import Path
from shutil import make_archive

import pytest
import torch
from gandissect_plugins.vocabularies import Folders
from PIL import Image
from torch import Tensor

from gandissect.blocks import to_uint8
from gandissect.errors import UsageError
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import PLANTED, tiny_gan
from gandissect.vocabulary import build_segmenter, build_vocabulary

SIZE = 32


def pictures(count: int, seed: int, disc: bool) -> tuple[Tensor, Tensor]:
    """Noise with two random patches of blue each and, where ``disc``, a green square; and where the green square is."""
    stream = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIZE, SIZE, generator=stream)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    for image, mask in zip(images, masks, strict=True):
        places = torch.randint(0, SIZE - 8, (3, 2), generator=stream).tolist()
        for row, column in places[:2]:
            image[:, row : row + 6, column : column + 6] = torch.tensor([-0.6, -0.6, 0.8])[:, None, None]
        if disc:
            row, column = places[2]
            image[:, row : row + 8, column : column + 8] = torch.tensor([-0.6, 0.7, -0.5])[:, None, None]
            mask[row : row + 8, column : column + 8] = True
    return images.clamp(-1, 1), masks


def save(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(to_uint8(images)):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def folders(tmp_path: Path, second_has_it: bool = False) -> str:
    has = save(tmp_path / "green", pictures(24, 0, True)[0])
    return f"folders:{has},{save(tmp_path / 'plain', pictures(24, 1, second_has_it)[0])}"


def test_what_only_one_folder_has_is_found_where_it_is(tmp_path: Path) -> None:
    images, masks = pictures(20, 5, True)
    found = build_segmenter(folders(tmp_path)).fitted(images)
    mask = found.segment(images, range(20))[:, 0]
    assert float((mask & masks).sum() / (mask | masks).sum()) > 0.6
    (concept,) = found.concepts
    assert concept.name.startswith("green (folders, ") and "held out, p = 0.001" in concept.name


def test_zips_do_as_folders_do_and_name_the_concept_without_their_suffix(tmp_path: Path) -> None:
    images, _ = pictures(4, 5, True)
    spec = folders(tmp_path)
    zips = [make_archive(str(tmp_path / name), "zip", tmp_path / name) for name in ("green", "plain")]
    zipped = build_segmenter(f"folders:{','.join(zips)}").fitted(images)
    assert torch.equal(zipped.segment(images, range(4)), build_segmenter(spec).fitted(images).segment(images, range(4)))
    assert zipped.concepts[0].name.startswith("green (folders, ")


def test_pictures_without_it_have_next_to_nothing(tmp_path: Path) -> None:
    images, _ = pictures(20, 6, False)
    found = build_segmenter(folders(tmp_path)).fitted(images)
    assert float(found.segment(images, range(20)).float().mean()) < 0.01


def test_folders_that_do_not_differ_are_refused_with_both_numbers(tmp_path: Path) -> None:
    spec = folders(tmp_path, second_has_it=True)
    with pytest.raises(UsageError, match=r"not told from .* % of held-out pictures .* % of permuted labels do as well"):
        build_segmenter(spec).fitted(torch.zeros(2, 3, SIZE, SIZE))


def test_the_map_is_differentiable_and_agrees_with_the_mask(tmp_path: Path) -> None:
    images, _ = pictures(4, 7, True)
    found = build_segmenter(folders(tmp_path)).fitted(images)
    given = images.clone().requires_grad_()
    soft = found.soft(given)
    assert soft is not None and torch.equal(soft > 0.5, found.segment(images, range(4)))
    soft.mean().backward()
    assert given.grad is not None and torch.isfinite(given.grad).all() and float(given.grad.abs().max()) > 0


def test_pictures_of_another_size_and_grey_generators_work(tmp_path: Path) -> None:
    found = build_segmenter(folders(tmp_path)).fitted(torch.zeros(2, 1, 48, 48))
    masks = found.segment(torch.zeros(3, 1, 48, 48), range(3))
    assert masks.shape == (3, 1, 48, 48) and masks.dtype == torch.bool


def test_one_folder_a_missing_one_and_too_few_pictures_are_said(tmp_path: Path) -> None:
    few = save(tmp_path / "few", pictures(3, 0, True)[0])
    with pytest.raises(UsageError, match="1 folders were given; expected folders:HAS,HASNOT"):
        Folders(str(few))
    with pytest.raises(UsageError, match="no folder of real images"):
        Folders(f"{tmp_path / 'nowhere'},{few}")
    with pytest.raises(UsageError, match="has 3 pictures; at least 8"):
        Folders(f"{few},{few}")


def test_samples_sorted_into_two_folders_give_the_unit(tmp_path: Path) -> None:
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=400, seed=3)
    names = [concept.name for concept in session.vocabulary.concepts]
    red = session.areas()[:, names.index("red")] > 0
    has = save(tmp_path / "red square", session.images()[red][:40])
    lacks = save(tmp_path / "without", session.images()[~red][:80])
    report = analyze(tiny_gan("planted"), ["dissection"], n=300, concepts=[f"folders:{has},{lacks}"])
    cards = [card for section in report.sections for block in section.blocks for card in getattr(block, "cards", ())]
    found = {card.title for card in cards if card.trust.level == "checked"}
    assert not report.failed and found == {f"{PLANTED.layer} · {PLANTED.red}", f"{PLANTED.layer} · {PLANTED.copy}"}
