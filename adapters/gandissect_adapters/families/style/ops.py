"""What the networks of the StyleGAN line share: filtered resampling, modulated convolution, truncation.

blurred = resample(x, fir_kernel((1, 3, 3, 1)), up=2, pad=(2, 1), gain=4.0)
y = modulated_conv(x, weight, style, partial(up_conv, kernel=kernel))

Everything is plain PyTorch on [N, C, H, W], differentiable twice, without in-place operations, and a sample's result does not
depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect_adapters.families.layers import SQRT2

Convolve = Callable[[Tensor, Tensor], Tensor]
"""x [N, I, H, W], weight [O, I, k, k] -> [N, O, H', W']: ``same_conv``, or ``partial(up_conv, kernel=kernel)``."""


def fir_kernel(taps: Sequence[float]) -> Tensor:
    """The two-dimensional filter of one-dimensional ``taps``: their outer product, float32 [K, K], sum 1."""
    total = sum(taps) ** 2
    return torch.tensor([[row * column / total for column in taps] for row in taps], dtype=torch.float32)


def resample(
    x: Tensor, kernel: Tensor | None, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0
) -> Tensor:
    """``x`` upsampled with zeros, padded, filtered and downsampled (the upfirdn of Karras et al. 2020, StyleGAN2, and 2021).

    Args:
        x: [N, C, H, W].
        kernel: the filter, [K, K], or [K] for a separable one applied along both axes; None for the identity (one tap).
        up: every pixel is followed by ``up - 1`` zeros.
        down: every ``down``-th pixel is kept.
        pad: zeros before and after, on both axes, counted after upsampling; negative ones crop.
        gain: factor on the result; ``up ** 2`` keeps the brightness of a kernel with sum 1.

    Returns:
        [N, C, H', W'], H' = (H * up + sum(pad) - K) // down + 1. The filter is convolved (flipped), as signal processing does.
    """
    if kernel is None:
        kernel = x.new_ones(1)
    kernel = kernel.to(x.dtype)
    if kernel.dim() == 1:
        root = gain**0.5
        x = _filter(x, (kernel * root)[:, None], (up, 1), (down, 1), (pad, (0, 0)))
        return _filter(x, (kernel * root)[None, :], (1, up), (1, down), ((0, 0), pad))
    return _filter(x, kernel * gain, (up, up), (down, down), (pad, pad))


def _filter(
    x: Tensor,
    kernel: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[tuple[int, int], tuple[int, int]],
) -> Tensor:
    """One pass of ``resample`` with a kernel [KH, KW] and (rows, columns) of every other argument."""
    channels = x.shape[1]
    each = kernel[None, None].expand(channels, 1, *kernel.shape)
    (top, bottom), (left, right) = pad
    if up == (1, 1):
        turned = each.flip((2, 3))
        if top == bottom >= 0 and left == right >= 0:
            return F.conv2d(x, turned, stride=down, padding=(top, left), groups=channels)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), turned, stride=down, groups=channels)
    # Zero-stuffing and filtering at once: a transposed convolution gives every shift of the filter, of which the padding selects.
    rows, columns = kernel.shape
    height = x.shape[2] * up[0] + top + bottom - rows + 1
    width = x.shape[3] * up[1] + left + right - columns + 1
    full = F.conv_transpose2d(x, each, stride=up, groups=channels)
    first, start = top - (rows - 1), left - (columns - 1)
    full = F.pad(full, (start, width - start - full.shape[3], first, height - first - full.shape[2]))
    return full if down == (1, 1) else full[:, :, :: down[0], :: down[1]]


def same_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution that keeps the size: [N, O, H, W] for a weight [O, I, k, k] with odd k."""
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


def up_conv(x: Tensor, weight: Tensor, kernel: Tensor, *, flip: bool = False) -> Tensor:
    """Twice the size: a transposed convolution with stride 2, then the filter ``kernel`` [K, K] (sum 1) with gain 4.

    Karras et al. 2020 (StyleGAN2), appendix B. A 1x1 weight is applied first and its map upsampled.

    Args:
        weight: [O, I, k, k].
        flip: turn the weight by 180 degrees before (the plain transposed convolution, ``False``, is that of NVlabs' and
            rosinality's code; genforce turns it).
    """
    size, taps = weight.shape[-1], len(kernel)
    before, after = size // 2 + (taps + 1) // 2, size // 2 + (taps - 2) // 2
    if size == 1:
        return resample(F.conv2d(x, weight), kernel, up=2, pad=(before, after), gain=4.0)
    turned = weight.flip((2, 3)) if flip else weight
    wide = F.conv_transpose2d(x, turned.transpose(0, 1), stride=2)
    return resample(wide, kernel, pad=(before - (size - 1), after - (size - 2)), gain=4.0)


def down_conv(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """Half the size: the filter ``kernel`` [K, K] (sum 1), then a convolution with stride 2 and weight [O, I, k, k]."""
    size, taps = weight.shape[-1], len(kernel)
    pad = (size // 2 + (taps - 1) // 2, size // 2 + (taps - 2) // 2)
    if size == 1:
        return F.conv2d(resample(x, kernel, down=2, pad=pad), weight)
    return F.conv2d(resample(x, kernel, pad=pad), weight, stride=2)


def up_image(x: Tensor, kernel: Tensor) -> Tensor:
    """Twice the size by filtering with ``kernel`` [K, K] (sum 1): the image skip of StyleGAN2's generator."""
    taps = len(kernel)
    return resample(x, kernel, up=2, pad=((taps + 1) // 2, (taps - 2) // 2), gain=4.0)


def down_image(x: Tensor, kernel: Tensor) -> Tensor:
    """Half the size by filtering with ``kernel`` [K, K] (sum 1)."""
    taps = len(kernel)
    return resample(x, kernel, down=2, pad=((taps - 1) // 2, (taps - 2) // 2))


def modulated_conv(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    convolve: Convolve = same_conv,
    *,
    demodulate: bool = True,
    gain: float = 1.0,
    eps: float = 1e-8,
) -> Tensor:
    """A convolution whose weight is scaled per sample and input unit by ``style`` (Karras et al. 2020, StyleGAN2, eq. 1-3).

    The scaling is done on maps, before and after one convolution shared by all samples: the same numbers, far less work.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k] (a stored [1, O, I, k, k] is given as ``weight[0]``).
        style: [N, I], the scales themselves: where a codebase adds 1 to what it stores, add it before.
        convolve: the convolution, with resampling where there is some.
        demodulate: divide every output unit by the expected standard deviation, sqrt(sum (w s)^2 + eps).
        gain: factor on the weight, applied before demodulation (1 / sqrt(fan_in) where the learning rate is equalised).
    """
    weight = weight * gain if gain != 1.0 else weight
    y = convolve(x * style[:, :, None, None], weight)
    if not demodulate:
        return y
    power = style.square() @ weight.square().sum((2, 3)).t()
    return y * torch.rsqrt(power + eps)[:, :, None, None]


def lrelu(x: Tensor, *, slope: float = 0.2, gain: float = SQRT2, clamp: float | None = None) -> Tensor:
    """Leaky ReLU times ``gain``, cut to [-clamp, clamp] where given (the cut is not multiplied by the gain)."""
    if slope != 1.0:
        x = F.leaky_relu(x, slope)
    x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


class FusedLeakyReLU(nn.Module):
    """``lrelu(x + bias)`` with a bias per unit, for [N, C] and [N, C, H, W].

    Args:
        units: C; the parameter is called ``bias``.
    """

    def __init__(self, units: int, *, slope: float = 0.2, gain: float = SQRT2, clamp: float | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(units))
        self.slope, self.gain, self.clamp = slope, gain, clamp

    def forward(self, x: Tensor) -> Tensor:
        """The activated map, of the shape of ``x``."""
        bias = self.bias.reshape(1, -1, *[1] * (x.dim() - 2))
        return lrelu(x + bias, slope=self.slope, gain=self.gain, clamp=self.clamp)


def truncate(w: Tensor, centre: Tensor, psi: float, *, layers: int | None = None) -> Tensor:
    """``w`` pulled to ``centre``: centre + psi * (w - centre) (Karras et al. 2019, appendix B).

    Args:
        w: [N, W] or [N, L, W].
        centre: [W], or [N, W] where every sample has its own.
        layers: only the first so many of L are pulled; None for all.
    """
    if psi == 1.0:
        return w
    if w.dim() == 3 and centre.dim() == 2:
        centre = centre[:, None]
    pulled = centre + psi * (w - centre)
    if w.dim() < 3 or layers is None:
        return pulled
    return torch.cat([pulled[:, :layers], w[:, layers:]], 1)


def shifted_mean(weight: Tensor) -> Tensor:
    """The kernel [A, B, k + 1, k + 1] of a convolution [A, B, k, k] that is fused with copying or averaging 2x2 pixels.

    The mean of the kernel's four shifts by one pixel: with stride 2 the convolution then halves the size as averaging 2x2 pixels
    would, and, times 4, a transposed one doubles it (``fused_scale`` of Karras et al. 2018's implementation).
    """
    return F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1)
