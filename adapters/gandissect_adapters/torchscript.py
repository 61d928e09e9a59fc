"""TorchScript archives (scripted, traced or frozen) with layers that can be read, edited and differentiated.

    networks = TorchScriptAdapter().open(peek("gan.ts"), Hints())
    networks.generator(z)                # equals torch.jit.load("gan.ts")(z)

Safety: an archive's text is searched for code that loading would run, and its graphs for operators that do more than
compute, before anything of it runs (see ``graph/script.py`` and ``graph/operators.py``). ``Hints.trust`` skips both and
runs the archive as it is; then it has no layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from gandissect.adapter import Adapter, Hints, Match, Networks
from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.files.peek import Peek
from gandissect.plugins import hookimpl
from gandissect.probing.latents import first_tensor, infer_latent
from gandissect_adapters.graph import script
from gandissect_adapters.graph.graph import first_line, refusing_damage
from gandissect_adapters.graph.roles import discriminator_networks, generator_networks


class TorchScriptAdapter(Adapter):
    """Interprets the archive's graphs, so that hooks fire, edits work and gradients flow."""

    name = "torchscript"

    def match(self, peek: Peek) -> Match | None:
        """Certain for TorchScript archives."""
        return Match(1.0, "a TorchScript archive") if peek.container == "torchscript" else None

    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The generator in the archive.

        Raises:
            UnsafeCheckpoint: it could do more than compute, and ``hints.trust`` is False.
            NotOpened: it is damaged, a discriminator, or its input cannot be told.
        """
        try:
            with refusing_damage(peek.path.name):
                graph = script.read(peek.path)
        except UnsafeCheckpoint as error:
            if not hints.trust:
                raise
            return _opaque_networks(peek, hints, str(error))
        return generator_networks(graph, hints)

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The discriminator in the archive, for images of ``image_shape`` (C, H, W)."""
        try:
            with refusing_damage(peek.path.name):
                graph = script.read(peek.path)
        except UnsafeCheckpoint:
            if not hints.trust:
                raise
            return Networks(discriminator=_load(peek), image_shape=image_shape, notes=("run as it is: no layers",))
        return discriminator_networks(graph, image_shape)


class Opaque(nn.Module):
    """Runs a scripted module as it is; shows its parameters but none of its layers, which take no hooks."""

    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        super().__init__()
        self._held = (scripted.eval(),)

    def forward(self, *args: Tensor) -> Tensor:
        """The first tensor of what the archive returns."""
        output = first_tensor(self._held[0](*args))
        if output is None:
            raise NotOpened("the archive returns no tensor")
        return output

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the archive."""
        yield from self._held[0].named_parameters(prefix, recurse, remove_duplicate)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Opaque:
        self._held[0]._apply(fn)  # type: ignore[no-untyped-call]  # torch has no annotation
        return self


def _load(peek: Peek) -> Opaque:
    try:
        return Opaque(torch.jit.load(str(peek.path), map_location="cpu"))  # type: ignore[no-untyped-call]  # as above
    except RuntimeError as error:
        raise NotOpened(f"{peek.path.name} is no readable TorchScript archive: {first_line(error)}") from error


def _opaque_networks(peek: Peek, hints: Hints, reason: str) -> Networks:
    module = _load(peek)
    return Networks(
        generator=module,
        latent=infer_latent(module, hints.latent),
        family="TorchScript",
        verification="run as it is, because it was trusted",
        notes=(f"no layers can be read: {reason}",),
    )


@hookimpl
def register_adapters() -> list[type[Adapter]]:
    """The adapter of this module."""
    return [TorchScriptAdapter]
