"""What an attention does: its values removed, all of them, those that are attended most, and as many at random.

found = effects(subject, layer, rng)
found.branch, found.top, found.random        # 0.21, 0.08, 0.03 of what two samples differ by
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gandissect.session import Session
from gandissect_plugins.attention.maps import AttentionLayer, Subject
from gandissect_plugins.attention.trace import Mixing
from gandissect_plugins.attributions.checks import Paired, paired

TOP = 0.1
"""The part of the places whose values are removed."""
ROUNDS = 4
NOTHING = 1e-6


@dataclass(frozen=True)
class Effects:
    """Changes of the output (image or logit), as parts of what two samples differ by on average.

    Attributes:
        branch: all values removed.
        top, random: the values of a tenth of the places removed: the most attended, random ones.
        gap: ``top`` − ``random``, paired over samples.
        score: how much the discriminator's logit rose on average when the generator's branch was removed; NaN where that was not asked.
    """

    branch: float
    top: float
    random: float
    gap: Paired
    score: float

    @property
    def nothing(self) -> bool:
        """Removing the branch changes nothing."""
        return self.branch <= NOTHING


def effects(subject: Subject, layer: AttentionLayer, rng: np.random.Generator) -> Effects:
    """Run the network with values of ``layer`` removed; none of its other parts is touched."""
    before, _ = subject.run()
    scale = float(_size(before - before.roll(1, 0)).mean()) or 1.0
    n, keys = layer.received.shape
    count = max(1, round(TOP * keys))

    def without(gone: Tensor) -> Tensor:
        """The output without the values at bool [N, K]; without any, those of tokens that are no places included, where all are."""

        def look(rows: range, mixing: Mixing) -> Tensor | None:
            if mixing.name != layer.name:
                return None
            own = gone[rows.start : rows.stop]
            own = torch.cat([own, own[-1:].expand(len(mixing.values) - len(own), -1)])
            own = own.all(1, keepdim=True) | layer.places.tokens(own, mixing.values.shape[2])
            own = own.to(mixing.values.device)
            return mixing.weights @ mixing.values.masked_fill(own[:, None, :, None], 0.0)

        return subject.run(look, only=layer.name.partition("@")[0])[0]

    off = without(torch.ones(n, keys, dtype=torch.bool))
    most = _chosen(layer.received, count)
    top = _size(without(most) - before) / scale
    chance = [
        _size(without(_chosen(torch.from_numpy(rng.random((n, keys))), count)) - before) / scale for _ in range(ROUNDS)
    ]
    random = torch.stack(chance).mean(0)
    return Effects(
        float((_size(off - before) / scale).mean()), float(top.mean()), float(random.mean()),
        paired(top - random, rng), _score_change(subject.session, before, off),
    )  # fmt: skip


def _chosen(values: Tensor, count: int) -> Tensor:
    """The ``count`` largest of each row of [N, K]: bool [N, K]."""
    places = values.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros(values.shape, dtype=torch.bool).scatter_(1, places, True)


def _size(change: Tensor) -> Tensor:
    """Root mean square of each sample's change [N, …]: float64 [N]."""
    return change.double().flatten(1).square().mean(1).sqrt() if change.dim() > 1 else change.double().abs()


def _score_change(session: Session, before: Tensor, after: Tensor) -> float:
    if before.dim() == 1 or session.gan.discriminator is None:
        return float("nan")
    return float((session.score(after) - session.score(before)).double().mean())
