"""Kinds of region that a generator has of its own: clusters of activations that pixels agree with.

found = discover(session)
for concept in found.concepts:
    print(concept.name, concept.layer, concept.stability, concept.read.beyond)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gandissect.session import Session
from gandissect.trust import adjusted
from gandissect_plugins.vocabularies.looks import Reader, balanced_accuracy, evenly

from .cells import Evidence, gather
from .clustering import (
    Clusters,
    Match,
    Split,
    agreement,
    cluster,
    euclidean_centres,
    matched,
    overlaps,
    spherical,
    spherical_centres,
)
from .naming import Look, Surfaces
from .reading import Discovered

STABLE = 0.6
"""Least Jaccard index of a cluster with its partner in other samples (Hennig 2007: below 0.6 it should not be trusted)."""
BEYOND = 0.7
"""Least agreement of pixels with a cluster beyond position, (IoU − null) / (1 − null)."""
FEW_WAYS = 1.9  # ... and this over the root of the number of ways in which a layer's cells vary, see :func:`ways`
FDR = 0.05
SAME = 0.5  # IoU from which on clusters of two layers are one concept
LEAST_AREA, MOST_AREA = 0.005, 0.9
LEAST_SAMPLES = 20
PIXELS = 5000  # that a classifier is fitted to


@dataclass(frozen=True)
class Read:
    """How well pixels alone tell a cluster, on samples that neither the clusters nor the classifier were fitted to.

    ``iou`` with the cluster, ``null`` the same with samples shuffled, ``beyond`` = (iou − null) / (1 − null), ``p`` how often
    shuffled samples do as well and ``q`` after Benjamini–Hochberg over all clusters, ``accuracy`` the balanced accuracy.
    """

    iou: float
    null: float
    p: float
    accuracy: float
    q: float = 1.0

    @property
    def beyond(self) -> float:
        """Agreement beyond position, 0 by chance and 1 where both are the same."""
        return (self.iou - self.null) / max(1 - self.null, 1e-9)


@dataclass(frozen=True)
class Candidate:
    """A cluster of a layer, tested.

    Attributes:
        layer, number: which one; ``area`` the part of all cells in it.
        stability, by_position: see :class:`~.clustering.Clusters`.
        pixels: the cluster of pixels matched to it, −1 for none; ``match``, ``match_null`` their IoU and its null.
        read: from pixels.
        floor: the least ``read.beyond`` of a concept.
        mask: bool [n, cells].
        reader: the pixel classifier.
    """

    layer: str
    number: int
    area: float
    stability: float
    by_position: float
    pixels: int
    match: float
    match_null: float
    read: Read
    floor: float
    mask: Tensor
    reader: Reader

    @property
    def kept(self) -> bool:
        """It comes back in other samples, and pixels agree with it beyond position and the floor."""
        return self.stability >= STABLE and self.read.q <= FDR and self.read.beyond >= self.floor


@dataclass(frozen=True)
class Concept:
    """A discovered concept: its best cluster, the same region in other layers, (layer, cluster, IoU), and how it looks."""

    name: str
    best: Candidate
    also: tuple[tuple[str, int, float], ...]
    look: Look


@dataclass(frozen=True)
class Discovery:
    """What :func:`discover` found out.

    Attributes:
        evidence: samples and cells; ``unseen`` int64, the places of samples that nothing was fitted to.
        pixels: the clustering of pixels; ``kinds`` how its clusters look.
        layers: the clusterings of activations; ``matches`` of each with that of pixels.
        shared: of each layer with the pixels, adjusted mutual information, and the same with samples shuffled.
        steps: (layer, next layer, adjusted mutual information, the same with samples shuffled).
        candidates: every cluster that was tested; ``concepts`` those kept, each once.
    """

    evidence: Evidence
    unseen: Tensor
    pixels: Clusters
    kinds: tuple[Look, ...]
    layers: dict[str, Clusters]
    matches: dict[str, Match]
    shared: dict[str, tuple[float, float]]
    steps: tuple[tuple[str, str, float, float], ...]
    candidates: tuple[Candidate, ...]
    concepts: tuple[Concept, ...]

    def segmenter(self) -> Discovered:
        """The concepts, read from pixels."""
        return Discovered([item.name for item in self.concepts], [item.best.reader for item in self.concepts])


def discover(
    session: Session, layers: Sequence[str] = (), *, samples: int = 200, most: int = 8, concepts: int = 6
) -> Discovery | None:
    """Concepts from clusters of activations and pixels; None where no layer has a map or there are too few samples.

    Args:
        layers: names; up to four main layers with a map where left out.
        samples: the first so many of the session's.
        most: largest number of clusters tried.
        concepts: at most so many.

    References:
        Collins, Bala, Price & Süsstrunk 2020, Editing in Style: Uncovering the Local Semantics of GANs.
    """
    evidence = gather(session, layers, samples)
    if evidence is None or len(evidence.images) < LEAST_SAMPLES:
        return None
    rng = session.rng("discovery")
    split = Split.of(len(evidence.images), rng)
    ks = range(2, max(2, most) + 1)
    pixels = cluster(_standardised(evidence.looks), split, euclidean_centres, ks, rng)
    found = {
        name: cluster(spherical(points), split, spherical_centres, ks, rng) for name, points in evidence.layers.items()
    }
    labels = {name: evidence.common(name, item.labels) for name, item in found.items()}
    unseen = split.unseen
    theirs = pixels.labels[unseen]
    matches = {name: matched(labels[name][unseen], theirs, rng, (found[name].k, pixels.k)) for name in found}
    shared = {name: _shared(labels[name][unseen], theirs) for name in found}
    order = list(found)
    steps = [(a, b, *_shared(labels[a][unseen], labels[b][unseen])) for a, b in pairwise(order)]
    candidates = _tested(evidence, split, found, labels, matches, rng)
    kept = _distinct([item for item in candidates if item.kept], unseen)[:concepts]
    surfaces = Surfaces(evidence.images[unseen], evidence.grid)
    named = _named([replace(item, look=surfaces.describe(item.best.mask[unseen])) for item in kept])
    kinds = tuple(surfaces.describe(theirs == number) for number in range(pixels.k))
    return Discovery(evidence, unseen, pixels, kinds, found, matches, shared, tuple(steps), candidates, tuple(named))


def _standardised(points: Tensor) -> Tensor:
    x = points.double() - points.double().mean((0, 1))
    spread = x.std((0, 1), correction=0)
    return x / torch.where(spread > 1e-6, spread, 1.0)


def _shared(first: Tensor, second: Tensor) -> tuple[float, float]:
    return agreement(first, second), agreement(first, second.roll(1, 0))


def ways(points: Tensor) -> float:
    """In how many directions float32 [n, cells, D] varies: the participation ratio (Σλ)² / Σλ² of its covariance, 1 to D.

    An image is a function of a layer's cells, so a split of the cells along the one direction they vary most in is seen in the
    pixels of any network, the more so the fewer such directions there are.
    """
    x = points.flatten(0, 1)
    x = x[evenly(len(x), PIXELS)].double()
    covariance = torch.cov(x.T).reshape(x.shape[1], x.shape[1])
    return float(covariance.trace().square() / covariance.square().sum().clamp(min=1e-300))


def _tested(
    evidence: Evidence, split: Split, found: dict[str, Clusters], labels: dict[str, Tensor],
    matches: dict[str, Match], rng: np.random.Generator,
) -> tuple[Candidate, ...]:  # fmt: skip
    """Every cluster that comes back in other samples and is neither nothing nor everything, read from pixels."""
    candidates = []
    for name, item in found.items():
        floor = max(BEYOND, FEW_WAYS / ways(spherical(evidence.layers[name])) ** 0.5)
        for number in range(item.k):
            mask = labels[name] == number
            area = float(mask.double().mean())
            if float(item.stability[number]) < STABLE or not LEAST_AREA <= area <= MOST_AREA:
                continue
            reader = _reader(evidence, split.first, mask)
            if reader is None:
                continue
            match = matches[name]
            candidates.append(
                Candidate(
                    name, number, area, float(item.stability[number]), float(item.by_position[number]),
                    int(match.partner[number]), float(match.iou[number]), float(match.null[number]),
                    _read(reader, evidence, split.unseen, mask, rng), floor, mask, reader,
                )
            )  # fmt: skip
    q = adjusted([item.read.p for item in candidates]).tolist()
    return tuple(replace(item, read=replace(item.read, q=value)) for item, value in zip(candidates, q, strict=True))


def _reader(evidence: Evidence, samples: Tensor, mask: Tensor) -> Reader | None:
    """A classifier of pixels for a region bool [n, cells]; None where the sampled pixels are all of one kind."""
    points, inside = evidence.looks[samples].flatten(0, 1), mask[samples].flatten()
    chosen = evenly(len(points), PIXELS)
    if bool(inside[chosen].all()) or not bool(inside[chosen].any()):
        return None
    return Reader.fit(points[chosen], inside[chosen].long())


def _read(reader: Reader, evidence: Evidence, samples: Tensor, mask: Tensor, rng: np.random.Generator) -> Read:
    points, truth = evidence.looks[samples], mask[samples]
    told = (reader.of_points(points.flatten(0, 1))[:, 0] > 0).reshape(truth.shape)
    iou, null = overlaps(told[:, None].float(), truth[:, None].float(), rng)
    p = float((1 + (null >= iou - 1e-9).sum()) / (1 + len(null)))
    return Read(float(iou), float(null.mean()), p, balanced_accuracy(told.flatten(), truth.flatten()))


def _distinct(kept: Sequence[Candidate], samples: Tensor) -> list[Concept]:
    """Each region once, the clusters that pixels agree with best first; the others are where else it is found."""
    concepts: list[Concept] = []
    for item in sorted(kept, key=lambda item: (-item.read.beyond, item.layer, item.number)):
        same = [(place, _iou(concept.best.mask[samples], item.mask[samples])) for place, concept in enumerate(concepts)]
        place, iou = max(same, key=lambda pair: pair[1], default=(-1, 0.0))
        if iou > SAME:
            also = (*concepts[place].also, (item.layer, item.number, iou))
            concepts[place] = replace(concepts[place], also=also)
        else:
            concepts.append(Concept("", item, (), Look((), ())))
    return concepts


def _iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum().clamp(min=1))


def _named(concepts: Sequence[Concept]) -> list[Concept]:
    """Names by look; a number follows where two look alike."""
    total = Counter(str(item.look) for item in concepts)
    seen: Counter[str] = Counter()
    named = []
    for item in concepts:
        look = str(item.look)
        seen[look] += 1
        named.append(replace(item, name=f"{look} ({seen[look]})" if total[look] > 1 else look))
    return named
