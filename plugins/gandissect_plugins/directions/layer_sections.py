"""Layers that directions act on, and style channels, as sections; for generators that take one style for each layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from gandissect.blocks import Block, Data, Finding, Heatmap, Section, Table, Trust
from gandissect.blocks.base import Cell, Json
from gandissect.errors import NoSuchCapability
from gandissect.session import Session
from gandissect.spaces import codes
from gandissect.wording import p_value, percent

from .comparison_section import Row
from .effects import Rulers, fresh_samples, measure_effects, random_directions, sigma_along
from .inner import components_of_w, sefa_in_w
from .layers import Channels, layer_effects, style_channels
from .references import WU, YANG
from .unlabelled_section import unlabelled_findings, unlabelled_section

MOST = 6
RANDOM = 6
NO_STYLES = (
    "needs a generator with a space of styles between latent and image, as StyleGAN has (w, a style for each layer, channels of a style); "
    "this one takes its latent once, and no option adds such a space (--skip directions leaves all directions out)"
)
_LAYERS = """
A step of +2σ in z is carried to w+, and only one layer's style is given the new value; the others keep the old. That
is HiGAN's layerwise rescoring with the network's own styles. *Locality* is the share of the largest layer in the sum
of the mean changes over layers; 1 where one layer does everything. Random directions stand beside.
"""
_CHANNELS = """
Each modulated convolution scales its input units by a style; each such scale is a channel of s. The channel that marks
the samples with much of a property most (Wu's attribute score: mean of the normalised style over its standard
deviation, over the quarter of the samples with most of it) is moved alone, from −4σ to +4σ of its own spread, beside
random channels on the same fresh samples. The best of thousands of channels by score need not change the property: the
test of the effect decides.
"""


def layer_sections(
    session: Session,
    n: int,
    rows: Sequence[Row],
    rulers: Rulers,
    *,
    strips: int,
    count: int,
    told: Collection[str] = (),
) -> Iterator[Section]:
    """The sections that the generator's spaces allow; for a generator whose latent enters once, one that says so.

    Properties that are ``told`` have a headline already and get none in w.
    """
    names = {space.name for space in session.gan.generator.inner}
    if not names & {"w", "w+", "s"}:
        yield Section("Directions in w, layers they act on, style channels", summary=NO_STYLES, status="skipped")
    if not rulers.names:
        return
    images = 2 * rulers.seeds * (24 + 3 * count)  # random directions, and three methods
    affordable = session.affordable(images) >= images / 2
    if "w" in names and affordable:
        yield from _in_w(session, n, rulers, strips, count, told)
    if "w+" in names:
        yield _layers(session, rows, rulers)
    if "s" in names and affordable:
        yield _channels(session, style_channels(session, n, rulers), rulers)
    if names & {"w", "s"} and not affordable:
        why = f"needs {images} images more, and this generator is large (directions.count=2 makes it fewer)"
        yield Section("Directions in w and style channels", summary=why, status="skipped", meaning=_CHANNELS)


def _in_w(
    session: Session, n: int, rulers: Rulers, strips: int, count: int, told: Collection[str]
) -> Iterator[Section]:
    """GANSpace and SeFa in w, beside random directions of w."""
    try:
        found = [sefa_in_w(session, count, normalise=scaled) for scaled in (True, False)]
    except NoSuchCapability as reason:
        found, notes = [], [f"SeFa in w is left out: {reason}."]
    else:
        notes = []
    if len(session.gan.generator.space("w").shape) == 1:
        found.insert(0, components_of_w(session, count, n))
    vectors = {name: vector for part in found for name, vector in part.by_name.items()}
    if not vectors:
        return
    effects = measure_effects(session, vectors, rulers, space="w")
    findings = list(unlabelled_findings(found, effects, dict.fromkeys(told, float("inf"))).values())
    section = unlabelled_section(session, found, notes, effects, strips, findings, title="Directions in w", space="w")
    kept: dict[str, Json] = {
        name: {
            "space": "w",
            "sigma": sigma_along(session, vector, "w"),
            "method": name.rsplit(" ", 1)[0],
            "vector": [float(f"{value:.5g}") for value in vector],
        }
        for name, vector in vectors.items()
    }
    yield Section(
        section.title,
        *section.blocks,
        Data("directions", kept),
        summary=section.summary,
        findings=section.findings,
        meaning=section.meaning,
        references=section.references,
    )


def _layers(session: Session, rows: Sequence[Row], rulers: Rulers) -> Section:
    title = "Layers that directions act on"
    of_properties = [row for row in rows if row.effects.properties == rulers.names]
    chosen = sorted(of_properties, key=lambda row: (not row.passed, -row.effect))[:MOST]
    latents, labels = fresh_samples(session, 1)
    layers = codes(session, "w+", latents, labels).shape[1]
    runs = (len(chosen) + RANDOM) * (layers + 1)
    seeds = session.affordable(8 * runs) // runs
    if not chosen or seeds < 2:
        why = (
            "needs a direction of a measured property, and a generator whose images cost less (-n N makes more samples)"
        )
        return Section(title, summary=why, status="skipped", meaning=_LAYERS)
    size = session.gan.generator.latent.size
    drawn = random_directions(RANDOM, size, session.rng("directions: random layers"))
    null = layer_effects(session, {f"random {i + 1}": row for i, row in enumerate(drawn)}, rulers, seeds=seeds)
    found = layer_effects(session, {row.name: row.vector for row in chosen}, rulers, seeds=seeds)
    columns = tuple(f"style {i}" for i in range(layers))
    values = np.stack([found.signed[i, :, row.column] for i, row in enumerate(chosen)])
    cells: list[tuple[str | float, ...]] = []
    for i, row in enumerate(chosen):
        layer, share = found.locality(i, row.column)
        by_chance = float(np.median([null.locality(r, row.column)[1] for r in range(RANDOM)]))
        added, random = float(found.added[i, layer, row.column]), float(null.added[:, layer, row.column].mean())
        cells.append((row.name, rulers.names[row.column], columns[layer], share, by_chance, added, random))
    head = ("direction", "property", "layer", "locality", "of random", "added there (sd)", "added by random (sd)")
    blocks: list[Block] = [
        Heatmap(
            values,
            tuple(f"{row.name} → {rulers.names[row.column]}" for row in chosen),
            columns,
            f"Mean change of the property by a step in one of {layers} layers",
            signed=True,
            unit="standard deviations",
        ),
        Table(
            head,
            cells,
            caption=f"On {seeds} fresh samples, beside {RANDOM} random directions; 1/L is {1 / layers:.2f}.",
        ),
    ]
    best = max(cells, key=lambda cell: float(cell[3]))
    summary = (
        f"The most local is {best[0]}: {percent(float(best[3]))} of its change of {best[1]} comes through {best[2]} "
        f"(random directions: {percent(float(best[4]))} through one layer)."
    )
    return Section(title, *blocks, summary=summary, meaning=_LAYERS, references=(YANG,))


def _channels(session: Session, found: Channels | None, rulers: Rulers) -> Section:
    title = "Style channels"
    if found is None:
        why = "needs a property that varies and styles that do (--samples N makes more)"
        return Section(title, summary=why, status="skipped", meaning=_CHANNELS)
    effects = found.effects
    rows: list[tuple[Cell, ...]] = []
    findings: list[Finding] = []
    kept: dict[str, Json] = {}
    for i, (name, target) in enumerate(zip(effects.directions, found.targets, strict=True)):
        j = rulers.names.index(target)
        passed = effects.passes(i, j)
        sides = ", ".join(f"{other} {change:.1f}" for other, change in effects.side_effects(i, j))
        null = float(effects.null_change[:, j].mean())
        change, purity = float(effects.change[i, j]), effects.purity(i, j)
        told = (name, target, float(found.scores[i]), change, null, float(effects.adjusted[i, j]))
        rows.append((*told, purity, effects.random_purity(j), sides, "yes" if passed else "no"))
        if passed:
            findings.append(_finding(effects.shift[i, j], told, purity, len(effects.null_shift), effects.seeds))
            kept[name] = {
                "space": "s",
                "sigma": sigma_along(session, found.vectors[i], "s"),
                "method": "style channel",
                "vector": found.vectors[i].tolist(),
            }
    head = ("channel", "property", "score", "effect (sd)", "random channels (sd)", "adjusted p", "purity")
    columns = (*head, "purity of random (95 %)", "side effects (sd)", "passes")
    caption = f"From −4σ to +4σ of the channel on {effects.seeds} fresh samples, beside {len(effects.null_shift)} random channels."
    blocks: list[Block] = [Table(columns, rows, caption=caption), *([Data("directions", kept)] if kept else [])]
    summary = (
        f"{len(findings)} of {len(rows)} channels change the property they mark, alone and beyond random channels."
    )
    return Section(title, *blocks, summary=summary, findings=findings[:2], meaning=_CHANNELS, references=(WU,))


def _finding(
    shift: float, told: tuple[str, str, float, float, float, float], purity: float, random: int, seeds: int
) -> Finding:
    name, target, _, change, null, p = told
    text = (
        f"Style channel {name} alone moves {target} by {shift:+.2f} from −4σ to +4σ: {change:.1f} standard deviations, against "
        f"{null:.1f} for random channels. {percent(purity)} of all measured change is in it."
    )
    tested = f"{target} against {random} random channels on the same {seeds} fresh samples, adjusted {p_value(p)}"
    return Finding(text, Trust("beats 100 % of random", tested), min(1.0, change / 4))
