"""Super-resolution networks of eriklindernoren/PyTorch-GAN: srgan and esrgan.

gandissect.open("saved_models/generator_99.pth", discriminator="saved_models/discriminator_99.pth")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.images.image_input import (
    Stack,
    activations_of,
    check_channels,
    image_latent,
    rows,
    size_option,
    spread,
)
from gandissect_adapters.families.images.super_resolution import (
    DENSE_SHARE,
    DenseBlock,
    is_srgan_body,
    srgan_body,
)
from gandissect_adapters.families.layers import Residual
from gandissect_adapters.recognise.unwrap import Role, StateDict

_REPOSITORY = "eriklindernoren/PyTorch-GAN"
_EPS = 0.8  # BatchNorm2d(C, 0.8) in the trunk of srgan: the second argument is eps
_NORMALISED = "the repository feeds it images normalised with ImageNet's mean and deviation; here they span -1 to 1"


def _srgan_block(width: int) -> Residual:
    """Two convolutions (Ledig et al. 2017, figure 4)."""
    first = [nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width, eps=_EPS), nn.PReLU()]
    last = [nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width, eps=_EPS)]
    return Residual("conv_block", nn.Sequential(*first, *last))


def _dense_blocks(width: int) -> Residual:
    """Three dense blocks of which each convolution gives as many units as enter (Wang et al. 2018, figure 4)."""
    blocks = []
    for _ in range(3):
        convs = [nn.Conv2d(k * width, width, 3, 1, 1) for k in range(1, 6)]
        parts = [*(nn.Sequential(conv, nn.LeakyReLU()) for conv in convs[:4]), nn.Sequential(convs[4])]
        blocks.append(DenseBlock({f"b{k}": part for k, part in enumerate(parts, 1)}))
    return Residual("dense_blocks", nn.Sequential(*blocks), DENSE_SHARE)


class Enlarger(nn.Module):
    """Images [N, C, H, W] to images ``2 ** steps`` as large: a long skip around the trunk ``res_blocks``, then ``upsampling``."""

    def __init__(
        self, first: nn.Module, trunk: list[Residual], after: nn.Module, ups: nn.Module, last: nn.Module
    ) -> None:
        super().__init__()
        self.conv1, self.res_blocks, self.conv2 = first, nn.Sequential(*trunk), after
        self.upsampling, self.conv3 = ups, last

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        low = self.conv1(images)
        out: Tensor = self.conv3(self.upsampling(low + self.conv2(self.res_blocks(low))))
        return out


def srgan(into: int, width: int, out: int, *, blocks: int, steps: int) -> Enlarger:
    """SRGAN (Ledig et al. 2017), its images in -1..1."""
    ups: list[nn.Module] = []
    for _ in range(steps):
        ups += [nn.Conv2d(width, 4 * width, 3, 1, 1), nn.BatchNorm2d(4 * width), nn.PixelShuffle(2), nn.PReLU()]
    return Enlarger(
        nn.Sequential(nn.Conv2d(into, width, 9, 1, 4), nn.PReLU()),
        [_srgan_block(width) for _ in range(blocks)],
        nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width, eps=_EPS)),
        nn.Sequential(*ups),
        nn.Sequential(nn.Conv2d(width, out, 9, 1, 4), nn.Tanh()),
    )


def esrgan(into: int, width: int, *, blocks: int, steps: int) -> Enlarger:
    """ESRGAN (Wang et al. 2018), its images without a bound."""
    ups: list[nn.Module] = []
    for _ in range(steps):
        ups += [nn.Conv2d(width, 4 * width, 3, 1, 1), nn.LeakyReLU(), nn.PixelShuffle(2)]
    last = nn.Conv2d(width, into, 3, 1, 1)
    return Enlarger(
        nn.Conv2d(into, width, 3, 1, 1),
        [_dense_blocks(width) for _ in range(blocks)],
        nn.Conv2d(width, width, 3, 1, 1),
        nn.Sequential(*ups),
        nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.LeakyReLU(), last),
    )


class SrganDiscriminator(Stack):
    """Images [N, C, H, W] to a map of logits [N, 1, H/16, W/16]."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        last = nn.Conv2d(rows(tensors, "model.20"), 1, 3, 1, 1)
        super().__init__("model", [*srgan_body(tensors, "model"), last])


class PyTorchGanSrgan(Family):
    """``srgan``, and the discriminator of ``srgan`` and ``esrgan``."""

    name: ClassVar[str] = "SRGAN (PyTorch-GAN)"
    source: ClassVar[str] = f"Ledig et al. 2017; {_REPOSITORY}"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(64)}

    def role(self, net: StateDict) -> Role:
        t = net.tensors
        if has(t, r"conv1\.0\.weight", r"conv1\.1\.weight", r"res_blocks\.0\.conv_block\.4\.running_mean",
               r"conv2\.1\.running_mean", r"upsampling\.1\.running_mean", r"conv3\.0\.weight"):  # fmt: skip
            return "generator"
        heads = all(name.startswith("model.") for name in t)
        return "discriminator" if heads and is_srgan_body(t, "model", {23}) and rows(t, "model.23") == 1 else ""

    def generator(self, case: Case) -> Networks:
        width, into = case.tensors["conv1.0.weight"].shape[:2]
        out = rows(case.tensors, "conv3.0")
        blocks = len(indices(case.tensors, r"res_blocks\.(\d+)\..*"))
        steps = len(indices(case.tensors, r"upsampling\.(\d+)\.running_mean"))
        module = load(lambda: srgan(into, width, out, blocks=blocks, steps=steps), case.tensors)
        case.note(_NORMALISED)
        trunk = spread([f"res_blocks.{k}" for k in range(blocks)])
        return Networks(
            generator=module,
            latent=image_latent(case, into),
            output_range=(-1.0, 1.0),
            main_layers=("conv1.1", *trunk, "conv2", *(f"upsampling.{4 * k + 3}" for k in range(steps))),
        )

    def discriminator(self, case: Case) -> Networks:
        t = case.tensors
        check_channels(case, int(t["model.0.weight"].shape[1]))
        module = load(lambda: SrganDiscriminator(t), t)
        layers = activations_of(module.get_submodule("model"), "model")
        return Networks(discriminator=module, discriminator_layers=layers, discriminator_output="logit")


class PyTorchGanEsrgan(Family):
    """``esrgan``; its discriminator is that of ``srgan``."""

    name: ClassVar[str] = "ESRGAN (PyTorch-GAN)"
    source: ClassVar[str] = f"Wang et al. 2018; {_REPOSITORY}"
    options: ClassVar[Mapping[str, Option]] = {"size": size_option(64)}

    def role(self, net: StateDict) -> Role:
        fits = has(net.tensors, r"conv1\.weight", r"res_blocks\.0\.dense_blocks\.2\.b5\.0\.weight", r"conv2\.weight",
                   r"upsampling\.0\.weight", r"conv3\.2\.weight")  # fmt: skip
        return "generator" if fits else ""

    def generator(self, case: Case) -> Networks:
        width, into = case.tensors["conv1.weight"].shape[:2]
        blocks = len(indices(case.tensors, r"res_blocks\.(\d+)\..*"))
        steps = len(indices(case.tensors, r"upsampling\.(\d+)\.weight"))
        module = load(lambda: esrgan(into, width, blocks=blocks, steps=steps), case.tensors)
        case.note(_NORMALISED)
        trunk = spread([f"res_blocks.{k}" for k in range(blocks)])
        return Networks(
            generator=module,
            latent=image_latent(case, into),
            output_range=(-1.0, 1.0),
            main_layers=("conv1", *trunk, "conv2", *(f"upsampling.{3 * k + 1}" for k in range(steps)), "conv3.1"),
        )
