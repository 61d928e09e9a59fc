"""BigGAN and BigGAN-deep of ajbrock's BigGAN-PyTorch, out of G.pth, G_ema.pth and D.pth.

Everything but the norms' eps is in the file: widths, attention, class embedding, hierarchical latent. The codebase's
architectures are tables by resolution; what they all have in common is what is used here, so other widths open as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.norms import Statistics
from gandissect_adapters.families.residual.biggan_nets import BigGan, BigGanCritic, BlockPlan, CriticPlan, Plan
from gandissect_adapters.families.residual.biggan_ops import (
    attention_at,
    check_chain,
    class_space,
    last_of_each_size,
    shape_of,
    side_of,
)
from gandissect_adapters.families.residual.ops import THETA_PHI
from gandissect_adapters.recognise.unwrap import Role, StateDict

_PLACE = r"blocks\.(\d+)\.{}\..*"
_COUNTERS = (r".*accumulation_counter",)
_SMALLEST = 3  # blocks of the architecture for 32 px, whose widths are all equal


class BigGanPyTorch(Family):
    """Generators and projection discriminators of BigGAN-PyTorch."""

    name: ClassVar[str] = "BigGAN (BigGAN-PyTorch)"
    source: ClassVar[str] = "Brock et al. 2019; ajbrock/BigGAN-PyTorch"
    options: ClassVar[Mapping[str, Option]] = {
        "norm-eps": Option("added to the variance in the generator's norms", "1e-5"),
    }

    def role(self, net: StateDict) -> Role:
        """Generators have ``bn1.gain`` and ``output_layer``, discriminators ``embed`` beside a one-row ``linear``."""
        names = net.tensors
        if not has(names, r"linear\.weight", r"blocks\.0\.0\.conv1\.weight", r"blocks\.0\.0\.conv2\.weight"):
            return ""
        if has(names, r"blocks\.0\.0\.bn1\.gain\.weight", r"output_layer\.0\.gain", r"output_layer\.2\.weight"):
            return "generator"
        if "embed.weight" not in names or has(names, r"blocks\..*bn\d.*|.*running_mean|.*stored_mean"):
            return ""
        head, embed = names["linear.weight"].shape, names["embed.weight"].shape
        return "discriminator" if len(head) == 2 and head[0] == 1 and head[1:] == embed[1:] else ""

    def generator(self, case: Case) -> Networks:
        """The generator, with z and the embedded class together as an inner space where classes are embedded once."""
        tensors = _averaged(case)
        plan = _plan(tensors, case.number("norm-eps"))
        module = load(lambda: BigGan(plan), tensors, unused=_COUNTERS)
        return Networks(
            generator=module,
            latent=LatentSpace("z", (plan.latent,)),
            output_range=(-1.0, 1.0),
            num_classes=plan.classes,
            inner=(class_space(module.draw, module.shared, plan.latent),) if plan.shared else (),
            main_layers=last_of_each_size(map(_output, plan.blocks), [block.resample for block in plan.blocks]),
        )

    def discriminator(self, case: Case) -> Networks:
        """The projection discriminator."""
        plan = _critic_plan(case.tensors)
        module = load(lambda: BigGanCritic(plan), case.tensors)
        ends = {block.place[0]: _output(block) for block in plan.blocks}
        return Networks(
            discriminator=module,
            discriminator_output="logit",
            discriminator_classes=plan.classes,
            discriminator_layers=tuple(ends.values()),
        )


def _averaged(case: Case) -> dict[str, Tensor]:
    """The tensors, with sums of standing statistics divided by how many batches went into them."""
    tensors = dict(case.tensors)
    for name in case.tensors:
        count = float(tensors[name].sum()) if name.endswith(".accumulation_counter") else 0.0
        if count > 0:
            stem = name.removesuffix("accumulation_counter")
            for part in ("stored_mean", "stored_var"):
                tensors[stem + part] = tensors[stem + part] / count
            case.note(f"the norms hold standing statistics, sums over {count:.0f} batches, which were averaged")
    return tensors


def _plan(tensors: Mapping[str, Tensor], eps: float) -> Plan:
    deep = "blocks.0.0.conv4.weight" in tensors
    blocks = _generator_blocks(tensors, deep)
    rows, first = shape_of(tensors, "linear.weight", 2)
    classes, condition = shape_of(tensors, "blocks.0.0.bn1.gain.weight", 2)
    shared, latent = 0, first
    hierarchy: Literal["none", "chunks", "whole"] = "none"
    if "shared.weight" in tensors:
        classes, shared = shape_of(tensors, "shared.weight", 2)
        if condition != shared:
            hierarchy = "whole" if deep else "chunks"
            latent = first - shared if deep else first * (len(blocks) + 1)
            if latent < 1 or condition != (first if deep else shared + first):
                raise NotOpened(
                    f"the norms take {condition} values, which are neither the class embedding's {shared} nor those "
                    f"and a part of z ({first} go to the first layer): not a layout of BigGAN-PyTorch"
                )
    return Plan(
        deep=deep, blocks=blocks, latent=latent, first=first, side=side_of(rows, blocks[0].inside), classes=classes,
        shared=shared, condition=condition, hierarchy=hierarchy,
        colours=shape_of(tensors, "output_layer.2.weight", 4)[0], statistics=_statistics(tensors), eps=eps,
    )  # fmt: skip


def _statistics(tensors: Mapping[str, Tensor]) -> Statistics:
    norm = "blocks.0.0.bn1"
    if f"{norm}.bn.running_mean" in tensors:
        return "running"
    return "stored" if f"{norm}.bn.stored_mean" in tensors else "own"


def _generator_blocks(tensors: Mapping[str, Tensor], deep: bool) -> list[BlockPlan]:
    """Blocks of a generator: every one doubles the map; in BigGAN-deep every second, which also is the one to narrow it."""
    blocks = [_block(tensors, (i, 0), deep) for i in indices(tensors, _PLACE.format(0))]
    _check(blocks, narrowing=deep)
    if not deep:
        return [_resampled(block, True) for block in blocks]
    depth = 2
    if all(block.inside == block.outside for block in blocks):
        depth = max(1, len(blocks) // _SMALLEST)
    doubles = [(i + 1) % depth == 0 for i in range(len(blocks))]
    if any(block.inside != block.outside and not doubled for block, doubled in zip(blocks, doubles, strict=True)):
        raise NotOpened("a block narrows the map without doubling it: not a BigGAN-deep of BigGAN-PyTorch")
    return [_resampled(block, doubled) for block, doubled in zip(blocks, doubles, strict=True)]


def _block(tensors: Mapping[str, Tensor], place: tuple[int, int], deep: bool) -> BlockPlan:
    path = f"blocks.{place[0]}.{place[1]}"
    hidden, inside = shape_of(tensors, f"{path}.conv1.weight", 4)[:2]
    outside = shape_of(tensors, f"{path}.{'conv4' if deep else 'conv2'}.weight", 4)[0]
    behind = f"blocks.{place[0]}.{place[1] + 1}"
    return BlockPlan(
        place, inside, hidden, outside, resample=False, shortcut=f"{path}.conv_sc.weight" in tensors,
        attention=attention_at(tensors, behind, THETA_PHI),
    )  # fmt: skip


def _check(blocks: Sequence[BlockPlan], *, narrowing: bool = False) -> None:
    """Nothing, where the blocks fit each other; a skip without a convolution may lose units where ``narrowing`` says so."""
    check_chain([(block.inside, block.outside) for block in blocks])
    for block in blocks:
        if block.attention and block.attention.channels != block.outside:
            raise NotOpened(f"blocks.{block.place[0]} attends to another number of units than it has")
        if not block.shortcut and (block.outside > block.inside or (block.outside < block.inside and not narrowing)):
            raise NotOpened(f"blocks.{block.place[0]} changes the number of units with no convolution on its skip")


def _resampled(block: BlockPlan, resample: bool) -> BlockPlan:
    return replace(block, resample=resample)


def _output(block: BlockPlan) -> str:
    """The name of the submodule that gives the block's output, attention included."""
    i, j = block.place
    return f"blocks.{i}.{j + 1 if block.attention else j}"


def _critic_plan(tensors: Mapping[str, Tensor]) -> CriticPlan:
    """Blocks of a discriminator.

    In BigGAN all blocks with a convolution on the skip halve the map, but never the last one. In BigGAN-deep the first block of
    each stage halves it, with the exception of the last stage at 32 px, the only resolution where all widths are equal.
    """
    deep = "input_conv.weight" in tensors
    blocks: list[BlockPlan] = []
    stages = indices(tensors, r"blocks\.(\d+)\..*")
    for i in stages:
        inner = [j for j in indices(tensors, rf"blocks\.{i}\.(\d+)\..*") if f"blocks.{i}.{j}.conv1.weight" in tensors]
        blocks += [_block(tensors, (i, j), deep) for j in inner]
    if not blocks:
        raise NotOpened("the discriminator has no residual blocks; pass its class")
    _check(blocks)
    equal = all(block.inside == block.outside for block in blocks)
    halving = [
        block.place[1] == 0 and not (equal and block.place[0] == stages[-1])
        if deep
        else block.shortcut and block is not blocks[-1]
        for block in blocks
    ]
    colours = shape_of(tensors, "input_conv.weight" if deep else "blocks.0.0.conv1.weight", 4)[1]
    return CriticPlan(
        deep=deep,
        blocks=[_resampled(block, halves) for block, halves in zip(blocks, halving, strict=True)],
        classes=shape_of(tensors, "embed.weight", 2)[0],
        stem=shape_of(tensors, "input_conv.weight", 4)[0] if deep else 0,
        colours=colours,
    )
