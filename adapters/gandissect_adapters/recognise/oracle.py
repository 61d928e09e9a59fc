"""BatchNorm as an oracle: do a hypothesis' activations have the mean and variance that training stored?

x = run_step(op, step, x)               # one layer, functional
mismatch(x, norm)                       # Gaussian KL, mean over units; 0 for a perfect fit
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gandissect_adapters.recognise.chain import Chain, Op
from gandissect_adapters.recognise.plan import VECTOR, Step, activate

HEALTHY = 0.05  # measured on 23 repositories: fits lie at or below this
UNFIT = 2.0  # and nets that fit nothing above this; nothing was observed between
_CAP = 20.0  # one dead unit must not decide alone
_FLOOR = 1e-5  # variance below BatchNorm's usual eps is noise


def mismatch(x: Tensor, norm: Op) -> float:
    """KL divergence of the Gaussian measured in each unit from the stored one, mean over units.

    Args:
        x: float32 [N, C, H, W] or [N, C], what arrives at the norm.
        norm: its ``mean`` and ``var`` hold C units.
    """
    if norm.mean is None or norm.var is None:
        return 0.0
    dims = (0, 2, 3) if x.dim() == 4 else (0,)
    var, mean = torch.var_mean(x, dims, correction=0)
    var = var + _FLOOR
    stored = norm.var + _FLOOR
    kl = 0.5 * ((stored / var).log() + (var + (mean - norm.mean) ** 2) / stored - 1.0)
    return float(kl.nan_to_num(_CAP, _CAP, _CAP).clamp(0.0, _CAP).mean())


def before(x: Tensor, step: Step) -> Tensor:
    """``x`` through what stands before a layer: activation, view or flatten, upsampling."""
    x = activate(step.activation, x)
    if step.view is not None:
        x = x.reshape(len(x), *step.view)
    if step.flatten:
        x = x.flatten(1)
    if step.up > 1:
        x = upsample(x, step.up, step.mode)
    return x


def upsample(x: Tensor, factor: int, mode: str) -> Tensor:
    """[N, C, H, W] -> [N, C, factor·H, factor·W]."""
    return F.interpolate(x, scale_factor=float(factor), mode=mode, align_corners=None if mode == "nearest" else False)


def run_step(op: Op, step: Step, x: Tensor, *, eps: float = 1e-5, batch_statistics: bool = True) -> Tensor:
    """``x`` through one layer and what stands before it."""
    return apply_op(op, step, before(x, step), eps=eps, batch_statistics=batch_statistics)


def apply_op(op: Op, step: Step, x: Tensor, *, eps: float = 1e-5, batch_statistics: bool = True) -> Tensor:
    """``x`` through one layer with parameters; norms use the batch's own statistics, as in training."""
    geometry = step.geometry
    if op.kind == "linear":
        return F.linear(x, _weight(op), op.bias)
    if op.kind == "conv":
        return F.conv2d(x, _weight(op), op.bias, geometry.stride, geometry.padding)
    if op.kind == "deconv":
        return F.conv_transpose2d(
            x, _weight(op), op.bias, geometry.stride, geometry.padding, geometry.output_padding
        )  # fmt: skip
    if op.kind == "prelu":
        return F.prelu(x, _weight(op))
    if op.kind == "affine":
        return F.instance_norm(x, None, None, op.weight, op.bias) if x.dim() == 4 else F.layer_norm(
            x, x.shape[1:], op.weight, op.bias
        )  # fmt: skip
    if batch_statistics:
        return F.batch_norm(x, None, None, op.weight, op.bias, True, 0.0, eps)
    return F.batch_norm(x, op.mean, op.var, op.weight, op.bias, False, 0.0, eps)


def _weight(op: Op) -> Tensor:
    assert op.weight is not None
    return op.weight


def thinned(op: Op, norm: Op, step: Step, limit: int) -> tuple[Op, Op]:
    """The layer and its norm cut down to ``limit`` evenly spaced units: an unbiased guess of the mismatch, cheaper."""
    count = norm.into
    if count <= limit or norm.mean is None or norm.var is None:
        return op, norm
    pick = torch.linspace(0, count - 1, limit).round().long()
    fewer = replace(norm, into=limit, out=limit, mean=norm.mean[pick], var=norm.var[pick], weight=None, bias=None)
    weight = _weight(op)
    if op.kind == "linear":
        per = op.out // count  # behind a view, each unit owns a run of rows
        rows = (pick[:, None] * per + torch.arange(per)).flatten()
        bias = None if op.bias is None else op.bias[rows]
        return replace(op, out=len(rows), weight=weight[rows], bias=bias), fewer
    bias = None if op.bias is None else op.bias[pick]
    weight = weight[:, pick] if op.kind == "deconv" else weight[pick]
    return replace(op, out=limit, weight=weight, bias=bias), fewer


def work(op: Op, step: Step) -> float:
    """Multiply-adds of one sample through one layer."""
    height, width = step.out if step.out != VECTOR else (1, 1)
    taps = float(op.into * op.out * op.kernel[0] * op.kernel[1])
    if op.kind == "deconv":
        return taps * height * width / step.geometry.stride**2
    return taps * height * width if op.kind == "conv" else taps if op.kind == "linear" else 0.0


def measure(
    chain: Chain, steps: tuple[Step, ...], x: Tensor, eps: dict[str, float], budget: float
) -> tuple[float, ...]:
    """Mismatch at every norm of a whole hypothesis, with as many samples as ``budget`` multiply-adds allow."""
    per_sample = sum(work(op, step) for op, step in zip(chain.ops, steps, strict=True))
    x = x[: max(32, int(budget / max(per_sample, 1.0)))]
    found: list[float] = []
    for op, step in zip(chain.ops, steps, strict=True):
        x = before(x, step)
        if op.kind == "norm":
            found.append(mismatch(x, op))
            if len(found) == sum(other.kind == "norm" for other in chain.ops):
                break
        x = apply_op(op, step, x, eps=eps.get(op.name, 1e-5))
    return tuple(found)
