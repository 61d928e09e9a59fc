"""What sizes a chain of layers can give, and how usual each way is.

shapes = Shapes(chain.ops, "generator", Goal(size=(64, 64)))
shapes.steps(0, VECTOR)                 # [(0.0, Step(...)), (0.35, Step(...)), ...]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import inf, isqrt

from gandissect_adapters.recognise.attention import is_pooled
from gandissect_adapters.recognise.chain import Op
from gandissect_adapters.recognise.plan import SHUFFLE, VECTOR, Geometry, Size, Step
from gandissect_adapters.recognise.unwrap import Role

MAX_SIZE = 1100
_UPS = {1: 0.1, 2: 0.0, 4: 1.0}  # how unusual a factor of upsampling before a convolution is
# How unusual a final size is, in units of log evidence; what is beyond the last norm is decided by this alone.
_SIZES = {28: 0.0, 32: 0.0, 64: 0.0, 128: 0.0, 96: 0.3, 256: 0.3, 512: 0.4, 1024: 0.4, 48: 0.5, 16: 0.7}


@dataclass(frozen=True)
class Goal:
    """What a chain must end in: a size where it is known (a generator's), one number per image for discriminators."""

    size: Size | None = None
    strides: tuple[int, ...] | None = None
    """Strides of the convolutions in order, where a family or the user says them."""
    paddings: tuple[int, ...] | None = None
    ups: bool = True
    """Whether upsampling before convolutions is to be considered."""


@dataclass
class Shapes:
    """Steps that are possible at each layer, and the least penalty with which the rest of the chain can be finished."""

    ops: tuple[Op, ...]
    role: Role
    goal: Goal = Goal()
    _rest: dict[tuple[int, int, Size], float] = field(default_factory=dict)

    def steps(self, index: int, units: int, size: Size) -> list[tuple[float, Step]]:
        """(penalty, step) for layer ``index`` fed with ``units`` of ``size``, those that can be finished only."""
        made: dict[tuple[object, ...], tuple[float, Step]] = {}
        for penalty, step in self._all_steps(self.ops[index], index, units, size):
            total = penalty + self.rest(index + 1, self.out_units(index, units, step), step.out)
            # strides on a 1x1 input do nothing: keep one of the ways that give the same function
            geometry = step.geometry.padding if size == (1, 1) else step.geometry
            same = (step.out, step.up, step.mode, step.view, geometry)
            if total < inf and (same not in made or made[same][0] > penalty):
                made[same] = (penalty, step)
        return sorted(made.values(), key=lambda item: item[0])

    def out_units(self, index: int, units: int, step: Step) -> int:
        """Units after layer ``index``: a norm or activation keeps those that arrive."""
        op = self.ops[index]
        if op.kind in ("norm", "affine", "prelu", "attention"):
            return step.view[0] if step.view else units // 4 if step.mode == SHUFFLE else units
        return op.out

    def rest(self, index: int, units: int, size: Size) -> float:
        """The least penalty to finish from layer ``index``; infinite where no way ends as it must."""
        key = (index, units, size)
        if key not in self._rest:
            self._rest[key] = inf  # while it is computed
            if index == len(self.ops):
                self._rest[key] = self.end_penalty(units, size)
            else:
                self._rest[key] = min(
                    (
                        penalty + self.rest(index + 1, self.out_units(index, units, step), step.out)
                        for penalty, step in self._all_steps(self.ops[index], index, units, size)
                    ),
                    default=inf,
                )
        return self._rest[key]

    def end_penalty(self, units: int, size: Size) -> float:
        """How unusual it is to end with ``units`` of ``size``; infinite where it is impossible."""
        if self.role == "discriminator":
            if size in (VECTOR, (1, 1)):
                return 0.0
            return 1.5 if max(size) <= 70 else inf  # a map of scores: PatchGAN
        image = image_of(units, size, self.goal.size)
        if image is None:
            return inf
        _, height, width = image
        if self.goal.size is not None:
            return 0.0 if (height, width) == self.goal.size else inf
        if height != width:
            return 3.0
        return _SIZES.get(height, 1.2 if height >= 16 else 2.5 if height >= 8 else inf)

    def _all_steps(self, op: Op, index: int, units: int, size: Size) -> Iterator[tuple[float, Step]]:
        if op.kind == "linear":
            yield from _linear_steps(op, units, size)
        elif op.kind in ("norm", "affine", "prelu", "attention"):
            yield from self._norm_steps(op, units, size)
        else:
            for extra, view, inner in _views(op.into, units, size):
                for penalty, step in self._conv_steps(op, index, inner):
                    yield extra + penalty, replace(step, view=view)
            if self._shuffles(op, units, size):
                for penalty, step in self._conv_steps(op, index, _doubled(size)):
                    if step.up == 1:
                        yield penalty, replace(step, up=2, mode=SHUFFLE)

    def _norm_steps(self, op: Op, units: int, size: Size) -> Iterator[tuple[float, Step]]:
        if not _takes(op, size):
            return
        if op.into in (units, 1):
            yield 0.0, Step(out=size)
        elif self._shuffles(op, units, size):
            yield 0.0, Step(up=2, mode=SHUFFLE, out=_doubled(size))
        elif size == VECTOR:
            for extra, view, inner in _views(op.into, units, size):
                yield extra, Step(view=view, out=inner)

    def _shuffles(self, op: Op, units: int, size: Size) -> bool:
        """Whether a PixelShuffle (Shi et al. 2016, eq. 4) of four units into one fits before the layer."""
        return size != VECTOR and self.role == "generator" and units == 4 * op.into

    def _conv_steps(self, op: Op, index: int, size: Size) -> Iterator[tuple[float, Step]]:
        convs = [i for i, other in enumerate(self.ops) if other.kind in ("conv", "deconv")]
        nth = convs.index(index)
        for up in (1, 2, 4) if op.kind == "conv" and self.role == "generator" and self.goal.ups else (1,):
            inner = (size[0] * up, size[1] * up)
            for geometry, out in _geometries(op, inner):
                penalty = _penalty(op, geometry, inner, out, self.role)
                if op.kind == "conv" and self.role == "generator":
                    penalty += _UPS[up]
                if not self._allowed(nth, geometry, size):
                    continue
                if nth < len(self.goal.strides or self.goal.paddings or ()):
                    penalty = 0.0 if up == 1 or op.kind == "deconv" else penalty
                yield penalty, Step(geometry, up=up, out=out)

    def _allowed(self, nth: int, geometry: Geometry, size: Size) -> bool:
        """Whether the goal's stride and padding of the nth convolution are these; strides on a 1x1 input do nothing."""
        strides, paddings = self.goal.strides or (), self.goal.paddings or ()
        if nth < len(strides) and geometry.stride != strides[nth] and size != (1, 1):
            return False
        return not (nth < len(paddings) and geometry.padding != paddings[nth])


def image_of(units: int, size: Size, wanted: Size | None = None) -> tuple[int, int, int] | None:
    """(C, H, W) of what a generator ends in; a vector is split into 1, 3 or 4 square maps, 12 maps are shuffled into 3."""
    if size != VECTOR and units == 12:
        units, size = 3, _doubled(size)
    if size != VECTOR:
        return (units, *size) if units in (1, 2, 3, 4) and max(size) <= MAX_SIZE else None
    for channels in (1, 3, 4):
        if wanted is not None and channels * wanted[0] * wanted[1] == units:
            return (channels, *wanted)
        side = isqrt(units // channels)
        if channels * side * side == units and side >= 8:
            return (channels, side, side)
    return None


def _doubled(size: Size) -> Size:
    return 2 * size[0], 2 * size[1]


def _takes(op: Op, size: Size) -> bool:
    """Self-attention looks at maps, even ones where it pools them; LayerNorm over [C, H, W] takes maps of that size."""
    if op.kind == "attention":
        return size != VECTOR and not (is_pooled(op.parts) and (size[0] % 2 or size[1] % 2))
    whole = op.kind == "affine" and op.weight is not None and op.weight.dim() == 3
    return not whole or (op.weight is not None and tuple(op.weight.shape[1:]) == size)


def _linear_steps(op: Op, units: int, size: Size) -> Iterator[tuple[float, Step]]:
    if size == VECTOR and units == op.into:
        yield 0.0, Step(out=VECTOR)
    elif size != VECTOR and units * size[0] * size[1] == op.into:
        yield 0.0, Step(flatten=True, out=VECTOR)


def _views(into: int, units: int, size: Size) -> Iterator[tuple[float, tuple[int, int, int] | None, Size]]:
    """Ways to see ``units`` of ``size`` as ``into`` maps."""
    if size != VECTOR:
        if units == into:
            yield 0.0, None, size
        return
    if units % into:
        return
    area = units // into
    side = isqrt(area)
    if side * side == area:
        yield 0.0, (into, side, side), (side, side)
    else:
        for height in range(side, 1, -1):
            if area % height == 0 and area // height <= 4 * height:
                for pair in ((height, area // height), (area // height, height)):
                    yield 1.5, (into, *pair), pair
                return


def _geometries(op: Op, size: Size) -> Iterator[tuple[Geometry, Size]]:
    """Every stride, padding and output padding up to the usual bounds, with the size that comes out."""
    (kh, kw), (h, w) = op.kernel, size
    k = max(kh, kw)
    for stride in range(1, max(2, min(k, 4) + 1)):
        for padding in range(0, max(k // 2, 2 if k == 1 else 0) + 1):
            for extra in (0, 1) if op.kind == "deconv" and stride > 1 else (0,):
                if op.kind == "deconv":
                    out = tuple((n - 1) * stride - 2 * padding + kk + extra for n, kk in ((h, kh), (w, kw)))
                else:
                    out = tuple((n + 2 * padding - kk) // stride + 1 for n, kk in ((h, kh), (w, kw)))
                    if min(h, w) + 2 * padding < k:
                        continue
                if min(out) >= 1 and max(out) <= MAX_SIZE:
                    yield Geometry(stride, padding, extra), (out[0], out[1])
    if op.kind == "conv" and size == (1, 1) and k > 2:  # ProGAN's first layer: 1x1 -> k x k
        yield Geometry(1, k - 1), (kh, kw)


def _penalty(op: Op, geometry: Geometry, size: Size, out: Size, role: Role) -> float:
    """How unusual a geometry is, in units of log evidence: 0 for the ones in every tutorial."""
    k, s, p, extra = max(op.kernel), geometry.stride, geometry.padding, geometry.output_padding
    n, m = size[0], out[0]
    if k == 1:
        return (0.0 if s == 1 else 0.8) + 0.5 * p
    if op.kind == "deconv":
        return _deconv_penalty(k, s, p, extra, n, m)
    if role == "generator":
        if s == 1:
            return 0.0 if m == n else 0.1 if n == 1 and p == k - 1 else 0.7 if p == 0 else 1.0
        return 1.5
    if m == 1 and p == 0 and n == k:
        return 0.0 if s == 1 else 0.02  # strides do nothing
    if s == 2 and n > 1:
        exact = 0.0 if 2 * m == n else 0.05
        return exact if p == (k - 1) // 2 and p else 0.3 if p == 0 else 0.8
    if s == 1:
        if p == 0:
            return 0.0 if m == 1 else 0.5
        return 0.15 if m == n else 0.6 if p == 1 and k == 4 else 1.0
    return 1.2 + 0.2 * (s > 3)


def _deconv_penalty(k: int, s: int, p: int, extra: int, n: int, m: int) -> float:
    if n == 1:
        return (0.0 if s == 1 else 0.02) + (0.0 if p == 0 else 0.8) + 1.5 * extra
    if s == 2:
        if m == 2 * n:
            return (0.1 if extra else 0.0) if extra == 0 or p == (k - 1) // 2 else 1.0
        return 0.35 if p == 0 and not extra else 0.4 if p == (k - 1) // 2 and not extra else 1.0 + 0.2 * extra
    if s == 1:
        return 0.05 if m == n else 0.35 if p == 0 else 0.7
    return (0.4 if m == s * n else 1.0) + 0.5 * extra
