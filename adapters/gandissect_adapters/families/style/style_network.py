"""What style generators share whatever they are called: a mapping to w, truncation, and the spaces w, w+ and s.

class Mine(StyleNetwork):
    def map(self, z, labels=None): ...  # [N, Z] -> [N, W]
    def synthesise(self, ws): ...       # [N, L, W] -> [N, 3, H, W]
give_centre(case, module, latent=512)
Networks(generator=module, inner=style_spaces(module), ...)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from gandissect.gan import Assumption, InnerSpace
from gandissect_adapters.families.family import Case, Option
from gandissect_adapters.families.layers import SQRT2, EqualLinear, PixelNorm
from gandissect_adapters.families.style.ops import lrelu, truncate

_MAPPED = 4096
_AT_ONCE = 512

TRUNCATION = Option("psi: how much of its distance to the mean each w keeps", "1", "no truncation")
TRUNCATION_LAYERS = Option("number of w that truncation acts on, from the coarsest on", "all")
NOISE = Option("const for the noise maps of the file, zero for none", "const", "the same image every time")


class MappingNetwork(nn.Module):
    """Latents scaled to second moment 1, then fully connected layers (Karras et al. 2019, figure 1).

    Args:
        widths: of what enters, the hidden widths, and W.
        layer: the layers are called ``<layer>0``, ``<layer>1`` …
        rate: their learning rate multiplier.
        gain: on the weights; ``after`` the one on the activation.
    """

    def __init__(
        self, widths: Sequence[int], *, layer: str, rate: float, gain: float = 1.0, after: float = SQRT2
    ) -> None:
        super().__init__()
        self.norm = PixelNorm()
        self.names = [f"{layer}{index}" for index in range(len(widths) - 1)]
        activation = partial(lrelu, gain=after)
        for name, (inputs, outputs) in zip(self.names, pairwise(widths), strict=True):
            self.add_module(name, EqualLinear(inputs, outputs, rate=rate, gain=gain, activation=activation))

    def forward(self, z: Tensor) -> Tensor:
        """[N, Z] to [N, W]."""
        return self.mapped(self.norm(z))

    def mapped(self, x: Tensor) -> Tensor:
        """[N, widths[0]] through all layers, [N, W]."""
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


class StyleNetwork(nn.Module):
    """A generator in two steps, with truncation between them.

    Attributes:
        centre: [W], the mean of w; None until ``give_centre``, and where the mapping network keeps it.
        psi: what truncation keeps of the distance to it; 1 for no truncation.
        truncated: number of styles that are pulled, None for all.

    References:
        Karras, Laine, Aila 2019. A Style-Based Generator Architecture for Generative Adversarial Networks (appendix B).
    """

    centre: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", None, persistent=False)
        self.psi = 1.0
        self.truncated: int | None = None

    @property
    @abstractmethod
    def style_count(self) -> int:
        """L, the number of styles that one image takes."""

    @abstractmethod
    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, Z], and int64 labels [N] where it takes some, to w [N, W], before truncation."""

    @abstractmethod
    def synthesise(self, ws: Tensor) -> Tensor:
        """Styles [N, L, W], truncated or not, to images [N, C, H, W]."""

    def centre_of(self, _labels: Tensor | None) -> Tensor | None:
        """What truncation pulls w to: [W], or [N, W] where every class has its own."""
        return self.centre

    def spread(self, w: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, W] to [N, L, W]: the same w for every layer, truncated."""
        ws = w[:, None].expand(-1, self.style_count, -1)
        centre = self.centre_of(labels)
        return ws if centre is None else truncate(ws, centre, self.psi, layers=self.truncated)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, Z], and int64 labels [N] where it takes some, to images [N, C, H, W]."""
        return self.synthesise(self.spread(self.map(z, labels), labels))


class ModulatedNetwork(StyleNetwork):
    """A StyleGAN2 or 3: every convolution's input units are scaled by an affine map of w, and those scales are the space s.

    References:
        Wu, Lischinski, Shechtman 2021. StyleSpace Analysis: Disentangled Controls for StyleGAN Image Generation.
    """

    @abstractmethod
    def modulate(self, ws: Tensor) -> list[Tensor]:
        """Styles [N, L, W] to the scales [N, units in] of each modulated convolution, in order of execution."""

    @abstractmethod
    def paint(self, scales: list[Tensor]) -> Tensor:
        """Those scales to images [N, C, H, W]."""

    def synthesise(self, ws: Tensor) -> Tensor:
        """Styles [N, L, W] to images [N, C, H, W]."""
        return self.paint(self.modulate(ws))


def give_truncation(case: Case, module: StyleNetwork) -> None:
    """Set the module's truncation as the options ``truncation`` and, where the family has it, ``truncation-layers`` say."""
    module.psi = case.number("truncation")
    if "truncation-layers" in case.options and case.option("truncation-layers") != "all":
        module.truncated = case.whole("truncation-layers")


@torch.no_grad()
def give_centre(case: Case, module: StyleNetwork, latent: int, found: Tensor | None = None, because: str = "") -> None:
    """Set the module's mean of w.

    Args:
        latent: Z; where the file has no mean it is taken over 4096 latents of a fixed seed.
        found: [W], the mean that the file holds.
        because: where it was found.
    """
    if found is None:
        z = torch.randn(_MAPPED, latent, generator=torch.Generator().manual_seed(0))
        found = torch.cat([module.map(part) for part in torch.split(z, _AT_ONCE)]).mean(0)
        case.assumptions.append(
            Assumption(
                "w-mean",
                f"over {_MAPPED} mapped latents",
                "the file holds none; only truncation and the centre of w use it",
            )
        )
    else:
        case.assumptions.append(Assumption("w-mean", because, "the file says so", sure=True))
    module.centre = found.clone()


@torch.no_grad()
def style_spaces(module: StyleNetwork) -> tuple[InnerSpace, ...]:
    """w [W] before truncation, w+ [L, W] after it (one w per layer, Abdal et al. 2019), and s where convolutions are modulated.

    The module knows the centre of w.
    """
    centre = module.centre_of(None)
    assert centre is not None
    spread = centre.expand(module.style_count, -1)

    def to_ws(z: Tensor, labels: Tensor | None) -> Tensor:
        return module.spread(module.map(z, labels), labels)

    def from_w(w: Tensor, labels: Tensor | None) -> Tensor:
        return module.synthesise(module.spread(w, labels))

    spaces = (
        InnerSpace("w", tuple(centre.shape), module.map, from_w, centre),
        InnerSpace("w+", tuple(spread.shape), to_ws, lambda ws, _: module.synthesise(ws), spread),
    )
    if not isinstance(module, ModulatedNetwork):
        return spaces
    scales = module.modulate(spread[None])
    sizes = [part.shape[1] for part in scales]

    def to_s(z: Tensor, labels: Tensor | None) -> Tensor:
        return torch.cat(module.modulate(to_ws(z, labels)), 1)

    def from_s(s: Tensor, _labels: Tensor | None) -> Tensor:
        return module.paint(list(torch.split(s, sizes, 1)))

    return (*spaces, InnerSpace("s", (sum(sizes),), to_s, from_s, torch.cat(scales, 1)[0]))


def as_mean(node: object, width: int) -> Tensor | None:
    """``node`` as the mean of w, float32 [W], where it is a tensor [W] or one mean for each layer [L, W]; else None."""
    if not isinstance(node, Tensor) or node.numel() == 0 or node.shape[-1:] != (width,):
        return None
    return node.detach().float().reshape(-1, width).mean(0)
