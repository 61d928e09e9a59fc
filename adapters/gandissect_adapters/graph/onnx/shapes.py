"""Operators of ONNX that rearrange, select or make tensors.

SHAPES["Reshape"](Settings(17), (x, [0, -1]))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gandissect_adapters.graph.onnx.settings import Settings, Value, at, integers, joint_shape, limited, need, together

DTYPES: dict[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.int32, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.int64, 13: torch.int64, 16: torch.bfloat16,
}  # fmt: skip
"""TensorProto.DataType; unsigned integers that torch does little with in the next larger type."""


def _reshape(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, shape = need(values), integers(values, 1) or []
    if not settings.integer("allowzero", 0):
        shape = [x.shape[i] if size == 0 and i < x.dim() else size for i, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, axis = need(values), settings.integer("axis", 1)
    axis += x.dim() if axis < 0 else 0
    return x.reshape(int(torch.Size(x.shape[:axis]).numel()), -1)


def _transpose(settings: Settings, values: Sequence[Value]) -> Tensor:
    x = need(values)
    return x.permute(settings.integers("perm") or list(range(x.dim()))[::-1])


def _concat(settings: Settings, values: Sequence[Value]) -> Tensor:
    return torch.cat(together(*(need(values, i) for i in range(len(values)))), settings.integer("axis", 1))


def _axes(settings: Settings, values: Sequence[Value]) -> list[int] | None:
    """From the attribute of older versions or the second input of later ones."""
    return settings.integers("axes") or integers(values, 1)


def _squeeze(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, axes = need(values), _axes(settings, values)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, axes = need(values), _axes(settings, values) or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _shape(settings: Settings, values: Sequence[Value]) -> Tensor:
    sizes = list(need(values).shape)
    return torch.tensor(sizes[settings.integer("start", 0) : settings.integer("end", len(sizes))], dtype=torch.int64)


def _size(_settings: Settings, values: Sequence[Value]) -> Tensor:
    return torch.tensor(need(values).numel())


def _cast(settings: Settings, values: Sequence[Value]) -> Tensor:
    return need(values).to(DTYPES[settings.integer("to", 1)])


def _cast_like(_settings: Settings, values: Sequence[Value]) -> Tensor:
    return need(values).to(need(values, 1).dtype)


def _constant_of_shape(settings: Settings, values: Sequence[Value]) -> Tensor:
    value = settings.held.get("value")
    shape = limited(integers(values, 0) or [])
    return value.reshape(-1)[0].expand(shape).clone() if isinstance(value, Tensor) else torch.zeros(shape)


def _range(_settings: Settings, values: Sequence[Value]) -> Tensor:
    start, stop, step = (need(values, i) for i in range(3))
    limited([int(abs((stop.item() - start.item()) / step.item())) + 1])
    return torch.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)


def _expand(_settings: Settings, values: Sequence[Value]) -> Tensor:
    x, shape = need(values), integers(values, 1) or []
    return x.expand(joint_shape(x.shape, shape))


def _tile(_settings: Settings, values: Sequence[Value]) -> Tensor:
    x, repeats = need(values), integers(values, 1) or []
    limited([size * times for size, times in zip(x.shape, repeats, strict=True)])
    return x.repeat(repeats)


def _slice(settings: Settings, values: Sequence[Value]) -> Tensor:
    x = need(values)
    starts, ends = (settings.integers(name) or integers(values, i) or [] for i, name in ((1, "starts"), (2, "ends")))
    axes = settings.integers("axes") or integers(values, 3) or list(range(len(starts)))
    steps = integers(values, 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        if step > 0:
            low, high, _ = slice(start, end, step).indices(size)
            x = x.narrow(axis, low, max(high - low, 0))
            x = x if step == 1 else x.index_select(axis, torch.arange(0, max(high - low, 0), step, device=x.device))
        else:
            stop = None if end < -size else end
            kept = torch.arange(size)[list(range(size))[slice(start, stop, step)]]
            x = x.index_select(axis, kept.to(x.device))
    return x


def _split(settings: Settings, values: Sequence[Value]) -> tuple[Tensor, ...]:
    x, axis = need(values), settings.integer("axis", 0)
    sizes = settings.integers("split") or integers(values, 1)
    if sizes is None:
        parts = settings.integer("num_outputs", settings.outputs)
        each = -(-x.shape[axis] // parts)
        sizes = [each] * (parts - 1) + [x.shape[axis] - each * (parts - 1)]
    return tuple(torch.split_with_sizes(x, sizes, axis))


def _gather(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, indices = together(need(values, 0), need(values, 1))
    axis = settings.integer("axis", 0) % max(x.dim(), 1)
    shape = limited([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])
    flat = indices.reshape(-1).to(torch.int64)
    flat = torch.where(flat < 0, flat + x.shape[axis], flat)
    return x.index_select(axis, flat).reshape(shape)


def _gather_elements(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, indices = together(need(values, 0), need(values, 1))
    axis = settings.integer("axis", 0)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).to(torch.int64))


def _one_hot(settings: Settings, values: Sequence[Value]) -> Tensor:
    """Indices [...] to [..., depth] with values[1] where the index is and values[0] elsewhere."""
    indices, depth = need(values, 0).to(torch.int64), int(need(values, 1).item())
    off, on = need(values, 2).to(indices.device)
    limited([*indices.shape, depth])
    indices = torch.where(indices < 0, indices + depth, indices)
    marks = torch.arange(depth, device=indices.device) == indices.unsqueeze(-1)
    return torch.where(marks, on, off).movedim(-1, settings.integer("axis", -1))


def _depth_to_space(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, b = need(values), settings.integer("blocksize", 1)
    n, c, h, w = x.shape
    if settings.text("mode", "DCR") == "CRD":
        return torch.pixel_shuffle(x, b)
    parts = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, b = need(values), settings.integer("blocksize", 1)
    if settings.text("mode", "DCR") == "CRD":
        return torch.pixel_unshuffle(x, b)
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _triangle(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, diagonal = need(values), at(values, 1)
    shift = 0 if diagonal is None else int(diagonal.item())
    return x.triu(shift) if settings.integer("upper", 1) else x.tril(shift)


SHAPES: dict[str, Callable[[Settings, Sequence[Value]], Tensor | tuple[Tensor, ...]]] = {
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Concat": _concat, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Shape": _shape, "Size": _size, "Cast": _cast, "CastLike": _cast_like,
    "ConstantOfShape": _constant_of_shape, "Range": _range, "Expand": _expand, "Tile": _tile, "Slice": _slice, "Split": _split,
    "Gather": _gather, "GatherElements": _gather_elements, "OneHot": _one_hot, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Trilu": _triangle,
}  # fmt: skip
"""By the name in the schema."""
