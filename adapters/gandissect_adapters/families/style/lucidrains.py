"""StyleGAN2 as lucidrains' stylegan2-pytorch writes it: one flat state dict with S, G, their averages SE and GE, and D.

gan = gandissect.open("models/default/model_30.pt")         # reads the .config.json beside it
gan.generator.module.set_noise(torch.rand(1, 64, 64, 1))    # of the image's size
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.layers import MirrorBlur, UnitMapping
from gandissect_adapters.families.style.ops import modulated_conv
from gandissect_adapters.families.style.style_network import (
    TRUNCATION,
    ModulatedNetwork,
    give_centre,
    give_truncation,
    style_spaces,
)
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.unwrap import Role, StateDict

_MAPPINGS = {"GE": "SE", "G": "S"}


class Conv2dMod(nn.Module):
    """A convolution scaled per sample by 1 + style, without a bias (Karras et al. 2020, StyleGAN2, eq. 1-3)."""

    def __init__(self, width_in: int, width_out: int, side: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in, side, side))
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[N, in, H, W] and [N, in] to [N, out, H, W]."""
        return modulated_conv(x, self.weight, style + 1.0, demodulate=self.demodulate)


class RgbBlock(nn.Module):
    """What a resolution adds to the image so far, and the sum doubled in size where another resolution follows."""

    def __init__(self, style_width: int, width: int, colours: int, *, last: bool) -> None:
        super().__init__()
        self.to_style = nn.Linear(style_width, width)
        self.conv = Conv2dMod(width, colours, 1, demodulate=False)
        self.upsample = (
            None
            if last
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), MirrorBlur())
        )

    def forward(self, x: Tensor, style: Tensor, image: Tensor | None) -> Tensor:
        """[N, C, H, W], [N, C] and the image [N, 3, H, W] to [N, 3, 2H, 2W] (in the last block [N, 3, H, W])."""
        own: Tensor = self.conv(x, style)
        own = own if image is None else own + image
        return own if self.upsample is None else cast("Tensor", self.upsample(own))


class GeneratorBlock(nn.Module):
    """Two modulated convolutions with noise; ``to_rgb`` is run on its output by the generator."""

    def __init__(
        self, style_width: int, width_in: int, width_out: int, colours: int, *, first: bool, last: bool
    ) -> None:
        super().__init__()
        self.upsample = None if first else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.to_style1 = nn.Linear(style_width, width_in)
        self.to_noise1 = nn.Linear(1, width_out)
        self.conv1 = Conv2dMod(width_in, width_out, 3)
        self.to_style2 = nn.Linear(style_width, width_out)
        self.to_noise2 = nn.Linear(1, width_out)
        self.conv2 = Conv2dMod(width_out, width_out, 3)
        self.activation = nn.LeakyReLU(0.2)
        self.to_rgb = RgbBlock(style_width, width_out, colours, last=last)

    def modulate(self, w: Tensor) -> list[Tensor]:
        """The styles of both convolutions and of ``to_rgb`` for w [N, D]."""
        return [self.to_style1(w), self.to_style2(w), self.to_rgb.to_style(w)]

    def forward(self, x: Tensor, first: Tensor, second: Tensor, noise: Tensor) -> Tensor:
        """[N, in, H, W], styles [N, in] and [N, out], noise [N or 1, S, S, 1] to [N, out, 2H, 2W].

        The noise is cut at its top left, and enters with rows and columns exchanged as the codebase does it.
        """
        x = x if self.upsample is None else self.upsample(x)
        cut = noise[:, : x.shape[2], : x.shape[3]]
        x = self.activation(self.conv1(x, first) + self.to_noise1(cut).permute(0, 3, 2, 1))
        return cast("Tensor", self.activation(self.conv2(x, second) + self.to_noise2(cut).permute(0, 3, 2, 1)))


class Generator(nn.Module):
    """The synthesis network.

    Args:
        widths: units that enter the first block and leave each.
        constant: starts from a learnt map, otherwise from a map of the mean style.
    """

    def __init__(self, style_width: int, widths: Sequence[int], colours: int, *, constant: bool) -> None:
        super().__init__()
        if constant:
            self.initial_block = nn.Parameter(torch.empty(1, widths[0], 4, 4))
        else:
            self.to_initial_block = nn.ConvTranspose2d(style_width, widths[0], 4, bias=False)
        self.initial_conv = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        last = len(widths) - 2
        self.blocks = nn.ModuleList(
            GeneratorBlock(style_width, into, out, colours, first=index == 0, last=index == last)
            for index, (into, out) in enumerate(pairwise(widths))
        )
        self.constant = constant

    def forward(self, scales: list[Tensor], noise: Tensor) -> Tensor:
        """Three styles per block (before them the mean style where there is no constant) to images [N, 3, S, S]."""
        count = len(scales[0])
        if self.constant:
            x = self.initial_block.expand(count, -1, -1, -1)
        else:
            x = self.to_initial_block(scales[0][:, :, None, None])
            scales = scales[1:]
        x = self.initial_conv(x)
        image: Tensor | None = None
        for index, block in enumerate(self.blocks):
            first, second, third = scales[3 * index : 3 * index + 3]
            x = block(x, first, second, noise)
            image = cast("GeneratorBlock", block).to_rgb(x, third, image)
        assert image is not None
        return image


class StyleGan2(ModulatedNetwork):
    """Mapping ``S`` and synthesis ``G``, called as in the codebase (SE and GE are their running averages).

    References:
        Karras et al. 2020. Analyzing and Improving the Image Quality of StyleGAN.
    """

    noise: Tensor

    def __init__(self, mapping: UnitMapping, synthesis: Generator) -> None:
        super().__init__()
        self.S = mapping
        self.G = synthesis
        side = 2 << len(synthesis.blocks)
        self.register_buffer("noise", torch.full((1, side, side, 1), 0.5), persistent=False)

    @property
    def style_count(self) -> int:
        """One for each block."""
        return len(self.G.blocks)

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, D] to w [N, D], before truncation."""
        return cast("Tensor", self.S(z))

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """Styles [N, L, D] to what every modulated convolution adds to 1."""
        start = [] if self.G.constant else [ws.mean(1)]
        blocks = [cast("GeneratorBlock", block).modulate(ws[:, index]) for index, block in enumerate(self.G.blocks)]
        return start + [scale for scales in blocks for scale in scales]

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Those to images [N, 3, S, S]."""
        return cast("Tensor", self.G(scales, self.noise))

    def set_noise(self, noise: Tensor) -> None:
        """Take this noise image from now on: [1 or N, S, S, 1], U(0, 1) in training.

        Raises:
            UsageError: it is of another size.
        """
        if noise.shape[1:] != self.noise.shape[1:]:
            raise UsageError(f"the noise must be {('N', *self.noise.shape[1:])}, not {tuple(noise.shape)}")
        self.noise = noise.to(self.noise)


class DiscriminatorBlock(nn.Module):
    """Two convolutions and a skip; half the size but in the last block."""

    def __init__(self, width_in: int, width_out: int, *, last: bool) -> None:
        super().__init__()
        stride = 1 if last else 2
        self.conv_res = nn.Conv2d(width_in, width_out, 1, stride=stride)
        first, second = nn.Conv2d(width_in, width_out, 3, padding=1), nn.Conv2d(width_out, width_out, 3, padding=1)
        self.net = nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))
        halving = nn.Conv2d(width_out, width_out, 3, padding=1, stride=2)
        self.downsample = None if last else nn.Sequential(MirrorBlur(), halving)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, H/2, W/2]."""
        y: Tensor = self.net(x)
        y = y if self.downsample is None else self.downsample(y)
        return cast("Tensor", (y + self.conv_res(x)) / math.sqrt(2.0))


class Discriminator(nn.Module):
    """Residual blocks down to 2x2; ``widths`` are the colours and what leaves each block."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        last = len(widths) - 2
        blocks = [DiscriminatorBlock(into, out, last=k == last) for k, (into, out) in enumerate(pairwise(widths))]
        self.blocks = nn.ModuleList(blocks)
        self.final_conv = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.to_logit = nn.Linear(widths[-1] * 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S] in 0..1 to logits [N]."""
        x = images
        for block in self.blocks:
            x = block(x)
        return cast("Tensor", self.to_logit(self.final_conv(x).flatten(1)).squeeze(1))


class LucidrainsStyleGan2(Family):
    """Generators and discriminators of lucidrains/stylegan2-pytorch, without attention or quantised layers."""

    name: ClassVar[str] = "StyleGAN2 (lucidrains)"
    source: ClassVar[str] = "Karras et al. 2020; lucidrains/stylegan2-pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "truncation": TRUNCATION,
        "noise": Option(
            "mean for its expectation 0.5, zero for none, const for a seeded draw",
            "mean",
            "the file has no noise image",
        ),
        "rate": Option("learning rate multiplier of the mapping network", "0.1"),
    }

    def role(self, net: StateDict) -> Role:
        """Told by the generator's ``to_style1``/``to_noise1``, by the discriminator's ``conv_res`` and ``to_logit``."""
        block = r"blocks\.0\."
        if has(
            net.tensors,
            r"initial_conv\.weight",
            block + r"to_style1\.weight",
            block + r"to_noise1\.weight",
            block + r"to_rgb\.to_style\.weight",
        ):
            return "generator"
        if has(
            net.tensors,
            block + r"conv_res\.weight",
            block + r"net\.2\.weight",
            block + r"downsample\.0\.f",
            r"final_conv\.weight",
            r"to_logit\.weight",
        ):
            return "discriminator"
        return ""

    def generator(self, case: Case) -> Networks:
        """The generator with the mapping network that stands beside it in the file: SE for GE, S for G."""
        head = case.net.name.rpartition(".")[2]
        prefix = f"{_MAPPINGS.get(head, 'S')}."
        beside = {
            name.removeprefix(prefix): tensor for name, tensor in case.net.around.items() if name.startswith(prefix)
        }
        layers = indices(beside, r"net\.(\d+)\.weight")
        if not layers:
            raise NotOpened(
                f"'{case.net.name or head}' is a synthesis network without its mapping network; "
                "pass the whole checkpoint, with S and G (or SE and GE) in one state dict"
            )
        mapping, _ = fold(beside)
        tensors = {f"S.{name}": tensor for name, tensor in mapping.items()}
        tensors |= {f"G.{name}": tensor for name, tensor in case.tensors.items()}
        width = mapping["net.0.weight"].shape[1]
        module = self._generator(case, tensors, width, len(layers))
        self._add_noise(case, module)
        give_centre(case, module, width)
        give_truncation(case, module)
        blocks = tuple(f"G.blocks.{index}" for index in range(module.style_count))
        return Networks(
            generator=module,
            latent=LatentSpace("z", (width,)),
            output_range=(0.0, 1.0),
            inner=style_spaces(module),
            main_layers=blocks,
        )

    def _generator(self, case: Case, tensors: Mapping[str, Tensor], width: int, depth: int) -> StyleGan2:
        blocks = indices(tensors, r"G\.blocks\.(\d+)\.conv1\.weight")
        shapes = [tensors[f"G.blocks.{index}.conv1.weight"].shape for index in blocks]
        widths = [shapes[0][1], *(shape[0] for shape in shapes)]
        colours = tensors["G.blocks.0.to_rgb.conv.weight"].shape[0]
        found = case.config.get("lr_mlp")
        known = float(found) if isinstance(found, (int, float)) else None
        rate = case.number("rate", known, "lr_mlp of the config.json beside the file")
        return load(
            lambda: StyleGan2(
                UnitMapping([width] * (depth + 1), rate),
                Generator(width, widths, colours, constant="G.initial_block" in tensors),
            ),
            tensors,
        )

    def _add_noise(self, case: Case, module: StyleGan2) -> None:
        kind = case.choice("noise", ("mean", "zero", "const"))
        if kind == "zero":
            module.set_noise(torch.zeros_like(module.noise))
        elif kind == "const":
            module.set_noise(torch.rand(module.noise.shape, generator=torch.Generator().manual_seed(0)))

    def discriminator(self, case: Case) -> Networks:
        """The discriminator for images of the size that its blocks end at 2 px for."""
        tensors = case.tensors
        blocks = indices(tensors, r"blocks\.(\d+)\.conv_res\.weight")
        shapes = [tensors[f"blocks.{index}.conv_res.weight"].shape for index in blocks]
        side = 1 << len(blocks)
        if case.image_shape is not None and case.image_shape != (shapes[0][1], side, side):
            raise NotOpened(
                f"its {len(blocks)} blocks take images of {side} px, the generator makes {case.image_shape}"
            )
        widths = [shapes[0][1], *(shape[0] for shape in shapes)]
        module = load(lambda: Discriminator(widths), tensors)
        main = (*(f"blocks.{index}" for index in blocks), "final_conv")
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)
