"""How far to trust a Grad-CAM map: delete its highest cells, and compare with the same network after shuffling its weights.

subject = Subject(gan.discriminator, images, (Score(),), (Score(),))
check_cams(subject, ["layer3", "layer4"], "layer4", rng=session.rng("grad-cam"))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gandissect.borrow import borrowed
from gandissect.gan import Discriminator, Generator
from gandissect.targets import Target
from gandissect_plugins.attributions.checks import (
    SIMILAR,
    Paired,
    differing_places,
    paired,
    rank_correlation,
    shuffled_weights,
)
from gandissect_plugins.attributions.trained import TRAINED
from gandissect_plugins.gradcam.cam import CamResult, Weighting, grad_cams, run, without_cells

Measure = Callable[[Tensor], Tensor]
WEIGHTINGS: tuple[Weighting, ...] = ("pooled", "cellwise")


@dataclass(frozen=True)
class Subject:
    """What is explained and how its effect is measured.

    Attributes:
        network: a generator or discriminator.
        inputs: latents or images, N of them.
        targets: differentiable, one for each explanation.
        measures: for each target, outputs on the CPU -> float [N]: what a deletion is measured by; it need not be differentiable.
        magnitude: for each target, cells are ordered by |map|, because the target's sign says nothing about the measure.
        labels: int64 [N], the classes of the inputs, for networks that take any.
    """

    network: Generator | Discriminator
    inputs: Tensor
    targets: tuple[Target, ...]
    measures: tuple[Measure, ...]
    magnitude: tuple[bool, ...] = (False,)
    labels: Tensor | None = None

    def first(self, count: int) -> Subject:
        """The same for the first ``count`` inputs."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, inputs=self.inputs[:count], labels=labels)

    def before(self, target: int) -> Tensor:
        """The measure of the untouched network: float [N]."""
        return self.measures[target](self.outputs())

    def outputs(self) -> Tensor:
        """The network's output on all inputs, on the CPU."""
        with borrowed(self.network.module), torch.no_grad():
            return run(self.network, self.inputs.to(self.network.device), self.labels).cpu()


@dataclass(frozen=True)
class Deletion:
    """What is lost when some cells of a layer are set to 0.

    Attributes:
        fraction: of the cells.
        top: float [N], loss of the measure when the highest cells of the map go.
        random: float [N], the same for as many random cells.
        gain: of ``top`` over ``random``.
    """

    fraction: float
    top: Tensor
    random: Tensor
    gain: Paired


@dataclass(frozen=True)
class CamCheck:
    """A map with its checks.

    Attributes:
        cam: the maps.
        weighting: "pooled" is Grad-CAM, "cellwise" is HiResCAM.
        deletion: see :class:`Deletion`.
        similarity: mean |Spearman| with the maps of shuffled weights, 0..1; NaN where it was not measured.
        learned: p that the network is no different from shuffled weights; 1 where it was not measured.
    """

    cam: CamResult
    weighting: Weighting
    deletion: Deletion
    similarity: float = float("nan")
    learned: float = 1.0

    @property
    def method(self) -> str:
        """The name of the weighting in the literature."""
        return "Grad-CAM" if self.weighting == "pooled" else "HiResCAM"

    @property
    def passed(self) -> bool:
        """Deletion beats chance, the map depends on the weights, and the network is no random one."""
        return self.deletion.gain.clear and self.similarity < SIMILAR and self.learned <= TRAINED


def deletion(
    subject: Subject,
    cam: CamResult,
    *,
    target: int = 0,
    weighting: Weighting = "pooled",
    fraction: float = 0.2,
    before: Tensor | None = None,
    rng: np.random.Generator,
) -> Deletion:
    """Loss of the measure without the map's highest cells, beside that without random ones.

    ``before`` is the measure float [N] of the untouched network, where it is known already.
    """
    measure = subject.measures[target]
    maps = cam.by(weighting)
    before = subject.before(target) if before is None else before
    cells = differing_places(maps, _count(maps, fraction), rng, magnitude=subject.magnitude[target])
    top, random = (
        before - measure(without_cells(subject.network, subject.inputs, cam.layer, place, labels=subject.labels))
        for place in cells
    )
    return Deletion(fraction, top, random, paired(top - random, rng))


def _count(maps: Tensor, fraction: float) -> int:
    return max(1, round(fraction * maps.shape[1] * maps.shape[2]))


def check_cams(
    subject: Subject,
    layers: Sequence[str],
    chosen: str,
    *,
    fraction: float = 0.2,
    learned: float = 1.0,
    alike: int = 4,
    guard: int = 6,
    rng: np.random.Generator,
) -> tuple[tuple[CamCheck, ...], ...]:
    """Maps of all targets (outer) at all ``layers`` and in both weightings (inner), each with its checks.

    Args:
        subject: what is explained.
        layers: where.
        chosen: the one layer, fixed beforehand, that is compared with shuffled weights and may become a finding.
        fraction: of the cells that are deleted.
        learned: p that a network with shuffled weights does as well, from another test; 1 where there was none.
        alike: copies with shuffled weights whose maps are compared.
        guard: inputs for that comparison.
        rng: for random cells and shuffles.
    """
    cams = grad_cams(subject.network, subject.inputs, layers, subject.targets, labels=subject.labels)
    checks = [_deleted(subject, row, target, fraction, rng) for target, row in enumerate(cams)]
    others = _alike(subject.first(guard), chosen, max(alike, 1), rng)
    return tuple(
        tuple(
            _compared(check, [other[target] for other in others], learned) if check.cam.layer == chosen else check
            for check in row
        )
        for target, row in enumerate(checks)
    )


def _deleted(
    subject: Subject, row: Sequence[CamResult], target: int, fraction: float, rng: np.random.Generator
) -> list[CamCheck]:
    """All maps of one target in both weightings, with the deletion check."""
    before = subject.before(target)
    return [
        CamCheck(
            cam, way, deletion(subject, cam, target=target, weighting=way, fraction=fraction, before=before, rng=rng)
        )
        for cam in row
        for way in WEIGHTINGS
    ]


def _alike(subject: Subject, layer: str, copies: int, rng: np.random.Generator) -> list[tuple[CamResult, ...]]:
    """The maps of ``copies`` networks with shuffled weights, one for each target."""
    found = []
    for _ in range(copies):
        with borrowed(subject.network.module), shuffled_weights(subject.network.module, rng, subject.outputs):
            rows = grad_cams(subject.network, subject.inputs, [layer], subject.targets, labels=subject.labels)
        found.append(tuple(row[0] for row in rows))
    return found


def _compared(check: CamCheck, others: Sequence[CamResult], learned: float) -> CamCheck:
    """The check with its similarity to the maps of shuffled weights."""
    maps = [other.by(check.weighting).nan_to_num() for other in others]
    own = check.cam.by(check.weighting)
    means = [rank_correlation(own[: len(other)], other).abs().mean() for other in maps]
    return replace(check, similarity=float(torch.stack(means).mean()), learned=learned)
