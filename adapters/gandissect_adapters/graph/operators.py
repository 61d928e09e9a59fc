"""The operators a graph may hold: those that only compute. Everything else is refused before anything runs.

    refuse_impure(["aten::relu", "aten::save"], "gan.ts")       # UnsafeCheckpoint: ... aten::save ...
    call("aten::add", "Tensor", (x, y, 1))                      # x + y

``aten::save`` and ``aten::from_file`` write files when a scripted graph runs, so the list names what is allowed, not what
is not.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from functools import lru_cache

import torch
from torch import Tensor

from gandissect.errors import UnsafeCheckpoint

_READABLE_NAMES = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution linear addmm matmul bmm
    mm baddbmm batch_norm instance_norm group_norm layer_norm native_batch_norm rms_norm relu relu6 leaky_relu
    prelu rrelu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid softplus softsign tanh sigmoid
    log_sigmoid glu softmax log_softmax upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_bilinear2d upsample_linear1d upsample_trilinear3d upsample_bicubic2d pixel_shuffle pixel_unshuffle
    interpolate max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d add sub mul div cat stack
    embedding sin cos scaled_dot_product_attention einsum reflection_pad2d replication_pad2d normalize
"""
READABLE = frozenset(_READABLE_NAMES.split())
"""Operators whose result is worth a layer of its own where no submodule of the file stands for it."""

_TENSOR_NAMES = """
    addbmm addcdiv addcmul addmv cdist cross dot ger hypot inner kron outer softmin std vdot _convolution
    _softmax _log_softmax _unsafe_view _native_batch_norm_legit_no_training _adaptive_avg_pool2d abs acos all
    alias alpha_dropout amax amin any arange argmax argmin asin atan atan2 avg_pool1d avg_pool3d
    adaptive_avg_pool1d adaptive_avg_pool3d bernoulli bitwise_and bitwise_not bitwise_or broadcast_tensors
    broadcast_to ceil channel_shuffle chunk clamp clamp_max clamp_min clone complex concat constant_pad_nd
    contiguous copy cosine_similarity cumsum cumprod detach detach_copy diag dropout dropout1d dropout2d
    dropout3d feature_dropout embedding_renorm empty empty_like eq erf exp expand expand_as expm1 fft_rfft2
    fft_irfft2 fft_fft2 fft_ifft2 fill flatten flip floor floor_divide fmod full full_like gather ge
    grid_sampler grid_sampler_2d affine_grid_generator affine_grid gt hstack vstack im2col col2im imag index
    index_put index_select instance_norm is_floating_point isfinite isnan item layout le lerp lift_fresh
    lift_fresh_copy linalg_norm linalg_vector_norm log log10 log1p log2 logical_and logical_not logical_or
    logsumexp lt masked_fill masked_select max max_pool1d max_pool3d maximum mean meshgrid min minimum movedim
    multiply mv narrow native_group_norm native_layer_norm native_dropout ne neg new_empty new_full new_ones
    new_zeros norm normal numel one_hot ones ones_like pad pad_sequence permute pixel_shuffle polar pow prod
    rand rand_like randint randn randn_like real reciprocal reflection_pad1d reflection_pad3d remainder repeat
    repeat_interleave replication_pad1d replication_pad3d resolve_conj reshape reshape_as roll rot90 round rsqrt
    rsub scalar_tensor scatter select sgn sign size slice sort split split_with_sizes sqrt square squeeze
    std_mean stride subtract sum swapaxes t tensor tensor_split tile to topk transpose tril triu true_divide
    trunc type_as unbind unflatten unfold uniform unsqueeze upsample_nearest_exact1d upsample_nearest_exact2d
    upsample_nearest_exact3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa var var_mean view view_as where zero
    zeros zeros_like _to_copy _reshape_alias _shape_as_tensor conj view_as_complex view_as_real _weight_norm
    _weight_norm_interface _assert_tensor_metadata _assert_scalar sym_size sym_numel sym_constrain_range
    sym_constrain_range_for_size _local_scalar_dense dim is_same_size result_type
"""
_TENSOR = READABLE | frozenset(_TENSOR_NAMES.split())

_PLAIN_NAMES = """
    __and__ __contains__ __derive_index __getitem__ __is__ __isnot__ __not__ __or__ __range_length __xor__
    _set_item Bool BoolImplicit Float FloatImplicit Int IntImplicit ScalarImplicit add append copy floordiv
    format len list mod str warn is_complex is_contiguous
"""
_PLAIN = frozenset(_PLAIN_NAMES.split())

_PRIM_NAMES = """
    Constant DictConstruct GetAttr If ImplicitTensorToNum ListConstruct ListUnpack Loop NumToTensor
    RaiseException SetAttr TupleConstruct TupleIndex TupleUnpack Uninitialized abs annotate ceil data device
    dtype floor is_cuda itemsize layout max min ndim requires_grad round shape unchecked_cast CallMethod
    CallFunction
"""
_PRIM = frozenset(_PRIM_NAMES.split())

_DTYPE_CODES: dict[torch.dtype, int] = {
    torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float16: 5, torch.float32: 6,
    torch.float64: 7, torch.complex64: 9, torch.complex128: 10, torch.bool: 11, torch.bfloat16: 15,
}  # fmt: skip
"""c10::ScalarType, what a scripted graph holds where Python has a dtype."""


def plain_name(op: str) -> str:
    """``relu`` for ``aten::relu_`` and ``convolution`` for ``aten::_convolution``: what a person calls it."""
    name = op.rsplit("::", maxsplit=1)[-1]
    return name if name.startswith("__") else name.strip("_")


def is_pure(op: str) -> bool:
    """Whether the operator ``namespace::name`` does nothing but compute."""
    namespace, _, name = op.partition("::")
    if namespace == "prim":
        return name in _PRIM
    if namespace == "operator":
        return name in _NUMBERS
    if namespace != "aten":
        return op in ("call", "function", "own")
    functional = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return functional in _TENSOR or name in _PLAIN or name in _NUMBERS


def refuse_impure(ops: Iterable[str], file: str, way_out: str) -> None:
    """Nothing, or the error that names the operators of ``file`` that may do more than compute, and the ``way_out``."""
    impure = sorted({op for op in ops if not is_pure(op)})
    if impure:
        raise UnsafeCheckpoint(
            f"{file} uses {', '.join(impure[:5])}, which is not on the list of operators that only compute (some write files "
            f"when they run); {way_out}"
        )


def _floor_div(a: int, b: int) -> int:
    return a // b


def _range_length(low: int, high: int, step: int) -> int:
    return len(range(low, high, step))


def _slice(values: list[object], start: int | None = None, end: int | None = None, step: int = 1) -> list[object]:
    return values[start:end:step]


def _append(values: list[object], item: object) -> list[object]:
    values.append(item)
    return values


def _set_item(values: list[object], index: int, item: object) -> list[object]:
    values[index] = item
    return values


def _format(text: str, *values: object) -> str:
    """``{}`` replaced in order; str.format would follow attributes that a file names."""
    for value in values:
        text = text.replace("{}", str(value), 1)
    return text


_NUMBERS: dict[str, Callable[..., object]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "truediv": operator.truediv,
    "floordiv": _floor_div, "floor_divide": _floor_div, "remainder": operator.mod, "mod": operator.mod, "neg": operator.neg,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
    "pow": operator.pow, "abs": abs, "max": max, "min": min, "floor": math.floor, "ceil": math.ceil, "round": round,
    "sqrt": math.sqrt, "log": math.log, "exp": math.exp, "getitem": operator.getitem, "slice": _slice, "len": len,
    "log2": math.log2, "and_": operator.and_, "or_": operator.or_, "not_": operator.not_,
}  # fmt: skip
"""What these do to numbers and lists; with a tensor among the arguments the tensor operator runs instead."""

_ALWAYS: dict[str, Callable[..., object]] = {
    "aten::__and__": operator.and_, "aten::__or__": operator.or_, "aten::__xor__": operator.xor, "aten::__not__": operator.not_,
    "aten::__is__": operator.is_, "aten::__isnot__": operator.is_not, "aten::__getitem__": operator.getitem,
    "aten::__contains__": operator.contains, "aten::__range_length": _range_length,
    "aten::__derive_index": lambda index, start, step: start + index * step,
    "aten::Int": int, "aten::IntImplicit": int, "aten::Float": float, "aten::FloatImplicit": float, "aten::Bool": bool,
    "aten::BoolImplicit": bool, "aten::ScalarImplicit": lambda tensor: tensor.item(), "aten::append": _append,
    "aten::_set_item": _set_item, "aten::list": list, "aten::str": str, "aten::len": len, "aten::warn": lambda *_: None,
    "aten::format": _format, "aten::dim": lambda tensor: tensor.dim(),
    "aten::numel": lambda tensor: tensor.numel(), "aten::sym_numel": lambda tensor: tensor.numel(),
    "aten::sym_size": lambda tensor, axis: tensor.shape[axis], "aten::_assert_scalar": lambda *_: None,
    "aten::_assert_tensor_metadata": lambda *_: None, "aten::sym_constrain_range": lambda *_: None,
    "aten::sym_constrain_range_for_size": lambda *_: None,
    "aten::size": lambda tensor, axis=None: list(tensor.shape) if axis is None else tensor.shape[axis],
    "prim::NumToTensor": torch.tensor, "prim::ImplicitTensorToNum": lambda tensor: tensor.item(),
    "prim::ListConstruct": lambda *values: list(values), "prim::TupleConstruct": lambda *values: values,
    "prim::TupleIndex": operator.getitem, "prim::unchecked_cast": lambda value: value, "prim::annotate": lambda value: value,
    "prim::DictConstruct": lambda *values: dict(zip(values[::2], values[1::2], strict=True)),
    "prim::Uninitialized": lambda: None, "prim::data": lambda tensor: tensor.detach(),
    "prim::device": lambda tensor: tensor.device, "prim::dtype": lambda tensor: _DTYPE_CODES[tensor.dtype],
    "prim::is_cuda": lambda tensor: tensor.is_cuda, "prim::ndim": lambda tensor: tensor.dim(),
    "prim::layout": lambda _tensor: 0, "prim::requires_grad": lambda tensor: tensor.requires_grad,
    "prim::shape": lambda tensor: list(tensor.shape), "prim::itemsize": lambda tensor: tensor.element_size(),
}  # fmt: skip


def functional_name(op: str, overload: str) -> str:
    """``aten::relu`` for ``aten::relu_`` where a version that writes a new tensor exists, else ``op`` as it is."""
    if not op.startswith("aten::") or not op.endswith("_") or op.endswith("__"):
        return op
    packet = getattr(torch.ops.aten, op[6:-1], None)
    return op[:-1] if packet is not None and (overload or "default") in packet.overloads() else op


def call(op: str, overload: str, values: tuple[object, ...], keywords: tuple[str, ...] = ()) -> object:
    """The result of an allowed operator.

    Args:
        op: ``aten::name`` or ``prim::name``.
        overload: the name after the dot in the library's schema, ``""`` for the default one.
        values: in the order of the schema; the last ``len(keywords)`` of them are passed by name.
        keywords: names of the arguments passed by name.
    """
    always = _ALWAYS.get(op)
    if always is not None:
        return always(*values)
    number = _NUMBERS.get(op.rsplit("::", maxsplit=1)[-1])
    if number is not None and not any(isinstance(value, Tensor) for value in values):
        return number(*(values[: 2 if op == "aten::add" else None]))
    positional = len(values) - len(keywords)
    function, named = _overload(op, overload)
    if keywords:
        return function(*values[:positional], **dict(zip(keywords, values[positional:], strict=True)))
    count = len(values) - max(0, len(values) - named[0])
    return function(*values[:count], **dict(zip(named[1], values[count:], strict=False)))


@lru_cache(maxsize=1024)
def _overload(op: str, overload: str) -> tuple[Callable[..., object], tuple[int, tuple[str, ...]]]:
    """The library's function, and how its arguments are passed: number of positional ones, names of keyword-only ones."""
    if not is_pure(op):
        raise UnsafeCheckpoint(f"{op} is not on the list of operators that only compute")
    function = getattr(getattr(torch.ops.aten, op.rsplit("::", maxsplit=1)[-1]), overload or "default")
    arguments = function._schema.arguments
    by_name = tuple(argument.name for argument in arguments if argument.kwarg_only)
    return function, (len(arguments) - len(by_name), by_name)
