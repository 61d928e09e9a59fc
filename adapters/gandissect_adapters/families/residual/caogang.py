"""The WGAN-GP scripts of caogang: a linear layer, two transposed convolutions and a third one that draws the image.

gan = gandissect.open("netG.pth", discriminator="netD.pth")     # 28×28 grey in 0..1, or 32×32 RGB in -1..1
gan.generator.main_layers()                                     # preprocess, block1, block2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, load
from gandissect_adapters.recognise.unwrap import Role, StateDict

Layout = Literal["mnist", "cifar", ""]
_CONVOLUTIONS = ("main.0", "main.2", "main.4")


class MnistGenerator(nn.Module):
    """4×4, 8×8 cut to 7×7, 11×11, 28×28; without norms, ends in a sigmoid.

    References:
        Gulrajani et al. 2017 (WGAN-GP), the MNIST network of their code.
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.preprocess = nn.Sequential(nn.Linear(latent, 64 * width), nn.ReLU())
        self.block1 = nn.Sequential(nn.ConvTranspose2d(4 * width, 2 * width, 5), nn.ReLU())
        self.block2 = nn.Sequential(nn.ConvTranspose2d(2 * width, width, 5), nn.ReLU())
        self.deconv_out = nn.ConvTranspose2d(width, 1, 8, stride=2)
        self.sigmoid = nn.Sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        """float32 [N, latent] to images [N, 1, 28, 28] in [0, 1]."""
        x = self.preprocess(z).reshape(len(z), -1, 4, 4)
        x = self.block2(self.block1(x)[:, :, :7, :7])
        images: Tensor = self.sigmoid(self.deconv_out(x))
        return images


class CifarGenerator(nn.Module):
    """4×4, 8×8, 16×16, 32×32 by transposed convolutions of 2×2 and stride 2; with norms, ends in tanh."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.preprocess = nn.Sequential(nn.Linear(latent, 64 * width), nn.BatchNorm1d(64 * width), nn.ReLU())
        self.block1 = self._block(4 * width, 2 * width)
        self.block2 = self._block(2 * width, width)
        self.deconv_out = nn.ConvTranspose2d(width, 3, 2, stride=2)
        self.tanh = nn.Tanh()

    @staticmethod
    def _block(into: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.ConvTranspose2d(into, out, 2, stride=2), nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, z: Tensor) -> Tensor:
        """float32 [N, latent] to images [N, 3, 32, 32] in [-1, 1]."""
        x = self.preprocess(z).reshape(len(z), -1, 4, 4)
        images: Tensor = self.tanh(self.deconv_out(self.block2(self.block1(x))))
        return images


class Critic(nn.Module):
    """Three convolutions of stride 2 to a 4×4 map, and a linear layer to one score.

    Args:
        layout: mnist has kernels of 5, ReLU and a last layer ``output``; cifar 3, LeakyReLU(0.01) and ``linear``.
        width: units of the first convolution.
    """

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        mnist = layout == "mnist"
        self.side, self.head = (28, "output") if mnist else (32, "linear")
        channels, kernel = (1, 5) if mnist else (3, 3)
        layers: list[nn.Module] = []
        for into, out in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers.append(nn.Conv2d(into, out, kernel, 2, kernel // 2))
            layers.append(nn.ReLU() if mnist else nn.LeakyReLU(0.01))
        self.main = nn.Sequential(*layers)
        self.add_module(self.head, nn.Linear(64 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] (or the same as vectors) to scores [N, 1]."""
        maps = self.main(x.reshape(len(x), -1, self.side, self.side))
        scores: Tensor = self.get_submodule(self.head)(maps.flatten(1))
        return scores


class CaogangWgan(Family):
    """``preprocess, block1, block2, deconv_out`` and ``main, linear`` (CIFAR-10) or ``main, output`` (MNIST)."""

    name = "WGAN-GP (caogang)"
    source = "caogang/wgan-gp; Gulrajani et al. 2017"

    def role(self, net: StateDict) -> Role:
        """By the names and the kernels, which differ between the two scripts, and units that halve or double."""
        if _generator_layout(net.tensors):
            return "generator"
        return "discriminator" if _critic_layout(net.tensors) else ""

    def generator(self, case: Case) -> Networks:
        """The generator of the MNIST or the CIFAR-10 script."""
        tensors = case.tensors
        latent, width = tensors["preprocess.0.weight"].shape[1], tensors["deconv_out.weight"].shape[0]
        mnist = _generator_layout(tensors) == "mnist"
        make = MnistGenerator if mnist else CifarGenerator
        module: nn.Module = load(lambda: make(latent, width), tensors)
        return Networks(
            generator=module, latent=LatentSpace("z", (latent,)), main_layers=("preprocess", "block1", "block2"),
            image_shape=(1, 28, 28) if mnist else (3, 32, 32), output_range=(0.0, 1.0) if mnist else (-1.0, 1.0),
        )  # fmt: skip

    def discriminator(self, case: Case) -> Networks:
        """The critic, for the images of its script."""
        layout = _critic_layout(case.tensors)
        wanted = (1, 28, 28) if layout == "mnist" else (3, 32, 32)
        if case.image_shape != wanted:
            raise NotOpened(f"the critic takes images of shape {wanted}, the generator makes {case.image_shape}")
        width = len(case.tensors["main.0.weight"])
        module = load(lambda: Critic(layout, width), case.tensors)
        return Networks(
            discriminator=module, discriminator_layers=("main.1", "main.3", "main.5"), discriminator_output="logit"
        )


def _generator_layout(tensors: Mapping[str, Tensor]) -> Layout:
    names = ("preprocess.0", "block1.0", "block2.0", "deconv_out")
    shapes = [tuple(tensors[f"{name}.weight"].shape) if f"{name}.weight" in tensors else () for name in names]
    modules = {name.rpartition(".")[0] for name in tensors}
    if [len(shape) for shape in shapes] != [2, 4, 4, 4]:
        return ""
    width = shapes[3][0]
    if shapes[0][0] != 64 * width or shapes[1][:2] != (4 * width, 2 * width) or shapes[2][:2] != (2 * width, width):
        return ""
    kernels = [shape[2:] for shape in shapes[1:]]
    if modules == set(names) and kernels == [(5, 5), (5, 5), (8, 8)] and shapes[3][1] == 1:
        return "mnist"
    normed = modules == {*names, "preprocess.1", "block1.1", "block2.1"}
    return "cifar" if normed and kernels == [(2, 2)] * 3 and shapes[3][1] == 3 else ""


def _critic_layout(tensors: Mapping[str, Tensor]) -> Layout:
    layouts: tuple[tuple[Layout, str, int, int], ...] = (("mnist", "output", 1, 5), ("cifar", "linear", 3, 3))
    for layout, head, channels, kernel in layouts:
        if {name.rpartition(".")[0] for name in tensors} != {*_CONVOLUTIONS, head}:
            continue
        shapes = [tuple(tensors[f"{name}.weight"].shape) for name in (*_CONVOLUTIONS, head)]
        width = shapes[0][0]
        wanted = [(width, channels), (2 * width, width), (4 * width, 2 * width)]
        fits = [(*units, kernel, kernel) for units in wanted] == shapes[:3] and shapes[3] == (1, 64 * width)
        if fits and all(f"{name}.bias" in tensors for name in (*_CONVOLUTIONS, head)):
            return layout
    return ""
