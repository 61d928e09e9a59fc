"""Layers that the light GANs share: gated units, skip-layer excitation, and noise that is fed, never drawn.

feed_noise(generator, [torch.randn(1, 1, 8, 8), ...])      # one map per noise layer, in the order in which they run
feed_noise(generator)                                      # back to none
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gandissect.errors import UsageError

UNFED = "noise is left out: the codebase draws it anew for every image; feed_noise of gandissect_adapters.families.fast.ops sets it"
"""What the note says of every generator with a ``Noise``."""


class Glu(nn.Module):
    """First half of the units times the sigmoid of the second (Dauphin et al. 2017): [N, 2 C, H, W] to [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        value, gate = x.chunk(2, dim=1)
        return value * torch.sigmoid(gate)


class Noise(nn.Module):
    """x + weight · noise, one weight for all units or one [C, 1, 1] for each; x itself while ``noise`` is None.

    The codebases draw the noise anew in every forward pass, in eval mode too. Here it is what was fed last: a map
    [1 or N, 1, H, W], or None, its mean. rosinality's, NVlabs' and genforce's StyleGANs keep their maps in the file instead.
    """

    noise: Tensor | None

    def __init__(self, *weight: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(weight or (1,)))
        self.register_buffer("noise", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return x * 1.0 if self.noise is None else x + self.weight * self.noise


def feed_noise(generator: nn.Module, maps: Sequence[Tensor] = ()) -> None:
    """Set what every noise layer of ``generator`` adds, until it is set again.

    Args:
        maps: one [1 or N, 1, H, W] per noise layer, in the order in which they run; none of them for no noise.

    Raises:
        UsageError: their number is not that of the noise layers.
    """
    layers = [module for module in generator.modules() if isinstance(module, Noise)]
    if maps and len(maps) != len(layers):
        raise UsageError(f"{type(generator).__name__} has {len(layers)} noise layers; {len(maps)} maps were given")
    for index, layer in enumerate(layers):
        layer.noise = maps[index].to(layer.weight) if maps else None


class Excite(nn.Module):
    """Skip-layer excitation: a large map times a gate per unit that a small map opens (Liu et al. 2021, eq. 1)."""

    def __init__(self, small: int, large: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(small, large, 4, bias=False),
            nn.SiLU(),
            nn.Conv2d(large, large, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, small: Tensor, large: Tensor) -> Tensor:
        """``small`` [N, small, h, w] and ``large`` [N, large, H, W] to [N, large, H, W]."""
        out: Tensor = large * self.main(small)
        return out


class First(nn.Module):
    """A latent [N, Z] to its first map [N, C, 4, 4]."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.init = nn.Sequential(
            nn.ConvTranspose2d(inputs, 2 * units, 4, bias=False), nn.BatchNorm2d(2 * units), Glu()
        )

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.init(z[:, :, None, None])
        return out


def gated_up(inputs: int, units: int) -> nn.Sequential:
    """Twice the size by repeating pixels, then one gated convolution: [N, inputs, H, W] to [N, units, 2 H, 2 W]."""
    return nn.Sequential(nn.Upsample(scale_factor=2), *_gated(inputs, units, noise=False))


def noisy_up(inputs: int, units: int) -> nn.Sequential:
    """As ``gated_up``, with a second gated convolution, and noise after both."""
    parts = (*_gated(inputs, units, noise=True), *_gated(units, units, noise=True))
    return nn.Sequential(nn.Upsample(scale_factor=2), *parts)


def _gated(inputs: int, units: int, *, noise: bool) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, 2 * units, 3, 1, 1, bias=False)
    return [conv, *([Noise()] if noise else []), nn.BatchNorm2d(2 * units), Glu()]
