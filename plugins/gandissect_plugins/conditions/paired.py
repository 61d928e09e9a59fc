"""The same z with every value of a condition: what differs then is the condition's doing.

found = paired(session, condition, conditions)
found.dead                               # True: no value changes more than a second run of the same input does
found.alike                              # ((2, 5),): values whose images are the same
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.session import Session
from gandissect.trust import adjusted

from .change import Kinds, kinds
from .condition import Condition, Given, drawn

Rows = NDArray[np.float64]
LATENTS = 24
FEWEST = 8
INVISIBLE = 1 / 255
"""Half a step of an 8-bit picture, in [-1, 1]: a change that stays below it is in no saved file."""
FLIPS = 4000
SHUFFLES = 499
RATE = 0.05
SURE = 0.001
_NUMBERS = 2e7


@dataclass(frozen=True)
class Shares:
    """Variance of images with M latents and K values crossed, in parts that sum to 1.

    Attributes:
        condition: what a value does to all latents alike.
        z: what a latent does under all values alike.
        both: what a value does to single latents only, and noise.
        p: how often values exchanged within each latent leave as large a part to the condition.
    """

    condition: float
    z: float
    both: float
    p: float


@dataclass(frozen=True)
class Paired:
    """Images of M latents under K values of a condition, and how they differ.

    Attributes:
        condition: which one.
        images: float32 [M, K, C, H, W].
        repeats: float64 [M], root mean square difference between two runs of one input.
        distance: float64 [K, K], mean over latents of the root mean square difference between two values' images.
        peak: float64 [K, K], the largest change of one pixel in any of the images.
        p: float64 [K, K], that the difference is larger than between two runs; adjusted over all pairs.
        any_p: the same of the mean over all pairs.
        shares: where the variance of the images comes from.
        kinds: what kind of change the condition makes to the mean over its values.
    """

    condition: Condition
    images: Tensor
    repeats: Rows
    distance: Rows
    peak: Rows
    p: Rows
    any_p: float
    shares: Shares
    kinds: Kinds

    @property
    def same(self) -> NDArray[np.bool_]:
        """bool [K, K]: pairs of values whose images do not differ beyond what an 8-bit file shows or, of a generator that draws
        noise of its own, beyond what a second run does."""
        found = self.peak <= INVISIBLE
        if self.noisy:
            found = found | (self.p >= RATE)
        np.fill_diagonal(found, True)
        return found

    @property
    def still(self) -> bool:
        """Nothing changes the image, z neither."""
        return float((self.images - self.images[:1, :1]).abs().max()) <= INVISIBLE

    @property
    def noisy(self) -> bool:
        """The generator gives another image when it is run again."""
        return bool(self.repeats.max() > INVISIBLE)

    @property
    def dead(self) -> bool:
        """No value changes anything."""
        return float(self.peak.max()) <= INVISIBLE or (self.noisy and self.any_p >= SURE)

    @property
    def alike(self) -> tuple[tuple[int, ...], ...]:
        """Groups of two or more values, places in ``condition.values``, that all have the same images."""
        groups: list[list[int]] = []
        for value in range(len(self.same)):
            home = next((group for group in groups if self.same[value, group].all()), None)
            groups.append([value]) if home is None else home.append(value)
        return tuple(tuple(group) for group in groups if len(group) > 1)


def paired(session: Session, condition: Condition, conditions: Sequence[Condition]) -> Paired:
    """The test on latents that no other part of the analysis has seen.

    The root mean square change of each latent's image between two values is compared with its change between two runs of one
    input, by signs flipped at random over latents (Fisher 1935), one-sided, adjusted over pairs of values.

    Args:
        session: generates the images.
        condition: what is changed.
        conditions: all there are; the others keep the values that each latent has.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    count, pixels = len(condition.values), int(np.prod(session.gan.generator.image_shape))
    affordable = session.affordable(LATENTS * (count + 1)) // (count + 1)
    m = int(np.clip(min(affordable, _NUMBERS / (count * pixels)), FEWEST, LATENTS))
    base = drawn(session, conditions, range(session.n, session.n + m))
    cells = [condition.put(base, value) for value in condition.values]
    again = [_row(cells[place % count], place) for place in range(m)][
        ::-1
    ]  # elsewhere in its block than the first time
    whole = _joined([*cells, *again])
    images = torch.nan_to_num(session.generate(whole.latents, labels=whole.labels))
    grid = images[: m * count].reshape(count, m, *images.shape[1:]).transpose(0, 1).contiguous()
    first = grid[torch.arange(m), torch.arange(m) % count]
    repeats = _rms(first - images[m * count :].flip(0))
    with threadpool_limits(limits=1):
        distance, peak, p, any_p = _pairs(grid, repeats, session.rng(f"conditions: {condition.name}"))
        shares = variance_shares(grid, session.rng(f"conditions: shares of {condition.name}"))
    middle = grid.mean(1, keepdim=True).expand_as(grid)
    return Paired(
        condition, grid, repeats, distance, peak, p, any_p, shares, kinds(middle.flatten(0, 1), grid.flatten(0, 1))
    )


def _row(given: Given, place: int) -> Given:
    return Given(given.latents[place : place + 1], None if given.labels is None else given.labels[place : place + 1])


def _joined(parts: Sequence[Given]) -> Given:
    labels = [part.labels for part in parts if part.labels is not None]
    return Given(torch.cat([part.latents for part in parts]), torch.cat(labels) if labels else None)


def _rms(difference: Tensor) -> Rows:
    return np.asarray(difference.flatten(1).double().square().mean(1).sqrt().numpy())


def _pairs(grid: Tensor, repeats: Rows, rng: np.random.Generator) -> tuple[Rows, Rows, Rows, float]:
    """(distance, peak, adjusted p) of all pairs of values, float64 [K, K] each, and the p of their mean."""
    count = grid.shape[1]
    distance, peak, p = np.zeros((count, count)), np.zeros((count, count)), np.ones((count, count))
    places = [(a, b) for a in range(count) for b in range(a + 1, count)]
    if not places:
        return distance, peak, p, 1.0
    beyond = []
    for a, b in places:
        change = grid[:, a] - grid[:, b]
        each = _rms(change)
        distance[a, b] = distance[b, a] = each.mean()
        peak[a, b] = peak[b, a] = float(change.abs().max())
        beyond.append(each - repeats)
    every = np.stack([*beyond, np.mean(beyond, axis=0)], 1)
    found = larger_p(every, rng)
    corrected = adjusted(found[:-1])
    for (a, b), value in zip(places, corrected, strict=True):
        p[a, b] = p[b, a] = value
    return distance, peak, p, float(found[-1])


def larger_p(differences: Rows, rng: np.random.Generator, draws: int = FLIPS) -> Rows:
    """One-sided p that paired differences [N, P] are above zero, their signs flipped at random: float64 [P]."""
    signs = rng.integers(0, 2, (draws, len(differences))) * 2.0 - 1.0
    observed = differences.sum(0)
    return np.asarray((1 + (signs @ differences >= observed - 1e-12 * np.abs(differences).sum(0)).sum(0)) / (draws + 1))


def variance_shares(grid: Tensor, rng: np.random.Generator) -> Shares:
    """Components of variance of a two-way layout without replication, [M, K, ...] latents by values, summed over pixels.

    From the mean squares, as for random effects: condition = (MS_k − MS_mk) / M, z = (MS_m − MS_mk) / K, both = MS_mk (Searle,
    Casella & McCulloch 1992, ch. 4); those below 0 count as 0.
    """
    m, k = grid.shape[:2]
    flat = grid.reshape(m * k, -1)
    flat = (flat - flat.mean(0)).double()
    gram = np.asarray((flat @ flat.T).numpy())
    rows = np.repeat(np.eye(m), k, axis=0)
    columns = np.tile(np.eye(k), (m, 1))

    def between(members: Rows) -> float:
        return float(((gram @ members) * members).sum() / members[:, 0].sum())

    total, by_z, by_value = float(np.trace(gram)), between(rows), between(columns)
    if total <= 1e-12 * flat.numel():
        return Shares(0.0, 0.0, 0.0, 1.0)
    left = max(0.0, total - by_z - by_value) / max((m - 1) * (k - 1), 1)
    parts = [(by_value / max(k - 1, 1) - left) / m, (by_z / max(m - 1, 1) - left) / k, left]
    clipped = np.maximum(parts, 0.0)
    reached = 0
    for _ in range(SHUFFLES):
        order = np.concatenate([row * k + rng.permutation(k) for row in range(m)])
        reached += between(columns[order]) >= by_value - 1e-9 * total
    condition, z, both = (float(part) for part in clipped / max(clipped.sum(), 1e-300))
    return Shares(condition, z, both, (1 + reached) / (SHUFFLES + 1))
