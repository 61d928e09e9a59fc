"""The decoder of a variational autoencoder, which is a generator too.

decoder_of(state)                       # [StateDict("decoder", …)], or None when it is no such thing
"""

from __future__ import annotations

from dataclasses import replace

from gandissect_adapters.recognise.refuse import looks_like
from gandissect_adapters.recognise.unwrap import StateDict


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
            note = f"it is a variational autoencoder; its decoder ({', '.join(names)}) is opened as the generator"
            return [replace(state, name=f"{state.name}.decoder".strip("."), tensors=kept, slots=None, role="generator",
                            notes=(*state.notes, note))]  # fmt: skip
    return None
