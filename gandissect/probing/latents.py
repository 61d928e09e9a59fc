"""The latent that a generator takes, found by trying the shapes that its weights suggest.

infer_latent(generator, None)            # LatentSpace("z", (100, 1, 1))
infer_latent(generator, (100,))          # what was said, checked by running it
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import torch
from torch import Tensor, nn

from gandissect.borrow import borrowed
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace

_ATTRIBUTES = ("latent_dim", "z_dim", "dim_z", "nz", "noise_dim", "latent_size", "zdim")
_TRIES = 60
_HOW = "pass --latent 100 (in Python: latent=(100,))"


def infer_latent(module: nn.Module, given: tuple[int, ...] | None, *, num_classes: int = 0) -> LatentSpace:
    """The latent space of a generator, verified by running two samples.

    Args:
        module: called as ``module(z)``, or ``module(z, labels)`` when ``num_classes`` is not 0; left as it was.
        given: the shape of one latent where it is known; ``(100,)`` also stands for ``(100, 1, 1)``.
        num_classes: number of labels the module takes.

    Raises:
        NotOpened: no shape gives images; the message says what to pass.
    """
    shapes = list(_given_shapes(given) if given else _candidates(module, num_classes))[:_TRIES]
    fallback: LatentSpace | None = None
    reason = ""
    with borrowed(module):
        for shape in shapes:
            try:
                output = _run(module, shape, num_classes)
            except Exception as error:  # any module may fail in any way on a wrong shape
                reason = reason or first_line(error)[:160]
                continue
            if looks_like_images(output):
                return LatentSpace("z", shape)
            if given and output is not None:
                fallback = fallback or LatentSpace("z", shape)
    if fallback is not None:
        return fallback
    name = type(module).__name__
    if given:
        raise NotOpened(f"{name} does not run on latents of shape {given}: {reason or 'it gives no image'}")
    raise NotOpened(f"could not tell the latent's shape of {name}; {_HOW}")


def looks_like_images(output: Tensor | None) -> bool:
    """Whether [N, C, H, W] with 1, 3 or 4 channels, or [N, D] where D is one square image of at least 8×8."""
    if output is None or len(output) != 2:
        return False
    if output.dim() == 4:
        return output.shape[1] in (1, 3, 4) and min(output.shape[2:]) >= 4
    return output.dim() == 2 and flat_image_shape(output.shape[1]) is not None


def flat_image_shape(size: int) -> tuple[int, int, int] | None:
    """(C, H, W) of the square grey or RGB image that ``size`` numbers can be; None where they cannot."""
    for channels in (1, 3):
        side = isqrt(size // channels)
        if side >= 8 and side * side * channels == size:
            return channels, side, side
    return None


def first_tensor(output: object) -> Tensor | None:
    """The first tensor of what a network returned: itself, or inside a tuple, list or dict; images before anything else."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output
    if not isinstance(values, (list, tuple)):
        return None
    tensors = [tensor for tensor in map(first_tensor, values) if tensor is not None]
    return next((tensor for tensor in tensors if looks_like_images(tensor[:2])), tensors[0] if tensors else None)


def _given_shapes(given: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield given
    if len(given) == 1:
        yield (*given, 1, 1)
    elif given[1:] == (1, 1):
        yield given[:1]


def _candidates(module: nn.Module, num_classes: int) -> Iterator[tuple[int, ...]]:
    """Shapes worth trying, the likeliest first: attributes that say so, then weights in order of registration."""
    shapes: dict[tuple[int, ...], None] = {}
    for name in _ATTRIBUTES:
        size = getattr(module, name, None)
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            shapes.update({(size,): None, (size, 1, 1): None})
    embedded = {m.embedding_dim for m in module.modules() if isinstance(m, nn.Embedding)}
    extra = [0, *([num_classes] if num_classes else []), *sorted(embedded)]
    for weight in module.parameters():
        for size in (size - less for size in _fan_in(weight) for less in extra):
            if size > 0:
                shapes.update(
                    {(size, 1, 1): None, (size,): None} if weight.dim() == 4 else {(size,): None, (size, 1, 1): None}
                )
    yield from shapes


def _fan_in(weight: Tensor) -> tuple[int, ...]:
    """The number of inputs of a weight: a matrix [out, in] (or its transpose), a transposed convolution [in, out, k, k]."""
    if weight.dim() == 2:
        return weight.shape[1], weight.shape[0]
    return (weight.shape[0], weight.shape[1]) if weight.dim() == 4 else ()


def _run(module: nn.Module, shape: tuple[int, ...], num_classes: int) -> Tensor | None:
    device = next((p.device for p in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    latents = torch.randn(2, *shape, device=device)
    labels = (torch.arange(2, device=device) % num_classes,) if num_classes else ()
    with torch.no_grad():
        return first_tensor(module(latents, *labels))


def first_line(error: Exception) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
