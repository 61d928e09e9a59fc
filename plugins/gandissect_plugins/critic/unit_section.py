"""Where the gradient of the discriminator's score disagrees with what units do, in figures and words.

unit_section(unit_verdicts(session, 12, rng), trained=0.02).summary
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from gandissect.blocks import Cell, Finding, Guide, Reference, Scatter, Section, Table, Trust
from gandissect_plugins.attributions.trained import TRAINED

from .units import Agreement, UnitVerdict, UnitVerdicts

TITLE = "Where the score's gradient and the units' effects disagree"
REFERENCES = (
    Reference(
        "Molchanov, P. et al.", 2017, "Pruning convolutional neural networks for resource efficient inference", "ICLR"
    ),
    Reference(
        "Bau, D. et al.", 2019, "GAN Dissection: visualizing and understanding generative adversarial networks", "ICLR"
    ),
)
MEANING = """
Each point is a unit of the generator. Across: what the gradient says switching it off would do to the discriminator's score, −Σ activation
· slope. Up: what switching it off did, mean over samples. The gradient sees a small step only, switching off is a large one; a score that
is saturated, or a unit that another one replaces, makes the two differ. Where they disagree the measured change is right: maps and rankings
made from gradients of this score inherit the error. Units are drawn at random from each layer, so that the rank correlation is that of the
layer; its interval is a bootstrap over units. A finding says that the interval lies
below 0: the gradient orders units against their effects.
"""
FEWEST = 12
SHOWN = 12


def misled(found: UnitVerdicts) -> bool:
    """The gradient orders the units against their effects: worse than chance, not merely badly."""
    whole = found.agreement()
    return whole.units >= FEWEST and whole.high < 0


def unit_section(found: UnitVerdicts, trained: float) -> Section:
    """Predicted against measured, layer by layer, and the units on which they disagree most.

    Args:
        found: from :func:`unit_verdicts`.
        trained: p that shuffled weights react to images as much as the discriminator.
    """
    whole = found.agreement()
    worst = found.worst(SHOWN)
    values = np.array([(one.predicted, one.measured) for one in found.units])
    ends = (float(values.min()), float(values.max()))
    scatter = Scatter(
        values, ("change of the logit by the gradient", "change of the logit, measured"),
        "units of the generator switched off: the gradient's prediction against the measured change of the discriminator's score",
        groups=tuple(one.layer for one in found.units), labels=tuple(f"{one.layer} · {one.unit}" for one in found.units),
        guides=(Guide((ends[0], ends[0]), (ends[1], ends[1]), "agreement"),) if ends[0] < ends[1] else (),
    )  # fmt: skip
    rows = [_row(name, found.agreement(name)) for name in found.layers]
    table = Table(
        ("layer", "rank correlation ρ", "low", "high", "units"), [*rows, _row("all", whole)], "Gradient against measured; 1 is agreement.",
        sortable=False,
    )  # fmt: skip
    listed = Table(
        ("unit", "by the gradient", "measured", "standard error", "they"),
        [(f"{one.layer} · {one.unit}", one.predicted, one.measured, one.error, one.words) for one in worst],
        f"The {len(worst)} units on which they disagree most, in logits; trust the measured change.",
    )
    return Section(
        TITLE, scatter, table, listed, summary=_summary(found, whole, worst[0]), findings=_findings(found, whole, trained),
        meaning=MEANING, references=REFERENCES,
    )  # fmt: skip


def _row(name: str, one: Agreement) -> tuple[Cell, ...]:
    return name, one.rho, one.low, one.high, one.units


def _summary(found: UnitVerdicts, whole: Agreement, worst: UnitVerdict) -> str:
    if not isfinite(whole.rho):
        return f"None of {whole.units} units changes the score, or its gradient is 0 for all of them."
    return (
        f"Over {whole.units} units the gradient of the score and its measured change agree with ρ = {whole.rho:.2f} (CI {whole.low:.2f} to "
        f"{whole.high:.2f}); most off is `{worst.layer} · {worst.unit}`: {worst.predicted:+.3g} by the gradient, {worst.measured:+.3g} "
        f"measured. The measured change is the one to trust."
    )


def _findings(found: UnitVerdicts, whole: Agreement, trained: float) -> list[Finding]:
    if not misled(found) or trained > TRAINED:
        return []
    worst = found.worst(1)[0]
    words = (
        f"**Gradients of the discriminator's score misjudge the generator's units**: ρ = {whole.rho:.2f} with what switching them off "
        f"does; `{worst.layer} · {worst.unit}` is {worst.predicted:+.3g} by the gradient and {worst.measured:+.3g} in truth."
    )
    tested = (
        f"Spearman over {whole.units} random units, bootstrap interval; {found.samples} samples; discriminator against shuffled weights "
        f"p = {trained:.2g}"
    )
    return [Finding(words, Trust(f"CI {whole.low:.2f} to {whole.high:.2f}", tested), 0.35)]
