"""Self-attention blocks in a chain of layers: found by the names of their parts, rebuilt and run as one layer.

attention_blocks(tensors)               # {"net.2": {"gamma": …, "query_conv.weight": …, …}}
attended(parts, x)                      # float32 [N, C, H, W]
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gandissect_adapters.families.residual.ops import QUERY_KEY_VALUE, THETA_PHI, AttentionNames, SelfAttention

# What the parts are called, and whether keys and values are pooled; other names do not say how they are used.
_LAYOUTS: tuple[tuple[AttentionNames, bool], ...] = ((QUERY_KEY_VALUE, False), (THETA_PHI, True))
_PLACES = 2**25  # pairs of places that are looked at together


def attention_blocks(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Path of every self-attention block that can be rebuilt -> its tensors by their names in it."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in tensors:
        path, _, field = name.rpartition(".")
        if field == "gamma" and path:
            parts = {key.removeprefix(f"{path}."): t for key, t in tensors.items() if key.startswith(f"{path}.")}
            if _layout(parts) is not None:
                found[path] = parts
    return found


def units_of(parts: Mapping[str, Tensor]) -> int:
    """Units that go into a block, and come out of it."""
    return next(int(tensor.shape[1]) for tensor in parts.values() if tensor.dim() == 4)


def is_pooled(parts: Mapping[str, Tensor]) -> bool:
    """Whether the block takes keys and values from a map of half the side."""
    layout = _layout(parts)
    return layout is not None and layout[1]


def built(parts: Mapping[str, Tensor]) -> SelfAttention:
    """The block with the file's tensors in it."""
    layout = _layout(parts)
    assert layout is not None
    names, pooled = layout
    narrow = len(parts[f"{names.query}.weight"])
    with torch.device("meta"):
        block = SelfAttention(
            units_of(parts), pooled=pooled, names=names, bias=f"{names.query}.bias" in parts, narrow=narrow,
            gate_shape=tuple(parts[names.gate].shape),
        )  # fmt: skip
    block.load_state_dict({name: tensor.clone() for name, tensor in parts.items()}, assign=True)
    return block


def attended(parts: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """``x`` [N, C, H, W] through the block, so many samples at a time that all pairs of places fit in memory."""
    block = built(parts)
    step = max(1, _PLACES // (x.shape[2] * x.shape[3]) ** 2)
    return torch.cat([block(part) for part in torch.split(x, step)])


def _layout(parts: Mapping[str, Tensor]) -> tuple[AttentionNames, bool] | None:
    """The names and pooling of a block whose tensors have the shapes of one."""
    for names, pooled in _LAYOUTS:
        modules = [names.query, names.key, names.value, *([names.out] if names.out else [])]
        weights = [f"{module}.weight" for module in modules]
        biases = [f"{module}.bias" for module in modules]
        if set(parts) not in ({names.gate, *weights}, {names.gate, *weights, *biases}):
            continue
        shapes = [tuple(parts[weight].shape) for weight in weights]
        units = shapes[0][1] if len(shapes[0]) == 4 else 0
        narrow = shapes[0][0]
        wide = units // 2 if names.out else units
        wanted = [(narrow, units, 1, 1), (narrow, units, 1, 1), (wide, units, 1, 1), (units, wide, 1, 1)]
        if shapes == wanted[: len(shapes)] and parts[names.gate].numel() == 1:
            return names, pooled
    return None
