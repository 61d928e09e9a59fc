"""Grad-CAM as sections of the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gandissect.analyzer import Analyzer, Needs, left_out, spread
from gandissect.blocks import Block, Cell, Finding, Overlay, Reference, Section, Table, Text, Trust, in_tabs, to_uint8
from gandissect.concepts import concept_areas, telling_first
from gandissect.errors import NoSuchCapability
from gandissect.gan import LayerInfo, Network
from gandissect.options import option
from gandissect.reducers import KeepSpec
from gandissect.session import Images, Session, Want
from gandissect.targets import ConceptIntensity, Score, concept_target
from gandissect.wording import p_value, percent
from gandissect_plugins.attributions.checks import SIMILAR
from gandissect_plugins.attributions.trained import trained_p
from gandissect_plugins.gradcam.check import CamCheck, Subject, check_cams

REFERENCES = (
    Reference("Selvaraju et al.", 2017, "Grad-CAM: Visual Explanations from Deep Networks", "ICCV"),
    Reference(
        "Draelos & Carin", 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations", "arXiv 2011.08891"
    ),
    Reference("Adebayo et al.", 2018, "Sanity Checks for Saliency Maps", "NeurIPS"),
    Reference("Petsiuk et al.", 2018, "RISE: Randomized Input Sampling for Explanation", "BMVC"),
)
MEANING = """\
A map is the sum over a layer's units of *gradient × activation*. **Grad-CAM** takes each unit's mean gradient \
over the map; **HiResCAM** takes each cell's own. They agree where the layer is followed by a mean over the map; \
where a fully connected layer or a convolution of the map's size follows, Grad-CAM forgets where the gradient \
was. Maps are signed: blue and orange speak against and for. No ReLU and no scaling per image is applied, so \
that a map without positive evidence does not come out blank or blown up.

*Deletion*: the highest cells of the map are set to 0 in the layer, and as many random cells; the difference of \
the losses is tested by flipping signs over the images. *Randomisation*: a map that looks the same when the \
weights are shuffled within each tensor shows the architecture, not what was learned. A finding needs both at \
the last layer that is a map, and a discriminator that tells images from their scrambled pixels better than its \
shuffled copies do. Maps in the generator give no finding: there is no such test for them here. An activation of \
0 is not a natural value at every layer."""


LEAST_PRESENT = 0.25


@dataclass(frozen=True)
class GradCamOptions:
    """Options of ``grad-cam``."""

    images: int = option(8, "samples that maps are made of")
    fraction: float = option(0.2, "fraction of a map's cells that the check deletes")
    shuffles: int = option(
        49, "discriminators with shuffled weights to compare with; 0 leaves out that check and its findings"
    )
    concepts: int = option(2, "concepts whose area is explained in the generator")
    layers: int = option(6, "main layers of each network that get maps, spread over depth; 0 for all")


@dataclass(frozen=True)
class ConceptCams:
    """Maps of one concept in the generator.

    Attributes:
        concept: its name.
        target: what the gradient is taken of.
        hard: the target is a stand-in (the region's intensity), because the concept has no differentiable score.
        areas: float32 [N], the concept's measured area in 0..1.
        checks: per layer and weighting; the deletion is measured in the concept's area.
    """

    concept: str
    target: str
    hard: bool
    areas: Tensor
    checks: tuple[CamCheck, ...]


def map_layers(network: Network, at_most: int = 0) -> tuple[LayerInfo, ...]:
    """Main layers that are maps of at least 2×2 cells; ``at_most`` so many of them, spread over depth, where that is not 0."""
    maps = [
        info for info in network.main_layers() if info.height * info.width >= 4 and min(info.height, info.width) > 1
    ]
    return spread(maps, at_most or len(maps))


def explain_score(
    session: Session, images: Tensor | None = None, options: GradCamOptions | None = None
) -> tuple[CamCheck, ...]:
    """Maps of the discriminator's score at its main layers, with their checks.

    Args:
        session: its first samples are explained where ``images`` is left out.
        images: float32 [N, C, H, W] in [-1, 1].
        options: see :class:`GradCamOptions`.
    """
    chosen = options or GradCamOptions()
    discriminator = session.gan.discriminator
    if discriminator is None:
        raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
    layers = map_layers(discriminator, chosen.layers)
    if not layers:
        return ()
    pictures = session.images(min(chosen.images, session.n)) if images is None else images
    labels = session.labels(range(len(pictures)), "discriminator")
    subject = Subject(discriminator, pictures, (Score(),), (Score(),), labels=labels)
    names = [info.name for info in layers]
    rng = session.rng("grad-cam/score")
    learned = trained_p(discriminator, pictures, chosen.shuffles, session.rng("grad-cam/trained"), labels=labels)
    return check_cams(subject, names, names[-1], fraction=chosen.fraction, learned=learned, rng=rng)[0]


def explain_concepts(
    session: Session, concepts: Sequence[str] | None = None, options: GradCamOptions | None = None
) -> tuple[ConceptCams, ...]:
    """Maps of concepts' areas at the generator's main layers, with their checks.

    Args:
        session: its first samples are explained, by its vocabulary.
        concepts: names; left out, the most telling of those present in a quarter of the samples.
        options: see :class:`GradCamOptions`.
    """
    chosen = options or GradCamOptions()
    vocabulary, generator = session.vocabulary, session.gan.generator
    count = min(chosen.images, session.n)
    images, latents = session.images(count), session.latents(count)
    areas = concept_areas(session.segment(images))
    known = [concept.name for concept in vocabulary.concepts]
    names = list(concepts) if concepts is not None else _varying(session, areas, chosen.concepts)
    layers = map_layers(generator, chosen.layers)
    if not names or not layers:
        return ()
    targets = tuple(concept_target(vocabulary, name, images[:2]) for name in names)
    measures = tuple(_area_measure(session, target.index) for target in targets)
    hard = tuple(isinstance(target, ConceptIntensity) for target in targets)
    subject = Subject(generator, latents, targets, measures, hard, session.labels(range(count)))
    middle = min(layers, key=lambda info: abs(info.height - generator.image_shape[1] / 4)).name
    rows = check_cams(
        subject,
        [info.name for info in layers],
        middle,
        fraction=chosen.fraction,
        alike=3,
        guard=4,
        rng=session.rng("grad-cam/concepts"),
    )
    found = zip(names, targets, hard, rows, strict=True)
    return tuple(
        ConceptCams(name, target.name, stand_in, areas[:, known.index(name)], row)
        for name, target, stand_in, row in found
    )


def _varying(session: Session, areas: Tensor, count: int) -> list[str]:
    """Concepts that cover 1 to 70 % of enough images, the most telling first."""
    present = ((areas > 0.01) & (areas < 0.7)).float().mean(0)
    concepts = session.vocabulary.concepts
    return [concepts[k].name for k in telling_first(concepts, areas) if present[k] >= LEAST_PRESENT][:count]


class _AreaMeasure:
    """Outputs -> the concept's area by its own, hard masks."""

    def __init__(self, session: Session, index: int) -> None:
        self._session, self._index = session, index

    def __call__(self, outputs: Tensor) -> Tensor:
        return concept_areas(self._session.segment(outputs, only=[self._index]))[:, 0]


def _area_measure(session: Session, index: int) -> _AreaMeasure:
    return _AreaMeasure(session, index)


class GradCam(Analyzer):
    """Where the discriminator's score and a concept's area come from, layer by layer.

    References:
        Selvaraju et al. 2017; Draelos & Carin 2020; Adebayo et al. 2018; Petsiuk et al. 2018.
    """

    name = "grad-cam"
    order = 300
    references = REFERENCES
    Options = GradCamOptions

    def wants(self, session: Session) -> Iterable[Want]:
        count = min(cast(GradCamOptions, self.options).images, session.n)
        return [Want((Images(),), KeepSpec(), count)]

    def run(self, session: Session) -> Iterator[Section]:
        options = cast(GradCamOptions, self.options)
        yield self._score(session, options, real=False)
        if session.real is not None and session.gan.discriminator is not None:
            yield self._score(session, options, real=True)
        yield self._concepts(session, options)

    def _score(self, session: Session, options: GradCamOptions, *, real: bool) -> Section:
        title = f"What the discriminator looks at in {'real images' if real else 'samples'}"
        missing = Needs(discriminator=True, discriminator_gradients=True).missing(session)
        if missing:
            return Section(title, status="skipped", summary=missing)
        count = min(options.images, session.n)
        images = session.real_images(count) if real else session.images(count)
        checks = explain_score(session, images, options)
        if not checks:
            return Section(
                title,
                status="skipped",
                summary="the discriminator's layers are vectors, not maps; see its pixels with --analyzers attributions",
            )
        discriminator = session.gan.discriminator
        assert discriminator is not None
        names = [f"image {i}" if real else session.sample_name(i) for i in range(count)]
        return score_section(title, images, checks, real=real, names=names, note=_unseen(discriminator, options))

    def _concepts(self, session: Session, options: GradCamOptions) -> Section:
        title = "Where in the generator a concept comes from"
        missing = Needs(gradients=True, layers=True, edits=True, concepts=True).missing(session)
        if not missing and not session.vocabulary.reads_pixels:
            missing = "needs concepts found in pixels (pass --concepts NAME): given masks say nothing of edited images"
        if missing:
            return Section(title, status="skipped", summary=missing)
        cams = explain_concepts(session, options=options)
        if not cams:
            return Section(title, status="skipped", summary=_nothing(session))
        note = _unseen(session.gan.generator, options)
        count = len(cams[0].areas)
        names = [session.sample_name(i) for i in range(count)]
        return concept_section(title, session.images(count), cams, names=names, note=note)


def _unseen(network: Network, options: GradCamOptions) -> str:
    """A sentence on layers without maps."""
    return left_out(
        len(map_layers(network, options.layers)), len(map_layers(network)), "`--set grad-cam.layers=0` takes all"
    )


def _nothing(session: Session) -> str:
    if not map_layers(session.gan.generator):
        return "the generator has no layer that is a map, only vectors; --skip grad-cam leaves this out"
    return "no concept covers 1 to 70 % of a quarter of the samples; pass others with --concepts NAME"


def score_section(
    title: str, images: Tensor, checks: Sequence[CamCheck], *, real: bool, names: Sequence[str], note: str = ""
) -> Section:
    """Signed maps of the score per layer and the table of checks."""
    values = checks[0].cam.values
    blocks: list[Block] = [Text(note)] if note else []
    silent = torch.stack([check.cam.silent for check in checks]).all(0)
    if silent.any():
        blocks.append(Text(_silence(silent, values)))
    labels = [f"{name}: {value:.2f}" for name, value in zip(names, values.tolist(), strict=True)]
    blocks += _overlays(images, checks, labels, "logits", "score")
    blocks.append(_table(checks, "logits"))
    best = min((check for check in checks if _compared(check)), key=lambda check: check.deletion.gain.p)
    summary = (
        "The score does not respond: its gradient is 0 on all images."
        if silent.all()
        else _sentence(best, "logits", "score")
    )
    findings = [] if real else [_finding(check, "logits", "score") for check in checks if check.passed][:1]
    return Section(title, *blocks, summary=summary, findings=findings, meaning=MEANING, references=REFERENCES)


def concept_section(
    title: str, images: Tensor, cams: Sequence[ConceptCams], *, names: Sequence[str], note: str = ""
) -> Section:
    """Maps per concept and layer and the tables of checks."""
    blocks: list[Block] = [Text(note)] if note else []
    for cam in cams:
        stand_in = " (a stand-in: this concept has no differentiable score)" if cam.hard else ""
        blocks.append(
            Text(f"**{cam.concept}**: maps of the *{cam.target}*{stand_in}; deletion is measured in the area itself.")
        )
        shares = [percent(area) for area in cam.areas.tolist()]
        labels = [f"{name}: {share}" for name, share in zip(names, shares, strict=True)]
        unit = "intensity" if cam.hard else "area"
        blocks += _overlays(images, cam.checks, labels, unit, "area")
        blocks.append(_table(cam.checks, "of the image"))
    beaten = sum(
        any(_compared(c) and c.deletion.gain.clear and c.similarity < SIMILAR for c in cam.checks) for cam in cams
    )
    summary = (
        f"For {beaten} of {len(cams)} concepts the map's top cells matter more than random cells, and the map depends on "
        "the weights."
    )
    return Section(title, *blocks, summary=summary, meaning=MEANING, references=REFERENCES)


def _shown(check: CamCheck) -> bool:
    """Grad-CAM of every layer, HiResCAM of the one that is checked fully."""
    return check.weighting == "pooled" or _compared(check)


def _compared(check: CamCheck) -> bool:
    """It is at the layer whose maps are compared with those of shuffled weights."""
    return check.similarity == check.similarity


def _verdict(check: CamCheck) -> str:
    gain = check.deletion.gain
    better = "do" if gain.clear else "do not"
    return f"Its top cells {better} matter more than random cells ({p_value(gain.p)})."


def _silence(silent: Tensor, values: Tensor) -> str:
    which = "all" if silent.all() else str(int(silent.sum()))
    at = values[silent]
    span = f"{float(at.min()):.3g} to {float(at.max()):.3g}"
    return (
        f"The gradient of the score is 0 everywhere on {which} of {len(silent)} images (scores {span}): the score is "
        "constant or saturated there, and their maps are empty. Empty means *no answer*, not *no evidence*."
    )


def _overlays(
    images: Tensor, checks: Sequence[CamCheck], labels: Sequence[str], unit: str, labelled: str
) -> list[Block]:
    """The maps one layer at a time, first the one whose top cells matter most surely."""
    shown = sorted(
        (check for check in checks if _shown(check)),
        key=lambda check: (not check.deletion.gain.clear, not _compared(check), check.deletion.gain.p),
    )
    return in_tabs({f"{one.method}, {one.cam.layer}": _overlay(images, one, labels, unit, labelled) for one in shown})


def _overlay(images: Tensor, check: CamCheck, labels: Sequence[str], unit: str, labelled: str) -> Overlay:
    maps = check.cam.by(check.weighting).numpy()
    what = f"{check.method} of the {check.cam.target} at {check.cam.layer}, {maps.shape[1]}×{maps.shape[2]} cells"
    return Overlay(
        to_uint8(images),
        maps,
        alt=f"{what}, on {len(images)} images",
        signed=True,
        shared_scale=False,
        labels=tuple(labels),
        unit=unit,
        caption=f"{what}. {_verdict(check)} Under each picture: its {labelled}, and the map's largest value.",
    )


def _table(checks: Sequence[CamCheck], unit: str) -> Table:
    columns: tuple[str, ...] = (
        "layer",
        "method",
        f"loss without top cells ({unit})",
        "without random cells",
        "difference",
        "CI low",
        "CI high",
        "p",
        "similarity to shuffled weights",
        "p, discriminator against shuffled weights",
    )
    rows = [_row(check) for check in checks]
    if all(row[-1] is None for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    lost = checks[0].deletion
    caption = f"The top {percent(lost.fraction)} of cells set to 0; p by flipping signs over {lost.gain.n} images."
    return Table(columns, rows, caption=caption)


def _row(check: CamCheck) -> list[Cell]:
    gain = check.deletion.gain
    return [
        check.cam.layer,
        check.method,
        float(check.deletion.top.mean()),
        float(check.deletion.random.mean()),
        gain.mean,
        gain.low,
        gain.high,
        gain.p,
        check.similarity if _compared(check) else None,
        check.learned if check.learned < 1 else None,
    ]


def _sentence(check: CamCheck, unit: str, what: str) -> str:
    lost = check.deletion
    numbers = f"{_amount(-float(lost.top.mean()), unit)} (random cells {_amount(-float(lost.random.mean()), unit)})"
    where = f"the {check.method} map at `{check.cam.layer}`"
    return f"Without the top {percent(lost.fraction)} of {where} the {what} changes by {numbers}."


def _amount(value: float, unit: str) -> str:
    return f"{100 * value:+.1f} points of the image" if unit == "of the image" else f"{value:+.2g} {unit}"


def _finding(check: CamCheck, unit: str, what: str) -> Finding:
    gain = check.deletion.gain
    trust = Trust(
        f"{p_value(max(gain.p, check.learned))} · shuffled ρ {check.similarity:.2f}",
        f"deletion of top against random cells, {gain.n} images: {gain}; {p_value(check.learned)} that shuffled weights "
        f"tell images from scrambled pixels as well; maps of shuffled weights have rank correlation "
        f"{check.similarity:.2f} (limit {SIMILAR})",
    )
    return Finding(_sentence(check, unit, what), trust, weight=0.45)
