"""The section on what units cause.

yield causality(tests)
"""

from __future__ import annotations

from collections import Counter
from math import isnan

from gandissect.blocks import Block, Cell, Fold, Section, Table, Text

from .artifacts import LEAST_CHANGE, SCORE, Artifacts, ArtifactTest
from .effects import CausalTests, ConceptTest
from .figures import (
    artifact_pictures,
    before_after,
    compare,
    dose_figure,
    inserted,
    insertion_figure,
    order_figure,
)
from .roles import MEANINGS, Role, Tested, UnitCause
from .words import between, effect_percent, or_zero, units_of

MEANING = f"""**Off.** Units are set to zero everywhere, x(1 − a) + r·a with a = 1 and r = 0, in the same samples, and the area of every
concept is measured again by the same segmenter. A set is the units of one layer that follow the concept best, by IoU or by
correlation, in the layer where that removes most in six other samples than those measured (of sets within a fifth of that, the one that
changes the picture least).

**On.** In one window of each sample that holds none of the concept (a quarter of the image high and wide, drawn at random),
units are set to r: a set to the mean of its units where the concept is (the paper's choice for sets), a single unit to its
mean where dissection calls it active (for the paper's 99 % quantile, which is zero for a unit that is rarely on). The gain
is what the concept covers of that window afterwards; 100 % is what the fullest window of a sample holds on average where
the concept is by itself.

**Chance.** Beside every edit, random units of the same layer are edited in the same samples, other units in each sample.
Intervals are 95 % bootstraps over samples, before and after paired; p is from flipping signs of paired differences; q
holds the false-discovery rate over all effects of single units (Benjamini–Hochberg). An effect counts when it goes beyond
random units, q passes, and it is at least 5 % of the concept's area or of its usual area in a window.

**Roles.** {" ".join(f"*{role}*: {text}." for role, text in MEANINGS.items())}

**Limits.** Switching units off can push a layer outside what the rest of the network has seen, so look at the images and
at the side effect. A window has one size: a concept may refuse to appear where it makes no sense, which is what the map
of places shows. Artifact units are told by a discriminator that has its own blind spots, and by two defects only."""


def causality(tests: CausalTests) -> Section:
    """What switching units off and on does, with pictures."""
    strongest = sorted(tests.concepts, key=lambda test: (not test.causal, -or_zero(test.effect.removed)))
    blocks: list[Block] = []
    if strongest:
        blocks.append(compare(strongest[0]))
        blocks += [before_after(strongest[:5])] if len(strongest) > 1 else []
        blocks.append(_set_table(tests))
    blocks += _insertion(tests)
    if tests.causes:
        blocks += [Text(_role_words(tests)), _role_table(tests)]
    blocks += [Fold(f"Dose and response: {one.concept}", tuple(dose_figure(one))) for one in tests.doses]
    for comparison in tests.orders:
        blocks += [order_figure(comparison), *([Text(comparison.note)] if comparison.note else [])]
    if tests.artifacts is not None:
        blocks += _artifact_blocks(tests.artifacts)
    return Section("What units cause", *blocks, summary=_summary(strongest, tests), meaning=MEANING)


def _summary(strongest: list[ConceptTest], tests: CausalTests) -> str:
    causal = [test for test in strongest if test.causal]
    if not causal:
        return f"None of {len(strongest)} tested sets of units removes its concept beyond random units."
    first = causal[0]
    text = (
        f"Switching off {units_of(len(first.units))} of `{first.layer}` removes {effect_percent(first.effect)} of the area of "
        f"*{first.concept}*; "
        f"{len(causal)} of {len(strongest)} tested concepts have causal units."
    )
    if tests.causes:
        needed = sum(role in (Role.NECESSARY, Role.BOTH) for role in tests.roles.values())
        text += f" Alone, {needed} of {len(tests.causes)} tested units {'is' if needed == 1 else 'are'} necessary."
    return text


def _set_table(tests: CausalTests) -> Table:
    columns = (
        "concept", "layer", "units", "chosen by", "area removed", "95 % interval", "random units remove", "beyond random",
        "gained where absent", "95 % interval of gain", "largest side effect", "score", "verdict",
    )  # fmt: skip
    rows = [_set_row(test) for test in tests.concepts]
    caption = (
        f"Sets of units switched off and on in {len(tests.samples)} samples that were chosen to hold the concepts; "
        "score is the change of the discriminator's mean logit when they are off."
    )
    return Table(columns, rows, caption=caption)


def _set_row(test: ConceptTest) -> list[Cell]:
    side, change = test.ablation.side_effect()
    score = test.ablation.score_change()
    return [
        test.concept,
        test.layer,
        ", ".join(map(str, test.units)),
        test.chosen_by,
        _number(test.effect.removed),
        between(test.effect),
        _number(test.random),
        between(test.beyond),
        _number(test.insertion.value),
        between(test.insertion.effect) or "nowhere absent",
        f"{side} {'+' if change > 0 else '−'}{abs(100 * change):.1f} % of the image",
        _number(score),
        test.verdict,
    ]


def _number(value: float) -> Cell:
    return "" if isnan(value) else round(value, 3)


def _insertion(tests: CausalTests) -> list[Block]:
    """Pictures of the set that adds its concept best, and the maps of where."""
    adding = sorted((test for test in tests.concepts if test.adds), key=lambda test: -test.insertion.value)
    blocks: list[Block] = []
    if adding:
        pictures = inserted(adding[0])
        blocks += [pictures] if pictures is not None else []
    for found in tests.maps:
        if figure := insertion_figure(found):
            blocks.append(Fold(f"Where {found.concept} can be inserted", tuple(figure)))
    return blocks


def _role_words(tests: CausalTests) -> str:
    """How many units have each role."""
    counts = Counter(tests.roles.values())
    said = ", ".join(f"{counts[role]} {role}" for role in Role if counts[role])
    followed = [cause for cause in tests.causes if cause.follows]
    moved = sum(
        tests.roles[cause.layer, cause.unit] not in (Role.CORRELATE, Role.UNDECIDED, Role.INHIBITORY)
        for cause in followed
    )
    return (
        f"**Correlation and cause, unit by unit.** {said}. Of {len(followed)} tested units that follow a concept, {moved} "
        f"{'has' if moved == 1 else 'have'} a measured part in drawing it."
    )


def _role_table(tests: CausalTests) -> Table:
    columns = (
        "unit", "concept", "IoU", "excess over null", "correlation", "removed alone", "95 % interval", "q", "gained alone",
        "95 % interval of gain", "q of gain", "role",
    )  # fmt: skip
    order = list(Role)
    rows = sorted(
        tests.causes,
        key=lambda cause: (order.index(tests.roles[cause.layer, cause.unit]), -or_zero(cause.ablation.value)),
    )
    return Table(
        columns, [_role_row(cause, tests.roles[cause.layer, cause.unit]) for cause in rows],
        caption="Single units switched off everywhere, and on where the concept is absent, one at a time; a concept in brackets is "
        "one that the unit does not follow, the one it moves most.",
    )  # fmt: skip


def _role_row(cause: UnitCause, role: Role) -> list[Cell]:
    concept = cause.concept if cause.follows else f"({cause.concept})"
    return [
        f"{cause.layer} · {cause.unit}",
        concept,
        round(cause.iou, 3),
        round(cause.excess, 3),
        round(cause.correlation, 3),
        *_effect_cells(cause.ablation),
        *_effect_cells(cause.insertion),
        str(role),
    ]


def _effect_cells(tested: Tested | None) -> list[Cell]:
    if tested is None or isnan(tested.value):
        return ["", "", None]
    return [_number(tested.value), between(tested.effect), tested.q]


def _artifact_blocks(found: Artifacts) -> list[Block]:
    """A table of the units without which images are better, and pictures."""
    units = list(dict.fromkeys((test.layer, test.unit) for test in found.found()))
    how = "chosen by gradient" if found.screened else "spread over the layers"
    looked = f"{units_of(found.units)}, {how}, in {found.samples} samples"
    if not units:
        return [
            Text(
                f"**Artifact units.** None among {looked}: without none of them does the score rise or a defect shrink."
            )
        ]
    words = (
        f"**Artifact units.** Without {len(units)} of {looked}, the discriminator's score rises or a defect shrinks by at least "
        f"{LEAST_CHANGE:g} standard deviations."
    )
    columns = ("unit", "measure", "before", "without it", "95 % interval of the change", "standard deviations", "q")
    table = Table(
        columns, [_artifact_row(test) for test in found.found()[:12]],
        caption="Checkerboard energy in % of an image's variation, clipped values in % of all values, score in logits.",
    )  # fmt: skip
    pictures = artifact_pictures(found)
    return [Text(words), table, *([Fold("Samples with and without them", (pictures,))] if pictures is not None else [])]


def _artifact_row(test: ArtifactTest) -> list[Cell]:
    digits = 2 if test.measure == SCORE else 3
    change = f"{test.low:+.{digits}f} to {test.high:+.{digits}f}".replace("-", "−")
    unit = f"{test.layer} · {test.unit}"
    return [
        unit, test.measure, round(test.before, digits), round(test.after, digits), change, round(test.better, 2),
        test.q,
    ]  # fmt: skip
