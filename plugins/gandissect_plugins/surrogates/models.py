"""Models simple enough to be read: a small decision tree, a linear fit. Both can be fitted again without some features.

model = fit_linear(rows, target)
model.without((3,)).predict(rows)                        # as if feature 3 had never been measured
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .evidence import Matrix
from .heldout import Flags, Vector

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

PENALTIES = tuple(10.0**power for power in np.arange(-1.5, 2.01, 0.5))
"""Of each training sample: none so small that features which go together get large weights that cancel."""
DEPTHS = (1, 2, 3, 4)
LEAVES = (0.03, 0.1)
SMALLEST_LEAF = 5
FOLDS = 4
PRUNINGS = 6


class Model(Protocol):
    """What importance is asked of: a fit to training samples that it still knows."""

    @property
    def target(self) -> Vector | Flags:
        """What it was fitted to, [n]."""
        ...

    def predict(self, rows: Matrix) -> Vector:
        """Predictions float64 [N] for features [N, F]."""
        ...

    def without(self, columns: Sequence[int]) -> Model:
        """The same kind of fit to the same samples, as if these features had not been measured."""
        ...

    def refitted(self, target: Vector | Flags) -> Model:
        """The same kind of fit to another target [n] of the same training samples."""
        ...

    @property
    def used(self) -> frozenset[int]:
        """Features that predictions depend on."""
        ...


@dataclass(frozen=True)
class Linear:
    """Ridge regression on standardised features.

    Attributes:
        rows: float64 [n, F], the training samples.
        target: float64 [n].
        penalty: of the squared weights.
        inner: R² by leaving out one training sample at a time; what models of one target are chosen by.
        dropped: features whose weights are held at 0.
    """

    rows: Matrix
    target: Vector
    penalty: float
    inner: float = 0.0
    dropped: tuple[int, ...] = ()

    @cached_property
    def scales(self) -> tuple[Vector, Vector]:
        """Mean and standard deviation of each feature; infinite for those that do not vary."""
        deviation = self.rows.std(0)
        return self.rows.mean(0), np.where(deviation > 1e-12, deviation, np.inf)

    @cached_property
    def standard(self) -> Matrix:
        """The training samples with means 0 and deviations 1."""
        return np.asarray((self.rows - self.scales[0]) / self.scales[1], np.float64)

    @cached_property
    def inverse(self) -> Matrix:
        """(XᵀX + λI)⁻¹ of the standardised features: float64 [F, F]."""
        x = self.standard
        return np.asarray(np.linalg.inv(x.T @ x + self.penalty * np.eye(x.shape[1])), np.float64)

    @cached_property
    def whole(self) -> Vector:
        """Weights of the standardised features with none dropped, float64 [F]."""
        return np.asarray(self.inverse @ (self.standard.T @ (self.target - self.target.mean())), np.float64)

    @cached_property
    def weights(self) -> Vector:
        """Of the features as they are, float64 [F]."""
        whole = self.whole
        if self.dropped:
            # the minimum under w_G = 0 (Lagrange): w − A⁻¹[:, G] (A⁻¹[G, G])⁻¹ w_G
            gone = list(self.dropped)
            inner = self.inverse[np.ix_(gone, gone)]
            whole = whole - self.inverse[:, gone] @ np.linalg.solve(inner, whole[gone])
            whole[gone] = 0.0
        return np.asarray(whole / self.scales[1], np.float64)

    @cached_property
    def offset(self) -> float:
        """The prediction where all features are 0."""
        return float(self.target.mean() - self.scales[0] @ self.weights)

    @property
    def used(self) -> frozenset[int]:
        return frozenset(range(self.rows.shape[1])) - set(self.dropped)

    def predict(self, rows: Matrix) -> Vector:
        """Float64 [N] for features [N, F]."""
        return np.asarray(rows @ self.weights + self.offset, np.float64)

    def without(self, columns: Sequence[int]) -> Linear:
        """Fitted anew without some features; exact, from the same inverse."""
        other = self._sharing(replace(self, dropped=tuple(sorted({*self.dropped, *columns}))))
        other.__dict__["whole"] = self.whole
        return other

    def refitted(self, target: Vector | Flags) -> Linear:
        """Fitted to another target with the same penalty."""
        return self._sharing(replace(self, target=np.asarray(target, np.float64)))

    def _sharing(self, other: Linear) -> Linear:
        other.__dict__.update(scales=self.scales, standard=self.standard, inverse=self.inverse)
        return other


def fit_linear(rows: Matrix, targets: Matrix) -> list[Linear]:
    """Ridge regressions of ``targets`` [n, T] on ``rows`` [n, F]; each has the penalty of the least leave-one-out error."""
    from sklearn.linear_model import RidgeCV

    n, deviation, spread = len(rows), rows.std(0), targets.std(0)
    standard = (rows - rows.mean(0)) / np.where(deviation > 1e-12, deviation, np.inf)
    scaled = (targets - targets.mean(0)) / np.where(spread > 1e-12, spread, np.inf)
    chosen = RidgeCV(alphas=[n * penalty for penalty in PENALTIES], alpha_per_target=True).fit(standard, scaled)
    told = zip(targets.T, np.atleast_1d(chosen.alpha_), np.atleast_1d(chosen.best_score_), strict=True)
    return [Linear(rows, target, float(penalty), 1 + float(score)) for target, penalty, score in told]


@dataclass(frozen=True)
class Tree:
    """A decision or regression tree.

    Attributes:
        rows: float64 [n, F], the training samples.
        target: float64 [n], or bool [n] for a tree that decides.
        estimator: fitted to them.
        inner: its score in cross-validation (balanced accuracy, R²).
    """

    rows: Matrix
    target: Vector | Flags
    estimator: DecisionTreeClassifier | DecisionTreeRegressor
    inner: float = 0.0

    @property
    def used(self) -> frozenset[int]:
        return frozenset(int(i) for i in self.estimator.tree_.feature if i >= 0)

    def predict(self, rows: Matrix) -> Vector:
        """Float64 [N] for features [N, F]; decisions are 0 or 1."""
        return np.asarray(self.estimator.predict(rows), np.float64)

    def without(self, columns: Sequence[int]) -> Tree:
        """Grown anew, with the same settings, without some features."""
        return self._grown(self.target, columns, self.estimator.ccp_alpha)

    def refitted(self, target: Vector | Flags) -> Tree:
        """Grown on another target with the same depth and leaves; not pruned, so that chance has its full say."""
        return self._grown(target, (), 0.0)

    def _grown(self, target: Vector | Flags, columns: Sequence[int], pruning: float) -> Tree:
        from sklearn.base import clone

        rows = self.rows.copy()
        rows[:, list(columns)] = 0.0
        return replace(
            self, target=target, estimator=clone(self.estimator).set_params(ccp_alpha=pruning).fit(rows, target)
        )


def fit_tree(rows: Matrix, target: Vector | Flags) -> Tree:
    """The tree for ``target`` [n] (bool for decisions, else numbers) of features ``rows`` [n, F].

    Depth and leaf size are those with the best score (balanced accuracy, R²) in cross-validation over four folds. The tree is then
    pruned by cost and complexity: of the prunings that are within one standard error of the best, the smallest tree is taken.

    References:
        Breiman, Friedman, Olshen, Stone 1984, Classification and Regression Trees, sec. 3.3 and 3.4.3.
    """
    from sklearn.model_selection import GridSearchCV
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    decides = target.dtype == np.bool_
    deciding, regressing = (
        DecisionTreeClassifier(random_state=0, class_weight="balanced"),
        DecisionTreeRegressor(random_state=0),
    )
    bare = deciding if decides else regressing
    scoring = "balanced_accuracy" if decides else "r2"
    leaves = sorted({max(SMALLEST_LEAF, round(share * len(rows))) for share in LEAVES})
    folds = min(FOLDS, int(min(target.sum(), len(target) - target.sum()))) if decides else FOLDS
    grid = {"max_depth": list(DEPTHS), "min_samples_leaf": leaves}
    search = GridSearchCV(bare, grid, cv=folds, scoring=scoring).fit(rows, target)
    alphas = np.unique(search.best_estimator_.cost_complexity_pruning_path(rows, target).ccp_alphas.clip(min=0))
    some = alphas[np.unique(np.linspace(0, len(alphas) - 1, PRUNINGS).round().astype(int))]
    pruned = GridSearchCV(search.best_estimator_, {"ccp_alpha": some.tolist()}, cv=folds, scoring=scoring)
    told = pruned.fit(rows, target).cv_results_
    mean, error = np.asarray(told["mean_test_score"]), np.asarray(told["std_test_score"]) / np.sqrt(folds)
    best = int(mean.argmax())
    chosen = int(np.flatnonzero(mean >= mean[best] - error[best])[-1])
    final = search.best_estimator_.set_params(ccp_alpha=float(some[chosen])).fit(rows, target)
    return Tree(rows, target, final, float(mean[chosen]))
