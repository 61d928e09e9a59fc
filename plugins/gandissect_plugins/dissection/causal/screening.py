"""Which units to look at first, where there are too many to switch off one by one.

rise = first_order(session, ["layer2", "layer3"], lambda images: session_score(images), range(16))
rise["layer2"].argsort(descending=True)[:8]         # units whose removal should raise the score most
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gandissect.session import Session
from gandissect.tap import as_map, followed, tap


def first_order(
    session: Session, layers: Sequence[str], score: Callable[[Tensor], Tensor], indices: Sequence[int]
) -> dict[str, Tensor]:
    """How a score should change when a unit is switched off, by its gradient: layer -> float64 [U].

    −Σ x · ∂score/∂x, the first-order change under x(1 − a) at a = 0 (Molchanov et al. 2017, Pruning Convolutional Neural
    Networks for Resource Efficient Inference, eq. 7, signed). One forward and one backward pass serve all units of all layers.

    Args:
        session: its generator is differentiable.
        layers: names.
        score: images float32 [N, C, H, W] to float [N], differentiable.
        indices: samples.
    """
    generator = session.gan.generator
    with session.borrowed(), torch.enable_grad():
        latents = session.latents_at(indices).to(generator.device).requires_grad_()
        with tap(generator.module, list(layers), followed) as acts:
            images = generator(latents, session.labels(indices))
        kept = [acts[layer] for layer in layers]
        slopes = torch.autograd.grad(score(images).sum(), kept, allow_unused=True)
    found = {}
    for layer, values, slope in zip(layers, kept, slopes, strict=True):
        change = torch.zeros_like(values) if slope is None else -values.detach() * slope
        found[layer] = as_map(change).sum((0, 2, 3)).double().cpu() / max(1, len(indices))
    return found
