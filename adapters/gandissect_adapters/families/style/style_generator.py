"""A generator in two halves, latent to style and style to image, and the spaces between them.

net = StyleGenerator(Mapping(z=512, w=512, depth=8), synthesis, psi=0.7)
net(z)                                  # images [N, C, H, W]
inner_spaces(net)                       # w, w+ and s
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from itertools import pairwise
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect.gan import InnerSpace
from gandissect_adapters.families.family import Case, Option
from gandissect_adapters.families.style.ops import EqualLinear, lrelu, pixel_norm, truncate


class Synthesis(Protocol):
    """What draws images from styles; an nn.Module."""

    num_ws: int
    """Number of w that it takes, L."""

    def __call__(self, ws: Tensor) -> Tensor:
        """Images [N, C, H, W] of w [N, L, W]; equals ``draw(styles(ws))``."""

    def styles(self, ws: Tensor) -> list[Tensor]:
        """What each layer is modulated with, [N, units of its input] each, in order of execution."""

    def draw(self, styles: list[Tensor]) -> Tensor:
        """Images of those."""


class Mapping(nn.Module):
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
        super().__init__()
        self.classes = classes
        if classes:
            self.make_embedding(classes, embedding, z)
        sizes = [z + embedding if classes else z, *[hidden or w] * (depth - 1), w]
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            self.add_module(f"fc{index}", EqualLinear(inputs, outputs, rate=rate, activation=lrelu))
        self.depth = depth
        if averaged:
            self.register_buffer("w_avg", torch.zeros(w))

    def make_embedding(self, classes: int, embedding: int, z: int) -> None:
        """Put in place what ``embedded`` needs."""
        self.embed = EqualLinear(classes, embedding)

    def embedded(self, labels: Tensor) -> Tensor:
        """[N, embedding] of int64 [N]."""
        return cast("Tensor", self.embed(F.one_hot(labels, self.classes).float()))

    def forward(self, z: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """[N, W] of z [N, Z] (None where Z is 0) and int64 labels [N]."""
        parts = [] if z is None else [pixel_norm(z)]
        if self.classes:
            assert labels is not None
            parts.append(pixel_norm(self.embedded(labels)))
        x = torch.cat(parts, 1)
        for index in range(self.depth):
            x = self.get_submodule(f"fc{index}")(x)
        return x

    def centre(self, labels: Tensor | None) -> Tensor:
        """What truncation pulls w to: [W], or [N, W] where every class has its own."""
        if self.w_avg.dim() == 1:
            return self.w_avg
        return self.w_avg[labels] if labels is not None and len(self.w_avg) > 1 else self.w_avg.mean(0)


class StyleGenerator(nn.Module):
    """Images [N, C, H, W] of latents [N, Z] and, where the mapping takes some, int64 labels [N].

    Args:
        psi: truncation; 1 for none.
        pulled: how many of the w, from the coarsest on, truncation acts on; None for all.
    """

    def __init__(self, mapping: Mapping, synthesis: nn.Module, *, psi: float = 1.0, pulled: int | None = None) -> None:
        super().__init__()
        self.synthesis, self.mapping = synthesis, mapping
        self.psi, self.pulled = psi, pulled

    @property
    def drawer(self) -> Synthesis:
        """The synthesis network under its contract."""
        return cast("Synthesis", self.synthesis)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """float32 [N, C, H, W], about -1 to 1."""
        return self.drawer(self.spread(self.mapping(z, labels), labels))

    def spread(self, w: Tensor, labels: Tensor | None) -> Tensor:
        """[N, L, W]: w [N, W] for every layer, pulled to the centre by ``psi``."""
        ws = w[:, None].expand(-1, self.drawer.num_ws, -1)
        return truncate(ws, self.mapping.centre(labels), self.psi, layers=self.pulled)


def inner_spaces(net: StyleGenerator) -> tuple[InnerSpace, ...]:
    """w (one style vector), w+ (one per layer, Abdal et al. 2019) and s (the modulations themselves, Wu et al. 2021).

    Truncation lies between w and w+. ``s`` holds the styles of all layers one after another, in order of execution.
    """
    drawer = net.drawer
    with torch.no_grad():
        mean = net.mapping.centre(None).detach()
        means = mean.expand(drawer.num_ws, -1)
        styles = drawer.styles(means[None])
    sizes = [style.shape[1] for style in styles]

    def to_ws(z: Tensor, labels: Tensor | None) -> Tensor:
        return net.spread(net.mapping(z, labels), labels)

    def from_s(s: Tensor, _labels: Tensor | None) -> Tensor:
        return drawer.draw(list(torch.split(s, sizes, 1)))

    return (
        InnerSpace("w", (len(mean),), net.mapping, lambda w, labels: drawer(net.spread(w, labels)), mean),
        InnerSpace("w+", (drawer.num_ws, len(mean)), to_ws, lambda ws, _labels: drawer(ws), means),
        InnerSpace(
            "s", (sum(sizes),), lambda z, labels: torch.cat(drawer.styles(to_ws(z, labels)), 1), from_s,
            torch.cat(styles, 1)[0],
        ),
    )  # fmt: skip


OPTIONS: Table[str, Option] = {
    "truncation": Option("psi, how much of w's distance from its average is kept", "1", "images as trained"),
    "truncation-layers": Option("number of w that truncation acts on", "all"),
    "clamp": Option("largest absolute activation; none for no limit", "256", "what NVlabs' training script sets"),
    "rate": Option("learning rate multiplier of the mapping network", "0.01"),
}
"""What no state dict of NVlabs' generators says."""


def truncation(case: Case) -> tuple[float, int | None]:
    """(psi, number of w it acts on or None) as asked for."""
    psi = case.number("truncation")
    layers = case.option("truncation-layers")
    return psi, None if layers == "all" else case.whole("truncation-layers")


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
