"""Figures and words about the discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Finding,
    Heatmap,
    Histogram,
    ImageGrid,
    Line,
    Reference,
    Section,
    Series,
    Table,
    Tabs,
    Text,
    Trust,
    to_uint8,
)
from gandissect.properties import measure
from gandissect.session import Session
from gandissect.trust import adjusted
from gandissect.wording import percent
from gandissect_plugins.attributions.trained import TRAINED

from .fragility import SIZES, Fragility
from .gaze import Gaze
from .standing import OPTIMUM, SATURATED, Scores, Separation, Standing

REFERENCES = (
    Reference("Goodfellow, I. et al.", 2014, "Generative adversarial nets", "NeurIPS"),
    Reference("Guo, C. et al.", 2017, "On calibration of modern neural networks", "ICML"),
    Reference(
        "Goodfellow, I., Shlens, J. & Szegedy, C.", 2015, "Explaining and harnessing adversarial examples", "ICLR"
    ),
    Reference("Madry, A. et al.", 2018, "Towards deep learning models resistant to adversarial attacks", "ICLR"),
    Reference("Ioffe, S. & Szegedy, C.", 2015, "Batch normalization: accelerating deep network training", "ICML"),
    Reference("Zeiler, M. & Fergus, R.", 2014, "Visualizing and understanding convolutional networks", "ECCV"),
)
SCORES = """
Higher scores mean "more real". For a perfect generator the best discriminator says ½ everywhere, with a cross-entropy of ln 2. AUC is the
probability that a real image scores higher than a sample; ½ is chance, and it needs no scale. *Balanced*: its interval does not lie above
0.75; *D ahead*: above 0.75; *D far ahead*: above 0.95, where the classic loss leaves G hardly a gradient; *G ahead*: below 0.45;
*saturated*: nine of ten scores beyond ±9.2, where a sigmoid is within 1e-4 of 0 or 1. A Wasserstein or hinge critic gives no log-odds:
for it cross-entropy, calibration and saturation say nothing, AUC and the order do.

*Probably not of this GAN*: BatchNorm stores the mean variance of the batches that it saw, and about half of those were generated
images. Images that vary far more inside it than was stored, beyond a factor that all units share, were not among them (nor real
images, where there are any): the discriminator is of another GAN, or one of the networks is not built as it was trained. Silence
is no proof: images that are alike, or vary less, pass, and without stored statistics nothing is tested.
"""
ORDER = """
The samples with the highest and lowest scores. Spearman's correlation says what simple properties go with the score; p against all
orders, adjusted over properties.
"""
ATTACKS = """
How far every pixel may move, in steps of 1/255, until the score crosses the threshold: along the gradient once (FGSM), in five steps (PGD),
or by random signs. Nearly all networks yield to PGD; what counts is how much more a random change of the same size is tolerated.
The largest size tried is 64. The threshold is the middle between the median scores of real images and samples, or 0 without real images.
"""
GAZE = """
Each place of an 8×8 grid is covered by the image's mean colour. The measure is the part of all changes of the score in the strongest
eighth of the places. By chance: each image's places permuted, so that no place is the same in all.
"""


@dataclass(frozen=True)
class Told:
    """Scores by kind of image, and what each kind is compared with: (first, second, separation).

    ``trained`` is p that the discriminator is no different from shuffled weights; 1 where that was not asked.
    """

    scores: Mapping[str, Scores]
    pairs: Sequence[tuple[str, str, Separation]]
    standing: Standing | None
    saturated: float
    silent: bool
    trained: float = 1.0


def scores_section(session: Session, told: Told) -> Section:
    """Distributions of scores, calibration and the verdict."""
    rows: list[tuple[Cell, ...]] = [
        (name, len(values), float(np.median(values)), float(values.mean()), float(values.std()))
        for name, values in told.scores.items()
    ]
    table = Table(("images", "n", "median score", "mean", "standard deviation"), rows)
    blocks: list[Block] = [*_histograms(told.scores), table]
    pairs = [(a, b, s.auc, s.low, s.high, s.p) for a, b, s in told.pairs]
    caption = "Probability that the first scores higher than the second; 0.5 is chance. Mann–Whitney p."
    blocks.append(Table(("images", "against", "AUC", "low", "high", "p"), pairs, caption))
    if told.standing is not None:
        blocks += _calibration(told.standing)
    else:
        add = (
            "Real images (`--data FOLDER`) would add: whether D or G is ahead, cross-entropy against ln 2, calibration;"
        )
        blocks.append(
            Text(
                f"{add} images that training has not seen (`--set discriminator.held-out=FOLDER`), whether D memorises."
            )
        )
    odd = [*_memory_findings(told), *_odd_findings(told)]
    findings = [*_verdict_findings(session, told), *odd]
    return Section(
        "What the discriminator says",
        *blocks,
        summary=" ".join([_summary(told), *(one.text for one in odd)]),
        findings=findings,
        meaning=SCORES,
        references=REFERENCES,
    )


def _histograms(scores: Mapping[str, Scores]) -> list[Block]:
    """Intact images of all kinds on common bins, then each kind beside its spoilt copies."""
    intact = tuple(name for name in scores if "," not in name)
    each = tuple(_histogram(scores, [name for name in scores if name.split(",")[0] == kind]) for kind in intact)
    if len(intact) < 2:
        return list(each)
    kinds = [(kind, block) for kind, block in zip(intact, each, strict=True) if len(block.groups) > 1]
    names, spoilt = tuple(f"{kind}, spoilt" for kind, _ in kinds), tuple(block for _, block in kinds)
    return [_histogram(scores, intact), *([Tabs(names, spoilt)] if len(spoilt) > 1 else spoilt)]


def _histogram(scores: Mapping[str, Scores], names: Sequence[str]) -> Histogram:
    alt = "scores of " + ", ".join(names)
    return Histogram(
        {name: scores[name].tolist() for name in names}, "score (logit)", alt, caption="Higher is more real."
    )


def _summary(told: Told) -> str:
    found = told.standing
    if found is None:
        state = "silent: all scores are equal" if told.silent else f"{percent(told.saturated)} of scores are saturated"
        return f"Without real images no verdict on balance; {state} (|logit| > {SATURATED})."
    gap = found.separation
    lead = "D is far ahead of G" if found.verdict == "D far ahead" else found.verdict
    return (
        f"**{lead}**: a real image scores higher than a sample in {percent(gap.auc)} of pairs. CI {100 * gap.low:.0f} to "
        f"{percent(gap.high)}, 50 % by chance; cross-entropy {found.entropy:.3g} (ln 2 = {OPTIMUM:.3f} at the optimum)."
    )


def _verdict_findings(session: Session, told: Told) -> list[Finding]:
    n = len(told.scores["generated"])
    if told.silent:
        trust = Trust(f"exact, n = {n}", f"all scores of {sum(map(len, told.scores.values()))} images are equal")
        return [Finding("**The discriminator is silent**: it gives every image the same score.", trust, 0.9)]
    found, words = told.standing, ""
    if (found.verdict == "saturated") if found is not None else told.saturated >= 0.9:
        whose = (
            ""
            if session.gan.discriminator and session.gan.discriminator.output == "probability"
            else " (if its loss has a sigmoid)"
        )
        words = (
            f"**The discriminator is saturated**{whose}: {percent(told.saturated)} of scores are beyond ±{SATURATED}"
        )
        trust = Trust(f"exact, n = {n}", "share of scores at which a sigmoid is within 1e-4 of 0 or 1")
        tail = "." if found is None else f"; real above generated in {percent(found.separation.auc)} of pairs."
        return [Finding(words + tail, trust, 0.88)]
    if found is None or found.verdict not in ("D far ahead", "G ahead"):
        return []
    gap = found.separation
    trust = Trust(
        f"CI {gap.low:.2f} to {gap.high:.2f}",
        f"AUC of {len(told.scores['real'])} real images against {n} samples, bootstrap interval; Mann–Whitney p = {gap.p:.2g}; "
        "0.5 by chance",
    )
    if found.verdict == "D far ahead":
        words = f"**D is far ahead of G**: a real image scores higher than a sample in {percent(gap.auc)} of pairs."
    else:
        words = f"**G is ahead of D**: a sample scores higher than a real image in {percent(1 - gap.auc)} of pairs."
    return [Finding(words, trust, 0.88)]


def _memory_findings(told: Told) -> list[Finding]:
    """The real images that were given score above those that training has not seen."""
    known = [gap for first, second, gap in told.pairs if (first, second) == ("real", "held out")]
    if not known or known[0].low <= 0.5 or known[0].p > 0.01:
        return []
    gap = known[0]
    text = (
        f"**The discriminator knows its training images**: they score higher than held-out real images in {percent(gap.auc)} of "
        "pairs (50 % by chance)."
    )
    tested = f"AUC of {len(told.scores['real'])} real against {len(told.scores['held out'])} held-out images; p = {gap.p:.2g}"
    return [Finding(text, Trust(f"CI {gap.low:.2f} to {gap.high:.2f}", tested), 0.3 + 0.8 * (gap.auc - 0.5))]


def prefers_spoilt(pairs: Sequence[tuple[str, str, Separation]]) -> tuple[str, str, Separation] | None:
    """The comparison in which spoilt images score most above the same images intact: three quarters of pairs at least."""
    odd = [pair for pair in pairs if "," in pair[1] and pair[2].high < 0.5 and pair[2].auc < 0.25 and pair[2].p <= 0.01]
    return min(odd, key=lambda pair: pair[2].auc, default=None)


def _odd_findings(told: Told) -> list[Finding]:
    """Spoilt images that a trained discriminator takes for more real than the same images intact."""
    odd = prefers_spoilt(told.pairs)
    if odd is None or told.trained > TRAINED:
        return []
    name, spoilt, gap = odd
    what = spoilt.removeprefix(f"{name}, ")
    kind = "Samples" if name == "generated" else "Real images"
    text = f"{kind} {what} score higher than intact ones in {percent(1 - gap.auc)} of pairs."
    tested = (
        f"AUC of intact above {what}, bootstrap interval; Mann–Whitney p = {gap.p:.2g}; 0.5 by chance; discriminator against shuffled "
        f"weights p = {told.trained:.2g}"
    )
    return [Finding(text, Trust(f"CI {gap.low:.2f} to {gap.high:.2f}", tested), 0.35)]


def _calibration(found: Standing) -> list[Block]:
    rows: list[tuple[Cell, ...]] = [
        ("cross-entropy (nats)", found.entropy, OPTIMUM),
        ("mean probability, real", found.mean_real, 0.5),
        ("mean probability, generated", found.mean_generated, 0.5),
        ("expected calibration error", found.error, found.expected_error),
        ("share of saturated scores", found.saturated, 0.0),
    ]
    table = Table(
        ("as a probability", "value", "optimum or chance"), rows, "Real and generated count alike.", sortable=False
    )
    x = [mean for mean, _, _ in found.bins]
    series = (
        Series("observed", x, [share for _, share, _ in found.bins]),
        Series("calibrated", x, x, role="null"),
    )
    label = "share of real images"
    return [
        table,
        Line(series, "the discriminator's probability", label, "reliability of the discriminator's probability"),
    ]


def order_section(session: Session, images: Tensor, scores: Scores, shown: int) -> Section:
    """Samples that D finds most and least real, and what goes with the score."""
    from scipy.stats import spearmanr

    order = np.argsort(-scores, kind="stable")
    count = min(shown, len(order) // 2) or 1
    chosen = [*order[:count].tolist(), *order[::-1][:count].tolist()]
    labels = tuple(f"{session.sample_name(place)}: {scores[place]:.2f}".replace("-", "−") for place in chosen)
    grid = ImageGrid(
        to_uint8(images[chosen]), f"the {count} samples with the highest scores and the {count} with the lowest", columns=count,
        labels=labels, row_labels=("most real", "least real"), caption="Sample and its score in logits.",
    )  # fmt: skip
    values = {name: value.double().numpy() for name, value in measure(images).items()}
    varying = {name: value for name, value in values.items() if np.ptp(value) > 1e-6 and np.ptp(scores) > 0}
    found = {name: spearmanr(value, scores) for name, value in varying.items()}
    q = adjusted([float(one.pvalue) for one in found.values()])
    rows = [(name, float(one.statistic), float(value)) for (name, one), value in zip(found.items(), q, strict=True)]
    rows.sort(key=lambda row: -abs(row[1]))
    summary = f"Scores of {len(scores)} samples lie between {scores.min():.3g} and {scores.max():.3g}."
    if rows:
        name, r, p = rows[0]
        summary += f" Of simple properties *{name}* goes with them most: ρ = {r:.2f} (0 by chance, q = {p:.2g})."
    table = Table(("property", "Spearman's ρ with the score", "q"), rows)
    return Section("Most and least real", grid, table, summary=summary, meaning=ORDER, references=REFERENCES)


def fragility_section(found: Fragility) -> Section:
    """How many images turn at each size of change."""
    n = len(found.sizes["pgd"])
    names = {"pgd": "PGD", "fgsm": "FGSM", "random": "random signs"}
    series = tuple(
        Series(
            names[way],
            list(SIZES),
            [float((found.sizes[way] <= size).mean()) for size in SIZES],
            role="null" if way == "random" else "",
        )
        for way in ("pgd", "fgsm", "random")
    )
    line = Line(
        series, "largest change (1/255)", "share of images whose verdict turns", "adversarial and random changes"
    )
    rows: list[tuple[Cell, ...]] = [
        (names[way], _words(found.median(way)), float(np.isfinite(found.sizes[way]).mean())) for way in names
    ]
    table = Table(("change", "median smallest size (1/255)", "share that turns at all"), rows, sortable=False)
    blocks: list[Block] = [line, table]
    if found.silent:
        blocks.append(
            Text(f"At {percent(found.silent)} of the images the score has no gradient: attacks cannot begin there.")
        )
    words = "**fragile**: " if found.fragile else ""
    summary = (
        f"{words}PGD turns the verdict on {n} samples with a median change of {_words(found.median('pgd'))}/255; random changes need "
        f"{_words(found.median('random'))}/255 (p = {found.p:.2g}; threshold {found.threshold:.3g})."
    )
    return Section("Adversarial fragility", *blocks, summary=summary, meaning=ATTACKS, references=REFERENCES)


def gaze_section(found: Gaze) -> Section:
    """Where covering a place changes the score."""
    rows, columns = found.effect.shape
    heat = Heatmap(
        found.effect, tuple(f"row {y + 1}" for y in range(rows)), tuple(f"column {x + 1}" for x in range(columns)),
        "mean change of the score when a place is covered", unit="logits",
    )  # fmt: skip
    names, shares = (
        ["measured", "places permuted", "even"],
        [found.share, found.expected, found.top / found.effect.size],
    )
    series = (Series("share of the effect", names, shares),)
    alt = "concentration of the effect, with chance"
    bars = Bar(series, "strongest eighth of the places", "share of the effect", alt)
    text = (
        f"{found.top} of {found.effect.size} places hold {percent(found.share)} of the score's changes ({percent(found.expected)} by "
        f"chance, p = {found.p:.2g})"
    )
    findings = []
    if found.narrow:
        tested = f"{found.images} samples, each place covered in turn; against places permuted in each image, p = {found.p:.2g}"
        words = f"**The discriminator looks at one part of the image only** ({found.place}): {text}."
        findings = [Finding(words, Trust(f"p = {found.p:.2g}", tested), 0.75)]
    return Section(
        "Where the discriminator looks",
        heat,
        bars,
        summary=text + ".",
        findings=findings,
        meaning=GAZE,
        references=REFERENCES,
    )


def _words(size: float) -> str:
    return f"{size:g}" if np.isfinite(size) else f"more than {SIZES[-1]:g}"
