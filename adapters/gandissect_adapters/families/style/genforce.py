"""StyleGAN and StyleGAN2 as genforce writes them (SeFa, InterFaceGAN and HiGAN publish such files).

gan = gandissect.open("stylegan_ffhq1024.pth", assume={"truncation": "0.7", "truncation-layers": "8"})
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.layers import SQRT2
from gandissect_adapters.families.style.genforce_critics import StyleGan2Critic, StyleGanCritic
from gandissect_adapters.families.style.genforce_stylegan import StyleGan, Synthesis
from gandissect_adapters.families.style.genforce_stylegan2 import StyleGan2
from gandissect_adapters.families.style.genforce_stylegan2 import Synthesis as Synthesis2
from gandissect_adapters.families.style.style_network import (
    NOISE,
    TRUNCATION,
    TRUNCATION_LAYERS,
    MappingNetwork,
    StyleNetwork,
    give_centre,
    give_truncation,
    style_spaces,
)
from gandissect_adapters.recognise.unwrap import Role, StateDict

_AVERAGE = "truncation.w_avg"
_FUSED_FROM = 128
_OPTIONS = {
    "truncation": TRUNCATION,
    "truncation-layers": TRUNCATION_LAYERS,
    "noise": NOISE,
    "rate": Option("learning rate multiplier of the mapping network", "0.01"),
    "mbstd-group": Option("images that the discriminator's minibatch deviation is taken over", "4"),
}


class GenforceFamily(Family):
    """What both have in common: the mapping network, truncation, noise, and discriminators that end in dense layers."""

    options: ClassVar[Mapping[str, Option]] = _OPTIONS
    mapping_gain: ClassVar[float]
    """Factor on the mapping network's weights; sqrt(2) over it is the one on its activations."""

    @abstractmethod
    def _network(self, case: Case, mapping: list[int], rate: float) -> StyleNetwork:
        """The network with the file's tensors; ``mapping`` are the widths of its mapping network."""

    @abstractmethod
    def _critic(self, case: Case, widths: list[int], colours: int, hidden: int, group: int) -> nn.Module:
        """The discriminator with the file's tensors."""

    def _mapping(self, widths: list[int], rate: float) -> MappingNetwork:
        return MappingNetwork(widths, layer="dense", rate=rate, gain=self.mapping_gain, after=SQRT2 / self.mapping_gain)

    def generator(self, case: Case) -> Networks:
        """The generator, truncation around the mean that the file holds."""
        tensors = case.tensors
        layers = indices(tensors, r"mapping\.dense(\d+)\.weight")
        shapes = [tensors[f"mapping.dense{layer}.weight"].shape for layer in layers]
        widths = [shapes[0][1], *(shape[0] for shape in shapes)]
        module = self._network(case, widths, case.number("rate"))
        if case.choice("noise", ("const", "zero")) == "zero":
            _silence(module)
        give_centre(case, module, widths[0], tensors.get(_AVERAGE), f"{_AVERAGE} of the file")
        give_truncation(case, module)
        main = [name for name, _ in module.named_modules() if has({name: 0}, r"synthesis\.layer\d+")]
        return Networks(
            generator=module,
            latent=LatentSpace("z", (widths[0],)),
            output_range=(-1.0, 1.0),
            inner=style_spaces(module),
            main_layers=tuple(main),
        )

    def discriminator(self, case: Case) -> Networks:
        """The discriminator for images of the size that its layers end at 4 px for."""
        tensors = case.tensors
        dense = [
            index for index in indices(tensors, r"layer(\d+)\.weight") if tensors[f"layer{index}.weight"].dim() == 2
        ]
        if len(dense) != 2:
            raise NotOpened(f"it ends in {len(dense)} dense layers where {self.name} has two")
        blocks = (dense[0] - 1) // 2 + 1
        side = 2 << blocks
        if case.image_shape is not None and case.image_shape[1] != side:
            raise NotOpened(f"its {blocks} resolutions are those of {side} px, the generator makes {case.image_shape}")
        score = tensors[f"layer{dense[-1]}.weight"]
        if len(score) != 1:
            raise NotOpened(
                f"it has {len(score)} scores, one for each label; only discriminators without labels are rebuilt"
            )
        widths = [tensors[f"layer{2 * block}.weight"].shape[0] for block in range(blocks)]
        colours = tensors["input0.weight"].shape[1]
        module = self._critic(case, widths, colours, score.shape[1], case.whole("mbstd-group"))
        main = ("input0", *(f"layer{index}" for index in range(dense[0])))
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=main)


@torch.no_grad()
def _silence(module: nn.Module) -> None:
    for name, noise in module.named_buffers():
        if name.endswith("noise"):
            noise.data = torch.zeros_like(noise)


class GenforceStyleGan(GenforceFamily):
    """StyleGAN, at the level of detail that the file was saved at."""

    name: ClassVar[str] = "StyleGAN (genforce)"
    source: ClassVar[str] = "Karras et al. 2019; genforce/genforce"
    mapping_gain: ClassVar[float] = SQRT2
    options: ClassVar[Mapping[str, Option]] = {
        **_OPTIONS,
        "fused-from": Option("the size from which on a convolution and its resampling are one", str(_FUSED_FROM)),
    }

    def role(self, net: StateDict) -> Role:
        """Told by the noise and style of the generator's constant layer, by the blur of the discriminator's second layer."""
        layer = r"synthesis\.layer0\."
        if has(
            net.tensors, r"mapping\.dense0\.weight", layer + "const", layer + r"apply_noise\.noise",
            layer + r"style\.weight", r"synthesis\.output0\.weight", r"synthesis\.lod",
        ):  # fmt: skip
            return "generator"
        if has(net.tensors, r"lod", r"input0\.weight", r"layer0\.weight", r"layer1\.blur\.kernel"):
            return "discriminator"
        return ""

    def _network(self, case: Case, mapping: list[int], rate: float) -> StyleNetwork:
        tensors = case.tensors
        blocks = indices(tensors, r"synthesis\.output(\d+)\.weight")
        colours = [tensors[f"synthesis.output{block}.weight"] for block in blocks]
        widths = [weight.shape[1] for weight in colours]
        start = case.whole("fused-from")
        fused = [4 << block >= start for block in blocks]
        return load(
            lambda: StyleGan(self._mapping(mapping, rate), Synthesis(widths, mapping[-1], colours[0].shape[0], fused)),
            tensors,
            unused=(r"truncation\.w_avg",),
        )

    def _critic(self, case: Case, widths: list[int], colours: int, hidden: int, group: int) -> nn.Module:
        start = case.whole("fused-from")
        side = 2 << len(widths)
        fused = [side >> block >= start for block in range(len(widths) - 1)]
        return load(
            lambda: StyleGanCritic(widths, colours=colours, group=group, hidden=hidden, fused=fused), case.tensors
        )


class GenforceStyleGan2(GenforceFamily):
    """StyleGAN2 with image skips and a residual discriminator."""

    name: ClassVar[str] = "StyleGAN2 (genforce)"
    source: ClassVar[str] = "Karras et al. 2020; genforce/genforce"
    mapping_gain: ClassVar[float] = 1.0

    def role(self, net: StateDict) -> Role:
        """Told by the generator's noise strengths and styled heads, by the discriminator's filters and skip layers."""
        if has(
            net.tensors, r"mapping\.dense0\.weight", r"synthesis\.early_layer\.const",
            r"synthesis\.layer0\.noise_strength", r"synthesis\.output0\.style\.weight", r"synthesis\.upsample\.kernel",
        ):  # fmt: skip
            return "generator"
        if has(net.tensors, r"input0\.weight", r"layer1\.filter\.kernel", r"skip_layer0\.filter\.kernel"):
            return "discriminator"
        return ""

    def _network(self, case: Case, mapping: list[int], rate: float) -> StyleNetwork:
        tensors = case.tensors
        blocks = indices(tensors, r"synthesis\.output(\d+)\.weight")
        colours: list[Tensor] = [tensors[f"synthesis.output{block}.weight"] for block in blocks]
        widths = [weight.shape[1] for weight in colours]
        taps = tensors["synthesis.upsample.kernel"].shape[-1]
        return load(
            lambda: StyleGan2(self._mapping(mapping, rate), Synthesis2(widths, mapping[-1], colours[0].shape[0], taps)),
            tensors,
            unused=(r"truncation\.w_avg",),
        )

    def _critic(self, case: Case, widths: list[int], colours: int, hidden: int, group: int) -> nn.Module:
        taps = case.tensors["skip_layer0.filter.kernel"].shape[-1]
        return load(
            lambda: StyleGan2Critic(widths, colours=colours, group=group, hidden=hidden, taps=taps), case.tensors
        )
