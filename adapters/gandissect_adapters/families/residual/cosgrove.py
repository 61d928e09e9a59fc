"""christiancosgrove's SNGAN, 32 pixels: the residual generator and both discriminators.

gan = gandissect.open("gen_200", discriminator="disc_200")
gan.generator.main_layers()             # model.0, model.1, model.4

(The generator of the DCGAN kind is a plain stack, which is read from its state dict alone.)
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, has, load
from gandissect_adapters.recognise.unwrap import Role, StateDict

_SIDE = 32
_KERNELS = (3, 4, 3, 4, 3, 4, 3)


class GeneratorBlock(nn.Module):
    """norm, ReLU, nearest upsampling, convolution, norm, ReLU, convolution; beside it the enlarged input.

    The convolutions have two names each, as in the original: ``conv1`` is also ``model.3``.

    References:
        Miyato et al. 2018 (SNGAN), figure 8, without a convolution in the shortcut.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        before = (nn.BatchNorm2d(width), nn.ReLU(), nn.Upsample(scale_factor=2.0))
        self.model = nn.Sequential(*before, self.conv1, nn.BatchNorm2d(width), nn.ReLU(), self.conv2)
        self.bypass = nn.Upsample(scale_factor=2.0)

    def forward(self, x: Tensor) -> Tensor:
        """[N, width, H, W] to twice the side."""
        h: Tensor = self.model(x) + self.bypass(x)
        return h


class ResidualGenerator(nn.Module):
    """A linear layer to 4×4, three residual blocks, norm, ReLU, convolution (``final`` is also ``model.5``), tanh."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(latent, 16 * width)
        self.final = nn.Conv2d(width, 3, 3, padding=1)
        blocks = (GeneratorBlock(width) for _ in range(3))
        self.model = nn.Sequential(*blocks, nn.BatchNorm2d(width), nn.ReLU(), self.final, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """float32 [N, latent] to images [N, 3, 32, 32] in [-1, 1]."""
        images: Tensor = self.model(self.dense(z).reshape(len(z), -1, 4, 4))
        return images


class CriticBlock(nn.Module):
    """A residual block of the discriminator.

    Args:
        first: the block that takes images: no ReLU in front, and its shortcut averages before the 1×1 convolution.
        halved: the block averages 2×2 and has a 1×1 convolution in its shortcut.
        named: the shortcut's convolution is also called ``bypass_conv``.
    """

    def __init__(self, into: int, width: int, *, first: bool, halved: bool, named: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        layers: list[nn.Module] = [] if first else [nn.ReLU()]
        layers += [self.conv1, nn.ReLU(), self.conv2]
        self.bypass = nn.Sequential()
        if halved:
            layers.append(nn.AvgPool2d(2))
            shortcut = nn.Conv2d(into, width, 1)
            if named:
                self.bypass_conv = shortcut
            parts = (nn.AvgPool2d(2), shortcut) if first else (shortcut, nn.AvgPool2d(2))
            self.bypass = nn.Sequential(*parts)
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[N, into, H, W] to [N, width, H, W], or of half the side."""
        h: Tensor = self.model(x) + self.bypass(x)
        return h


class ResidualDiscriminator(nn.Module):
    """Four residual blocks, two of which halve the map, ReLU, average of 8×8, one logit."""

    def __init__(self, width: int, named: bool) -> None:
        super().__init__()
        blocks = [CriticBlock(3, width, first=True, halved=True, named=True)]
        blocks += [CriticBlock(width, width, first=False, halved=n == 0, named=named) for n in range(3)]
        self.model = nn.Sequential(*blocks, nn.ReLU(), nn.AvgPool2d(8))
        self.fc = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, 32, 32] in [-1, 1] to logits [N, 1]."""
        logits: Tensor = self.fc(self.model(x).flatten(1))
        return logits


class PlainDiscriminator(nn.Module):
    """Seven convolutions, kernels 3 and 4 in turn, those of 4 with stride 2; LeakyReLU(0.1); one logit.

    References:
        Miyato et al. 2018 (SNGAN), table 3.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stages = tuple(f"conv{number}" for number in range(1, 8))
        for name, kernel, into, out in zip(self.stages, _KERNELS, widths[:-1], widths[1:], strict=True):
            self.add_module(name, nn.Conv2d(into, out, kernel, stride=2 if kernel == 4 else 1, padding=1))
            self.add_module(f"{name}_act", nn.LeakyReLU(0.1))
        self.fc = nn.Linear(16 * widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, 32, 32] in [-1, 1] to logits [N, 1]."""
        for name in self.stages:
            x = self.get_submodule(f"{name}_act")(self.get_submodule(name)(x))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


class Cosgrove(Family):
    """``dense, final, model.N`` (generator), ``model.N, fc`` and ``conv1 … conv7, fc`` (discriminators)."""

    name = "SNGAN (christiancosgrove)"
    source = "christiancosgrove/pytorch-spectral-normalization-gan; Miyato et al. 2018"

    def role(self, net: StateDict) -> Role:
        """By names and kernels; the residual networks by convolutions that stand in the file twice."""
        shapes = {_plain(name): tuple(tensor.shape) for name, tensor in net.tensors.items()}
        if has(
            shapes,
            *(rf"model\.{n}\.{part}\.weight" for n in range(3) for part in ("conv1", r"model\.3")),
            r"dense\.weight",
            r"final\.weight",
        ):
            width = shapes["final.weight"][1]
            return "generator" if "model.5.weight" in shapes and shapes["dense.weight"][0] == 16 * width else ""
        if "fc.weight" not in shapes or shapes["fc.weight"][0] != 1:
            return ""
        twice = all(f"model.{n}.{name}.weight" in shapes for n in range(4) for name in ("conv1", "conv2"))
        twice = twice and all(f"model.{n}.model.{place}.weight" in shapes for n in range(1, 4) for place in (1, 3))
        if twice and "model.0.bypass.1.weight" in shapes and "model.1.bypass.0.weight" in shapes:
            return "discriminator"
        return "discriminator" if _is_plain(shapes) else ""

    def generator(self, case: Case) -> Networks:
        """The residual generator."""
        width, latent = case.tensors["final.weight"].shape[1], case.tensors["dense.weight"].shape[1]
        module = load(lambda: ResidualGenerator(latent, width), case.tensors)
        return Networks(
            generator=module, latent=LatentSpace("z", (latent,)), image_shape=(3, _SIDE, _SIDE),
            output_range=(-1.0, 1.0), main_layers=("model.0", "model.1", "model.4"),
        )  # fmt: skip

    def discriminator(self, case: Case) -> Networks:
        """The residual or the plain discriminator, for 32×32 images."""
        if case.image_shape != (3, _SIDE, _SIDE):
            raise NotOpened(
                f"the discriminator takes images of {(3, _SIDE, _SIDE)}, the generator makes {case.image_shape}"
            )
        tensors = {_plain(name): tensor for name, tensor in case.tensors.items()}
        module: nn.Module
        if "conv7.weight" in tensors:
            widths = (3, *(tensors[f"conv{number}.weight"].shape[0] for number in range(1, 8)))
            module = load(lambda: PlainDiscriminator(widths), tensors)
            layers = tuple(f"conv{number}_act" for number in range(1, 8))
        else:
            named = "model.1.bypass_conv.weight" in tensors
            module = load(lambda: ResidualDiscriminator(tensors["fc.weight"].shape[1], named), tensors)
            layers = ("model.0", "model.1", "model.2", "model.4")
        return Networks(discriminator=module, discriminator_layers=layers, discriminator_output="logit")


def _plain(name: str) -> str:
    """The name without the wrapper of spectral norm: ``conv1.module.weight_bar`` is ``conv1.weight``."""
    return name.replace(".module.", ".").replace("weight_bar", "weight").replace("weight_orig", "weight")


def _is_plain(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Kernels 3, 4, 3, 4 … at the right widths, and a last layer that takes a 4×4 map."""
    names = [f"conv{number}" for number in range(1, 8)]
    weights = [shapes.get(f"{name}.weight", ()) for name in names]
    if {name.rpartition(".")[0] for name in shapes} != {*names, "fc"} or any(len(shape) != 4 for shape in weights):
        return False
    return (
        [shape[2:] for shape in weights] == [(kernel, kernel) for kernel in _KERNELS]
        and [shape[1] for shape in weights] == [3, *(shape[0] for shape in weights[:-1])]
        and shapes["fc.weight"] == (1, 16 * weights[-1][0])
        and all(f"{name}.bias" in shapes for name in names)
    )
