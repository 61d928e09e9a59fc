"""How much of each property and concept can be read from latents and from units, on samples that were not fitted.

found = readings(picture, sources, fitted, judge)
found[0].target, found[0].source, found[0].test.value    # "brightness", "coordinates of z", 0.74
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gandissect.blocks import Block, Cell, Fold, Heatmap, Section, Table, Text
from gandissect.trust import adjusted

from .evidence import Features
from .heldout import Flags, HeldOut, Judge
from .models import Linear, fit_linear
from .references import OF_READINGS

RATE = 0.01
TITLE = "What latents and units say of the picture"
SENTENCES = 6
MEANING = f"""
For every property and concept a ridge regression on the latent coordinates, and one on the mean activations of each layer's
units, fitted on 60 % of the samples; the penalty is chosen by leaving out one of those at a time. *R²* is the share of the
variance on the other 40 % that it explains: 1 at best, 0 for guessing the mean, below 0 for worse than that. p counts permutations of
the held-out values (999), adjusted over the whole table (Benjamini & Hochberg); a sentence needs p ≤ {RATE} and an
interval above 0.

A number near 0 for latents and near 1 for units says that the property is made in a way that is not linear in the latents.
A mean activation does not know where it is active: a property of places can be missed. A high number is no proof of cause,
and any generator, trained or not, lets something be read from its latents: this section makes no headlines.
"""


@dataclass(frozen=True)
class Reading:
    """One target read from one source: the model, its held-out test, and p adjusted over all readings."""

    target: str
    source: Features
    model: Linear
    test: HeldOut
    q: float = 1.0

    @property
    def passed(self) -> bool:
        """Beyond what chance gives, at a false-discovery rate of 1 %."""
        return self.q <= RATE and self.test.low > 0


def readings(picture: Features, sources: Sequence[Features], fitted: Flags, judge: Judge) -> list[Reading]:
    """Every column of ``picture`` read from every source, fitted on the samples ``fitted`` bool [N]."""
    found = []
    for source in sources:
        models = fit_linear(source.values[fitted], picture.values[fitted])
        for name, model, values in zip(picture.names, models, picture.values.T, strict=True):
            test = judge.explained(values[~fitted], model.predict(source.values[~fitted]))
            found.append(Reading(name, source, model, test))
    q = adjusted([one.test.p for one in found])
    return [replace(one, q=float(value)) for one, value in zip(found, q, strict=True)]


def reading_section(found: Sequence[Reading]) -> Section:
    """The matrix of held-out R², and sentences for what is beyond chance."""
    if not found:
        why = "needs pictures that differ and latents or layers to read from (--samples N makes more pictures)"
        return Section(TITLE, summary=why, status="skipped", references=OF_READINGS)
    targets = list(dict.fromkeys(one.target for one in found))
    sources = list(dict.fromkeys(one.source.what for one in found))
    values = np.array([one.test.value for one in found]).reshape(len(sources), len(targets)).T
    order = np.argsort(-values.max(1), kind="stable")
    heat = Heatmap(
        values[order].clip(0), tuple(targets[i] for i in order), tuple(sources), "held-out R² of every property from every source",
        unit="R²", caption="Share of the variance on held-out samples that a linear fit explains; below 0 is drawn as 0.",
    )  # fmt: skip
    passed = [one for one in found if one.passed]
    said = "\n".join(f"- {line}" for line in _sentences(found)) or "Nothing is read beyond chance."
    blocks: list[Block] = [Text(said), heat, Fold("Every number with its interval", (_table(found),))]
    best = max(found, key=lambda one: one.test.value)
    summary = f"{len({one.target for one in passed})} of {len(targets)} properties and concepts are read beyond chance"
    if passed:
        summary += f"; best *{best.target}* from {best.source.what}, R² {_interval(best.test)}"
    return Section(TITLE, *blocks, summary=summary + ".", meaning=MEANING, references=OF_READINGS)


def _sentences(found: Sequence[Reading]) -> list[str]:
    """One for each target that is read beyond chance from the first source, best first."""
    first = found[0].source.what
    others = {one.target: one for one in sorted(found, key=lambda one: one.test.value) if one.source.what != first}
    own = sorted((one for one in found if one.source.what == first and one.passed), key=lambda one: -one.test.value)
    lines = []
    for one in own[:SENTENCES]:
        line = f"**{one.target}**: R² {_interval(one.test)} from {first}"
        other = others.get(one.target)
        if other is not None and other.passed:
            line += f", {_interval(other.test)} from {other.source.what}"
        lines.append(line + ".")
    return lines


def _interval(test: HeldOut) -> str:
    return f"{test.value:.2f} ({test.low:.2f} to {test.high:.2f})"


def _table(found: Sequence[Reading]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            one.target,
            one.source.what,
            one.test.value,
            one.test.low,
            one.test.high,
            one.q,
            "yes" if one.passed else "no",
        )
        for one in found
    ]
    columns = ("property or concept", "read from", "held-out R²", "low", "high", "adjusted p", "beyond chance")
    return Table(
        columns, rows, caption=f"{found[0].test.count} samples were held out; intervals are 95 %, 0 by chance."
    )
