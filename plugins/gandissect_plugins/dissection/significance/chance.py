"""What chance explains: overlaps of units with the masks of other samples, p-values, and false-discovery control.

null = shuffled_overlaps(active, areas, rng=rng, draws=999)         # float32 [P, U, K]
p_values(observed, null)                                             # float64 [U, K]
benjamini_hochberg(p)                                                # float64, same shape
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from gandissect.trust import adjusted

from ..counting.active import BLOCK, Active, ActiveCells

_BYTES = 96 * 2**20  # of pairs of samples, and of gathered areas, held at once
_CELLS = 64  # of a map transformed together
_TOP = 4096  # pooled null scores kept per concept


def shuffled_overlaps(active: Active, areas: Tensor, *, rng: np.random.Generator, draws: int) -> Tensor:
    """Overlaps with the masks of other samples: float32 [P, U, K].

    P is ``draws`` where that is below n − 1, else the least multiple of n − 1 that is at least ``draws``.

    Samples are put in random order, cut into equal cohorts of g samples (as many as leave g > ``draws``; one where n has no
    such divisor), and the masks are shifted along each cohort, all by the same 1 … g − 1 places: every sample meets the masks
    of another one in the same cells, so how often a concept occurs and where stay as they are. All shifts of one order
    together with no shift are a group of permutations of exchangeable samples, so the rank of the true overlap among
    them, or among a random part of them, is an exact test. The overlaps of all shifts are one cross-correlation
    along the samples, taken through Fourier transforms; or, where that touches fewer numbers (few samples of large maps),
    every sample meets the masks of every other one once and each order adds up those pairs.

    References:
        Phipson & Smyth 2010, Permutation P-values Should Never Be Zero; Hemerik & Goeman 2018, Exact testing with random
        permutations (groups of permutations).
    """
    if active.samples < 2:
        return torch.zeros(0, active.units, areas.shape[2])
    rounds = -(-draws // (active.samples - 1))
    orders = [torch.from_numpy(rng.permutation(active.samples)) for _ in range(rounds)]
    cohort = cohort_size(active.samples, draws)
    chosen = np.sort(rng.permutation(cohort - 1)[:draws]) if draws < cohort - 1 else slice(None)
    if isinstance(active, ActiveCells) and _pairs_pay(active, areas.shape[2], rounds):
        return _shifts_of_pairs(active, areas, orders, cohort)[chosen]
    if rounds == 1:
        return _all_shifts(active, areas, orders[0], cohort)[chosen]
    return torch.cat([_all_shifts(active, areas, order, cohort) for order in orders])


def cohort_size(samples: int, draws: int) -> int:
    """The fewest samples, a divisor of all of them, that have ``draws`` shifts; all where there is no such part."""
    enough = range(draws + 1, samples // 2 + 1)
    return next((size for size in enough if samples % size == 0), samples)


def _pairs_pay(active: ActiveCells, concepts: int, rounds: int) -> bool:
    """Whether :func:`_shifts_of_pairs` touches fewer numbers than a transform for each order."""
    n, both = active.samples, active.units * concepts
    pairs = len(active.unit) * n * concepts + 4 * rounds * n * n * both
    transforms = rounds * active.cells * n * (8 * (active.units + concepts) + both / 2)
    return pairs < transforms


def _shifts_of_pairs(active: ActiveCells, areas: Tensor, orders: Sequence[Tensor], cohort: int) -> Tensor:
    """The overlaps of :func:`_all_shifts` for every order: float32 [rounds * (g - 1), U, K]."""
    n, concepts = active.samples, areas.shape[2]
    by_cell = areas.transpose(0, 1).reshape(active.cells, n * concepts)
    places = torch.arange(n)
    shifted = (places // cohort * cohort)[:, None] + (places[:, None] + torch.arange(1, cohort)) % cohort
    partners = [order[shifted] for order in orders]  # [n, g - 1]
    step = max(1, _BYTES // (8 * n * n * concepts))
    parts = []
    for start in range(0, active.units, step):
        few = active.select(start, min(start + step, active.units))
        pairs = _pairs(few, by_cell).reshape(few.units, n, n, concepts)
        sums = [pairs[:, order[:, None], partner].sum(1) for order, partner in zip(orders, partners, strict=True)]
        parts.append(torch.cat(sums, 1))
    return torch.cat(parts).transpose(0, 1)


def _pairs(active: ActiveCells, by_cell: Tensor) -> Tensor:
    """Area of each concept of each sample under each unit's active cells in each sample: float32 [U * n, n * K]."""
    rows, order = (active.unit.long() * active.samples + active.sample).sort()
    starts = torch.searchsorted(rows, torch.arange(active.units * active.samples))
    return torch.nn.functional.embedding_bag(active.cell[order].long(), by_cell, starts, mode="sum")


def _all_shifts(active: Active, areas: Tensor, order: Tensor, cohort: int) -> Tensor:
    """Overlaps under the shifts 1 … g − 1 along each cohort of ``order``: float32 [g - 1, U, K]."""
    n, units, concepts = active.samples, active.units, areas.shape[2]
    cohorts = n // cohort
    step = max(1, min(active.cells, _CELLS, BLOCK // (4 * n)))
    some = max(1, min(units, BLOCK // (4 * n * step)))
    blocks = active.blocks(order, step, some, cohorts)
    spectrum = torch.zeros(cohort // 2 + 1, units, 2 * concepts)
    for cells in range(0, active.cells, step):
        part = areas[:, cells : cells + step][order].reshape(cohorts, cohort, -1).transpose(0, 1)
        covered = _spectrum(part.flatten(1)).reshape(len(spectrum), -1, concepts)
        paired = _conjugate_products(covered)  # [F, 2 * cells, 2 * K]
        for start in range(0, units, some):
            a = torch.view_as_real(_spectrum(next(blocks))).reshape(len(spectrum), -1, paired.shape[1])
            spectrum[:, start : start + some] += torch.bmm(a, paired)
    whole = torch.view_as_complex(spectrum.reshape(-1, units, concepts, 2))
    shifted: Tensor = torch.fft.irfft(whole, n=cohort, dim=0)[1:].clamp_(min=0)
    return shifted


def _spectrum(rows: Tensor) -> Tensor:
    """Fourier transforms of float32 columns [n, M] along the samples: complex64 [n // 2 + 1, M]."""
    return torch.from_numpy(scipy.fft.rfft(rows.numpy(), axis=0))


def _conjugate_products(covered: Tensor) -> Tensor:
    """Real matrices [F, 2 * cells, 2 * K] whose products with (real, imaginary) pairs a are conj(a) · covered [F, cells, K]."""
    turned = torch.stack([covered, -1j * covered], 2)  # rows of the real and of the imaginary part of a
    return torch.view_as_real(turned).flatten(1, 2).flatten(2)


def p_values(observed: Tensor, null: Tensor) -> Tensor:
    """How often chance does at least as well: float64 [U, K].

    The rank of each pair among its own shuffles; where none of them reaches it, the rank of its standardised overlap among
    those of all units of the layer with the same concept, which resolves smaller p-values (a pooled null, Storey &
    Tibshirani 2003).

    Args:
        observed: float64 [U, K].
        null: float32 [P, U, K].
    """
    draws, units = null.shape[:2]
    slack = 1e-4 * observed.clamp(min=1.0)  # rounding of the transforms, on the side of chance
    reached = (null >= (observed - slack).float()).sum(0)
    own = (1.0 + reached.double()) / (draws + 1.0)
    if not draws or not units:
        return own
    mean, spread = null.mean(0), null.std(0, correction=0).clamp(min=1e-3)
    pooled = ((null - mean) / spread).transpose(1, 2).reshape(draws, -1, units).transpose(0, 1).flatten(1)  # [K, P*U]
    top = pooled.topk(min(_TOP, pooled.shape[1]), dim=1).values.flip(1).contiguous()
    score = ((observed - slack).float() - mean) / spread
    above = top.shape[1] - torch.searchsorted(top, score.T.contiguous())
    shared = (1.0 + above.T.double()) / (pooled.shape[1] + 1.0)
    full = above.T.ge(top.shape[1])  # more than were kept: the pool resolves nothing here
    return torch.where((reached == 0) & ~full, torch.minimum(own, shared), own)


def benjamini_hochberg(p: Tensor) -> Tensor:
    """The false-discovery rate at which each test would just pass: float64, same shape; NaN entries are no tests.

    References:
        Benjamini & Hochberg 1995, Controlling the False Discovery Rate, eq. 1.
    """
    flat = p.flatten().double()
    tests = ~flat.isnan()
    out = torch.full_like(flat, float("nan"))
    out[tests] = torch.from_numpy(adjusted(flat[tests].numpy()))
    return out.reshape(p.shape)
