"""Concept sensitivity in figures and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gandissect.blocks import Block, Cell, Finding, Heatmap, ImageGrid, Reference, Section, Table, Text, Trust, to_uint8
from gandissect.wording import p_value
from gandissect_plugins.attributions.checks import Paired
from gandissect_plugins.attributions.trained import TRAINED
from gandissect_plugins.concept_sensitivity.transplants import Transplant
from gandissect_plugins.concept_sensitivity.vectors import Sensitivity

REFERENCES = (
    Reference(
        "Kim, B., Wattenberg, M., Gilmer, J., Cai, C., Wexler, J., Viegas, F. & Sayres, R.", 2018,
        "Interpretability beyond feature attribution: quantitative testing with concept activation vectors (TCAV)", "ICML",
    ),
    Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "JRSS B 57(1)"),
    Reference("Hoerl, A. & Kennard, R.", 1970, "Ridge regression", "Technometrics 12(1)"),
)  # fmt: skip
MEANING = """
A concept activation vector (CAV) points, in a layer of the discriminator, from samples with little of a concept to samples with much of it.
The TCAV score is the share of other samples whose logit rises along it. Each concept has several CAVs, fitted to sets that share no sample;
p compares them with those of random sets of the same size (Welch), once by their scores and once by their mean derivatives, and the larger
p counts; q is adjusted over concepts and layers. *Accuracy* is held-out: a CAV near 0.5 points nowhere. *One standard deviation along the
CAV* is a measured change of the logit, beside what the gradient predicts. *Pasted in*: blocks with the concept put into a sample that lacks
it, less the same blocks of a third sample that lacks it too. A score near 1 says the sign, not how much; the measured changes say that.
What goes together in the samples (dark and night) has a like CAV: pasting tells one from the other.
"""
ACCURATE = 0.6
FDR = 0.05
PASTED = 0.01


@dataclass(frozen=True)
class Sensed:
    """One concept: TCAV at each layer with its q, what moving one standard deviation along its CAV did, and what pasting it in did.

    ``moved`` are (measured, predicted by the gradient, the same measured for random CAVs at most) in logits for each layer.
    """

    concept: str
    layers: tuple[str, ...]
    tests: tuple[Sensitivity, ...]
    q: tuple[float, ...]
    moved: tuple[tuple[float, float, float], ...]
    pasted: Transplant | None

    @property
    def significant(self) -> list[int]:
        """Layers at which the score differs from that of random sets and the CAV finds the concept in samples not seen."""
        return [k for k, test in enumerate(self.tests) if self.q[k] <= FDR and test.accuracy >= ACCURATE]

    @property
    def sign(self) -> int:
        """1 or −1 where all significant layers agree; 0 where there are none or they do not."""
        signs = {self.tests[k].sign for k in self.significant}
        return signs.pop() if len(signs) == 1 else 0

    @property
    def confirmed(self) -> bool:
        """Pasting the concept in moves the logit the way the scores say."""
        return bool(self.sign) and self.pasted is not None and _sure(self.pasted.gap(self.sign))

    @property
    def best(self) -> int:
        """The layer with the smallest q, accurate ones first."""
        order = self.significant or range(len(self.tests))
        return min(order, key=lambda k: (self.q[k], -self.tests[k].accuracy))


def _sure(gap: Paired) -> bool:
    return gap.p <= PASTED and gap.low > 0


def sensitivity_section(sensed: Sequence[Sensed], trained: float, n: int, notes: Sequence[str]) -> Section:
    """Scores by concept and layer, the two interventions, and the pictures of one."""
    ranked = sorted(sensed, key=lambda one: (not one.confirmed, not one.sign, one.q[one.best]))
    layers = sensed[0].layers
    heat = Heatmap(
        np.array([[test.score - test.random for test in one.tests] for one in ranked]), tuple(one.concept for one in ranked), layers,
        "TCAV score of each concept at each layer, less that of random sets", signed=True, unit="TCAV score above random sets",
        caption="Above 0 the concept raises the logit, below 0 it lowers it; the table says where that is beyond chance.",
    )  # fmt: skip
    blocks: list[Block] = [Text(note) for note in notes]
    blocks += [heat, _scores(ranked), _pasted(ranked)]
    pictures = [one for one in ranked if one.pasted is not None][:3]
    blocks += [_grid(pictures)] if pictures else []
    confirmed = [one for one in ranked if one.confirmed]
    findings = [_finding(one, trained) for one in confirmed] if trained <= TRAINED else []
    return Section(
        "Which concepts move the discriminator", *blocks, summary=_summary(ranked, trained, n), findings=findings[:3],
        meaning=MEANING, references=REFERENCES,
    )  # fmt: skip


def _summary(ranked: Sequence[Sensed], trained: float, n: int) -> str:
    told = [one for one in ranked if one.significant]
    confirmed = [one for one in told if one.confirmed]
    words = f"The logit is sensitive to {len(told)} of {len(ranked)} concepts beyond random sets (q ≤ {FDR}, n = {n})"
    if not told:
        return f"{words}."
    words += f"; pasting it into other samples confirms {len(confirmed)}"
    if confirmed:
        one = confirmed[0]
        assert one.pasted is not None
        words += f", most clearly *{one.concept}* ({one.pasted.change:+.3g} logits)"
    if confirmed and trained > TRAINED:
        words += f". Shuffled weights react to images as much ({p_value(trained)}), so this says nothing of training"
    return f"{words}."


def _finding(one: Sensed, trained: float) -> Finding:
    test, pasted = one.tests[one.best], one.pasted
    assert pasted is not None
    sense = "more real" if one.sign > 0 else "less real"
    words = (
        f"The discriminator finds images with *{one.concept}* {sense}: pasted into a sample it changes the logit by {pasted.change:+.3g} "
        f"more than other content there does; TCAV {test.score:.2f} at `{one.layers[one.best]}`, {test.random:.2f} for random sets."
    )
    gap = pasted.gap(one.sign)
    tested = (
        f"TCAV {p_value(one.q[one.best], 'q')}, held-out accuracy of the CAV {test.accuracy:.2f}; "
        f"pasted from {gap.n} samples, {p_value(gap.p)}; "
        f"discriminator against shuffled weights {p_value(trained)}"
    )
    return Finding(words, Trust(p_value(one.q[one.best], "q"), tested), 0.5)


def _scores(ranked: Sequence[Sensed]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            one.concept, layer, test.score, test.random, one.q[k], test.accuracy, *one.moved[k],
        )
        for one in ranked
        for k, (layer, test) in enumerate(zip(one.layers, one.tests, strict=True))
    ]  # fmt: skip
    columns = (
        "concept",
        "layer",
        "TCAV score",
        "random",
        "q",
        "CAV accuracy",
        "1 sd along it",
        "by gradient",
        "random CAVs at most",
    )
    return Table(
        columns,
        rows,
        f"*1 sd along it*: measured change of the logit. A CAV below {ACCURATE} in held-out accuracy is not trusted.",
    )


def _pasted(ranked: Sequence[Sensed]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for one in ranked:
        sense = {1: "raises", -1: "lowers", 0: "no clear sign"}[one.sign]
        if one.pasted is None:
            rows.append((one.concept, sense, None, None, None, None, 0, "not tried: no places to paste it"))
            continue
        gap = one.pasted.up
        against = bool(one.sign) and _sure(one.pasted.gap(-one.sign))
        verdict = (
            "agrees"
            if one.confirmed
            else "disagrees"
            if against
            else "not confirmed"
            if one.sign
            else "nothing to confirm"
        )
        p = min(1.0, 2 * min(one.pasted.up.p, one.pasted.down.p))
        rows.append((one.concept, sense, gap.mean, gap.low, gap.high, p, gap.n, verdict))
    columns = ("concept", "TCAV says", "logit, pasted in", "low", "high", "p", "samples", "verdict")
    return Table(
        columns,
        rows,
        "Measured in pixels against other content in the same place; where the two disagree, this one is right.",
    )


def _grid(pictures: Sequence[Sensed], columns: int = 8) -> ImageGrid:
    made, names = [], []
    for one in pictures:
        assert one.pasted is not None
        for what, images in ((one.concept, one.pasted.with_concept), ("other content there", one.pasted.without)):
            made.append(images[:columns])
            names.append(what)
    alt = "samples with a concept pasted in, and with other content in the same place"
    return ImageGrid(to_uint8(torch.cat(made)), alt, columns=columns, row_labels=tuple(names))
