"""An ONNX file read, its operators and sizes checked, its weights in memory; nothing of it has run.

model = load(Path("gan.onnx"))           # onnx.ModelProto, without references to other files
tensor(model.graph.initializer[0])       # torch.Tensor
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect_adapters.graph.graph import first_line
from gandissect_adapters.graph.onnx.operators import SUPPORTED

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

MAX_BYTES = 2**31 - 1  # what protobuf itself holds
MAX_NODES = 50_000
MAX_INPUT = 2**24  # numbers in one sample
OLDEST_OPSET = 7  # before it, broadcasting was an attribute
MAX_SETTING = 100_000  # a stride, padding or size that no network has

_CONTROL = ("If", "Loop", "Scan")
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_FLOAT, _DOUBLE, _HALVES = 1, 11, (10, 16)  # TensorProto.DataType
_NUMERIC = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16))
_GRAPH_ATTRIBUTES = frozenset((5, 10, 11, 12, 13, 14))  # AttributeProto: graphs, sparse tensors, types


def load(path: Path) -> ModelProto:
    """The file's model, half precision turned into float32, weights of a file beside it read in.

    Raises:
        NotOpened: the ``onnx`` package is missing, the file is damaged, too large, too old, or uses what is not supported.
        UnsafeCheckpoint: it names files elsewhere, or operators of its own.
    """
    try:
        from onnx import ModelProto
    except ImportError as error:
        raise NotOpened(
            f"{path.name} is an ONNX graph; what reads it is missing: pip install 'gandissect[onnx]'"
        ) from error
    if path.stat().st_size > MAX_BYTES:
        raise NotOpened(
            f"{path.name} is larger than an ONNX graph can be (2 GiB); keep its weights in a file beside it"
        )
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf raises a kind of its own
        raise NotOpened(
            f"{path.name} is damaged or no ONNX graph: it cannot be parsed; save or copy it again"
        ) from error
    check(model, path)
    _bring_in(model, path)
    _use_float32(model)
    return model


def opset(model: ModelProto) -> int:
    """The version of the standard operators that the model is written in; 0 where it names none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def check(model: ModelProto, path: Path) -> None:
    """Nothing, or the error that says why the graph is not taken."""
    file, graph = path.name, model.graph
    if not graph.node or not graph.output:
        raise NotOpened(f"{file} holds no ONNX graph, or is cut short")
    if len(graph.node) > MAX_NODES:
        raise NotOpened(f"{file} has {len(graph.node):,} operators; up to {MAX_NODES:,} are taken")
    if opset(model) < OLDEST_OPSET:
        raise NotOpened(
            f"{file} is written in operator set {opset(model)}; convert it with onnx.version_converter to {OLDEST_OPSET} or later"
        )
    own = sorted({f"{n.domain}::{n.op_type}"[:60] for n in graph.node if n.domain not in ("", "ai.onnx")})
    if own:
        raise UnsafeCheckpoint(
            f"{file} uses {', '.join(own[:5])}, which is no standard operator of ONNX; export it with standard operators alone"
        )
    _check_operators(graph, file)
    if graph.sparse_initializer:
        raise NotOpened(f"{file} holds sparse tensors, which are not read; export it with dense weights")
    _check_tensors(graph, file)


def _check_operators(graph: GraphProto, file: str) -> None:
    used = {node.op_type for node in graph.node}
    control = sorted(used & set(_CONTROL))
    if control or any(a.type in _GRAPH_ATTRIBUTES for node in graph.node for a in node.attribute):
        raise NotOpened(
            f"{file} holds control flow ({', '.join(control) or 'inner graphs'}), which is not read; export it by tracing"
        )
    if noise := sorted(used & set(_RANDOM)):
        raise NotOpened(
            f"{file} draws random numbers ({', '.join(noise)}) that no other library repeats; export it with its noise fixed"
        )
    if unknown := sorted(used - SUPPORTED):
        shown = ", ".join(name[:40] for name in unknown[:5])
        raise NotOpened(f"{file} uses {shown}, which gandissect does not read; export it with commoner operators")
    for node in graph.node:
        for attribute in node.attribute:
            numbers = (*attribute.ints, attribute.i)
            if node.op_type not in ("Constant", "ConstantOfShape", "Cast") and _absurd(node, attribute.name, numbers):
                raise NotOpened(f"{file} gives {node.op_type} an absurd {attribute.name[:40]}; no network has that")


def _absurd(node: NodeProto, name: str, numbers: tuple[int, ...]) -> bool:
    if node.op_type == "Slice" and name in ("starts", "ends"):  # "to the end" is the largest integer
        return False
    return any(abs(number) > MAX_SETTING for number in numbers)


def _check_tensors(graph: GraphProto, file: str) -> None:
    for held in _tensors(graph):
        if held.data_type not in _NUMERIC:
            raise NotOpened(f"{file} holds a tensor of a kind that is not read (ONNX data type {held.data_type})")
        if any(size < 0 for size in held.dims):
            raise NotOpened(f"{file} is damaged: the tensor {held.name[:60]!r} has a negative size")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _bring_in(model: ModelProto, path: Path) -> None:
    """Replaces references to a file beside the model by that file's bytes.

    Raises:
        UnsafeCheckpoint: the reference leads anywhere else.
    """
    for held in _tensors(model.graph):
        if held.data_location != 1 and not held.external_data:  # TensorProto.EXTERNAL
            continue
        where = {entry.key: entry.value for entry in held.external_data}
        location = where.get("location", "")
        if not location or PurePosixPath(location).name != location or "\\" in location or location in (".", ".."):
            raise UnsafeCheckpoint(
                f"{path.name} keeps weights in {location[:80]!r}; only a file in its own folder is read, by its plain name"
            )
        held.raw_data = _outside_bytes(path, path.parent / location, where, held)
        held.ClearField("data_location")
        del held.external_data[:]


def _outside_bytes(path: Path, source: Path, where: dict[str, str], held: TensorProto) -> bytes:
    from onnx.helper import tensor_dtype_to_np_dtype

    if source.is_symlink() or not source.is_file():
        raise NotOpened(
            f"{path.name} keeps its weights in {source.name[:80]}, which is not beside it; copy both files together"
        )
    count = prod(held.dims) * np.dtype(tensor_dtype_to_np_dtype(held.data_type)).itemsize
    try:
        start = int(where.get("offset") or 0)
    except ValueError as error:
        raise NotOpened(f"{path.name} is damaged: it gives no number for where its weights are") from error
    if start < 0 or start + count > source.stat().st_size:
        raise NotOpened(f"{source.name[:80]} is cut short, or not the file that belongs to {path.name}")
    with source.open("rb") as file:
        file.seek(start)
        return file.read(count)


def tensor(held: TensorProto) -> Tensor:
    """A tensor of the file, on the CPU, sharing no memory with it.

    Raises:
        NotOpened: its bytes do not fit its shape.
    """
    from onnx import numpy_helper

    try:
        array = np.array(numpy_helper.to_array(held))
        if array.dtype.kind not in "fiub":  # bfloat16 is no type of numpy's own
            array = array.astype(np.float32)
        if array.dtype.kind == "u" and array.dtype != np.uint8:
            array = array.astype(np.int64)
        return torch.from_numpy(array)
    except (ValueError, TypeError) as error:
        raise NotOpened(f"the tensor {held.name[:60]!r} does not fit its shape ({first_line(error)})") from error


def _use_float32(model: ModelProto) -> None:
    """Half precision (and double, where an input is double) becomes float32 throughout, as latents are."""
    graph = model.graph
    doubles = any(entry.type.tensor_type.elem_type == _DOUBLE for entry in graph.input)
    changed = (*_HALVES, _DOUBLE) if doubles else _HALVES
    del graph.value_info[:]
    for held in _tensors(graph):
        if held.data_type in changed:
            values = tensor(held).to(torch.float32).numpy()
            del held.int32_data[:], held.double_data[:]
            held.data_type, held.raw_data = _FLOAT, values.tobytes()
    for entry in (*graph.input, *graph.output):
        if entry.type.tensor_type.elem_type in changed:
            entry.type.tensor_type.elem_type = _FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in changed:
                attribute.i = _FLOAT
