"""How far generated samples are from real ones, and which of either lie where the other do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gandissect.blocks import Block, Finding, Reference, Section, Table, Text, Trust
from gandissect.metrics import inception_score
from gandissect.trust import adjusted
from gandissect.wording import p_value

from .evidence import PERMUTATIONS, Comparison, K, Measured, Spread
from .inception import Inception
from .words import number, span

DISTANCE, COVERED = "Distance between real and generated", "Plausible and covered"
RATE = 0.05
DISTANCE_REFERENCES = (
    Reference("Heusel, M. et al.", 2017, "GANs trained by a two time-scale update rule", "NeurIPS"),
    Reference("Gretton, A. et al.", 2012, "A kernel two-sample test", "JMLR 13"),
    Reference("Bińkowski, M. et al.", 2018, "Demystifying MMD GANs", "ICLR"),
    Reference("Chong, M. J. & Forsyth, D.", 2020, "Effectively unbiased FID and Inception Score", "CVPR"),
    Reference("Efron, B.", 1982, "The jackknife, the bootstrap and other resampling plans", "SIAM"),
)
COVERED_REFERENCES = (
    Reference("Kynkäänniemi, T. et al.", 2019, "Improved precision and recall metric", "NeurIPS"),
    Reference("Naeem, M. F. et al.", 2020, "Reliable fidelity and diversity metrics", "ICML"),
    Reference("Wilson, E. B.", 1927, "Probable inference, the law of succession, and statistical inference", "JASA 22"),
)
DISTANCE_MEANING = f"""
- *Fréchet distance*: Gaussians are fitted to the features of both sets; their squared distance is
  ‖μ₁ − μ₂‖² + tr(C₁ + C₂ − 2(C₁C₂)^½). It is called **FID** only with the Inception network and weights that the name
  belongs to; numbers of different spaces do not compare. Few samples make it too large: compare at equal n, or by the
  column *∞ samples* (a line over 1/n, extrapolated), which is empty where there are fewer than 4.5
  samples for each feature. Its interval is the infinitesimal jackknife's.
- *Kernel distance* (KID with that network): the unbiased squared MMD with the kernel (xᵀy/D + 1)³. It is 0 on average
  for equal distributions and may be negative. Its interval is a bootstrap's, moved onto the estimate; p counts
  {PERMUTATIONS} exchanges of the labels real and generated, adjusted over the spaces.
- *What 0 looks like*: the real images are split in halves at random; each half is compared with the other and with as
  many generated samples. Only what is clear of that floor is a finding. Duplicates among the real images lower it. The
  real images were resized and cropped to the generator's size first.
- *pixels* are averages on a grid of 8×8: colours and layout. The *discriminator* was trained to tell these sets apart: a
  stern judge, and one that differs from GAN to GAN. FID itself and the Inception Score need Inception's weights, which do not
  ship: `--set distribution.spaces=pixels,inception=FILE` takes them, `docs/metrics.md` has the other spaces.
"""
COVERED_MEANING = f"""
Each sample has a ball that reaches its {K}rd nearest neighbour of its own set.

- *Precision*: share of generated samples inside a ball of a real one (≤): are they plausible? *Recall*: share of real
  samples inside a ball of a generated one: are they covered? A set collapsed onto a few good pictures has precision 1
  and recall 0.
- *Density*: in how many real balls a generated sample lies, over {K}; 1 is expected for equal distributions, and it can
  be more. *Coverage*: share of real balls that hold a generated sample (<). Both suffer less from outliers among the
  real images.
- All four change with n: the floor is real against real with the same n as the column before it.
"""


def distance_section(comparisons: Sequence[Comparison]) -> Section:
    """Fréchet and kernel distances in every space, with the floor of real against real."""
    found = _corrected([measured for comparison in comparisons for measured in comparison.distances()])
    blocks: list[Block] = [*_tables(found, comparisons[0], distances=True), *_inception_scores(comparisons)]
    worst = _most_apart(found)
    if worst is None:
        text = _unclear(found, comparisons[0].size)
        return Section(DISTANCE, *blocks, summary=text, meaning=DISTANCE_MEANING, references=DISTANCE_REFERENCES)
    text = (
        f"{_capital(worst.metric)} of generated samples from real ones is {number(worst.value)} (CI {span(worst.low, worst.high)}); "
        f"at n = {worst.size} it is {number(worst.same.mean)}, where real against real gives {number(worst.floor.mean)}."
    )
    finding = Finding(text, _trust(worst, comparisons[0]), 0.6)
    return Section(
        DISTANCE,
        *blocks,
        summary=text,
        findings=[finding],
        meaning=DISTANCE_MEANING,
        references=DISTANCE_REFERENCES,
    )


def covered_section(comparisons: Sequence[Comparison]) -> Section:
    """Precision, recall, density and coverage in every space."""
    found = [measured for comparison in comparisons for measured in comparison.neighbourhoods()]
    worst = _most_apart([m for m in found if m.metric.startswith(("recall", "coverage"))]) or _most_apart(found)
    summary = "Generated samples are as plausible, and cover the real ones as well, as real ones do each other."
    findings = []
    if worst is not None:
        summary = (
            f"{_capital(worst.metric)} is {number(worst.value)} (CI {span(worst.low, worst.high)}); at n = {worst.size} it is "
            f"{number(worst.same.mean)}, where real against real gives {number(worst.floor.mean)}. {_MEANT[worst.metric.split()[0]]}"
        )
        findings = [Finding(summary, _trust(worst, comparisons[0]), 0.55)]
    blocks = _tables(found, comparisons[0])
    return Section(
        COVERED,
        *blocks,
        summary=summary,
        findings=findings,
        meaning=COVERED_MEANING,
        references=COVERED_REFERENCES,
    )


_MEANT = {
    "precision": "Some samples lie where no real image is.",
    "recall": "Part of the real images is not reached by the generator.",
    "density": "Samples lie away from where most real images are.",
    "coverage": "Part of the real images is not reached by the generator.",
}


def _corrected(found: Sequence[Measured]) -> list[Measured]:
    """The same, with p adjusted over all of them that have one."""
    tested = [one.p for one in found if one.p is not None]
    corrected = iter(adjusted(tested).tolist())
    return [one if one.p is None else replace(one, p=next(corrected)) for one in found]


def _unclear(found: Sequence[Measured], size: int) -> str:
    """What can be said where no distance is clear of its floor."""
    lowest = min((one for one in found if one.p is not None), key=lambda one: one.p or 0.0)
    text = f"At n = {size} no distance is clear of what random halves of the real images give"
    if (lowest.p or 0.0) < RATE:
        return f"{text}; on all samples the {lowest.metric} passes its test ({p_value(lowest.p or 0.0)}, adjusted): a small difference."
    return f"{text}, and on all samples no kernel distance passes its test ({p_value(lowest.p or 0.0)} at least, adjusted)."


def _tables(found: Sequence[Measured], comparison: Comparison, *, distances: bool = False) -> list[Block]:
    n, m, draws = len(comparison.real), len(comparison.generated), len(comparison.draws)
    extra = ("∞ samples", "adjusted p") if distances else ()
    values = Table(
        ("metric [space]", "real against generated", "low", "high", *extra),
        [(one.metric, one.value, one.low, one.high, *((one.infinite, one.p) if distances else ())) for one in found],
        caption=f"{n} real and {m} generated samples; low to high is the 95 % interval.",
    )
    floor = Table(
        ("metric [space]", "real against generated", "low", "high", "real against real", "low ", "high ", "apart"),
        [(one.metric, *_ends(one.same), *_ends(one.floor), one.apart) for one in found],
        caption=f"What no difference looks like: mean and middle 95 % over {draws} random halves of "
        f"{comparison.size} samples each.",
    )
    return [values, floor]


def _ends(spread: Spread) -> tuple[float, float, float]:
    return spread.mean, spread.low, spread.high


def _inception_scores(comparisons: Sequence[Comparison]) -> list[Block]:
    """The Inception Score of both sets, where the Inception network is among the spaces."""
    blocks: list[Block] = []
    for comparison in comparisons:
        extractor = comparison.space.extractor
        if isinstance(extractor, Inception):
            import torch

            rows = []
            for name, features in (("real", comparison.real), ("generated", comparison.generated)):
                score = inception_score(extractor.logits(torch.from_numpy(features).float()).numpy())
                rows.append((name, score.mean, score.deviation, score.splits))
            title = comparison.space.label("class score", "Inception Score")
            blocks += [Text(f"**{title}** looks at one set alone."), Table(("set", title, "deviation", "splits"), rows)]
    return blocks


def _most_apart(found: Sequence[Measured]) -> Measured | None:
    """Of those clear of their floor the standard one, else the one that is furthest from it in units of the floor's width."""

    def far(one: Measured) -> tuple[bool, float]:
        width = max(one.floor.high - one.floor.low, 1e-12)
        return one.metric in ("FID", "KID"), abs(one.same.mean - one.floor.mean) / width

    return max((one for one in found if one.apart), key=far, default=None)


def _trust(one: Measured, comparison: Comparison) -> Trust:
    return Trust(
        "real against real",
        f"the middle 95 % over {len(comparison.draws)} random halves of {one.size} samples do not overlap: "
        f"{span(one.same.low, one.same.high)} against {span(one.floor.low, one.floor.high)} for real against real",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
