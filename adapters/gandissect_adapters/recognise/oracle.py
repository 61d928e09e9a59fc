"""BatchNorm as an oracle: do a hypothesis' activations have the mean and variance that training stored?

x = run_step(op, step, x)               # one layer, functional
mismatch(x, norm)                       # Gaussian KL, mean over units; 0 for a perfect fit
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect.probing.verifying import gaussian_kl
from gandissect_adapters.recognise.attention import attended
from gandissect_adapters.recognise.chain import Chain, Op
from gandissect_adapters.recognise.plan import SHUFFLE, VECTOR, Step, activate

_FEWEST = 24  # samples that a mean over a batch is taken of at least


def mismatch(x: Tensor, norm: Op) -> float:
    """KL divergence of the Gaussian measured in each unit from the stored one, mean over units.

    Args:
        x: float32 [N, C, H, W] or [N, C], what arrives at the norm.
        norm: its ``mean`` and ``var`` hold C units.
    """
    if norm.mean is None or norm.var is None:
        return 0.0
    dims = (0, 2, 3) if x.dim() == 4 else (0,)
    mean = x.mean(dims, keepdim=True)
    var = (x - mean).square_().mean(dims)  # torch.var_mean over these dims takes ten times as long
    return gaussian_kl((mean.flatten(), var), (norm.mean, norm.var))


def before(x: Tensor, step: Step) -> Tensor:
    """``x`` through what stands before a layer in training: activation, dropout, view or flatten, upsampling."""
    x = activate(step.activation, x)
    if step.dropout:
        x = dropped(x, step.dropout)
    if step.view is not None:
        x = x.reshape(len(x), *step.view)
    if step.flatten:
        x = x.flatten(1)
    if step.up > 1:
        x = upsample(x, step.up, step.mode)
    return x


def upsample(x: Tensor, factor: int, mode: str) -> Tensor:
    """[N, C, H, W] -> [N, C, factor·H, factor·W]; [N, C / factor², …] where units are shuffled into place."""
    if mode == SHUFFLE:
        return F.pixel_shuffle(x, factor)
    aligned = None if mode == "nearest" else mode.endswith("aligned")
    return F.interpolate(x, scale_factor=float(factor), mode=mode.partition("-")[0], align_corners=aligned)


def dropped(x: Tensor, share: float) -> Tensor:
    """``x`` with a share of its numbers set to 0 and the others made larger, the same ones at every call."""
    stream = torch.Generator().manual_seed(0)
    return x * (torch.rand(x.shape, generator=stream) >= share) / (1.0 - share)


def run_step(op: Op, step: Step, x: Tensor, *, eps: float = 1e-5, batch_statistics: bool = True) -> Tensor:
    """``x`` through one layer and what stands before it."""
    return apply_op(op, step, before(x, step), eps=eps, batch_statistics=batch_statistics)


def apply_op(op: Op, step: Step, x: Tensor, *, eps: float = 1e-5, batch_statistics: bool = True) -> Tensor:
    """``x`` through one layer with parameters; norms use the batch's own statistics, as in training."""
    geometry = step.geometry
    if op.kind == "linear":
        return F.linear(x, _weight(op), op.bias)
    if op.kind == "conv" and geometry.beyond != "zeros":
        x = F.pad(x, [geometry.padding] * 4, geometry.beyond)
        return F.conv2d(x, _weight(op), op.bias, geometry.stride)
    if op.kind == "conv":
        return F.conv2d(x, _weight(op), op.bias, geometry.stride, geometry.padding)
    if op.kind == "deconv":
        return F.conv_transpose2d(
            x, _weight(op), op.bias, geometry.stride, geometry.padding, geometry.output_padding
        )  # fmt: skip
    if op.kind == "prelu":
        return F.prelu(x, _weight(op))
    if op.kind == "attention":
        return attended(op.parts, x)
    if op.kind == "affine":
        if x.dim() == 2 or _weight(op).dim() == 3:
            return F.layer_norm(x, x.shape[1:], op.weight, op.bias)
        groups = groups_of(step.norm or norm_named(op.name), op.into)
        return F.group_norm(x, groups, op.weight, op.bias)
    if batch_statistics:
        return F.batch_norm(x, None, None, op.weight, op.bias, True, 0.0, eps)
    return F.batch_norm(x, op.mean, op.var, op.weight, op.bias, False, 0.0, eps)


def _weight(op: Op) -> Tensor:
    assert op.weight is not None
    return op.weight


def norm_named(name: str) -> str:
    """What the name of a norm without statistics says it is; "instance" where it says nothing."""
    words = name.lower()
    if re.search(r"(^|[._\d])gn|group", words):
        return "group8"
    return "layer" if re.search(r"(^|[._\d])ln|layer_?norm", words) else "instance"


def groups_of(norm: str, units: int) -> int:
    """Units are normalised in so many groups (Wu & He 2018, eq. 7): each alone is instance norm, all together layer norm."""
    groups = units if norm == "instance" else 1 if norm == "layer" else int(norm.removeprefix("group"))
    return groups if units % groups == 0 else 1


def thinned(op: Op, norm: Op, step: Step, limit: int) -> tuple[Op, Op]:
    """The layer and its norm cut down to ``limit`` evenly spaced units: an unbiased guess of the mismatch, cheaper."""
    count = norm.into
    if count <= limit or norm.mean is None or norm.var is None or op.kind == "attention":
        return op, norm
    pick = torch.linspace(0, count - 1, limit).round().long()
    fewer = replace(norm, into=limit, out=limit, mean=norm.mean[pick], var=norm.var[pick], weight=None, bias=None)
    weight = _weight(op)
    if op.kind == "linear":
        per = op.out // count  # behind a view, each unit owns a run of rows
        rows = (pick[:, None] * per + torch.arange(per)).flatten()
        bias = None if op.bias is None else op.bias[rows]
        return replace(op, out=len(rows), weight=weight[rows], bias=bias), fewer
    if op.out == 4 * count:  # shuffled before the norm: each of its units owns four
        pick = (pick[:, None] * 4 + torch.arange(4)).flatten()
    bias = None if op.bias is None else op.bias[pick]
    weight = weight[:, pick] if op.kind == "deconv" else weight[pick]
    return replace(op, out=len(pick), weight=weight, bias=bias), fewer


def work(op: Op, step: Step) -> float:
    """Multiply-adds of one sample through one layer."""
    height, width = step.out if step.out != VECTOR else (1, 1)
    if op.kind == "attention":
        return 2.0 * op.out * (height * width) ** 2
    taps = float(op.into * op.out * op.kernel[0] * op.kernel[1])
    if op.kind == "deconv":
        return taps * height * width / step.geometry.stride**2
    return taps * height * width if op.kind == "conv" else taps if op.kind == "linear" else 0.0


def measure(
    chain: Chain, steps: tuple[Step, ...], x: Tensor, eps: Mapping[str, float], budget: float
) -> tuple[float, ...]:
    """Mismatch at every norm of a whole hypothesis; each layer on as many samples as its share of the multiply-adds allows."""
    efforts = [work(op, step) for op, step in zip(chain.ops, steps, strict=True)]
    share = budget / max(1, sum(effort > 0 for effort in efforts))
    found: list[float] = []
    for op, step, effort in zip(chain.ops, steps, efforts, strict=True):
        x = before(x[: max(_FEWEST, int(share / max(effort, 1.0)))], step)
        if op.kind == "norm":
            found.append(mismatch(x, op))
            if len(found) == sum(other.kind == "norm" for other in chain.ops):
                break
        x = apply_op(op, step, x, eps=eps.get(op.name, 1e-5))
    return tuple(found)
