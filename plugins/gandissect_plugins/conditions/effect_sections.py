"""Sweeps of conditions, and whether they do anything, as sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gandissect.blocks import Block, Cell, Finding, Heatmap, ImageGrid, Section, Table, Trust, in_tabs, to_uint8
from gandissect.session import Session
from gandissect.wording import p_value, percent
from gandissect_plugins.distribution.words import number
from gandissect_plugins.features.spaces import thumbnails
from gandissect_plugins.health import LabelEffect

from .condition import Condition
from .paired import RATE, Paired
from .probe import Probe
from .references import CHEN, LOPEZ_PAZ, MIRZA, SEARLE

LATENTS_SHOWN = 8
LEVEL = 2 / 255
"""One step of an 8-bit picture, in [-1, 1]."""
HOPELESS = 0.1
"""Part of the way from chance to certainty that the interval of a probe has to stay below before its failure is told."""


def by_name(blocks: dict[str, Block]) -> list[Block]:
    """One block as it is, several as tabs."""
    return in_tabs(blocks)


def sweep_section(session: Session, found: Sequence[Paired]) -> Section:
    """The same latents under every value of each condition, as pictures."""
    grids: dict[str, Block] = {}
    for one in found:
        shown = min(LATENTS_SHOWN, len(one.images))
        grids[one.condition.name] = ImageGrid(
            to_uint8(thumbnails(one.images[:shown].transpose(0, 1).flatten(0, 1), 64)),
            f"{shown} latents under {len(one.condition.values)} values of the {one.condition.name}",
            columns=shown,
            row_labels=one.condition.value_names,
            column_labels=tuple(f"sample {session.n + place}" for place in range(shown)),
            caption="Each column is one latent; nothing but the condition changes along it.",
        )
    told = [_how_many(one.condition) for one in found]
    summary = f"Each column keeps its latent and changes the condition alone: {'; '.join(told)}."
    return Section("Sweeps of the condition", *by_name(grids), summary=summary, references=(MIRZA, CHEN))


def _how_many(condition: Condition) -> str:
    shown = len(condition.values)
    if not condition.discrete:
        return f"{condition.name} from {condition.value_names[0]} to {condition.value_names[-1]}"
    return (
        f"{condition.name} with {shown} of {condition.count} values"
        if shown < condition.count
        else (f"{condition.name} with all {shown} values")
    )


def effect_section(
    found: Sequence[Paired], probes: Mapping[str, Probe | None], label: LabelEffect | None = None
) -> Section:
    """Whether each condition changes the images, and which of its values do not differ.

    ``label`` is what the health check found of the class; what it has said gets no second headline.
    """
    measures = [_measures(one) for one in found]
    table = Table(
        ("measure", *(one.condition.name for one in found)),
        [(name, *(each[name] for each in measures)) for name in measures[0]],
        caption="Changes are root mean square, in [−1, 1]; parts of variance are components of a two-way layout.",
        sortable=False,
    )
    maps: dict[str, Block] = {
        one.condition.name: Heatmap(
            one.distance,
            one.condition.value_names,
            one.condition.value_names,
            f"How far apart the images of two values of the {one.condition.name} are, on the same latents",
            unit="root mean square difference",
        )
        for one in found
        if len(one.condition.values) > 2
    }
    said = label is not None and label.idle
    asked = [one for one in found if not (said and one.dead and one.condition.kind == "class")]
    findings = [finding for one in asked for finding in _alarms(one, probes[one.condition.name])]
    return Section(
        "What the condition does",
        table,
        *by_name(maps),
        summary=" ".join(_sentence(one) for one in found),
        findings=findings,
        meaning=_MEANING,
        references=(SEARLE, LOPEZ_PAZ),
    )


def _measures(one: Paired) -> dict[str, Cell]:
    pairs = np.triu_indices(len(one.same), 1)
    shares, kinds = one.shares, one.kinds
    return {
        "change from one value to another": float(one.distance[pairs].mean()) if len(pairs[0]) else 0.0,
        "change from one run to the next": float(one.repeats.mean()),
        "pairs of values that differ": f"{int((~one.same[pairs]).sum())} of {len(pairs[0])}",
        "part of the variance: condition": percent(shares.condition),
        "part of the variance: z": percent(shares.z),
        "part of the variance: both together": percent(shares.both),
        "p of the condition's part": shares.p,
        "kind of change: brightness": percent(kinds.brightness),
        "kind of change: colour": percent(kinds.colour),
        "kind of change: contrast": percent(kinds.contrast),
        "kind of change: structure": percent(kinds.structure),
    }


def _sentence(one: Paired) -> str:
    name = one.condition.name
    if one.dead:
        return f"The {name} changes nothing."
    return (
        f"The {name} accounts for {percent(one.shares.condition)} of the images' variance, z for {percent(one.shares.z)}, both "
        f"together for {percent(one.shares.both)}; {percent(getattr(one.kinds, one.kinds.main))} of what it changes is "
        f"{one.kinds.main}."
    )


def _alarms(one: Paired, seen: Probe | None) -> list[Finding]:
    """What is wrong with a condition: it does nothing, some of its values do not differ, or nobody could tell."""
    name, count, m = one.condition.name, len(one.condition.values), len(one.images)
    label = f"paired · {m} latents"
    how = f"all pairs of {count} values on the same {m} latents; "
    how += (
        f"against a second run of the same inputs, signs flipped, mean of all pairs {p_value(one.any_p)}"
        if one.noisy
        else "no pixel changes by half a grey level of 255"
    )
    if one.dead:
        held = "" if seen is None else f"; a probe tells {_rate(seen)}"
        largest = number(float(one.peak.max()) / LEVEL)
        beyond = (
            "beyond what a second run of the same input changes"
            if one.noisy
            else f"by more than {largest} of 255 grey levels"
        )
        text = f"**The condition does nothing**: no value of the {name} changes a pixel of the image {beyond}"
        text += "; neither does another z." if one.still else "."
        return [Finding(text, Trust(label, how + held), 0.95)]
    if not one.condition.discrete:
        return []
    found = [
        Finding(
            f"**{_listed([one.condition.value_names[place] for place in group])} give the same images** on each of {m} latents; "
            f"other values of the {name} differ.",
            Trust(label, how),
            0.85,
        )
        for group in one.alike
    ]
    if seen is not None and seen.high < seen.chance + HOPELESS * (1 - seen.chance) and seen.p >= RATE:
        text = f"**The {name} cannot be told from the images**, although it changes them: a probe tells {_rate(seen)}."
        tested = f"permuted values of {seen.held_out} held-out samples, {p_value(seen.p)}"
        found.append(Finding(text, Trust(f"held-out · {p_value(seen.p)}", tested), 0.7))
    return found


def _rate(seen: Probe) -> str:
    return (
        f"{percent(seen.accuracy)} of held-out samples right (CI {percent(seen.low)} to {percent(seen.high)}, chance "
        f"{percent(seen.chance)})"
    )


def _listed(names: Sequence[str]) -> str:
    """ "Class 2, class 3 and class 5"."""
    text = f"{', '.join(names[:-1])} and {names[-1]}"
    return text[:1].upper() + text[1:]


_MEANING = """
All values of a condition are put to the same latents, which no other part of the analysis has seen. A pair of values is
called different when a pixel of any image changes by more than half a grey level of 255. Where the generator draws noise
of its own, the change has to be larger than between two runs of the same input (signs flipped at random over latents,
adjusted over pairs).

*Parts of variance* are the components of a two-way layout: what the condition does to all latents alike, what z does
under all values alike, and what shows only for single combinations. p counts exchanges of the values within each latent.

*Kind of change*: the difference of each image to the mean over values at the same latent is explained by one number added
to every pixel (brightness), then one for each channel (colour), then a gain (contrast); *structure* is the rest. A
condition that adds brightness where the picture is already white is clipped there, which counts as structure.
"""
