"""ONNX nodes that do exactly what one aten operator does, so that they become torch's own layers.

    lower(node, source)                  # [Step("prim::Constant", ...), Step("aten::leaky_relu", ...)] or None

Every other node runs as a step ``onnx::Name`` (see ``operators.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from gandissect_adapters.graph.onnx.layers import window
from gandissect_adapters.graph.onnx.resize import as_torch
from gandissect_adapters.graph.onnx.settings import Settings
from gandissect_adapters.graph.program import Step


@dataclass
class OnnxNode:
    """A node of the file: what it reads and fills by name, and the submodule it ran in as far as the file says."""

    op: str
    inputs: list[str]
    outputs: list[str]
    settings: Settings
    path: str = ""
    kind: str = ""
    layer: str = ""

    def given(self, position: int) -> str:
        """The name of an input, ``""`` where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""


class Source(Protocol):
    """Where the operands of a node come from."""

    def constant(self, name: str) -> Tensor | None:
        """The value of an input where the file holds it."""

    def slot(self, node: OnnxNode, position: int, steps: list[Step]) -> int:
        """The slot of an input; steps that fetch a constant are appended."""

    def shaped(self, node: OnnxNode, position: int, value: Tensor) -> int | None:
        """The slot of a stored weight in another layout; None where other nodes use it too."""

    def plain(self, value: object, steps: list[Step]) -> int:
        """The slot of a number, list or None."""


@dataclass
class _Call:
    """The arguments of one aten operator, collected in the order of its schema."""

    node: OnnxNode
    source: Source
    steps: list[Step] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def input(self, position: int, name: str) -> None:
        self._add(self.source.slot(self.node, position, self.steps), name)

    def plain(self, value: object, name: str) -> None:
        self._add(self.source.plain(value, self.steps), name)

    def _add(self, slot: int, name: str) -> None:
        self.slots.append(slot)
        self.names.append(name)

    def weight(self, position: int, name: str, value: Tensor) -> bool:
        slot = self.source.shaped(self.node, position, value)
        if slot is not None:
            self._add(slot, name)
        return slot is not None

    def done(self, op: str, overload: str = "") -> list[Step]:
        self.steps.append(Step(f"aten::{op}", tuple(self.slots), (-1,), overload, names=tuple(self.names)))
        return self.steps


def lower(node: OnnxNode, source: Source) -> list[Step] | None:
    """The steps, the last of which fills slot -1; None where no aten operator is the same for certain."""
    maker = _MAKERS.get(node.op)
    return maker(_Call(node, source)) if maker is not None else None


def _simple(op: str, **numbers: tuple[str, float]) -> Callable[[_Call], list[Step]]:
    def make(call: _Call) -> list[Step]:
        call.input(0, "input")
        for name, (attribute, default) in numbers.items():
            call.plain(call.node.settings.number(attribute, default), name)
        return call.done(op)

    return make


def _convolution(call: _Call, *, transposed: bool = False) -> list[Step] | None:
    node, settings = call.node, call.node.settings
    weight = call.source.constant(node.given(1))
    if weight is None or settings.text("auto_pad", "NOTSET") != "NOTSET" or settings.integers("output_shape"):
        return None
    rank = weight.dim() - 2
    pads = window(settings, [], weight.shape[2:])
    if pads[:rank] != pads[rank:] or any(pad < 0 for pad in pads):
        return None
    call.input(0, "input")
    call.input(1, "weight")
    call.input(2, "bias")
    call.plain(settings.integers("strides") or [1] * rank, "stride")
    call.plain(pads[:rank], "padding")
    call.plain(settings.integers("dilations") or [1] * rank, "dilation")
    call.plain(transposed, "transposed")
    call.plain(settings.integers("output_padding") or [0] * rank, "output_padding")
    call.plain(settings.integer("group", 1), "groups")
    return call.done("convolution")


def _transposed(call: _Call) -> list[Step] | None:
    return _convolution(call, transposed=True)


def _linear(call: _Call) -> list[Step] | None:
    """Gemm, MatMul by a stored matrix, and MatMul with its sum, as a matrix [out, in] and a bias."""
    node, settings = call.node, call.node.settings
    matrix, bias = call.source.constant(node.given(1)), call.source.constant(node.given(2))
    if matrix is None or matrix.dim() != 2 or not matrix.is_floating_point() or settings.integer("transA", 0):
        return None
    if settings.number("alpha", 1.0) != 1.0 or settings.number("beta", 1.0) != 1.0:
        return None
    flipped = not settings.integer("transB", 0)
    out = matrix.shape[1 if flipped else 0]
    if node.given(2) and (bias is None or tuple(bias.shape) not in ((out,), (1, out))):
        return None
    call.input(0, "input")
    if not flipped:
        call.input(1, "weight")
    elif not call.weight(1, "weight", matrix.t().contiguous()):
        return None
    if bias is not None and bias.dim() == 2:
        if not call.weight(2, "bias", bias[0]):
            return None
    else:
        call.input(2, "bias")
    return call.done("linear")


def _batch_norm(call: _Call) -> list[Step] | None:
    if call.node.settings.integer("training_mode", 0):
        return None
    for position, name in enumerate(("input", "weight", "bias", "running_mean", "running_var")):
        call.input(position, name)
    call.plain(False, "training")
    call.plain(1.0 - call.node.settings.number("momentum", 0.9), "momentum")
    call.plain(call.node.settings.number("epsilon", 1e-5), "eps")
    call.plain(False, "cudnn_enabled")
    return call.done("batch_norm")


def _layer_norm(call: _Call) -> list[Step] | None:
    scale, axis = call.source.constant(call.node.given(1)), call.node.settings.integer("axis", -1)
    if scale is None or axis >= 0 or scale.dim() != -axis:
        return None
    call.input(0, "input")
    call.plain(list(scale.shape), "normalized_shape")
    call.input(1, "weight")
    call.input(2, "bias")
    call.plain(call.node.settings.number("epsilon", 1e-5), "eps")
    return call.done("layer_norm")


def _prelu(call: _Call) -> list[Step] | None:
    slope = call.source.constant(call.node.given(1))
    if slope is None or not (slope.numel() == 1 or (slope.dim() == 3 and slope.shape[0] == slope.numel())):
        return None
    call.input(0, "input")
    return call.done("prelu") if call.weight(1, "weight", slope.reshape(-1)) else None


def _softmax(call: _Call) -> list[Step] | None:
    if call.node.settings.opset < 13:
        return None
    call.input(0, "input")
    call.plain(call.node.settings.integer("axis", -1), "dim")
    return call.done("softmax", "int")


def _gelu(call: _Call) -> list[Step]:
    call.input(0, "input")
    call.plain(call.node.settings.text("approximate", "none"), "approximate")
    return call.done("gelu")


def _upsample(call: _Call) -> list[Step] | None:
    node, settings = call.node, call.node.settings
    scales = call.source.constant(node.given(1 if node.op == "Upsample" or settings.opset < 11 else 2))
    given = settings.numbers("scales") if scales is None else scales.reshape(-1).tolist()
    found = as_torch(settings, given) if given and not node.given(3) else None
    if found is None:
        return None
    op, factors = found
    call.input(0, "input")
    call.plain(None, "output_size")
    if op != "upsample_nearest2d":
        call.plain(False, "align_corners")
    call.plain(factors, "scale_factors")
    return call.done(op, "vec")


def _shuffle(call: _Call) -> list[Step] | None:
    if call.node.settings.text("mode", "DCR") != "CRD":
        return None
    call.input(0, "input")
    call.plain(call.node.settings.integer("blocksize", 1), "upscale_factor")
    return call.done("pixel_shuffle")


def _embedding(call: _Call) -> list[Step] | None:
    """Rows of a stored matrix, chosen by something that is computed."""
    node = call.node
    matrix = call.source.constant(node.given(0))
    if matrix is None or matrix.dim() != 2 or not matrix.is_floating_point() or node.settings.integer("axis", 0):
        return None
    if call.source.constant(node.given(1)) is not None:
        return None
    call.input(0, "weight")
    call.input(1, "indices")
    return call.done("embedding")


_MAKERS: dict[str, Callable[[_Call], list[Step] | None]] = {
    "Conv": _convolution, "ConvTranspose": _transposed, "Gemm": _linear, "MatMul": _linear,
    "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm, "PRelu": _prelu, "Softmax": _softmax,
    "Gelu": _gelu, "Upsample": _upsample, "Resize": _upsample, "DepthToSpace": _shuffle, "Gather": _embedding,
    "Relu": _simple("relu"), "Tanh": _simple("tanh"), "Sigmoid": _simple("sigmoid"),
    "LeakyRelu": _simple("leaky_relu", negative_slope=("alpha", 0.01)),
}  # fmt: skip
