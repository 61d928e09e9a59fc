"""The networks of a GAN, run in whole blocks: in eval mode, without gradients, and with less at a time where memory runs out.

runner = Runner(gan, seed=0)
runner.generate(latents, edit=switch_off([3]), layers=["layer4"])     # float32 [N, C, H, W] in [-1, 1]

Convolution kernels are chosen by batch size, so a network always sees ``BLOCK`` samples, the last block filled up: then sample
i has the same bits whatever is asked for together with it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator as Generates
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gandissect import sampling
from gandissect.borrow import borrowed
from gandissect.concepts import Vocabulary
from gandissect.errors import NoSuchCapability, UsageError
from gandissect.gan import Gan
from gandissect.real import RealImages
from gandissect.streams import Batch, Role, Stream
from gandissect.tap import Edit, tap

log = logging.getLogger("gandissect")
BLOCK = 16


@dataclass(frozen=True)
class Reading:
    """What a pass has to look at: layers of both networks, the discriminator's logits, generated or real images.

    Without ``images`` the generator runs only as far as its layers are read.
    """

    generator: tuple[str, ...] = ()
    discriminator: tuple[str, ...] = ()
    scores: bool = False
    real: bool = False
    images: bool = True

    @classmethod
    def of(cls, streams: Iterable[Stream], real: bool) -> Reading:
        """What ``streams`` need.

        Raises:
            UsageError: activations of the generator for real images.
        """
        asked = list(streams)

        def layers(role: Role) -> tuple[str, ...]:
            return tuple(sorted({name for stream in asked if (name := stream.layer(role)) is not None}))

        if real and layers("generator"):
            raise UsageError("real images have no generator activations; invert them first")
        judged = bool(layers("discriminator")) or any(stream.needs_scores for stream in asked)
        images = judged or any(stream.needs_images for stream in asked) or not layers("generator")
        return cls(layers("generator"), layers("discriminator"), judged, real, images)


@runtime_checkable
class InOrder(Protocol):
    """An edit that differs from row to row, and is told before each block with which row that begins."""

    def begin(self, row: int) -> None:
        """The next output belongs to the rows from ``row`` on."""
        ...


class Runner:
    """Runs both networks of ``gan`` on samples of ``seed``, real images, or whatever is given.

    Attributes:
        block: samples that a network sees at once; halved when memory runs out, which ``notes`` then says.
    """

    def __init__(
        self, gan: Gan, *, seed: int = 0, real: RealImages | None = None, notes: list[str] | None = None
    ) -> None:
        self.gan = gan
        self.seed = seed
        self.real = real
        self.block = BLOCK
        self.notes = [] if notes is None else notes

    @contextmanager
    def borrowed(self) -> Generates[None]:
        """All networks in eval mode for the block and as they were after it; see :func:`gandissect.borrow.borrowed`."""
        modules: list[nn.Module] = [self.gan.generator.module]
        if self.gan.discriminator is not None:
            modules.append(self.gan.discriminator.module)
        if self.gan.generator.encoder is not None:
            modules.append(self.gan.generator.encoder)
        with borrowed(*modules):
            yield

    def labels(self, indices: Iterable[int], network: Role = "generator") -> Tensor | None:
        """The class of each sample, ``index % num_classes``: int64 [N]; None for a network without labels."""
        generator, discriminator = self.gan.generator, self.gan.discriminator
        classes = generator.num_classes
        if network == "discriminator" and discriminator is not None:
            classes = classes or discriminator.num_classes
        if not classes:
            return None
        return torch.tensor([index % classes for index in indices], device=generator.device)

    def samples(self, start: int, stop: int, reading: Reading, vocabulary: Vocabulary) -> Iterator[Batch]:
        """The samples start..stop-1 with everything that is to be read of them, a block at a time.

        Raises:
            NoSuchCapability: no real images, or no discriminator, where they are asked for.
        """
        done = start
        while done < stop:
            batch = self._retried(done, stop, reading, vocabulary)
            yield batch
            done += len(batch.indices)

    def _retried(self, start: int, stop: int, reading: Reading, vocabulary: Vocabulary) -> Batch:
        """The block that begins at ``start``, retried with half of it when memory runs out."""
        while True:
            try:
                return self._forward(start, stop, reading, vocabulary)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if "memory" not in str(error).lower() or self.block == 1:
                    raise
                self.block //= 2
                self.notes.append(f"out of memory: went on with blocks of {self.block} samples")
                log.warning(self.notes[-1])

    def _forward(self, start: int, stop: int, reading: Reading, vocabulary: Vocabulary) -> Batch:
        size = min(self.block, stop - start)
        indices = list(range(start, start + size))
        with self.borrowed(), torch.no_grad():
            latents, images, acts = self._sources(start, indices, reading)
            seen, scores = self._judged(images, reading.discriminator, start) if reading.scores else ({}, None)
            return Batch(
                indices,
                latents[:size],
                images[:size].cpu(),
                {name: value[:size].float().cpu() for name, value in acts.items()},
                {name: value[:size].float().cpu() for name, value in seen.items()},
                None if scores is None else scores[:size].float().cpu(),
                vocabulary,
            )

    def _sources(self, start: int, indices: list[int], reading: Reading) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(latents, images, activations) of a whole block: always ``block`` samples where they are generated."""
        generator = self.gan.generator
        if reading.real:
            if self.real is None:
                raise NoSuchCapability("no real images were given; pass --data FOLDER")
            pictures = filled(self.real.batch(indices), self.block)
            return torch.zeros(len(indices), 0), pictures.to(generator.device), {}
        whole = range(start, start + self.block)
        latents = sampling.latents(self.seed, whole, generator.latent)
        images = torch.zeros(self.block, 0)
        with tap(generator.module, reading.generator, only=not reading.images) as acts:
            images = generator(latents.to(generator.device), self.labels(whole))
        return latents, images, dict(acts)

    def _judged(self, images: Tensor, layers: Sequence[str], start: int) -> tuple[dict[str, Tensor], Tensor]:
        discriminator = self.gan.discriminator
        if discriminator is None:
            raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
        with tap(discriminator.module, layers) as acts:
            scores = discriminator(images, self.labels(range(start, start + len(images)), "discriminator"))
        return dict(acts), scores

    def generate(
        self,
        latents: Tensor,
        *,
        edit: Edit | None = None,
        layers: Sequence[str] = (),
        labels: Tensor | None = None,
        first: int = 0,
    ) -> Tensor:
        """Images of any latents float32 [N, D], of row ``first`` and on: float32 [N, C, H, W] in [-1, 1] on the CPU."""
        generator = self.gan.generator
        parts = []
        with ExitStack() as stack:
            stack.enter_context(self.borrowed())
            stack.enter_context(torch.no_grad())
            if edit is not None:
                stack.enter_context(tap(generator.module, layers, edit))
            for start in range(0, len(latents), self.block):
                chunk = filled(latents[start : start + self.block], self.block).to(generator.device)
                given = None if labels is None else filled(labels[start : start + self.block], self.block)
                if isinstance(edit, InOrder):
                    edit.begin(first + start)
                parts.append(generator(chunk, given)[: len(latents) - start].cpu())
        return torch.cat(parts) if parts else torch.zeros(0, *generator.image_shape)

    def score(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The discriminator's logits of any images float32 [N, C, H, W] in [-1, 1]: float32 [N].

        Raises:
            NoSuchCapability: there is no discriminator.
        """
        discriminator = self.gan.discriminator
        if discriminator is None:
            raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
        parts = []
        with self.borrowed(), torch.no_grad():
            for start in range(0, len(images), self.block):
                chunk = filled(images[start : start + self.block], self.block).to(self.gan.generator.device)
                classes = None if labels is None else filled(labels[start : start + self.block], self.block)
                parts.append(discriminator(chunk, classes)[: len(images) - start].cpu())
        return torch.cat(parts) if parts else torch.zeros(0)


def filled(rows: Tensor, count: int) -> Tensor:
    """``rows`` repeated at the end up to ``count`` of them, so that a network always sees a whole block."""
    if len(rows) == count:
        return rows
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])
