"""ONNX operators in torch give what ONNX's own reference implementation gives, in every version that they are read in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gandissect_adapters.graph.onnx import graph as onnx_graph
from gandissect_adapters.graph.onnx.operators import SUPPORTED

onnx = pytest.importorskip("onnx")

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((2, 4, 6, 5)).astype("float32")
VECTOR = RANDOM.standard_normal((2, 4)).astype("float32")
SCALES = np.array([1, 1, 1.5, 2.2], "float32")


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype("float32")


def ints(*values: int) -> np.ndarray:
    return np.array(values, "int64")


def case(op: str, *constants: np.ndarray | None, x: np.ndarray = X, opset: int = 17, **attributes: object) -> object:
    words = "-".join(str(value) for value in attributes.values() if not isinstance(value, float))[:50]
    return pytest.param(op, x, constants, opset, attributes, id=f"{op}-{opset}-{words}")


RESIZES = [
    case("Resize", None, SCALES, mode=mode, coordinate_transformation_mode=where, **more)
    for mode in ("nearest", "linear", "cubic")
    for where in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    for more in (({"nearest_mode": "floor"}, {"nearest_mode": "round_prefer_ceil"}) if mode == "nearest" else ({},))
]
CASES = [
    *RESIZES,
    case("Resize", None, np.array([1, 1, 2, 2], "float32"), mode="nearest"),
    case("Resize", None, np.array([1, 1, 3, 2], "float32"), mode="linear"),
    case("Resize", None, np.array([1, 1, 2, 2], "float32"), mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    case("Resize", None, None, ints(2, 4, 3, 9), mode="linear"),
    case("Resize", None, None, ints(9, 7), mode="cubic", axes=[2, 3], opset=19),
    case("Conv", floats(3, 4, 3, 3), floats(3), pads=[1, 1, 1, 1], strides=[2, 1]),
    case("Conv", floats(4, 2, 3, 2), pads=[0, 1, 2, 1], group=2, dilations=[1, 2]),
    case("Conv", floats(3, 4, 3, 4), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", floats(3, 4, 3, 4), auto_pad="SAME_LOWER"),
    case("ConvTranspose", floats(4, 3, 4, 4), floats(3), strides=[2, 2], pads=[1, 1, 1, 1]),
    case("ConvTranspose", floats(4, 3, 3, 3), floats(3), strides=[2, 2], pads=[1, 0, 0, 1]),
    case("Gemm", floats(3, 4), floats(3), x=VECTOR, transB=1),
    case("Gemm", floats(4, 3), floats(1, 3), x=VECTOR),
    case("Gemm", floats(2, 3), x=VECTOR, transA=1, alpha=0.5),
    case("MatMul", floats(5, 3)),
    case("BatchNormalization", floats(4), floats(4), floats(4), np.abs(floats(4)), epsilon=0.01),
    case("InstanceNormalization", floats(4), floats(4), epsilon=0.01),
    case("LayerNormalization", floats(5), floats(5), axis=-1),
    case("LayerNormalization", floats(6, 5), axis=2),
    case("GroupNormalization", floats(4), floats(4), num_groups=2, opset=21),
    case("LpNormalization", axis=1, p=2),
    *[case(op, auto_pad="SAME_UPPER", kernel_shape=[3, 2], strides=[2, 2]) for op in ("MaxPool", "AveragePool")],
    *[case(op, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1) for op in ("AveragePool",)],
    case("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 2]),
    case("AveragePool", kernel_shape=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1),
    case("GlobalAveragePool"), case("GlobalMaxPool"),
    *[case("Pad", ints(0, 0, 2, 1, 0, 0, 1, 3), mode=mode) for mode in ("constant", "reflect", "edge")],
    case("Pad", ints(1, 2), np.array(0.5, "float32"), ints(3), opset=18),
    *[case(op, axes=[1, -1], keepdims=0) for op in ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceProd", "ReduceL1")],
    case("ReduceSum", ints(2), keepdims=1), case("ReduceMean", ints(2, 3), opset=18),
    case("Softmax", axis=1), case("LogSoftmax", axis=-1),
    case("PRelu", floats(4, 1, 1)), case("PRelu", floats(5)), case("Clip", np.array(-0.5, "float32")),
    *[case(op) for op in ("Relu", "Tanh", "Sigmoid", "Softplus", "Erf", "Elu", "Selu", "HardSigmoid", "HardSwish", "Celu")],
    case("LeakyRelu", alpha=0.2), case("Gelu", approximate="tanh", opset=20), case("Gelu", opset=20),
    *[case(op, floats(4, 1, 5)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Greater")],
    case("Pow", np.array(2, "float32")), case("Einsum", floats(2, 4, 5), equation="bchw,bcw->bch"),
    case("Reshape", ints(0, -1, 5)), case("Flatten", axis=2), case("Transpose", perm=[0, 3, 1, 2]), case("Transpose"),
    case("Concat", floats(2, 1, 6, 5), axis=1), case("Unsqueeze", ints(0, -1)), case("Expand", ints(3, 1, 4, 1, 1)),
    case("Slice", ints(-1, 1), ints(-100, 4), ints(2, 3), ints(-2, 1)), case("Slice", starts=[1], ends=[99], axes=[1], opset=9),
    case("Split", ints(1, 3), axis=1), case("Tile", ints(1, 2, 1, 3)), case("Gather", ints(1, -1, 0), axis=2),
    case("DepthToSpace", blocksize=2, mode="DCR"), case("DepthToSpace", blocksize=2, mode="CRD"),
    case("SpaceToDepth", blocksize=2, x=floats(1, 3, 4, 6)), case("Trilu", upper=0), case("CumSum", np.array(1, "int64")),
    case("Cast", to=7), case("Shape", start=1), case("ArgMax", axis=1),
]  # fmt: skip
RUNTIME_CASES = [  # the reference implementation departs from the schemas here
    case("ConvTranspose", floats(4, 2, 3, 3), strides=[2, 3], output_padding=[1, 2], group=2),
    case("LRN", size=3), case("Softmax", axis=2, opset=11), case("Pad", ints(0, 0, -1, 0, 0, 0, 2, -2)),
    *[case(op, kernel_shape=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1, strides=[2, 2]) for op in ("MaxPool", "AveragePool")],
    case("Resize", None, SCALES, mode="cubic", coordinate_transformation_mode="half_pixel", exclude_outside=1),
]  # fmt: skip


def single(op: str, x: np.ndarray, constants: tuple, opset: int, attributes: dict) -> onnx.ModelProto:
    """A graph of one operator on ``x``, its other inputs held."""
    helper = onnx.helper
    names = ["x", *(f"c{i}" if held is not None else "" for i, held in enumerate(constants))]
    outputs = ["y", "y2"] if op == "Split" else ["y"]
    kinds = {"Cast": 7, "Shape": 7, "ArgMax": 7, "Greater": 9}
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(name, kinds.get(op, 1), None) for name in outputs],
        [onnx.numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants) if c is not None],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def check(model: onnx.ModelProto, x: np.ndarray, truth: list[np.ndarray], path: Path) -> None:
    path.write_bytes(model.SerializeToString())
    with torch.no_grad():
        found = onnx_graph.read(path).module.graph_run("forward", (torch.from_numpy(x),))
    for mine, other in zip(found if isinstance(found, tuple) else (found,), truth, strict=True):
        np.testing.assert_allclose(mine.numpy(), other, atol=2e-5, rtol=1e-4)
        assert mine.shape == other.shape


@pytest.mark.parametrize(("op", "x", "constants", "opset", "attributes"), CASES)
def test_an_operator_equals_the_reference(
    op: str, x: np.ndarray, constants: tuple, opset: int, attributes: dict, tmp_path: Path
) -> None:
    from onnx.reference import ReferenceEvaluator

    model = single(op, x, constants, opset, attributes)
    check(model, x, ReferenceEvaluator(model).run(None, {"x": x}), tmp_path / "one.onnx")


@pytest.mark.parametrize(("op", "x", "constants", "opset", "attributes"), RUNTIME_CASES)
def test_an_operator_equals_onnx_runtime(
    op: str, x: np.ndarray, constants: tuple, opset: int, attributes: dict, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = single(op, x, constants, opset, attributes)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    check(model, x, session.run(None, {"x": x}), tmp_path / "one.onnx")


def test_no_operator_of_the_list_draws_or_branches() -> None:
    assert not {"If", "Loop", "Scan", "RandomNormal", "RandomNormalLike", "Bernoulli", "SequenceMap"} & SUPPORTED
    schemas = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert SUPPORTED - {"Swish"} <= schemas | {"Upsample"}
