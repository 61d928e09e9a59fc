"""How different samples are from each other, and how evenly they change along the latents; needs no real images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.blocks import Block, Finding, Histogram, Reference, Section, Status, Table, Text, Trust
from gandissect.metrics import (
    PathLength,
    around,
    bootstrap_weights,
    ms_ssim,
    ms_ssim_scales,
    perceptual_path_length,
    permutation_p,
)
from gandissect.metrics.similarity import WINDOW
from gandissect.session import Session
from gandissect.wording import p_value

from .words import number, span

TITLE = "Diversity"
RATE = 0.05
PERMUTATIONS = 4000
SIDE = 256
"""Longest side at which pairs are compared; larger images are halved until they fit."""
FEWEST = 8
REFERENCES = (
    Reference(
        "Odena, A., Olah, C. & Shlens, J.", 2017, "Conditional image synthesis with auxiliary classifiers", "ICML"
    ),
    Reference("Wang, Z., Simoncelli, E. & Bovik, A.", 2003, "Multi-scale structural similarity", "Asilomar"),
    Reference("Karras, T., Laine, S. & Aila, T.", 2019, "A style-based generator architecture", "CVPR"),
)
MEANING = """
- *MS-SSIM of pairs*: two samples at random, each in one pair only; 1 for copies. A generator whose pairs are more alike
  than real pairs has lost diversity; one whose pairs are less alike draws more noise or more variety. It compares
  structure at the same place, so aligned subjects score high.
- *Path length*: the squared change of the pixels for a step of ε = 1e-4 between two latents, over ε² (Karras et al. 2019,
  eq. 2; on great circles for normal latents). The published PPL measures with LPIPS, so this number is not PPL: it
  compares checkpoints of one generator, not generators. *Unevenness* is the 95th percentile over the median: 1 for a
  generator that changes at the same rate everywhere.
"""


@dataclass(frozen=True)
class Pairs:
    """MS-SSIM of disjoint random pairs: values float64 [P], and the mean with its 95 % interval."""

    values: NDArray[np.float64]
    mean: float
    low: float
    high: float


def pair_similarity(images: Tensor, rng: np.random.Generator, resamples: int = 200) -> Pairs:
    """MS-SSIM of random pairs of images float32 [N, C, H, W] in [-1, 1], each image in one pair."""
    while max(images.shape[2:]) > SIDE:
        images = torch.nn.functional.avg_pool2d(images, 2)
    order = torch.from_numpy(rng.permutation(len(images) // 2 * 2))
    parts = [ms_ssim(images[a] + 1, images[b] + 1, data_range=2.0) for a, b in _in_parts(order)]
    values = torch.cat(parts).numpy()
    weights = bootstrap_weights(len(values), resamples, rng)
    low, high = around(float(values.mean()), weights @ values / len(values))
    return Pairs(values, float(values.mean()), low, high)


def _in_parts(order: Tensor) -> list[tuple[Tensor, Tensor]]:
    first, second = order.reshape(2, -1)
    return list(zip(first.split(16), second.split(16), strict=True))


def path_lengths(session: Session, paths: int, rng: np.random.Generator) -> PathLength | None:
    """Path lengths in pixels; None for generators of pictures from pictures, and where too few images are affordable."""
    latent = session.gan.generator.latent
    paths = session.affordable(2 * paths) // 2
    if latent.prior == "image" or paths < FEWEST:
        return None
    ends = session.latents_at(range(2 * paths))
    positions = torch.from_numpy(rng.random(paths))

    def pixels(points: Tensor) -> Tensor:
        return session.generate(points, labels=session.labels(range(paths)))

    spherical = latent.prior == "normal"
    return perceptual_path_length(pixels, ends[:paths], ends[paths:], positions, spherical=spherical)


def diversity_section(session: Session, count: int, paths: int, resamples: int) -> Section:
    """Similarity of pairs, of real ones too where there are any, and path lengths."""
    blocks: list[Block] = []
    sentences: list[str] = []
    findings: list[Finding] = []
    compared = _compared(session, count, resamples)
    if compared:
        blocks += [_histogram(compared), _pair_table(compared)]
        text, findings = _verdict(compared, session)
        sentences.append(text)
    else:
        blocks.append(
            Text(f"Pairs were not compared: MS-SSIM needs {2 * FEWEST} samples of at least {WINDOW}×{WINDOW} pixels.")
        )
    lengths = path_lengths(session, paths, session.rng("distribution: path lengths"))
    if lengths is not None:
        blocks.append(_path_table(lengths, resamples, session))
        uneven = _unevenness(lengths)
        sentences.append(
            f"Along the latents the fastest changes are {number(uneven)} times the median (95th percentile)."
        )
    status: Status = "done" if sentences else "skipped"
    summary = " ".join(sentences) or f"needs {2 * FEWEST} samples (--samples N) and a latent vector"
    return Section(
        TITLE, *blocks, summary=summary, findings=findings, status=status, meaning=MEANING, references=REFERENCES
    )


def _compared(session: Session, count: int, resamples: int) -> dict[str, Pairs]:
    """Pairs of generated samples and of real ones, of each where there are enough."""
    found: dict[str, Pairs] = {}
    for name, real in (("generated", False), ("real", True)):
        there = min(count, session.n if not real else len(session.real or ()))
        if there < 2 * FEWEST or min(session.gan.generator.image_shape[1:]) < WINDOW:
            continue
        images = session.real_images(there) if real else session.images(there)
        found[name] = pair_similarity(images, session.rng(f"distribution: pairs, {name}"), resamples)
    return found


def _verdict(compared: dict[str, Pairs], session: Session) -> tuple[str, list[Finding]]:
    ours, theirs = compared.get("generated"), compared.get("real")
    if ours is None or theirs is None:
        one = ours or theirs
        assert one is not None
        return f"Two samples have an MS-SSIM of {number(one.mean)} (CI {span(one.low, one.high)}).", []
    text = (
        f"Two generated samples have an MS-SSIM of {number(ours.mean)} (CI {span(ours.low, ours.high)}), "
        f"two real images one of {number(theirs.mean)} (CI {span(theirs.low, theirs.high)})"
    )
    rng = session.rng("distribution: pairs exchanged")
    p = float(permutation_p(ours.values[:, None], theirs.values[:, None], PERMUTATIONS, rng)[0])
    if p >= RATE or (ours.low <= theirs.high and theirs.low <= ours.high):
        return f"{text}: no clear difference.", []
    meant = "generated samples are more alike" if ours.mean > theirs.mean else "generated samples are less alike"
    tested = f"{len(ours.values)} generated and {len(theirs.values)} real pairs that share no image, {PERMUTATIONS} exchanges of labels"
    trust = Trust(p_value(p), tested)
    return f"{text}: {meant}.", [Finding(f"{text}: {meant}.", trust, 0.45)]


def _histogram(compared: dict[str, Pairs]) -> Histogram:
    groups = {name: pairs.values.tolist() for name, pairs in compared.items()}
    return Histogram(groups, "MS-SSIM of a pair", "How similar two samples are, over random pairs", bins=24)


def _pair_table(compared: dict[str, Pairs]) -> Table:
    rows = [(name, pairs.mean, pairs.low, pairs.high, len(pairs.values)) for name, pairs in compared.items()]
    return Table(("pairs", "mean MS-SSIM", "low", "high", "pairs compared"), rows)


def _path_table(lengths: PathLength, resamples: int, session: Session) -> Table:
    weights = bootstrap_weights(len(lengths.kept), resamples, session.rng("distribution: paths resampled"))
    low, high = around(lengths.mean, weights @ lengths.kept / len(lengths.kept))
    row = ("path length [pixels]", lengths.mean, low, high, _unevenness(lengths), len(lengths.lengths))
    columns = ("metric [space]", "mean", "low", "high", "unevenness", "paths")
    scales = ms_ssim_scales(*session.gan.generator.image_shape[1:])
    return Table(columns, [row], caption=f"Mean of the 1st to 99th percentile. MS-SSIM above has {scales} scales.")


def _unevenness(lengths: PathLength) -> float:
    middle = float(np.median(lengths.lengths))
    return float(np.percentile(lengths.lengths, 95)) / middle if middle > 0 else 1.0
