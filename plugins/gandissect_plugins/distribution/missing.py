"""What is missing and what is too much: the area of every concept, and simple properties, in real and generated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.blocks import Bar, Block, Cell, Finding, Reference, Section, Series, Table, Text, Trust
from gandissect.concepts import LOW_LEVEL
from gandissect.metrics import (
    bootstrap_weights,
    frechet_deviation,
    frechet_distance,
    js_divergence,
    kl_divergence,
    middle,
    permutation_p,
    wasserstein1,
)
from gandissect.properties import COLOUR_PROPERTIES, PROPERTIES, measure
from gandissect.session import Session, Stream
from gandissect.streams import Batch
from gandissect.trust import Z95, adjusted
from gandissect.wording import p_value, percent

from .evidence import Draw, Spread
from .spaces import Rows
from .words import number, span

TITLE = "What is missing, what is too much"
RATE = 0.05
PERMUTATIONS = 4000
BINS = 20
SHOWN = 16
TOLD = 3
REFERENCES = (
    Reference("Bau, D. et al.", 2019, "Seeing what a GAN cannot generate", "ICCV"),
    Reference("Phipson, B. & Smyth, G.", 2010, "Permutation p-values should never be zero", "Stat. Appl. Genet. 9"),
    Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"),
    Reference("Lin, J.", 1991, "Divergence measures based on the Shannon entropy", "IEEE Trans. Inf. Theory 37"),
)
MEANING = f"""
- *Concepts*: the same segmenter looks at real and generated images; a concept's area is the share of an image that it
  covers. The interval of the difference is a bootstrap's (95 %); p counts {PERMUTATIONS} exchanges of the labels real and
  generated, adjusted over all concepts (Benjamini & Hochberg). A statement needs an adjusted p below {RATE} *and* a
  difference larger than between random halves of the real images.
- The segmenter was trained on neither set. Where it fails on generated images, its failure shows here as a missing
  concept: look at the samples.
- *Fréchet segmentation distance* (Bau et al. 2019): the Fréchet distance of the areas of the concepts, in per cent of
  the image: sizes, and which concepts occur together. It depends on the vocabulary, so it compares only under the same
  one; looks (colours, edges, clusters) count only where there are fewer than two things. The floor is real against real.
- *Properties*: Wasserstein-1 in standard deviations of the real images; Jensen–Shannon (0 to 1) and Kullback–Leibler
  divergence (of the real distribution from the generated one) in bits over {BINS} common bins; KL with half a sample
  added to every bin.
"""


@dataclass(frozen=True)
class Properties(Stream):
    """Brightness, contrast, saturation and so on of each image, float32 [N, P], in the order of :func:`property_names`."""

    def of(self, batch: Batch) -> Tensor:
        return torch.stack(list(measure(batch.images).values()), 1)


def property_names(channels: int) -> list[str]:
    """What :class:`Properties` holds for images of so many channels."""
    return [name for name in PROPERTIES if channels > 1 or name not in COLOUR_PROPERTIES]


@dataclass(frozen=True)
class Difference:
    """A quantity that every image has, in both sets.

    Attributes:
        name: what it is.
        real, generated: its mean.
        low, high: 95 % interval of generated minus real.
        p: adjusted over all quantities of its table.
        floor: what 95 % of the differences between random halves of the real images stay below, in magnitude.
        moved: Wasserstein-1, in the quantity's own unit.
        thing: it is more than a look (a colour, an edge).
    """

    name: str
    real: float
    generated: float
    low: float
    high: float
    p: float
    floor: float
    moved: float
    thing: bool = True

    @property
    def difference(self) -> float:
        """Generated minus real."""
        return self.generated - self.real

    @property
    def told(self) -> bool:
        """It passed the test, and is larger than between halves of the real images."""
        return self.p < RATE and abs(self.difference) > self.floor and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Sets:
    """The same quantities of real and generated images, and random halves of both."""

    names: Sequence[str]
    real: Rows
    generated: Rows
    draws: Sequence[Draw]
    things: Sequence[bool]


def differences(sets: Sets, rng: np.random.Generator, resamples: int) -> list[Difference]:
    """Every quantity in both sets, in the order given."""
    real, generated = sets.real, sets.generated
    means = [bootstrap_weights(len(part), resamples, rng) @ part / len(part) for part in (real, generated)]
    low, high = middle(means[1] - means[0])
    corrected = adjusted(permutation_p(real, generated, PERMUTATIONS, rng))
    halved = np.percentile([np.abs(real[a].mean(0) - real[b].mean(0)) for a, b, _ in sets.draws], 95, axis=0)
    return [
        Difference(
            name,
            float(real[:, i].mean()),
            float(generated[:, i].mean()),
            float(low[i]),
            float(high[i]),
            float(corrected[i]),
            float(halved[i]),
            wasserstein1(real[:, i], generated[:, i]),
            sets.things[i],
        )
        for i, name in enumerate(sets.names)
    ]


def concept_sets(session: Session, n: int, m: int, draws: Sequence[Draw]) -> Sets | None:
    """The areas of all concepts that are no mere places; None where there are none."""
    concepts = session.vocabulary.concepts
    chosen = [place for place, concept in enumerate(concepts) if not concept.spatial]
    if not chosen or not session.vocabulary.reads_pixels:
        return None
    real, generated = session.areas(n, real=True)[:, chosen], session.areas(m)[:, chosen]
    names = [concepts[place].name for place in chosen]
    things = [concepts[place].category not in LOW_LEVEL for place in chosen]
    return Sets(names, real.double().numpy(), generated.double().numpy(), draws, things)


def missing_section(concepts: Sets | None, properties: Sets, rng: np.random.Generator, resamples: int) -> Section:
    """The section; without concepts it holds the properties alone and says what to type."""
    blocks: list[Block] = []
    findings: list[Finding] = []
    sentences = []
    if concepts is not None:
        found = differences(concepts, rng, resamples)
        findings = _findings(found, concepts)
        sentences.append(_summary(found))
        blocks += [_bars(found), _concept_table(found, concepts), *_segmentation_distance(concepts)]
    else:
        blocks.append(Text("No concepts to compare: `--concepts NAME` names a segmenter that reads pixels."))
    looks = differences(properties, rng, resamples)
    blocks.append(_property_table(looks, properties))
    changed = [one.name for one in looks if one.told]
    if changed:
        sentences.append(
            f"{len(changed)} of {len(looks)} properties differ{'s' if len(changed) == 1 else ''}: {', '.join(changed)}."
        )
    summary = " ".join(sentences) or f"None of {len(looks)} properties differs clearly."
    return Section(TITLE, *blocks, summary=summary, findings=findings, meaning=MEANING, references=REFERENCES)


def _ranked(found: Sequence[Difference]) -> list[Difference]:
    """Those that passed, things before looks, the largest difference first."""
    return sorted((one for one in found if one.told), key=lambda one: (not one.thing, -abs(one.difference)))


def _summary(found: Sequence[Difference]) -> str:
    passed = _ranked(found)
    if not passed:
        return f"None of {len(found)} concepts differs clearly in area."
    first = passed[0]
    kinds = [sum(one.difference < 0 for one in passed), sum(one.difference > 0 for one in passed)]
    return (
        f"Of {len(found)} concepts {kinds[0]} cover less of generated images than of real ones and {kinds[1]} more; "
        f"{_covers(first)}."
    )


def _covers(one: Difference) -> str:
    ends = f"CI of the difference {number(100 * one.low)} to {number(100 * one.high)} percentage points"
    return f"*{one.name}* covers {percent(one.real)} of real images' area and {percent(one.generated)} of generated images' ({ends})"


def _findings(found: Sequence[Difference], sets: Sets) -> list[Finding]:
    """The largest differences of things; of looks only where no thing differs."""
    passed = _ranked(found)
    chosen = [one for one in passed if one.thing] or passed[:1]
    tested = (
        f"{len(sets.real)} real against {len(sets.generated)} generated images, {PERMUTATIONS} exchanges of labels, adjusted over "
        f"{len(found)} concepts; random halves of the real images differ by less"
    )
    return [
        Finding(
            f"{_covers(one)}.",
            Trust(p_value(one.p), tested),
            min(0.9, 0.35 + 0.55 * abs(one.difference) / max(one.real, one.generated)),
        )
        for one in chosen[:TOLD]
    ]


def _bars(found: Sequence[Difference]) -> Bar:
    order = sorted(found, key=lambda one: (not one.thing, -max(one.real, one.generated)))[:SHOWN]
    names = [one.name for one in order]
    series = (
        Series("real", names, [100 * one.real for one in order], role="real"),
        Series(
            "generated",
            names,
            [100 * one.generated for one in order],
            [100 * (one.real + one.low) for one in order],
            [100 * (one.real + one.high) for one in order],
            role="generated",
        ),
    )
    return Bar(
        series,
        "concept",
        "mean area, % of the image",
        f"Mean area of {len(order)} concepts in real and generated images",
        caption="The whiskers are the 95 % interval of the difference, drawn at the generated bar.",
    )


def _concept_table(found: Sequence[Difference], sets: Sets) -> Table:
    order = sorted(found, key=lambda one: (not one.told, -abs(one.difference)))
    rows: list[tuple[Cell, ...]] = [(one.name, *(100 * share for share in _shares(one)), one.p) for one in order]
    columns: tuple[str, ...] = ("concept", "real, %", "generated, %", "difference", "low", "high", "halves of real")
    columns += ("W₁", "adjusted p")
    caption = (
        f"Mean share of the image, in per cent, over {len(sets.real)} real and {len(sets.generated)} generated images. *Halves of "
        "real*: 95 % of differences between random halves of the real images are smaller. W₁ is the Wasserstein-1 distance of the areas."
    )
    return Table(columns, rows, caption=caption)


def _shares(one: Difference) -> tuple[float, ...]:
    return one.real, one.generated, one.difference, one.low, one.high, one.floor, one.moved


def _segmentation_distance(sets: Sets) -> list[Block]:
    things = np.array(sets.things) if sum(sets.things) > 1 else np.ones(len(sets.names), bool)
    real, generated = 100 * sets.real[:, things], 100 * sets.generated[:, things]
    value, error = frechet_distance(real, generated), frechet_deviation(real, generated)
    same = Spread.of([frechet_distance(real[a], generated[g]) for a, _, g in sets.draws])
    floor = Spread.of([frechet_distance(real[a], real[b]) for a, b, _ in sets.draws])
    text = (
        f"**Fréchet segmentation distance**: {number(value)} (CI {span(max(0.0, value - Z95 * error), value + Z95 * error)}, "
        f"n = {len(real)} and {len(generated)}, {things.sum()} concepts). On random halves of {len(sets.draws[0][0])}: "
        f"{span(same.low, same.high)}, real against real {span(floor.low, floor.high)}."
    )
    return [Text(text)]


def _property_table(found: Sequence[Difference], sets: Sets) -> Table:
    rows = []
    for i, one in enumerate(found):
        deviation = float(sets.real[:, i].std(ddof=1)) or 1.0
        p, q = _histograms(sets.real[:, i], sets.generated[:, i])
        smoothing = 0.5 / sqrt(len(sets.real) * len(sets.generated))
        divergences = js_divergence(p, q), kl_divergence(p, q, base=2, smoothing=smoothing)
        rows.append((one.name, one.real, one.generated, one.moved / deviation, *divergences, one.p))
    columns = ("property", "real", "generated", "Wasserstein-1 / σ", "JS, bits", "KL, bits", "adjusted p of the mean")
    return Table(columns, rows, caption="Means over images whose pixels go from 0 to 1.")


def _histograms(real: Rows, generated: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    edges = np.histogram_bin_edges(np.concatenate([real, generated]), BINS)
    return np.histogram(real, edges)[0], np.histogram(generated, edges)[0]
