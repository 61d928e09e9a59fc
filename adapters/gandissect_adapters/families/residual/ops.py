"""The self-attention that residual GANs share, under the names of each codebase.

attention = SelfAttention(64, pooled=True)                   # theta, phi, g, o and gamma: BigGAN, mimicry
attention(x)                                                 # float32 [N, 64, H, W]
attention = SelfAttention(64, names=QUERY_KEY_VALUE, bias=True)  # query_conv, key_conv, value_conv and gamma
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class AttentionNames:
    """What the parts of a self-attention block are called; ``out`` is "" where values are not mixed afterwards."""

    query: str = "theta"
    key: str = "phi"
    value: str = "g"
    out: str = "o"
    gate: str = "gamma"


THETA_PHI = AttentionNames()
"""BigGAN-PyTorch and mimicry."""
CONV1X1 = AttentionNames("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn", "sigma")
"""PyTorch-StudioGAN."""
QUERY_KEY_VALUE = AttentionNames("query_conv", "key_conv", "value_conv", "")
"""heykeetae's SAGAN and what grew out of it."""


class SelfAttention(nn.Module):
    """x + gate · attention(x): every place takes from all places, by how alike query and key are.

    Args:
        channels: C of the map [N, C, H, W]; queries and keys have C / 8.
        pooled: keys and values are taken from a map of half the side (largest of 2×2); H and W are even then.
        names: what the 1×1 convolutions and the gate are called.
        bias: the convolutions have biases.
        gate_shape: () or (1,), as the file stores the gate.
        narrow: units of queries and keys, C / 8 where not said.

    References:
        Zhang et al. 2019 (Self-Attention GAN), eqs. 1 to 3; the pooled form with an output convolution is that of their
        code and of Brock et al. 2019 (BigGAN).
    """

    def __init__(
        self,
        channels: int,
        *,
        pooled: bool = False,
        names: AttentionNames = THETA_PHI,
        bias: bool = False,
        gate_shape: tuple[int, ...] = (),
        narrow: int | None = None,
    ) -> None:
        super().__init__()
        self.pooled, self.names = pooled, names
        inner = narrow or channels // 8
        wide = channels // 2 if names.out else channels
        self.add_module(names.query, nn.Conv2d(channels, inner, 1, bias=bias))
        self.add_module(names.key, nn.Conv2d(channels, inner, 1, bias=bias))
        self.add_module(names.value, nn.Conv2d(channels, wide, 1, bias=bias))
        if names.out:
            self.add_module(names.out, nn.Conv2d(wide, channels, 1, bias=bias))
        self.register_parameter(names.gate, nn.Parameter(torch.zeros(gate_shape)))
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W], the same shape as ``x``."""
        n, _, height, width = x.shape
        key, value = self.get_submodule(self.names.key)(x), self.get_submodule(self.names.value)(x)
        if self.pooled:
            key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
        query = self.get_submodule(self.names.query)(x)
        weights = self.softmax(query.flatten(2).transpose(1, 2) @ key.flatten(2))  # [N, HW, places of keys], eq. 1
        mixed = (value.flatten(2) @ weights.transpose(1, 2)).reshape(n, -1, height, width)
        if self.names.out:
            mixed = self.get_submodule(self.names.out)(mixed)
        attended: Tensor = x + self.get_parameter(self.names.gate) * mixed  # eq. 3
        return attended
