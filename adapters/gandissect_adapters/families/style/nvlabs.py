"""What NVlabs' StyleGANs share: their mapping network with labels, the whole generator, and what their pickles say.

net = StyleGenerator(Mapping(z=512, w=512, depth=8), synthesis)
net(z)                                  # images [N, C, H, W]
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect_adapters.families.family import Case, Option
from gandissect_adapters.families.layers import EqualLinear
from gandissect_adapters.families.style.style_network import (
    TRUNCATION,
    TRUNCATION_LAYERS,
    MappingNetwork,
    ModulatedNetwork,
)


class Synthesis(Protocol):
    """What draws images from styles; an nn.Module."""

    style_count: int
    """Number of w that it takes, L."""

    def __call__(self, ws: Tensor) -> Tensor:
        """Images [N, C, H, W] of w [N, L, W]; equals ``paint(modulate(ws))``."""

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """What each layer is modulated with, [N, units of its input] each, in order of execution."""

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Images of those."""


class Mapping(MappingNetwork):
    """z and labels to w: each normalised to second moment 1, side by side, then fully connected layers (StyleGAN2-ADA, app. B).

    Submodules are called ``fc0``, ``fc1`` … and ``embed``, the average of w ``w_avg`` [W], as in NVlabs' files.

    Args:
        z: size of the latent; 0 for labels alone.
        w: size of the result.
        classes: number of labels; ``embed`` takes them one-hot and gives ``embedding`` numbers.
        rate: learning rate multiplier of the layers.
        averaged: there is a ``w_avg``.
        hidden: size of the inner layers; w where left out.
    """

    w_avg: Tensor
    embed: nn.Module

    def __init__(
        self,
        z: int,
        w: int,
        depth: int,
        *,
        classes: int = 0,
        embedding: int = 0,
        rate: float = 0.01,
        averaged: bool = True,
        hidden: int = 0,
    ) -> None:
        entering = z + embedding if classes else z
        super().__init__([entering, *[hidden or w] * (depth - 1), w], layer="fc", rate=rate)
        self.classes = classes
        if classes:
            self.make_embedding(classes, embedding)
        if averaged:
            self.register_buffer("w_avg", torch.zeros(w))

    def make_embedding(self, classes: int, embedding: int) -> None:
        """Put in place what ``embedded`` needs."""
        self.embed = EqualLinear(classes, embedding)

    def embedded(self, labels: Tensor) -> Tensor:
        """[N, embedding] of int64 [N]."""
        return cast("Tensor", self.embed(F.one_hot(labels, self.classes).to(self.get_parameter("embed.weight"))))

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """[N, W] of z [N, Z] (None where Z is 0) and int64 labels [N]."""
        parts = [] if z is None else [self.norm(z)]
        if self.classes:
            assert labels is not None
            parts.append(self.norm(self.embedded(labels)))
        return self.mapped(torch.cat(parts, 1))

    def centre(self, labels: Tensor | None) -> Tensor:
        """What truncation pulls w to: [W], or [N, W] where every class has its own."""
        if self.w_avg.dim() == 1:
            return self.w_avg
        return self.w_avg[labels] if labels is not None and len(self.w_avg) > 1 else self.w_avg.mean(0)


class StyleGenerator(ModulatedNetwork):
    """Images [N, C, H, W] of latents [N, Z] and, where the mapping takes some, int64 labels [N]."""

    def __init__(self, mapping: Mapping, synthesis: nn.Module) -> None:
        super().__init__()
        self.synthesis, self.mapping = synthesis, mapping

    @property
    def _drawer(self) -> Synthesis:
        return cast("Synthesis", self.synthesis)

    @property
    def style_count(self) -> int:
        """As its synthesis network says."""
        return self._drawer.style_count

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents [N, Z] to w [N, W], before truncation."""
        return cast("Tensor", self.mapping(z, labels))

    def synthesise(self, ws: Tensor) -> Tensor:
        """Styles [N, L, W] to images [N, C, H, W]."""
        return self._drawer(ws)

    def modulate(self, ws: Tensor) -> list[Tensor]:
        """Styles [N, L, W] to the scales of each modulated convolution."""
        return self._drawer.modulate(ws)

    def paint(self, scales: list[Tensor]) -> Tensor:
        """Those to images [N, C, H, W]."""
        return self._drawer.paint(scales)

    def centre_of(self, labels: Tensor | None) -> Tensor:
        """The mapping network's average of w, [W] or one per label [N, W]."""
        return self.mapping.centre(labels)


OPTIONS: Table[str, Option] = {
    "truncation": TRUNCATION,
    "truncation-layers": TRUNCATION_LAYERS,
    "clamp": Option("largest absolute activation; none for no limit", "256", "what NVlabs' training script sets"),
    "rate": Option("learning rate multiplier of the mapping network", "0.01"),
}
"""What no state dict of NVlabs' generators says."""


def recorded(case: Case, path: str, attribute: str) -> object:
    """What the pickle says of a submodule's attribute; None where it says nothing."""
    record = case.net.records.get(path)
    return None if record is None else record.attributes.get(attribute)


def clamp_of(case: Case, path: str) -> float | None:
    """The clamp of the layer at ``path`` and of all others, None for none."""
    record = case.net.records.get(path)
    found = (
        None if record is None or "conv_clamp" not in record.attributes else record.attributes["conv_clamp"] or "none"
    )
    value = case.option("clamp", found, f"the pickle's {path}.conv_clamp")
    return None if value == "none" else float(value)


def check_activations(case: Case) -> None:
    """Make sure that every layer is linear or leaky ReLU, as far as the pickle says.

    Raises:
        NotOpened: another activation.
    """
    for path, record in case.net.records.items():
        kind = record.attributes.get("activation", "lrelu")
        if kind not in ("lrelu", "linear"):
            raise NotOpened(f"{path} has activation {kind!r}; only the default lrelu can be rebuilt")


def rate_of(case: Case) -> float:
    """The learning rate multiplier of ``mapping``: its bias gain."""
    found = recorded(case, "mapping.fc0", "bias_gain")
    return case.number("rate", float(found) if isinstance(found, (int, float)) else None, "the pickle's mapping.fc0")
