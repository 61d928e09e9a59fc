"""The feature space as sections of a report.

list(FeatureSpace({"points": 300, "methods": "pca,tsne"}).run(session))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, cast

import numpy as np

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import Reference, Section
from gandissect.errors import unknown_name
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Scores, Session, Want

from .embedding import METHODS, MINIMUM, Embedding, Method, embed
from .maps import Cloud, Mapped, maps_section, sample_cloud
from .spaces import Space, gather, layer_spaces, pixel_space
from .told_apart import told_apart_section

REFERENCES = (
    Reference(
        "Pearson, K.", 1901, "On lines and planes of closest fit to systems of points in space", "Phil. Mag. 2(11)"
    ),
    Reference("van der Maaten, L. & Hinton, G.", 2008, "Visualizing data using t-SNE", "JMLR 9"),
    Reference(
        "McInnes, L., Healy, J. & Melville, J.", 2018, "UMAP: Uniform manifold approximation and projection", "arXiv"
    ),
    Reference("Venna, J. & Kaski, S.", 2001, "Neighborhood preservation in nonlinear projection methods", "ICANN"),
)

COSTS = {"pca": 1.0, "tsne": 10.0, "umap": 40.0}
"""How long each method takes beside the others, about."""


@dataclass(frozen=True)
class FeatureOptions:
    """Options of the feature-space analysis."""

    points: int = option(400, "samples in each map, half of them real where real images are given")
    samples: int = option(600, "samples that the separability of layers is measured on")
    methods: tuple[str, ...] = option(METHODS, "methods of the maps: pca, tsne, umap")
    layers: tuple[str, ...] = option((), "layers that get every method; one of each network where empty")
    concepts: int = option(6, "concepts whose separability is measured, those that vary most")
    side: int = option(32, "longest side of the thumbnails in pixels, at most 48")


class FeatureSpace(Analyzer):
    """PCA, t-SNE and UMAP of what the layers say about each sample, and what each layer tells apart."""

    name = "features"
    order = 400
    needs = Needs(layers=True)
    references = REFERENCES
    Options: ClassVar[type] = FeatureOptions

    def wants(self, session: Session) -> Iterable[Want]:
        options = cast(FeatureOptions, self.options)
        spaces = layer_spaces(session.gan, options.layers)
        yield from (space.want(min(session.n, options.samples)) for space in spaces)
        yield from _about_samples(session, session.n, session.n, real=False)
        if session.real is not None:
            n = min(len(session.real), options.samples)
            yield from (space.want(n, real=True) for space in spaces if space.network == "discriminator")
            yield from _about_samples(session, n, min(n, options.points // 2), real=True)

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(FeatureOptions, self.options)
        spaces = layer_spaces(session.gan, options.layers)
        yield maps_section(self._mapped(session, spaces, options), options.methods, session)
        yield told_apart_section(session, spaces, options.samples, options.concepts)

    def _mapped(self, session: Session, spaces: tuple[Space, ...], options: FeatureOptions) -> list[Mapped]:
        """Every map that the report shows, in the order of the layers."""
        options = replace(options, points=min(options.points, options.samples))
        focus = chosen_layers(spaces, options.layers)
        alone = sample_cloud(session, options.points, real=False, side=options.side)
        both = sample_cloud(session, options.points, real=True, side=options.side) if session.real else alone
        everything = [*spaces, pixel_space(session.gan)] if session.real and not session.gan.discriminator else spaces
        planned: list[tuple[Space, Cloud]] = []
        tasks: list[Callable[[], Embedding]] = []
        costs: list[float] = []
        for space in everything:
            cloud = both if space.network != "generator" else alone
            features = gather(session, space, min(session.n, options.samples))[: cloud.generated]
            if session.real is not None and cloud.real:
                theirs = gather(session, space, min(len(session.real), options.samples), real=True)
                features = np.concatenate([features, theirs[: cloud.real]])
            last = space == focus[-1] or bool(options.layers)
            for method, dim in _plan(space in focus or space.network is None, last, options.methods, cloud):
                seed = session.seed & 0x7FFFFFFF
                planned.append((space, cloud))
                tasks.append(partial(embed, features, method, dim, seed=seed))
                costs.append(COSTS[method])
        made = session.share_out("maps of the samples", tasks, costs)
        return [Mapped(space, cloud, embedding) for (space, cloud), embedding in zip(planned, made, strict=True)]


def _about_samples(session: Session, n: int, segmented: int, *, real: bool) -> Iterator[Want]:
    """Images and scores of ``n`` samples, concept areas of the first ``segmented``: what maps are coloured by."""
    yield Want((Images(),), KeepSpec(), n, real)
    if session.gan.discriminator is not None:
        yield Want((Scores(),), KeepSpec(), n, real)
    if session.vocabulary.concepts and segmented:
        yield Want((Areas(),), KeepSpec(), segmented, real)


def _plan(focus: bool, last: bool, methods: Iterable[str], cloud: Cloud) -> Iterator[tuple[Method, int]]:
    """(method, dimensions) of the maps of one layer: PCA of all, t-SNE of those in focus, UMAP and 3-D of the last."""
    for method in METHODS:
        if method in methods and cloud.generated + cloud.real >= MINIMUM[method]:
            if method == "pca" or (focus and (method == "tsne" or last)):
                yield method, 2
            if focus and (last or method == "pca"):
                yield method, 3


def chosen_layers(spaces: tuple[Space, ...], names: tuple[str, ...]) -> tuple[Space, ...]:
    """The layers that get every method: those named, else the middle one of the generator and the last of the discriminator."""
    if names:
        unknown = [name for name in names if name not in {space.layer for space in spaces}]
        if unknown:
            raise unknown_name("layer", unknown[0], [space.layer for space in spaces], "(features.layers)")
        return tuple(space for space in spaces if space.layer in names)
    generator = [space for space in spaces if space.network == "generator"]
    discriminator = [space for space in spaces if space.network == "discriminator"]
    return (*generator[len(generator) // 2 :][:1], *discriminator[-1:])
