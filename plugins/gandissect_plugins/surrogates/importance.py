"""Which features a model's predictions rest on, measured in three ways, each beside a model of a permuted target.

found = importances(model, rows, truth, groups, rng)
found.values["shapley"], found.null["shapley"]           # float64 [G], the largest that chance gives
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from .evidence import Matrix
from .heldout import Vector, r_squared
from .models import Linear, Model

WAYS = ("permutation", "ablation", "shapley")
REPEATS = 5
REFITS = 19
EXPLAINED = 100
BACKGROUND = 10
Groups = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Importances:
    """Importance of G groups of features in three ways.

    Attributes:
        values: way -> float64 [G]. Permutation and ablation are losses of held-out R², Shapley is the mean magnitude of a
            group's share in a prediction, in standard deviations of the target.
        errors: way -> float64 [G], standard errors: over repeats, over held-out samples, over the background.
        null: way -> the largest value of any group in ``REFITS`` models of a permuted target.
        agreement: mean Spearman's ρ of the three rankings, −1..1; 0 for a single group.
    """

    values: Mapping[str, Vector]
    errors: Mapping[str, Vector]
    null: Mapping[str, float]
    agreement: float

    @property
    def order(self) -> list[int]:
        """Groups by their mean rank in the three ways, most important first."""
        from scipy.stats import rankdata

        ranks = [rankdata(-self.values[way].clip(0)) for way in WAYS]
        return [int(i) for i in np.argsort(np.mean(ranks, 0), kind="stable")]

    def beyond(self, group: int) -> bool:
        """All three are larger than those of any group in all models of a permuted target: family-wise p = 0.05."""
        return all(self.values[way][group] > self.null[way] for way in WAYS)


def importances(
    model: Model, rows: Matrix, truth: Vector, groups: Groups, background: Matrix, rng: np.random.Generator
) -> Importances:
    """All three for held-out ``rows`` [N, F] with target ``truth`` [N].

    The null refits the model to a permuted target and measures it on permuted held-out targets, with one repeat each; the largest
    value over all groups and refits bounds what chance gives (Westfall & Young 1993).

    Args:
        model: fitted to other samples.
        rows: held-out features, float64 [N, F].
        truth: float64 [N].
        groups: columns that are permuted, left out and credited together.
        background: float64 [M, F], training samples: what a feature is replaced by in Shapley's game.
        rng: permutes.
    """
    places = np.sort(rng.permutation(len(background))[:BACKGROUND])
    game = rows[:EXPLAINED], background[places]
    values, errors = _three(model, rows, truth, groups, game, rng, REPEATS)
    null = dict.fromkeys(WAYS, 0.0)
    for _ in range(REFITS):
        chance = model.refitted(rng.permutation(model.target))
        found, _unused = _three(chance, rows, rng.permutation(truth), groups, game, rng, 1)
        null = {way: max(null[way], float(found[way].max(initial=0))) for way in WAYS}
    return Importances(values, errors, null, agreement(values))


def _three(
    model: Model,
    rows: Matrix,
    truth: Vector,
    groups: Groups,
    game: tuple[Matrix, Matrix],
    rng: np.random.Generator,
    repeats: int,
) -> tuple[dict[str, Vector], dict[str, Vector]]:
    spread = float(model.target.std()) or 1.0
    shares, uncertain = shapley(model, *game, groups, rng)
    found = {
        "permutation": permutation(model, rows, truth, groups, rng, repeats),
        "ablation": ablation(model, rows, truth, groups),
        "shapley": (np.abs(shares).mean(0) / spread, uncertain.mean(0) / spread),
    }
    return {way: pair[0] for way, pair in found.items()}, {way: pair[1] for way, pair in found.items()}


def permutation(
    model: Model, rows: Matrix, truth: Vector, groups: Groups, rng: np.random.Generator, repeats: int = REPEATS
) -> tuple[Vector, Vector]:
    """Loss of R² when a group's columns are permuted over the samples, and its standard error: float64 [G] each.

    References:
        Breiman 2001, Random Forests, sec. 10.
    """
    base = _r_squared(truth, model.predict(rows))
    losses = np.zeros((repeats, len(groups)))
    for loss in losses:
        shuffled, moved = rows[rng.permutation(len(rows))], rows.copy()
        for place, group in enumerate(groups):
            if model.used.isdisjoint(group):
                continue
            moved[:, group] = shuffled[:, group]
            loss[place] = base - _r_squared(truth, model.predict(moved))
            moved[:, group] = rows[:, group]
    error = losses.std(0, ddof=1) / np.sqrt(repeats) if repeats > 1 else np.zeros(len(groups))
    return np.asarray(losses.mean(0), np.float64), np.asarray(error, np.float64)


def ablation(model: Model, rows: Matrix, truth: Vector, groups: Groups) -> tuple[Vector, Vector]:
    """Loss of R² when the model is fitted again without a group, and its standard error over the samples: float64 [G] each."""
    whole = (truth - model.predict(rows)) ** 2
    loss, error = np.zeros(len(groups)), np.zeros(len(groups))
    scale = float(truth.var()) or 1.0
    for place, group in enumerate(groups):
        if not model.used.isdisjoint(group):
            more = ((truth - model.without(group).predict(rows)) ** 2 - whole) / scale
            loss[place], error[place] = more.mean(), more.std() / np.sqrt(len(rows))
    return loss, error


def shapley(
    model: Model, rows: Matrix, background: Matrix, groups: Groups, rng: np.random.Generator
) -> tuple[Matrix, Matrix]:
    """Each group's share in each prediction, and its standard error over the background: float64 [N, G] each.

    The worth of a coalition is the mean prediction when all other groups have the values of a background sample (interventional
    Shapley values, Štrumbelj & Kononenko 2014). Linear models have a closed form without error. Else Captum samples: one random order
    of the groups for each background sample (Castro et al. 2009). Either way the shares of a sample add up to its prediction minus the
    mean prediction of the background.

    Args:
        model: asked.
        rows: float64 [N, F].
        background: float64 [M, F].
        groups: of columns, each column in one of them.
        rng: orders.
    """
    if isinstance(model, Linear):
        each = (rows - background.mean(0)) * model.weights
        exact = np.stack([each[:, group].sum(1) for group in groups], 1)
        return exact, np.zeros_like(exact)
    from captum.attr import ShapleyValueSampling

    used = [place for place, group in enumerate(groups) if not model.used.isdisjoint(group)]
    shares = np.zeros((len(background), len(rows), len(groups)))
    mask = torch.full((1, rows.shape[1]), len(used))
    for number, place in enumerate(used):
        mask[0, list(groups[place])] = number

    def predict(asked: Tensor) -> Tensor:
        return torch.from_numpy(model.predict(asked.numpy()))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        for share, row in zip(shares, background, strict=True):
            if used:
                game = ShapleyValueSampling(predict).attribute(
                    torch.from_numpy(rows), baselines=torch.from_numpy(row[None]), feature_mask=mask, n_samples=1
                ).numpy()  # fmt: skip
                share[:, used] = np.stack([game[:, groups[place][0]] for place in used], 1)
    error = shares.std(0, ddof=1) / np.sqrt(len(background)) if len(background) > 1 else np.zeros(shares.shape[1:])
    return np.asarray(shares.mean(0), np.float64), np.asarray(error, np.float64)


def agreement(values: Mapping[str, Vector]) -> float:
    """Mean Spearman's ρ of the pairs of ways, over the groups to which any of them gives something; 0 where there is but one."""
    from scipy.stats import spearmanr

    some = np.any([np.abs(values[way]) > 0 for way in WAYS], axis=0)
    if some.sum() < 2:
        return 0.0
    pairs = [spearmanr(values[a][some], values[b][some]).statistic for a, b in combinations(WAYS, 2)]
    return float(np.nan_to_num(pairs).mean())


def _r_squared(truth: Vector, guess: Vector) -> float:
    return float(r_squared(truth[None], guess[None])[0])
