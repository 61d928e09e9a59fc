"""What style generators share whatever they are called: a mapping to w, truncation, and the spaces w, w+ and s.

class Mine(StyleNetwork):
    def map(self, z): ...            # [N, Z] -> [N, W]
    def synthesise(self, ws): ...    # [N, L, W] -> [N, 3, H, W]
give_centre(case, module, latent=512)
Networks(generator=module, inner=style_spaces(module, width=512), ...)
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from gandissect.gan import Assumption, InnerSpace
from gandissect_adapters.families.family import Case, Option
from gandissect_adapters.families.style.ops import pixel_norm, truncate

_MAPPED = 4096
_AT_ONCE = 512

TRUNCATION = Option("psi: how much of its distance to the mean each w keeps", "1", "no truncation")
NOISE = Option("const for the noise maps of the file, zero for none", "const", "as the codebase evaluates")


class PixelNorm(nn.Module):
    """Vectors [N, D] (or maps) scaled to second moment 1 over their units."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised tensor, of the shape of ``x``."""
        return pixel_norm(x)


class StyleNetwork(nn.Module):
    """A generator in two steps, with truncation between them.

    Attributes:
        centre: [W], the mean of w; None until ``give_centre``.
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
    def map(self, z: Tensor) -> Tensor:
        """Latents [N, Z] to w [N, W], before truncation."""

    @abstractmethod
    def synthesise(self, ws: Tensor) -> Tensor:
        """Styles [N, L, W], truncated or not, to images [N, C, H, W]."""

    def spread(self, w: Tensor) -> Tensor:
        """[N, W] to [N, L, W]: the same w for every layer, truncated."""
        ws = w[:, None].expand(-1, self.style_count, -1)
        return ws if self.centre is None else truncate(ws, self.centre, self.psi, layers=self.truncated)

    def forward(self, z: Tensor) -> Tensor:
        """Latents [N, Z] to images [N, C, H, W]."""
        return self.synthesise(self.spread(self.map(z)))


class ModulatedNetwork(StyleNetwork):
    """A StyleGAN2: every convolution's input units are scaled by an affine map of w, and those scales are the space s.

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


@torch.no_grad()
def give_centre(case: Case, module: StyleNetwork, latent: int, found: Tensor | None = None, because: str = "") -> None:
    """Set the module's truncation as the option ``truncation`` says, around the mean of w.

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
    module.psi = case.number("truncation")


@torch.no_grad()
def style_spaces(module: StyleNetwork, width: int) -> tuple[InnerSpace, ...]:
    """w [W] before truncation, w+ [L, W] after it, and s [all scales] where the module has modulated convolutions."""
    centre = module.centre
    spread = None if centre is None else centre[None, None].expand(1, module.style_count, width)
    spaces = [
        InnerSpace("w", (width,), lambda z, _: module.map(z), lambda w, _: module.synthesise(module.spread(w)), centre),
        InnerSpace(
            "w+",
            (module.style_count, width),
            lambda z, _: module.spread(module.map(z)),
            lambda ws, _: module.synthesise(ws),
            None if spread is None else spread[0],
        ),
    ]
    if isinstance(module, ModulatedNetwork):
        spaces.append(_scale_space(module, width, spread))
    return tuple(spaces)


def _scale_space(module: ModulatedNetwork, width: int, centre: Tensor | None) -> InnerSpace:
    """s: the scales of every modulated convolution in order of execution, one vector."""
    start = torch.zeros(1, module.style_count, width) if centre is None else centre
    parts = module.modulate(start)
    sizes = [part.shape[1] for part in parts]
    return InnerSpace(
        "s",
        (sum(sizes),),
        lambda z, _: torch.cat(module.modulate(module.spread(module.map(z))), 1),
        lambda s, _: module.paint(list(torch.split(s, sizes, 1))),
        None if centre is None else torch.cat(parts, 1)[0],
    )


def as_mean(node: object, width: int) -> Tensor | None:
    """``node`` as the mean of w, float32 [W], where it is a tensor [W] or one mean for each layer [L, W]; else None."""
    if not isinstance(node, Tensor) or node.numel() == 0 or node.shape[-1:] != (width,):
        return None
    return node.detach().float().reshape(-1, width).mean(0)
