"""Parts of VQGAN's encoder and decoder, and the two ways to look up a codebook.

ResBlock(tensors, "decoder.mid.block_1", groups=32)(x)       # float32 [N, D, H, W]
Codebook(1024, 256)(z)                                       # nearest entries, gradient straight through
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect_adapters.families.images.image_input import rows

_EPS = 1e-6


def group_norm(tensors: Mapping[str, Tensor], name: str, groups: int) -> nn.GroupNorm:
    """The group norm called ``name``.

    Raises:
        NotOpened: its units cannot be divided into ``groups``.
    """
    width = rows(tensors, name)
    if width % groups:
        raise NotOpened(
            f"'{name}' normalises {width} units, which are no {groups} groups; say how many there are (norm_num_groups in "
            "config.json) with --assume groups=…"
        )
    return nn.GroupNorm(groups, width, eps=_EPS)


def conv(tensors: Mapping[str, Tensor], name: str, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """The convolution called ``name``, padded to keep the size unless said otherwise."""
    out, into, side, _ = tensors[f"{name}.weight"].shape
    return nn.Conv2d(into, out, side, stride, side // 2 if padding is None else padding)


class ResBlock(nn.Module):
    """x (through a 1×1 convolution where widths differ) + two normalised convolutions of it: [N, C, H, W] to [N, D, H, W]."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, groups: int) -> None:
        super().__init__()
        self.norm1 = group_norm(tensors, f"{name}.norm1", groups)
        self.conv1 = conv(tensors, f"{name}.conv1")
        self.norm2 = group_norm(tensors, f"{name}.norm2", groups)
        self.conv2 = conv(tensors, f"{name}.conv2")
        self.nonlinearity = nn.SiLU()
        shortcuts = ("nin_shortcut", "conv_shortcut")
        self.shortcut = next((part for part in shortcuts if f"{name}.{part}.weight" in tensors), "")
        if self.shortcut:
            self.add_module(self.shortcut, conv(tensors, f"{name}.{self.shortcut}"))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        change: Tensor = self.conv1(self.nonlinearity(self.norm1(x)))
        change = self.conv2(self.nonlinearity(self.norm2(change)))
        if self.shortcut:
            x = self.get_submodule(self.shortcut)(x)
        return x + change


class Attention(nn.Module):
    """x + what every place takes from all places, one head: [N, C, H, W] to the same (Wang et al. 2018, eq. 2).

    ``names`` are those of the norm, of query, key, value and of the layer behind them, which are 1×1 convolutions in some
    files and linear layers in others.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str, names: tuple[str, ...], groups: int) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], group_norm(tensors, f"{name}.{names[0]}", groups))
        for part in names[1:]:
            weight = tensors[f"{name}.{part}.weight"]
            out, into = weight.shape[:2]
            layer: nn.Module = nn.Conv2d(into, out, 1) if weight.dim() == 4 else nn.Linear(into, out)
            head, _, index = part.partition(".")
            self.add_module(head, nn.Sequential(layer) if index else layer)
        self.linear = tensors[f"{name}.{names[1]}.weight"].dim() == 2

    def _mix(self, part: str, places: Tensor) -> Tensor:
        """[N, H·W, C] through one of the four layers, whichever kind it is."""
        layer = self.get_submodule(part)
        mixed: Tensor = (
            layer(places) if self.linear else layer(places.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        )
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        norm, query, key, value, last = self.names
        places = self.get_submodule(norm)(x).flatten(2).transpose(1, 2)
        q, k, v = (self._mix(part, places) for part in (query, key, value))
        taken = torch.softmax(q @ k.transpose(1, 2) * q.shape[2] ** -0.5, dim=2) @ v
        return x + self._mix(last, taken).transpose(1, 2).reshape(x.shape)


class Downsample(nn.Module):
    """[N, C, H, W] to half the size: one column and row of zeros at the right and bottom, a convolution of stride 2."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.conv = conv(tensors, f"{name}.conv", stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """[N, C, H, W] to twice the size: nearest neighbours, a convolution."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.conv = conv(tensors, f"{name}.conv")

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Codebook(nn.Module):
    """[N, C, h, w] to the nearest of ``count`` entries at each place; gradients pass straight through (van den Oord et al. 2017)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, width)

    @property
    def count(self) -> int:
        """Number of entries."""
        return self.embedding.num_embeddings

    def indices(self, z: Tensor) -> Tensor:
        """int64 [N, h, w] of the nearest entries."""
        places = z.permute(0, 2, 3, 1).flatten(0, 2)
        book = self.embedding.weight
        distance = places.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * places @ book.t()
        return distance.argmin(1).reshape(len(z), *z.shape[2:])

    def entries(self, indices: Tensor) -> Tensor:
        """float32 [N, C, h, w] of int64 [N, h, w]."""
        found: Tensor = self.embedding(indices)
        return found.permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        return z + (self.entries(self.indices(z)) - z).detach()


class GumbelCodebook(nn.Module):
    """[N, C, h, w] to the likeliest entry at each place: VQGAN's Gumbel softmax without its noise (Jang et al. 2017)."""

    def __init__(self, count: int, width: int, into: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(count, width)
        self.proj = nn.Conv2d(into, count, 1)

    @property
    def count(self) -> int:
        """Number of entries."""
        return self.embed.num_embeddings

    def entries(self, indices: Tensor) -> Tensor:
        """float32 [N, C, h, w] of int64 [N, h, w]."""
        found: Tensor = self.embed(indices)
        return found.permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        logits = self.proj(z)
        soft = torch.einsum("nkhw,kc->nchw", torch.softmax(logits, 1), self.embed.weight)
        return soft + (self.entries(logits.argmax(1)) - soft).detach()
