"""Weights made from names and shapes, to try families without a stranger's file.

torch.save(seeded({"conv.weight": (8, 4, 3, 3), **under("bn.", norm(8))}), path)
opened_and_checked(path, z)
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import gandissect
from gandissect.gan import Gan

Shapes = Mapping[str, tuple[int, ...]]


def seeded(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a scale at which signals neither die nor explode; each depends on its name and shape only."""
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed))
        fan_in = noise[0].numel() if noise.dim() > 1 else 1
        made[name] = noise.abs() + 0.5 if name.endswith(("running_var", "stored_var")) else noise * fan_in**-0.5
        if name.endswith(".f"):
            made[name] = torch.tensor([1.0, 2.0, 1.0])
    return made


def norm(units: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (units,))


def under(path: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {path + name: shape for name, shape in shapes.items()}


def opened_and_checked(path: Path, z: Tensor, *labels: Tensor) -> Gan:
    """Opened, and with the properties that every generator has: batches do not mix, gradients reach the latent."""
    gan = gandissect.open(path, device="cpu")
    module = gan.generator.module
    start = z.clone().requires_grad_()
    images = module(start, *labels)
    alone = torch.cat([module(z[i : i + 1], *(y[i : i + 1] for y in labels)) for i in range(len(z))])
    torch.testing.assert_close(images, alone, rtol=1e-4, atol=1e-4)
    (slope,) = torch.autograd.grad(images.square().sum(), start)
    assert bool((slope.abs().sum(1) > 0).all())
    return gan
