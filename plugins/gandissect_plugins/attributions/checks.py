"""Checks of an explanation that need no ground truth: paired differences, rank correlation, shuffled weights.

gain = paired(drop_top - drop_random, rng)          # mean, 95 % interval, p by sign flips
with shuffled_weights(module, rng):                 # every weight in another place, for the block
    ...
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gandissect.wording import p_value

EXACT_UP_TO = 12
T975 = (12.706, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281)
FLIPS = 4999
SIMILAR = 0.5
"""Mean |rank correlation| with maps of shuffled weights from which on a map is said to ignore what was learned."""


@dataclass(frozen=True)
class Paired:
    """A mean paired difference: its 95 % t interval and the one-sided p that it is above 0 by flipping signs."""

    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def clear(self) -> bool:
        """p < 0.05, and the interval lies above 0."""
        return self.p < 0.05 and self.low > 0

    def __str__(self) -> str:
        return f"{self.mean:.3g} (CI {self.low:.3g} to {self.high:.3g}, {p_value(self.p)})"


def paired(differences: Tensor, rng: np.random.Generator) -> Paired:
    """Mean, interval and sign-flip p of paired ``differences`` float [N]; p is exact for N ≤ 12."""
    values = differences.double().cpu().numpy()
    n = len(values)
    mean = float(values.mean()) if n else 0.0
    if n < 2:
        return Paired(mean, -np.inf, np.inf, 1.0, n)
    half = _t975(n - 1) * float(values.std(ddof=1)) / n**0.5
    if n <= EXACT_UP_TO:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        flipped = ((1 - 2 * bits) * values).mean(1)
        p = float((flipped >= mean - 1e-12 * abs(mean)).mean())
    else:
        flipped = (rng.choice([-1.0, 1.0], (FLIPS, n)) * values).mean(1)
        p = (1 + int((flipped >= mean - 1e-12 * abs(mean)).sum())) / (1 + FLIPS)
    return Paired(mean, mean - half, mean + half, p, n)


def _t975(freedom: int) -> float:
    """97.5 % point of Student's t: from the table up to 10 degrees of freedom, then by the Cornish-Fisher expansion."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    z, v = 1.959964, float(freedom)
    return z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of each row of two float [N, …]: float64 [N]; 0 for constant rows."""
    pairs = zip(first.double().flatten(1), second.double().flatten(1), strict=True)
    return torch.stack([_pearson(a, b) for a, b in pairs]) if len(first) else torch.zeros(0, dtype=torch.float64)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of each row of two float [N, …]: float [N]; ties share their mean rank, 0 for constant rows."""
    pairs = zip(first.flatten(1), second.flatten(1), strict=True)
    return torch.stack([_pearson(_ranks(a), _ranks(b)) for a, b in pairs]) if len(first) else torch.zeros(0)


def _ranks(row: Tensor) -> Tensor:
    _, places, counts = torch.unique(row.double(), return_inverse=True, return_counts=True)
    means: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return means[places]


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return (a * b).sum() / scale if scale > 0 else torch.zeros((), dtype=a.dtype)


def exceeds(observed: float, null: Sequence[float]) -> float:
    """p of ``observed`` among draws of its null: (1 + how many are not below it) / (1 + draws); NaN counts against it."""
    return (1 + sum(not value < observed for value in null)) / (1 + len(null))


def beyond(observed: float, null: Sequence[float]) -> float:
    """p of ``observed`` as one more draw of its null, which is taken for normal where ``observed`` is above all of it.

    The rank among m draws cannot fall below 1 / (m + 1); the prediction interval of a normal sample can (Student's t with m − 1 degrees
    of freedom).
    """
    from scipy.stats import t

    rank, spread = exceeds(observed, null), float(np.std(null, ddof=1))
    if rank > 1 / (1 + len(null)) or len(null) < 3 or not spread > 0:
        return rank
    score = (observed - float(np.mean(null))) / (spread * (1 + 1 / len(null)) ** 0.5)
    return float(t.sf(score, len(null) - 1))


@contextmanager
def shuffled_weights(
    module: nn.Module, rng: np.random.Generator, run: Callable[[], object] | None = None
) -> Generator[None]:
    """Each parameter tensor with its values in random places, for the block; the very same storage is back afterwards.

    A null for "this was learned": a network whose weights are independent draws is as likely as its shuffled copies.
    Spectral norms are estimated anew by ``run``, which calls the network.

    References:
        Adebayo et al. 2018, Sanity Checks for Saliency Maps, section 3 (here all layers at once).
    """
    kept = [(tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers())]
    norms = [(part, part.training) for part in module.modules() if _normalises_spectrum(part)]
    try:
        for parameter in module.parameters():
            order = torch.from_numpy(rng.permutation(parameter.numel())).to(parameter.device)
            parameter.data = parameter.data.flatten()[order].reshape(parameter.shape)
        for buffer in module.buffers():
            buffer.data = buffer.data.clone()
        if norms and run is not None:
            _settle(norms, run)
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def _normalises_spectrum(part: nn.Module) -> bool:
    return hasattr(part, "weight_u") or "SpectralNorm" in type(part).__name__


def _settle(norms: list[tuple[nn.Module, bool]], run: Callable[[], object]) -> None:
    """Let power iterations converge on the shuffled weights."""
    try:
        for part, _ in norms:
            part.training = True
        with torch.no_grad():
            for _ in range(8):
                run()
    finally:
        for part, training in norms:
            part.training = training


def differing_places(
    maps: Tensor, count: int, rng: np.random.Generator, *, magnitude: bool = False
) -> tuple[Tensor, Tensor]:
    """(highest, random) cells of each map float [N, h, w]: two bool [N, h, w] with ``count`` cells each."""
    flat = (maps.abs() if magnitude else maps).flatten(1)
    chance = torch.from_numpy(rng.random(flat.shape)).to(flat.device)
    return _largest(flat, count).view_as(maps), _largest(chance, count).view_as(maps)


def _largest(rows: Tensor, count: int) -> Tensor:
    chosen = rows.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, chosen, torch.ones_like(chosen, dtype=torch.bool))
