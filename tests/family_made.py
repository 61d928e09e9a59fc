"""Networks of a few units with weights of their own, saved as files.

path = saved(seeded(DcGan()), tmp_path / "G.pth")
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn


def seeded(module: nn.Module) -> nn.Module:
    """``module`` in eval mode with weights and statistics that are all different from their defaults."""
    stream = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=stream) + 0.5)
        elif tensor.is_floating_point():
            spread = 1.0 / math.sqrt(max(1, tensor[0].numel())) if tensor.dim() > 1 else 0.2
            tensor.copy_(torch.randn(tensor.shape, generator=stream) * spread)
    return module.eval()


def saved(module: nn.Module, path: Path) -> Path:
    """Write the state dict of ``module`` to ``path``; the path."""
    torch.save(module.state_dict(), path)
    return path
