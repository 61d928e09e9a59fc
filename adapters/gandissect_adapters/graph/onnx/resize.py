"""Resize and Upsample of ONNX: each axis is a matrix of interpolation weights, so every mode is one product per axis.

RESIZE["Resize"](Settings(19, held={"mode": "linear"}), (x, None, scales))

References:
    ONNX operator schemas, Resize-19: coordinate_transformation_mode, nearest_mode, cubic_coeff_a, exclude_outside.
    Keys (1981), "Cubic convolution interpolation for digital image processing", eq. 4 (the cubic kernel).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gandissect_adapters.graph.onnx.settings import Settings, Value, at, integers, limited, need

_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def coordinates(mode: str, size: int, wanted: int, scale: float) -> Tensor:
    """Where each of ``wanted`` entries lies in an axis of ``size`` entries, float64 [wanted]."""
    x = torch.arange(wanted, dtype=torch.float64)
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * ((size - 1) / (scale * size - 1)) if wanted > 1 else torch.zeros_like(x)
    if mode == "pytorch_half_pixel" and wanted == 1:
        return torch.zeros_like(x)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - wanted / (scale * size)) + (x + 0.5) / scale - 0.5
    raise ValueError(f"Resize with coordinates {mode!r} is not read")


def cubic(distance: Tensor, a: float) -> Tensor:
    """The weight of an entry at that distance."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def weights(settings: Settings, size: int, wanted: int, scale: float) -> Tensor:
    """The matrix of one axis, float64 [wanted, size]: row i holds what entry i takes of each old one."""
    asked = settings.text("coordinate_transformation_mode", "half_pixel" if settings.opset >= 11 else "asymmetric")
    where, mode = coordinates(asked, size, wanted, scale), settings.text("mode", "nearest")
    rows = torch.arange(wanted)
    matrix = torch.zeros(wanted, size, dtype=torch.float64)
    if mode == "nearest":
        rounding = settings.text("nearest_mode", "round_prefer_floor" if settings.opset >= 11 else "floor")
        matrix[rows, _NEAREST[rounding](where).clamp(0, size - 1).long()] = 1.0
        return matrix
    if mode not in ("linear", "cubic"):
        raise ValueError(f"Resize in mode {mode!r} is not read")
    reach, a = (1 if mode == "linear" else 2), settings.number("cubic_coeff_a", -0.75)
    first = where.floor().long()
    for offset in range(1 - reach, 1 + reach):
        entry = first + offset
        distance = where - entry
        share = (1 - distance.abs()).clamp_min(0) if mode == "linear" else cubic(distance, a)
        if settings.integer("exclude_outside", 0):
            share = share * ((entry >= 0) & (entry < size))
        matrix.index_put_((rows, entry.clamp(0, size - 1)), share, accumulate=True)
    return matrix / matrix.sum(1, keepdim=True) if settings.integer("exclude_outside", 0) else matrix


def _target(
    settings: Settings, x: Tensor, scales: list[float] | None, sizes: list[int] | None
) -> list[tuple[int, float]]:
    """(wanted size, scale) of every axis."""
    axes = [axis % x.dim() for axis in settings.integers("axes") or range(x.dim())]
    found = [(size, 1.0) for size in x.shape]
    if sizes:
        kept = dict(zip(axes, sizes, strict=True))
        ratios = [size / x.shape[axis] for axis, size in kept.items()]
        policy = settings.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            kept = {axis: math.floor(x.shape[axis] * ratio + 0.5) for axis in kept}
        for axis, size in kept.items():
            found[axis] = (size, size / x.shape[axis])
        return found
    if not scales:
        raise ValueError("Resize without sizes or scales")
    for axis, scale in zip(axes, scales, strict=True):
        found[axis] = (math.floor(x.shape[axis] * scale), scale)
    return found


def resized(settings: Settings, x: Tensor, scales: list[float] | None, sizes: list[int] | None) -> Tensor:
    """``x`` with its axes after the first two resized; the samples and units stay as they are."""
    targets = _target(settings, x, scales, sizes)
    limited([*x.shape[:2], *(size for size, _ in targets[2:])])
    mode = settings.text("mode", "nearest")
    if settings.integer("antialias", 0) and any(scale < 1 for _, scale in targets):
        raise ValueError("Resize with antialias=1 is not read")
    for axis in range(2, x.dim()):
        wanted, scale = targets[axis]
        if wanted == x.shape[axis] and scale == 1.0:
            continue
        matrix = weights(settings, x.shape[axis], wanted, scale)
        if mode == "nearest":
            x = x.index_select(axis, matrix.argmax(1).to(x.device))
        else:
            x = (x.movedim(axis, -1) @ matrix.t().to(x.device, x.dtype)).movedim(-1, axis)
    return x


def _resize(settings: Settings, values: Sequence[Value]) -> Tensor:
    """Inputs X, scales in version 10; X, roi, scales, sizes later."""
    x = need(values)
    scales = at(values, 1 if settings.opset < 11 else 2)
    sizes = integers(values, 3)
    given = None if scales is None or not scales.numel() else [float(s) for s in scales.reshape(-1).tolist()]
    return resized(settings, x, given, sizes or None)


def _upsample(settings: Settings, values: Sequence[Value]) -> Tensor:
    scales = at(values, 1)
    given = settings.numbers("scales") if scales is None else [float(s) for s in scales.reshape(-1).tolist()]
    return resized(settings, need(values), given, None)


def as_torch(settings: Settings, scales: Sequence[float]) -> tuple[str, list[float]] | None:
    """The aten operator that does the same for these scales of all axes (``upsample_nearest2d``), and its scale factors."""
    if (
        len(scales) != 4
        or tuple(scales[:2]) != (1.0, 1.0)
        or settings.integers("axes")
        or settings.integer("antialias", 0)
    ):
        return None
    factors, mode = [float(s) for s in scales[2:]], settings.text("mode", "nearest")
    asked = settings.text("coordinate_transformation_mode", "half_pixel" if settings.opset >= 11 else "asymmetric")
    if mode == "nearest" and all(f >= 1 and f == int(f) for f in factors):
        # integer enlargement: half pixels round to the same entries as flooring does
        rounding = settings.text("nearest_mode", "round_prefer_floor" if settings.opset >= 11 else "floor")
        same = asked in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric") and rounding.startswith("round")
        return ("upsample_nearest2d", factors) if same or (asked == "asymmetric" and rounding == "floor") else None
    halves = asked in ("half_pixel", "pytorch_half_pixel") and all(f >= 1 for f in factors)
    if mode == "linear" and halves:
        return "upsample_bilinear2d", factors
    keys = settings.number("cubic_coeff_a", -0.75) == -0.75 and not settings.integer("exclude_outside", 0)
    return ("upsample_bicubic2d", factors) if mode == "cubic" and halves and keys else None


RESIZE: dict[str, Callable[[Settings, Sequence[Value]], Tensor]] = {"Resize": _resize, "Upsample": _upsample}
"""By the name in the schema."""
