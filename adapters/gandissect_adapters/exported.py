"""Archives of torch.export with layers that can be read, edited and differentiated, at any batch size.

    networks = ExportedAdapter().open(peek("gan.pt2"), Hints())
    networks.generator(z)                # equals torch.export.load("gan.pt2").module()(z)

The graph is rebuilt from the archive's JSON, tensors from their raw bytes; torch.export's loader, which evaluates strings
out of the file, is used for the comparison alone and only when all of them are plain.
"""

from __future__ import annotations

from gandissect.adapter import Adapter, Hints, Match, Networks
from gandissect.files.peek import Peek
from gandissect.plugins import hookimpl
from gandissect_adapters.graph import export
from gandissect_adapters.graph.graph import refusing_damage
from gandissect_adapters.graph.roles import discriminator_networks, generator_networks


class ExportedAdapter(Adapter):
    """Interprets the exported graph, so that hooks fire, edits work and gradients flow."""

    name = "export"

    def match(self, peek: Peek) -> Match | None:
        """Certain for torch.export archives."""
        return Match(1.0, "an archive of torch.export") if peek.container == "export" else None

    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The generator in the archive.

        Raises:
            UnsafeCheckpoint: it uses an operator that may do more than compute.
            NotOpened: it is damaged, a discriminator, or its input cannot be told.
        """
        with refusing_damage(peek.path.name):
            graph = export.read(peek.path)
        return generator_networks(graph, hints)

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The discriminator in the archive, for images of ``image_shape`` (C, H, W)."""
        with refusing_damage(peek.path.name):
            graph = export.read(peek.path)
        return discriminator_networks(graph, image_shape)


@hookimpl
def register_adapters() -> list[type[Adapter]]:
    """The adapter of this module."""
    return [ExportedAdapter]
