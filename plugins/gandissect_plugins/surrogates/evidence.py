"""What is known of each sample: concepts and properties of the picture, latents, units, the discriminator's score.

features = picture_features(session, 1000)
features.names, features.values                          # ("sky", ..., "brightness"), float64 [N, F]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gandissect.analyzer import spread
from gandissect.concepts import telling_first
from gandissect.reducers import KeepSpec
from gandissect.session import Activations, Session, Want
from gandissect_plugins.directions import LARGEST_LATENT, property_rulers

Matrix = NDArray[np.float64]
RAREST = 0.03
"""A concept is a feature where its area differs from the most common one in this share of the samples at least."""
TOGETHER = 0.7
"""Features whose ranks correlate by this much cannot be told apart and count as one."""
TWINS = 0.95
"""Of features whose ranks correlate by this much a tree is given the first only, so that which one it names is not left to chance."""
WIDEST = 1024


@dataclass(frozen=True)
class Features:
    """Numbers per sample, with names.

    Attributes:
        names: F of them.
        values: float64 [N, F].
        areas: for each whether it is a share of the picture.
        what: what they are as a whole ("concepts", "latent coordinates", "units of layer1").
    """

    names: tuple[str, ...]
    values: Matrix
    areas: tuple[bool, ...]
    what: str

    def best(self, areas: int) -> Features:
        """The first ``areas`` of the areas and everything that is none."""
        first = [i for i, area in enumerate(self.areas) if area][:areas]
        return self.only(first + [i for i, area in enumerate(self.areas) if not area])

    def only(self, columns: Sequence[int]) -> Features:
        """These columns alone."""
        flags, names = tuple(self.areas[i] for i in columns), tuple(self.names[i] for i in columns)
        return Features(names, self.values[:, list(columns)], flags, self.what)


def picture_features(session: Session, n: int, concepts: int) -> Features:
    """Areas of at most so many of the most telling concepts, and the simple properties, as far as they vary over ``n`` samples."""
    rulers = property_rulers(session, n)
    known = session.vocabulary.concepts
    areas = session.areas(n).double().numpy() if known else np.zeros((n, 0))
    telling = telling_first(known, torch.from_numpy(areas)) if known else []
    kept = [k for k in telling if _varies(areas[:, k])][:concepts]
    names = (*(known[k].name for k in kept), *rulers.names)
    values = np.concatenate([areas[:, kept], rulers.values], 1)
    flags = (True,) * len(kept) + (False,) * len(rulers.names)
    return Features(names, values, flags, "concepts and properties")


def sources(session: Session, n: int, layers: int) -> list[Features]:
    """The latent coordinates, and the mean activations of the units of some main layers."""
    found = []
    latent = session.gan.generator.latent
    if latent.prior != "image" and latent.size <= LARGEST_LATENT:
        values = session.latents(n).double().numpy()
        found.append(_plain(f"coordinates of {latent.name}", latent.name, values))
    for name in unit_layers(session, layers):
        means = session[unit_want(name, n)]
        assert isinstance(means, torch.Tensor)
        found.append(_plain(units_of(name), "unit", means.double().numpy()))
    return found


def unit_layers(session: Session, count: int) -> tuple[str, ...]:
    """At most ``count`` main layers of the generator, spread over depth, none of more than ``WIDEST`` units."""
    names = [info.name for info in session.gan.generator.main_layers() if info.channels <= WIDEST]
    return spread(names, count)


def units_of(layer: str) -> str:
    """What a layer's units are called as a source."""
    return f"units of {'layer ' if layer[:1].isdigit() else ''}{layer}"


def unit_want(layer: str, n: int) -> Want:
    """Each unit's mean over the map in the first ``n`` samples."""
    return Want((Activations(layer),), KeepSpec(pool="mean"), n)


def grouped(values: Matrix, together: float = TOGETHER) -> list[tuple[int, ...]]:
    """Columns of ``values`` [N, F] in groups that cannot be told apart, in the order of their first members.

    Average linkage of 1 − |Spearman's ρ|, cut where the mean |ρ| falls below ``together``.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    count = values.shape[1]
    if count < 2:
        return [(i,) for i in range(count)]
    ranks = rankdata(values, axis=0)
    ranks = ranks - ranks.mean(0)
    norms = np.linalg.norm(ranks, axis=0)
    ranks = ranks / np.where(norms > 0, norms, np.inf)
    distance = np.clip(1 - np.abs(ranks.T @ ranks), 0, 1).round(9)
    np.fill_diagonal(distance, 0)
    marks = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - together, "distance")
    members: dict[int, list[int]] = {}
    for column, mark in enumerate(marks.tolist()):
        members.setdefault(mark, []).append(column)
    return [tuple(group) for group in members.values()]


def group_names(names: Sequence[str], groups: Sequence[tuple[int, ...]]) -> list[str]:
    """What each group is called: its members, the first three of many."""
    told = []
    for group in groups:
        some = [names[i] for i in group[:3]]
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        told.append(" + ".join(some) + more)
    return told


def _varies(values: Matrix) -> bool:
    most = np.unique(values.round(4), return_counts=True)[1].max()
    return bool(most <= (1 - RAREST) * len(values) and values.std() > 1e-6)


def _plain(what: str, unit: str, values: Matrix) -> Features:
    kept = np.flatnonzero(values.std(0) > 1e-7)
    names = tuple(f"{unit}[{i}]" if unit != "unit" else f"unit {i}" for i in kept)
    return Features(names, values[:, kept], (False,) * len(kept), what)
