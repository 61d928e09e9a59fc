"""What progressive GANs share: equalised layers, pixel norm, minibatch standard deviation, fading, and facts that weights show.

conv = EqualConv2d(512, 256, 3, padding=1)     # weight * sqrt(2 / fan_in) at run time
x = MinibatchStd(group=4)(x)                   # float32 [N, C + 1, H, W]
side = trained_side(case.tensors, {8: ["layers.1.conv_1.bias"]})

References: Karras et al. 2018 (Progressive Growing of GANs), sections 3 (minibatch standard deviation), 4.1 (equalised learning
rate) and 4.2 (pixel normalisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.errors import UsageError
from gandissect_adapters.families.family import Case

SQRT2 = sqrt(2.0)
_EPSILON = 1e-8
_EQUALISED_RMS = 0.4  # weights of equalised layers start at 1, plain ones at sqrt(1 / (3 fan_in)) < 0.2
_PLAIN_RMS = 0.2


class PixelNorm(nn.Module):
    """x / sqrt(mean of x² over dim 1 + 1e-8) (Karras et al. 2018, section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, ...] in and out."""
        return x / (x.square().mean(1, keepdim=True) + _EPSILON).sqrt()


class EqualConv2d(nn.Module):
    """A convolution whose weight is scaled by gain / sqrt(fan_in) at run time, its bias not (Karras et al. 2018, section 4.1).

    Args:
        scaled: False for a plain convolution of the same names.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, padding: int = 0, gain: float = SQRT2, scaled: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.padding = padding
        self.scale = gain / sqrt(inputs * kernel * kernel) if scaled else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H', W']."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualConvTranspose2d(nn.Module):
    """The layer that turns a latent into a first map; it is scaled by gain / sqrt(inputs): every input meets each tap once."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, gain: float = SQRT2, scaled: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / sqrt(inputs) if scaled else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, 1, 1] to [N, outputs, kernel, kernel]."""
        return F.conv_transpose2d(x, self.weight * self.scale, self.bias)


class EqualLinear(nn.Module):
    """A linear layer whose weight is scaled by gain / sqrt(inputs) at run time, its bias not; ``scaled`` as above."""

    def __init__(self, inputs: int, outputs: int, *, gain: float = SQRT2, scaled: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / sqrt(inputs) if scaled else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs] to [N, outputs]."""
        return F.linear(x, self.weight * self.scale, self.bias)


class MinibatchStd(nn.Module):
    """Appends a map that says how much the images of a group differ (Karras et al. 2018, section 3).

    Args:
        group: images per group; 0 for the whole batch. A batch that is no multiple of it is one group.
        consecutive: groups are neighbours in the batch; otherwise image i is in group i modulo the number of groups.
        unbiased: the variance is divided by group - 1; a group of one image then gives 0.
        per_pixel: averaged over channels alone, so that the map differs from pixel to pixel.
    """

    def __init__(
        self, group: int = 0, *, consecutive: bool = False, unbiased: bool = False, per_pixel: bool = False
    ) -> None:
        super().__init__()
        self.group = group
        self.consecutive = consecutive
        self.unbiased = unbiased
        self.over = (1,) if per_pixel else (1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, C, H, W] to [N, C + 1, H, W]."""
        n, _, height, width = x.shape
        size = min(self.group, n) if self.group else n
        if n % size:
            size = n
        if self.unbiased and size == 1:
            return torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        groups = n // size
        along = 1 if self.consecutive else 0
        shape = (groups, size) if self.consecutive else (size, groups)
        variance = x.reshape(*shape, *x.shape[1:]).var(along, correction=1 if self.unbiased else 0)
        spread = (variance + _EPSILON).sqrt().mean(self.over, keepdim=True)
        each = spread.repeat_interleave(size, 0) if self.consecutive else spread.repeat(size, 1, 1, 1)
        return torch.cat([x, each.expand(n, 1, height, width)], 1)


def enlarge(x: Tensor) -> Tensor:
    """[N, C, 2 H, 2 W], every pixel twice in each direction."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def fade(new: Tensor, old: Tensor, alpha: float) -> Tensor:
    """alpha · new + (1 - alpha) · old, the transition to a new resolution (Karras et al. 2018, figure 2)."""
    return alpha * new + (1.0 - alpha) * old


def equalised(tensors: Mapping[str, Tensor]) -> str | None:
    """ "yes" where the convolutions' weights have the spread of equalised layers, "no" for that of plain ones, else None."""
    wide = [t for name, t in tensors.items() if name.endswith(("weight", "weight_orig")) and t.dim() == 4]
    spreads = sorted(float(t.square().mean().sqrt()) for t in wide if t[0].numel() >= 9)
    if not spreads:
        return None
    middle = spreads[len(spreads) // 2]
    if middle >= _EQUALISED_RMS:
        return "yes"
    return "no" if middle <= _PLAIN_RMS else None


def trained_side(tensors: Mapping[str, Tensor], biases: Mapping[int, Sequence[str]]) -> int:
    """The largest side that was trained: biases that start at zero and are still exactly zero were never reached.

    Args:
        biases: the side in pixels of every resolution to the names of biases that only it uses.

    Returns:
        One of the sides; the largest where none was trained.
    """
    reached = [side for side, names in biases.items() if any(bool(tensors[name].any()) for name in names)]
    return max(reached) if reached else max(biases)


def fraction(case: Case, name: str, found: float | None = None, because: str = "") -> float:
    """An option that is a number from 0 to 1, such as the weight of a resolution that fades in.

    Raises:
        UsageError: it is not.
    """
    value = case.number(name, found, because)
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"--assume {name}={value:g} is not between 0 and 1")
    return value
