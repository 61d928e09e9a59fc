"""Which layer tells what apart: real from generated, and samples with much of a concept from those with little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from gandissect.blocks import Block, Finding, Line, Reference, Section, Series, Table, Text, Trust
from gandissect.session import Session
from gandissect.trust import adjusted
from gandissect.wording import p_value

from .embedding import Floats
from .groups import usable_concepts
from .separability import SMALLEST_GROUP, Separability, fit_and_test, prepare, separabilities, split
from .spaces import Space, gather, pixel_space

RATE = 0.05
CELLS = 16
"""Rows and columns of the grid on which input pictures are averaged."""
REFERENCES = (
    Reference("Lopez-Paz, D. & Oquab, M.", 2017, "Revisiting classifier two-sample tests", "ICLR"),
    Reference(
        "Alain, G. & Bengio, Y.", 2016, "Understanding intermediate layers using linear classifier probes", "arXiv"
    ),
    Reference("Wilson, E. B.", 1927, "Probable inference, the law of succession, and statistical inference", "JASA 22"),
    Reference("Benjamini, Y. & Hochberg, Y.", 1995, "Controlling the false discovery rate", "J. R. Stat. Soc. B 57"),
)
MEANING = """
A logistic regression is fitted on one half of the samples and tested on the other half, which it has not seen. Its
features are the first 50 principal components of the layer's standardised features; both come from the first half
alone. 50 % is chance.

- *Real or generated* is a classifier two-sample test: above chance means that the generator's samples differ from
  the real ones in a way that this layer holds. It does not say that the difference is visible: cropping, resizing
  or compression of the real pictures suffices. Duplicates among the real pictures make the accuracy too high.
- *Concepts*: samples are split at the median of the concept's area (at zero where most samples lack it). The line
  says in which layer the amount of a concept can be read off along one direction. A network with random weights
  shows such lines as well, so they are no finding about learning; compare layers with each other and with the
  latent (or the input picture), which is the network's input.
- The band is Wilson's 95 % interval. p counts all permutations of the held-out labels (a test that cross-validation
  would make too optimistic), adjusted over all pairs.
"""

Scores = dict[str, Separability]


def told_apart_section(session: Session, spaces: Sequence[Space], samples: int, concept_limit: int) -> Section:
    """Real against generated where real images are there, and every usable concept, layer by layer."""
    blocks: list[Block] = []
    findings: list[Finding] = []
    sentences = []
    if session.real is not None:
        seen = real_or_generated(session, spaces, samples)
        if seen:
            blocks.append(_real_line(seen))
            findings, sentence = _real_verdict(seen)
            sentences.append(sentence)
    else:
        blocks.append(
            Text("No real images were given: `--data FOLDER` adds the test of real against generated samples.")
        )
    by_concept = concepts_by_layer(session, spaces, min(session.n, samples), concept_limit)
    if by_concept:
        blocks += [_concept_line(by_concept), _concept_table(by_concept)]
        sentences.append(_concept_sentence(by_concept))
    if not sentences:
        why = "needs real images (pass --data FOLDER) or concepts that vary (pass --concepts NAME), and 32 samples (--samples N)"
        return Section(
            "What each layer tells apart", summary=why, status="skipped", meaning=MEANING, references=REFERENCES
        )
    return Section(
        "What each layer tells apart",
        *blocks,
        summary=" ".join(sentences),
        findings=findings,
        meaning=MEANING,
        references=REFERENCES,
    )


def real_or_generated(session: Session, spaces: Sequence[Space], samples: int) -> Scores:
    """The classifier two-sample test in the pixels and in every main layer of the discriminator: layer -> result."""
    assert session.real is not None
    n = min(session.n, samples)
    theirs = min(len(session.real), samples)
    count = min(n, theirs)
    if count < 2 * SMALLEST_GROUP:
        return {}
    labels = np.repeat([False, True], count)
    seen = [pixel_space(session.gan), *(space for space in spaces if space.network == "discriminator")]
    features = {
        space.short: np.concatenate(
            [gather(session, space, n)[:count], gather(session, space, theirs, real=True)[:count]]
        )
        for space in seen
    }
    fitted = split(labels, session.rng("features: real or generated"))
    tasks = [partial(separabilities, {name: values}, labels, fitted) for name, values in features.items()]
    costs = [float(values.shape[1]) for values in features.values()]
    made = session.share_out("layers that tell real from generated", tasks, costs)
    return {name: score for part in made for name, score in part.items()}


def concepts_by_layer(session: Session, spaces: Sequence[Space], n: int, limit: int) -> dict[str, Scores]:
    """How well the latent and each layer tell samples with much of a concept from the others: concept -> layer -> result."""
    concepts = usable_concepts(session, n, limit)
    if n < 4 * SMALLEST_GROUP or not concepts:
        return {}
    features: dict[str, Floats] = _inputs(session, n)
    features |= {space.short: gather(session, space, n) for space in spaces}
    fitted = np.zeros(n, bool)
    fitted[session.rng("features: concepts").permutation(n)[: n // 2]] = True
    groups = {concept: large for concept, large in concepts if _both_sides(large, fitted)}
    tasks = [partial(_in_layer, values, fitted, groups) for values in features.values()]
    costs = [float(values.shape[1]) for values in features.values()]
    by_layer = dict(zip(features, session.share_out("layers that tell concepts apart", tasks, costs), strict=True))
    return {concept: {name: scores[concept] for name, scores in by_layer.items()} for concept in groups}


def _in_layer(values: Floats, fitted: NDArray[np.bool_], groups: Mapping[str, NDArray[np.bool_]]) -> Scores:
    """How well one layer's features float [N, D] tell each group of samples from the others: concept -> result."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no stubs

    with threadpool_limits(limits=1):
        prepared = prepare(values, fitted)
        return {concept: fit_and_test(prepared, large) for concept, large in groups.items()}


def _inputs(session: Session, n: int) -> dict[str, Floats]:
    """The network's own input as features: latents as they are, input pictures averaged on a grid as the pixels are."""
    latent = session.gan.generator.latent
    if latent.prior != "image" or len(latent.shape) != 3:
        return {"latent": session.latents(n).numpy()}
    parts = [session.latents_at(range(start, min(start + 64, n))) for start in range(0, n, 64)]
    grids = [adaptive_avg_pool2d(part.reshape(-1, *latent.shape), CELLS).flatten(1) for part in parts]
    return {"input": torch.cat(grids).numpy()}


def _both_sides(large: NDArray[np.bool_], fitted: NDArray[np.bool_]) -> bool:
    """Each half holds a few samples of each group."""
    return all(min(int(part.sum()), int((~part).sum())) >= 3 for part in (large[fitted], large[~fitted]))


def _series(label: str, scores: Scores, role: str = "") -> Series:
    return Series(
        label,
        list(scores),
        [found.accuracy for found in scores.values()],
        [found.low for found in scores.values()],
        [found.high for found in scores.values()],
        "real" if role == "real" else "",
    )


def _chance(scores: Scores) -> Series:
    return Series("chance", list(scores), [0.5] * len(scores), role="null")


def _real_line(seen: Scores) -> Line:
    return Line(
        (_series("real or generated", seen, "real"), _chance(seen)),
        "features",
        "held-out accuracy",
        f"Held-out accuracy of telling real from generated in {len(seen)} feature spaces",
        caption=f"{next(iter(seen.values())).held_out} held-out samples, half of them real; the band is the 95 % interval.",
    )


def _real_verdict(seen: Scores) -> tuple[list[Finding], str]:
    corrected = adjusted([found.p for found in seen.values()])
    passed = {name: q for name, q in zip(seen, corrected, strict=True) if q < RATE}
    if not passed:
        best = max(seen.values(), key=lambda found: found.accuracy)
        return [], f"No layer tells real from generated above chance ({_share(best.accuracy)} at best; 50 % is chance)."
    layer = max(passed, key=lambda name: seen[name].accuracy)
    found = seen[layer]
    text = (
        f"A linear classifier on `{layer}` tells real from generated in {_share(found.accuracy)} of held-out samples "
        f"(CI {_share(found.low)} to {_share(found.high)})."
    )
    if layer != "pixels" and "pixels" in seen:
        text += f" On pixels it is {_share(seen['pixels'].accuracy)}."
    tested = (
        f"against all permutations of {found.held_out} held-out labels, adjusted over {len(seen)} feature spaces; "
        "50 % is chance"
    )
    return [
        Finding(text, Trust(f"held-out · {p_value(passed[layer])}", tested), min(1.0, 2 * found.accuracy - 1))
    ], text


def _concept_line(by_concept: Mapping[str, Scores]) -> Line:
    layers = next(iter(by_concept.values()))
    return Line(
        (*(_series(concept, scores) for concept, scores in by_concept.items()), _chance(layers)),
        "layer",
        "held-out accuracy",
        f"Held-out accuracy of telling samples apart by {len(by_concept)} concepts, over {len(layers)} layers",
        caption=f"{next(iter(layers.values())).held_out} held-out samples; bands are 95 % intervals.",
    )


def _concept_table(by_concept: Mapping[str, Scores]) -> Table:
    pairs = [(concept, layer, found) for concept, scores in by_concept.items() for layer, found in scores.items()]
    corrected = adjusted([found.p for _, _, found in pairs])
    rows = [
        (concept, layer, found.accuracy, found.low, found.high, float(q))
        for (concept, layer, found), q in zip(pairs, corrected, strict=True)
    ]
    columns = ("concept", "layer", "held-out accuracy", "low", "high", "adjusted p")
    return Table(columns, rows, caption="Chance is 0.5; p is adjusted over all rows.")


def _concept_sentence(by_concept: Mapping[str, Scores]) -> str:
    concept, layer, found = max(
        ((concept, layer, found) for concept, scores in by_concept.items() for layer, found in scores.items()),
        key=lambda item: item[2].accuracy,
    )
    return (
        f"`{layer}` separates samples by their amount of *{concept}* in {_share(found.accuracy)} "
        f"(CI {_share(found.low)} to {_share(found.high)}) of held-out samples; that is the most of {len(by_concept)} concepts."
    )


def _share(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")
