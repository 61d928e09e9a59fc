"""The topology picture: how layers connect, their type and size, and the concepts that dissection found in each.

section = next(Topology().run(session))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from gandissect.analyzer import Analyzer
from gandissect.blocks import Block, Graph, Node, Section
from gandissect.gan import Network
from gandissect.session import Session
from gandissect_plugins.dissection import Dissection


class Topology(Analyzer):
    """How layers connect, and what each holds."""

    name = "topology"
    order = 250

    def run(self, session: Session) -> Iterator[Section]:
        """One graph for each network."""
        dissection = session.recall(Dissection)
        concepts = dissection.layer_concepts() if dissection is not None else {}
        blocks: list[Block] = [_graph(session.gan.generator, concepts)]
        if session.gan.discriminator is not None:
            blocks.append(_graph(session.gan.discriminator, {}))
        edges = sum(len(info.inputs) for info in session.gan.generator.layers)
        skips = sum(len(info.inputs) > 1 for info in session.gan.generator.layers)
        found = Counter(concept for names in concepts.values() for concept in names)
        held = f"; concepts were found in {sum(bool(names) for names in concepts.values())} layers" if found else ""
        summary = (
            f"The generator is {'a chain' if not skips else 'a graph'} of {len(session.gan.generator.layers)} layers "
            f"and {edges} connections{held}."
        )
        meaning = (
            "A line means that a layer's output reaches the next one directly or through operations that are no layers "
            "(reshaping, addition); it was found by following the gradient history of one sample. Notes name the concepts of "
            "which a layer has units that passed the dissection's test, most frequent first."
        )
        yield Section("Topology", *blocks, summary=summary, meaning=meaning)


def _graph(network: Network, concepts: Mapping[str, Mapping[str, int]]) -> Graph:
    nodes = tuple(
        Node(
            info.name,
            info.kind,
            f"{info.channels}×{info.height}×{info.width}",
            tuple(f"{name} ×{count}" for name, count in list(concepts.get(info.name, {}).items())[:3]),
            emphasis=info.main,
        )
        for info in network.layers
    )
    edges = tuple((source, info.name) for info in network.layers for source in info.inputs)
    alt = f"layers of the {network.role} and how they connect"
    return Graph(nodes, edges, alt, caption=f"The {network.role}; layers that are analyzed stand out.")
