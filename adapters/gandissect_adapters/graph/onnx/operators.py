"""The standard operators of ONNX that a graph may hold, each as what torch computes.

    evaluate("onnx::Clip", Settings(17), (x, low, high))

Whatever is not in ``SUPPORTED`` is refused before anything runs; all of it computes and does nothing else.

References:
    ONNX operator schemas, https://onnx.ai/onnx/operators/ (each function follows the schema of its name).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from gandissect_adapters.graph.onnx.layers import LAYERS
from gandissect_adapters.graph.onnx.settings import (
    Settings,
    Value,
    at,
    integers,
    joint_shape,
    limited,
    need,
    together,
)
from gandissect_adapters.graph.onnx.shapes import SHAPES

Operator = Callable[[Settings, Sequence[Value]], Tensor | tuple[Tensor, ...]]

PREFIX = "onnx::"


def evaluate(op: str, settings: Settings, values: Sequence[Value]) -> Tensor | tuple[Tensor, ...]:
    """The result of ``onnx::Name``; a tuple where the operator has several.

    Raises:
        ValueError: an input is missing, or a result has more numbers than any network's.
    """
    result = OPERATORS[op.removeprefix(PREFIX)](settings, values)
    for made in result if isinstance(result, tuple) else (result,):
        limited(made.shape)
    return result


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _settings, values: function(need(values))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def run(_settings: Settings, values: Sequence[Value]) -> Tensor:
        a, b = together(need(values, 0), need(values, 1))
        joint_shape(a.shape, b.shape)
        return function(a, b)

    return run


def _many(function: Callable[[Tensor, Tensor], Tensor], *, mean: bool = False) -> Operator:
    def run(_settings: Settings, values: Sequence[Value]) -> Tensor:
        tensors = together(*(need(values, position) for position in range(len(values))))
        joint_shape(*(t.shape for t in tensors))
        total = reduce(function, tensors)
        return total / len(tensors) if mean else total

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    whole = not (a.is_floating_point() or b.is_floating_point())
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _power(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def _modulo(settings: Settings, values: Sequence[Value]) -> Tensor:
    a, b = together(need(values, 0), need(values, 1))
    return torch.fmod(a, b) if settings.integer("fmod", 0) else torch.remainder(a, b)


def _where(_settings: Settings, values: Sequence[Value]) -> Tensor:
    condition, a, b = together(*(need(values, position) for position in range(3)))
    joint_shape(condition.shape, a.shape, b.shape)
    return torch.where(condition, a, b)


def _clip(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, low, high = need(values), at(values, 1), at(values, 2)
    if settings.opset < 11:
        return x.clamp(settings.number("min", -math.inf), settings.number("max", math.inf))
    if low is not None:
        x = torch.maximum(*together(x, low))
    return x if high is None else torch.minimum(*together(x, high))


def _activation(function: Callable[..., Tensor], **named: tuple[str, float]) -> Operator:
    """An activation whose keyword arguments are attributes: ``alpha=("alpha", 1.0)``."""

    def run(settings: Settings, values: Sequence[Value]) -> Tensor:
        given = {key: settings.number(name, default) for key, (name, default) in named.items()}
        return function(need(values), **given)

    return run


def _hard_sigmoid(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _selu(x: Tensor, *, alpha: float, gamma: float) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _celu(x: Tensor, *, alpha: float) -> Tensor:
    return F.celu(x, alpha)


def _elu(x: Tensor, *, alpha: float) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _thresholded(x: Tensor, *, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def _shrink(x: Tensor, *, lambd: float, bias: float) -> Tensor:
    return torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, torch.zeros_like(x)))


def _swish(x: Tensor, *, alpha: float) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _gelu(settings: Settings, values: Sequence[Value]) -> Tensor:
    return F.gelu(need(values), approximate=settings.text("approximate", "none"))


def _prelu(_settings: Settings, values: Sequence[Value]) -> Tensor:
    x, slope = together(need(values, 0), need(values, 1))
    return torch.where(x >= 0, x, slope * x)


def _dropout(_settings: Settings, values: Sequence[Value]) -> Tensor:
    training = at(values, 2)
    if training is not None and bool(training.item()):
        raise ValueError("Dropout with training_mode draws random numbers; export the network in eval mode")
    return need(values).clone()


def _softmax(function: Callable[..., Tensor]) -> Operator:
    """Along one axis; before version 13 over everything from that axis on."""

    def run(settings: Settings, values: Sequence[Value]) -> Tensor:
        x = need(values)
        if settings.opset >= 13:
            return function(x, dim=settings.integer("axis", -1))
        axis = settings.integer("axis", 1) % max(x.dim(), 1)
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return run


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """Over the axes of an attribute or a second input, over all where none are named."""

    def run(settings: Settings, values: Sequence[Value]) -> Tensor:
        x, axes = need(values), settings.integers("axes") or integers(values, 1)
        if not axes and settings.integer("noop_with_empty_axes", 0):
            return x
        return function(x, axes or list(range(x.dim())), bool(settings.integer("keepdims", 1)))

    return run


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keep)
    return norm


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceProd": _product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
}


def _extreme(function: Callable[..., Tensor]) -> Operator:
    def run(settings: Settings, values: Sequence[Value]) -> Tensor:
        if settings.integer("select_last_index", 0):
            raise ValueError("ArgMax and ArgMin with select_last_index=1 are not read")
        return function(need(values), dim=settings.integer("axis", 0), keepdim=bool(settings.integer("keepdims", 1)))

    return run


def _matmul(_settings: Settings, values: Sequence[Value]) -> Tensor:
    return torch.matmul(*together(need(values, 0), need(values, 1)))


def _gemm(settings: Settings, values: Sequence[Value]) -> Tensor:
    a, b = together(need(values, 0), need(values, 1))
    a = a.t() if settings.integer("transA", 0) else a
    b = b.t() if settings.integer("transB", 0) else b
    product = settings.number("alpha", 1.0) * (a @ b)
    c = at(values, 2)
    return product if c is None else product + settings.number("beta", 1.0) * c.to(product.device)


def _einsum(settings: Settings, values: Sequence[Value]) -> Tensor:
    tensors = together(*(need(values, position) for position in range(len(values))))
    return torch.einsum(settings.text("equation", ""), *tensors)


def _cumulative(settings: Settings, values: Sequence[Value]) -> Tensor:
    x, axis = need(values), int(need(values, 1).item())
    if settings.integer("exclusive", 0):
        raise ValueError("CumSum with exclusive=1 is not read")
    return x.flip(axis).cumsum(axis).flip(axis) if settings.integer("reverse", 0) else x.cumsum(axis)


OPERATORS: dict[str, Operator] = {
    **LAYERS,
    **SHAPES,
    **{name: _reduce(function) for name, function in _REDUCTIONS.items()},
    **{name: _unary(getattr(torch, name.lower())) for name in (
        "Abs", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign",
        "Sin", "Sinh", "Sqrt", "Tan", "Tanh", "IsNaN", "Atan", "Asin", "Acos",
    )},
    "Not": _unary(torch.logical_not), "Softplus": _unary(F.softplus), "Softsign": _unary(F.softsign), "Mish": _unary(F.mish),
    "HardSwish": _unary(F.hardswish), "Dropout": _dropout, "Gelu": _gelu, "PRelu": _prelu, "Clip": _clip,
    "LeakyRelu": _activation(F.leaky_relu, negative_slope=("alpha", 0.01)), "Elu": _activation(_elu, alpha=("alpha", 1.0)),
    "Selu": _activation(_selu, alpha=("alpha", 1.67326319217681884765625), gamma=("gamma", 1.05070102214813232421875)),
    "Celu": _activation(_celu, alpha=("alpha", 1.0)), "Swish": _activation(_swish, alpha=("alpha", 1.0)),
    "HardSigmoid": _activation(_hard_sigmoid, alpha=("alpha", 0.2), beta=("beta", 0.5)),
    "ThresholdedRelu": _activation(_thresholded, alpha=("alpha", 1.0)),
    "Shrink": _activation(_shrink, lambd=("lambd", 0.5), bias=("bias", 0.0)),
    "Add": _binary(torch.add), "Sub": _binary(torch.sub), "Mul": _binary(torch.mul), "Div": _binary(_divide),
    "Pow": _binary(_power), "Mod": _modulo, "Equal": _binary(torch.eq), "Greater": _binary(torch.gt), "Less": _binary(torch.lt),
    "GreaterOrEqual": _binary(torch.ge), "LessOrEqual": _binary(torch.le), "And": _binary(torch.logical_and),
    "Or": _binary(torch.logical_or), "Xor": _binary(torch.logical_xor), "Where": _where,
    "Sum": _many(torch.add), "Mean": _many(torch.add, mean=True), "Max": _many(torch.maximum), "Min": _many(torch.minimum),
    "Softmax": _softmax(torch.softmax), "LogSoftmax": _softmax(torch.log_softmax),
    "ArgMax": _extreme(torch.argmax), "ArgMin": _extreme(torch.argmin), "MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum,
    "CumSum": _cumulative,
}  # fmt: skip
"""By the name in the schema."""

SUPPORTED = frozenset(OPERATORS) | {"Constant", "Identity"}
