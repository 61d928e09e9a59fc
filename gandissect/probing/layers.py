"""Which layers a network has, how they are connected, and which can be edited.

seen = survey(net, run, samples[:1])
probe_layers(net, run, samples, seen)   # (LayerInfo("main.0", "Conv2d", 64, 4, 4), …)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gandissect.gan import LayerInfo
from gandissect.probing.surveying import Call, Run, Survey
from gandissect.tap import tap

MIXING = ("Conv", "Linear", "Bilinear")
"""Modules whose names contain one of these start a new stage: what follows up to the next one is normalisation and activation."""
TRIED = 2
"""Samples that an edit of each layer is tried on."""
RESHAPING = ("Up", "Flatten", "Unflatten", "View", "Reshape", "Embedding", "Dropout")


def probe_layers(
    net: nn.Module, run: Run, samples: Tensor, seen: Survey, *, main: Collection[str] = (), trusting: bool = False
) -> tuple[LayerInfo, ...]:
    """The layers of ``net`` that could be read, with their sizes, connections and whether an edit has an effect.

    Args:
        net: the network that ``seen`` is of.
        run: calls it on samples.
        samples: [N, ...]; the first two are what edits are tried on, a forward pass for every layer.
        main: modules, composite ones too, to be marked main (not one that gives the finished image, where there are others);
            where empty, the last layer of each stage is.
        trusting: a layer that the output depends on, by the autograd graph, counts as editable without a trial.
    """
    trial = _Trial(net, run, samples)
    known = seen.effective if trusting else frozenset()
    layers = [
        replace(_info(call, inputs), editable=call.name in known or trial.works(call.name))
        for call, inputs in zip(seen.calls, connections(seen.calls), strict=True)
    ]
    if main:
        chosen = {info.name for info in layers if info.name in main and info.editable}
        finished = {info.name for info in layers if info.name in chosen and info.shape == tuple(seen.output.shape[1:])}
        chosen = chosen - finished or chosen  # the image itself is no layer of units, unless there is nothing else
        return tuple(replace(info, main=info.name in chosen) for info in layers)
    return _mark_main(layers, [call.module for call in seen.calls])


def _info(call: Call, inputs: tuple[str, ...]) -> LayerInfo:
    height, width = (call.shape[1], call.shape[2]) if len(call.shape) == 3 else (1, 1)
    parameters = sum(parameter.numel() for parameter in call.module.parameters())
    return LayerInfo(call.name, type(call.module).__name__, call.shape[0], height, width, parameters, inputs=inputs)


class _Trial:
    """Edits a layer to see whether that changes the network's output."""

    def __init__(self, net: nn.Module, run: Run, samples: Tensor) -> None:
        self.net, self.run, self.samples = net, run, samples[:TRIED].detach()
        self.reference: Tensor | None = None

    @torch.no_grad()
    def works(self, name: str) -> bool:
        """Adding to that layer's output changes the network's output."""
        if self.reference is None:
            self.reference = self.run(self.net, self.samples)
        with tap(self.net, [name], lambda _name, act: act * 0.5 + 1.0):
            return not torch.equal(self.run(self.net, self.samples), self.reference)


def connections(calls: Sequence[Call]) -> list[tuple[str, ...]]:
    """For each call the calls that feed it, found by walking the autograd graph back from its inputs."""
    history: dict[object, str] = {}
    sources: list[tuple[str, ...]] = []
    for position, call in enumerate(calls):
        found = [name for node in call.inputs for name in _walk(node, history)]
        if not found and position and all(node is None for node in call.inputs):
            found = [calls[position - 1].name]  # no history to follow: what ran before it
        sources.append(tuple(dict.fromkeys(found)))
        if call.node is not None:
            history[call.node] = call.name
    return sources


def _walk(start: object, history: dict[object, str]) -> list[str]:
    """Names of the nearest known calls behind a node of the autograd graph."""
    found: list[str] = []
    seen: set[object] = set()
    stack = [start]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in history:
            found.append(history[node])
        else:
            stack += [parent for parent, _ in getattr(node, "next_functions", ())]
    return sorted(found)


def _mark_main(layers: list[LayerInfo], modules: Sequence[nn.Module]) -> tuple[LayerInfo, ...]:
    """Mark the last layer of each stage but the one that makes the output.

    A stage starts at a module that mixes units (convolution, linear). Reshaping and upsampling that follow an activation
    belong to the stage but are not its last layer: an upsampled map holds nothing that the map did not.
    """
    stages: list[list[int]] = []
    for position, module in enumerate(modules):
        kind = type(module).__name__
        if any(word in kind for word in MIXING):
            stages.append([])
        if stages and not any(word in kind for word in RESHAPING):
            stages[-1].append(position)
    last = {stage[-1] for stage in stages[:-1] if stage}
    return tuple(replace(info, main=position in last and info.editable) for position, info in enumerate(layers))
