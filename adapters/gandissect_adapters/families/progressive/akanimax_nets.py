"""The networks of pro_gan_pytorch and BMSG-GAN, which share their generator.

generator = AkanimaxGenerator(512, [512, 512, 256], 3, levels=3, alpha=1.0, scaled=True, normalize=True)
generator(z)                               # float32 [N, 3, 16, 16]
BmsgDiscriminator(…).score_scales(generator.scales(z))

References:
    Karras et al. 2018 (Progressive Growing of GANs); Karnewar & Wang 2020 (MSG-GAN).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect_adapters.families.layers import (
    SQRT2,
    EqualConv2d,
    EqualConvTranspose2d,
    MinibatchStd,
    PixelNorm,
    enlarge,
    fade,
)


class FirstBlock(nn.Module):
    """A latent becomes 4×4: transposed convolution, convolution, each with LeakyReLU; pixel norm at the end only.

    Args:
        normalize: pixel norm of the latent as well.
    """

    def __init__(self, latent: int, width: int, *, scaled: bool, normalize: bool) -> None:
        super().__init__()
        self.conv_1 = EqualConvTranspose2d(latent, width, 4, gain=SQRT2, scaled=scaled)
        self.conv_2 = EqualConv2d(width, width, 3, padding=1, gain=SQRT2, scaled=scaled)
        self.latentNorm = PixelNorm() if normalize else nn.Identity()
        self.pixNorm = PixelNorm()
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, z: Tensor) -> Tensor:
        """float32 [N, latent] to [N, width, 4, 4]."""
        x = self.lrelu(self.conv_1(self.latentNorm(z)[:, :, None, None]))
        out: Tensor = self.pixNorm(self.lrelu(self.conv_2(x)))
        return out


class UpBlock(nn.Module):
    """Twice the side, then two convolutions, each with LeakyReLU and pixel norm."""

    def __init__(self, inputs: int, outputs: int, *, scaled: bool) -> None:
        super().__init__()
        self.conv_1 = EqualConv2d(inputs, outputs, 3, padding=1, gain=SQRT2, scaled=scaled)
        self.conv_2 = EqualConv2d(outputs, outputs, 3, padding=1, gain=SQRT2, scaled=scaled)
        self.pixNorm = PixelNorm()
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, 2H, 2W]."""
        x = self.pixNorm(self.lrelu(self.conv_1(enlarge(x))))
        out: Tensor = self.pixNorm(self.lrelu(self.conv_2(x)))
        return out


class AkanimaxGenerator(nn.Module):
    """The generator of both codebases.

    Args:
        latent: size of z.
        widths: units of each block, from 4×4 on.
        channels: of the images.
        levels: how many blocks are used; 1 gives 4×4.
        alpha: weight of the last block's picture against that of the block before.
    """

    def __init__(
        self,
        latent: int,
        widths: Sequence[int],
        channels: int,
        *,
        levels: int,
        alpha: float,
        scaled: bool,
        normalize: bool,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = [FirstBlock(latent, widths[0], scaled=scaled, normalize=normalize)]
        blocks += [UpBlock(a, b, scaled=scaled) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList(blocks)
        self.rgb_converters = nn.ModuleList(
            EqualConv2d(width, channels, 1, gain=SQRT2, scaled=scaled) for width in widths
        )
        self.levels, self.alpha = levels, alpha

    def scales(self, z: Tensor) -> list[Tensor]:
        """The pictures [N, channels, S, S] of every block in use, S = 4, 8, …: what BMSG-GAN shows its discriminator.

        Args:
            z: float32 [N, latent].
        """
        pictures, x = [], z
        for index in range(self.levels):
            x = self.layers[index](x)
            pictures.append(self.rgb_converters[index](x))
        return pictures

    def forward(self, z: Tensor) -> Tensor:
        """float32 [N, latent] to [N, channels, S, S], about -1..1, S = 2 ** (levels + 1)."""
        below = x = z
        for block in list(self.layers)[: self.levels]:
            below, x = x, block(x)
        picture: Tensor = self.rgb_converters[self.levels - 1](x)
        if self.levels == 1 or self.alpha == 1.0:
            return picture
        return fade(picture, enlarge(self.rgb_converters[self.levels - 2](below)), self.alpha)


class DownBlock(nn.Module):
    """Two convolutions, each with LeakyReLU, then half the side."""

    def __init__(self, inputs: int, outputs: int, *, scaled: bool) -> None:
        super().__init__()
        self.conv_1 = EqualConv2d(inputs, inputs, 3, padding=1, gain=SQRT2, scaled=scaled)
        self.conv_2 = EqualConv2d(inputs, outputs, 3, padding=1, gain=SQRT2, scaled=scaled)
        self.downSampler = nn.AvgPool2d(2)
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H/2, W/2]."""
        out: Tensor = self.downSampler(self.lrelu(self.conv_2(self.lrelu(self.conv_1(x)))))
        return out


class FinalBlock(nn.Module):
    """4×4 to one score: minibatch statistic, a 3×3 and a 4×4 convolution, and one to a single unit.

    Args:
        inputs: units of the map.
        width: units of the first convolution.
        deep: units of the second one.
        group: of the minibatch statistic, 0 for the whole batch.
        classes: with labels the score is lrelu(conv_3) + a projection on the class's vector (Miyato & Koyama 2018, eq. 3); those
            vectors' norms are at most 1.
    """

    def __init__(self, inputs: int, width: int, deep: int, *, group: int, classes: int, scaled: bool) -> None:
        super().__init__()
        self.batch_discriminator = MinibatchStd(group, whole=True)
        self.conv_1 = EqualConv2d(inputs + 1, width, 3, padding=1, gain=SQRT2, scaled=scaled)
        self.conv_2 = EqualConv2d(width, deep, 4, gain=SQRT2, scaled=scaled)
        self.conv_3 = EqualConv2d(deep, 1, 1, gain=SQRT2, scaled=scaled)
        self.lrelu = nn.LeakyReLU(0.2)
        if classes:
            self.label_embedder = nn.Embedding(classes, deep)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, inputs, 4, 4] (and int64 [N]) to [N]."""
        x = self.lrelu(self.conv_2(self.lrelu(self.conv_1(self.batch_discriminator(x)))))
        score: Tensor = self.conv_3(x)
        if labels is None:
            return score.flatten()
        projected = (x.flatten(1) * self.label_embedder(labels)).sum(1)
        out: Tensor = self.lrelu(score).flatten() + projected
        return out


class ProGanDiscriminator(nn.Module):
    """The discriminator of pro_gan_pytorch.

    Args:
        widths: units of each block from the largest resolution down to 4×4.
        deep: units of the last block's 4×4 convolution.
        levels: how many blocks are used; 1 takes 4×4 images.
        alpha: weight of the largest resolution against the next one.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], deep: int, *, levels: int, alpha: float, classes: int, scaled: bool
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = [DownBlock(a, b, scaled=scaled) for a, b in pairwise(widths)]
        blocks.append(FinalBlock(widths[-1], widths[-1], deep, group=4, classes=classes, scaled=scaled))
        self.layers = nn.ModuleList(blocks)
        self.from_rgb = nn.ModuleList(
            nn.Sequential(EqualConv2d(channels, width, 1, gain=SQRT2, scaled=scaled), nn.LeakyReLU(0.2))
            for width in widths
        )
        self.first, self.alpha, self.classes = len(widths) - levels, alpha, classes

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores, float32 [N].

        Args:
            images: float32 [N, channels, S, S], S = 2 ** (levels + 1).
            labels: int64 [N], where it takes them.
        """
        last = len(self.layers) - 1
        x = self.from_rgb[self.first](images)
        for index in range(self.first, last):
            x = self.layers[index](x)
            if index == self.first and self.alpha != 1.0:
                x = fade(x, self.from_rgb[index + 1](F.avg_pool2d(images, 2)), self.alpha)
        score: Tensor = self.layers[last](x, labels) if self.classes else self.layers[last](x)
        return score


class BmsgDiscriminator(nn.Module):
    """The discriminator of BMSG-GAN, which looks at all resolutions together.

    Called with images of the largest resolution alone it makes the smaller ones by averaging, as training did with real images;
    ``score_scales`` takes those that a generator made itself.

    Args:
        widths: of each of ``layers`` (inputs, outputs), from 8×8 up.
        features: units that each resolution's colours become, from 8×8 up; of 4×4 they are ``bottom``.
    """

    def __init__(
        self, channels: int, widths: Sequence[tuple[int, int]], features: Sequence[int], bottom: int, *, scaled: bool
    ) -> None:
        super().__init__()
        self.rgb_to_features = nn.ModuleList(
            EqualConv2d(channels, width, 1, gain=SQRT2, scaled=scaled) for width in features
        )
        self.final_converter = EqualConv2d(channels, bottom, 1, gain=SQRT2, scaled=scaled)
        self.layers = nn.ModuleList(DownBlock(a, b, scaled=scaled) for a, b in widths)
        whole = bottom + widths[0][1]
        self.final_block = FinalBlock(whole, whole, whole, group=0, classes=0, scaled=scaled)

    def score_scales(self, images: Sequence[Tensor]) -> Tensor:
        """Scores, float32 [N], of images at every resolution.

        Args:
            images: float32 [N, channels, S, S] with S = 4, 8, … up to the largest, as ``AkanimaxGenerator.scales`` gives them.
        """
        last = len(self.layers) - 1
        x = self.layers[last](self.rgb_to_features[last](images[-1]))
        for index in reversed(range(last)):
            x = self.layers[index](torch.cat([self.rgb_to_features[index](images[index + 1]), x], 1))
        score: Tensor = self.final_block(torch.cat([self.final_converter(images[0]), x], 1))
        return score

    def forward(self, images: Tensor) -> Tensor:
        """Scores, float32 [N], of float32 [N, channels, S, S], S the largest resolution."""
        factors = [2 ** (len(self.layers) - index) for index in range(len(self.layers))]
        return self.score_scales([*(F.avg_pool2d(images, factor) for factor in factors), images])
