"""Where an ONNX node belongs in a tree of modules: names that PyTorch's exporters left in the file, made readable.

scope("/layer1/layer1.0/conv/Conv", {})  # ("layer1.0.conv", "")
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from gandissect_adapters.graph.compiler import kind_of
from gandissect_adapters.graph.onnx.lowering import OnnxNode
from gandissect_adapters.graph.operators import READABLE
from gandissect_adapters.graph.placing import inner_paths

MAX_DEPTH = 12
_QUOTED = re.compile(r"'([^']{0,200})'")
_ODD = re.compile(r"\W")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_LAYER_NAMES = {
    "Conv": "conv", "ConvTranspose": "conv_transpose", "Gemm": "linear", "MatMul": "matmul", "BatchNormalization": "batch_norm",
    "InstanceNormalization": "instance_norm", "LayerNormalization": "layer_norm", "GroupNormalization": "group_norm",
    "RMSNormalization": "rms_norm", "Relu": "relu", "LeakyRelu": "leaky_relu", "PRelu": "prelu", "Elu": "elu", "Selu": "selu",
    "Celu": "celu", "Gelu": "gelu", "Mish": "mish", "Swish": "silu", "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softmax": "softmax",
    "LogSoftmax": "log_softmax", "Clip": "hardtanh", "Resize": "interpolate", "Upsample": "interpolate",
    "DepthToSpace": "pixel_shuffle", "SpaceToDepth": "pixel_unshuffle", "MaxPool": "max_pool2d", "AveragePool": "avg_pool2d",
    "GlobalAveragePool": "adaptive_avg_pool2d", "GlobalMaxPool": "adaptive_max_pool2d", "Add": "add", "Sub": "sub",
    "Mul": "mul", "Div": "div", "Concat": "cat", "Gather": "embedding", "Einsum": "einsum", "Sum": "add",
}  # fmt: skip
_ROLES = {
    "Conv": {1: "weight", 2: "bias"}, "ConvTranspose": {1: "weight", 2: "bias"}, "Gemm": {1: "weight", 2: "bias"},
    "MatMul": {0: "weight", 1: "weight", 2: "bias"}, "Gather": {0: "weight"}, "PRelu": {1: "weight"},
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
    **{f"{name}Normalization": {1: "weight", 2: "bias"} for name in ("Instance", "Layer", "Group", "RMS")},
}  # fmt: skip
WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_LINES = frozenset(("add", "sub", "mul", "div", "cat", "embedding"))


def role(op: str, position: int) -> str:
    """What an input of an operator is called where it is stored: ``weight``, ``running_mean``, ``constant``."""
    return _ROLES.get(op, {}).get(position, "constant")


def layer_name(node: OnnxNode, rank: int) -> str:
    """What the result is called where it becomes a layer: ``conv2d``; ``rank`` is the number of axes of the maps."""
    name = _LAYER_NAMES.get(node.op, "")
    return f"{name}{rank}d" if name in ("conv", "conv_transpose") else name


def scope(name: str, metadata: Mapping[str, str]) -> tuple[str, str]:
    """The path of the module that a node ran in, and its class where the file names it.

    Args:
        name: of the node, ``/main/main.0/Conv`` from the exporter that traces.
        metadata: of the node; the newer exporter keeps paths and classes there.
    """
    paths = _QUOTED.findall(metadata.get("pkg.torch.onnx.name_scopes", ""))
    if len(paths) > 1:
        classes = _QUOTED.findall(metadata.get("pkg.torch.onnx.class_hierarchy", ""))
        kind = classes[-2].rpartition(".")[2] if len(classes) == len(paths) else ""
        return dotted(paths[-2].split(".")) if paths[-2] else "", _ODD.sub("_", kind)[:60]
    if not name.startswith("/"):
        return "", ""
    return dotted(_traced(name.strip("/").split("/")[:-1])), ""


def _traced(parts: Iterable[str]) -> list[str]:
    """``[main, main.0]`` is one step, not two: each part repeats the name of the container it is in."""
    found: list[str] = []
    held = ""
    for part in parts:
        if held and part.startswith(f"{held}."):
            found += part[len(held) + 1 :].split(".")
        else:
            found += part.split(".")
        held = part
    return found


def dotted(parts: Sequence[str]) -> str:
    """Parts as a dotted name of submodules, odd characters replaced and names that modules use themselves avoided."""
    kept = [part for part in (_ODD.sub("_", part)[:60] for part in parts if part) if part.strip("_")]
    return ".".join(f"{part}_" if part in _TAKEN else part for part in kept[:MAX_DEPTH])


_TAKEN = frozenset((*dir(nn.Module()), "graph_programs", "graph_values", "graph_shared", "graph_is_root", "graph_run",
                    "graph_attribute"))  # fmt: skip


def owner(name: str) -> str:
    """``main.0`` for the stored tensor ``main.0.weight``; nothing for names that are not of PyTorch's kind."""
    return dotted(name.split(".")[:-1]) if _DOTTED.fullmatch(name) and len(name) < 300 else ""


def assign(nodes: Sequence[OnnxNode], layered: Sequence[bool]) -> None:
    """Sets every node's path so that each readable result is a layer: nodes that share a module's path run in it together.

    Args:
        nodes: with their scopes as paths and layer names set.
        layered: whether a node's result is data, not a shape that is computed.
    """
    inner = inner_paths({node.path for node in nodes}) | _crowded(nodes)
    taken = {node.path for node in nodes}
    parents = {".".join(path.split(".")[:count]) for path in taken for count in range(len(path.split(".")))}
    counts: Counter[tuple[str, str]] = Counter()
    for node, readable in zip(nodes, layered, strict=True):
        if node.path not in inner or not readable or node.layer not in READABLE:
            continue
        path = owner(node.given(1)) if not node.path and node.op in _ROLES else ""
        while not path or path in taken or path in parents:
            counts[node.path, node.layer] += 1
            base = f"{node.layer}_{counts[node.path, node.layer]}"
            path = f"{node.path}.{base}" if node.path else base
        taken.add(path)
        node.path, node.kind = path, kind_of(node.layer)


def _crowded(nodes: Sequence[OnnxNode]) -> set[str]:
    """Paths of modules that do several layers' work in one forward."""
    found: dict[str, list[OnnxNode]] = {}
    for node in nodes:
        found.setdefault(node.path, []).append(node)
    crowded = set()
    for path, group in found.items():
        weighted = sum(node.op in WEIGHTED for node in group)
        others = sum(node.layer in READABLE and node.layer not in _LINES and node.op not in WEIGHTED for node in group)
        if weighted > 1 or (weighted and others):
            crowded.add(path)
    return crowded
