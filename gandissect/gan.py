"""What an adapter gives and every analyzer works on: a generator, perhaps a discriminator, and what they can do.

gan = gandissect.open("ckpt.pt")
gan.generator(latents)                  # float32 [N, C, H, W] in [-1, 1]
gan.generator.layers                    # LayerInfo of every layer whose output was read once, in order of execution
gan.discriminator(images)               # float32 [N], logits; higher means "more real"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from gandissect.errors import NoSuchCapability, unknown_name

Prior = Literal["normal", "uniform", "image"]


@dataclass(frozen=True)
class LatentSpace:
    """Where a generator's inputs come from: a named space, the shape of one input and its prior.

    ``normal`` is N(0, 1) and ``uniform`` U(span) per coordinate; ``image`` draws pictures [C, H, W] within ``span`` that have the
    1/f spectrum of natural images, for networks that turn one image into another. ``codes`` are the coordinates that the file
    calls continuous codes (InfoGAN).
    """

    name: str
    shape: tuple[int, ...]
    prior: Prior = "normal"
    span: tuple[float, float] = (-1.0, 1.0)
    codes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of coordinates of one latent."""
        return prod(self.shape)


@dataclass(frozen=True)
class InnerSpace:
    """A space between the latent and the image that a generator passes through: w, w+, s, codes.

    ``enter(z, labels)`` maps latents [N, *latent.shape] (and int64 labels [N], or None) to [N, *shape]; ``leave(x, labels)``
    makes of those what the whole module would have made. ``leave(enter(z, y), y)`` equals ``module(z, y)``.
    ``centre`` is the mean of the space [*shape] where the checkpoint has one (the point that truncation pulls to).
    """

    name: str
    shape: tuple[int, ...]
    enter: Callable[[Tensor, Tensor | None], Tensor] = field(repr=False, compare=False)
    leave: Callable[[Tensor, Tensor | None], Tensor] = field(repr=False, compare=False)
    centre: Tensor | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class LayerInfo:
    """One layer as it was seen when the network ran on one sample.

    ``name`` is dotted (``main.3``; ``relu@1`` is the second call of a module that runs more than once); ``height`` and
    ``width`` are 1 for vectors. ``inputs`` names the layers that feed it. ``main`` marks the layers that analyzers take
    by default: the last one of each stage, after its normalisation and activation.
    """

    name: str
    kind: str
    channels: int
    height: int
    width: int
    parameters: int = 0
    editable: bool = False
    main: bool = False
    inputs: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(units, height, width)."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Capabilities:
    """What was found by running one sample, never assumed."""

    hooks: bool = False
    edits: bool = False
    gradients: bool = False
    labels: bool = False
    discriminator: bool = False
    discriminator_gradients: bool = False
    deterministic: bool = True


@dataclass(frozen=True)
class Assumption:
    """Something that the file does not say and that was chosen: ``name=value``, how it was decided, and how surely."""

    name: str
    value: str
    because: str
    sure: bool = False


@dataclass(frozen=True)
class Opening:
    """How a checkpoint was opened: by whom, why, what else could have, what was assumed, and how well it was verified.

    ``generators`` are the names of a file's generators where it holds several (both directions of a CycleGAN), the opened one
    first; ``--assume network=NAME`` opens another.
    """

    adapter: str
    why: str
    family: str = ""
    score: float = 1.0
    path: Path | None = None
    container: str = "live modules"
    size: int = 0
    sha256: str = ""
    alternatives: tuple[str, ...] = ()
    assumptions: tuple[Assumption, ...] = ()
    verification: str = "not verified: nothing in the file allows it"
    mismatch: float | None = None
    notes: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()


class Network:
    """A module together with the layers that can be read from it."""

    def __init__(self, module: nn.Module, layers: Sequence[LayerInfo], role: str) -> None:
        self.module = module
        self.layers = tuple(layers)
        self.role = role

    def layer(self, name: str) -> LayerInfo:
        """The layer called ``name``, or an error that says what was meant."""
        for info in self.layers:
            if info.name == name:
                return info
        names = [info.name for info in self.layers]
        raise unknown_name("layer", name, names, f"({self.role}; `gandissect layers` lists all)")

    def main_layers(self) -> tuple[LayerInfo, ...]:
        """The layers that analyzers look at by default; all of them where none is marked."""
        return tuple(info for info in self.layers if info.main) or self.layers

    @property
    def device(self) -> torch.device:
        """Where the parameters live; the CPU for a network without any."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    @property
    def parameter_count(self) -> int:
        """Number of scalars in all parameters."""
        return sum(parameter.numel() for parameter in self.module.parameters())


class Generator(Network):
    """Latents in, images out.

    Args:
        module: a module in eval mode; called as ``module(z)`` with z float32 [N, *latent.shape], or ``module(z, labels)``
            with labels int64 [N] when ``num_classes`` is not 0.
        layers: what can be read of it.
        latent: its input space.
        image_shape: (C, H, W) of one image.
        output_range: what the module's own output spans; images are rescaled from it to [-1, 1].
        num_classes: number of labels it takes, 0 for none.
        inner: the spaces that latents pass through on their way, in order.
        encoder: called with images float32 [N, C, H, W] in ``output_range``, gives latents of as many numbers; None where there is none.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[LayerInfo],
        latent: LatentSpace,
        image_shape: tuple[int, int, int],
        *,
        output_range: tuple[float, float] = (-1.0, 1.0),
        num_classes: int = 0,
        inner: Sequence[InnerSpace] = (),
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(module, layers, "generator")
        self.encoder = encoder
        self.latent = latent
        self.image_shape = image_shape
        self.output_range = output_range
        self.num_classes = num_classes
        self.inner = tuple(inner)

    def space(self, name: str) -> InnerSpace:
        """The inner space called ``name``, its centre where the module's weights are, or an error that lists those there are."""
        for space in self.inner:
            if space.name == name:
                return space if space.centre is None else replace(space, centre=self._beside_weights(space.centre))
        raise unknown_name("latent space", name, [space.name for space in self.inner], f"(beside {self.latent.name})")

    def _beside_weights(self, point: Tensor) -> Tensor:
        weights = (t for t in (*self.module.parameters(), *self.module.buffers()) if t.is_floating_point())
        return point.to(next(weights, point))

    def __call__(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of ``latents``, differentiable where the module is.

        Args:
            latents: float32 [N, D] or [N, *latent.shape].
            labels: int64 [N]; ignored by generators that take none, class ``i % num_classes`` where left out.

        Returns:
            float32 [N, C, H, W] in [-1, 1].
        """
        z = latents.reshape(len(latents), *self.latent.shape)
        if self.num_classes:
            if labels is None:
                labels = torch.arange(len(z), device=z.device) % self.num_classes
            out = self.module(z, labels)
        else:
            out = self.module(z)
        return self.as_images(out)

    def encode(self, images: Tensor) -> Tensor:
        """Latents float32 [N, D] of images float32 [N, C, H, W] in [-1, 1], by the checkpoint's own encoder.

        Raises:
            NoSuchCapability: it has none.
        """
        if self.encoder is None:
            raise NoSuchCapability("this checkpoint has no encoder")
        low, high = self.output_range
        latents: Tensor = self.encoder((images + 1.0) * ((high - low) / 2.0) + low)
        return latents.reshape(len(images), -1).float()

    def as_images(self, out: Tensor) -> Tensor:
        """What the module itself gives for N latents, as float32 [N, C, H, W] in [-1, 1]."""
        low, high = self.output_range
        images: Tensor = out.reshape(len(out), *self.image_shape).float()
        if (low, high) != (-1.0, 1.0):
            images = (images - low) * (2.0 / (high - low)) - 1.0
        return images


class Discriminator(Network):
    """Images in, one logit each out; a probability at the module's end is turned back into its logit.

    Args:
        module: a module in eval mode called with float32 [N, C, H, W] in ``input_range``; a vector or a map of outputs
            per image is averaged to one number.
        image_shape: (C, H, W) of one image.
        output: "logit" for an unbounded score, "probability" when the module ends in a sigmoid.
        input_range: what the module was trained on; images come in [-1, 1].
        flatten: the module takes [N, C*H*W].
        num_classes: number of labels it takes as a second argument, int64 [N]; 0 for none.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[LayerInfo],
        image_shape: tuple[int, int, int],
        *,
        output: Literal["logit", "probability"] = "logit",
        input_range: tuple[float, float] = (-1.0, 1.0),
        flatten: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__(module, layers, "discriminator")
        self.image_shape = image_shape
        self.output = output
        self.input_range = input_range
        self.flatten = flatten
        self.num_classes = num_classes

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores of ``images``, differentiable where the module is.

        Args:
            images: float32 [N, C, H, W] in [-1, 1].
            labels: int64 [N]; ignored by discriminators that take none, class ``i % num_classes`` where left out.

        Returns:
            float32 [N], logits; higher means "more real".
        """
        low, high = self.input_range
        x = images if (low, high) == (-1.0, 1.0) else (images + 1.0) * ((high - low) / 2.0) + low
        given = x.flatten(1) if self.flatten else x
        if self.num_classes:
            if labels is None:
                labels = torch.arange(len(x), device=x.device) % self.num_classes
            out = self.module(given, labels)
        else:
            out = self.module(given)
        scores: Tensor = out.reshape(len(images), -1).float().mean(1)
        if self.output == "probability":
            scores = torch.logit(scores.clamp(1e-7, 1.0 - 1e-7))
        return scores


@dataclass(frozen=True)
class Gan:
    """An opened GAN: its networks, what can be done with them, and how it was opened."""

    name: str
    generator: Generator
    discriminator: Discriminator | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)
    opening: Opening = field(default_factory=lambda: Opening("live", "given as modules"))

    def network(self, role: Literal["generator", "discriminator"]) -> Network:
        """The network of that role; an error where the GAN has no discriminator."""
        if role == "generator":
            return self.generator
        if self.discriminator is None:
            raise unknown_name("network", "discriminator", ["generator"], "(pass --discriminator)")
        return self.discriminator

    @property
    def summary(self) -> str:
        """One line: family, latent, image and how it was opened."""
        c, h, w = self.generator.image_shape
        colour = {1: "grey", 3: "RGB", 4: "RGBA"}.get(c, f"{c} channels")
        latent = self.generator.latent
        size = (
            f"{latent.shape[2]}×{latent.shape[1]}"
            if latent.prior == "image" and len(latent.shape) == 3
            else f"{latent.size}"
        )
        parts = [
            self.opening.family or "GAN",
            f"{latent.name} {size} → {w}×{h} {colour}",
            f"opened from {self.opening.container} by {self.opening.adapter}",
        ]
        return " · ".join(parts)
