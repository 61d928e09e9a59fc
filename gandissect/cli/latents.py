"""Points of a latent space in a file: what ``invert`` writes and ``edit --latents`` starts from.

write_whole(path, saved_points(Points(latents, labels, "z"), ".safetensors"))
points = read_points(Path("latents.safetensors"))
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gandissect.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from gandissect.session import Session

SUFFIXES = (".npy", ".safetensors")


@dataclass(frozen=True)
class Points:
    """Points of a latent space.

    Attributes:
        values: float32 [N, *shape].
        labels: int64 [N], the class of each; None where there are none.
        space: the space they belong to; empty where the file does not say, which means the latent.
    """

    values: Tensor
    labels: Tensor | None = None
    space: str = ""

    def entered(self, session: Session, name: str) -> Tensor:
        """Where they are in the space called ``name``: float32 [N, *shape].

        Raises:
            UsageError: another size, or points of an inner space that is not that one.
        """
        from math import prod

        from gandissect.spaces import codes, space_shape

        latent = session.gan.generator.latent.name
        own = self.space or latent
        if own not in (latent, name):
            raise UsageError(f"--latents holds points of {own}; say --space {own}, not {name}")
        shape = space_shape(session.gan.generator, own)
        if self.values[0].numel() != prod(shape):
            raise UsageError(f"--latents has rows of {self.values[0].numel()} numbers; {own} takes {prod(shape)}")
        points = self.values.reshape(-1, *shape)
        return points if own == name else codes(session, name, points, self.labels)


def saved_points(points: Points, suffix: str) -> bytes:
    """The content of a .npy file, which keeps the values alone, or of a .safetensors file, which keeps all."""
    values = points.values.numpy()
    if suffix == ".npy":
        import numpy as np

        file = io.BytesIO()
        np.save(file, values)
        return file.getvalue()
    from safetensors.numpy import save

    tensors = {"latents": values} | ({} if points.labels is None else {"labels": points.labels.cpu().numpy()})
    return save(tensors, metadata={"space": points.space})


def read_points(path: Path) -> Points:
    """The points in a .npy file [N, …] (or [D], one point), or in the tensor ``latents`` of a .safetensors file.

    Raises:
        UsageError: no such file, another kind, or numbers that are not finite.
    """
    import torch

    if path.suffix not in SUFFIXES:
        raise UsageError(f"--latents {path}: expected a .npy or .safetensors file")
    try:
        found = _from_npy(path) if path.suffix == ".npy" else _from_safetensors(path)
    except FileNotFoundError:
        raise UsageError(f"--latents {path}: no such file") from None
    except Exception as error:  # whatever a damaged file makes numpy or safetensors raise
        raise UsageError(f"--latents {path}: cannot read it ({error})") from error
    if not found.values.numel() or not torch.isfinite(found.values).all():
        raise UsageError(f"--latents {path}: expected finite numbers, a row for each point")
    if found.labels is not None and found.labels.shape != found.values.shape[:1]:
        raise UsageError(f"--latents {path}: {len(found.values)} points and labels {tuple(found.labels.shape)}")
    return found


def _from_npy(path: Path) -> Points:
    import numpy as np
    import torch

    array = np.asarray(np.load(path, allow_pickle=False), np.float32)
    return Points(torch.from_numpy(array[None] if array.ndim < 2 else array))


def _from_safetensors(path: Path) -> Points:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        labels = file.get_tensor("labels").long() if "labels" in file.keys() else None  # noqa: SIM118  # no dict
        return Points(file.get_tensor("latents").float(), labels, (file.metadata() or {}).get("space", ""))
