"""ONNX graphs with layers that can be read, edited and differentiated, at any batch size where the file allows it.

    networks = OnnxAdapter().open(peek("gan.onnx"), Hints())
    networks.generator(z)                # equals ONNX Runtime's output for z

The graph is parsed with the ``onnx`` package (``pip install 'gandissect[onnx]'``), checked against a list of operators
that only compute, and run by torch operator by operator; where ``onnxruntime`` is installed the images are compared with
its own.
"""

from __future__ import annotations

from dataclasses import replace

from gandissect.adapter import Adapter, Hints, Match, Networks
from gandissect.files.peek import Peek
from gandissect.plugins import hookimpl
from gandissect_adapters.graph.onnx import graph as onnx_graph
from gandissect_adapters.graph.roles import discriminator_networks, generator_networks


class OnnxAdapter(Adapter):
    """Interprets the graph, so that hooks fire, edits work and gradients flow."""

    name = "onnx"

    def match(self, peek: Peek) -> Match | None:
        """Certain for ONNX graphs."""
        return Match(1.0, "an ONNX graph") if peek.container == "onnx" else None

    def open(self, peek: Peek, hints: Hints) -> Networks:
        """The generator in the file.

        Raises:
            UnsafeCheckpoint: it uses operators of its own, or names files elsewhere.
            NotOpened: it is damaged, uses what is not supported, is a discriminator, or its input cannot be told.
        """
        classes = hints.assume.get("num_classes", "")
        graph = onnx_graph.read(peek.path, int(classes) if classes.isdigit() else 0)
        return replace(generator_networks(graph, hints), family="ONNX")

    def open_discriminator(
        self, peek: Peek, hints: Hints, generator: Networks, image_shape: tuple[int, int, int]
    ) -> Networks:
        """The discriminator in the file, for images of ``image_shape`` (C, H, W)."""
        return discriminator_networks(onnx_graph.read(peek.path), image_shape)


@hookimpl
def register_adapters() -> list[type[Adapter]]:
    """The adapter of this module."""
    return [OnnxAdapter]
