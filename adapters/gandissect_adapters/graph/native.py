"""Layers of a graph that do what one of torch's own modules does, replaced by that module.

    with torch.no_grad():
        make_native(module, z)               # main.0 is a torch.nn.ConvTranspose2d now, with stride and padding

So analyses that look at a layer's class, stride or slope work on a graph as they do on live modules. Nothing is replaced
unless its one operator was seen with arguments that the module has too; the caller compares the outputs afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from gandissect_adapters.graph.engine import Interpreted
from gandissect_adapters.graph.operators import plain_name

Arguments = Mapping[str, object]


def make_native(root: Interpreted, *args: Tensor) -> int:
    """Replaces what it can in place, after watching one run on ``args``; the number of modules replaced."""
    shared = root.graph_shared
    shared.record = []
    try:
        root(*args)
        seen = shared.record
    finally:
        shared.record = None
    calls: dict[nn.Module, list[tuple[str, Arguments]]] = {}
    for module, op, values in seen:
        calls.setdefault(module, []).append((op, values))
    replaced = 0
    names = {module: name for name, module in root.named_modules()}
    for module, ops in calls.items():
        if module is root or any(True for _ in module.children()) or len({repr(op) for op, _ in ops}) != 1:
            continue
        native = _native(*ops[0])
        if native is not None and _owns(module, native, ops[0][1]) and all(_same(ops[0][1], other) for _, other in ops):
            _place(root, names[module], native)
            replaced += 1
    return replaced


def _same(first: Arguments, other: Arguments) -> bool:
    """Two calls of one layer had the same settings."""
    plain = [{k: v for k, v in values.items() if not isinstance(v, Tensor)} for values in (first, other)]
    return plain[0] == plain[1]


def _owns(module: nn.Module, native: nn.Module, values: Arguments) -> bool:
    """Every tensor beside the first argument is a parameter or buffer of the layer, and the new module has them all."""
    own = {*module._parameters.values(), *module._buffers.values()} - {None}
    tensors = [value for value in list(values.values())[1:] if isinstance(value, Tensor)]
    held = {id(t) for t in own}
    kept = {id(t) for t in (*native.parameters(), *native.buffers())}
    if any(id(tensor) not in held for tensor in tensors):
        return False
    return all(id(parameter) in kept for parameter in module.parameters())


def _place(root: nn.Module, name: str, native: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    holder = root.get_submodule(parent) if parent else root
    holder._modules[child] = native.eval()


def _native(op: str, values: Arguments) -> nn.Module | None:
    maker = _MAKERS.get(plain_name(op))
    if maker is None or not values or not isinstance(next(iter(values.values())), Tensor):
        return None
    try:
        return maker(values)
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None  # arguments that the module does not have


def _with(module: nn.Module, values: Arguments, *names: str) -> nn.Module:
    """The module holding the very tensors of the graph under ``names``."""
    for name in names:
        tensor = values.get(name)
        if name in module._buffers:
            module._buffers[name] = tensor if isinstance(tensor, Tensor) else None
        elif isinstance(tensor, nn.Parameter) or tensor is None:
            module._parameters[name] = tensor
        else:
            raise TypeError(f"{name} is computed, not stored")
    return module


def _tuple(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (int(str(value)),)


def _tensor(values: Arguments, name: str) -> Tensor:
    tensor = values[name]
    if not isinstance(tensor, Tensor):
        raise TypeError(name)
    return tensor


def _convolution(values: Arguments) -> nn.Module:
    return _conv(values, transposed=bool(values["transposed"]))


def _conv(values: Arguments, *, transposed: bool = False) -> nn.Module:
    """[out, in / groups, k...] for a convolution, [in, out / groups, k...] for a transposed one."""
    weight, groups = _tensor(values, "weight"), int(str(values.get("groups", 1)))
    rank = weight.dim() - 2
    first, second = weight.shape[0], weight.shape[1] * groups
    kinds = {
        False: (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        True: (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    }
    settings: dict[str, object] = {
        name: (_tuple(values[name]) * rank)[:rank] for name in ("stride", "padding", "dilation") if name in values
    }
    if transposed and "output_padding" in values:
        settings["output_padding"] = (_tuple(values["output_padding"]) * rank)[:rank]
    channels = (first, second) if transposed else (second, first)
    kind: Callable[..., nn.Module] = kinds[transposed][rank - 1]
    module = kind(*channels, tuple(weight.shape[2:]), groups=groups, bias=False, device="meta", **settings)
    return _with(module, values, "weight", "bias")


def _transposed(values: Arguments) -> nn.Module:
    return _conv(values, transposed=True)


def _linear(values: Arguments) -> nn.Module:
    weight = _tensor(values, "weight")
    return _with(nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta"), values, "weight", "bias")


def _batch_norm(values: Arguments) -> nn.Module:
    if values.get("training") or values.get("running_mean") is None:
        raise ValueError("statistics of the batch")
    rank = _tensor(values, "input").dim()
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    size = len(_tensor(values, "running_mean"))
    module = kind(size, eps=float(str(values["eps"])), momentum=float(str(values["momentum"])))
    return _with(module, values, "weight", "bias", "running_mean", "running_var")


def _group_norm(values: Arguments) -> nn.Module:
    channels = _tensor(values, "input").shape[1]
    module = nn.GroupNorm(int(str(values["num_groups"])), channels, eps=float(str(values["eps"])), affine=False)
    return _with(module, values, "weight", "bias")


def _layer_norm(values: Arguments) -> nn.Module:
    shape = list(_tuple(values["normalized_shape"]))
    return _with(nn.LayerNorm(shape, eps=float(str(values["eps"])), elementwise_affine=False), values, "weight", "bias")


def _prelu(values: Arguments) -> nn.Module:
    return _with(nn.PReLU(_tensor(values, "weight").numel()), values, "weight")


def _upsample(mode: str) -> Callable[[Arguments], nn.Module]:
    def make(values: Arguments) -> nn.Module:
        height, width = _tensor(values, next(iter(values))).shape[2:]
        aligned = values.get("align_corners")
        size, scales = values.get("output_size"), values.get("scale_factors")
        if scales is None and values.get("scales_h") is not None:
            scales = [values["scales_h"], values["scales_w"]]
        corner = {} if mode == "nearest" else {"align_corners": bool(aligned)}
        if scales is not None:
            return nn.Upsample(scale_factor=tuple(float(str(s)) for s in _list(scales)), mode=mode, **corner)
        rows, columns = _tuple(size)
        if rows % height == 0 and columns % width == 0 and not aligned:
            return nn.Upsample(scale_factor=(rows // height, columns // width), mode=mode, **corner)
        return nn.Upsample(size=(rows, columns), mode=mode, **corner)

    return make


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _simple(kind: Callable[..., nn.Module], *names: str) -> Callable[[Arguments], nn.Module]:
    """A module whose settings are the operator's arguments after the first, in the order of ``names``."""

    def make(values: Arguments) -> nn.Module:
        settings = [value for name, value in list(values.items())[1:]]
        return kind(**{name: value for name, value in zip(names, settings, strict=False) if value is not None})

    return make


_MAKERS: dict[str, Callable[[Arguments], nn.Module]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "convolution": _convolution, "linear": _linear, "batch_norm": _batch_norm, "group_norm": _group_norm,
    "layer_norm": _layer_norm, "prelu": _prelu, "relu": _simple(nn.ReLU), "tanh": _simple(nn.Tanh),
    "sigmoid": _simple(nn.Sigmoid), "leaky_relu": _simple(nn.LeakyReLU, "negative_slope"), "silu": _simple(nn.SiLU),
    "gelu": _simple(nn.GELU, "approximate"), "softplus": _simple(nn.Softplus, "beta", "threshold"),
    "hardtanh": _simple(nn.Hardtanh, "min_val", "max_val"), "pixel_shuffle": _simple(nn.PixelShuffle, "upscale_factor"),
    "pixel_unshuffle": _simple(nn.PixelUnshuffle, "downscale_factor"),
    "softmax": _simple(nn.Softmax, "dim"), "upsample_nearest2d": _upsample("nearest"),
    "upsample_bilinear2d": _upsample("bilinear"), "upsample_bicubic2d": _upsample("bicubic"),
}  # fmt: skip
