"""What a step along a direction does to images, beside what steps along random directions do.

effects = measure_effects(session, {"brightness": vector}, rulers(session))
effects.change[0]                                        # mean |change| of each property, in its standard deviations
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect import sampling
from gandissect.concepts import telling_first
from gandissect.properties import measure
from gandissect.session import Session
from gandissect.spaces import codes, decoded
from gandissect.trust import adjusted
from gandissect_plugins.features.embedding import Floats
from gandissect_plugins.features.groups import halves

from .basis import unit_rows

Matrix = NDArray[np.float64]
VISIBLE = 0.05
"""A property (all span about 0..1) has to move by this much to be called changed."""
COHERENT = 0.08
"""The mean colour of some sixteenth of the picture has to move by this much (of 0 to 1), averaged over the samples. What never
learned moves single pixels by more, but no region: 0.04 at most on the tiny random networks of the tests."""
SMOOTH = 0.3
"""Share of the energy of the mean change that has to survive an average over 4×4 pixels: 1/16 for independent pixels, 0.12 at
most on networks with random weights and images of 8 pixels, above 0.6 on trained ones."""
VISIBLE_AREA = (0.5, 0.005, 0.1)
"""A concept has to move by half of its mean area, but by 0.5 % of the image at least; 10 % of the image always suffices."""


@dataclass(frozen=True)
class Rulers:
    """What is measured on images.

    Attributes:
        names: what each column is.
        values: float64 [N, P], on the session's samples.
        of: images [N, C, H, W] to float64 [N, P].
        visible: float64 [P], the smallest change that counts.
        seeds: how many samples it is affordable on.
    """

    names: tuple[str, ...]
    values: Matrix
    of: Callable[[Tensor], Matrix]
    visible: Matrix
    seeds: int

    @property
    def spread(self) -> Matrix:
        """Standard deviation of each over the samples: float64 [P]."""
        return np.asarray(self.values.std(0), np.float64)


def _measured(images: Tensor) -> Matrix:
    parts = [torch.stack(list(measure(part).values()), 1) for part in torch.split(images, 64)]
    return np.asarray(torch.cat(parts).double().numpy())


def property_rulers(session: Session, n: int, seeds: int = 16) -> Rulers:
    """The measured properties that vary over the first ``n`` samples."""
    images = session.images(n)
    values, names = _measured(images), tuple(measure(images[:1]))
    kept = [i for i in range(len(names)) if values[:, i].std() > 1e-7 and halves(values[:, i]) is not None]

    def of(pictures: Tensor) -> Matrix:
        return _measured(pictures)[:, kept]

    return Rulers(tuple(names[i] for i in kept), values[:, kept], of, np.full(len(kept), VISIBLE), seeds)


def concept_rulers(session: Session, n: int, limit: int, seeds: int = 8) -> Rulers:
    """Areas of the ``limit`` most telling concepts; none where the segmenter cannot read edited images."""
    concepts = session.vocabulary.concepts if session.vocabulary.reads_pixels else ()
    areas = session.areas(n).double().numpy() if concepts else np.zeros((n, 0))
    telling = telling_first(concepts, torch.from_numpy(areas)) if concepts else []
    order = [k for k in telling if halves(areas[:, k]) is not None][:limit]

    def of(pictures: Tensor) -> Matrix:
        return np.asarray(session.segment(pictures, only=order).float().mean((2, 3)).double().numpy())

    values = areas[:, order]
    visible = np.clip(VISIBLE_AREA[0] * values.mean(0), *VISIBLE_AREA[1:]) if order else np.zeros(0)
    return Rulers(tuple(concepts[k].name for k in order), values, of, visible, seeds)


@dataclass(frozen=True)
class Effects:
    """How much steps from −``reach``σ to +``reach``σ change what was measured.

    Attributes:
        directions: names, K of them.
        properties: names, P of them.
        shift: float64 [K, P], mean signed change in the property's own unit.
        change: float64 [K, P], mean magnitude of the change in standard deviations of the property over the samples.
        null_shift: float64 [R, P], the same of random directions.
        null_change: float64 [R, P].
        added: float64 [K, P], HiGAN's rescoring: mean of max(0, change) from the sample itself to +``reach``σ, in standard
            deviations of the property; ``null_added`` float64 [R, P] that of random directions.
        p: float64 [K, P], one minus the share of random directions that shift less, by an F test with R degrees of freedom.
        adjusted: float64 [K, P], p at a controlled false-discovery rate.
        visible: bool [K, P], the shift is large enough to count.
        region: float64 [K], largest change of the mean colour of a sixteenth of the picture (0 to 1), averaged over the samples.
        smooth: float64 [K], share of the energy of the mean change that survives an average over 4×4 pixels.
        seeds: samples each was measured on.
        reach: standard deviations to each side.
    """

    directions: tuple[str, ...]
    properties: tuple[str, ...]
    shift: Matrix
    change: Matrix
    null_shift: Matrix
    null_change: Matrix
    added: Matrix
    null_added: Matrix
    p: Matrix
    adjusted: Matrix
    visible: NDArray[np.bool_]
    region: Matrix
    smooth: Matrix
    seeds: int
    reach: float

    def percentile(self, direction: int, target: int) -> float:
        """Share of the random directions that change the property less, 0..1."""
        return float((self.null_change[:, target] < self.change[direction, target]).mean())

    def passes(self, direction: int, target: int, rate: float = 0.05) -> bool:
        """The direction moves the property visibly, more than every random one, and at a false-discovery rate below ``rate``."""
        return bool(
            self.visible[direction, target]
            and self.region[direction] >= COHERENT
            and self.smooth[direction] >= SMOOTH
            and self.adjusted[direction, target] < rate
            and self.percentile(direction, target) == 1.0
        )

    def purity(self, direction: int, target: int) -> float:
        """Share of the whole change, in standard deviations, that falls on the target; 1/P where all change alike."""
        return float(_shares(self.change[direction : direction + 1])[0, target])

    def random_purity(self, target: int) -> float:
        """The share that 95 % of the random directions stay below."""
        return float(np.quantile(_shares(self.null_change)[:, target], 0.95)) if len(self.null_change) else 0.0

    def side_effects(self, direction: int, target: int, count: int = 2) -> list[tuple[str, float]]:
        """The properties besides the target that change most: (name, change in standard deviations)."""
        order = [int(i) for i in np.argsort(-self.change[direction], kind="stable") if i != target]
        return [(self.properties[i], float(self.change[direction, i])) for i in order[:count]]


def prior_sigma(session: Session) -> float:
    """Standard deviation of a sample along any unit direction: 1 for a normal prior, 1/√3 for U(−1, 1)."""
    return sampling.prior_moments(session.gan.generator.latent)[1]


def random_directions(count: int, size: int, rng: np.random.Generator) -> Matrix:
    """Unit vectors, uniform on the sphere: float64 [count, size]."""
    return unit_rows(rng.standard_normal((count, size)))


def _shares(change: Matrix) -> Matrix:
    """Rows [K, P] scaled to a sum of 1; zeros stay."""
    totals = change.sum(1, keepdims=True)
    return np.asarray(np.divide(change, totals, out=np.zeros_like(change), where=totals > 0), np.float64)


def gain(before: Matrix, after: Matrix) -> float:
    """Mean of max(0, change): what HiGAN calls the response of a score."""
    # Yang et al. 2021, eq. 4
    return float(np.maximum(0.0, after - before).mean())


@dataclass(frozen=True)
class Baseline:
    """What random directions do: mean signed change, mean magnitude, and what they add; float64 [R, P] in the property's own
    unit."""

    shift: Matrix
    size: Matrix
    added: Matrix


def random_baseline(
    session: Session,
    rulers: Rulers,
    count: int = 24,
    *,
    reach: float = 2.0,
    space: str = "",
    vectors: Sequence[Floats] | None = None,
) -> Baseline:
    """The effect of ``count`` random directions on the same fresh samples that :func:`measure_effects` uses.

    ``vectors`` are taken in their place, for spaces whose directions are not alike (single channels).
    """
    start = Start.of(session, rulers, space)
    if vectors is None:
        size = int(np.prod(start.points.shape[1:]))
        vectors = list(random_directions(count, size, session.rng("directions: random")))
    return Baseline(*_mean_effects(session, vectors, rulers, reach, start)[:3])


def measure_effects(
    session: Session,
    directions: Mapping[str, Floats],
    rulers: Rulers,
    *,
    baseline: Baseline | int = 24,
    reach: float = 2.0,
    space: str = "",
) -> Effects:
    """The effect of each direction, and of random directions, on the same samples.

    The samples are fresh: none of them was used to find a direction. A random direction's mean change is close to normal
    around 0, so the squared change of a direction over the mean square of R random ones follows F(1, R) where the direction
    is no better than they are.

    Args:
        session: samples and generator.
        directions: name -> unit vector [D].
        rulers: what is measured.
        baseline: what random directions do (in the same space), or how many of them to try.
        reach: standard deviations to each side, those of the samples along the direction.
        space: where the directions are; the latent itself where left out.
    """
    count = baseline if isinstance(baseline, int) else 0
    null = (
        baseline
        if isinstance(baseline, Baseline)
        else random_baseline(session, rulers, count, reach=reach, space=space)
    )
    start = Start.of(session, rulers, space)
    shift, size, added, region, smooth = _mean_effects(session, list(directions.values()), rulers, reach, start)
    p = _beyond(shift, null.shift)
    spread = np.where(rulers.spread > 0, rulers.spread, np.inf)
    visible = np.abs(shift) >= rulers.visible
    return Effects(
        tuple(directions),
        rulers.names,
        shift,
        size / spread,
        null.shift,
        null.size / spread,
        added / spread,
        null.added / spread,
        p,
        adjusted(p),
        visible,
        region,
        smooth,
        rulers.seeds,
        reach,
    )


def _beyond(shift: Matrix, null: Matrix) -> Matrix:
    """p of each shift [K, P] against those of random directions [R, P]."""
    from scipy.stats import f as f_distribution

    scale = (null**2).mean(0)
    ratio = np.divide(shift**2, scale, out=np.zeros_like(shift), where=scale > 0)
    ratio[(shift != 0) & (scale == 0)] = np.inf
    return np.asarray(f_distribution.sf(ratio, 1, len(null)), np.float64)


@dataclass(frozen=True)
class Start:
    """The fresh samples that all directions of a space are walked from.

    Attributes:
        space: its name.
        points: float32 [S, *shape].
        labels: int64 [S], or None.
        spread: float32 [64, D], further points, which say how far one standard deviation is; None in the latent itself.
        values: float64 [S, P], what the rulers measure on the samples themselves.
    """

    space: str
    points: Tensor
    labels: Tensor | None
    spread: Tensor | None
    values: Matrix

    @classmethod
    def of(cls, session: Session, rulers: Rulers, space: str = "") -> Start:
        """The samples that ``rulers`` can afford."""
        name = space or session.gan.generator.latent.name
        latents, labels = fresh_samples(session, rulers.seeds)
        points = codes(session, name, latents, labels)
        return cls(name, points, labels, _spread(session, name), rulers.of(decoded(session, name, points, labels)))

    def step(self, session: Session, vector: Floats) -> Tensor:
        """One standard deviation along a unit vector: float32 [*shape]."""
        unit = torch.from_numpy(np.asarray(vector, np.float32))
        sigma = prior_sigma(session) if self.spread is None else float((self.spread @ unit).std())
        return (unit * sigma).reshape(self.points.shape[1:])


def _mean_effects(
    session: Session, vectors: Sequence[Floats], rulers: Rulers, reach: float, start: Start
) -> tuple[Matrix, Matrix, Matrix, Matrix, Matrix]:
    """Along each direction: mean signed change, mean magnitude, what is added, each [K, P]; largest change of a region and the
    share of its energy that is smooth, each [K]."""
    moved = [_moved(session, vector, rulers, reach, start) for vector in vectors]
    shape = (len(moved), len(rulers.names))
    return (
        np.array([change.mean(0) for change, *_ in moved]).reshape(shape),
        np.array([np.abs(change).mean(0) for change, *_ in moved]).reshape(shape),
        np.array([np.maximum(0.0, added).mean(0) for _, added, *_ in moved]).reshape(shape),
        np.array([region for *_, region, _ in moved], np.float64),
        np.array([smooth for *_, smooth in moved], np.float64),
    )


def _moved(
    session: Session, vector: Floats, rulers: Rulers, reach: float, start: Start
) -> tuple[Matrix, Matrix, float, float]:
    """Change of each property of each fresh sample from −reach σ to +reach σ, and from itself to +reach σ, each [S, P]; the
    largest change of a sixteenth of the mean picture, and the share of the energy of its change that is smooth."""
    step = start.step(session, vector) * reach
    both = torch.cat([start.points - step, start.points + step])
    labels = None if start.labels is None else torch.cat([start.labels, start.labels])
    images = decoded(session, start.space, both, labels)
    before, after = np.split(rulers.of(images), 2)
    low, high = torch.tensor_split(images.double() / 2, 2)
    mean = (high - low).mean(0)
    pool = torch.nn.functional.adaptive_avg_pool2d
    cells = pool(mean, (max(1, mean.shape[1] // 4), max(1, mean.shape[2] // 4)))
    energy = float(mean.square().mean())
    smooth = float(cells.square().mean()) / energy if energy > 0 else 0.0
    return np.asarray(after - before), np.asarray(after - start.values), float(pool(mean, 4).abs().max()), smooth


def fresh_samples(session: Session, count: int) -> tuple[Tensor, Tensor | None]:
    """Latents [count, D] and labels of samples beyond the session's own."""
    indices = range(session.n, session.n + count)
    return sampling.latents(session.seed, indices, session.gan.generator.latent), session.labels(indices)


def strip_frames(
    session: Session, vector: Floats, values: Sequence[float], seeds: int = 5, *, space: str = ""
) -> Tensor:
    """The session's first samples moved along a direction: float32 [F, seeds, C, H, W], one frame for each value in σ."""
    count = min(seeds, session.n)
    name = space or session.gan.generator.latent.name
    labels = session.labels(range(count))
    points = codes(session, name, session.latents(count), labels)
    step = Start(name, points, labels, _spread(session, name), np.zeros((0, 0))).step(session, vector)
    moved = torch.cat([points + value * step for value in values])
    images = decoded(session, name, moved, None if labels is None else labels.repeat(len(values)))
    return images.reshape(len(values), count, *images.shape[1:])


def _spread(session: Session, name: str) -> Tensor | None:
    """Points [64, D] of an inner space that say how far one standard deviation is; None for the latent itself."""
    if name == session.gan.generator.latent.name:
        return None
    more, classes = fresh_samples(session, 64)
    return codes(session, name, more, classes).flatten(1)


def sigma_along(session: Session, vector: Floats, space: str) -> float:
    """Standard deviation of the samples along a unit vector of a space."""
    spread = _spread(session, space)
    return (
        prior_sigma(session)
        if spread is None
        else float((spread @ torch.from_numpy(np.asarray(vector, np.float32))).std())
    )
