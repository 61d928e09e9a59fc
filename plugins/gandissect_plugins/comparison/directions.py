"""Whether the directions that matter in one latent space still matter in the other: subspaces and the angles between them.

found = subspace_overlap(vectors_a, vectors_b, rng)
found.value, found.chance                # mean squared cosine of the principal angles, and k / D
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.blocks import Bar, Reference, Section, Series, Table
from gandissect.comparer import Comparer, Kind, Lineup
from gandissect.errors import NoSuchCapability
from gandissect.session import Session, Want
from gandissect_plugins.directions import ganspace_of, sefa

from .layers import FEWEST, layer_wants
from .words import p_words

TITLE = "Directions in the latent space"
DRAWS = 999
MOST = 8
Rows = NDArray[np.float64]
MEANING = f"""
*SeFa*: the directions that change the first layer's output most, from its weights. *Components*: principal components of a
layer's units (averaged over the image), carried back to the latent by least squares as in GANSpace; at the first, middle and
last main layer. The first k of each network span a subspace; the overlap is the mean squared cosine of the principal
angles between the two subspaces: 1 for the same subspace, k/D on average for random ones of a latent of D numbers. *95 % of
chance* is that of {DRAWS} pairs of random subspaces. *Itself* is the overlap of one network's subspaces from two halves of its samples:
with so few samples no overlap with another network can be expected to be larger. Single directions may turn
within the subspace.
"""


@dataclass(frozen=True)
class Overlap:
    """``value`` 0..1, mean squared cosine; ``chance`` its mean for random subspaces, ``floor`` their 95 % point, and p."""

    value: float
    chance: float
    floor: float
    p: float


@dataclass(frozen=True)
class Subspaces:
    """Orthonormal rows [k, D] by method, and from two halves of the samples where samples are used; ``lacking`` what there is none of."""

    found: dict[str, Rows]
    halves: dict[str, tuple[Rows, Rows]]
    lacking: tuple[str, ...] = ()


def subspace_overlap(first: Rows, second: Rows, rng: np.random.Generator) -> Overlap:
    """How much two subspaces share.

    Args:
        first: float64 [k, D], rows that span a subspace.
        second: ditto.
        rng: draws random subspaces.

    References:
        Björck & Golub 1973, Numerical methods for computing angles between linear subspaces, th. 1.
    """
    a, b = _basis(first), _basis(second)
    value = _shared(a, b)
    size = a.shape[1]
    # By rotation only one of the two subspaces has to be random.
    drawn = np.asarray([_shared(a, _basis(rng.standard_normal((len(b), size)))) for _ in range(DRAWS)])
    p = float((1 + (drawn >= value - 1e-12).sum()) / (DRAWS + 1))
    return Overlap(value, max(len(a), len(b)) / size, float(np.percentile(drawn, 95)), p)


def _basis(rows: Rows) -> Rows:
    return np.asarray(np.linalg.qr(np.asarray(rows, np.float64).T)[0].T)


def _shared(a: Rows, b: Rows) -> float:
    return float(np.square(a @ b.T).sum() / min(len(a), len(b)))


class DirectionDrift(Comparer[Subspaces]):
    """SeFa's and principal directions of both networks."""

    name: ClassVar[str] = "directions"
    of: ClassVar[Kind] = "pair"
    order: ClassVar[int] = 400
    references: ClassVar[tuple[Reference, ...]] = (
        Reference("Shen, Y. & Zhou, B.", 2021, "Closed-form factorization of latent semantics in GANs", "CVPR"),
        Reference("Härkönen, E. et al.", 2020, "GANSpace: discovering interpretable GAN controls", "NeurIPS"),
        Reference("Björck, Å. & Golub, G. H.", 1973, "Numerical methods for computing angles between linear subspaces", "Math. Comp. 27"),
    )  # fmt: skip

    def wants(self, session: Session) -> Iterable[Want]:
        return layer_wants(session)

    def look(self, session: Session) -> Subspaces:
        generator = session.gan.generator
        size = generator.latent.size
        k = min(MOST, size // 4)
        found: dict[str, Rows] = {}
        halves: dict[str, tuple[Rows, Rows]] = {}
        lacking = []
        if k < 1 or generator.latent.prior == "image":
            return Subspaces({}, {}, ("a latent vector of at least 4 numbers",))
        try:
            found["SeFa"] = np.asarray(sefa(generator, k).vectors, np.float64)
        except NoSuchCapability as error:
            lacking.append(f"SeFa: {error}")
        wants, latents = layer_wants(session), session.latents().numpy()
        if session.n < 2 * FEWEST:
            return Subspaces(found, {}, (*lacking, f"components: need at least {2 * FEWEST} samples (pass -n N)"))
        for place, name in _depths(len(wants)):
            rows = torch.nan_to_num(cast(Tensor, session[wants[place]]).double(), posinf=0.0, neginf=0.0).numpy()
            if np.linalg.matrix_rank(rows - rows.mean(0)) >= k:
                key = f"components, {name} main layer"
                found[key] = ganspace_of(rows, latents, k)[0]
                halves[key] = (ganspace_of(rows[::2], latents[::2], k)[0], ganspace_of(rows[1::2], latents[1::2], k)[0])
        return Subspaces(found, halves, tuple(lacking))

    def tell(self, seen: Sequence[Subspaces], lineup: Lineup) -> Iterator[Section]:
        first, second = seen
        keys = [key for key in first.found if key in second.found]
        why = lineup.latents_differ
        if why or not keys:
            yield Section(TITLE, summary=why or f"needs {'; '.join(first.lacking or second.lacking)}", status="skipped")
            return
        overlaps = {
            key: subspace_overlap(first.found[key], second.found[key], lineup.rng(f"directions {key}")) for key in keys
        }
        own = {key: _shared(*map(_basis, first.halves[key])) if key in first.halves else None for key in keys}
        yield _section(
            overlaps, own, len(first.found[keys[0]]), tuple(dict.fromkeys((*first.lacking, *second.lacking))), lineup
        )


def _depths(count: int) -> list[tuple[int, str]]:
    if not count:
        return []
    places = {0: "first", count // 2: "middle", count - 1: "last"}
    return sorted(places.items())


def _section(
    overlaps: dict[str, Overlap], own: dict[str, float | None], k: int, lacking: tuple[str, ...], lineup: Lineup
) -> Section:
    a, b = lineup.names
    keys = list(overlaps)
    clear = [key for key in keys if overlaps[key].p <= 0.01]
    best = max(keys, key=lambda key: overlaps[key].value)
    text = (
        f"The first {k} directions of {a} and {b} overlap by {overlaps[best].value:.2f} at most ({best}); "
        f"{overlaps[best].chance:.2f} is the mean of random ones. {len(clear)} of {len(keys)} subspaces share more than chance."
    )
    plot = Bar(
        (
            Series("overlap", keys, [overlaps[key].value for key in keys]),
            Series("95 % of chance", keys, [overlaps[key].floor for key in keys], role="null"),
        ),
        "directions",
        "mean squared cosine of the principal angles",
        f"overlap of the leading directions of {a} and {b} beside random ones",
        caption="; ".join(lacking),
        horizontal=True,
    )
    rows = [(key, one.value, one.chance, one.floor, p_words(one.p, DRAWS), own[key]) for key, one in overlaps.items()]
    columns = ("directions", "overlap", "random, mean", "95 % of chance", "p", f"{a} with itself")
    return Section(TITLE, plot, Table(columns, rows), summary=text, meaning=MEANING)
