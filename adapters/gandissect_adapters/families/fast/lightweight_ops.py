"""Layers of the Lightweight GAN: gates that pool a whole map, and attention that is linear and local at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.errors import NotOpened
from gandissect_adapters.families.layers import MirrorBlur

_HEADS = 8
_HEAD_UNITS = 64
_WINDOW = 3


class Shuffled(nn.Module):
    """A 1×1 convolution to four times the units, which are then laid out as pixels (Shi et al. 2016)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(weight.shape[1], len(weight), 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, D, 2 H, 2 W]."""
        out: Tensor = self.net(x)
        return out


def _gate(tensors: Mapping[str, Tensor], path: str) -> nn.Sequential:
    first, last = tensors[f"{path}net.0.weight"], tensors[f"{path}net.2.weight"]
    squeeze, open_up = nn.Conv2d(first.shape[1], len(first), 1), nn.Conv2d(last.shape[1], len(last), 1)
    return nn.Sequential(squeeze, nn.LeakyReLU(0.1), open_up, nn.Sigmoid())


class GlobalContext(nn.Module):
    """A gate per unit out of a mean over all places that a softmax weighs (Cao et al. 2020, global context networks)."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        self.to_k = nn.Conv2d(tensors[f"{path}to_k.weight"].shape[1], 1, 1)
        self.net = _gate(tensors, path)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, D, 1, 1] in 0..1."""
        weights = self.to_k(x).flatten(2).softmax(-1)
        out: Tensor = self.net((x.flatten(2) * weights).sum(2)[:, :, None, None])
        return out


class FrequencyGate(nn.Module):
    """A gate per unit out of one cosine component of its map (Qin et al. 2021); the components are stored in the file."""

    dct_weights: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        self.register_buffer("dct_weights", torch.zeros(tensors[f"{path}dct_weights"].shape))
        self.net = _gate(tensors, path)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, D, 1, 1] in 0..1."""
        out: Tensor = self.net((x * self.dct_weights).sum((2, 3), keepdim=True))
        return out


class UnitNorm(nn.Module):
    """Every place normalised over its units: (x - mean) / sqrt(var + 1e-5), times ``g``, plus ``b``."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, units, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, units, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.g + self.b


class LocalAndLinear(nn.Module):
    """Two attentions side by side, eight heads of 64 units each, mixed by a 1×1 convolution.

    Linear attention over the whole map (Shen et al. 2021: the softmaxes of queries and keys are taken apart), and softmax
    attention of each place over its 3×3 neighbourhood, zeros beyond the border taking part.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        inner, units = tensors[f"{path}to_q.weight"].shape[:2]
        if inner != _HEADS * _HEAD_UNITS:
            raise NotOpened(f"'{path}to_q.weight' has {inner} rows, where {_HEADS} heads of {_HEAD_UNITS} are known")
        self.to_lin_q = nn.Conv2d(units, inner, 1, bias=False)
        self.to_lin_kv = Separable(units, 2 * inner)
        self.to_q = nn.Conv2d(units, inner, 1, bias=False)
        self.to_kv = nn.Conv2d(units, 2 * inner, 1, bias=False)
        self.nonlin = nn.GELU()
        self.to_out = nn.Conv2d(2 * inner, units, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        both = torch.cat([self.nonlin(self.linear(x)), self.local(x)], 1)
        out: Tensor = self.to_out(both)
        return out

    def linear(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, 512, H, W]: softmax(q) · (softmax(k)ᵀ v) / 8."""
        keys, values = self.to_lin_kv(x).chunk(2, dim=1)
        q, k, v = (_heads(part).flatten(3) for part in (self.to_lin_q(x), keys, values))  # [N, heads, 64, H W]
        context = torch.einsum("ahdn,ahen->ahde", k.softmax(3), v)
        out = torch.einsum("ahdn,ahde->ahen", q.softmax(2) * _HEAD_UNITS**-0.5, context)
        return out.reshape(len(x), -1, *x.shape[2:])

    def local(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, 512, H, W]: every place attends to its 3×3 neighbourhood."""
        k, v = (_windows(part) for part in self.to_kv(x).chunk(2, dim=1))  # [N, heads, 64, 9, H W]
        q = _heads(self.to_q(x)).flatten(3) * _HEAD_UNITS**-0.5
        weights = torch.einsum("ahdn,ahdjn->ahjn", q, k).softmax(2)
        return torch.einsum("ahjn,ahdjn->ahdn", weights, v).reshape(len(x), -1, *x.shape[2:])


def _heads(x: Tensor) -> Tensor:
    return x.reshape(len(x), _HEADS, _HEAD_UNITS, *x.shape[2:])


def _windows(x: Tensor) -> Tensor:
    near = F.unfold(x, _WINDOW, padding=_WINDOW // 2)  # [N, C 9, H W]
    return near.reshape(len(x), _HEADS, _HEAD_UNITS, _WINDOW**2, -1)


class Separable(nn.Module):
    """A 3×3 convolution of each unit by itself, then a 1×1 one, without biases."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        each = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.net = nn.Sequential(each, nn.Conv2d(inputs, units, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, units, H, W]."""
        out: Tensor = self.net(x)
        return out


class Attention(nn.Module):
    """Normalised, then both attentions; the caller adds the input."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        self.fn = LocalAndLinear(tensors, f"{path}fn.")
        self.norm = UnitNorm(tensors[f"{path}norm.g"].shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        out: Tensor = self.fn(self.norm(x))
        return out


class Branches(nn.Module):
    """Half the size in two ways, summed: pixels laid out as units and two convolutions; average pooling and one."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        lay, mix, short = (tensors[f"{path}branches.{name}.weight"] for name in ("0.1.1", "0.3", "1.2"))
        laid = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(lay.shape[1], len(lay), 1))
        long = nn.Sequential(
            MirrorBlur(), laid, nn.LeakyReLU(0.1), nn.Conv2d(mix.shape[1], len(mix), 3, padding=1), nn.LeakyReLU(0.1)
        )
        pooled = nn.Conv2d(short.shape[1], len(short), 1)
        self.branches = nn.ModuleList([long, nn.Sequential(MirrorBlur(), nn.AvgPool2d(2), pooled, nn.LeakyReLU(0.1))])

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, D, H / 2, W / 2]."""
        out: Tensor = self.branches[0](x) + self.branches[1](x)
        return out
