"""A tree as rules in words, each tested on samples that the tree has not seen.

for rule in read_rules(tree, features, held_out_rows, held_out_target):
    print(rule.words, rule.right, rule.count)            # "sky is over 31 % of the picture", 68, 82
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gandissect.blocks import Code, Graph, Node
from gandissect.trust import adjusted, exact_p

from .evidence import Features, Matrix
from .heldout import Flags, Vector
from .models import Tree

SURE = 0.01
ABREAST = 3
"""Leaves of a tree that fit on a page side by side."""


@dataclass(frozen=True)
class Condition:
    """A feature, a threshold, and on which side of it."""

    feature: int
    threshold: float
    above: bool

    def holds(self, rows: Matrix) -> Flags:
        """Bool [N] for features [N, F], compared in single precision as the tree does."""
        over = rows[:, self.feature].astype(np.float32) > self.threshold
        return np.asarray(over if self.above else ~over, bool)


@dataclass(frozen=True)
class Branch:
    """A node of the tree.

    Attributes:
        conditions: from the root to it, the last one its own; none for the root.
        value: mean of the target among the training samples, both decisions weighted alike.
        children: none for a leaf.
    """

    conditions: tuple[Condition, ...]
    value: float
    children: tuple[Branch, ...] = ()

    def leaves(self) -> Iterator[Branch]:
        """Those under it, from left to right."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def nodes(self) -> Iterator[Branch]:
        """It and all under it, parents first."""
        yield self
        for child in self.children:
            yield from child.nodes()

    def holds(self, rows: Matrix) -> Flags:
        """Which samples [N, F] get here: bool [N]."""
        met = [condition.holds(rows) for condition in self.conditions]
        return np.asarray(np.logical_and.reduce(met) if met else np.ones(len(rows), bool))


@dataclass(frozen=True)
class Rule:
    """A leaf of a tree that decides.

    Attributes:
        words: its conditions.
        yes: what it decides.
        right, count: held-out samples that it decides rightly, and all that it decides.
        base: share of the held-out samples for which that decision is right, whatever the conditions.
        p: that as many are right by chance, exact, adjusted over the rules of the tree.
        covered: samples of all that meet the conditions.
    """

    words: str
    yes: bool
    right: int
    count: int
    base: float
    p: float
    covered: int

    @property
    def holds(self) -> bool:
        """It beats the baseline on held-out samples."""
        return self.p <= SURE and self.right > self.base * self.count


def outline(tree: Tree) -> Branch:
    """The tree as branches; where it decides, splits whose sides all decide the same are left out."""
    fitted, decides = tree.estimator.tree_, tree.target.dtype == np.bool_

    def grown(node: int, conditions: tuple[Condition, ...]) -> Branch:
        values = fitted.value[node, 0]
        value = float(values[1] / values.sum()) if decides else float(values[0])
        left, right = int(fitted.children_left[node]), int(fitted.children_right[node])
        if left < 0:
            return Branch(conditions, value)
        feature, threshold = int(fitted.feature[node]), float(fitted.threshold[node])
        sides = ((left, False), (right, True))
        children = tuple(grown(child, (*conditions, Condition(feature, threshold, above))) for child, above in sides)
        branch = Branch(conditions, value, children)
        same = decides and len({leaf.value > 0.5 for leaf in branch.leaves()}) == 1
        return replace(branch, children=()) if same else branch

    return grown(0, ())


def in_words(conditions: tuple[Condition, ...], features: Features) -> str:
    """Conditions as a part of a sentence; those on one feature become one.

    "sky is over 31 % of the picture, brightness is between 0.2 and 0.43".
    """
    bounds: dict[int, list[float]] = {}
    for condition in conditions:
        low, high = bounds.setdefault(condition.feature, [-np.inf, np.inf])
        if condition.above:
            bounds[condition.feature][0] = max(low, condition.threshold)
        else:
            bounds[condition.feature][1] = min(high, condition.threshold)
    return " and ".join(
        f"{features.names[i]} is {_range(*bound, area=features.areas[i])}" for i, bound in bounds.items()
    )


def _range(low: float, high: float, *, area: bool) -> str:
    def told(value: float) -> str:
        return f"{100 * value:.2g}" if area else f"{value:.3g}"

    unit = " % of the picture" if area else ""
    if np.isfinite(low) and np.isfinite(high):
        return f"{told(low)} to {told(high)}{unit}"
    return f"over {told(low)}{unit}" if np.isfinite(low) else f"at most {told(high)}{unit}"


def read_rules(tree: Tree, features: Features, rows: Matrix, truth: Flags) -> list[Rule]:
    """The leaves of a tree that decides, with their tests on held-out ``rows`` [N, F] and decisions ``truth`` bool [N].

    Those that hold come first, by how many samples they decide beyond the baseline.
    """
    found: list[Rule] = []
    for leaf in outline(tree).leaves():
        inside, yes = leaf.holds(rows), leaf.value > 0.5
        agree = truth if yes else ~truth
        right, count = int(agree[inside].sum()), int(inside.sum())
        words, covered = in_words(leaf.conditions, features), int(leaf.holds(features.values).sum())
        found.append(Rule(words, yes, right, count, float(agree.mean()), exact_p(inside, agree), covered))
    q = adjusted([rule.p for rule in found])
    tested = [replace(rule, p=float(value)) for rule, value in zip(found, q, strict=True)]
    return sorted(tested, key=lambda rule: (not rule.holds, rule.base * rule.count - rule.right))


def drawing(tree: Tree, features: Features, target: Vector | Flags, said: str, alt: str) -> Graph | Code:
    """The tree as a graph, or as an indented list where its leaves do not fit side by side.

    Each node has the condition that leads to it, how many of all samples get there, and the mean of the target among those.

    Args:
        tree: fitted to some of the samples.
        features: of all samples.
        target: of all samples, bool [N] or float64 [N].
        said: what the mean of the target is ("above", "mean").
        alt: what the picture shows.
    """
    root = outline(tree)
    labels: dict[tuple[Condition, ...], tuple[str, str, str]] = {}
    for number, branch in enumerate(root.nodes()):
        inside = branch.holds(features.values)
        own = in_words(branch.conditions[-1:], features).replace(" of the picture", "")
        for words, sign in ((" is at most ", " ≤ "), (" is over ", " > ")):
            own = own.replace(words, sign)
        mean = float(target[inside].mean()) if inside.any() else 0.0
        amount = f"{100 * mean:.0f} % {said}" if target.dtype == np.bool_ else f"{said} {mean:.3g}"
        labels[branch.conditions] = (
            f"{number}. {own}" if own else "all samples",
            f"{int(inside.sum())} samples",
            amount,
        )
    if len(list(root.leaves())) > ABREAST:
        lines = [
            "  " * len(branch.conditions)
            + " · ".join(labels[branch.conditions])
            + (" ◄" if not branch.children else "")
            for branch in root.nodes()
        ]
        return Code("\n".join(lines))
    nodes = tuple(Node(*labels[branch.conditions], emphasis=not branch.children) for branch in root.nodes())
    edges = tuple(
        (labels[branch.conditions[:-1]][0], labels[branch.conditions][0])
        for branch in root.nodes()
        if branch.conditions
    )
    return Graph(nodes, edges, alt)
