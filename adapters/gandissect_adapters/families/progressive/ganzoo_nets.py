"""The networks of pytorch_GAN_zoo: a progressive GAN whose layers scale their whole output, and a DCGAN.

generator = ProgressiveGenerator(512, [], [512, 512, 256], 3, alpha=0.0, leak=0.2, scaled=True, tanh=False)
generator(z)                               # float32 [N, 3, 16, 16]
DcganDiscriminator(3, [64, 128, 256], 1)(images)

References:
    Karras et al. 2018 (Progressive Growing of GANs); Radford et al. 2016 (DCGAN); Odena et al. 2017 (AC-GAN) for the labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect_adapters.families.layers import MinibatchStd, PixelNorm, enlarge, fade


class Constrained(nn.Module):
    """A layer whose whole output, bias included, is scaled by sqrt(2 / fan_in) at run time.

    Args:
        layer: a convolution or linear layer with a bias.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, scaled: bool) -> None:
        super().__init__()
        self.module = layer
        self.scale = sqrt(2.0 / prod(layer.weight.shape[1:])) if scaled else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """As the layer."""
        out: Tensor = self.module(x) * self.scale
        return out


class Level(nn.Module):
    """3×3 convolutions "0", "1" …, each with LeakyReLU and, where ``norm`` says so, pixel norm.

    Args:
        widths: units before, between and after the convolutions.
    """

    def __init__(self, widths: Sequence[int], *, leak: float, scaled: bool, norm: bool) -> None:
        super().__init__()
        self.count = len(widths) - 1
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            self.add_module(str(index), Constrained(nn.Conv2d(inputs, outputs, 3, padding=1), scaled))
        self.leakyRelu = nn.LeakyReLU(leak)
        self.normalizationLayer = PixelNorm() if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, widths[0], H, W] to [N, widths[-1], H, W]."""
        for index in range(self.count):
            x = self.normalizationLayer(self.leakyRelu(self.get_submodule(str(index))(x)))
        return x


class ProgressiveGenerator(nn.Module):
    """z, normalised, through a linear layer to 4×4, then one level per resolution.

    Args:
        latent: size of z without labels.
        labels: number of values of each label; a class is one choice of all, the last label changing fastest.
        widths: units at 4×4, 8×8, ….
        alpha: weight of the resolution before the last one, 0 where it has faded out.
    """

    def __init__(
        self,
        latent: int,
        labels: Sequence[int],
        widths: Sequence[int],
        channels: int,
        *,
        alpha: float,
        leak: float,
        scaled: bool,
        tanh: bool,
    ) -> None:
        super().__init__()
        self.labels, self.alpha, self.bottom = tuple(labels), alpha, widths[0]
        self.scaleLayers = nn.ModuleList(
            Level([a, b, b], leak=leak, scaled=scaled, norm=True) for a, b in pairwise(widths)
        )
        self.toRGBLayers = nn.ModuleList(Constrained(nn.Conv2d(width, channels, 1), scaled) for width in widths)
        self.formatLayer = Constrained(nn.Linear(latent + sum(labels), 16 * widths[0]), scaled)
        self.groupScale0 = Level([widths[0], widths[0]], leak=leak, scaled=scaled, norm=True)
        self.leakyRelu = nn.LeakyReLU(leak)
        self.normalizationLayer = PixelNorm()
        self.generationActivation = nn.Tanh() if tanh else nn.Identity()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, latent] (and int64 [N]) to [N, channels, S, S], about -1..1."""
        x = self.normalizationLayer(with_labels(z.flatten(1), labels, self.labels))
        x = self.leakyRelu(self.formatLayer(x)).reshape(len(x), self.bottom, 4, 4)
        below = x = self.groupScale0(self.normalizationLayer(x))
        for level in self.scaleLayers:
            below, x = x, level(enlarge(x))
        picture = self.toRGBLayers[-1](x)
        if self.alpha > 0.0 and len(self.scaleLayers):
            picture = fade(enlarge(self.toRGBLayers[-2](below)), picture, self.alpha)
        out: Tensor = self.generationActivation(picture)
        return out


class ProgressiveDiscriminator(nn.Module):
    """The mirror of the generator; minibatch statistic, two layers and the decision at 4×4.

    Args:
        widths: units at 4×4, 8×8, ….
        deciding: units of the decision layer: the score and one per class.
        statistic: a minibatch statistic is appended at 4×4.
        alpha: weight of the next smaller resolution. As in the codebase it has no effect in a network of two resolutions.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        deciding: int,
        *,
        statistic: bool,
        alpha: float,
        leak: float,
        scaled: bool,
    ) -> None:
        super().__init__()
        self.alpha = alpha if len(widths) > 2 else 0.0
        self.scaleLayers = nn.ModuleList(
            Level([b, b, a], leak=leak, scaled=scaled, norm=False) for a, b in pairwise(widths)
        )
        self.fromRGBLayers = nn.ModuleList(Constrained(nn.Conv2d(channels, width, 1), scaled) for width in widths)
        self.decisionLayer = Constrained(nn.Linear(widths[0], deciding), scaled)
        self.statistic = MinibatchStd(4, consecutive=True, unbiased=True, whole=True) if statistic else nn.Identity()
        self.groupScaleZero = nn.ModuleList(
            [
                Constrained(nn.Conv2d(widths[0] + int(statistic), widths[0], 3, padding=1), scaled),
                Constrained(nn.Linear(16 * widths[0], widths[0]), scaled),
            ]
        )
        self.leakyRelu = nn.LeakyReLU(leak)

    def forward(self, images: Tensor) -> Tensor:
        """Scores, float32 [N, 1], of float32 [N, channels, S, S]; what it says of classes is left out."""
        x = self.leakyRelu(self.fromRGBLayers[-1](images))
        for index, level in enumerate(reversed(list(self.scaleLayers))):
            x = F.avg_pool2d(level(x), 2)
            if index == 0 and self.alpha > 0.0:
                x = fade(self.leakyRelu(self.fromRGBLayers[-2](F.avg_pool2d(images, 2))), x, self.alpha)
        x = self.leakyRelu(self.groupScaleZero[0](self.statistic(x)))
        out: Tensor = self.decisionLayer(self.leakyRelu(self.groupScaleZero[1](x.flatten(1))))
        return out[:, :1]


class DcganGenerator(nn.Module):
    """Transposed convolutions of 4×4: one from the latent to 4×4, then each doubles the side; BatchNorm and ReLU between.

    Args:
        latent: size of z without labels.
        labels: number of values of each label, as in ``ProgressiveGenerator``.
        widths: units at 4×4, 8×8, … before the output layer.
    """

    def __init__(self, latent: int, labels: Sequence[int], widths: Sequence[int], channels: int, *, tanh: bool) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.formatLayer = nn.ConvTranspose2d(latent + sum(labels), widths[0], 4, bias=False)
        parts: OrderedDict[str, nn.Module] = OrderedDict(batchNorm0=nn.BatchNorm2d(widths[0]), relu0=nn.ReLU())
        for index, (inputs, outputs) in enumerate(pairwise(widths), 1):
            parts[f"convTranspose{index}"] = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
            parts[f"batchNorm{index}"] = nn.BatchNorm2d(outputs)
            parts[f"relu{index}"] = nn.ReLU()
        parts["outlayer"] = nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False)
        self.main = nn.Sequential(parts)
        self.outputActivation = nn.Tanh() if tanh else nn.Identity()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, latent] (and int64 [N]) to [N, channels, S, S] in -1..1."""
        x = with_labels(z.flatten(1), labels, self.labels)[:, :, None, None]
        out: Tensor = self.outputActivation(self.main(self.formatLayer(x)))
        return out


class DcganDiscriminator(nn.Module):
    """Convolutions of 4×4 and stride 2, numbered downwards, BatchNorm after all but the first, LeakyReLU 0.2.

    Args:
        widths: units from the largest side down to 4×4.
        deciding: units of the decision layer: the score and one per class.
    """

    def __init__(self, channels: int, widths: Sequence[int], deciding: int) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (inputs, outputs) in enumerate(pairwise([channels, *widths])):
            number = len(widths) - 1 - index
            parts[f"convTranspose{number}"] = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
            if index:
                parts[f"batchNorm{number}"] = nn.BatchNorm2d(outputs)
            parts[f"relu{number}"] = nn.LeakyReLU(0.2)
        self.main = nn.Sequential(parts)
        self.decisionLayer = nn.Conv2d(widths[-1], deciding, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scores, float32 [N, 1], of float32 [N, channels, S, S]; what it says of classes is left out."""
        out: Tensor = self.decisionLayer(self.main(images)).flatten(1)
        return out[:, :1]


def with_labels(z: Tensor, labels: Tensor | None, sizes: Sequence[int]) -> Tensor:
    """z [N, D] followed by one-hot values of each label.

    Args:
        labels: int64 [N]; a class stands for one choice of every label, the last one changing fastest.
        sizes: number of values of each label; empty for none.

    Returns:
        float32 [N, D + sum(sizes)].
    """
    if not sizes:
        return z
    if labels is None:
        raise ValueError("this generator takes labels, int64 [N]")
    parts: list[Tensor] = []
    rest = labels
    for size in reversed(sizes):
        parts.insert(0, F.one_hot(rest % size, size).to(z.dtype))
        rest = torch.div(rest, size, rounding_mode="floor")
    return torch.cat([z, *parts], 1)
