"""One hypothesis of how a chain runs: what stands between its layers, and each layer's geometry.

Step(up=2, activation="lrelu0.2", geometry=Geometry(1, 1))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = tuple[int, int]
Beyond = Literal["zeros", "reflect", "replicate", "circular"]
VECTOR: Size = (0, 0)  # the size of a tensor [N, D] that has no maps
SHUFFLE = "shuffle"
MODES = ("nearest", "bilinear", "bilinear-aligned")
"""Ways of upsampling; "aligned" is nn.UpsamplingBilinear2d, with the corners' centres kept."""
PADDINGS: tuple[Beyond, ...] = ("zeros", "reflect", "replicate", "circular")
"""What a convolution sees beyond the edge."""


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and output padding of a convolution, the same in height and width; ``beyond`` is one of ``PADDINGS``."""

    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    beyond: Beyond = "zeros"

    def __str__(self) -> str:
        extra = f", output padding {self.output_padding}" if self.output_padding else ""
        beyond = f" ({self.beyond})" if self.beyond != "zeros" else ""
        return f"stride {self.stride}, padding {self.padding}{beyond}{extra}"


@dataclass(frozen=True)
class Step:
    """One layer with parameters and what runs before it: activation, then view or flatten, then upsampling.

    ``view`` is the (C, H, W) that a vector becomes, ``flatten`` the other way round; ``out`` is the size afterwards. ``mode`` is
    one of ``MODES`` or "shuffle". ``dropout`` is the share of numbers that training dropped behind the activation; it leaves its
    mark on the statistics behind it and does nothing afterwards. ``norm`` says which norm an "affine" layer is ("instance",
    "layer", "group8").
    """

    geometry: Geometry = Geometry()
    activation: str = "none"
    view: tuple[int, int, int] | None = None
    flatten: bool = False
    up: int = 1
    mode: str = "nearest"
    out: Size = VECTOR
    dropout: float = 0.0
    norm: str = ""


@dataclass(frozen=True)
class Activation:
    """A nonlinearity: how it is called, computed and built, and how unusual it is (in units of log evidence)."""

    label: str
    apply: Callable[[Tensor], Tensor]
    build: Callable[[], nn.Module]
    in_generator: float
    in_discriminator: float


def _leaky(slope: float, rare: float, rare_d: float) -> Activation:
    label = f"LeakyReLU({slope})"
    return Activation(label, lambda x: F.leaky_relu(x, slope), lambda: nn.LeakyReLU(slope), rare, rare_d)


# The last two numbers: ReLU wins near-ties against LeakyReLU(0.01), which fits equally well (5 of 23 repos measured).
ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation("ReLU", torch.relu, nn.ReLU, 0.0, 0.5),
    "lrelu0.2": _leaky(0.2, 0.1, 0.0),
    "lrelu0.1": _leaky(0.1, 0.5, 0.4),
    "lrelu0.01": _leaky(0.01, 0.7, 0.5),
    "lrelu0.3": _leaky(0.3, 0.9, 0.8),
    "tanh": Activation("Tanh", torch.tanh, nn.Tanh, 0.8, 1.0),
    "elu": Activation("ELU", F.elu, nn.ELU, 0.8, 0.8),
    "selu": Activation("SELU", torch.selu, nn.SELU, 0.9, 0.9),
    "gelu": Activation("GELU", F.gelu, nn.GELU, 0.9, 0.9),
    "silu": Activation("SiLU", F.silu, nn.SiLU, 0.9, 0.9),
    "sigmoid": Activation("Sigmoid", torch.sigmoid, nn.Sigmoid, 1.2, 1.2),
}
RARER: dict[str, Activation] = {
    "mish": Activation("Mish", F.mish, nn.Mish, 1.2, 1.2),
    "hardswish": Activation("Hardswish", F.hardswish, nn.Hardswish, 1.4, 1.4),
    "softplus": Activation("Softplus", F.softplus, nn.Softplus, 1.4, 1.4),
}
"""Tried only where one of ``ACTIVATIONS`` that is like them fits."""
ALIASES = {"leakyrelu": "lrelu0.01", "lrelu": "lrelu0.2", "leakyrelu0.2": "lrelu0.2", "leakyrelu0.01": "lrelu0.01",
           "leakyrelu0.1": "lrelu0.1", "leakyrelu0.3": "lrelu0.3", "swish": "silu", "linear": "none"}  # fmt: skip


def activation(name: str) -> Activation:
    """The activation called ``name`` (``relu``, ``lrelu0.2``, ``LeakyReLU(0.2)`` …).

    Raises:
        KeyError: there is none.
    """
    key = name.lower().replace("(", "").replace(")", "").replace(" ", "").replace("_", "")
    key = ALIASES.get(key, key)
    if key not in ACTIVATIONS and key.startswith(("lrelu", "leakyrelu")):
        slope = float(key.removeprefix("leakyrelu").removeprefix("lrelu"))
        return _leaky(slope, 1.0, 1.0)
    return RARER[key] if key in RARER else ACTIVATIONS[key]


def activate(name: str, x: Tensor) -> Tensor:
    """``x`` through the activation called ``name``; unchanged for "none"."""
    return x if name == "none" else activation(name).apply(x)
