"""StudioGAN's resnet, big_resnet and deep_conv backbones, submodules named as there.

StudioResnet(plan)(z, labels)           # float32 [N, 3, H, W] in (-1, 1); no labels where the plan has no classes
ResnetCritic(critic_plan)(x, labels)    # float32 [N], logits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect_adapters.families.norms import GainNorm, table
from gandissect_adapters.families.residual.biggan_ops import AttentionPlan
from gandissect_adapters.families.residual.ops import SelfAttention

EPS = 1e-4  # of every norm
ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "lrelu0.1": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "gelu": nn.GELU,
}


@dataclass(frozen=True)
class Entry:
    """One entry of ``blocks``: a block's widths, whether it changes the map's size and has a shortcut, or self-attention."""

    inside: int = 0
    outside: int = 0
    resample: bool = False
    shortcut: bool = False
    attention: AttentionPlan | None = None


@dataclass(frozen=True)
class Plan:
    """Sizes of a generator.

    ``source`` is what conditions the norms: nothing, the label as a one-hot vector, or a chunk of z behind the class embedding of
    width ``shared`` (0 for none); ``condition`` is its length.
    """

    entries: Sequence[Entry]
    latent: int
    first: int
    side: int
    source: Literal["none", "labels", "chunks"]
    condition: int
    classes: int
    shared: int
    colours: int
    activation: str


@dataclass(frozen=True)
class CriticPlan:
    """Sizes of a discriminator.

    ``classes`` is 0 where the score does not depend on labels; ``scores`` is the number of outputs of ``linear1``, one unless
    there is one per class. ``norms`` says that blocks are normalised: where spectral norm is off.
    """

    entries: Sequence[Entry]
    width: int
    classes: int
    scores: int
    norms: bool
    activation: str


def _norm(plan: Plan, channels: int) -> nn.Module:
    if plan.source == "none":
        return nn.BatchNorm2d(channels, eps=EPS)
    return GainNorm(channels, condition=plan.condition, statistics="running", eps=EPS)


def _normalise(norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    return cast("Tensor", norm(x) if condition is None else norm(x, condition))


class ResnetBlock(nn.Module):
    """Norm, activation, twice the size, 3×3; norm, activation, 3×3; plus the enlarged input through a 1×1."""

    def __init__(self, entry: Entry, plan: Plan) -> None:
        super().__init__()
        self.bn1, self.bn2 = _norm(plan, entry.inside), _norm(plan, entry.outside)
        self.activation = ACTIVATIONS[plan.activation]()
        self.conv2d0 = nn.Conv2d(entry.inside, entry.outside, 1)
        self.conv2d1 = nn.Conv2d(entry.inside, entry.outside, 3, padding=1)
        self.conv2d2 = nn.Conv2d(entry.outside, entry.outside, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """float32 [N, outside, 2H, 2W] of ``x`` [N, inside, H, W]."""
        h = F.interpolate(self.activation(_normalise(self.bn1, x, condition)), scale_factor=2.0)
        h = self.activation(_normalise(self.bn2, self.conv2d1(h), condition))
        return cast("Tensor", self.conv2d2(h) + self.conv2d0(F.interpolate(x, scale_factor=2.0)))


class DeconvBlock(nn.Module):
    """Transposed 4×4 of stride 2, norm, activation."""

    def __init__(self, entry: Entry, plan: Plan) -> None:
        super().__init__()
        self.deconv0 = nn.ConvTranspose2d(entry.inside, entry.outside, 4, stride=2, padding=1)
        self.bn0 = _norm(plan, entry.outside)
        self.activation = ACTIVATIONS[plan.activation]()

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """float32 [N, outside, 2H, 2W] of ``x`` [N, inside, H, W]."""
        return cast("Tensor", self.activation(_normalise(self.bn0, self.deconv0(x), condition)))


class StudioGenerator(nn.Module):
    """z, and a class where there are classes, to an image; backbones say how a map becomes an image at the end."""

    def __init__(self, plan: Plan, block: Callable[[Entry, Plan], nn.Module]) -> None:
        super().__init__()
        self.plan = plan
        self.linear0 = nn.Linear(plan.first, plan.entries[0].inside * plan.side**2)
        if plan.shared:
            self.shared = table(plan.classes, plan.shared)
        self.blocks = nn.ModuleList(
            [
                nn.ModuleList([entry.attention.build() if entry.attention else block(entry, plan)])
                for entry in plan.entries
            ]
        )
        self.tanh = nn.Tanh()

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, 3, H, W] in (-1, 1) of ``z`` float32 [N, latent] and ``labels`` int64 [N], None without classes."""
        if labels is None or not self.plan.classes:
            return self.draw(z, None)
        if self.plan.shared:
            return self.draw(z, self.shared(labels))
        return self.draw(z, F.one_hot(labels, self.plan.classes).to(z.dtype))

    def draw(self, z: Tensor, given: Tensor | None) -> Tensor:
        """The image of ``z`` [N, latent] and an embedded class [N, shared] or a one-hot one [N, classes]."""
        chunked = self.plan.source == "chunks"
        first, *rest = torch.split(z, self.plan.first, dim=1) if chunked else (z,)
        conditions = iter([chunk if given is None else torch.cat([given, chunk], dim=1) for chunk in rest])
        x = self.linear0(first).reshape(len(z), -1, self.plan.side, self.plan.side)
        for (part,) in (cast("nn.ModuleList", parts) for parts in self.blocks):
            x = part(x) if isinstance(part, SelfAttention) else part(x, next(conditions) if chunked else given)
        return cast("Tensor", self.tanh(self.finished(x)))

    def finished(self, x: Tensor) -> Tensor:
        """The image before tanh, float32 [N, 3, H, W], of the last block's map."""
        raise NotImplementedError


class StudioResnet(StudioGenerator):
    """The backbones ``resnet`` (Miyato et al. 2018, SNGAN; one-hot labels) and ``big_resnet`` (Brock et al. 2019, BigGAN)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, ResnetBlock)
        width = plan.entries[-1].outside
        self.bn4 = nn.BatchNorm2d(width, eps=EPS)
        self.activation = ACTIVATIONS[plan.activation]()
        self.conv2d5 = nn.Conv2d(width, plan.colours, 3, padding=1)

    def finished(self, x: Tensor) -> Tensor:
        """The image before tanh, float32 [N, 3, H, W], of the last block's map."""
        return cast("Tensor", self.conv2d5(self.activation(self.bn4(x))))


class StudioDeconv(StudioGenerator):
    """The backbone ``deep_conv`` (Radford et al. 2016, DCGAN, with a 3×3 convolution at the end)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, DeconvBlock)
        self.conv4 = nn.Conv2d(plan.entries[-1].outside, plan.colours, 3, padding=1)

    def finished(self, x: Tensor) -> Tensor:
        """The image before tanh, float32 [N, 3, H, W], of the last block's map."""
        return cast("Tensor", self.conv4(x))


class OpeningBlock(nn.Module):
    """The first block of a residual discriminator: 3×3, activation, 3×3, half the size; plus the input halved, then 1×1."""

    def __init__(self, entry: Entry, plan: CriticPlan) -> None:
        super().__init__()
        self.conv2d0 = nn.Conv2d(entry.inside, entry.outside, 1)
        self.conv2d1 = nn.Conv2d(entry.inside, entry.outside, 3, padding=1)
        self.conv2d2 = nn.Conv2d(entry.outside, entry.outside, 3, padding=1)
        self.bn0 = _critic_norm(plan, entry.inside)
        self.bn1 = _critic_norm(plan, entry.outside)
        self.activation = ACTIVATIONS[plan.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, outside, H/2, W/2] of images ``x`` [N, 3, H, W]."""
        h = self.conv2d2(self.activation(self.bn1(self.conv2d1(x))))
        return cast("Tensor", F.avg_pool2d(h, 2) + self.conv2d0(self.bn0(F.avg_pool2d(x, 2))))


class CriticBlock(nn.Module):
    """Norm, activation, 3×3, twice, then half the size; plus the input through a 1×1 where the sizes differ.

    The codebase's activations but GELU work in place: where no norm stands before it (spectral norm is on), the skip gets the
    activated map as well.
    """

    def __init__(self, entry: Entry, plan: CriticPlan) -> None:
        super().__init__()
        self.resample = entry.resample
        self.in_place = not plan.norms and plan.activation != "gelu"
        self.bn1, self.bn2 = _critic_norm(plan, entry.inside), _critic_norm(plan, entry.outside)
        self.activation = ACTIVATIONS[plan.activation]()
        self.conv2d1 = nn.Conv2d(entry.inside, entry.outside, 3, padding=1)
        self.conv2d2 = nn.Conv2d(entry.outside, entry.outside, 3, padding=1)
        self.bn0 = _critic_norm(plan, entry.inside) if entry.shortcut else nn.Identity()
        self.conv2d0 = nn.Conv2d(entry.inside, entry.outside, 1) if entry.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, outside, H/2, W/2] of ``x`` [N, inside, H, W]; not halved where the entry says so."""
        h = self.activation(self.bn1(x))
        skip = self.conv2d0(self.bn0(h if self.in_place else x))
        h = self.conv2d2(self.activation(self.bn2(self.conv2d1(h))))
        if self.resample:
            h, skip = F.avg_pool2d(h, 2), F.avg_pool2d(skip, 2)
        return cast("Tensor", h + skip)


class ConvBlock(nn.Module):
    """3×3, norm, activation, 4×4 of stride 2, norm, activation."""

    def __init__(self, entry: Entry, plan: CriticPlan) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(entry.inside, entry.outside, 3, padding=1)
        self.conv1 = nn.Conv2d(entry.outside, entry.outside, 4, stride=2, padding=1)
        self.bn0, self.bn1 = _critic_norm(plan, entry.outside), _critic_norm(plan, entry.outside)
        self.activation = ACTIVATIONS[plan.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, outside, H/2, W/2] of ``x`` [N, inside, H, W]."""
        h = self.activation(self.bn0(self.conv0(x)))
        return cast("Tensor", self.activation(self.bn1(self.conv1(h))))


def _critic_norm(plan: CriticPlan, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPS) if plan.norms else nn.Identity()


class StudioCritic(nn.Module):
    """An image, and a class where the score depends on it, to a logit: sums over the map, then linear.

    References:
        Miyato & Koyama 2018 (cGANs with Projection Discriminator), eq. 5, where there is an ``embedding``.
    """

    def __init__(self, plan: CriticPlan, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.plan = plan
        self.blocks = nn.ModuleList([nn.ModuleList([block]) for block in blocks])
        self.activation = ACTIVATIONS[plan.activation]()
        self.linear1 = nn.Linear(plan.width, plan.scores)
        self.embedding = table(plan.classes, plan.width) if plan.classes and plan.scores == 1 else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N] of ``x`` float32 [N, 3, H, W] in [-1, 1] and ``labels`` int64 [N], None where they do not matter."""
        for (part,) in (cast("nn.ModuleList", parts) for parts in self.blocks):
            x = part(x)
        features = self.activation(self.closed(x)).sum(dim=(2, 3))
        scores: Tensor = self.linear1(features)
        if labels is None or not self.plan.classes:
            return scores[:, 0]
        if self.embedding is None:
            return scores.gather(1, labels[:, None])[:, 0]
        projected: Tensor = (self.embedding(labels) * features).sum(dim=1)
        return scores[:, 0] + projected

    def closed(self, x: Tensor) -> Tensor:
        """What stands between the blocks and the last activation."""
        return x


class ResnetCritic(StudioCritic):
    """The discriminator of ``resnet`` and ``big_resnet``."""

    def __init__(self, plan: CriticPlan) -> None:
        made = [
            entry.attention.build() if entry.attention else (CriticBlock if i else OpeningBlock)(entry, plan)
            for i, entry in enumerate(plan.entries)
        ]
        super().__init__(plan, made)


class ConvCritic(StudioCritic):
    """The discriminator of ``deep_conv``."""

    def __init__(self, plan: CriticPlan) -> None:
        super().__init__(plan, [e.attention.build() if e.attention else ConvBlock(e, plan) for e in plan.entries])
        self.conv1 = nn.Conv2d(plan.entries[-1].outside, plan.width, 3, padding=1)
        self.bn1 = _critic_norm(plan, plan.width)

    def closed(self, x: Tensor) -> Tensor:
        """A 3×3 convolution and its norm."""
        return cast("Tensor", self.bn1(self.conv1(x)))
