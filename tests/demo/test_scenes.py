"""What the drawn landscapes promise: the same number gives the same scene, and the masks tell what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from gandissect.demo.scenes import ATTRIBUTES, CONCEPTS, Bools, Floats, scene, scenes

Batch = tuple[Floats, Bools, Floats]


@pytest.fixture(scope="module")
def many() -> Batch:
    return scenes(7, range(192))


def mask(batch: Batch, concept: str) -> Bools:
    return batch[1][:, CONCEPTS.index(concept)]


def attribute(batch: Batch, name: str) -> Floats:
    return batch[2][:, ATTRIBUTES.index(name)]


def test_a_scene_depends_on_seed_and_index_only(many: Batch) -> None:
    images, masks, attributes = many
    alone = scene(7, 150)
    assert np.array_equal(alone.image, images[150])
    assert np.array_equal(alone.masks, masks[150])
    assert np.array_equal(alone.attributes, attributes[150])


def test_order_of_indices_does_not_change_a_scene(many: Batch) -> None:
    assert np.array_equal(scenes(7, [5, 3])[0], many[0][[5, 3]])


def test_another_seed_or_index_is_another_scene(many: Batch) -> None:
    assert not np.array_equal(scene(8, 0).image, many[0][0])
    assert not np.array_equal(many[0][1], many[0][0])


def test_no_scenes_are_empty_arrays_of_the_right_shape() -> None:
    images, masks, attributes = scenes(0, [])
    assert images.shape == (0, 3, 64, 64)
    assert masks.shape == (0, len(CONCEPTS), 64, 64)
    assert attributes.shape == (0, len(ATTRIBUTES))


def test_images_are_float32_between_minus_one_and_one(many: Batch) -> None:
    assert many[0].dtype == np.float32
    assert many[0].min() >= -1
    assert many[0].max() <= 1


def test_every_pixel_has_exactly_one_concept_except_windows_in_houses(many: Batch) -> None:
    count = many[1].sum(1) - mask(many, "window")
    assert (count == 1).all()
    assert (mask(many, "house") >= mask(many, "window")).all()


def test_moon_is_seen_only_at_night_and_sun_never(many: Batch) -> None:
    night = attribute(many, "night") == 1
    assert mask(many, "moon")[night].any()
    assert not mask(many, "moon")[~night].any()
    assert not mask(many, "sun")[night].any()


@pytest.mark.parametrize(
    ("name", "concept"),
    [("sun", "sun"), ("moon", "moon"), ("house", "house"), ("water", "water"), ("clouds", "cloud"), ("trees", "tree"),
     ("hills", "hill")],
)  # fmt: skip
def test_a_concept_without_its_attribute_is_nowhere(many: Batch, name: str, concept: str) -> None:
    absent = attribute(many, name) == 0
    assert not mask(many, concept)[absent].any()


@pytest.mark.parametrize("name", ["house", "water"])
def test_a_house_and_water_are_seen_when_said_to_be_there(many: Batch, name: str) -> None:
    present = attribute(many, name) == 1
    assert mask(many, name)[present].any((1, 2)).all()


def test_day_is_brighter_than_dusk_and_dusk_than_night(many: Batch) -> None:
    light = many[0].mean((1, 2, 3))
    means = [light[attribute(many, hour) == 1].mean() for hour in ("night", "dusk", "day")]
    assert means == sorted(means)


def test_windows_shine_only_where_lit(many: Batch) -> None:
    red = many[0][:, 0]
    for lit in (0, 1):
        panes = mask(many, "window") & (attribute(many, "lit") == lit)[:, None, None]
        assert (red[panes].mean() > 0.5) == bool(lit)


def test_the_inside_of_a_sun_is_red_and_never_blue(many: Batch) -> None:
    red, blue = many[0][:, 0], many[0][:, 2]
    core = inside(inside(mask(many, "sun")))
    assert core.any()
    assert (red[core] > 0.9).all()
    assert (blue[core] < 0).all()


def inside(masks: Bools) -> Bools:
    """Bool [N, 64, 64]: the masks without their outermost pixels."""
    for axis in (1, 2):
        masks = masks & np.roll(masks, 1, axis) & np.roll(masks, -1, axis)
    return masks
