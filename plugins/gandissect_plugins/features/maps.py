"""Clouds of samples and the maps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect.blocks import Block, Floats, Fold, Pixels, Scatter, Section, Table, Text, in_tabs, to_uint8
from gandissect.concepts import telling_first
from gandissect.session import Session
from gandissect.wording import percent

from .embedding import METHODS, TITLES, Embedding
from .spaces import MOST_LAYERS, Space, brightness, thumbnails

MEANING = """
Each point is a sample, placed by what one layer says about it. Points that are near are alike to that layer.

- A layer of up to 1024 numbers is taken as it is; of a larger one each unit is averaged over its map, so *where*
  something is gets lost.
- **PCA** is linear: distances and directions mean something. The axes say how much of the variance they hold.
- **t-SNE** and **UMAP** keep neighbourhoods only. The size of a cluster and the distance between clusters mean
  nothing, and both methods can draw clusters where there are none. **Trustworthiness** (1 is best) falls when
  points that are strangers in the layer are neighbours in the picture. **Kept** is the share of each point's
  nearest neighbours that are still its nearest in the picture, beside what points placed at random would keep.
- Real and generated samples are always fitted together; pictures fitted apart cannot be compared.
- The generator has no activations for real images: its layers are shown for generated samples only.
"""


@dataclass(frozen=True)
class Cloud:
    """The samples of a map: generated ones first, then real ones.

    Attributes:
        generated: how many are generated.
        real: how many are real.
        thumbnails: uint8 [N, h, w, 3].
        labels: one for each.
        colourings: name -> one number for each.
    """

    generated: int
    real: int
    thumbnails: Pixels
    labels: tuple[str, ...]
    colourings: Mapping[str, Sequence[float]]

    @property
    def groups(self) -> tuple[str, ...]:
        """ "generated" or "real" for each; empty where there are no real ones."""
        return ("generated",) * self.generated + ("real",) * self.real if self.real else ()


@dataclass(frozen=True)
class Mapped:
    """One layer's map of one cloud."""

    space: Space
    cloud: Cloud
    embedding: Embedding


def sample_cloud(session: Session, points: int, *, real: bool, side: int) -> Cloud:
    """The first samples, half of ``points`` of each kind where ``real`` ones come along."""
    theirs = min(points // 2, len(session.real)) if real and session.real is not None else 0
    ours = min(session.n, points // 2 if theirs else points)
    images = session.images(ours)
    if theirs:
        images = torch.cat([images, session.real_images(theirs)])
    labels = (*(session.sample_name(i) for i in range(ours)), *(f"real {i}" for i in range(theirs)))
    pictures = to_uint8(thumbnails(images, min(48, max(8, side))))
    return Cloud(ours, theirs, pictures, labels, _colourings(session, images, ours, theirs))


def _colourings(session: Session, images: Tensor, ours: int, theirs: int) -> dict[str, list[float]]:
    found: dict[str, Floats] = {"brightness": brightness(images)}
    if session.gan.discriminator is not None:
        scores = [session.scores(ours)] + ([session.scores(theirs, real=True)] if theirs else [])
        found["discriminator's score"] = torch.cat(scores).numpy()
    classes = session.labels(range(ours))
    if classes is not None and not theirs:
        found["class"] = classes.cpu().numpy().astype(np.float64)
    concepts = session.vocabulary.concepts
    if concepts:
        areas = [session.areas(ours)] + ([session.areas(theirs, real=True)] if theirs else [])
        table = torch.cat(areas)
        found |= {f"area of {concepts[k].name}": table[:, k].numpy() for k in telling_first(concepts, table)}
    return {name: [float(value) for value in values] for name, values in found.items() if np.ptp(values) > 0}


def maps_section(mapped: Sequence[Mapped], methods: Sequence[str], session: Session) -> Section:
    """All maps: those of the layers with more than one to choose from, the others folded."""
    rich = {item.space for item in mapped if item.embedding.method != "pca" or item.embedding.points.shape[1] == 3}
    blocks: list[Block] = [Text(_fitted_text(mapped, methods, session))]
    blocks += [Text(sentence) for sentence in _left_out(session)]
    blocks += in_tabs(
        {f"{item.space.short}, {item.embedding.title}": _scatter(item) for item in mapped if item.space in rich}
    )
    rest = tuple(_scatter(item, 4) for item in mapped if item.space not in rich)
    if rest:
        blocks.append(Fold("PCA of the other layers", rest))
    blocks.append(_trust_table(mapped))
    return Section("Feature space", *blocks, summary=_summary(mapped), meaning=MEANING)


def _summary(mapped: Sequence[Mapped]) -> str:
    first = [item for item in mapped if item.embedding.method == "pca" and item.embedding.points.shape[1] == 2]
    if not first:
        return f"{len(mapped)} maps of the samples."
    widest = max(first, key=lambda item: sum(item.embedding.explained))
    share = f"{sum(widest.embedding.explained):.0%}".replace("%", " %")
    return f"Two axes hold {share} of the variance in `{widest.space.short}`, the most of {len(first)} layers."


def _fitted_text(mapped: Sequence[Mapped], methods: Sequence[str], session: Session) -> str:
    """Says what was fitted to what, and what was not."""
    cloud = mapped[-1].cloud if mapped else None
    if cloud is None:
        return "No map was fitted: too few samples or no known method."
    kinds = (
        f"{cloud.generated} generated and {cloud.real} real samples, fitted together"
        if cloud.real
        else f"{cloud.generated} generated samples"
    )
    parts = [f"Maps of {kinds}."]
    for method in METHODS:
        names = list(dict.fromkeys(f"`{item.space.short}`" for item in mapped if item.embedding.method == method))
        if names:
            parts.append(f"{TITLES[method]}: {', '.join(names)}.")
        elif method in methods:
            parts.append(f"{TITLES[method]} is not fitted: too few samples.")
    if session.real is None:
        parts.append("No real images were given; `--data FOLDER` puts them into the same maps.")
    parts.append("`features.layers` chooses the layers that get every method.")
    return " ".join(parts)


def _left_out(session: Session) -> list[str]:
    """A sentence for each network of which some main layers were not looked at."""
    gan = session.gan
    networks = [gan.generator, *([gan.discriminator] if gan.discriminator is not None else [])]
    counts = [(network.role, len(network.main_layers())) for network in networks]
    return [
        f"Of the {role} {MOST_LAYERS} of {count} main layers, spread over depth."
        for role, count in counts
        if count > MOST_LAYERS
    ]


def _scatter(item: Mapped, colourings: int = 20) -> Scatter:
    embedding, cloud = item.embedding, item.cloud
    shown = dict(list(cloud.colourings.items())[:colourings])
    kinds = "generated and real samples" if cloud.real else "generated samples"
    caption = (
        f"`{item.space.short}`, {embedding.title}: {item.space.description}. "
        f"Trustworthiness {embedding.trustworthiness:.2f}; {percent(embedding.preserved)} of "
        f"{embedding.neighbours} nearest neighbours kept ({percent(embedding.by_chance)} by chance)."
    )
    first = next(iter(cloud.colourings), "")
    return Scatter(
        embedding.points,
        embedding.axes,
        f"{embedding.title} of {len(embedding.points)} {kinds} by {item.space.name}",
        groups=cloud.groups,
        values=None if cloud.groups or not first else np.asarray(cloud.colourings[first]),
        value_label="" if cloud.groups else first,
        colourings=shown,
        thumbnails=cloud.thumbnails,
        labels=cloud.labels,
        caption=caption,
    )


def _trust_table(mapped: Sequence[Mapped]) -> Table:
    rows = []
    for item in mapped:
        e = item.embedding
        explained = sum(e.explained) if e.explained else None
        kind = item.space.description
        rows.append(
            (item.space.short, e.title, e.settings, explained, e.trustworthiness, e.preserved, e.by_chance, kind)
        )
    columns = ("layer", "map", "settings", "variance", "trustworthiness", "kept", "kept by chance", "features")
    return Table(columns, rows, caption="How far each map can be trusted.")
