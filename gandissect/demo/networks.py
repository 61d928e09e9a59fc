"""The three networks of the demo: a generator, its discriminator and a segmenter that knows the concepts.

generator = SceneGenerator().eval()
images = generator(torch.randn(16, generator.latent_size))     # float32 [16, 3, 64, 64] in [-1, 1]
scores = SceneDiscriminator().eval()(images)                   # float32 [16], larger is more real
logits = SceneSegmenter().eval()(images)                       # float32 [16, K, 64, 64]
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gandissect.demo.scenes import CONCEPTS


class SceneGenerator(nn.Module):
    """A DCGAN generator of 64x64 pictures; its layers are ``layer1`` (4x4) to ``layer4`` (32x32) and ``to_rgb``.

    References:
        Radford, Metz, Chintala 2016, Unsupervised Representation Learning with Deep Convolutional GANs.
    """

    def __init__(self, latent_size: int = 64, widths: tuple[int, int, int, int] = (144, 104, 72, 40)) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.layer1 = _up(latent_size, widths[0], stride=1, padding=0)
        self.layer2 = _up(widths[0], widths[1])
        self.layer3 = _up(widths[1], widths[2])
        self.layer4 = _up(widths[2], widths[3])
        self.to_rgb = nn.Sequential(nn.ConvTranspose2d(widths[3], 3, 4, 2, 1), nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """Float32 [N, 3, 64, 64] in [-1, 1] of latents float32 [N, Z] (or [N, Z, 1, 1]), standard normal."""
        x = latent.reshape(len(latent), -1, 1, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return cast(Tensor, self.to_rgb(x))


class SceneDiscriminator(nn.Module):
    """A DCGAN discriminator: ``layer1`` (32x32) to ``layer4`` (4x4) and one logit without a sigmoid."""

    def __init__(self, widths: tuple[int, int, int, int] = (40, 64, 104, 160)) -> None:
        super().__init__()
        self.layer1 = _down(3, widths[0])
        self.layer2 = _down(widths[0], widths[1])
        self.layer3 = _down(widths[1], widths[2])
        self.layer4 = _down(widths[2], widths[3])
        self.to_logit = nn.Conv2d(widths[3], 1, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Float32 [N], larger is more real, of images float32 [N, 3, 64, 64] in [-1, 1]."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(images))))
        return cast(Tensor, self.to_logit(x)).reshape(-1)


class SceneSegmenter(nn.Module):
    """A small U-Net with one logit per concept and pixel.

    References:
        Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation.
    """

    def __init__(self, concepts: int = len(CONCEPTS), width: int = 16) -> None:
        super().__init__()
        w1, w2, w3, w4 = width, width * 3 // 2, width * 2, width * 3
        self.down1 = _block(3, w1)
        self.down2 = _block(w1, w2, stride=2)
        self.down3 = _block(w2, w3, stride=2)
        self.down4 = _block(w3, w4, stride=2)
        self.up3 = _block(w4 + w3, w3)
        self.up2 = _block(w3 + w2, w2)
        self.up1 = _block(w2 + w1, w1)
        self.to_logits = nn.Conv2d(w1, concepts, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Float32 [N, K, 64, 64], positive where a concept is likely, of images float32 [N, 3, 64, 64] in [-1, 1]."""
        a = self.down1(images)
        b = self.down2(a)
        c = self.down3(b)
        d = self.down4(c)
        c = self.up3(torch.cat([_double(d), c], 1))
        b = self.up2(torch.cat([_double(c), b], 1))
        a = self.up1(torch.cat([_double(b), a], 1))
        return cast(Tensor, self.to_logits(a))

    def folded(self) -> SceneSegmenter:
        """This network with every normalisation folded into its convolution; for eval mode only, like what it changes."""
        for block in (self.down1, self.down2, self.down3, self.down4, self.up3, self.up2, self.up1):
            for place in (0, 3):
                convolution, norm = cast(nn.Conv2d, block[place]), cast(nn.BatchNorm2d, block[place + 1])
                block[place], block[place + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        return self


def _up(before: int, after: int, stride: int = 2, padding: int = 1) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


def _down(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2))


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(after), nn.ReLU(), second, nn.BatchNorm2d(after), nn.ReLU())


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
