"""From what was measured to a line of the verdict table.

repeats(found)                           # Check("near-duplicates", ..., "alarm", ...)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gandissect.blocks import Trust
from gandissect.wording import p_value, percent
from gandissect_plugins.overview.overview import LayerHealth

from .checks import Check, alarm, not_asked
from .diversity import Collisions, Modes
from .latents import LabelEffect, LatentEffects
from .memory import Copying, Coverage
from .pixels import PixelHealth
from .units import DuplicateUnits

SURE = 0.01
ALIKE = 0.6
"""Share of near-duplicate pairs from which on nothing explains it but collapse: more than two pictures would give."""
MORE_LATENTS = "train longer or with another seed; a smaller latent does as well"


def repeats(found: Collisions) -> Check:
    """Near-duplicates in the pixels."""
    name, n = "near-duplicates among samples", found.samples
    value = f"{percent(found.rate)} of pairs, {percent(found.sharing)} of {n} samples"
    reference = f"{percent(found.expected)} of pairs of Gaussian samples with the same spectrum ({p_value(found.p)})"
    advice = "mode collapse: restore diversity (minibatch statistics, a gradient penalty, a smaller learning rate of G)"
    if found.rate >= ALIKE:
        text = (
            f"**Nearly all samples look the same**: {percent(found.rate)} of the pairs of samples are near-duplicates."
        )
        tested = (
            f"{found.pairs} of all pairs of {n} samples, interval {percent(found.low)} to {percent(found.high)}; the limit is "
            f"{percent(ALIKE)}"
        )
        return alarm(name, value, reference, advice, text, Trust(f"exact, n = {n}", tested), 0.95)
    if found.p > SURE:
        low = found.rate > 1 / n
        why = f"samples vary along {found.dimensions:.1f} directions only; more samples would look alike" if low else ""
        return Check(name, value, reference, "look" if low else "ok", why)
    if found.support >= n:
        return Check(name, value, reference, "look", "look at the closest pairs below")
    text = (
        f"**The generator repeats itself**: {percent(found.rate)} of the pairs of samples are near-duplicates, as in a set of "
        f"{found.support:,.0f} different pictures ({percent(found.expected)} by chance)."
    )
    tested = (
        f"{found.pairs} of all pairs of {n} samples, interval {percent(found.low)} to {percent(found.high)}, against sets of "
        f"Gaussian samples with the same mean and spectrum: {percent(found.expected)}, {p_value(found.p)}"
    )
    return alarm(name, value, reference, advice, text, Trust(f"{p_value(found.p)} · n = {n}", tested), 0.95)


def repeats_in_features(found: Collisions, layer: str) -> Check:
    """Near-duplicates as the discriminator sees them."""
    name = f"near-duplicates in D {layer}"
    value = f"{percent(found.rate)} of pairs"
    reference = f"{percent(found.expected)} of pairs of Gaussian features ({p_value(found.p)})"
    if found.p <= SURE and found.support < found.samples:
        return Check(name, value, reference, "look", "the discriminator cannot tell these samples apart")
    return Check(name, value, reference, "ok")


def clusters(found: Modes) -> Check:
    """Clusters of samples; a description, no judgement."""
    value = f"{found.count} clusters" if found.count > 1 else f"one cloud (best split: {found.best})"
    value += f", silhouette {found.silhouette:.2f}, stability {found.stability:.2f}"
    advice = "compare with the number of kinds in your data" if found.count > 1 else ""
    return Check("clusters of samples", value, f"silhouette {found.expected:.2f} of Gaussian samples", "ok", advice)


def modes_missed(found: Coverage) -> Check:
    """Clusters of real images that get no samples."""
    name, k = "modes of the real images", len(found.real)
    gone = int(found.missed.sum())
    value = f"{gone} of {k} clusters missed, {percent(found.mass)} of real images"
    reference = "0 expected: a miss is under a tenth of the real share, q < 0.01"
    if not gone:
        return Check(name, value, reference, "ok")
    if found.mass < 0.05:
        return Check(name, value, reference, "look", "see the missed clusters below")
    samples = int(found.generated.sum())
    got = int(found.generated[found.missed].sum())
    text = (
        f"**The generator misses modes**: {gone} of {k} clusters of the real images, with {percent(found.mass)} of them, get "
        f"{got} of {samples} samples."
    )
    worst = float(found.q[found.missed].max())
    tested = (
        f"clusters from one half of the real images; {int(found.real.sum())} real images of the other half and {samples} samples "
        f"counted in each; Fisher's exact test, adjusted over {k} clusters, "
        f"{p_value(worst, 'q').replace('=', '≤')} in all that are called missed"
    )
    advice = "mode collapse or too few training steps on these kinds of images"
    return alarm(
        name,
        value,
        reference,
        advice,
        text,
        Trust(f"{p_value(worst, 'q').replace('=', '≤')} · n = {samples}", tested),
        0.9,
    )


def copies(found: Copying) -> Check:
    """Samples that are training images."""
    name, m = "copies of training images", len(found.ratio)
    value = f"C_T = {found.statistic:.2f}, {found.copies} of {m} samples are copies"
    reference = f"C_T = 0 ({p_value(found.p)}); {found.held_copies} of {len(found.held)} held-out images ({p_value(found.copies_p)})"
    if found.p > SURE and found.copies_p > SURE:
        return Check(name, value, reference, "ok")
    if found.p > SURE or found.copies_p > SURE:
        why = "samples are nearer to training images than real ones are, to no single one: they may be averages (blur)"
        return Check(name, value, reference, "look", why if found.p <= SURE else "look at the nearest pairs below")
    text = (
        f"**The generator copies training images**: {found.copies} of {m} samples are three times nearer to one training image "
        f"than to any other ({found.held_copies} of {len(found.held)} held-out real images)."
    )
    tested = (
        f"three-sample test C_T = {found.statistic:.2f}, {p_value(found.p)} by permutation within cells; number of copies "
        f"against held-out real images, {p_value(found.copies_p)}"
    )
    advice = "more data, augmentation (ADA, DiffAugment), or stop earlier; check whether the images may be published"
    return alarm(name, value, reference, advice, text, Trust(p_value(found.p), tested), 0.95)


def dead_coordinates(found: LatentEffects) -> Check:
    """Latent coordinates without effect."""
    name, dead, looked = "latent coordinates", found.dead, len(found.coordinates)
    value = f"{len(dead)} of {looked} change nothing; {len(found.weak)} under 1 % of the median of the others"
    reference = f"median effect {percent(found.typical)} of the variance of images; repeated run {percent(found.floor)}"
    if looked < found.size:
        reference += f"; {looked} of {found.size} looked at"
    if not dead:
        return Check(name, value, reference, "look" if found.weak else "ok", MORE_LATENTS if found.weak else "")
    names = ", ".join(f"z[{place}]" for place in dead[:8]) + (" …" if len(dead) > 8 else "")
    text = f"**{len(dead)} of {looked} latent coordinates change nothing** in any image: {names}."
    tested = (
        "each moved by half a turn of its prior on the same latents, and to both ends of it on 16 latents; the change is "
        f"rounding (≤ {max(1e-8, 2 * found.floor):.1g} of the variance of images), the median of the others is {percent(found.typical)}"
    )
    weight = 0.9 if len(dead) == looked else 0.5 + 0.3 * len(dead) / looked
    return alarm(name, value, reference, MORE_LATENTS, text, Trust("exact, 16 latents", tested), weight)


def idle_labels(found: LabelEffect) -> Check:
    """Labels that do nothing."""
    name, k = "class labels", len(found.classes)
    value = f"other labels change {percent(found.between)} of the variance of images"
    reference = f"other latents {percent(found.latent)}; {k} labels on {found.latents} latents"
    tested = f"{k} labels on the same {found.latents} latents: the images differ by rounding alone"
    advice = "the condition is lost: check how labels reach G, and that D is asked about them"
    if found.idle:
        text = f"**The label does nothing**: {k} labels give the same image; other latents change it."
        return alarm(name, value, reference, advice, text, Trust(f"exact, {k} labels", tested), 0.9)
    if found.same:
        names = ", ".join(str(label) for label in (found.classes[0], *found.same)[:8])
        return Check(name, value, reference, "look", f"labels {names} give the same images")
    weak = found.between < 0.01 * found.latent
    return Check(name, value, reference, "look" if weak else "ok", advice if weak else "")


def idle_units(layers: Sequence[LayerHealth]) -> Check:
    """Units that never vary; the overview names them."""
    units = sum(layer.units for layer in layers)
    still = sum(len(layer.dead) + len(layer.constant) for layer in layers)
    value = f"{still} of {units} units never vary"
    if units and still > 0.2 * units:
        return Check(
            "units that never vary", value, "0 of a network in use", "look", "see Health: prune them or train anew"
        )
    return Check("units that never vary", value, "0 of a network in use", "ok")


def same_units(layers: Sequence[DuplicateUnits]) -> Check:
    """Units that repeat another one."""
    units, redundant = sum(layer.units for layer in layers), sum(layer.redundant for layer in layers)
    value = f"{redundant} of {units} units repeat another one"
    reference = "|r| > 0.99 over cells in both halves of the samples"
    many = units > 0 and redundant > 0.1 * units
    return Check("duplicate units", value, reference, "look" if many else "ok", "width is wasted there" if many else "")


def no_numbers(found: PixelHealth, n: int) -> Check:
    """NaN and infinite pixels."""
    value = f"{percent(found.broken)} of images"
    if not found.broken:
        return Check("pixels that are no numbers", value, "0 %", "ok")
    text = f"**{percent(found.broken)} of {n} images hold pixels that are not finite.**"
    advice = "training diverged, or the file was opened with a wrong assumption (see How it was opened)"
    trust = Trust(f"exact, n = {n}", "every pixel was looked at")
    return alarm("pixels that are no numbers", value, "0 %", advice, text, trust, 1.0)


def empty_pictures(found: PixelHealth, n: int) -> Check:
    """Pictures of one colour value."""
    value = f"{percent(found.empty)} of images"
    if not found.empty:
        return Check("empty pictures", value, "0 %", "ok")
    if found.empty < 0.01:
        return Check("empty pictures", value, "0 %", "look", "look at these samples")
    text = f"**{percent(found.empty)} of {n} images are empty**: all their pixels have one value."
    advice = "training diverged, or the file was opened with a wrong assumption (see How it was opened)"
    trust = Trust(f"exact, n = {n}", "standard deviation of each image's pixels below 0.001 of [−1, 1]")
    return alarm("empty pictures", value, "0 %", advice, text, trust, 0.95)


def grid_pattern(found: PixelHealth, real: PixelHealth | None) -> Check:
    """Energy at the Nyquist frequency, against real images or a smooth spectrum."""
    name, share = "checkerboard", float(np.median(found.checker))
    usual = float(np.median(real.checker)) if real is not None else found.smooth
    whose = "real images" if real is not None else "a power law through the rest of the spectrum"
    if not np.isfinite(usual) or found.empty == 1:
        return not_asked(name, "images are too small for a spectrum, or empty; real images (--data FOLDER) would do")
    value, reference = f"{share:.3g} % of the variation", f"{usual:.3g} % in {whose}"
    p = _larger(found.checker, real.checker) if real is not None else _above(found.checker, usual)
    clear, ratio = p <= SURE and share >= 1, share / max(usual, 1e-6)
    advice = "replace strided transposed convolutions by upsampling and convolution, or make the kernel a multiple of the stride"
    if not clear or ratio < 3:
        return Check(name, value, reference, "ok")
    if ratio < 10:
        return Check(name, value, reference, "look", advice)
    text = f"**A checkerboard**: {share:.3g} % of the images' variation alternates from pixel to pixel; {usual:.3g} % in {whose}."
    trust = Trust(f"{p_value(p)} · n = {len(found.checker)}", f"median over images against {whose}, {p_value(p)}")
    return alarm(name, value, reference, advice, text, trust, 0.6)


def high_frequencies(found: PixelHealth, real: PixelHealth | None) -> Check:
    """The share of high frequencies against real images."""
    name, share = "high frequencies", float(np.median(found.high))
    value = f"{share:.3g} % of the variation above half the Nyquist frequency"
    if real is None:
        return Check(name, value, "real images (--data FOLDER) would say what is usual", "ok")
    usual = float(np.median(real.high))
    more, less = _larger(found.high, real.high), _larger(real.high, found.high)
    ratio = share / max(usual, 1e-9)
    reference = f"{usual:.3g} % in real images ({p_value(min(1.0, 2 * min(more, less)))})"
    if 0.5 <= ratio <= 2 or 2 * min(more, less) > SURE:
        return Check(name, value, reference, "ok")
    advice = "images are noisier than real ones" if ratio > 1 else "images are blurred: fine detail is missing"
    return Check(name, value, reference, "look", advice)


def clipped_colours(found: PixelHealth, real: PixelHealth | None) -> Check:
    """Values at the ends of the range."""
    name, share = "clipped values", float(found.clipped.mean())
    value = f"{share:.3g} % of values beyond ±0.99"
    if real is None:
        usual_words = "real images (--data FOLDER) would say what is usual"
        advice = "usual for drawings and digits; else the output saturates" if share > 50 else ""
        return Check(name, value, usual_words, "look" if advice else "ok", advice)
    usual = float(real.clipped.mean())
    p = _larger(found.clipped, real.clipped)
    reference = f"{usual:.3g} % in real images ({p_value(p)})"
    many = p <= SURE and share - usual > 10
    return Check(name, value, reference, "look" if many else "ok", "the output saturates" if many else "")


def _larger(first: np.ndarray, second: np.ndarray) -> float:
    """One-sided p of the Mann–Whitney test that ``first`` is the larger."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(first, second, alternative="greater").pvalue)


def _above(values: np.ndarray, level: float) -> float:
    """One-sided p of the sign test that the median of ``values`` is above ``level``."""
    from scipy.stats import binomtest

    return float(binomtest(int((values > level).sum()), len(values), 0.5, alternative="greater").pvalue)
