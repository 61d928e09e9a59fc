"""Operators of ONNX over maps: convolutions, pooling, normalisations, padding and sampling.

LAYERS["Conv"](Settings(17, held={"strides": [2, 2]}), (x, weight, bias))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gandissect_adapters.graph.onnx.resize import RESIZE
from gandissect_adapters.graph.onnx.settings import Settings, Value, at, integers, limited, need, together

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAXIMUM = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def torch_pads(pads: Sequence[int]) -> list[int]:
    """[begin of each axis..., end of each axis...] as torch.nn.functional.pad takes it, last axis first."""
    rank = len(pads) // 2
    return [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[axis + rank])]


def window(settings: Settings, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """How far a sliding window reaches over the edges: [begins..., ends...] from ``pads`` or ``auto_pad``."""
    rank, auto = len(kernel), settings.text("auto_pad", "NOTSET")
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return (settings.integers("pads") if auto == "NOTSET" else None) or [0] * (2 * rank)
    strides = settings.integers("strides") or [1] * rank
    dilations = settings.integers("dilations") or [1] * rank
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        smaller, larger = total // 2, total - total // 2
        begins.append(smaller if auto == "SAME_UPPER" else larger)
        ends.append(larger if auto == "SAME_UPPER" else smaller)
    return begins + ends


def _conv(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, weight = together(need(values, 0), need(values, 1))
    rank = weight.dim() - 2
    pads = window(settings, x.shape[2:], weight.shape[2:])
    limited([*x.shape[:2], *(x.shape[2 + i] + pads[i] + pads[i + rank] for i in range(rank))])
    return _CONVOLUTIONS[rank](
        F.pad(x, torch_pads(pads)) if any(pads) else x,
        weight,
        at(values, 2),
        stride=settings.integers("strides") or [1] * rank,
        dilation=settings.integers("dilations") or [1] * rank,
        groups=settings.integer("group", 1),
    )


def _conv_transpose(settings: Settings, values: Sequence[Value]) -> Tensor:
    """The whole scattered map, cut to what ``pads``, ``output_padding`` or ``output_shape`` ask for."""
    x, weight = together(need(values, 0), need(values, 1))
    rank = weight.dim() - 2
    strides = settings.integers("strides") or [1] * rank
    dilations = settings.integers("dilations") or [1] * rank
    groups = settings.integer("group", 1)
    spread = [(x.shape[2 + i] - 1) * strides[i] + dilations[i] * (weight.shape[2 + i] - 1) + 1 for i in range(rank)]
    limited([len(x), weight.shape[1] * groups, *spread])
    whole = _TRANSPOSED[rank](x, weight, None, stride=strides, groups=groups, dilation=dilations)
    begins, ends = _cuts(settings, x.shape[2:], strides, spread)
    image = F.pad(whole, torch_pads([-cut for cut in begins + ends]))
    bias = at(values, 2)
    return image if bias is None else image + bias.reshape(-1, *[1] * rank)


def _cuts(
    settings: Settings, sizes: Sequence[int], strides: Sequence[int], spread: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Rows to drop at the begin and at the end of each axis; below zero where some are added."""
    rank, auto = len(spread), settings.text("auto_pad", "NOTSET")
    extra = settings.integers("output_padding") or [0] * rank
    wanted = settings.integers("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        pads = (settings.integers("pads") if auto == "NOTSET" else None) or [0] * (2 * rank)
        return pads[:rank], [pads[rank + i] - extra[i] for i in range(rank)]
    totals = [spread[i] + extra[i] - wanted[-rank:][i] for i in range(rank)]
    begins = [total // 2 if auto == "SAME_UPPER" else total - total // 2 for total in totals]
    return begins, [totals[i] - begins[i] - extra[i] for i in range(rank)]


def _max_pool(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, kernel = need(values), settings.integers("kernel_shape") or []
    around, beside = _halves(window(settings, x.shape[2:], kernel), kernel)
    return _MAXIMUM[len(kernel)](
        F.pad(x, torch_pads(beside), value=-torch.inf) if any(beside) else x,
        kernel,
        stride=settings.integers("strides") or [1] * len(kernel),
        padding=around,
        dilation=settings.integers("dilations") or [1] * len(kernel),
        ceil_mode=bool(settings.integer("ceil_mode", 0)),
    )


def _halves(pads: list[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """(padding that pooling does itself, padding to do before): the first where it is the same on both sides."""
    rank = len(kernel)
    even = pads[:rank] == pads[rank:] and all(2 * pad <= size for pad, size in zip(pads, kernel, strict=False))
    return (pads[:rank], [0] * (2 * rank)) if even else ([0] * rank, pads)


def _average_pool(settings: Settings, values: Sequence[Value]) -> Tensor:
    """Means of windows, padding counted as zeros or left out."""
    x, kernel = need(values), settings.integers("kernel_shape") or []
    if any(number != 1 for number in settings.integers("dilations") or []):
        raise ValueError("AveragePool with dilations is not read")
    around, beside = _halves(window(settings, x.shape[2:], kernel), kernel)
    strides, ceil = settings.integers("strides") or [1] * len(kernel), bool(settings.integer("ceil_mode", 0))
    counted = bool(settings.integer("count_include_pad", 0))
    padded = F.pad(x, torch_pads(beside)) if any(beside) else x
    pool = _AVERAGE[len(kernel)]
    mean = pool(padded, kernel, strides, around, ceil_mode=ceil, count_include_pad=counted)
    if counted or not any(beside):
        return mean
    return mean / pool(F.pad(torch.ones_like(x[:1, :1]), torch_pads(beside)), kernel, strides, ceil_mode=ceil)


def _global(function: Callable[[Tensor, list[int]], Tensor]) -> Callable[[Settings, Sequence[Value]], Tensor]:
    return lambda _settings, values: function(need(values), list(range(2, need(values).dim())))


def _batch_norm(settings: Settings, values: Sequence[Value]) -> Tensor:
    if settings.integer("training_mode", 0):
        raise ValueError("BatchNormalization with training_mode=1 makes images depend on each other")
    x, weight, bias, mean, variance = together(*(need(values, i) for i in range(5)))
    return F.batch_norm(x, mean, variance, weight, bias, eps=settings.number("epsilon", 1e-5))


def _instance_norm(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, weight, bias = together(*(need(values, i) for i in range(3)))
    eps = settings.number("epsilon", 1e-5)
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, False)


def _layer_norm(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, axis = need(values), settings.integer("axis", -1)
    shape = list(x.shape[axis if axis < 0 else axis - x.dim() :])
    plain = F.layer_norm(x, shape, eps=settings.number("epsilon", 1e-5))
    weight, bias = at(values, 1), at(values, 2)
    plain = plain if weight is None else plain * weight
    return plain if bias is None else plain + bias


def _group_norm(settings: Settings, values: Sequence[Value]) -> Tensor:
    """Scale and bias of each group until version 20, of each unit from 21 on."""
    x, groups = need(values), settings.integer("num_groups", 1)
    weight, bias = (
        t if len(t) == x.shape[1] else t.repeat_interleave(x.shape[1] // groups)
        for t in together(x, need(values, 1), need(values, 2))[1:]
    )
    return F.group_norm(x, groups, weight, bias, settings.number("epsilon", 1e-5))


def _rms_norm(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, axis = need(values), settings.integer("axis", -1)
    axes = list(range(axis % x.dim(), x.dim()))
    scaled = x * torch.rsqrt(x.square().mean(axes, keepdim=True) + settings.number("epsilon", 1e-5))
    return scaled * need(values, 1)


def _lp_norm(settings: Settings, values: Sequence[Value]) -> Tensor:
    x = need(values)
    norm: Tensor = torch.linalg.vector_norm(x, settings.integer("p", 2), settings.integer("axis", -1), keepdim=True)
    return x / norm.clamp_min(1e-30)


def _local_response(settings: Settings, values: Sequence[Value]) -> Tensor:
    alpha, beta, bias = (settings.number(n, v) for n, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return F.local_response_norm(need(values), settings.integer("size", 1), alpha, beta, bias)


def _pad(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, mode = need(values), settings.text("mode", "constant")
    given = settings.integers("pads") or integers(values, 1) or []
    axes = integers(values, 3) or list(range(x.dim()))
    pads = [0] * (2 * x.dim())
    for position, axis in enumerate(axes):
        pads[axis % x.dim()] = given[position]
        pads[axis % x.dim() + x.dim()] = given[position + len(axes)]
    limited([x.shape[i] + pads[i] + pads[i + x.dim()] for i in range(x.dim())])
    ordered = torch_pads(pads)
    if mode == "constant":
        constant = at(values, 2)
        value = settings.number("value", 0.0) if constant is None else float(constant.item())
        return F.pad(x, ordered, value=value)
    if any(ordered[2 * (x.dim() - 2) :]):
        raise ValueError(f"Pad in mode {mode} over samples or units is not read")
    return F.pad(x, ordered[: 2 * (x.dim() - 2)], mode=_PAD_MODES[mode])


def _grid_sample(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, grid = together(need(values, 0), need(values, 1))
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(
        settings.text("mode", "linear"), settings.text("mode", "linear")
    )
    corners = bool(settings.integer("align_corners", 0))
    return F.grid_sample(x, grid, mode, settings.text("padding_mode", "zeros"), align_corners=corners)


LAYERS: dict[str, Callable[[Settings, Sequence[Value]], Tensor | tuple[Tensor, ...]]] = {
    **RESIZE,
    "Conv": _conv, "ConvTranspose": _conv_transpose, "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _global(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalMaxPool": _global(lambda x, axes: x.amax(axes, keepdim=True)), "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm, "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm, "LpNormalization": _lp_norm, "LRN": _local_response, "Pad": _pad, "GridSample": _grid_sample,
}  # fmt: skip
"""By the name in the schema."""
