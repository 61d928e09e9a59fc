"""BigGAN and BigGAN-deep as in ajbrock's BigGAN-PyTorch: generator and projection discriminator, submodules named as there.

net = BigGan(plan)
net(z, labels)                      # float32 [N, 3, H, W] in (-1, 1)
BigGanCritic(critic_plan)(x, labels)    # float32 [N, 1], logits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect_adapters.families.norms import GainNorm, PlainNorm, Statistics, table
from gandissect_adapters.families.residual.biggan_ops import AttentionPlan
from gandissect_adapters.families.residual.ops import SelfAttention


@dataclass(frozen=True)
class BlockPlan:
    """One residual block: its widths, whether it doubles or halves the map, and the self-attention behind it.

    ``shortcut`` says that a 1×1 convolution stands on the skip; ``place`` (i, j) is ``blocks.i.j``.
    """

    place: tuple[int, int]
    inside: int
    hidden: int
    outside: int
    resample: bool
    shortcut: bool
    attention: AttentionPlan | None = None


@dataclass(frozen=True)
class Plan:
    """Sizes of a generator.

    ``shared`` is the width of the class embedding, 0 where every norm has its own. ``hierarchy`` says where parts of z go besides
    the first layer: nowhere, chunk by chunk to the blocks (BigGAN), or whole with the class to all of them (BigGAN-deep).
    """

    deep: bool
    blocks: Sequence[BlockPlan]
    latent: int
    first: int
    side: int
    classes: int
    shared: int
    condition: int
    hierarchy: Literal["none", "chunks", "whole"]
    colours: int
    statistics: Statistics
    eps: float


@dataclass(frozen=True)
class CriticPlan:
    """Sizes of a discriminator; ``stem`` is the width of the convolution before BigGAN-deep's blocks, 0 for none."""

    deep: bool
    blocks: Sequence[BlockPlan]
    classes: int
    stem: int
    colours: int


class GeneratorBlock(nn.Module):
    """Norm, ReLU, twice the size, 3×3; norm, ReLU, 3×3; plus the enlarged input through a 1×1 (Brock et al. 2019, fig. 15b)."""

    def __init__(self, plan: BlockPlan, norm: Callable[[int], GainNorm]) -> None:
        super().__init__()
        self.resample = plan.resample
        self.bn1, self.bn2 = norm(plan.inside), norm(plan.hidden)
        self.activation = nn.ReLU()
        self.conv1 = nn.Conv2d(plan.inside, plan.hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(plan.hidden, plan.outside, 3, padding=1)
        self.conv_sc = nn.Conv2d(plan.inside, plan.outside, 1) if plan.shortcut else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """float32 [N, outside, 2H, 2W] of ``x`` [N, inside, H, W]; not doubled where the plan says so."""
        h = self.activation(self.bn1(x, condition))
        if self.resample:
            h, x = F.interpolate(h, scale_factor=2.0), F.interpolate(x, scale_factor=2.0)
        h = self.conv2(self.activation(self.bn2(self.conv1(h), condition)))
        return cast("Tensor", h + (x if self.conv_sc is None else self.conv_sc(x)))


class DeepGeneratorBlock(nn.Module):
    """1×1 down, two 3×3, 1×1 up, each after norm and ReLU; the skip drops units instead of mixing them (fig. 16b)."""

    def __init__(self, plan: BlockPlan, norm: Callable[[int], GainNorm]) -> None:
        super().__init__()
        self.resample, self.outside = plan.resample, plan.outside
        self.bn1 = norm(plan.inside)
        self.bn2, self.bn3, self.bn4 = norm(plan.hidden), norm(plan.hidden), norm(plan.hidden)
        self.activation = nn.ReLU()
        self.conv1 = nn.Conv2d(plan.inside, plan.hidden, 1)
        self.conv2 = nn.Conv2d(plan.hidden, plan.hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(plan.hidden, plan.hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(plan.hidden, plan.outside, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """float32 [N, outside, H, W] of ``x`` [N, inside, H, W], twice the side where the plan says so."""
        h = self.conv1(self.activation(self.bn1(x, condition)))
        h = self.activation(self.bn2(h, condition))
        x = x[:, : self.outside]
        if self.resample:
            h, x = F.interpolate(h, scale_factor=2.0), F.interpolate(x, scale_factor=2.0)
        h = self.conv3(self.activation(self.bn3(self.conv2(h), condition)))
        return cast("Tensor", self.conv4(self.activation(self.bn4(h, condition))) + x)


class BigGan(nn.Module):
    """z and a class to an image.

    References:
        Brock et al. 2019 (Large Scale GAN Training for High Fidelity Natural Image Synthesis), section 3 and appendix B.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        if plan.shared:
            self.shared = table(plan.classes, plan.shared)
        self.linear = nn.Linear(plan.first, plan.blocks[0].inside * plan.side**2)
        kind = DeepGeneratorBlock if plan.deep else GeneratorBlock
        self.blocks = _nested(plan.blocks, lambda block: kind(block, self._norm))
        width = plan.blocks[-1].outside
        self.output_layer = nn.Sequential(
            PlainNorm(width, statistics=plan.statistics, eps=plan.eps),
            nn.ReLU(),
            nn.Conv2d(width, plan.colours, 3, padding=1),
        )
        self.tanh = nn.Tanh()

    def _norm(self, channels: int) -> GainNorm:
        plan = self.plan
        classes = 0 if plan.shared else plan.classes
        return GainNorm(channels, condition=plan.condition, classes=classes, statistics=plan.statistics, eps=plan.eps)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """float32 [N, 3, H, W] in (-1, 1) of ``z`` float32 [N, latent] and ``labels`` int64 [N]."""
        return self.draw(z, self.shared(labels) if self.plan.shared else labels)

    def draw(self, z: Tensor, given: Tensor) -> Tensor:
        """The image of ``z`` [N, latent] and an embedded class float32 [N, shared], or labels where nothing is shared."""
        start, conditions = self._conditions(z, given)
        side = self.plan.side
        h = self.linear(start).reshape(len(z), -1, side, side)
        for parts, condition in zip(self.blocks, conditions, strict=True):
            for part in cast("nn.ModuleList", parts):
                h = part(h) if isinstance(part, SelfAttention) else part(h, condition)
        image: Tensor = self.tanh(self.output_layer(h))
        return image

    def _conditions(self, z: Tensor, given: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the first layer takes, and what each block's norms take."""
        count = len(self.plan.blocks)
        if self.plan.hierarchy == "chunks":
            first, *rest = torch.split(z, self.plan.first, dim=1)
            return first, [torch.cat([given, chunk], dim=1) for chunk in rest]
        if self.plan.hierarchy == "whole":
            whole = torch.cat([given, z], dim=1)
            return whole, [whole] * count
        return z, [given] * count


class CriticBlock(nn.Module):
    """ReLU (but in the first block), 3×3, ReLU, 3×3, half the size; plus the input likewise through a 1×1 (fig. 15c)."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.resample, self.opening = plan.resample, plan.place == (0, 0)
        self.activation = nn.ReLU()
        self.conv1 = nn.Conv2d(plan.inside, plan.hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(plan.hidden, plan.outside, 3, padding=1)
        self.conv_sc = nn.Conv2d(plan.inside, plan.outside, 1) if plan.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, outside, H/2, W/2] of ``x`` [N, inside, H, W]; not halved where the plan says so."""
        h = self.conv2(self.activation(self.conv1(x if self.opening else self.activation(x))))
        skip = x if self.conv_sc is None else self.conv_sc(x)
        if self.resample:
            h, skip = F.avg_pool2d(h, 2), F.avg_pool2d(skip, 2)
        return cast("Tensor", h + skip)


class DeepCriticBlock(nn.Module):
    """1×1 down, two 3×3, 1×1 up, each after ReLU; the skip gains units from a 1×1 instead of being mixed (fig. 16c)."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.resample = plan.resample
        self.activation = nn.ReLU()
        self.conv1 = nn.Conv2d(plan.inside, plan.hidden, 1)
        self.conv2 = nn.Conv2d(plan.hidden, plan.hidden, 3, padding=1)
        self.conv3 = nn.Conv2d(plan.hidden, plan.hidden, 3, padding=1)
        self.conv4 = nn.Conv2d(plan.hidden, plan.outside, 1)
        self.conv_sc = nn.Conv2d(plan.inside, plan.outside - plan.inside, 1) if plan.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, outside, H, W] of ``x`` [N, inside, H, W], half the side where the plan says so."""
        h = self.conv2(self.activation(self.conv1(self.activation(x))))
        h = self.activation(self.conv3(self.activation(h)))
        if self.resample:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        skip = x if self.conv_sc is None else torch.cat([x, self.conv_sc(x)], dim=1)
        return cast("Tensor", self.conv4(h) + skip)


class BigGanCritic(nn.Module):
    """An image and a class to a logit.

    References:
        Miyato & Koyama 2018 (cGANs with Projection Discriminator), eq. 5: linear(h) + embed(y) · h.
    """

    def __init__(self, plan: CriticPlan) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(plan.colours, plan.stem, 3, padding=1) if plan.stem else None
        self.blocks = _nested(plan.blocks, DeepCriticBlock if plan.deep else CriticBlock)
        width = plan.blocks[-1].outside
        self.activation = nn.ReLU()
        self.linear = nn.Linear(width, 1)
        self.embed = table(plan.classes, width)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """float32 [N, 1] of ``x`` float32 [N, 3, H, W] in [-1, 1] and ``labels`` int64 [N]."""
        h = x if self.input_conv is None else self.input_conv(x)
        for parts in self.blocks:
            for part in cast("nn.ModuleList", parts):
                h = part(h)
        features = self.activation(h).sum(dim=(2, 3))
        score: Tensor = self.linear(features) + (self.embed(labels) * features).sum(dim=1, keepdim=True)
        return score


def _nested(plans: Sequence[BlockPlan], make: Callable[[BlockPlan], nn.Module]) -> nn.ModuleList:
    """``blocks.i.j`` as the plans place them, and self-attention behind the blocks that have it."""
    groups: dict[int, list[nn.Module]] = {}
    for plan in plans:
        behind = [plan.attention.build()] if plan.attention else []
        groups.setdefault(plan.place[0], []).extend([make(plan), *behind])
    return nn.ModuleList([nn.ModuleList(parts) for _, parts in sorted(groups.items())])
