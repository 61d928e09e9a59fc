"""Each vocabulary finds what was drawn for it, names what it finds, and is quick."""

import time

import pytest
import torch
from gandissect_plugins.vocabularies import (
    SEGMENTERS,
    Clusters,
    Colours,
    Edges,
    Light,
    MaskFolder,
    Position,
    Texture,
    colour_name,
    register_segmenters,
)
from PIL import Image

from gandissect.errors import UnknownName, UsageError
from gandissect.vocabulary import DEFAULT as LOW_LEVEL
from gandissect.vocabulary import build_segmenter, build_vocabulary

PROTOTYPES = {
    "black": (0, 0, 0), "white": (1, 1, 1), "grey": (0.5, 0.5, 0.5), "red": (1, 0, 0), "green": (0, 0.6, 0),
    "blue": (0, 0, 1), "yellow": (1, 1, 0), "orange": (1, 0.55, 0), "brown": (0.45, 0.25, 0.1),
    "pink": (1, 0.6, 0.75), "purple": (0.5, 0, 0.6),
}  # fmt: skip


def plain(rgb, size=16):
    return (torch.tensor(rgb, dtype=torch.float32) * 2 - 1)[None, :, None, None].expand(1, 3, size, size)


def names(segmenter, image):
    masks = segmenter.segment(image, [0])
    shares = masks.float().mean((0, 2, 3))
    return {concept.name for concept, share in zip(segmenter.concepts, shares.tolist(), strict=True) if share > 0.5}


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_plain_colour_has_its_name_everywhere(name):
    assert names(Colours(), plain(PROTOTYPES[name])) == {name} and colour_name(PROTOTYPES[name]) == name


def test_every_pixel_has_exactly_one_colour():
    masks = Colours().segment(torch.rand(4, 3, 16, 16) * 2 - 1, range(4))
    assert (masks.sum(1) == 1).all()


def test_a_grey_image_has_black_grey_and_white_only():
    ramp = torch.linspace(-1, 1, 64).repeat(64, 1)[None, None]
    found = Colours().segment(ramp, [0]).any(3).any(2)[0]
    present = {concept.name for concept, there in zip(Colours().concepts, found.tolist(), strict=True) if there}
    assert present == {"black", "grey", "white"}
    fitted = Colours().fitted(ramp)
    assert [concept.name for concept in fitted.concepts] == ["black", "grey", "white"]
    assert (fitted.segment(ramp, [0]).sum(1) == 1).all()


def test_light_tells_dark_from_bright_and_vivid_from_pale():
    assert names(Light(), plain((0.05, 0.05, 0.05))) == {"dark"}
    assert names(Light(), plain((0.98, 0.98, 0.98))) == {"bright"}
    assert "vivid" in names(Light(), plain((0.9, 0.1, 0.1)))
    assert "pale" in names(Light(), plain((0.8, 0.7, 0.7)))


@pytest.mark.parametrize(
    ("orientation", "expected"), [("rows", "horizontal edge"), ("columns", "vertical edge"), ("rising", "diagonal edge /"),
                                  ("falling", "diagonal edge \\")],
)  # fmt: skip
def test_stripes_have_the_edges_they_were_drawn_with(orientation, expected):
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    phase = {"rows": row, "columns": column, "rising": row + column, "falling": row - column}[orientation]
    image = torch.sin(phase * 0.7).expand(1, 1, 32, 32)
    shares = Edges().segment(image, [0]).float().mean((0, 2, 3))
    best = int(shares.argmax())
    assert Edges().concepts[best].name == expected and float(shares[best]) > 0.8


def test_noise_is_textured_and_a_plain_surface_is_flat():
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert names(Texture(), noise) == {"textured"} and names(Texture(), plain((0.3, 0.6, 0.2))) == {"flat"}


def test_positions_divide_the_image_and_are_spatial():
    masks = Position().segment(torch.zeros(2, 1, 28, 31), range(2))
    assert (masks.sum(1) == 1).all() and masks.flatten(2).any(2).all()
    assert all(concept.spatial for concept in Position().concepts)


def halves():
    image = torch.cat([plain((0.9, 0.1, 0.1), 32)[..., :16], plain((0.1, 0.1, 0.8), 32)[..., 16:]], 3)
    return image.repeat(4, 1, 1, 1)


def test_clusters_find_the_two_surfaces_and_name_them():
    found = Clusters().fitted(halves())
    masks = found.segment(halves(), range(4)).float().mean(0)
    labels = {int(masks[:, 16, column].argmax()) for column in (4, 28)}
    spoken = " ".join(concept.name for concept in found.concepts)
    assert len(labels) == 2 and "red flat" in spoken and "blue flat" in spoken


def test_clusters_are_the_same_every_time():
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    first, second = Clusters().fitted(images), Clusters().fitted(images)
    assert [c.name for c in first.concepts] == [c.name for c in second.concepts]
    assert torch.equal(first.segment(images, range(8)), second.segment(images, range(8)))


def test_images_without_contrast_are_one_cluster():
    assert len(Clusters().fitted(torch.rand(8, 3, 16, 16) * 0.02).concepts) == 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 64])
def test_every_vocabulary_gives_bool_masks_of_the_images_size(channels, size):
    images = torch.rand(3, channels, size, size) * 2 - 1
    vocabulary = build_vocabulary(LOW_LEVEL).fitted(images)
    masks = vocabulary.segment(images, range(3))
    assert masks.dtype == torch.bool and masks.shape == (3, len(vocabulary.concepts), size, size)
    assert len({concept.name for concept in vocabulary.concepts}) == len(vocabulary.concepts)


def test_masks_do_not_depend_on_the_batch():
    images = torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1
    vocabulary = build_vocabulary(LOW_LEVEL).fitted(images)
    whole = vocabulary.segment(images, range(9))
    assert torch.equal(whole, torch.cat([vocabulary.segment(images[i : i + 1], [i]) for i in range(9)]))


def test_a_folder_of_masks_is_read_by_sample_index(tmp_path):
    (tmp_path / "nose").mkdir()
    (tmp_path / "ear").mkdir()
    picture = Image.new("L", (8, 8))
    picture.putpixel((2, 5), 255)
    picture.save(tmp_path / "nose" / "7.png")
    source = build_segmenter(f"masks:{tmp_path}")
    masks = source.segment(torch.zeros(2, 3, 8, 8), [6, 7])
    assert [concept.name for concept in source.concepts] == ["ear", "nose"] and not source.reads_pixels
    assert masks.sum() == 1 and bool(masks[1, 1, 5, 2])
    assert source.segment(torch.zeros(1, 3, 16, 16), [7]).sum() == 4


def test_a_missing_or_empty_folder_says_how_it_should_look(tmp_path):
    with pytest.raises(UsageError, match="masks:FOLDER"):
        MaskFolder(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="one per concept"):
        MaskFolder(tmp_path)


def test_a_mask_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "nose").mkdir()
    (tmp_path / "nose" / "0.png").write_text("no picture")
    with pytest.raises(UsageError, match=r"nose/0\.png is no picture"):
        MaskFolder(tmp_path).segment(torch.zeros(1, 3, 8, 8), [0])


def test_a_function_in_a_file_is_a_segmenter(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def red(images):\n    return images[:, 0] > 0.5\n\ndef two(images):\n    return images[:, :2]\n\n"
                    "two.concepts = ('a', 'b')\n")  # fmt: skip
    red, two = build_segmenter(f"{file}:red"), build_segmenter(f"{file}:two")
    assert [c.name for c in red.concepts] == ["red"] and [c.name for c in two.concepts] == ["a", "b"]
    assert red.segment(torch.ones(1, 3, 4, 4), [0]).all()
    with pytest.raises(UnknownName, match="red"):
        build_segmenter(f"{file}:reed")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UnknownName, match="colours"):
        build_segmenter("colors")


def test_the_bundled_segmenter_knows_the_scenes():
    from gandissect.demo.scenes import CONCEPTS, scenes

    images, masks, _ = scenes(0, range(4))
    found = build_segmenter("demo").segment(torch.from_numpy(images), range(4))
    sky = CONCEPTS.index("sky")
    assert (found[:, sky] == torch.from_numpy(masks)[:, sky]).float().mean() > 0.95
    assert not build_segmenter("demo").segment(torch.zeros(1, 1, 28, 28), [0]).any()


def test_all_segmenters_are_registered_by_name():
    assert (
        {cls.name for cls in register_segmenters()} == {cls.name for cls in SEGMENTERS} >= {*LOW_LEVEL, "masks", "demo"}
    )


def test_all_low_level_vocabularies_together_are_quick():
    images = torch.rand(64, 3, 64, 64) * 2 - 1
    vocabulary = build_vocabulary(LOW_LEVEL).fitted(images)
    vocabulary.segment(images, range(64))
    best = 1.0
    for _ in range(5):
        begun = time.process_time()
        vocabulary.segment(images, range(64))
        best = min(best, time.process_time() - begun)
    assert best / 64 < 0.003  # a third of this on an idle core
