"""Normalisations that a class or a vector modulates, and those whose statistics have names of their own.

ClassNorm(64, classes=10)(x, labels)         # normalised, scaled and shifted by class
norm = GainNorm(64, condition=148)           # gain and bias are linear in what conditions the block
norm(x, condition)                           # float32 [N, 64, H, W]

References:
    Dumoulin et al. 2017. A Learned Representation for Artistic Style, eq. 5.
    Miyato & Koyama 2018. cGANs with Projection Discriminator.
    Brock et al. 2019. Large Scale GAN Training for High Fidelity Natural Image Synthesis, appendix B.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Statistics = Literal["own", "stored", "running"]
"""Where a norm keeps its statistics: in itself, or in a submodule ``bn`` under one of two pairs of names."""


class StoredNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) with the statistics that training stored, unit by unit."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def normalised(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] of the same shape."""
        return F.batch_norm(x, self.stored_mean, self.stored_var, eps=self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] of the same shape."""
        return self.normalised(x)


class _Normalising(StoredNorm):
    """A norm that keeps its statistics itself, or leaves them and the normalising to a submodule ``bn``."""

    def __init__(self, channels: int, statistics: Statistics, eps: float) -> None:
        super().__init__(channels, eps)
        self.own = statistics == "own"
        if not self.own:
            del self.stored_mean, self.stored_var
            running = statistics == "running"
            self.bn = nn.BatchNorm2d(channels, eps=eps, affine=False) if running else StoredNorm(channels, eps)

    def normalised(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] of the same shape."""
        return super().normalised(x) if self.own else self.bn(x)


class GainNorm(_Normalising):
    """Normalised, times 1 + gain, plus bias: both are read off a class (embedding) or a vector (linear).

    Args:
        channels: C of the map.
        condition: length of the vector that conditions the norm, 0 where a label does.
        classes: number of labels, 0 where a vector conditions the norm.
        biased: both linear maps have biases.
    """

    def __init__(
        self,
        channels: int,
        *,
        condition: int = 0,
        classes: int = 0,
        biased: bool = False,
        statistics: Statistics = "own",
        eps: float = 1e-5,
    ) -> None:
        super().__init__(channels, statistics, eps)
        for name in ("gain", "bias"):
            made = table(classes, channels) if classes else nn.Linear(condition, channels, bias=biased)
            self.add_module(name, made)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """float32 [N, C, H, W] of ``x`` [N, C, H, W] and ``condition`` float32 [N, condition] or int64 [N]."""
        gain, bias = self.get_submodule("gain")(condition), self.get_submodule("bias")(condition)
        return modulated(self.normalised(x), 1.0 + gain, bias)


class PlainNorm(_Normalising):
    """Batch normalisation whose scale and shift are called ``gain`` and ``bias``."""

    def __init__(self, channels: int, *, statistics: Statistics = "own", eps: float = 1e-5) -> None:
        super().__init__(channels, statistics, eps)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] of the same shape."""
        return self.normalised(x) * self.gain[:, None, None] + self.bias[:, None, None]


def table(rows: int, columns: int) -> nn.Embedding:
    """An embedding of zeros: drawing random weights on the device "meta" would make torch import its compiler first (seconds)."""
    return nn.Embedding(rows, columns, _weight=torch.zeros(rows, columns))


class ClassNorm(nn.Module):
    """Batch normalisation whose scale and shift are a class's: ``embed`` holds [scale, shift] in one row per class.

    mimicry's: the scale is the stored number, where ``GainNorm`` counts it from 1 and keeps two tables.
    """

    def __init__(self, channels: int, classes: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.embed = nn.Embedding(classes, 2 * channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """float32 [N, C, H, W] of ``x`` [N, C, H, W] and ``labels`` int64 [N]."""
        scale, shift = self.embed(labels).chunk(2, dim=1)
        return modulated(self.bn(x), scale, shift)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x · scale + shift by unit: ``x`` [N, C, H, W], ``scale`` and ``shift`` [N, C] (1 + gain where a file has gains)."""
    return x * scale[:, :, None, None] + shift[:, :, None, None]
