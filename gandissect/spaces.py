"""Points of a latent space, the generator's own or one that latents pass through, and images of points that were moved.

w = codes(session, "w", session.latents(4))              # float32 [4, *shape]
decoded(session, "w", w + 2 * direction)                 # float32 [4, C, H, W] in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gandissect.gan import Generator
from gandissect.passes.running import BLOCK, filled
from gandissect.session import Session


def space_shape(generator: Generator, name: str) -> tuple[int, ...]:
    """Shape of one point of the space called ``name``, or an error that lists those there are."""
    return (generator.latent.size,) if name == generator.latent.name else generator.space(name).shape


def codes(session: Session, name: str, latents: Tensor, labels: Tensor | None = None) -> Tensor:
    """Where latents [N, D] arrive in the space called ``name``: float32 [N, *shape] on the CPU.

    Args:
        session: whose generator it is.
        name: one of the generator's inner spaces, or its latent.
        latents: float32 [N, D].
        labels: int64 [N] for class-conditional generators.
    """
    generator = session.gan.generator
    if name == generator.latent.name:
        return latents
    shaped = latents.reshape(len(latents), *generator.latent.shape)
    return _in_blocks(session, generator.space(name).enter, shaped, labels)


def decoded(session: Session, name: str, points: Tensor, labels: Tensor | None = None) -> Tensor:
    """Images of points [N, *shape] of the space called ``name``: float32 [N, C, H, W] in [-1, 1] on the CPU."""
    generator = session.gan.generator
    if name == generator.latent.name:
        return session.generate(points, labels=labels)
    leave = generator.space(name).leave
    session.images_generated += len(points)
    return _in_blocks(session, lambda x, y: generator.as_images(leave(x, y)), points, labels)


def _in_blocks(
    session: Session, run: Callable[[Tensor, Tensor | None], Tensor], rows: Tensor, labels: Tensor | None
) -> Tensor:
    """``run`` on blocks of one size, the last one filled up, so that a row has the same bits in any company."""
    device, parts = session.gan.generator.device, []
    with session.borrowed(), torch.no_grad():
        for start in range(0, len(rows), BLOCK):
            chunk = filled(rows[start : start + BLOCK], BLOCK).to(device)
            given = None if labels is None else filled(labels[start : start + BLOCK], BLOCK).to(device)
            parts.append(run(chunk, given)[: len(rows) - start].float().cpu())
    return torch.cat(parts)
