"""Grad-CAM of any layer for any target, signed and unscaled.

cam = grad_cam(gan.discriminator, images, "layer4", Score())
cam.maps                                 # float32 [N, h, w]; positive where the layer speaks for the target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gandissect.borrow import borrowed
from gandissect.gan import Discriminator, Generator
from gandissect.tap import as_map, tap
from gandissect.targets import Target

Weighting = Literal["pooled", "cellwise"]
BLOCK = 16


@dataclass(frozen=True)
class CamResult:
    """Maps of one layer for one target.

    Attributes:
        layer: dotted name.
        target: what was explained.
        maps: float32 [N, h, w], signed, in units of the target; no rectification, no rescaling.
        cellwise: float32 [N, h, w], the same with each cell's own gradient instead of the mean over the map.
        weights: float32 [N, C], the mean gradient of each unit.
        values: float32 [N], the target.
    """

    layer: str
    target: str
    maps: Tensor
    cellwise: Tensor
    weights: Tensor
    values: Tensor

    @property
    def silent(self) -> Tensor:
        """Samples whose gradient is zero everywhere, so that there is nothing to show: bool [N]."""
        return (self.cellwise == 0).flatten(1).all(1) & (self.weights == 0).all(1)

    def by(self, weighting: Weighting) -> Tensor:
        """The maps of that weighting."""
        return self.maps if weighting == "pooled" else self.cellwise


def grad_cam(
    network: Generator | Discriminator, inputs: Tensor, layer: str, target: Target, *, labels: Tensor | None = None
) -> CamResult:
    """Where ``layer`` speaks for or against ``target``.

    Args:
        network: a generator or discriminator.
        inputs: latents float32 [N, D] for a generator, images float32 [N, C, H, W] in [-1, 1] for a discriminator.
        layer: dotted name.
        target: what is explained, from the network's output (or from the layer that the target names).
        labels: int64 [N], the classes of the inputs, for networks that take any.

    References:
        Selvaraju et al. 2017, Grad-CAM, eqs. 1 and 2, without the ReLU of eq. 2.
        Draelos & Carin 2020, HiResCAM, eq. 4, for ``cellwise``.
    """
    return grad_cams(network, inputs, [layer], [target], labels=labels)[0][0]


def grad_cams(
    network: Generator | Discriminator,
    inputs: Tensor,
    layers: Sequence[str],
    targets: Sequence[Target],
    *,
    labels: Tensor | None = None,
) -> tuple[tuple[CamResult, ...], ...]:
    """:func:`grad_cam` for every target (outer) and layer (inner) with one forward pass."""
    for layer in layers:
        network.layer(layer)
    blocks = []
    with borrowed(network.module):
        for start in range(0, len(inputs), BLOCK):
            given = None if labels is None else labels[start : start + BLOCK]
            blocks.append(_cams(network, inputs[start : start + BLOCK], layers, targets, given))
    return tuple(
        tuple(_joined([block[t][place] for block in blocks]) for place in range(len(layers)))
        for t in range(len(targets))
    )


def run(network: Generator | Discriminator, inputs: Tensor, labels: Tensor | None) -> Tensor:
    """The network's output: images of latents, or scores of images."""
    return network(inputs, None if labels is None else labels.to(inputs.device))


def _cams(
    network: Generator | Discriminator,
    inputs: Tensor,
    layers: Sequence[str],
    targets: Sequence[Target],
    labels: Tensor | None,
) -> list[list[CamResult]]:
    start = inputs.detach().to(network.device).requires_grad_(True)
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        seen[name] = output
        return output.clone()  # an in-place activation behind this layer must not change what is kept

    read = list(dict.fromkeys([*layers, *(target.layer for target in targets if target.layer)]))
    with tap(network.module, read, keep):
        outputs = run(network, start, labels)
    rows = []
    for number, target in enumerate(targets):
        values = target(seen[target.layer] if target.layer else outputs)
        gradients = _gradients(values, [seen[layer] for layer in layers], keep_graph=number + 1 < len(targets))
        pairs = zip(layers, gradients, strict=True)
        rows.append([_cam(layer, target.name, seen[layer], gradient, values) for layer, gradient in pairs])
    return rows


def _gradients(values: Tensor, activations: list[Tensor], *, keep_graph: bool) -> list[Tensor]:
    """d(sum of values)/d(activation); zeros where there is no path."""
    asked = [place for place, activation in enumerate(activations) if activation.requires_grad]
    found: dict[int, Tensor | None] = {}
    if values.requires_grad and asked:
        sources = [activations[place] for place in asked]
        grads = torch.autograd.grad(values.sum(), sources, allow_unused=True, retain_graph=keep_graph)
        found = dict(zip(asked, grads, strict=True))
    gradients = []
    for place, activation in enumerate(activations):
        gradient = found.get(place)
        gradients.append(torch.zeros_like(activation) if gradient is None else gradient)
    return gradients


def _cam(layer: str, target: str, activation: Tensor, gradient: Tensor, values: Tensor) -> CamResult:
    acts, grads = as_map(activation.detach()).float(), as_map(gradient).float()
    weights = grads.mean((2, 3))  # Selvaraju et al. 2017, eq. 1
    maps = (weights[:, :, None, None] * acts).sum(1)  # eq. 2 without ReLU
    cellwise = (grads * acts).sum(1)  # Draelos & Carin 2020, eq. 4
    return CamResult(layer, target, maps.cpu(), cellwise.cpu(), weights.cpu(), values.detach().float().cpu())


def _joined(parts: list[CamResult]) -> CamResult:
    return CamResult(
        parts[0].layer,
        parts[0].target,
        torch.cat([part.maps for part in parts]),
        torch.cat([part.cellwise for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.values for part in parts]),
    )


def without_cells(
    network: Generator | Discriminator, inputs: Tensor, layer: str, cells: Tensor, *, labels: Tensor | None = None
) -> Tensor:
    """The network's output when all units of ``layer`` are 0 in some cells.

    Args:
        network: a generator or discriminator.
        inputs: latents or images, N of them.
        layer: dotted name.
        cells: bool [N, h, w], True where the layer is set to 0.
        labels: int64 [N], the classes of the inputs, for networks that take any.

    Returns:
        images float32 [N, C, H, W] or scores float32 [N], on the CPU.
    """
    parts = []
    with borrowed(network.module), torch.no_grad():
        for start in range(0, len(inputs), BLOCK):
            keep = ~cells[start : start + BLOCK, None].to(network.device)

            def cut(_name: str, output: Tensor, keep: Tensor = keep) -> Tensor:
                return output * keep.flatten(1).to(output) if output.dim() == 2 else output * keep

            given = None if labels is None else labels[start : start + BLOCK]
            with tap(network.module, [layer], cut):
                parts.append(run(network, inputs[start : start + BLOCK].to(network.device), given).cpu())
    return torch.cat(parts)
