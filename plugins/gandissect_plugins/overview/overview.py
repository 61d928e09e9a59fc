"""Samples, how the checkpoint was opened, architecture, and the health of units and pixels.

for section in Overview().run(session):
    print(section.title, section.summary)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from gandissect.analyzer import Analyzer
from gandissect.blocks import (
    Bar,
    Block,
    Cell,
    Finding,
    Histogram,
    ImageGrid,
    Section,
    Series,
    Table,
    Text,
    Trust,
    to_uint8,
)
from gandissect.gan import Generator, LayerInfo, Network
from gandissect.options import option
from gandissect.reducers import KeepSpec, MomentsResult, MomentsSpec
from gandissect.sampling import prior_words
from gandissect.session import Activations, Images, Session, Want
from gandissect.wording import percent

SATURATED = 0.999
DEAD = 0.05
"""Share of dead units from which on they are a finding."""
ALIKE = 0.01
"""Spread of a pixel over samples below which these are said to look alike; whether they do is tested by the health check."""


@dataclass(frozen=True)
class OverviewOptions:
    """Options of overview."""

    samples: int = option(64, "number of samples shown")


@dataclass(frozen=True)
class LayerHealth:
    """Units of one layer that carry nothing: ``dead`` are always 0, ``constant`` never change (and are not 0)."""

    layer: str
    units: int
    dead: tuple[int, ...]
    constant: tuple[int, ...]


@dataclass(frozen=True)
class OutputHealth:
    """How the images use their range: per channel mean and standard deviation, and fractions of pixels at the ends."""

    low: float
    high: float
    mean: float
    deviation: float
    at_low: float
    at_high: float
    spread: float


def unit_health(session: Session, layers: Iterable[LayerInfo] | None = None) -> list[LayerHealth]:
    """Which units of each layer never vary over the session's samples.

    Args:
        layers: generator layers; the main ones by default.
    """
    found = []
    for info in session.gan.generator.main_layers() if layers is None else layers:
        moments = session[_moments(info, session.n)]
        assert isinstance(moments, MomentsResult)
        still = moments.minimum == moments.maximum
        zero = still & (moments.maximum == 0)
        dead, constant = (tuple(flags.nonzero().flatten().tolist()) for flags in (zero, still & ~zero))
        found.append(LayerHealth(info.name, info.channels, dead, constant))
    return found


def output_health(images: Tensor) -> OutputHealth:
    """How images float32 [N, C, H, W] in [-1, 1] use their range; ``spread`` is the mean per-pixel deviation over samples."""
    flat = images.double()
    return OutputHealth(
        low=float(flat.min()),
        high=float(flat.max()),
        mean=float(flat.mean()),
        deviation=float(flat.std()),
        at_low=float((flat <= -SATURATED).double().mean()),
        at_high=float((flat >= SATURATED).double().mean()),
        spread=float(flat.std(0).mean()) if len(flat) > 1 else 0.0,
    )


def _moments(info: LayerInfo, n: int) -> Want:
    return Want((Activations(info.name),), MomentsSpec(), n)


class Overview(Analyzer):
    """What was opened: samples, assumptions, architecture, dead units and the use of the output range."""

    name = "overview"
    order = 100
    Options = OverviewOptions
    options: OverviewOptions

    def wants(self, session: Session) -> Iterable[Want]:
        """Range of every unit, and the samples that are shown."""
        yield Want((Images(),), KeepSpec("float32"), min(session.n, max(self.options.samples, 256)))
        for info in session.gan.generator.main_layers():
            yield _moments(info, session.n)

    def run(self, session: Session) -> Iterator[Section]:
        """Samples, opening, architecture, health."""
        yield self._samples(session)
        yield _opened(session)
        yield _architecture(session)
        yield _health(session)

    def _samples(self, session: Session) -> Section:
        images = session.images(min(self.options.samples, session.n))
        labels = tuple(session.sample_name(index) for index in range(len(images)))
        alt = f"the first {len(images)} samples of seed {session.seed}"
        grid = ImageGrid(
            to_uint8(images), alt, columns=8, labels=labels, caption=f"Samples 0 to {len(images) - 1}, unselected."
        )
        channels, height, width = session.gan.generator.image_shape
        summary = (
            f"{len(images)} unselected samples, {width}×{height} with {channels} channel{'s' if channels > 1 else ''}, "
            f"from {prior_words(session.gan.generator.latent)}{_classes(session)}."
        )
        meaning = (
            f"Sample *i* is a function of the seed ({session.seed}) and of *i* alone: sample 17 of any run with this seed, "
            "whatever its batch size or length, is the picture shown here as sample 17."
        )
        blocks: list[Block] = [grid]
        if session.gan.generator.latent.prior == "image":
            meaning += (
                " The generator turns one picture into another. The file holds no pictures, so its input is made up: "
                "noise that has the spectrum of natural images. What it makes of real pictures may look quite different."
            )
            blocks += _inputs(session, min(len(images), 8))
        return Section("Samples", *blocks, summary=summary, meaning=meaning)


def _classes(session: Session) -> str:
    classes = session.gan.generator.num_classes
    return f"; sample i is of class i modulo {classes}" if classes else ""


def _inputs(session: Session, count: int) -> list[Block]:
    """The pictures that the first samples were made from, where they can be shown as pictures."""
    latent = session.gan.generator.latent
    if len(latent.shape) != 3 or latent.shape[0] not in (1, 3):
        return []
    low, high = latent.span
    pictures = (session.latents(count).reshape(count, *latent.shape) - low) * (2 / (high - low)) - 1
    labels = tuple(f"input {index}" for index in range(count))
    alt = f"the made-up inputs of the first {count} samples"
    return [ImageGrid(to_uint8(pictures), alt, columns=8, labels=labels, caption="The inputs of the first samples.")]


def _opened(session: Session) -> Section:
    opening = session.gan.opening
    rows: list[tuple[Cell, ...]] = [
        (item.name, item.value, "yes" if item.sure else "no", item.because) for item in opening.assumptions
    ]
    blocks: list[Block] = [Text(f"**{opening.family or 'GAN'}**, opened by `{opening.adapter}`: {opening.why}.")]
    blocks.append(Text(f"Verification: {opening.verification}."))
    if rows:
        caption = "What the file does not say, what was taken instead, and why."
        blocks.append(Table(("what", "taken", "sure", "because"), rows, caption=caption))
    blocks += [Text(sentence) for sentence in _spaces(session.gan.generator)]
    blocks += [Text(f"Note: {note}.") for note in opening.notes]
    if opening.alternatives:
        blocks.append(Text("Could also be opened by " + "; ".join(opening.alternatives) + "."))
    unsure = [item.name for item in opening.assumptions if not item.sure]
    summary = f"{opening.family or 'The GAN'} from {opening.container}; {opening.verification}."
    if unsure:
        summary += f" Assumed without proof: {', '.join(unsure)}."
    meaning = (
        "A network of a known codebase is recognised by the names and shapes of its tensors and rebuilt as that codebase "
        "has it; what neither says is in the table. Any other bare state dict holds tensors and no code: strides, padding, "
        "activations and upsampling are searched. Where the "
        "network has BatchNorm layers the search is checked: in the right architecture, latents from the prior reproduce the "
        "running mean and variance that training stored in each of them. The mismatch is the Gaussian Kullback–Leibler "
        "divergence between stored and measured statistics, averaged over units and layers: below about 0.05 the "
        "reconstruction fits, above 2 something is wrong."
    )
    return Section("How it was opened", *blocks, summary=summary, meaning=meaning)


def _spaces(generator: Generator) -> list[str]:
    """A sentence on the spaces between latent and image, where there are any."""
    if not generator.inner:
        return []
    parts = [
        f"`{space.name}` ({'×'.join(map(str, space.shape))} numbers{', with its mean' if space.centre is not None else ''})"
        for space in generator.inner
    ]
    start = f"`{generator.latent.name}` ({'×'.join(map(str, generator.latent.shape))} numbers)"
    return [
        f"On their way to images, latents pass from {start} through {', '.join(parts)}. "
        "Samples are drawn in the first; truncation and noise, where the family has them, are as in the table."
    ]


def _architecture(session: Session) -> Section:
    gan = session.gan
    blocks: list[Block] = [_layer_table(gan.generator)]
    if gan.discriminator is not None:
        blocks.append(_layer_table(gan.discriminator))
    can = {name.replace("_", " "): "yes" if value else "no" for name, value in vars(gan.capabilities).items()}
    blocks.append(
        Table(
            ("capability", "found"), list(can.items()), caption="What was found by running one sample.", sortable=False
        )
    )
    parameters = (
        f"The generator has {gan.generator.parameter_count:,} parameters in {len(gan.generator.layers)} readable layers"
    )
    if gan.discriminator is not None:
        parameters += f"; the discriminator {gan.discriminator.parameter_count:,}"
    meaning = (
        "A layer is listed because its output was read; it is called editable because an edit of it changed the image."
    )
    return Section("Architecture", *blocks, summary=parameters + ".", meaning=meaning)


def _layer_table(network: Network) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (info.name, info.kind, f"{info.channels}×{info.height}×{info.width}", info.parameters, info.editable, info.main)
        for info in network.layers
    ]
    caption = (
        f"Layers of the {network.role} in order of execution; “analyzed” marks those that the analyses below look at."
    )
    return Table(
        ("layer", "type", "units×height×width", "parameters", "editable", "analyzed"),
        rows,
        caption=caption,
        sortable=False,
    )


def _health(session: Session) -> Section:
    layers = unit_health(session)
    images = session.images(min(256, session.n))
    output = output_health(images)
    dead = sum(len(layer.dead) for layer in layers)
    units = sum(layer.units for layer in layers)
    trust = Trust(f"exact, n = {session.n}", f"the extremes of every unit over all cells of {session.n} samples")
    findings = []
    if dead > DEAD * units:
        text = f"**{dead} of {units} units are dead**: they are 0 for all {session.n} samples."
        findings.append(Finding(text, trust, 0.55))
    names = [layer.layer for layer in layers]
    blocks: list[Block] = []
    if layers:
        series = (
            Series("dead", names, [len(layer.dead) for layer in layers]),
            Series("constant", names, [len(layer.constant) for layer in layers]),
        )
        if any(layer.dead or layer.constant for layer in layers):
            alt = "dead and constant units per layer"
            blocks.append(Bar(series, "layer", "units", alt))
        rows: list[tuple[Cell, ...]] = [
            (
                layer.layer,
                layer.units,
                len(layer.dead),
                len(layer.constant),
                ", ".join(map(str, (*layer.dead, *layer.constant)[:24])),
            )
            for layer in layers
        ]
        blocks.append(Table(("layer", "units", "dead", "constant", "which (first 24)"), rows))
    blocks.append(_pixels(images))
    blocks.append(_output_table(output))
    summary = (
        f"{dead} of {units} units are dead; pixels span {output.low:.2f} to {output.high:.2f}, "
        f"{percent(output.at_low)} at the lower and {percent(output.at_high)} at the upper end."
    )
    if output.spread < ALIKE and len(images) > 1:
        summary += f" All samples look alike: a pixel varies by {output.spread:.4f} over samples."
    meaning = (
        "A dead unit is 0 at every place of every sample; a constant one never changes. Neither can carry information. The spread "
        "is the standard deviation of a pixel over samples, averaged over pixels: near 0 means that all samples look the same."
    )
    return Section("Dead units and pixels", *blocks, summary=summary, findings=findings, meaning=meaning)


def _pixels(images: Tensor) -> Histogram:
    names = ("red", "green", "blue") if images.shape[1] == 3 else tuple(f"channel {c}" for c in range(images.shape[1]))
    step = max(1, images[:, 0].numel() // 20_000)
    groups = {name: images[:, c].flatten()[::step].tolist() for c, name in enumerate(names)}
    return Histogram(
        groups, "pixel value (−1 to 1)", f"distribution of pixel values per channel over {len(images)} samples"
    )


def _output_table(output: OutputHealth) -> Table:
    rows: list[tuple[Cell, ...]] = [
        ("lowest pixel", output.low),
        ("highest pixel", output.high),
        ("mean", output.mean),
        ("standard deviation", output.deviation),
        ("fraction at −1", output.at_low),
        ("fraction at 1", output.at_high),
        ("spread over samples", output.spread),
    ]
    return Table(("output", "value"), rows, sortable=False)
