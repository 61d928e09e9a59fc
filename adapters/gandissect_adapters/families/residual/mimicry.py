"""The residual GANs of mimicry: DCGAN, SNGAN, WGAN-GP, SSGAN, InfoMax-GAN, cGAN with projection and SAGAN.

gan = gandissect.open("netG_100000_steps.pth", discriminator="netD_100000_steps.pth")
gan.generator.main_layers()             # block2, block3, …, activation
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.norms import ClassNorm
from gandissect_adapters.families.residual.ops import SelfAttention
from gandissect_adapters.recognise.build import attach
from gandissect_adapters.recognise.unwrap import Role, StateDict

_FIELD = r"\.(weight|bias)(_orig|_u|_v)?|\.sn_u|\.sn_sigma|\.gamma|\.running_(mean|var)|\.num_batches_tracked"
_ATTENTION = r"attn_block(\.(theta|phi|g|o))?"
_GENERATOR = rf"(l1|block\d+\.(c1|c2|c_sc|b[12](\.(bn|embed))?)|b\d+|c\d+|{_ATTENTION})({_FIELD})"
_DISCRIMINATOR = rf"(block\d+\.(c1|c2|c_sc)|l\d+|l_y|{_ATTENTION})({_FIELD})"
_INFOMAX = rf"((local|global)_feat_blocks\.\d+\.(c1|c2|c_sc)|(local|global)_nrkhs_(a|b|sc)|linear)({_FIELD})"
_HEADS = ((4, 5), (5, 5), (5, 6), (6, 7))
"""(blocks, number of the last layer) of mimicry's discriminators for 32, 48, 48 or 64, and 128 pixels."""


class GeneratorBlock(nn.Module):
    """norm, ReLU, upsampling, convolution, norm, ReLU, convolution; beside it a 1×1 convolution of the enlarged input.

    References:
        Miyato et al. 2018 (SNGAN), figure 8, with bilinear upsampling as in mimicry.
    """

    def __init__(self, into: int, out: int, classes: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(into, out, 3, padding=1)
        self.c2 = nn.Conv2d(out, out, 3, padding=1)
        self.b1 = ClassNorm(into, classes) if classes else nn.BatchNorm2d(into)
        self.b2 = ClassNorm(out, classes) if classes else nn.BatchNorm2d(out)
        self.activation = nn.ReLU()
        self.upsample = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
        self.c_sc = nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        """[N, into, H, W] to [N, out, 2H, 2W]; ``labels`` int64 [N] where the norms are by class."""
        h = self.c1(self.upsample(self.activation(self.b1(x, *labels))))
        h = self.c2(self.activation(self.b2(h, *labels)))
        summed: Tensor = h + self.c_sc(self.upsample(x))
        return summed


@dataclass(frozen=True)
class GeneratorPlan:
    """Sizes of a generator: ``widths`` are the units into the first block and out of every one."""

    latent: int
    bottom: int
    widths: tuple[int, ...]
    classes: int = 0
    attention: bool = False
    output: str = "tanh"

    @property
    def attended(self) -> int:
        """Number of blocks before self-attention: 2 of 3, 3 of 5."""
        return len(self.widths) // 2


class Generator(nn.Module):
    """A linear layer to the bottom map, residual blocks ``block2`` …, norm, ReLU, convolution, tanh."""

    def __init__(self, plan: GeneratorPlan) -> None:
        super().__init__()
        self.plan = plan
        count = len(plan.widths) - 1
        self.blocks = tuple(f"block{number}" for number in range(2, count + 2))
        self.last = count + 2
        self.l1 = nn.Linear(plan.latent, plan.widths[0] * plan.bottom**2)
        for name, (into, out) in zip(self.blocks, pairwise(plan.widths), strict=True):
            self.add_module(name, GeneratorBlock(into, out, plan.classes))
        if plan.attention:
            self.attn_block = SelfAttention(plan.widths[plan.attended], pooled=True)
        self.add_module(f"b{self.last}", nn.BatchNorm2d(plan.widths[-1]))
        self.activation = nn.ReLU()
        self.add_module(f"c{self.last}", nn.Conv2d(plan.widths[-1], 3, 3, padding=1))
        self.output = nn.Sigmoid() if plan.output == "sigmoid" else nn.Tanh()

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        """float32 [N, latent] (and int64 [N]) to images [N, 3, H, W]."""
        bottom = self.plan.bottom
        x = self.l1(z).reshape(len(z), -1, bottom, bottom)
        for count, name in enumerate(self.blocks, start=1):
            x = self.get_submodule(name)(x, *labels)
            if self.plan.attention and count == self.plan.attended:
                x = self.attn_block(x)
        x = self.activation(self.get_submodule(f"b{self.last}")(x))
        images: Tensor = self.output(self.get_submodule(f"c{self.last}")(x))
        return images

    def main_layers(self) -> tuple[str, ...]:
        """Every stage's last output; the last block's after its norm and ReLU."""
        names = list(self.blocks[:-1])
        if self.plan.attention:
            names.insert(self.plan.attended, "attn_block")
        return *names, "activation"


@dataclass(frozen=True)
class BlockPlan:
    """One block of a discriminator: name, units, whether it halves the map, whether its shortcut has a convolution."""

    name: str
    into: int
    out: int
    shortcut: bool
    pooled: bool
    plain: bool = False


class DiscriminatorBlock(nn.Module):
    """ReLU, convolution, ReLU, convolution, average of 2×2; beside it a 1×1 convolution and the same average.

    The first ReLU of mimicry's blocks works in place, so that the shortcut takes its output, not the block's input;
    ``plan.plain`` says that it does not (as in the chainer original).

    References:
        Miyato et al. 2018 (SNGAN), figure 8.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.plan = plan
        self.c1 = nn.Conv2d(plan.into, plan.into, 3, padding=1)
        self.c2 = nn.Conv2d(plan.into, plan.out, 3, padding=1)
        self.activation = nn.ReLU()
        self.c_sc = nn.Conv2d(plan.into, plan.out, 1) if plan.shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, into, H, W] to [N, out, H, W], or of half the side."""
        active = self.activation(x)
        h = self.c2(self.activation(self.c1(active)))
        h = h + self.c_sc(x if self.plan.plain else active)
        return F.avg_pool2d(h, 2) if self.plan.pooled else h


class FirstBlock(nn.Module):
    """convolution, ReLU, convolution, average of 2×2; beside it the average and a 1×1 convolution."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(into, out, 3, padding=1)
        self.activation = nn.ReLU()
        self.c2 = nn.Conv2d(out, out, 3, padding=1)
        self.c_sc = nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] to [N, out, H/2, W/2]."""
        h = F.avg_pool2d(self.c2(self.activation(self.c1(x))), 2)
        summed: Tensor = h + self.c_sc(F.avg_pool2d(x, 2))
        return summed


@dataclass(frozen=True)
class DiscriminatorPlan:
    """Blocks, the name of the last layer, the number of classes that are projected on, and how the map is summed up."""

    blocks: tuple[BlockPlan, ...]
    head: str
    classes: int = 0
    attention: bool = False
    pool: str = "sum"


class Discriminator(nn.Module):
    """Residual blocks, ReLU, sum over the map, one logit; with classes plus the product with the class's embedding.

    References:
        Miyato & Koyama 2018 (projection discriminator), eq. 4.
    """

    def __init__(self, plan: DiscriminatorPlan) -> None:
        super().__init__()
        self.plan = plan
        first, *others = plan.blocks
        attach(self, first.name, FirstBlock(first.into, first.out))
        for block in others:
            attach(self, block.name, DiscriminatorBlock(block))
        if plan.attention:
            self.attn_block = SelfAttention(plan.blocks[1].out, pooled=True)
        self.activation = nn.ReLU()
        width = plan.blocks[-1].out
        self.add_module(plan.head, nn.Linear(width, 1))
        if plan.classes:
            self.l_y = nn.Embedding(plan.classes, width)

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] (and int64 [N]) to logits [N, 1]."""
        for count, block in enumerate(self.plan.blocks, start=1):
            x = self.get_submodule(block.name)(x)
            if self.plan.attention and count == 2:
                x = self.attn_block(x)
        x = self.activation(x)
        features = x.mean((2, 3)) if self.plan.pool == "mean" else x.sum((2, 3))
        logits: Tensor = self.get_submodule(self.plan.head)(features)
        if self.plan.classes:
            logits = logits + (self.l_y(labels[0]) * features).sum(1, keepdim=True)
        return logits

    def main_layers(self) -> tuple[str, ...]:
        """The blocks' outputs and the last ReLU's."""
        names = [block.name for block in self.plan.blocks]
        if self.plan.attention:
            names.insert(2, "attn_block")
        return *names[:-1], "activation"


class Mimicry(Family):
    """Generators and discriminators of mimicry for 32, 48, 64 and 128 pixels."""

    name = "mimicry residual GAN"
    source = "kwotsin/mimicry; Miyato et al. 2018, Gulrajani et al. 2017, Zhang et al. 2019"
    options: ClassVar[Mapping[str, Option]] = {
        "output": Option("what ends the generator: tanh, or sigmoid (dcgan_cifar)", "tanh"),
        "pool": Option(
            "how the discriminator sums up its last map: sum, or mean (WGAN-GP)", "sum", "all of mimicry but WGAN-GP"
        ),
        "shortcut": Option(
            "what the discriminator's shortcuts take: relu (mimicry's first ReLU works in place), or plain", "relu"
        ),
    }

    def role(self, net: StateDict) -> Role:
        """By all names: ``l1, block2.c1, b5, c5``, or ``block1.c1, l5``, or ``local_feat_blocks, linear``."""
        names = {name.removesuffix("_orig"): tensor.shape for name, tensor in net.tensors.items()}
        if all(has({name: 0}, _GENERATOR) for name in net.tensors):
            return "generator" if _is_generator(names) else ""
        if all(has({name: 0}, _DISCRIMINATOR) for name in net.tensors):
            return "discriminator" if _is_discriminator(names) else ""
        infomax = all(has({name: 0}, _INFOMAX) for name in net.tensors)
        heads = has(
            names, r"linear\.weight", r"local_feat_blocks\.0\.c_sc\.weight", r"global_feat_blocks\.0\.c1\.weight"
        )
        return "discriminator" if infomax and heads else ""

    def generator(self, case: Case) -> Networks:
        """SNGAN's generator, with norms by class and self-attention where the file has them."""
        tensors = case.tensors
        numbers = indices(tensors, r"block(\d+)\.c1\.weight")
        first = tensors["block2.c1.weight"].shape[1]
        widths = (first, *(tensors[f"block{number}.c2.weight"].shape[0] for number in numbers))
        rows, latent = tensors["l1.weight"].shape
        bottom = isqrt(rows // first)
        if bottom * bottom * first != rows:
            raise NotOpened(f"the first layer gives {rows} values, which make no square map of {first} units")
        embedded = tensors.get("block2.b1.embed.weight")
        classes = 0 if embedded is None else len(embedded)
        output = case.choice("output", ("tanh", "sigmoid"))
        plan = GeneratorPlan(latent, bottom, widths, classes, "attn_block.gamma" in tensors, output)
        module = load(lambda: Generator(plan), tensors)
        side = bottom * 2 ** len(numbers)
        return Networks(
            generator=module, latent=LatentSpace("z", (latent,)), image_shape=(3, side, side), num_classes=classes,
            output_range=(0.0, 1.0) if output == "sigmoid" else (-1.0, 1.0), main_layers=module.main_layers(),
        )  # fmt: skip

    def discriminator(self, case: Case) -> Networks:
        """The discriminator without the heads that only train it: rotations of SSGAN, features of InfoMax-GAN."""
        tensors = case.tensors
        assert case.image_shape is not None
        names = list(_block_names(tensors))
        head = next(name for name in ("linear", "l5", "l6", "l7") if f"{name}.weight" in tensors)
        projected = "l_y.weight" in tensors and "l_y.bias" not in tensors
        plain = case.choice("shortcut", ("relu", "plain")) == "plain"
        keeps = len(names) == 5 and case.image_shape[1] == 48
        blocks = tuple(_block(tensors, name, keeps and name == names[-1], plain) for name in names)
        found, because = _pool(case, len(names), head)
        plan = DiscriminatorPlan(
            blocks, head, len(tensors["l_y.weight"]) if projected else 0, "attn_block.gamma" in tensors,
            case.choice("pool", ("sum", "mean"), found, because),
        )  # fmt: skip
        if "l_y.bias" in tensors:
            case.note("the discriminator's head for rotations (l_y) only serves training and is left out")
        unused = ["(local|global)_nrkhs_.*", *([] if projected else [r"l_y\..*"])]
        module = load(lambda: Discriminator(plan), tensors, unused=unused)
        return Networks(
            discriminator=module, discriminator_layers=module.main_layers(), discriminator_classes=plan.classes,
            discriminator_output="logit",
        )  # fmt: skip


def _is_generator(names: Mapping[str, tuple[int, ...]]) -> bool:
    numbers = indices(names, r"block(\d+)\.c1\.weight")
    last = len(numbers) + 2
    image = names.get(f"c{last}.weight", ())
    return (
        numbers == list(range(2, last))
        and len(numbers) >= 3
        and all(has(names, rf"block{n}\.c2\.weight", rf"block{n}\.c_sc\.weight") for n in numbers)
        and has(names, r"l1\.weight", rf"b{last}\.running_mean")
        and len(image) == 4
        and image[0] == 3
        and ("attn_block.gamma" not in names or len(numbers) in (3, 5))
    )


def _is_discriminator(names: Mapping[str, tuple[int, ...]]) -> bool:
    numbers, heads = indices(names, r"block(\d+)\.c1\.weight"), indices(names, r"l(\d+)\.weight")
    count = len(numbers)
    projected = "l_y.weight" in names and "l_y.bias" not in names
    return (
        numbers == list(range(1, count + 1))
        and len(heads) == 1
        and (count, heads[0]) in _HEADS
        and "block1.c_sc.weight" in names
        and not (projected and count == 5)  # mimicry projects at 32 and 128 pixels; pytorch.sngan_projection at 64
    )


def _block_names(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for prefix in ("block", "local_feat_blocks.", "global_feat_blocks."):
        for number in indices(tensors, rf"{prefix.replace('.', '[.]')}(\d+)\.c1\.weight"):
            yield f"{prefix}{number}"


def _block(tensors: Mapping[str, Tensor], name: str, keeps: bool, plain: bool) -> BlockPlan:
    """mimicry gives a shortcut its convolution where the block halves the map, and in the last block for 48 pixels."""
    shortcut = f"{name}.c_sc.weight" in tensors
    into, out = tensors[f"{name}.c1.weight"].shape[1], tensors[f"{name}.c2.weight"].shape[0]
    return BlockPlan(name, into, out, shortcut, pooled=shortcut and not keeps, plain=plain)


def _pool(case: Case, count: int, head: str) -> tuple[str | None, str]:
    """WGAN-GP's discriminators have no spectral norm, as DCGAN's; at 48 pixels their last layer has another number."""
    normed = any(name.endswith(("_orig", ".sn_u")) for name in case.net.tensors)
    if normed:
        return "sum", "the file has spectral norm, which mimicry's WGAN-GP has not"
    assert case.image_shape is not None
    if count == 5 and case.image_shape[1] == 48:
        return (
            ("mean", "only WGAN-GP has l6 at 48 pixels") if head == "l6" else ("sum", "only DCGAN has l5 at 48 pixels")
        )
    if "pool" not in case.assume:
        case.note(
            "the discriminators of mimicry's DCGAN and WGAN-GP look alike in a file: say --assume pool=mean for WGAN-GP"
        )
    return None, ""
