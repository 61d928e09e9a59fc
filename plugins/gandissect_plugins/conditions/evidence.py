"""Samples with their conditions: images, measured properties, concept areas and units, from the shared pass where it has them.

seen = gathered(session, conditions, 1000)
seen.properties["brightness"]            # float64 [N]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.analyzer import spread
from gandissect.concepts import concept_areas
from gandissect.passes.running import BLOCK, filled
from gandissect.properties import measure
from gandissect.reducers import KeepSpec
from gandissect.session import Activations, Areas, Images, Session, Want
from gandissect.tap import as_map, tap

from .condition import Condition, Given, drawn, plain

Rows = NDArray[np.float64]
MOST_LAYERS = 6
OWN = 512
"""Samples that are generated where those of the shared pass do not have the conditions as they should be."""


@dataclass(frozen=True)
class Evidence:
    """Samples, and what was measured of them.

    Attributes:
        given: their inputs.
        images: float32 [N, C, H, W] in [-1, 1].
        properties: name -> float64 [N].
        concepts: name -> float64 [N], the part of each image that a concept covers.
        units: layer -> float32 [N, U], each unit's mean over its map.
    """

    given: Given
    images: Tensor
    properties: Mapping[str, Rows]
    concepts: Mapping[str, Rows]
    units: Mapping[str, NDArray[np.float32]]

    @property
    def measured(self) -> dict[str, Rows]:
        """Properties and concept areas together, those that vary."""
        return {name: row for name, row in {**self.properties, **self.concepts}.items() if np.ptp(row) > 0}


def wanted(session: Session, conditions: Sequence[Condition], n: int) -> Iterator[Want]:
    """What the shared pass can gather for :func:`gathered`."""
    if not conditions or not plain(conditions):
        return
    yield Want((Images(),), KeepSpec(), n)
    if session.vocabulary.concepts:
        yield Want((Areas(),), KeepSpec(), n)
    for layer in layers_of(session):
        yield _pooled(layer, n)


def layers_of(session: Session) -> tuple[str, ...]:
    """Main layers whose units are looked at, spread over depth."""
    return tuple(info.name for info in spread(session.gan.generator.main_layers(), MOST_LAYERS))


def gathered(session: Session, conditions: Sequence[Condition], n: int) -> Evidence:
    """The evidence on ``n`` samples; on at most ``OWN`` where they have to be generated for it."""
    own = not plain(conditions)
    count = max(BLOCK, session.affordable(min(n, OWN))) if own else n
    given = drawn(session, conditions, range(count))
    if own:
        images, units = _generated(session, given, layers_of(session))
        areas = _areas_of(session, images)
    else:
        images = session.images(count)
        units = {layer: cast(Tensor, session[_pooled(layer, count)]) for layer in layers_of(session)}
        areas = session.areas(count) if session.vocabulary.concepts else None
    return Evidence(
        given,
        images,
        properties_of(images),
        {} if areas is None else _named(session, areas),
        {name: np.asarray(torch.nan_to_num(values.float().flatten(1)).numpy()) for name, values in units.items()},
    )


def properties_of(images: Tensor) -> dict[str, Rows]:
    """Every property of every image: name -> float64 [N]."""
    parts = [measure(torch.nan_to_num(part)) for part in torch.split(images, 64)]
    return {name: np.concatenate([part[name].double().numpy() for part in parts]) for name in parts[0]}


def concepts_of(session: Session, images: Tensor, own: int = 0) -> dict[str, Rows]:
    """Areas of the concepts in any images; empty where nobody can look for concepts in them.

    Args:
        session: whose vocabulary is asked.
        images: float32 [N, C, H, W].
        own: where not 0, the images are the first so many of the session's samples, which it has looked at.
    """
    if not session.vocabulary.concepts or not session.vocabulary.reads_pixels:
        return {}
    areas = session.areas(own) if own else _areas_of(session, images)
    return {} if areas is None else _named(session, areas)


def _areas_of(session: Session, images: Tensor) -> Tensor | None:
    if not session.vocabulary.concepts or not session.vocabulary.reads_pixels:
        return None
    return torch.cat([concept_areas(session.segment(part)) for part in torch.split(images, 64)])


def _named(session: Session, areas: Tensor) -> dict[str, Rows]:
    concepts = session.vocabulary.concepts
    return {
        f"area of {concept.name}": np.asarray(areas[:, place].double().numpy())
        for place, concept in enumerate(concepts)
        if not concept.spatial
    }


def _pooled(layer: str, n: int) -> Want:
    return Want((Activations(layer),), KeepSpec("float32", "mean"), n)


def _generated(session: Session, given: Given, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Images of the inputs, and every unit's mean, in whole blocks as the session runs them."""
    generator, parts = session.gan.generator, []
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with session.borrowed(), torch.no_grad():
        for start in range(0, len(given), BLOCK):
            z = filled(given.latents[start : start + BLOCK], BLOCK).to(generator.device)
            y = None if given.labels is None else filled(given.labels[start : start + BLOCK], BLOCK)
            left = len(given) - start
            with tap(generator.module, layers) as acts:
                parts.append(generator(z, None if y is None else y.to(generator.device))[:left].cpu())
            for layer in layers:
                seen[layer].append(as_map(acts[layer]).float().mean((2, 3))[:left].cpu())
    session.images_generated += len(given)
    return torch.cat(parts), {layer: torch.cat(rows) for layer, rows in seen.items()}
