"""Learn how much each unit of a layer matters for a concept (ACE): a weight in 0..1 for each unit.

alpha = optimise(session, "layer4", "tree", start, level, present, absent, steps=100)
alpha.argsort(descending=True)[:8]                  # the units to switch off
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.session import Session
from gandissect.tap import tap
from gandissect.targets import has_soft_score

from .ablation import Baseline
from .edits import Blend
from .insertion import PlaceGrid

RATE = 0.01
PENALTY = 0.005
"""Adam's step and the weight of ‖α‖² (Bau et al. 2019, GAN Dissection, section 4.1 and appendix S-6.4)."""


@dataclass(frozen=True)
class Examples:
    """Samples and the cells of the layer that are edited and read in each: indices [n], cells float32 [n, h, w] of 0 and 1."""

    indices: tuple[int, ...]
    latents: Tensor
    cells: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, places: Sequence[int]) -> Examples:
        """Some of them."""
        chosen = list(places)
        return Examples(tuple(self.indices[place] for place in chosen), self.latents[chosen], self.cells[chosen])


def examples(session: Session, grid: PlaceGrid, held: Tensor, samples: Baseline, *, present: bool) -> Examples:
    """One window for each sample that holds (``present``) or lacks the concept there, drawn at random.

    Args:
        session: for its randomness.
        grid: windows of the layer.
        held: float64 [n, windows], what each window holds in the unedited samples.
        samples: whose latents they are.
        present: windows that hold at least half of what the fullest window of the sample does, else empty ones.
    """
    rng = session.rng(f"ace {present} {grid.layer.name}")
    fit = (held > 0) & (held >= 0.5 * held.amax(1, keepdim=True)) if present else held == 0
    score = torch.from_numpy(rng.random(held.shape)).masked_fill(~fit, -1.0)
    best, window = score.max(1)
    rows = (best >= 0).nonzero()[:, 0]
    indices = tuple(samples.indices[row] for row in rows.tolist())
    return Examples(indices, samples.latents[rows], grid.cells(window[rows]))


def can_optimise(session: Session, concept: str, images: Tensor) -> bool:
    """The generator and the concept's score are differentiable; tried on ``images`` float32 [N, C, H, W]."""
    k = [item.name for item in session.vocabulary.concepts].index(concept)
    return session.gan.capabilities.gradients and has_soft_score(session.vocabulary, k, images[:1])


def soft_at(
    session: Session, layer: str, concept: str, edit: Blend, of: Examples, cells: Tensor | None = None
) -> Tensor:
    """The concept's differentiable score in the cells of each sample, summed over cells and samples: float32 [].

    Args:
        session: its vocabulary has a soft score of the concept.
        layer: where ``edit`` is applied; the score is pooled to its grid.
        concept: which.
        edit: what is done to the layer.
        of: the samples, and the cells where they are read unless ``cells`` [n, h, w] says otherwise.
        cells: see above.
    """
    k = [item.name for item in session.vocabulary.concepts].index(concept)
    generator = session.gan.generator
    read = of.cells if cells is None else cells
    with tap(generator.module, [layer], edit):
        images = generator(of.latents.to(generator.device), session.labels(of.indices))
    soft = session.vocabulary.soft(images)
    assert soft is not None
    pooled = F.adaptive_avg_pool2d(soft[:, k], (read.shape[1], read.shape[2]))
    return (pooled * read.to(pooled)).sum()


def ace_loss(
    session: Session, layer: str, concept: str, alpha: Tensor, level: Tensor, present: Examples, absent: Examples
) -> Tensor:
    """What is left where the concept is, after ablation there, less what appears where it was absent, after insertion there.

    Bau et al. 2019 (GAN Dissection), eqs. 3 to 8, without the penalty. Each half is read where it was edited.

    Args:
        session: its vocabulary has a soft score of the concept.
        layer: where units are edited.
        concept: which.
        alpha: float32 [U] in 0..1, how much of each unit is replaced: by 0 in ``present``, by ``level`` in ``absent``.
        level: float32 [U].
        present: cells that hold the concept.
        absent: cells that do not.
    """
    ablated = soft_at(session, layer, concept, Blend(alpha[None], None, present.cells), present)
    inserted = soft_at(session, layer, concept, Blend(alpha[None], level, absent.cells), absent)
    return ablated - inserted


def optimise(
    session: Session, layer: str, concept: str, start: Tensor, level: Tensor, present: Examples, absent: Examples, *,
    steps: int, batch: int = 16,
) -> Tensor:  # fmt: skip
    """The weights α that remove the concept and add it with as few units as possible: float32 [U] in 0..1.

    Args:
        session: its vocabulary has a soft score of the concept.
        layer: where units are edited.
        concept: which.
        start: float [U], the first guess: a unit's IoU over the largest.
        level: float [U], what units are set to for insertion.
        present: examples with the concept.
        absent: examples without.
        steps: of Adam.
        batch: pairs in a step.
    """
    rng = session.rng(f"ace {layer} {concept}")
    with session.borrowed(), torch.enable_grad():
        alpha = start.float().clone().requires_grad_()
        adam = torch.optim.Adam([alpha], lr=RATE)
        for _ in range(steps):
            few = [of.rows(rng.permutation(len(of))[:batch].tolist()) for of in (present, absent)]
            loss = ace_loss(session, layer, concept, alpha, level.float(), few[0], few[1])
            loss = loss + PENALTY * alpha.square().sum()
            (alpha.grad,) = torch.autograd.grad(loss, [alpha])
            adam.step()
            with torch.no_grad():
                alpha.clamp_(0.0, 1.0)
    return alpha.detach()
