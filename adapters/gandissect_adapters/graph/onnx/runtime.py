"""An ONNX model as ONNX Runtime runs it, to compare with; the library is used where it is installed.

run, reason = original(model, ["z"])     # run(z) -> tuple of tensors, or None and why
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto


class _Session(Protocol):
    def get_inputs(self) -> list[object]: ...

    def run(
        self, outputs: None, given: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
    ) -> list[object]: ...


def original(model: ModelProto, inputs: Sequence[str]) -> tuple[Callable[..., object] | None, str]:
    """The function that runs the model on tensors in the order of ``inputs``, or why there is none.

    The model is given to the library on the first call: after torch has run it within its limits.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None, "onnxruntime is not installed"
    sessions: list[_Session] = []

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        if not sessions:
            sessions.append(_session(model))
        kinds = {str(getattr(entry, "name", "")): str(getattr(entry, "type", "")) for entry in sessions[0].get_inputs()}
        integers = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
        given = {
            name: t.detach().cpu().numpy().astype(integers.get(kinds[name], np.float32))
            for name, t in zip(inputs, tensors, strict=True)
        }
        return tuple(torch.from_numpy(array) for array in sessions[0].run(None, given))

    return run, ""


def _session(model: ModelProto) -> _Session:
    """One thread, no rewriting of the graph, no messages."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    content = model.SerializeToString()
    made = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=False)
    return cast("_Session", made)
