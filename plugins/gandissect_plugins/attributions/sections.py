"""Attributions as sections of the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from gandissect.analyzer import Analyzer, Needs
from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Finding,
    Fold,
    Line,
    Overlay,
    Reference,
    Section,
    Series,
    Table,
    Text,
    Trust,
    in_tabs,
    to_uint8,
)
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Areas, Images, Session, Want
from gandissect.trust import adjusted
from gandissect.wording import p_number, p_value, percent
from gandissect_plugins.attributions.checks import SIMILAR
from gandissect_plugins.attributions.latent import (
    AREAS_FROM,
    LEAST,
    LatentAttribution,
    LatentEffort,
    attribute_all_latents,
    known_properties,
)
from gandissect_plugins.attributions.methods import METHODS, Effort, Method
from gandissect_plugins.attributions.pixels import (
    AttributionCheck,
    ScoreExplained,
    affordable_methods,
    check_attributions,
)

REFERENCES = (
    Reference("Sundararajan, Taly & Yan", 2017, "Axiomatic Attribution for Deep Networks", "ICML"),
    Reference("Lundberg & Lee", 2017, "A Unified Approach to Interpreting Model Predictions", "NeurIPS"),
    Reference("Ribeiro, Singh & Guestrin", 2016, '"Why Should I Trust You?"', "KDD"),
    Reference("Zeiler & Fergus", 2014, "Visualizing and Understanding Convolutional Networks", "ECCV"),
    Reference("Petsiuk, Das & Saenko", 2018, "RISE: Randomized Input Sampling for Explanation", "BMVC"),
    Reference("Adebayo et al.", 2018, "Sanity Checks for Saliency Maps", "NeurIPS"),
    Reference("Kokhlikyan et al.", 2020, "Captum: A unified and generic model interpretability library for PyTorch"),
)
NAMES: dict[Method, str] = {
    "integrated-gradients": "Integrated gradients",
    "gradient-shap": "GradientShap",
    "occlusion": "Occlusion",
    "lime": "LIME",
    "kernel-shap": "KernelShap",
}
PIXELS = """\
Each map says how much a pixel raises (positive) or lowers the discriminator's logit, against grey \
(*GradientShap*: against other samples). LIME and KernelShap give one number per superpixel. The methods need \
not agree: they answer different questions.

*Deletion* turns the highest pixels grey, first 10 %, then 20 % and so on, and takes the mean score over the \
steps; *insertion* goes the other way. The control is the same map at another place of the image, so that the \
holes have the same shapes. Differences are paired over images and tested by flipping signs; the p of deletion \
is adjusted over the methods. *Similarity* is the rank correlation with the map of a network with shuffled \
weights: high means that the map shows the image and not the network. *Error* is what the sum of the map misses \
of the change in score; *R²* is that of the linear surrogate on perturbations it was not fitted on. A finding \
needs deletion, similarity, and a discriminator that tells images from their scrambled pixels better than its \
shuffled copies do. Grey holes are no natural images."""
LATENTS = """\
Around single samples the latent is perturbed and a linear model of the property is fitted (LIME); its R² is \
measured on perturbations that it has not seen. *Ablation* sets one coordinate to the mean of the prior. \
*Agreement* is the correlation of what the linear model predicts for each ablation with what it does. \
*Moving* takes the top three coordinates of a sample by one standard deviation in the direction that should \
raise the property, beside three random ones. *Share* is the part of the squared slope that one coordinate \
carries; after a random rotation of the latent space it is below *by chance* in 95 of 100 cases. A coordinate \
that is not above that is a direction like any other: then look at directions, not at coordinates. A finding \
needs all of these and a share of 35 %."""


@dataclass(frozen=True)
class AttributionOptions:
    """Options of ``attributions``."""

    images: int = option(8, "samples whose score is attributed to pixels")
    methods: tuple[str, ...] = option(tuple(METHODS), "which methods; see the default for all")
    shuffles: int = option(
        49, "discriminators with shuffled weights to compare with; 0 leaves that out, and its findings"
    )
    steps: int = option(24, "steps of integrated gradients")
    perturbations: int = option(144, "perturbed images per sample for LIME and KernelShap")
    latents: int = option(6, "samples around which coordinates of the latent are tried; 0 leaves that section out")
    concepts: int = option(3, "concepts whose area is explained by coordinates, beside the measured properties")


TOO_LARGE = (
    "needs hundreds of images around each sample, and one image of this generator costs too much for that (in Python: "
    "attribute_all_latents)"
)


def _spared(session: Session, effort: LatentEffort) -> str:
    """A sentence on what was left out because the generator is large."""
    size = session.gan.generator.latent.size
    if effort.coordinates >= size and effort.perturbations >= min(768, max(LEAST, 3 * size)):
        return ""
    return (
        f"This generator is large: around each sample {effort.perturbations} perturbed images were made, and "
        f"{effort.coordinates} of {size} coordinates, drawn at random, were set to the mean."
    )


class Attributions(Analyzer):
    """Which pixels the score comes from, and which coordinates of the latent a property comes from.

    References:
        Sundararajan et al. 2017; Lundberg & Lee 2017; Ribeiro et al. 2016; Zeiler & Fergus 2014; Petsiuk et al. 2018;
        Adebayo et al. 2018.
    """

    name = "attributions"
    needs = Needs(packages=("captum",))
    order = 350
    references = REFERENCES
    Options = AttributionOptions

    def wants(self, session: Session) -> Iterable[Want]:
        options = cast(AttributionOptions, self.options)
        wants = [Want((Images(),), KeepSpec(), min(max(16, options.images), session.n))]
        if options.concepts and options.latents:
            wants.append(Want((Areas(),), KeepSpec(), min(AREAS_FROM, session.n)))
        return wants

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(AttributionOptions, self.options)
        yield self._pixels(session, options)
        if options.latents:
            yield self._latents(session, options)

    def _pixels(self, session: Session, options: AttributionOptions) -> Section:
        title = "Which pixels the discriminator's score comes from"
        missing = Needs(discriminator=True, discriminator_gradients=True).missing(session)
        if missing:
            return Section(title, status="skipped", summary=missing)
        images = session.images(min(options.images, session.n))
        methods = [cast(Method, method) for method in options.methods]
        effort = Effort(steps=options.steps, perturbations=options.perturbations)
        kept = affordable_methods(session, methods, len(images), effort)
        dropped = ", ".join(NAMES[method] for method in methods if method not in kept)
        note = f"This discriminator is large: {dropped} would take very long and were left out." if dropped else ""
        found = check_attributions(session, images, kept, effort=effort, shuffles=options.shuffles)
        return pixel_section(title, found, [session.sample_name(i) for i in range(len(images))], note)

    def _latents(self, session: Session, options: AttributionOptions) -> Section:
        title = "Which latent coordinates a property comes from"
        missing = Needs(latent_vector=True).missing(session)
        if missing:
            return Section(title, status="skipped", summary=missing)
        properties = known_properties(session, options.concepts)
        effort = LatentEffort(samples=options.latents).fitted(session)
        if effort is None:
            return Section(title, status="skipped", summary=TOO_LARGE)
        found = attribute_all_latents(session, properties, effort=effort)
        return latent_section(title, found, session.gan.generator.latent.name, note=_spared(session, effort))


def pixel_section(title: str, found: ScoreExplained, names: Sequence[str], note: str = "") -> Section:
    """Maps per method, curves, and the table of checks; ``names`` are what the images are called."""
    blocks: list[Block] = [Text(note)] if note else []
    if found.silent.any():
        blocks.append(Text(_silence(found.silent, found.scores)))
    if not found.checks:
        summary = "The score does not respond: its gradient is 0 on all images, so there is nothing to attribute."
        return Section(title, *blocks, summary=summary, meaning=PIXELS, references=REFERENCES)
    labels = tuple(f"{name}: {score:.2f}" for name, score in zip(names, found.scores.tolist(), strict=True))
    sound = [check for check in found.checks if check.sound]
    maps = [_overlay(found.images, check, labels) for check in (*sound, *(c for c in found.checks if not c.sound))]
    key = "Under each sample: its score, and the map's largest value."
    maps[0] = replace(maps[0], caption=f"{maps[0].caption} {key}")
    blocks += maps[: len(sound)]
    failing = tuple(maps[len(sound) :])
    if failing:
        blocks.append(Fold(f"Maps that do not pass their checks ({len(failing)})", failing))
    blocks += [_table(found.checks), _lines(found.checks)]
    best = max(found.checks, key=lambda check: (check.sound, check.deletion.mean))
    summary = f"{len(sound)} of {len(found.checks)} methods pass deletion and randomisation. {_sentence(best)}"
    findings = [_finding(best, len(sound), len(found.checks))] if best.passed else []
    return Section(title, *blocks, summary=summary, findings=findings, meaning=PIXELS, references=REFERENCES)


def _silence(silent: Tensor, scores: Tensor) -> str:
    which, at = ("all" if silent.all() else str(int(silent.sum()))), scores[silent]
    return (
        f"The gradient of the score is 0 everywhere on {which} of {len(silent)} images (scores {float(at.min()):.3g} to "
        f"{float(at.max()):.3g}): the score is constant or saturated there. Gradient maps are empty on them; that is "
        "no evidence."
    )


def _overlay(images: Tensor, check: AttributionCheck, labels: tuple[str, ...]) -> Overlay:
    name = NAMES[check.attribution.method]
    verdict = "passes deletion and randomisation" if check.sound else "does not pass its checks"
    return Overlay(
        to_uint8(images),
        check.attribution.maps.numpy(),
        alt=f"{name} of the discriminator's score on {len(images)} samples",
        labels=labels,
        unit="logits",
        caption=f"{name}: {verdict}.",
    )


def _table(checks: Sequence[AttributionCheck]) -> Table:
    columns = (
        "method",
        "fall without top 10 % (logits)",
        "moved map",
        "deletion gain",
        "CI low",
        "CI high",
        "p, adjusted",
        "insertion gain",
        "CI low",
        "CI high",
        "p",
        "similarity to shuffled weights",
        "error (logits)",
        "R²",
    )
    n, trained = checks[0].deletion.n, checks[0].trained
    caption = (
        f"Gains are areas between curves in logits, over {n} images. p of the discriminator against shuffled weights: "
        f"{p_number(trained)}."
    )
    return Table(columns, [_row(check) for check in checks], caption=caption)


def _row(check: AttributionCheck) -> list[Cell]:
    fall, control = check.loss()
    found, lost, won = check.attribution, check.deletion, check.insertion
    return [
        NAMES[found.method],
        fall,
        control,
        lost.mean,
        lost.low,
        lost.high,
        check.adjusted,
        won.mean,
        won.low,
        won.high,
        won.p,
        check.similarity,
        None if found.error is None else float(found.error.mean()),
        None if found.r2 is None else float(found.r2.median()),
    ]


def _lines(checks: Sequence[AttributionCheck]) -> Line:
    x = checks[0].curves.fractions.tolist()
    series = [Series(NAMES[c.attribution.method], x, c.curves.deletion.mean(0).tolist()) for c in checks]
    control = sum(c.curves.deletion_control.mean(0) for c in checks) / len(checks)
    series.append(Series("moved maps", x, cast(Tensor, control).tolist(), role="null"))
    return Line(
        tuple(series),
        x_label="fraction of pixels turned grey, highest first",
        y_label="mean score (logits)",
        alt="deletion curves of all methods and of the maps moved to another place",
        caption="Deletion: the faster the score falls, the better the map names what it rests on.",
    )


def _sentence(check: AttributionCheck) -> str:
    fall, control = check.loss()
    name = NAMES[check.attribution.method]
    return (
        f"The discriminator's score hangs on some pixels more than on others: where the 10 % that {name} ranks first "
        f"turn grey it changes by {-fall:+.2g} logits, with as many others (the same map moved) by {-control:+.2g}."
    )


def _finding(check: AttributionCheck, passed: int, methods: int) -> Finding:
    trust = Trust(
        f"{p_value(max(check.adjusted, check.trained))} · shuffled ρ {check.similarity:.2f}",
        f"deletion against the moved map, {check.deletion.n} images: {check.deletion}; adjusted over {methods} "
        f"methods {p_number(check.adjusted)}; discriminator against shuffled weights {p_value(check.trained)}; similarity of maps "
        f"{check.similarity:.2f} (limit {SIMILAR}); {passed} of {methods} methods pass",
    )
    return Finding(_sentence(check), trust, weight=0.4)


def latent_section(title: str, found: Sequence[LatentAttribution], space: str, *, note: str = "") -> Section:
    """The table of properties and bars of the coordinates that matter most."""
    ps = adjusted([row.special for row in found])
    special = {row.name: float(p) for row, p in zip(found, ps, strict=True) if row.single and p < 0.05}
    order = sorted(found, key=lambda row: (row.name not in special, -float(row.r2.median())))
    blocks: list[Block] = [Text(note)] if note else []
    blocks.append(_latent_table(found, space))
    blocks += in_tabs({row.name: _bars(row, space) for row in order[:3]})
    findings = [_latent_finding(row, special[row.name], space) for row in found if row.name in special]
    summary = (
        f"{len(special)} of {len(found)} properties hang on a single coordinate of {space} (a share of 35 %, more than by "
        "rotation); "
        f"for {sum(row.passed for row in found)} the top coordinates pass their checks."
    )
    return Section(title, *blocks, summary=summary, findings=findings, meaning=LATENTS, references=REFERENCES)


def _latent_table(found: Sequence[LatentAttribution], space: str) -> Table:
    columns = (
        "property",
        "top coordinates",
        "R², held-out",
        "agreement",
        "change by moving top",
        "random",
        "difference",
        "CI low",
        "CI high",
        "p",
        "share of the first",
        "by chance (95 %)",
        "p of the share",
    )
    rows: list[list[Cell]] = [
        [
            row.name,
            ", ".join(f"{space}[{place}]" for place in row.order[:3]),
            float(row.r2.median()),
            float(row.agreement.median()),
            *row.moves,
            row.move.mean,
            row.move.low,
            row.move.high,
            row.move.p,
            row.share,
            row.share_null,
            row.special,
        ]
        for row in found
    ]
    return Table(columns, rows, caption=f"Medians over {found[0].move.n} samples; changes in units of the property.")


def _bars(row: LatentAttribution, space: str) -> Bar:
    places = row.order[:12]
    names = [f"{space}[{place}]" for place in places]
    lime = row.slopes.abs().mean(0)[places].tolist()
    ablation = row.ablation.abs().mean(0)
    series = [Series("LIME: per standard deviation", names, lime)]
    if not ablation.isnan().any():
        series.append(Series("ablation: set to the mean", names, ablation[places].tolist()))
    return Bar(
        tuple(series),
        x_label="coordinate",
        y_label=f"mean |change| of {row.name}",
        alt=f"how much single coordinates of {space} change {row.name}",
        caption=f"{row.name}: R² {float(row.r2.median()):.2f}, agreement {float(row.agreement.median()):.2f}.",
    )


def _latent_finding(row: LatentAttribution, p: float, space: str) -> Finding:
    first = row.order[0]
    text = (
        f"`{space}[{first}]` carries {percent(row.share)} of the local effect on *{row.name}*; in a rotated latent "
        f"space no coordinate carries more than {percent(row.share_null)}."
    )
    trust = Trust(
        f"{p_value(p)} · R² {float(row.r2.median()):.2f}",
        f"share against 999 random rotations, adjusted over properties; moving the top coordinates against random "
        f"ones: {row.move}; agreement of LIME and ablation {float(row.agreement.median()):.2f}",
    )
    return Finding(text, trust, weight=0.4)
