"""Is the output a function of the input's content: does it merely copy, does it ignore?

found = follows(session, pictures)
found.copies, found.ignores              # (False, False) of a translator that works
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gandissect.metrics import bootstrap_weights, middle
from gandissect.properties import gradient_energy, luminance
from gandissect.session import Session
from gandissect.trust import interval
from gandissect_plugins.conditions import larger_p
from gandissect_plugins.geometry.means import mean_interval

from .pictures import LEVEL, Pictures, again, rms, to_input

Rows = NDArray[np.float64]
GRID = 16
SHUFFLES = 999
AGAIN = 16
BOOTSTRAP = 1000
RATE = 0.05
SURE = 0.001
FAINT = 0.1


@dataclass(frozen=True)
class Follows:
    """Distances are root mean square over pixels in [-1, 1]; x' is another input of the same set.

    Attributes:
        own: float64 [N], from x to its output G(x).
        other: float64 [N], from x' to G(x).
        apart_in: float64 [N], from x to x'; ``apart_out`` from G(x) to G(x').
        repeats: float64 [M], between two runs of one input.
        peak: the largest difference of one pixel between G(x) and G(x').
        varies_p: that outputs of different inputs differ more than two runs of one.
        ratio: own over other, with its interval: 0 for a copy, 1 where the output has nothing of its own input.
        mantel: correlation of the distances between inputs with those between outputs, and its p.
        matched: outputs whose own input is the likest of all inputs, of ``tried``; ``matched_p`` that chance gives as many.
        local: share of an output's squared change that lies in the quarter of the input that was swapped, 0.25 where place means
            nothing, and the p that it is above that.
    """

    own: Rows
    other: Rows
    apart_in: Rows
    apart_out: Rows
    repeats: Rows
    peak: float
    varies_p: float
    ratio: tuple[float, float, float]
    mantel: tuple[float, float]
    matched: int
    tried: int
    matched_p: float
    local: tuple[float, float]

    @property
    def copies(self) -> bool:
        """The output differs from its input by less than one grey level on average, and inputs from each other by more."""
        return float(self.own.mean()) < LEVEL < float(self.apart_in.mean()) and self.ratio[2] < 0.1

    @property
    def noisy(self) -> bool:
        """The translator gives another picture when it is run again."""
        return bool(self.repeats.max() > LEVEL / 2)

    @property
    def ignores(self) -> bool:
        """Another input changes no pixel by half a grey level or, of a translator with noise, no more than another run."""
        return self.peak <= LEVEL / 2 or (self.noisy and self.varies_p >= SURE)

    @property
    def unrelated(self) -> bool:
        """Outputs differ, but their own input is not the likest, like inputs do not have like outputs, and place is lost."""
        few = interval(self.matched, self.tried)[1] < 0.25
        return not self.ignores and few and min(self.matched_p, self.mantel[1], self.local[1]) >= RATE

    @property
    def faint(self) -> bool:
        """Other inputs change the output by less than a tenth of what they differ by, and the change does not tell which it was."""
        answer = mean_interval(self.apart_out / np.maximum(self.apart_in, 1e-12))[2]
        few = interval(self.matched, self.tried)[1] < 0.25
        return not self.ignores and answer < FAINT and few and self.matched_p >= RATE


def follows(session: Session, seen: Pictures) -> Follows:
    """Inputs are swapped with the next one of the set, for all tests alike."""
    from scipy.stats import binomtest
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    before, outputs = seen.before, seen.outputs
    count = min(AGAIN, len(outputs))
    order = torch.arange(count).flip(0)  # elsewhere in its block than the first time
    repeats = _rows(again(session, seen.latents[:count][order], order.tolist())[order] - outputs[:count])
    own, other = _rows(outputs - before), _rows(outputs - before.roll(1, 0))
    change = outputs - outputs.roll(1, 0)
    apart_out = _rows(change)
    rng = session.rng("translation: follows")
    small = min(len(outputs), 100)
    with threadpool_limits(limits=1):
        likest = likeness(before[:small], outputs[:small]).argmax(1)
        matched = int((likest == np.arange(small)).sum())
        beyond = apart_out[:count] - repeats
        weights = bootstrap_weights(len(own), BOOTSTRAP, rng)
        replicates = (weights @ own) / np.maximum(weights @ other, 1e-12)
        low, high = middle(replicates)
        return Follows(
            own,
            other,
            _rows(before - before.roll(1, 0)),
            apart_out,
            repeats,
            float(change.abs().max()),
            float(larger_p(beyond[:, None], rng)[0]),
            (float(own.mean() / max(other.mean(), 1e-12)), float(low), float(high)),
            mantel(_flat(before[:small]), _flat(outputs[:small]), rng),
            matched,
            small,
            float(binomtest(matched, small, 1 / small, alternative="greater").pvalue),
            locality(session, seen, rng),
        )


def locality(session: Session, seen: Pictures, rng: np.random.Generator) -> tuple[float, float]:
    """A quarter of each input, each of the four in turn, comes from the next input: (share of the change there, p).

    Returns:
        the mean share of the output's squared change that lies in that quarter, and its one-sided p against a quarter (signs
        flipped at random over pictures).
    """
    latent, count = session.gan.generator.latent, min(AGAIN, len(seen.outputs))
    inputs, outputs = seen.inputs[:count], seen.outputs[:count]
    shown, counted = (_quarters(len(part), tuple(part.shape[2:])) for part in (inputs, outputs))
    mixed = torch.where(shown, inputs.roll(1, 0), inputs)
    change = (again(session, to_input(mixed, latent)) - outputs).double().square()
    total, inside = change.sum((1, 2, 3)), (change * counted).sum((1, 2, 3))
    share = torch.where(total > 0, inside / total.clamp(min=1e-300), 0.25).numpy()
    return float(share.mean()), float(larger_p((share - 0.25)[:, None], rng)[0])


def _quarters(count: int, size: tuple[int, ...]) -> Tensor:
    """A different quarter for each of four pictures after the other: bool [N, 1, H, W]."""
    rows, columns = (torch.arange(side) >= side // 2 for side in size)
    return torch.stack(
        [(rows[:, None] == (place % 4 > 1)) & (columns[None] == (place % 2 > 0)) for place in range(count)]
    )[:, None]


def likeness(inputs: Tensor, outputs: Tensor) -> Rows:
    """How alike output i and input j are in what is where, whatever the colours: float64 [N, N] in 0..1.

    The absolute correlation of the luminance, averaged with that of its gradients, both on a grid of at most 16×16: a
    negative or a line drawing is as like its original as a copy.
    """
    parts = []
    for view in (luminance, lambda pictures: gradient_energy(pictures).sqrt()):
        first, second = (_standard(_flat(view(part))) for part in (outputs, inputs))
        parts.append(np.abs(first @ second.T))
    return np.asarray(np.mean(parts, axis=0))


def mantel(first: Rows, second: Rows, rng: np.random.Generator) -> tuple[float, float]:
    """Pearson's r of the pairwise distances of two sets of rows [N, D], and its one-sided p under permuted rows (Mantel 1967)."""
    from scipy.spatial.distance import pdist, squareform

    one, two = (squareform(pdist(rows)) for rows in (first, second))
    upper = np.triu_indices(len(one), 1)
    flat = one[upper] - one[upper].mean()
    scale = np.linalg.norm(flat) * np.linalg.norm(two[upper] - two[upper].mean())
    if scale <= 1e-12:
        return 0.0, 1.0
    orders = [rng.permutation(len(two)) for _ in range(SHUFFLES)]
    chance = np.array([flat @ two[np.ix_(order, order)][upper] for order in orders]) / scale
    r = float(flat @ two[upper] / scale)
    return r, float((1 + (chance >= r - 1e-12).sum()) / (SHUFFLES + 1))


def _flat(pictures: Tensor) -> Rows:
    side = (min(GRID, pictures.shape[2]), min(GRID, pictures.shape[3]))
    return np.asarray(F.adaptive_avg_pool2d(pictures, side).flatten(1).double().numpy())


def _standard(rows: Rows) -> Rows:
    centred = rows - rows.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-9))


def _rows(difference: Tensor) -> Rows:
    return np.asarray(rms(difference).numpy())
