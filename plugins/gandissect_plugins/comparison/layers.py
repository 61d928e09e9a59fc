"""The layers of two networks that are compared, each unit averaged over the image.

seen = layers_seen(session)              # PooledLayer of every main layer, 12 at most
like_depth(seen_a.layers, seen_b.layers) # [(layer of a, layer of b), ...]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.analyzer import VECTOR, spread
from gandissect.blocks import Section
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.gan import LayerInfo
from gandissect.reducers import KeepSpec
from gandissect.sampling import prior_moments
from gandissect.session import Activations, Session, Want
from gandissect.tap import as_map

MOST_LAYERS = 12
TURNED = 256
FEWEST = 32
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class PooledLayer:
    """A layer and the mean of each of its units over the image.

    Attributes:
        layer: which one.
        rows: float64 [n, U].
        turned: float64 [m, U] for the first m samples with other latents: their coordinates in another order and with other signs.
            They follow the same distribution (the prior is the same for all coordinates and symmetric) and have the same distances,
            but nothing in common with what a network learned to do with single coordinates.
    """

    layer: LayerInfo
    rows: Rows
    turned: Rows


@dataclass(frozen=True)
class LayersSeen:
    """The layers of one network, or why there are none."""

    layers: tuple[PooledLayer, ...]
    lacking: str = ""


def layer_wants(session: Session) -> list[Want]:
    """The main layers, pooled; 12 at most, spread over depth."""
    layers = spread(session.gan.generator.main_layers(), MOST_LAYERS)
    return [Want((Activations(info.name),), KeepSpec("float32", "mean"), session.n) for info in layers]


def layers_seen(session: Session) -> LayersSeen:
    """What :func:`layer_wants` gathered, and the same layers on turned latents; what is not finite counts as 0."""
    known = session.recall(LayersSeen)
    if known is None:
        known = _seen(session)
        session.remember(known)
    return known


def _seen(session: Session) -> LayersSeen:
    if session.gan.generator.latent.prior == "image":
        return LayersSeen((), f"needs {VECTOR}")
    wants = layer_wants(session)
    if not wants:
        return LayersSeen((), "needs readable layers (one of the formats hides them)")
    if session.n < FEWEST:
        return LayersSeen((), f"needs at least {FEWEST} samples (pass -n N)")
    names = [cast(Activations, want.streams[0]).name for want in wants]
    turned = _turned(session, names, min(session.n, TURNED))
    return LayersSeen(
        tuple(
            PooledLayer(session.gan.generator.layer(name), _finite(cast(Tensor, session[want])), _finite(turned[name]))
            for name, want in zip(names, wants, strict=True)
        )
    )


def _finite(kept: Tensor) -> Rows:
    return np.asarray(torch.nan_to_num(kept.double(), posinf=0.0, neginf=0.0).numpy(), np.float64)


def _turned(session: Session, names: Sequence[str], n: int) -> dict[str, Tensor]:
    """Layer -> float32 [n, U], units averaged over the image, on latents with exchanged coordinates."""
    latents, rng = session.latents(n), session.rng("comparison: turned latents")
    centre = prior_moments(session.gan.generator.latent)[0]
    order = torch.from_numpy(rng.permutation(latents.shape[1]))
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], latents.shape[1]).astype(np.float32))
    parts: dict[str, list[Tensor]] = {name: [] for name in names}

    def watch(name: str, output: Tensor) -> Tensor:
        parts[name].append(as_map(output).flatten(2).mean(2).float().cpu())
        return output

    session.generate(
        centre + signs * (latents[:, order] - centre), edit=watch, layers=names, labels=session.labels(range(n))
    )
    return {name: torch.cat(found)[:n] for name, found in parts.items()}


def why_not(seen: Sequence[LayersSeen], latents_differ: str) -> str:
    """Why the layers of two networks cannot be compared; empty where they can."""
    return latents_differ if latents_differ else next((one.lacking for one in seen if one.lacking), "")


def like_depth(first: Sequence[PooledLayer], second: Sequence[PooledLayer]) -> list[tuple[PooledLayer, PooledLayer]]:
    """Each layer of the first network with the layer of the second that lies at the nearest part of its depth."""
    if not second:
        return []
    last, other = max(1, len(first) - 1), len(second) - 1
    return [(layer, second[round(place / last * other)]) for place, layer in enumerate(first)]


class LayerComparer(Comparer[LayersSeen]):
    """A comparison of the layers of two networks that take the same latents; others are skipped with the reason."""

    title: ClassVar[str]
    of: ClassVar[Kind] = "pair"

    @abstractmethod
    def section(self, seen: Sequence[LayersSeen], lineup: Lineup) -> Section:
        """What the layers of both say."""

    def wants(self, session: Session) -> Iterable[Want]:
        return layer_wants(session)

    def look(self, session: Session) -> LayersSeen:
        return layers_seen(session)

    def tell(self, seen: Sequence[LayersSeen], lineup: Lineup) -> Iterator[Section]:
        why = why_not(seen, lineup.latents_differ)
        yield Section(self.title, summary=why, status="skipped") if why else self.section(seen, lineup)
