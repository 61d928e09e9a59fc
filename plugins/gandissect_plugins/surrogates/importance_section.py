"""Importance of latents, units and concepts in three ways, as bars and tables.

importance_section([weigh(case, rows, background, rng)])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gandissect.blocks import Bar, Block, Cell, Finding, Section, Series, Table, Tabs, Text, Trust
from gandissect.properties import PROPERTIES
from gandissect.session import Session
from gandissect.wording import percent
from gandissect_plugins.dissection.causal.edits import Blend, weights_of

from .evidence import Features, group_names, grouped
from .heldout import Flags, HeldOut, Judge, Vector
from .importance import EXPLAINED, REFITS, WAYS, Importances, importances
from .models import Linear, Model
from .references import OF_IMPORTANCE

TITLE = "Importance of latents, units and concepts"
SHOWN = 8
ALONE = 0.9
"""Share of the R² that one feature alone has to reach to be called the only one that matters."""
READABLE = 0.5
FEWEST_FEATURES = 4
SWITCHED = 4
SAMPLES = 16
_NAMES = {"permutation": "permutation", "ablation": "ablation", "shapley": "Shapley"}
MEANING = f"""
Three ways to ask what a model's predictions rest on, all on samples that it was not fitted to:

- *Permutation* (Breiman 2001): the loss of R² when a feature's values are exchanged among the samples.
- *Ablation*: the loss of R² when the model is fitted again without it. Small where another feature says the same.
- *Shapley*: a feature's fair share in a prediction, in magnitude, averaged over {EXPLAINED} samples, in standard deviations of the
  target; features outside a coalition have the values of training samples (interventional). Exact for linear fits, sampled
  with Captum for trees. The shares of a sample add up to its prediction minus the mean.

Features whose ranks correlate by 0.7 or more cannot be told apart: they are permuted, left out and credited as one group.
The null is the largest importance of any group in {REFITS} models of a permuted target; *beyond chance* is above it in all three ways
(family-wise p = 0.05). *Agreement* is the mean Spearman correlation of the three rankings: where it is low, the answer depends on how
one asks. Importance is importance for the model, which explains no more than its R²; the section before says how much that is.
*Switched off* is measured, not modelled: the unit is set to 0 and the picture is made anew.
"""


@dataclass(frozen=True)
class Case:
    """A model of one target over some features, and how well it does on held-out samples."""

    target: str
    features: Features
    model: Model
    truth: Vector
    test: HeldOut
    layer: str = ""


@dataclass(frozen=True)
class Weighed:
    """A case with its importances.

    Attributes:
        groups: columns that count as one.
        names: what each group is called.
        found: of the groups.
        alone: R² of a linear fit on the most important group alone; NaN for trees.
        switched: group -> mean change of the target, in standard deviations, when its units are switched off: for the first groups
            and for ``others``, drawn from the rest at random.
    """

    case: Case
    groups: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    found: Importances
    alone: float
    switched: Mapping[int, float]
    others: tuple[int, ...]

    @property
    def title(self) -> str:
        """ "brightness from coordinates of z"."""
        return f"{self.case.target} from {self.case.features.what}"

    @property
    def first(self) -> int:
        """The group that all rankings together put first."""
        return self.found.order[0]

    @property
    def only(self) -> bool:
        """One of several features is first in all three ways, beyond chance, and says nearly all that the model says."""
        first_in_all = all(int(self.found.values[way].argmax()) == self.first for way in WAYS)
        enough = self.case.test.low >= READABLE and self.alone >= ALONE * self.case.test.value
        single = len(self.groups[self.first]) == 1 and len(self.groups) >= FEWEST_FEATURES
        return first_in_all and self.found.beyond(self.first) and enough and single


def weigh(session: Session, case: Case, fitted: Flags, judge: Judge) -> Weighed:
    """Importances of the groups of a case's features, on the samples that are not in ``fitted`` bool [N]."""
    rows, background = case.features.values[~fitted], case.features.values[fitted]
    groups = grouped(background)
    rng = session.rng(f"surrogates: importance of {case.features.what} for {case.target}")
    found = importances(case.model, rows, case.truth[~fitted], groups, background, rng)
    alone = float("nan")
    if isinstance(case.model, Linear):
        dropped = [column for place, group in enumerate(groups) if place != found.order[0] for column in group]
        alone = judge.explained(case.truth[~fitted], case.model.without(dropped).predict(rows)).value
    names = tuple(group_names(case.features.names, groups))
    rest = found.order[SWITCHED:]
    others = [rest[i] for i in np.sort(rng.permutation(len(rest))[:SWITCHED])]
    switched = _switched_off(session, case, {place: groups[place] for place in (*found.order[:SWITCHED], *others)})
    return Weighed(case, tuple(groups), names, found, alone, switched, tuple(others))


def _switched_off(session: Session, case: Case, groups: Mapping[int, tuple[int, ...]]) -> dict[int, float]:
    """What switching units off does to a property, measured on new pictures of the first samples; only where that is possible."""
    editable = case.layer and session.gan.generator.layer(case.layer).editable
    if not editable or case.target not in PROPERTIES:
        return {}
    count = min(SAMPLES, session.n, session.affordable(SAMPLES * len(groups)) // len(groups))
    if count < 2:
        return {}
    latents, labels, ruler = session.latents(count), session.labels(range(count)), PROPERTIES[case.target]
    before = ruler(session.images(count))
    channels = session.gan.generator.layer(case.layer).channels
    told = {}
    for place, group in groups.items():
        units = [int(case.features.names[column].removeprefix("unit ")) for column in group]
        after = session.generate(latents, edit=Blend(weights_of(units, channels)), layers=[case.layer], labels=labels)
        told[place] = float((ruler(after) - before).double().mean()) / float(case.truth.std())
    return told


def importance_section(weighed: Sequence[Weighed]) -> Section:
    """Bars, tables and the agreement of the three ways for every case."""
    if not weighed:
        why = "needs something that is read beyond chance; more samples may do (--samples N)"
        return Section(TITLE, summary=why, status="skipped", references=OF_IMPORTANCE)
    titles = tuple(item.title for item in weighed)
    lines = "\n".join(f"- {_sentence(item)}" for item in weighed)
    bars, tables = tuple(_bars(item) for item in weighed), tuple(_table(item) for item in weighed)
    blocks: list[Block] = [Text(lines), Tabs(titles, bars), Tabs(titles, tables)]
    together = [
        " + ".join(item.case.features.names[i] for i in group)
        for item in weighed
        for group in item.groups
        if len(group) > 1 and not item.case.layer
    ]
    if together:
        blocks.append(Text("Cannot be told apart and count as one: " + "; ".join(dict.fromkeys(together)) + "."))
    low = min(item.found.agreement for item in weighed)
    many = sum(any(map(item.found.beyond, range(len(item.groups)))) for item in weighed)
    summary = (
        f"In {many} of {len(weighed)} models some feature is important beyond chance in all three ways; the rankings agree "
        f"with ρ = {low:.2f} at least."
    )
    findings = [_finding(item) for item in weighed if item.only][:2]
    return Section(TITLE, *blocks, summary=summary, findings=findings, meaning=MEANING, references=OF_IMPORTANCE)


def _sentence(item: Weighed) -> str:
    """What matters, and how far the rankings agree."""
    found, told = item.found, [i for i in item.found.order if item.found.beyond(i)]
    test = f"(held-out R² {item.case.test.value:.2f}, agreement ρ = {found.agreement:.2f})"
    switched = _measured(item)
    if not told:
        counts = ", ".join(f"{int((found.values[way] > found.null[way]).sum())} by {_NAMES[way]}" for way in WAYS)
        return f"**{item.title}** {test}: no single feature is beyond chance in all three ways ({counts}).{switched}"
    some = ", ".join(f"*{item.names[i]}*" for i in told[:3])
    line = f"**{item.title}** {test}: {len(told)} of {len(item.groups)} beyond chance in all three ways; first {some}."
    return line + switched


def _measured(item: Weighed) -> str:
    """What switching off the first units does, beside other units."""
    if not item.switched:
        return ""
    off = [f"{item.names[i]} {item.switched[i]:+.2f} sd" for i in item.found.order[:SWITCHED]]
    by_chance = np.abs([item.switched[i] for i in item.others]).mean() if item.others else 0.0
    return (
        f" Switched off, these change {item.case.target} by {', '.join(off)}; "
        f"{len(item.others)} of the others, drawn at random, by {by_chance:.2f} sd on average."
    )


def _finding(item: Weighed) -> Finding:
    case, found, first = item.case, item.found, item.first
    text = (
        f"**{item.names[first]} alone drives {case.target}**: a linear fit on it explains {percent(item.alone)} of the "
        f"variance on held-out samples, one on all {len(item.groups)} {percent(case.test.value)}."
    )
    nulls = ", ".join(f"{way} {found.values[way][first]:.2f} against {found.null[way]:.2f}" for way in WAYS)
    tested = (
        f"first in all three importances, each beyond {REFITS} models of a permuted target ({nulls}); "
        f"{case.test.count} held-out samples"
    )
    return Finding(text, Trust(f"rankings agree, ρ = {found.agreement:.2f}", tested), 0.5)


def _bars(item: Weighed) -> Bar:
    """The first groups, each way as a share of its own sum, so that the three can be compared."""
    order = item.found.order[:SHOWN]
    series = []
    for way in WAYS:
        values = item.found.values[way].clip(0)
        share = values / max(float(values.sum()), 1e-12)
        series.append(Series(_NAMES[way], [item.names[i] for i in order], [100 * float(share[i]) for i in order]))
    alt = f"importance of {len(order)} of {len(item.names)} groups for {item.title}"
    caption = f"Of {len(item.names)} groups the first {len(order)}; each way as a share of its own sum."
    return Bar(tuple(series), "feature", "share of the importance, %", alt, caption=caption, horizontal=True)


def _table(item: Weighed) -> Table:
    found = item.found
    columns = ["feature", "permutation", "±", "ablation", "±", "Shapley", "±", "beyond chance"]
    rows: list[list[Cell]] = []
    for i in found.order[:SHOWN]:
        pairs = [float(part[way][i]) for way in WAYS for part in (found.values, found.errors)]
        rows.append([item.names[i], *pairs, "yes" if found.beyond(i) else "no"])
    rows.append(["largest by chance", *(cell for way in WAYS for cell in (found.null[way], None)), None])
    if item.switched:
        columns.append("switched off (sd)")
        for i, row in zip([*found.order[:SHOWN], -1], rows, strict=True):
            row.append(item.switched.get(i))
    caption = "Permutation and ablation: loss of held-out R²; Shapley: standard deviations of the target; ± is one standard error."
    return Table(tuple(columns), rows, caption=caption, sortable=False)
