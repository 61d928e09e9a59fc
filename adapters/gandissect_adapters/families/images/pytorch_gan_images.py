"""Translators of eriklindernoren/PyTorch-GAN: cyclegan, pix2pix, stargan.

gandissect.open("saved_models/G_AB_199.pth", discriminator="saved_models/D_B_199.pth")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.images.image_input import (
    Stack,
    activations_of,
    check_channels,
    image_latent,
    kernel_of,
    rows,
    size_option,
)
from gandissect_adapters.families.images.junyanz import ResnetGenerator, resnet_plan
from gandissect_adapters.families.layers import Residual
from gandissect_adapters.recognise.unwrap import Role, StateDict

_REPOSITORY = "eriklindernoren/PyTorch-GAN"


class PatchDiscriminatorPadded(Stack):
    """Images [N, C, H, W] to a map of logits: stride-2 convolutions, instance norm, one column and row of zeros, a convolution."""

    def __init__(self, into: int, widths: tuple[int, ...], *, biased: bool) -> None:
        layers: list[nn.Module] = [nn.Conv2d(into, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for before, width in pairwise(widths):
            layers += [nn.Conv2d(before, width, 4, 2, 1), nn.InstanceNorm2d(width), nn.LeakyReLU(0.2)]
        layers += [nn.ZeroPad2d((1, 0, 1, 0)), nn.Conv2d(widths[-1], 1, 4, padding=1, bias=biased)]
        super().__init__("model", layers)


class PyTorchGanCycleGan(Family):
    """``cyclegan``: the ResNet generator that upsamples by nearest neighbours, and the PatchGAN of cyclegan and pix2pix."""

    name: ClassVar[str] = "CycleGAN (PyTorch-GAN)"
    source: ClassVar[str] = f"Zhu et al. 2017; {_REPOSITORY}"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(128)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        if (
            has(t, r"model\.1\.weight", r"model\.\d+\.block\.1\.weight", r"model\.\d+\.block\.5\.weight")
            and all(re.fullmatch(r"model\.\d+\.(block\.[15]\.)?(weight|bias)", name) for name in t)
            and kernel_of(t, "model.1") == 7
        ):
            return "generator"
        places = {name.rpartition(".")[0] for name in t}
        convs = all(tensor.dim() == 4 and tensor.shape[3] == 4 for name, tensor in t.items() if name.endswith("weight"))
        padded = places == {f"model.{k}" for k in (0, 2, 5, 8, 12)}
        return "discriminator" if padded and convs and rows(t, "model.12") == 1 else ""

    def generator(self, case: Case) -> Networks:
        found = resnet_plan(case.tensors, "block")
        # ReflectionPad2d(channels): the pad is the number of channels, so grey images come out smaller.
        plan = replace(found, nearest=True, edge=found.into)
        module = load(lambda: ResnetGenerator(plan), case.tensors)
        return Networks(
            generator=module,
            latent=image_latent(case, plan.into, multiple=2 ** (len(plan.widths) - 1)),
            output_range=(-1.0, 1.0),
            main_layers=activations_of(module.model, "model"),
        )

    def discriminator(self, case: Case) -> Networks:
        t = case.tensors
        into, biased = int(t["model.0.weight"].shape[1]), "model.12.bias" in t
        check_channels(case, into)
        widths = tuple(rows(t, f"model.{k}") for k in (0, 2, 5, 8))
        module = load(lambda: PatchDiscriminatorPadded(into, widths, biased=biased), t)
        layers = activations_of(module.get_submodule("model"), "model")
        return Networks(discriminator=module, discriminator_layers=layers, discriminator_output="logit")


class UnetDown(nn.Module):
    """[N, C, H, W] to half the size."""

    def __init__(self, into: int, out: int, *, normed: bool) -> None:
        super().__init__()
        norm = [nn.InstanceNorm2d(out)] if normed else []
        self.model = nn.Sequential(nn.Conv2d(into, out, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.model(x)
        return out


class UnetUp(nn.Module):
    """[N, C, H, W] to twice the size, followed by what the encoder had there."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(into, out, 4, 2, 1, bias=False)
        self.model = nn.Sequential(up, nn.InstanceNorm2d(out), nn.ReLU())

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        """As the class says."""
        return torch.cat([self.model(x), skipped], 1)


class UnetGenerator(nn.Module):
    """Images [N, C, H, W] in -1..1 to images of the same size, through a bottleneck of 1×1 where H is 256.

    Args:
        downs: (in, out) of ``down1`` and on.
        ups: (in, out) of ``up1`` and on.
        final: (in, out) of the last convolution.
    """

    def __init__(self, downs: list[tuple[int, int]], ups: list[tuple[int, int]], final: tuple[int, int]) -> None:
        super().__init__()
        self.levels = len(downs)
        for k, (into, out) in enumerate(downs, 1):
            self.add_module(f"down{k}", UnetDown(into, out, normed=1 < k < self.levels))
        for k, (into, out) in enumerate(ups, 1):
            self.add_module(f"up{k}", UnetUp(into, out))
        last = nn.Conv2d(*final, 4, padding=1)
        self.final = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.ZeroPad2d((1, 0, 1, 0)), last, nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        seen, x = [], images
        for k in range(1, self.levels + 1):
            x = self.get_submodule(f"down{k}")(x)
            seen.append(x)
        for k in range(1, self.levels):
            x = self.get_submodule(f"up{k}")(x, seen[-1 - k])
        out: Tensor = self.final(x)
        return out


class PyTorchGanPix2Pix(Family):
    """``pix2pix``: the U-Net of eight levels."""

    name: ClassVar[str] = "pix2pix (PyTorch-GAN)"
    source: ClassVar[str] = f"Isola et al. 2017; {_REPOSITORY}"
    options: ClassVar[Mapping[str, Option]] = {
        "size": Option("side of the input images", "256", "the size the network is made for")
    }

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        names = all(re.fullmatch(r"(down|up)\d\.model\.0\.weight|final\.2\.(weight|bias)", name) for name in t)
        fits = names and has(t, r"down1\.model\.0\.weight", r"up1\.model\.0\.weight", r"final\.2\.bias")
        return "generator" if fits and kernel_of(t, "down1.model.0") == kernel_of(t, "final.2") == 4 else ""

    def generator(self, case: Case) -> Networks:
        t = case.tensors
        down = [t[f"down{k}.model.0.weight"].shape for k in indices(t, r"down(\d)\..*")]
        up = [t[f"up{k}.model.0.weight"].shape for k in indices(t, r"up(\d)\..*")]
        final = t["final.2.weight"].shape
        module = load(
            lambda: UnetGenerator([(s[1], s[0]) for s in down], [(s[0], s[1]) for s in up], (final[1], final[0])), t
        )
        encoder = tuple(f"down{k}.model.{1 if k in (1, len(down)) else 2}" for k in range(1, len(down) + 1))
        return Networks(
            generator=module,
            latent=image_latent(case, down[0][1], multiple=2 ** len(down)),
            output_range=(-1.0, 1.0),
            main_layers=(*encoder, *(f"up{k}.model.2" for k in range(1, len(up) + 1))),
        )


def _conv_norm(conv: nn.Module, width: int) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(width, affine=True, track_running_stats=True), nn.ReLU()]


def _stargan_block(width: int) -> Residual:
    one, two = (_conv_norm(nn.Conv2d(width, width, 3, 1, 1, bias=False), width) for _ in range(2))
    return Residual("conv_block", nn.Sequential(*one, *two[:-1]))


class StarGanGenerator(nn.Module):
    """Images [N, C, H, W] in -1..1 and labels [N] to images of the same size: StarGAN (Choi et al. 2018), table 4.

    The original takes any set of attributes; a label is the set of that one attribute, spread over the image as maps.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], attributes: int, blocks: int) -> None:
        super().__init__()
        self.attributes = attributes
        first = nn.Conv2d(channels + attributes, widths[0], 7, 1, 3, bias=False)
        layers = _conv_norm(first, widths[0])
        for wide, narrow in pairwise(widths):
            layers += _conv_norm(nn.Conv2d(wide, narrow, 4, 2, 1, bias=False), narrow)
        layers += [_stargan_block(widths[-1]) for _ in range(blocks)]
        for narrow, wide in pairwise(reversed(widths)):
            layers += _conv_norm(nn.ConvTranspose2d(narrow, wide, 4, 2, 1, bias=False), wide)
        self.model = nn.Sequential(*layers, nn.Conv2d(widths[0], channels, 7, 1, 3), nn.Tanh())

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """As the class says."""
        chosen = F.one_hot(labels, self.attributes).to(images.dtype)[:, :, None, None]
        out: Tensor = self.model(torch.cat([images, chosen.expand(-1, -1, *images.shape[2:])], 1))
        return out


class StarGanDiscriminator(nn.Module):
    """Images [N, C, H, W] to a map of logits; ``out2``, which tells the attributes, runs beside it as a layer to read."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k in indices(tensors, r"model\.(\d+)\.weight"):
            out, into = tensors[f"model.{k}.weight"].shape[:2]
            layers += [nn.Conv2d(into, out, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.model = nn.Sequential(*layers)
        attributes, width, side = tensors["out2.weight"].shape[:3]
        self.out1 = nn.Conv2d(width, 1, 3, padding=1, bias=False)
        self.out2 = nn.Conv2d(width, attributes, side, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        features = self.model(images)
        if min(features.shape[2:]) >= self.out2.kernel_size[0]:
            self.out2(features)
        scores: Tensor = self.out1(features)
        return scores


class PyTorchGanStarGan(Family):
    """``stargan``: one generator for several attributes."""

    name: ClassVar[str] = "StarGAN (PyTorch-GAN)"
    source: ClassVar[str] = f"Choi et al. 2018; {_REPOSITORY}"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(128)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        if (
            has(t, r"model\.0\.weight", r"model\.1\.running_mean", r"model\.9\.conv_block\.[04]\.weight")
            and kernel_of(t, "model.0") == 7
            and kernel_of(t, "model.3") == 4
        ):
            return "generator"
        fits = has(t, r"model\.0\.weight", r"out1\.weight", r"out2\.weight") and kernel_of(t, "model.0") == 4
        known = all(re.fullmatch(r"model\.\d*[02468]\.(weight|bias)|out[12]\.weight", name) for name in t)
        return "discriminator" if fits and known and rows(t, "out1") == 1 else ""

    def generator(self, case: Case) -> Networks:
        t = case.tensors
        blocks = indices(t, r"model\.(\d+)\.conv_block\..*")
        convs = [k for k in indices(t, r"model\.(\d+)\.weight") if t[f"model.{k}.weight"].dim() == 4]
        widths = tuple(rows(t, f"model.{k}") for k in convs if k < blocks[0])
        channels = rows(t, f"model.{convs[-1]}")
        attributes = int(t["model.0.weight"].shape[1]) - channels
        module = load(lambda: StarGanGenerator(channels, widths, attributes, len(blocks)), t)
        case.note("label k asks for attribute k alone; the original also takes several at once")
        return Networks(
            generator=module,
            latent=image_latent(case, channels, multiple=2 ** (len(widths) - 1)),
            output_range=(-1.0, 1.0),
            num_classes=attributes,
            main_layers=activations_of(module.model, "model"),
        )

    def discriminator(self, case: Case) -> Networks:
        check_channels(case, int(case.tensors["model.0.weight"].shape[1]))
        module = load(lambda: StarGanDiscriminator(case.tensors), case.tensors)
        layers = activations_of(module.model, "model")
        return Networks(discriminator=module, discriminator_layers=layers, discriminator_output="logit")
