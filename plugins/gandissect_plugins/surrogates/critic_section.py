"""The discriminator's decision as a small tree over concepts, in sentences that were tested on samples not seen.

found = explain_scores(features, scores, fitted, judge)
found.fidelity.value, [rule.words for rule in found.rules if rule.holds]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gandissect.blocks import Block, Cell, Finding, Section, Table, Text, Trust, in_tabs
from gandissect.session import Session
from gandissect.wording import p_value, percent
from gandissect_plugins.attributions.trained import TRAINED, trained_p

from .evidence import TWINS, Features, grouped
from .heldout import Flags, HeldOut, Judge, Vector
from .models import Linear, Tree, fit_linear, fit_tree
from .references import OF_TREES
from .rules import SURE, Rule, drawing, read_rules

TITLE = "What the discriminator goes by"
LEAST = 0.7
"""Fidelity of the tree, and share of held-out samples for which the rule is right, that a headline needs."""
EITHER = 0.1
"""The decision is the sign of the logit where each side has this share of the samples, else the side of the median."""
SAID = 4
COPIES = 49
LOOKED = 8
MEANING = f"""
A surrogate is a model that is small enough to be read and imitates one that is not. Here it is a decision tree over the
areas of the concepts and the simple properties of each sample; what it imitates is the discriminator's decision: *real*
where the logit is above 0, or, where nearly all samples fall on one side of 0, above the median of the training samples.

The tree is fitted on 60 % of the samples. Depth (at most 4) and leaf size are chosen by cross-validation among those; then
the smallest pruned tree within one standard error of the best is taken. *Fidelity* is the balanced accuracy with which it
gives the discriminator's decision on the other 40 %; 50 % is chance. p is exact over all permutations of the held-out
decisions. A rule is stated only if the whole tree beats chance (p ≤ {SURE}, interval above 50 %) and the rule itself
does (p ≤ {SURE}, adjusted over the tree's rules). A headline needs a fidelity of {100 * LEAST:.0f} %, a rule that
is right as often, and a discriminator that tells samples from scrambled ones better than copies of it with shuffled weights.

A faithful rule says what the decision goes *with*, on samples of this generator. The discriminator may look at something
else that goes with it, and of several concepts that order the samples alike (|ρ| ≥ {TWINS}) only the first is used. A tree
without rules says that no concept of this vocabulary predicts the decision, not that the discriminator decides at random.
"""


@dataclass(frozen=True)
class Explained:
    """What concepts say of the discriminator's score.

    Attributes:
        features: what the models were given, one of each set of twins.
        twins: name of each of those -> names of its twins that were left out.
        decision: bool [N], of all samples.
        threshold: logit, 0 or the median of the training samples.
        tree, fidelity, rules: the tree of the decision, its held-out test, its leaves.
        regression, regressed: the tree of the logit and its held-out test.
        linear, fitted: the linear fit of the logit and its held-out test.
    """

    features: Features
    twins: Mapping[str, tuple[str, ...]]
    decision: Flags
    threshold: float
    tree: Tree
    fidelity: HeldOut
    rules: tuple[Rule, ...]
    regression: Tree
    regressed: HeldOut
    linear: Linear
    fitted: HeldOut

    @property
    def passed(self) -> bool:
        """The tree beats chance on held-out samples."""
        return self.fidelity.p <= SURE and self.fidelity.low > self.fidelity.chance

    @property
    def said(self) -> list[Rule]:
        """Rules that may be stated, the telling ones first."""
        return [rule for rule in self.rules if rule.holds] if self.passed else []

    @property
    def verdict(self) -> tuple[str, str]:
        """What the discriminator does where its decision is yes, and where it is no."""
        if self.threshold == 0:
            return "says *real*", "says *generated*"
        return "scores above its median", "scores below its median"

    @property
    def best(self) -> tuple[Tree | Linear, HeldOut]:
        """The model of the logit that did better in cross-validation among the training samples, and its held-out test."""
        if self.regression.inner > self.linear.inner:
            return self.regression, self.regressed
        return self.linear, self.fitted


def explain_scores(features: Features, scores: Vector, fitted: Flags, judge: Judge) -> Explained:
    """Trees and a linear fit of the discriminator's ``scores`` float64 [N], fitted on the samples ``fitted`` bool [N]."""
    real = float((scores > 0).mean())
    threshold = 0.0 if EITHER <= real <= 1 - EITHER else float(np.median(scores[fitted]))
    groups = grouped(features.values[fitted], TWINS)
    twins = {features.names[first]: tuple(features.names[i] for i in rest) for first, *rest in groups if rest}
    features = features.only([group[0] for group in groups])
    decision, rows = scores > threshold, features.values
    tree, regression = fit_tree(rows[fitted], decision[fitted]), fit_tree(rows[fitted], scores[fitted])
    linear = fit_linear(rows[fitted], scores[fitted, None])[0]
    held = rows[~fitted]
    return Explained(
        features,
        twins,
        decision,
        threshold,
        tree,
        judge.fidelity(decision[~fitted], tree.predict(held) > 0.5),
        tuple(read_rules(tree, features, held, decision[~fitted])),
        regression,
        judge.explained(scores[~fitted], regression.predict(held)),
        linear,
        judge.explained(scores[~fitted], linear.predict(held)),
    )


def critic_section(session: Session, found: Explained, scores: Vector) -> Section:
    """The trees, the rules and their tests."""
    sentences = [sentence(rule, found, len(scores)) for rule in found.said[:SAID]]
    nothing = "No rule beats the baseline on held-out samples."
    blocks: list[Block] = [
        Text("\n".join(f"- {one}" for one in sentences) or nothing),
        *_trees(found, scores),
    ]
    blocks += [_rules(found), _fits(found)]
    if found.twins:
        told = "; ".join(f"{', '.join(rest)} (as {first})" for first, rest in found.twins.items())
        blocks.append(Text(f"Left out, because another orders the samples alike (|ρ| ≥ {TWINS}): {told}."))
    return Section(
        TITLE,
        *blocks,
        summary=_summary(found),
        findings=_findings(session, found, len(scores)),
        meaning=MEANING,
        references=OF_TREES,
    )


def _summary(found: Explained) -> str:
    fit, rules = found.fidelity, len(found.rules)
    best, test = found.best
    how = "A linear fit of" if best is found.linear else "A tree of"
    logit = f"{how} concepts explains {_percent(test)} of the variance of its logit ({p_value(test.p)})."
    if test.low <= test.chance or test.p > SURE:
        logit = f"{how} concepts does not explain its logit in held-out samples: {_percent(test)} of the variance."
    if not found.tree.used:
        return f"No tree over concepts predicts the discriminator's decision better than guessing. {logit}"
    return (
        f"A tree of {rules} rules over concepts agrees with the discriminator's decision on {_percent(fit)} of {fit.count} "
        f"held-out samples (balanced; 50 % by chance, {p_value(fit.p)}). {logit}"
    )


def _trees(found: Explained, scores: Vector) -> list[Block]:
    """Pictures of the trees that have any branch, in tabs, and what their numbers are."""
    below = "above" if found.threshold else "real"
    drawn: dict[str, tuple[Tree, Vector | Flags, str, str]] = {
        "decision": (found.tree, found.decision, below, "the tree that imitates the discriminator's decision"),
        "logit": (found.regression, scores, "mean", "the tree that imitates the discriminator's logit"),
    }
    some = {name: facts for name, facts in drawn.items() if facts[0].used}
    if not some:
        return []
    what = "above the median logit" if found.threshold else "judged real"
    caption = (
        f"Boxes that stand out, or lines that end in ◄, are where a tree decides; % is the share of samples {what}"
        f"{', *mean* the mean logit' if 'logit' in some else ''}."
    )
    pictures = {
        name: drawing(tree, found.features, target, said, alt) for name, (tree, target, said, alt) in some.items()
    }
    return [*in_tabs(pictures), Text(caption)]


def sentence(rule: Rule, found: Explained, n: int) -> str:
    """A rule with its numbers."""
    verdict = found.verdict[0 if rule.yes else 1]
    return (
        f"Where {rule.words}, the discriminator {verdict}: right for {rule.right} of {rule.count} held-out samples "
        f"({percent(rule.right / max(rule.count, 1))}; {percent(rule.base)} of all). {rule.covered} of {n} samples are so."
    )


def _percent(fit: HeldOut) -> str:
    return f"{percent(fit.value)} ({100 * fit.low:.0f} to {percent(fit.high)})"


def _findings(session: Session, found: Explained, n: int) -> list[Finding]:
    """The most telling rule, of a discriminator that was trained."""
    discriminator = session.gan.discriminator
    rule = next((rule for rule in found.said if rule.right >= LEAST * rule.count), None)
    if rule is None or found.fidelity.value < LEAST or discriminator is None:
        return []
    labels, rng = session.labels(range(LOOKED), "discriminator"), session.rng("surrogates: trained")
    trained = trained_p(discriminator, session.images(LOOKED), COPIES, rng, labels=labels)
    if trained > TRAINED:
        return []
    fit = found.fidelity
    tested = (
        f"balanced accuracy of the tree on {fit.count} held-out samples, chance 0.50, exact permutation {p_value(fit.p)}; the rule's "
        f"adjusted {p_value(rule.p)}; discriminator against shuffled weights {p_value(trained)}"
    )
    trust = Trust(f"fidelity {fit.value:.2f} ({fit.low:.2f} to {fit.high:.2f})", tested)
    return [Finding(sentence(rule, found, n), trust, min(0.8, fit.value - 0.2))]


def _rules(found: Explained) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            rule.words or "always",
            found.verdict[0 if rule.yes else 1].replace("*", ""),
            rule.covered,
            rule.count,
            rule.right / rule.count if rule.count else None,
            rule.base,
            rule.p,
            "yes" if rule in found.said else "no",
        )
        for rule in found.rules
    ]
    columns = ("where", "the discriminator", "samples", "held out", "right", "by chance", "adjusted p", "holds")
    return Table(columns, rows, caption="Every rule of the decision's tree; “right” is on held-out samples.")


def _fits(found: Explained) -> Table:
    tests = (
        ("tree of the decision", "balanced accuracy", found.tree.inner, found.fidelity),
        ("tree of the logit", "R²", found.regression.inner, found.regressed),
        ("linear fit of the logit", "R²", found.linear.inner, found.fitted),
    )
    rows: list[tuple[Cell, ...]] = [
        (name, unit, inner, fit.value, fit.low, fit.high, fit.chance, fit.p) for name, unit, inner, fit in tests
    ]
    columns = ("surrogate", "score", "cross-validated", "held out", "low", "high", "by chance", "p")
    return Table(
        columns, rows, sortable=False, caption=f"{found.fidelity.count} samples were held out; intervals are 95 %."
    )
