"""Blocks made of pictures: Image, ImageGrid, Overlay, Gallery, Strip, Compare.

view(ImageGrid(images, alt="sixteen samples"), Page(), "sections/0/blocks/0")     # Markup
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from gandissect.blocks import Card, Compare, Floats, Gallery, Image, ImageGrid, Overlay, Pixels, Strip
from gandissect_reports.colours import diverging, gradient, viridis
from gandissect_reports.page import Page, view
from gandissect_reports.prose import number
from gandissect_reports.sheets import Fidelity, Sheet, label_width, make_sheet, resize_maps, shrink

CARD_WIDTH = 420  # CSS px
PRINTED_CARDS = 24


@view.register
def _(block: Image, page: Page, path: str) -> Markup:
    fidelity = replace(page.fidelity, cell=4 * page.fidelity.cell)
    sheet = make_sheet(block.pixels[None], 1, fidelity=fidelity, smallest=192)
    return page.fill("image", block=block, sheet=sheet)


@view.register
def _(block: ImageGrid, page: Page, path: str) -> Markup:
    if not len(block.images):
        return page.fill("nothing", alt=block.alt, what="pictures")
    sheet = make_sheet(block.images, block.columns, fidelity=page.fidelity, labels=block.labels)
    side = label_width(block.row_labels, 140)
    return page.fill("image-grid", block=block, sheet=sheet, side=side)


@view.register
def _(block: Overlay, page: Page, path: str) -> Markup:
    if not len(block.images):
        return page.fill("nothing", alt=block.alt, what="pictures")
    peaks = map_peaks(block.maps, block.signed)
    shared = max((peak for peak in peaks if math.isfinite(peak)), default=0.0)
    words = [map_words(item, block.signed) for item in block.maps]
    labels = [
        "\u00a0· ".join(
            part
            for part in (label, word or ("" if block.shared_scale else f"max {number(float(f'{peak:.2g}'))}"))
            if part
        )
        for label, word, peak in zip(_padded(block.labels, len(peaks)), words, peaks, strict=True)
    ]
    images = shrink(block.images, page.fidelity.cell)
    coloured = colour_maps(block.maps, [shared] * len(peaks) if block.shared_scale else peaks, block.signed)
    maps = resize_maps(coloured, *images.shape[1:3])
    return page.fill(
        "overlay",
        block=block,
        sheet=make_sheet(images, block.columns, fidelity=page.fidelity, labels=labels),
        maps=make_sheet(maps, block.columns, fidelity=page.fidelity, labels=labels),
        labels=labels,
        low=number(-shared if block.signed else 0.0) if block.shared_scale else ("−max" if block.signed else "0"),
        high=number(shared) if block.shared_scale else "max",
        gradient=gradient(block.signed),
        silent=sum(bool(word) for word in words),
        scaled=not all(words),
    )


def map_peaks(maps: Floats, signed: bool) -> list[float]:
    """The value of each map that gets the full colour; 0 for a map without any."""
    flat = np.nan_to_num(np.asarray(maps, dtype=float)).reshape(len(maps), -1)
    return [float(peak) for peak in (np.abs(flat) if signed else np.maximum(flat, 0.0)).max(axis=1, initial=0.0)]


def map_words(item: Floats, signed: bool) -> str:
    """What is to be said of a map that shows nothing, else "" ."""
    values = np.asarray(item, dtype=float)
    if not np.isfinite(values).any():
        return "not measured"
    values = np.nan_to_num(values)
    if not signed and values.max() <= 0:
        return "no positive evidence"
    if not values.any():
        return "no evidence"
    if np.ptp(values) <= 1e-6 * np.abs(values).max():
        return f"constant, {number(float(f'{values.flat[0]:.3g}'))}"
    return ""


def colour_maps(maps: Floats, peaks: list[float], signed: bool) -> Pixels:
    """Maps in colour, uint8 [N, h, w, 4]; the opacity grows with the value, so that the picture stays visible where it is 0."""
    scale = np.array([peak or 1.0 for peak in peaks]).reshape(-1, 1, 1)
    t = np.nan_to_num(np.asarray(maps, dtype=float)) / scale
    colours = diverging(t) if signed else viridis(t)
    opacity = np.clip(np.abs(t) if signed else t, 0.0, 1.0) ** 0.7
    return np.concatenate([colours, np.round(opacity * 255).astype(np.uint8)[..., None]], axis=-1)


@view.register
def _(block: Gallery, page: Page, path: str) -> Markup:
    cards = [_card(card, page) for card in block.cards]
    facets = {
        name: sorted({card.facets.get(name, "") for card in block.cards} - {""}) for name in _keys(block, "facets")
    }
    return page.fill(
        "gallery",
        block=block,
        cards=cards,
        facets={name: values for name, values in facets.items() if len(values) > 1},
        sorts=_keys(block, "sort"),
        name=page.name("g"),
        printed=PRINTED_CARDS,
    )


def _keys(block: Gallery, what: str) -> list[str]:
    """The names of all facets or sort keys of the cards, in order of appearance."""
    return list(dict.fromkeys(name for card in block.cards for name in getattr(card, what)))


def _card(card: Card, page: Page) -> dict[str, object]:
    """What the template needs for one card."""
    words = " ".join([card.title, card.key, card.label, *card.facets.values()]).lower()
    name = page.claim(page.card_anchor(card.key) or page.name("c"))
    return {"card": card, "sheet": card_sheet(card, page.fidelity), "anchor": name, "words": words}


def card_sheet(card: Card, fidelity: Fidelity) -> Sheet | None:
    """The pictures of a card in at most five columns, or nothing where it has none."""
    images = card.images[: fidelity.samples or len(card.images)]
    count = len(images)
    if not count:
        return None
    columns = count if count <= 5 else math.ceil(count / math.ceil(count / 5))
    fidelity = replace(fidelity, cell=min(fidelity.cell, 128), crisp=False)
    return make_sheet(images, columns, fidelity=fidelity, smallest=78, widest=CARD_WIDTH)


@view.register
def _(block: Strip, page: Page, path: str) -> Markup:
    frames = np.asarray(block.frames)
    count, samples = frames.shape[:2]
    if not count * samples:
        return page.fill("nothing", alt=block.alt, what="frames")
    sheet = make_sheet(
        np.ascontiguousarray(frames.swapaxes(0, 1)).reshape(-1, *frames.shape[2:]), count, fidelity=page.fidelity
    )
    heads = [f"{block.value_label} {number(float(value))}".strip() for value in block.values]
    return page.fill("strip", block=block, sheet=sheet, heads=heads, samples=samples, name=page.name("s"))


@view.register
def _(block: Compare, page: Page, path: str) -> Markup:
    if not len(block.before):
        return page.fill("nothing", alt=block.alt, what="pictures")
    before, after = shrink(block.before, page.fidelity.cell), shrink(block.after, page.fidelity.cell)
    difference, factor = amplify(before, after)
    columns = min(8, len(before))
    sheets = [make_sheet(i, columns, fidelity=page.fidelity, labels=block.labels) for i in (before, after, difference)]
    changed = float(np.abs(block.after.astype(float) - block.before.astype(float)).mean() / 255)
    return page.fill(
        "compare", block=block, before=sheets[0], after=sheets[1], difference=sheets[2], factor=factor, changed=changed
    )


def amplify(before: Pixels, after: Pixels) -> tuple[Pixels, float]:
    """``after - before`` times a factor around middle grey, uint8 [N, H, W, 3]; factor 0 where nothing differs.

    The factor brings the 99th percentile of the change to full strength, and is at least 1 and at most 64.
    """
    change = after.astype(np.float32) - before.astype(np.float32)
    strong = float(np.percentile(np.abs(change), 99))
    if not change.any():
        return np.full_like(before, 128), 0.0
    factor = float(f"{min(64.0, max(1.0, 127.0 / max(strong, 1e-3))):.2g}")
    return np.clip(128 + factor * change, 0, 255).astype(np.uint8), factor


def _padded(labels: tuple[str, ...], count: int) -> list[str]:
    """``count`` labels, empty ones at the end where there are too few."""
    return [*labels[:count], *[""] * (count - len(labels))]
