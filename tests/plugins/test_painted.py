"""What is painted on one sample is found in the others, and a painting that does not fit is refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_plugins.vocabularies import Painted
from gandissect_plugins.vocabularies.painted import painted_mask
from PIL import Image
from torch import Tensor

from gandissect.blocks import to_uint8
from gandissect.errors import UsageError
from gandissect.run import analyze
from gandissect.session import Session
from gandissect.testing import PLANTED, tiny_gan
from gandissect.vocabulary import build_segmenter, build_vocabulary

SIZE = 48


def scenes(count: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Noisy grey-green pictures, each with a reddish disc somewhere, and where the disc is."""
    stream = torch.Generator().manual_seed(1)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    ground = torch.tensor([-0.3, 0.2, -0.3])[:channels, None, None]
    disc = torch.tensor([0.7, -0.4, -0.5])[:channels, None, None]
    images, masks = [], []
    for _ in range(count):
        row, column = (10 + (SIZE - 20) * torch.rand(2, generator=stream)).tolist()
        inside = (rows - row).square() + (columns - column).square() < 64
        noise = 0.25 * torch.randn(channels, SIZE, SIZE, generator=stream)
        images.append((torch.where(inside, disc, ground) + noise).clamp(-1, 1))
        masks.append(inside)
    return torch.stack(images), torch.stack(masks)


def save_mask(path: Path, mask: Tensor) -> Path:
    Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(path)
    return path


def save_painted(path: Path, image: Tensor, mask: Tensor) -> Path:
    pixels = to_uint8(image).copy()
    pixels[mask.numpy()] = 255
    Image.fromarray(pixels).save(path)
    return path


def overlap(found: Tensor, truth: Tensor) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize(("painted", "least"), [((3,), 0.7), pytest.param((0, 3, 7), 0.9, marks=pytest.mark.slow)])
def test_what_is_painted_on_some_samples_is_found_in_all_others(
    tmp_path: Path, painted: tuple[int, ...], least: float
) -> None:
    images, masks = scenes(30)
    files = [save_mask(tmp_path / f"disc-sample-{index}.png", masks[index]) for index in painted]
    found = build_segmenter("painted:" + ",".join(map(str, files))).fitted(images)
    others = [index for index in range(30) if index not in painted]
    assert overlap(found.segment(images[others], others)[:, 0], masks[others]) > least
    (concept,) = found.concepts
    assert concept.name.startswith("disc (painted, ") and "held out" in concept.name


def test_paint_on_the_picture_an_opaque_layer_and_a_mask_mean_the_same(tmp_path: Path) -> None:
    images, masks = scenes(4)
    layer = np.zeros((SIZE, SIZE, 4), np.uint8)
    layer[masks[2].numpy()] = (10, 200, 10, 255)
    Image.fromarray(layer).save(tmp_path / "layer.png")
    files = [save_painted(tmp_path / "paint.png", images[2], masks[2]), tmp_path / "layer.png",
             save_mask(tmp_path / "mask.png", masks[2])]  # fmt: skip
    assert all(torch.equal(painted_mask(file, images[2]), masks[2]) for file in files)


def test_paint_on_an_enlarged_picture_is_brought_to_the_samples_size(tmp_path: Path) -> None:
    images, masks = scenes(4)
    large = masks[1].repeat_interleave(3, 0).repeat_interleave(3, 1)
    assert torch.equal(painted_mask(save_mask(tmp_path / "m.png", large), images[1]), masks[1])


def test_probabilities_are_differentiable_and_above_half_where_the_mask_is(tmp_path: Path) -> None:
    images, masks = scenes(6)
    found = Painted(str(save_mask(tmp_path / "sample-0.png", masks[0]))).fitted(images)
    given = images[1:3].clone().requires_grad_()
    soft = found.soft(given)
    assert soft is not None and torch.equal(soft > 0.5, found.segment(images[1:3], [1, 2]))
    soft.mean().backward()
    assert given.grad is not None and torch.isfinite(given.grad).all() and float(given.grad.abs().max()) > 0


def test_masks_do_not_depend_on_the_batch_and_grey_pictures_work(tmp_path: Path) -> None:
    images, masks = scenes(6, channels=1)
    found = Painted(str(save_mask(tmp_path / "sample-0.png", masks[0]))).fitted(images)
    whole = found.segment(images, range(6))
    assert torch.equal(whole, torch.cat([found.segment(images[i : i + 1], [i]) for i in range(6)]))
    assert overlap(whole[1:, 0], masks[1:]) > 0.6


def test_two_names_are_two_concepts(tmp_path: Path) -> None:
    images, masks = scenes(6)
    files = [save_mask(tmp_path / "disc-sample-0.png", masks[0]), save_mask(tmp_path / "rest-sample-1.png", ~masks[1])]
    found = Painted(",".join(map(str, files))).fitted(images)
    names = [concept.name.split(" (")[0] for concept in found.concepts]
    assert names == ["disc", "rest"] and found.segment(images, range(6)).shape[1] == 2


def test_a_place_is_learned_only_with_position(tmp_path: Path) -> None:
    images = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1
    corner = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    corner[:20, :20] = True
    file = save_mask(tmp_path / "sample-0.png", corner)
    with pytest.raises(UsageError, match=r"looks like the rest: .* add \?position"):
        Painted(str(file)).fitted(images)
    found = Painted(f"{file}?position").fitted(images)
    assert overlap(found.segment(images[4:], range(4, 8))[:, 0], corner.expand(4, -1, -1)) > 0.6


@pytest.mark.parametrize(
    ("name", "shape", "painted", "said"),
    [("sample-0.png", (SIZE, 2 * SIZE), True, "96×48; expected the proportions of a sample, 48×48"),
     ("sample-0.png", (SIZE, SIZE), False, "nothing is painted in sample-0.png"),
     ("sample-200.png", (SIZE, SIZE), True, "only the first 6 samples"),
     ("region.png", (SIZE, SIZE), True, "does not say which sample it is")],
)  # fmt: skip
def test_a_painting_that_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, name: str, shape: tuple[int, int], painted: bool, said: str
) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[:9, :9] = painted
    with pytest.raises(UsageError, match=said):
        Painted(str(save_mask(tmp_path / name, mask))).fitted(scenes(6)[0])


def test_paint_on_a_sample_of_another_run_is_refused(tmp_path: Path) -> None:
    images, masks = scenes(6)
    file = save_painted(tmp_path / "sample-0.png", -images[0], masks[0])
    with pytest.raises(UsageError, match="same checkpoint and --seed"):
        Painted(str(file)).fitted(images)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"no painting .*sample-3\.png"):
        build_segmenter("painted:nowhere/sample-3.png")


def test_painting_a_square_of_one_sample_gives_the_unit_that_draws_it(tmp_path: Path) -> None:
    session = Session(tiny_gan("planted"), vocabulary=build_vocabulary(["colours"]), n=60)
    red = session.masks(60)[:, [concept.name for concept in session.vocabulary.concepts].index("red")]
    index = int(red.flatten(1).sum(1).argmax())
    file = save_painted(tmp_path / f"square-sample-{index}.png", session.images(60)[index], red[index])
    report = analyze(tiny_gan("planted"), ["dissection"], n=200, concepts=[f"painted:{file}"])
    assert not report.failed
    said = [finding.text for section in report.sections for finding in section.findings]
    cards = [card for section in report.sections for block in section.blocks for card in getattr(block, "cards", ())]
    assert said and all("square (painted" in text for text in said)
    assert {card.title for card in cards if card.trust.level == "checked"} >= {f"{PLANTED.layer} · {PLANTED.red}"}
