"""Probes of properties and concepts as a section: held-out accuracy, effect against random directions, strips."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from gandissect.blocks import Bar, Block, Finding, Section, Series, Strip, Table, Text, Trust, in_tabs, to_uint8
from gandissect.session import Session
from gandissect.trust import adjusted
from gandissect.wording import p_value, percent

from .effects import Baseline, Effects, Rulers, measure_effects, random_directions, strip_frames
from .probes import Probe, probe
from .references import BENJAMINI, SHEN, WILSON

RATE = 0.05
HEADLINES = 4
COLUMNS = (
    "property, held-out accuracy, low, high, adjusted p, accuracy of SVM, cosine with SVM, shift, change (sd), random (sd), "
    "adjusted p of shift, beats random, purity, side effects (sd), finding"
)
FRAMES = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
MEANING = """
Each property or concept is measured on every sample. A linear classifier is fitted on the latents of the training
samples with the largest and the smallest values (a quarter from each end); the direction is the unit normal of its
boundary. Accuracy is that on held-out samples, split at the training median; 50 % is chance. The support vector
machine is InterFaceGAN's; its cosine with the logistic regression says how much the direction depends on the
classifier.

That a direction can be read off does not mean that it steers the image. So each one is walked from −2σ to +2σ on
fresh samples, the same for all directions, and so are random directions. A direction is called a finding when

- its held-out accuracy is above chance and its shift beats random directions, both at a false-discovery rate of 5 %,
- no random direction changes the property more,
- the shift is large enough: 0.05 of the range of a property; for a concept half of its mean area, between 0.5 % and
  10 % of the image,
- the picture changes coherently: the mean colour of some sixteenth of it moves by 0.08 of its range, and of the energy
  of the mean change at least 30 % survives an average over 4×4 pixels (6 % for independent pixels).

Any generator that is smooth in z has directions that change a property √D times as much as random ones do: the first
rule alone says nothing about learning. The last two keep networks whose pixels move each on its own from yielding
findings.

*Purity* is the share of all measured change, each in its own standard deviations, that falls on the target.
Properties that go together in the samples (brightness and saturation, say) lower it; *Directions compared* has
directions with the others projected out. Under a uniform prior a walk leaves the range of the prior.
"""


@dataclass(frozen=True)
class Probed:
    """One property or concept: its probes, and what walking along the first one does.

    ``column`` is its place in ``effects.properties``, ``row`` its direction's; ``q`` is the adjusted p of the held-out test.
    """

    first: Probe
    second: Probe
    q: float
    effects: Effects
    row: int
    column: int
    area: bool

    @property
    def shift(self) -> float:
        """Mean change from −2σ to +2σ, in the property's own unit."""
        return float(self.effects.shift[self.row, self.column])

    @property
    def change(self) -> float:
        """Mean magnitude of the change in standard deviations."""
        return float(self.effects.change[self.row, self.column])

    @property
    def by_chance(self) -> float:
        """The same of random directions, their mean."""
        return float(self.effects.null_change[:, self.column].mean())

    @property
    def passed(self) -> bool:
        """Held-out accuracy and effect are both beyond what chance gives, and the effect can be seen."""
        return self.q < RATE and self.effects.passes(self.row, self.column, RATE)

    @property
    def amount(self) -> str:
        """The shift with its unit: "+0.39" or "+12 % of the image"."""
        return f"{100 * self.shift:+.1f} % of the image" if self.area else f"{self.shift:+.2f}"

    @property
    def along(self) -> list[str]:
        """What else the direction moves, by more than half of the change in its target."""
        return [name for name, change in self.effects.side_effects(self.row, self.column) if change > self.change / 2]


def find_probes(
    session: Session, n: int, rulers: Rulers, concepts: Rulers, baselines: tuple[Baseline, Baseline]
) -> list[Probed]:
    """Both probes of every property and concept, and the effects of the first; ``baselines`` in the order of the rulers."""
    latents = session.latents(n).numpy()
    fitted: list[tuple[Rulers, list[Probe], list[Probe]]] = []
    for ruler in (rulers, concepts):
        both: tuple[list[Probe], list[Probe]] = ([], [])
        for name, values in zip(ruler.names, ruler.values.T, strict=True):
            for into, method in zip(both, ("logistic", "svm"), strict=True):
                rng = session.rng(f"directions: {name}")  # the same samples are held out for both
                into.append(probe(latents, values, rng=rng, name=name, method="svm" if method == "svm" else "logistic"))
        fitted.append((ruler, *both))
    q = adjusted([found.p for _, first, _ in fitted for found in first])
    out: list[Probed] = []
    for (ruler, first, second), baseline in zip(fitted, baselines, strict=True):
        vectors = {found.name: found.direction for found in first}
        if vectors:
            effects = measure_effects(session, vectors, ruler, baseline=baseline)
            for i, pair in enumerate(zip(first, second, strict=True)):
                out.append(Probed(*pair, float(q[len(out)]), effects, i, i, ruler is concepts))
    return out


def passed_probes(probes: Sequence[Probed]) -> list[Probed]:
    """Those that are findings, the largest change first."""
    return sorted((item for item in probes if item.passed), key=lambda item: -item.change)


def headlines(probes: Sequence[Probed]) -> list[Probed]:
    """The first of :func:`passed_probes`; of two that move each other along only one, since they are one cause with two names."""
    chosen: list[Probed] = []
    for item in passed_probes(probes):
        if not any(item.first.name in other.along and other.first.name in item.along for other in chosen):
            chosen.append(item)
    return chosen[:HEADLINES]


def probe_section(
    session: Session, probes: Sequence[Probed], strips: int, note: str = "", elsewhere: Collection[str] = ()
) -> Section:
    """The table of all probes, their effects beside random ones, and strips of those that passed.

    What another section has a headline for, ``elsewhere``, gets none here.
    """
    if not probes:
        why = "needs samples that differ: no measured property varies over them (--samples N makes more)"
        return Section("Directions of measured properties", summary=why, status="skipped", meaning=MEANING)
    passed = passed_probes(probes)
    blocks: list[Block] = [*([Text(note)] if note else []), _effect_bars(probes), _table(probes)]
    strip_of = {item.first.name: _strip(session, item) for item in passed[:strips]}
    blocks += in_tabs({**strip_of, "a random direction": _random_strip(session)})
    summary = f"{len(passed)} of {len(probes)} measured properties and concepts have a direction that beats random directions."
    return Section(
        "Directions of measured properties",
        *blocks,
        summary=summary,
        findings=[_finding(item) for item in headlines(probes) if item.first.name not in elsewhere],
        meaning=MEANING,
        references=(SHEN, WILSON, BENJAMINI),
    )


def trust_of(item: Probed) -> Trust:
    """The chip of a probe's direction."""
    half = (item.first.high - item.first.low) / 2
    tested = (
        f"accuracy on {item.first.held_out} held-out samples against all permutations of their labels, adjusted {p_value(item.q)}; "
        f"effect against {len(item.effects.null_shift)} random directions on the same {item.effects.seeds} fresh samples, "
        f"adjusted {p_value(item.effects.adjusted[item.row, item.column])}"
    )
    return Trust(f"held-out {item.first.accuracy:.2f} ± {half:.2f}", tested, "checked" if item.passed else "weak")


def _finding(item: Probed) -> Finding:
    what = f"the area of {item.first.name}" if item.area else item.first.name
    text = (
        f"One direction of the latent moves {what} by {item.amount} from −2σ to +2σ: {item.change:.1f} standard deviations, "
        f"against {item.by_chance:.1f} for random directions. "
        f"{percent(item.effects.purity(item.row, item.column))} of all measured change is in it (95 % of random directions: "
        f"below {percent(item.effects.random_purity(item.column))})."
    )
    if item.along:
        text += f" *{' and '.join(item.along)}* {'move' if len(item.along) > 1 else 'moves'} along."
    return Finding(text, trust_of(item), min(1.0, item.change / 4))


def _effect_bars(probes: Sequence[Probed]) -> Bar:
    names = [item.first.name for item in probes]
    null = [item.effects.null_change[:, item.column] for item in probes]
    low, high = ([float(np.quantile(values, q)) for values in null] for q in (0.05, 0.95))
    return Bar(
        (
            Series("probe's direction", names, [item.change for item in probes]),
            Series("random directions", names, [item.by_chance for item in probes], low, high, role="baseline"),
        ),
        "property or concept",
        "change, standard deviations",
        f"Effect of {len(names)} probed directions beside random directions",
        caption="Mean magnitude of the change from −2σ to +2σ; whiskers hold 90 % of the random directions.",
    )


def _table(probes: Sequence[Probed]) -> Table:
    rows = []
    for item in probes:
        e, first = item.effects, item.first
        cosine = float(np.dot(first.direction, item.second.direction))
        sides = ", ".join(f"{name} {change:.1f}" for name, change in e.side_effects(item.row, item.column))
        rows.append(
            (
                first.name,
                first.accuracy,
                first.low,
                first.high,
                item.q,
                item.second.accuracy,
                cosine,
                item.shift,
                item.change,
                item.by_chance,
                float(e.adjusted[item.row, item.column]),
                e.percentile(item.row, item.column),
                e.purity(item.row, item.column),
                sides,
                "yes" if item.passed else "no",
            )
        )
    return Table(
        tuple(COLUMNS.split(", ")),
        rows,
        caption="Shift is in the property's own unit (share of the image for concepts).",
    )


def _strip(session: Session, item: Probed) -> Strip:
    sides = ", ".join(f"{name} {change:.1f} sd" for name, change in item.effects.side_effects(item.row, item.column))
    facts = (
        ("effect, −2σ to +2σ", f"{item.amount}, {item.change:.1f} sd"),
        ("random directions", f"{item.by_chance:.1f} sd on average"),
        ("side effects", sides or "none measured"),
        ("purity", f"{item.effects.purity(item.row, item.column):.2f}"),
    )
    return direction_strip(session, item.first.direction, item.first.name, facts, trust_of(item))


def direction_strip(
    session: Session,
    vector: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
    title: str,
    facts: tuple[tuple[str, str], ...] = (),
    trust: Trust | None = None,
    *,
    space: str = "",
) -> Strip:
    """Seven frames from −3σ to +3σ of the same five samples, the unedited ones in the middle."""
    frames = strip_frames(session, vector, FRAMES, space=space)
    pixels = to_uint8(frames.flatten(0, 1))
    return Strip(
        pixels.reshape(*frames.shape[:2], *pixels.shape[1:]),
        FRAMES,
        title,
        f"{frames.shape[1]} samples moved along {title} from {FRAMES[0]:+.0f}σ to {FRAMES[-1]:+.0f}σ",
        value_label="σ",
        origin=len(FRAMES) // 2,
        facts=facts,
        trust=trust,
    )


def _random_strip(session: Session) -> Strip:
    vector = random_directions(1, session.gan.generator.latent.size, session.rng("directions: random"))[0]
    facts = (("for comparison", "one of the random directions, the same samples"),)
    return direction_strip(session, vector, "a random direction", facts)
