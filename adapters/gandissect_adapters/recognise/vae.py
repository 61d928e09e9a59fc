"""The two halves of a variational autoencoder: its decoder is a generator, its encoder the way back.

decoder_of(state)                       # [StateDict("decoder", …)], or None when it is no such thing
encoder_for(decoder.encoder, generator, (20,), (1, 28, 28))     # the encoder and what was assumed of it
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from gandissect.gan import Assumption
from gandissect.probing.building import agreement
from gandissect_adapters.recognise.plan import activation
from gandissect_adapters.recognise.refuse import looks_like
from gandissect_adapters.recognise.unwrap import StateDict

BETWEEN = ("relu", "lrelu0.2", "lrelu0.01", "tanh", "elu", "silu", "gelu", "sigmoid")
"""Activations that are tried between the encoder's layers."""
_TRIED = 256


def decoder_of(state: StateDict) -> list[StateDict] | None:
    """The half of ``state`` behind two equal linear layers (mean and log-variance), where there are such."""
    if looks_like(state.tensors):
        return None
    linear = [name for name, tensor in state.tensors.items() if name.endswith(".weight") and tensor.dim() == 2]
    for i, (mean, spread, after) in enumerate(zip(linear, linear[1:], linear[2:], strict=False)):
        shapes = [state.tensors[name].shape for name in (mean, spread, after)]
        if shapes[0] == shapes[1] and shapes[0][0] < shapes[0][1] and shapes[2][1] == shapes[0][0]:
            names = [name.removesuffix(".weight") for name in linear[i + 2 :]]
            first = list(state.tensors).index(linear[i + 2])
            kept = {key: value for j, (key, value) in enumerate(state.tensors.items()) if j >= first}
            before = {key: value for key, value in state.tensors.items() if key not in kept}
            note = f"it is a variational autoencoder; its decoder ({', '.join(names)}) is opened as the generator"
            return [replace(state, name=f"{state.name}.decoder".strip("."), tensors=kept, encoder=before, slots=None, role="generator",
                            notes=(*state.notes, note))]  # fmt: skip
    return None


def encoder_for(
    tensors: Mapping[str, Tensor], decoder: nn.Module, latent: tuple[int, ...], image_shape: tuple[int, int, int]
) -> tuple[nn.Module, Assumption] | None:
    """The encoder (to the mean of its posterior) that ``tensors`` are, and the activation that was assumed; None for no plain stack.

    The activation between its layers stands nowhere: the one is taken with which the latents of the decoder's own samples come back
    best (Kingma & Welling 2014, section 3: the encoder's mean is where the decoder's latent is likeliest).

    Args:
        tensors: of the layers before the decoder; the last two are the mean and the log-variance.
        decoder: standard normal latents [N, *latent] to images in the range that the encoder was trained on.
        latent: shape of one.
        image_shape: (C, H, W).
    """
    layers = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")][:-1]
    weights = [tensors[f"{name}.weight"] for name in layers]
    chained = [prod(image_shape), *(weight.shape[0] for weight in weights)]
    if (
        any(w.dim() != 2 for w in weights)
        or [w.shape[1] for w in weights] != chained[:-1]
        or chained[-1] != prod(latent)
    ):
        return None
    z = torch.randn(_TRIED, *latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = decoder(z)
        fitting = {name: agreement(_stack(tensors, layers, name)(images), z) for name in BETWEEN}
    best, *others = sorted(fitting, key=lambda name: -fitting[name])
    why = f"latents of samples come back with a correlation of {fitting[best]:.3f}, with {others[0]} of {fitting[others[0]]:.3f}"
    return _stack(tensors, layers, best).eval(), Assumption("encoder's activation", best, why)


def _stack(tensors: Mapping[str, Tensor], layers: list[str], between: str) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten())
    for name in layers:
        weight, bias = tensors[f"{name}.weight"].float(), tensors.get(f"{name}.bias")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias.float()})
        parts[name.replace(".", "_")] = layer
        if name != layers[-1]:
            parts[f"{name.replace('.', '_')}_act"] = activation(between).build()
    return nn.Sequential(parts)
