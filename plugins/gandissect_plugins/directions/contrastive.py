"""Directions learned so that each can be told from the others by what it changes in a layer (LatentCLR, linear).

learned = latentclr(session, "layer2", 5)
learned.margin, learned.margin_before                    # 0.81, 0.35: on samples that were not learned from
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import NoSuchCapability
from gandissect.session import Session
from gandissect.tap import as_map, tap

from .basis import Directions
from .effects import fresh_samples, prior_sigma, random_directions

STEPS = 40
TOGETHER = 4
"""Samples in each step; every one is moved along every direction."""
HELD_OUT = 12
REACH = 2.0
TEMPERATURE = 0.5
GRID = 8


@dataclass(frozen=True)
class Learned:
    """Learned directions and how well they can be told apart.

    A margin is the mean cosine between changes along the same direction minus that between changes along different ones, over
    pairs of held-out samples: 1 where each direction does one thing of its own, 0 where none can be told from the others.

    Attributes:
        found: the directions, largest margin first, which is their strength.
        margin: 0..1, mean over the directions.
        margin_before: the same of the random directions that learning began with.
    """

    found: Directions
    margin: float
    margin_before: float


class _Reached(Exception):  # a signal that the layer has run, no error
    """The layer has run: the rest of the network need not."""


def affordable(session: Session, count: int) -> bool:
    """Whether learning ``count`` directions is within what an analysis may spend."""
    passes = 3 * (count + 1) * (STEPS * TOGETHER + 2 * HELD_OUT)  # a backward pass costs about two forward ones
    return session.affordable(passes) == passes


def latentclr(session: Session, layer: str, count: int = 5) -> Learned:
    """Directions whose changes of a layer are alike from sample to sample and unlike those of the other directions.

    Args:
        session: generator and samples; the first 160 are learned from.
        layer: whose change is compared.
        count: number of directions.

    Raises:
        NoSuchCapability: the format gives no gradients, or hides the layer.

    References:
        Yüksel, Simsar, Er, Yanardag 2021, LatentCLR, sec. 3.1 (its "global" directions).
    """
    can, size = session.gan.capabilities, session.gan.generator.latent.size
    if not (can.gradients and can.hooks):
        raise NoSuchCapability("LatentCLR needs gradients through a layer, and this format gives none")
    count = min(count, size)
    start = torch.from_numpy(random_directions(count, size, session.rng("directions: latentclr"))).float()
    device = session.gan.generator.device
    with session.borrowed():
        change = _changes(session, layer)
        free = start.to(device).clone().requires_grad_()
        optimizer = torch.optim.Adam([free], lr=0.3 / size**0.5)
        for step in range(STEPS):
            indices = [index % session.n for index in range(step * TOGETHER, (step + 1) * TOGETHER)]
            optimizer.zero_grad()
            loss = contrastive_loss(change(session.latents_at(indices), session.labels(indices), free))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        learned = torch.nn.functional.normalize(free.detach(), dim=1)
        latents, labels = fresh_samples(session, 64 + HELD_OUT)  # behind those that effects are measured on
        held, classes = latents[64:], None if labels is None else labels[64:]
        with torch.no_grad():
            after, before = (margins(change(held, classes, rows)) for rows in (learned, start.to(device)))
    order = torch.argsort(after, descending=True, stable=True)
    names = tuple(f"LatentCLR {i + 1}" for i in range(count))
    vectors, strengths = learned[order].cpu().numpy(), after[order].double().cpu().numpy()
    found = Directions(f"LatentCLR on {layer}", names, vectors, strengths, "margin", np.zeros(0))
    return Learned(found, float(after.mean()), float(before.mean()))


def _changes(session: Session, layer: str) -> Callable[[Tensor, Tensor | None, Tensor], Tensor]:
    """(latents [N, D], labels, directions [K, D]) -> how each step changes the layer: float32 [N, K, M]."""
    generator, reach = session.gan.generator, REACH * prior_sigma(session)
    generator.layer(layer)

    def stop(_name: str, output: Tensor) -> Tensor:
        seen.append(output)
        raise _Reached

    seen: list[Tensor] = []

    def features(latents: Tensor, labels: Tensor | None) -> Tensor:
        seen.clear()
        try:
            with tap(generator.module, [layer], stop):
                generator(latents, labels)
        except _Reached:
            pass
        maps = as_map(seen[0]).float()
        grid = (min(GRID, maps.shape[2]), min(GRID, maps.shape[3]))
        return torch.nn.functional.adaptive_avg_pool2d(maps, grid).flatten(1)

    def change(latents: Tensor, labels: Tensor | None, directions: Tensor) -> Tensor:
        unit = torch.nn.functional.normalize(directions, dim=1)
        base = latents.to(unit.device)
        moved = base[:, None] + reach * unit
        given = None if labels is None else labels.repeat_interleave(len(unit))
        after = features(moved.flatten(0, 1), given).reshape(len(base), len(unit), -1)
        return after - features(base, labels)[:, None]

    return change


def contrastive_loss(changes: Tensor) -> Tensor:
    """Mean over all changes [N, K, M] of −log of similarity to the same direction over that to all others: float32 []."""
    # Yüksel et al. 2021, eq. 3: cosine similarity over a temperature
    count, kinds = changes.shape[:2]
    unit = torch.nn.functional.normalize(changes.flatten(0, 1), dim=1, eps=1e-8)
    weights = torch.exp(unit @ unit.T / TEMPERATURE)
    kind = torch.arange(count * kinds, device=changes.device) % kinds
    same = kind[:, None] == kind
    alike = (weights * (same & ~torch.eye(len(kind), dtype=torch.bool, device=changes.device))).sum(1)
    others = (weights * ~same).sum(1)
    return (others.clamp(min=1e-12).log() - alike.clamp(min=1e-12).log()).mean()


def margins(changes: Tensor) -> Tensor:
    """Of each direction, mean cosine of its changes [N, K, M] between samples minus that with other directions': float32 [K]."""
    count, kinds = changes.shape[:2]
    unit = torch.nn.functional.normalize(changes, dim=2, eps=1e-8)
    similar = torch.einsum("ikm,jlm->klij", unit, unit)
    between = ~torch.eye(count, dtype=torch.bool, device=changes.device)
    means = similar[:, :, between].mean(2)
    own = means.diagonal()
    others = (means.sum(1) - own) / max(kinds - 1, 1)
    return own - others
