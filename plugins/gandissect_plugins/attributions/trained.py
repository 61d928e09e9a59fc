"""Does a discriminator know images at all? Compared with copies whose weights are shuffled.

trained_p(gan.discriminator, images, 49, session.rng("trained"))       # 0.02 at best with 49 copies
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from gandissect.borrow import borrowed
from gandissect.gan import Discriminator
from gandissect_plugins.attributions.checks import exceeds, shuffled_weights

CHUNK = 64
TRAINED = 0.02
"""p up to which a discriminator counts as trained: 2 of 100 random ones do."""


def judge(discriminator: Discriminator, labels: Tensor | None, images: Tensor) -> Tensor:
    """Logits of images float32 [N, C, H, W] whose classes int64 [M] go round (N images are M, or M several times over)."""
    if labels is None:
        return discriminator(images)
    rounds = -(-len(images) // max(len(labels), 1))
    return discriminator(images, labels.repeat(rounds)[: len(images)].to(images.device))


def score_all(discriminator: Discriminator, images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Logits of any images float32 [N, C, H, W], in chunks and without gradients: float32 [N] on the CPU.

    ``labels`` int64 [M] are the classes of the first M images, the next M and so on, for discriminators that take any.
    """
    step = CHUNK if labels is None else max(1, CHUNK // len(labels)) * len(labels)
    with borrowed(discriminator.module), torch.no_grad():
        chunks = [images[start : start + step] for start in range(0, len(images), step)]
        parts = [judge(discriminator, labels, chunk.to(discriminator.device)).cpu() for chunk in chunks]
    return torch.cat(parts) if parts else torch.zeros(0)


def trained_p(
    discriminator: Discriminator,
    images: Tensor,
    copies: int,
    rng: np.random.Generator,
    *,
    labels: Tensor | None = None,
) -> float:
    """p that shuffled weights tell ``images`` from the same pixels in random order as well as the discriminator does.

    The statistic is the effect size |mean difference| / √(sum of the variances) between the scores of the images and of
    their scrambled pixels: free of scale, because shuffled weights before a normalisation change it. A discriminator
    whose weights are independent draws is exchangeable with its shuffled copies, so p is at most x in a share x of
    cases.

    Args:
        discriminator: left as it was.
        images: float32 [N, C, H, W] in [-1, 1].
        copies: with shuffled weights; 1 comes back without any.
        rng: for the order of pixels and weights.
        labels: int64 [N], the classes of the images, for discriminators that take any.
    """
    if not copies:
        return 1.0
    scrambled = torch.stack([_scramble(image, rng) for image in images])
    both = torch.cat([images, scrambled])
    observed = _difference(discriminator, both, labels)
    null = []
    for _ in range(copies):
        run = partial(judge, discriminator, labels, both[:2].to(discriminator.device))
        with borrowed(discriminator.module), shuffled_weights(discriminator.module, rng, run):
            null.append(_difference(discriminator, both, labels))
    return exceeds(observed, null)


def _scramble(image: Tensor, rng: np.random.Generator) -> Tensor:
    order = torch.from_numpy(rng.permutation(image[0].numel()))
    return image.flatten(1)[:, order].view_as(image)


def _difference(discriminator: Discriminator, both: Tensor, labels: Tensor | None) -> float:
    whole, scrambled = score_all(discriminator, both, labels).chunk(2)
    spread = float((whole.var() + scrambled.var()).sqrt()) if len(whole) > 1 else 0.0
    return abs(float((whole - scrambled).mean())) / spread if spread > 0 else 0.0
