"""Pictures and curves of what units cause.

yield Section("What units cause", compare(test), insertion_figure(found), dose_figure(response))
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gandissect.blocks import Block, Compare, Heatmap, Image, ImageGrid, Line, Series, to_uint8

from .artifacts import Artifacts
from .effects import ConceptTest
from .insertion import InsertionMap
from .orders import DoseResponse, OrderComparison
from .words import effect_percent, units_of, whole

SHOWN = 8


def _fullest(test: ConceptTest, count: int = SHOWN) -> list[int]:
    """Places of the samples with most of the concept before."""
    k = test.ablation.concepts.index(test.concept)
    return [int(place) for place in test.ablation.before[:, k].argsort(descending=True, stable=True)[:count]]


def compare(test: ConceptTest) -> Compare:
    """The samples with most of the concept, before and after its units are switched off."""
    places = _fullest(test)
    labels = tuple(f"sample {test.ablation.indices[place]}" for place in places)
    change = f"{effect_percent(test.effect)} of {test.concept} area is gone"
    alt = f"Samples before and after {units_of(len(test.units))} of {test.layer} are switched off: {change}."
    caption = f"{test.concept}: {test.layer}, units {', '.join(map(str, test.units))}."
    return Compare(
        to_uint8(test.ablation.images_before[places]), to_uint8(test.ablation.images_after[places]), alt,
        after_label=f"without {test.concept} units", labels=labels, caption=caption,
    )  # fmt: skip


def before_after(tests: Sequence[ConceptTest]) -> ImageGrid:
    """Two rows for each concept: before and after."""
    count = min(SHOWN, *(len(test.ablation.indices) for test in tests))
    rows, labels = [], []
    for test in tests:
        places = _fullest(test, count)
        rows += [to_uint8(test.ablation.images_before[places]), to_uint8(test.ablation.images_after[places])]
        labels += [f"{test.concept}: before", f"{test.concept}: {effect_percent(test.effect)} removed"]
    alt = f"Before and after the units of {', '.join(test.concept for test in tests)} are switched off."
    return ImageGrid(np.concatenate(rows), alt, columns=count, row_labels=tuple(labels))


def inserted(test: ConceptTest) -> ImageGrid | None:
    """Before and after the units are switched on in one window of each sample, which is framed."""
    images = test.inserted.images
    if not len(images):
        return None
    places = test.inserted.places[: len(images)]
    frames = test.inserted.framed(test.ablation.start.images[places]), test.inserted.framed(images)
    gain = effect_percent(test.insertion.effect)
    alt = f"Before and after {units_of(len(test.units))} of {test.layer} are switched on where there is no {test.concept}: {gain}."
    return ImageGrid(
        np.concatenate([to_uint8(frame) for frame in frames]), alt, columns=len(images),
        row_labels=("before", f"{test.concept} added: {gain} of the usual"),
        caption=f"The units of {test.concept} switched on inside the frame, where there was none.",
    )  # fmt: skip


def insertion_figure(found: InsertionMap) -> list[Block]:
    """Where a concept can be inserted, beside the mean image and where it is by itself."""
    row, column, gain = found.best
    down, across = found.gain.shape
    if math.isnan(gain):
        return []
    where = (
        _place_word(row, down, ("top", "middle", "bottom")),
        _place_word(column, across, ("left", "centre", "right")),
    )
    own = found.share.argmax()
    alt = (
        f"Mean gain of {found.concept} by window: most {whole(gain)} %, in the {where[0]} {where[1]}; by itself it is most often "
        f"in row {int(own) // across + 1}, column {int(own) % across + 1}, {whole(float(found.share.max()))} % of that window."
    )
    rows, columns = tuple(f"row {i + 1}" for i in range(down)), tuple(f"{i + 1}" for i in range(across))
    samples = int(found.samples.max())
    return [
        Image(to_uint8(found.mean_image), "The mean of the unedited samples.", "Mean image, for orientation."),
        Heatmap(
            100 * found.gain.numpy(), rows, columns, alt, unit="% of the usual area",
            caption=f"Where {found.concept} can be inserted: {units_of(len(found.units))} of {found.layer} switched on in each window "
            f"in turn, in at most {samples} samples that hold none of it there. Top row is the top of the image.",
        ),
        Heatmap(
            100 * found.share.numpy(), rows, columns, f"Mean share of {found.concept} by window in the unedited samples.",
            unit="% covered", caption=f"Where {found.concept} is by itself.",
        ),
    ]  # fmt: skip


def _place_word(place: int, count: int, words: tuple[str, str, str]) -> str:
    return words[min(2, 3 * place // max(1, count))]


def dose_figure(found: DoseResponse) -> list[Block]:
    """What is left of the concept and of others when its units are multiplied by each dose; and the discriminator's score."""
    x = list(found.doses)
    series = [_dose_series(found, name) for name in (found.concept, *found.most_changed(3))]
    own = series[0]
    off, twice = own.y[0], own.y[-1]
    alt = (
        f"{found.concept} has {whole(off)} % of its area at dose {x[0]:g} and {whole(twice)} % at dose {x[-1]:g} of "
        f"{units_of(len(found.units))} of {found.layer}."
    )
    blocks: list[Block] = [
        Line(
            tuple(series), "dose (what the units are multiplied by)", "area, as a part of that at dose 1", alt,
            caption=f"Dose and response: {found.concept}, {found.layer}. The bands are 95 % intervals; the other lines are the "
            "concepts that change most.",
        )
    ]  # fmt: skip
    scores = [ablation.scores_after for ablation in found.ablations]
    judged = [values for values in scores if values is not None]
    if len(judged) == len(x):
        means = [float(values.double().mean()) for values in judged]
        low, high = _bands(found, judged)
        text = f"The discriminator's mean score is {means[0]:.2f} at dose {x[0]:g} and {means[x.index(1.0)]:.2f} at dose 1."
        line = Series("discriminator's score", x, means, low, high)
        blocks.append(
            Line((line,), "dose", "mean score (logit)", text, caption="What the discriminator says of the same images.")
        )
    return blocks


def _dose_series(found: DoseResponse, name: str) -> Series:
    left = found.area(name)
    low, high = [effect.low for effect in left], [effect.high for effect in left]
    return Series(name, list(found.doses), [effect.removed for effect in left], low, high)


def _bands(found: DoseResponse, scores: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    ones = torch.ones(len(scores[0]), dtype=torch.float64)
    bands = [found.ablations[0].start.chance.interval(values.double(), ones) for values in scores]
    return [low for low, _ in bands], [high for _, high in bands]


def order_figure(found: OrderComparison) -> Line:
    """What is left of a concept after the first units of each order."""
    series = [
        Series(
            one.name, list(map(float, one.sizes)), [1 - effect.removed for effect in one.effects],
            [1 - effect.high for effect in one.effects], [1 - effect.low for effect in one.effects],
            role="null" if one.name == "random" else "",
        )
        for one in found.curves
    ]  # fmt: skip
    said = ", ".join(f"{one.name} {whole(1 - one.effects[-1].removed)} %" for one in found.curves)
    size = found.curves[0].sizes[-1]
    alt = f"{found.concept} left after {units_of(size)} of {found.layer} are switched off: {said}."
    return Line(
        tuple(series), "units switched off", "area left", alt,
        caption=f"Orders of the units of {found.layer} for {found.concept}, learnt on other samples than the {found.samples} shown.",
    )  # fmt: skip


def artifact_pictures(found: Artifacts) -> ImageGrid | None:
    """Before and after the best artifact units are switched off."""
    if not found.images:
        return None
    rows, labels = [], []
    for layer, unit, before, after in found.images:
        rows += [to_uint8(before), to_uint8(after)]
        labels += [f"{layer} · {unit}: before", "without it"]
    alt = f"Before and after {', '.join(f'{layer} {unit}' for layer, unit, *_ in found.images)} are switched off."
    return ImageGrid(np.concatenate(rows), alt, columns=len(found.images[0][2]), row_labels=tuple(labels))
