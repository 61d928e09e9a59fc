"""The evidence that all analyzers share: one pass over the samples, every result memoised by value.

    session = Session(gan, n=1000, seed=0)
    session.images(64)                                   # float32 [64, C, H, W] in [-1, 1]
    session.activations("layer4", 64)                    # float32 [64, C, H, W]
    session[Want((Activations("layer4"),), MomentsSpec(), n=1000)].mean

Numbers do not depend on the batch size: networks always see blocks of ``BLOCK`` consecutive samples, the last one filled
up with the samples that follow, so sample i has the same bits whatever is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Generator as Generates
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from gandissect import sampling
from gandissect.borrow import borrowed
from gandissect.concepts import Vocabulary
from gandissect.errors import NoSuchCapability, UsageError
from gandissect.gan import Gan
from gandissect.progress import Progress, Silent
from gandissect.real import RealImages
from gandissect.reducers import KeepSpec, ReducerSpec
from gandissect.streams import (
    Activations,
    Areas,
    Batch,
    CellAreas,
    Images,
    Latents,
    Masks,
    Role,
    Scores,
    Stream,
)
from gandissect.surveying import survey
from gandissect.tap import Edit, tap

__all__ = [
    "BLOCK",
    "Activations",
    "Areas",
    "CellAreas",
    "Images",
    "Latents",
    "Masks",
    "Scores",
    "Session",
    "Stream",
    "Want",
]

log = logging.getLogger("gandissect")
T = TypeVar("T")
BLOCK = 16
AFFORDABLE = 1e12
"""Multiply-adds that one analysis may spend on further images: about a minute on one CPU core."""


@dataclass(frozen=True)
class Want:
    """Something to be gathered: streams, the reducer that takes them in, over how many samples, generated or real."""

    streams: tuple[Stream, ...]
    reduce: ReducerSpec
    n: int
    real: bool = False


class Session:
    """One analysis of one GAN: samples, evidence, randomness.

    Args:
        gan: what is analysed; its modules are put into eval mode while they run and are given back as they were.
        vocabulary: who finds concepts; none by default.
        real: images to compare with.
        n: number of samples that analyzers use unless they say otherwise.
        seed: all randomness follows from it.
        batch_size: samples handed to a reducer at a time; a matter of memory only.
        progress: told about phases; silent by default.
    """

    def __init__(
        self,
        gan: Gan,
        *,
        vocabulary: Vocabulary | None = None,
        real: RealImages | None = None,
        n: int = 1000,
        seed: int = 0,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> None:
        if n < 1 or batch_size < 1:
            raise UsageError(f"number of samples and batch size must be at least 1, got {n} and {batch_size}")
        self.gan = gan
        self.real = real
        self.n = n
        self.seed = seed
        self.batch_size = batch_size
        self.progress: Progress = progress or Silent()
        self.passes = 0
        self.images_generated = 0
        self.notes: list[str] = []
        self._block = BLOCK
        self._memo: dict[Want, object] = {}
        self._remembered: dict[type, object] = {}
        self._vocabulary = vocabulary or Vocabulary([])
        self._fitted: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The concepts, adapted to this GAN's first samples where a segmenter asks for that."""
        if self._fitted is None:
            self._fitted = self._vocabulary
            if self._vocabulary.adapts:
                self._fitted = self._vocabulary.fitted(self.images(min(128, self.n)))
        return self._fitted

    def rng(self, name: str) -> np.random.Generator:
        """Randomness for one purpose, the same in every run with this seed."""
        return sampling.named_rng(self.seed, name)

    @contextmanager
    def borrowed(self) -> Generates[None]:
        """Both networks in eval mode for the block and as they were after it; see :func:`gandissect.borrow.borrowed`."""
        modules: list[nn.Module] = [self.gan.generator.module]
        if self.gan.discriminator is not None:
            modules.append(self.gan.discriminator.module)
        with borrowed(*modules):
            yield

    def remember(self, result: object) -> None:
        """Let later analyzers use a typed result (``session.remember(dissection)``); one of each type is kept."""
        self._remembered[type(result)] = result

    def recall(self, kind: type[T]) -> T | None:
        """The result of that type which an earlier analyzer remembered, or None."""
        found = self._remembered.get(kind)
        return found if isinstance(found, kind) else None

    # -- evidence by name: each is a memoised Want ------------------------------------------------------------------

    def latents(self, n: int | None = None) -> Tensor:
        """The first ``n`` latents (all ``self.n`` where left out): float32 [n, D]."""
        return self.latents_at(range(self.n if n is None else n))

    def latents_at(self, indices: Iterable[int]) -> Tensor:
        """The latents of some samples: float32 [N, D]."""
        return sampling.latents(self.seed, indices, self.gan.generator.latent)

    def images(self, n: int | None = None) -> Tensor:
        """The first ``n`` samples: float32 [n, C, H, W] in [-1, 1]."""
        return self._kept(Images(), n)

    def activations(
        self, layer: str, n: int | None = None, network: Role = "generator", *, real: bool = False
    ) -> Tensor:
        """A layer's output on the first ``n`` samples (or real images): float32 [n, C, H, W]."""
        self.gan.network(network).layer(layer)
        return self._kept(Activations(layer, network), n, real=real)

    def masks(self, n: int | None = None, *, real: bool = False) -> Tensor:
        """Concept masks of the first ``n`` samples (or real images): bool [n, K, H, W]."""
        return self._kept(Masks(), n, dtype="bool", real=real)

    def areas(self, n: int | None = None, *, real: bool = False) -> Tensor:
        """Fraction of each image that each concept covers: float32 [n, K]."""
        return self._kept(Areas(), n, real=real)

    def scores(self, n: int | None = None, *, real: bool = False) -> Tensor:
        """The discriminator's logits of the first ``n`` samples (or real images): float32 [n]."""
        return self._kept(Scores(), n, real=real)

    def real_images(self, n: int | None = None) -> Tensor:
        """The first ``n`` real images, all at most: float32 [n', C, H, W] in [-1, 1]."""
        return self._kept(Images(), n, real=True)

    def _kept(self, stream: Stream, n: int | None, *, dtype: str = "float32", real: bool = False) -> Tensor:
        """A stream as a tensor; cut from a longer one where that was gathered already."""
        count = self._count(n, real)
        spec = KeepSpec(dtype)
        for want, known in self._memo.items():
            if want.streams == (stream,) and want.reduce == spec and want.real == real and want.n >= count:
                return cast(Tensor, known)[:count]
        return cast(Tensor, self[Want((stream,), spec, count, real)])

    def _count(self, n: int | None, real: bool) -> int:
        count = self.n if n is None else n
        return min(count, len(self.real)) if real and self.real is not None else count

    @cached_property
    def effort(self) -> float:
        """What one image costs the generator, about, in multiply-adds: read from one run, the same on every machine."""
        generator = self.gan.generator
        with self.borrowed():
            z = self.latents(1).to(generator.device)
            return survey(generator.module, lambda _net, x: generator(x, self.labels(range(1))), z).effort

    def affordable(self, images: int) -> int:
        """How many of ``images`` an analysis should generate beyond the shared pass: fewer for very large generators."""
        return min(images, int(AFFORDABLE / max(self.effort, 1.0)))

    # -- the fused pass ---------------------------------------------------------------------------------------------

    def __getitem__(self, want: Want) -> object:
        """The result of ``want``, from the shared pass or, at the price of one more pass, gathered now."""
        if want not in self._memo:
            if self.passes:
                log.info("one more pass of %d images for %s; declare it in wants()", want.n, want.streams)
            self.prepare([want])
        return self._memo[want]

    def prepare(self, wants: Iterable[Want]) -> None:
        """Gather all ``wants`` that are not known yet, generated samples in one pass and real images in another."""
        missing = [want for want in dict.fromkeys(wants) if want not in self._memo]
        for real in (False, True):
            fused = [want for want in missing if want.real == real]
            if fused:
                self._gather(fused, real)

    def _gather(self, wants: Sequence[Want], real: bool) -> None:
        reducers = [(want, want.reduce()) for want in wants]
        n = max(want.n for want in wants)
        self.passes += 1
        if real and any(stream.needs_scores for want in wants for stream in want.streams):
            self._note_guessed_labels()
        with self.progress.phase("reading real images" if real else "generating samples", n) as advance:
            for batch in self._batches(n, [stream for want in wants for stream in want.streams], real):
                for want, reducer in reducers:
                    inside = sum(index < want.n for index in batch.indices)
                    if inside:
                        reducer.add(batch.indices[:inside], *(batch.get(stream)[:inside] for stream in want.streams))
                advance(len(batch.indices))
        for want, reducer in reducers:
            self._memo[want] = reducer.result()

    def _batches(self, n: int, streams: Sequence[Stream], real: bool) -> Iterator[Batch]:
        """Batches of at most ``batch_size`` samples 0..n-1 with everything ``streams`` need."""
        read: dict[Role, list[str]] = {"generator": [], "discriminator": []}
        for role in read:
            read[role] = sorted({name for stream in streams if (name := stream.layer(role)) is not None})
        if real and read["generator"]:
            raise UsageError("real images have no generator activations; invert them first")
        with_scores = bool(read["discriminator"]) or any(stream.needs_scores for stream in streams)
        done = 0
        while done < n:
            block = self._run_block(done, read, with_scores, real, n)
            for start in range(0, len(block.indices), self.batch_size):
                yield block.cut(start, min(start + self.batch_size, len(block.indices)))
            done += len(block.indices)

    def _run_block(self, start: int, read: dict[Role, list[str]], with_scores: bool, real: bool, n: int) -> Batch:
        """Samples start..start+block-1 (those below n), retried with half the block when memory runs out."""
        while True:
            try:
                return self._forward(start, read, with_scores, real, n)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if "memory" not in str(error).lower() or self._block == 1:
                    raise
                self._block //= 2
                self.notes.append(f"out of memory: went on with blocks of {self._block} samples")
                log.warning(self.notes[-1])

    def _forward(self, start: int, read: dict[Role, list[str]], with_scores: bool, real: bool, n: int) -> Batch:
        size = min(self._block, n - start)
        indices = list(range(start, start + size))
        with self.borrowed(), torch.no_grad():
            latents, images, acts = self._sources(start, indices, read["generator"], real)
            seen, scores = self._judged(images, read["discriminator"], start) if with_scores else ({}, None)
            return Batch(
                indices,
                latents[:size],
                images[:size].cpu(),
                {name: value[:size].float().cpu() for name, value in acts.items()},
                {name: value[:size].float().cpu() for name, value in seen.items()},
                None if scores is None else scores[:size].float().cpu(),
                self.vocabulary,
            )

    def _sources(
        self, start: int, indices: list[int], layers: list[str], real: bool
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(latents, images, activations) of a whole block: always ``_block`` samples where they are generated."""
        generator = self.gan.generator
        if real:
            if self.real is None:
                raise NoSuchCapability("no real images were given; pass --data FOLDER")
            pictures = _filled(self.real.batch(indices), self._block)
            return torch.zeros(len(indices), 0), pictures.to(generator.device), {}
        latents = sampling.latents(self.seed, range(start, start + self._block), generator.latent)
        with tap(generator.module, layers) as acts:
            images = generator(latents.to(generator.device), self.labels(range(start, start + self._block)))
        self.images_generated += len(indices)
        return latents, images, dict(acts)

    def _judged(self, images: Tensor, layers: list[str], start: int) -> tuple[dict[str, Tensor], Tensor]:
        discriminator = self.gan.discriminator
        if discriminator is None:
            raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
        with tap(discriminator.module, layers) as acts:
            scores = discriminator(images, self.labels(range(start, start + len(images)), "discriminator"))
        return dict(acts), scores

    def _note_guessed_labels(self) -> None:
        """Say once that a class-conditional discriminator was asked about classes that real images do not have."""
        classes = self.gan.discriminator.num_classes if self.gan.discriminator else 0
        note = (
            f"real images come without classes: the discriminator was asked whether image i is of class i % {classes}"
        )
        if classes and note not in self.notes:
            self.notes.append(note)

    # -- on demand: edited samples, scores and masks of any images ------------------------------------------------------

    def labels(self, indices: Iterable[int], network: Role = "generator") -> Tensor | None:
        """The class of each sample, ``index % num_classes``: int64 [N]; None for a network without labels.

        A discriminator is asked about the class that the generator was given, where that takes one.
        """
        generator, discriminator = self.gan.generator, self.gan.discriminator
        classes = generator.num_classes
        if network == "discriminator" and discriminator is not None:
            classes = classes or discriminator.num_classes
        if not classes:
            return None
        return torch.tensor([index % classes for index in indices], device=generator.device)

    def sample_name(self, index: int) -> str:
        """ "sample 17", with its class where the generator takes one: what a sample is called under its picture."""
        classes = self.gan.generator.num_classes
        return f"sample {index}, class {index % classes}" if classes else f"sample {index}"

    def generate(
        self,
        latents: Tensor,
        *,
        edit: Edit | None = None,
        layers: Sequence[str] = (),
        labels: Tensor | None = None,
    ) -> Tensor:
        """Images of any latents, with ``edit`` applied at ``layers``; run in blocks, without gradients.

        Args:
            latents: float32 [N, D].
            edit: see :data:`gandissect.tap.Edit`.
            layers: where it is applied.
            labels: int64 [N] for class-conditional generators.

        Returns:
            float32 [N, C, H, W] in [-1, 1] on the CPU.
        """
        generator = self.gan.generator
        parts = []
        with ExitStack() as stack:
            stack.enter_context(self.borrowed())
            stack.enter_context(torch.no_grad())
            if edit is not None:
                stack.enter_context(tap(generator.module, layers, edit))
            for start in range(0, len(latents), self._block):
                chunk = _filled(latents[start : start + self._block], self._block).to(generator.device)
                given = None if labels is None else _filled(labels[start : start + self._block], self._block)
                count = min(self._block, len(latents) - start)
                parts.append(generator(chunk, given)[:count].cpu())
        self.images_generated += len(latents)
        return torch.cat(parts) if parts else torch.zeros(0, *generator.image_shape)

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The discriminator's logits of any images float32 [N, C, H, W] in [-1, 1]: float32 [N].

        ``labels`` int64 [N] are their classes for a discriminator that takes any; those of the first N samples where left out.
        """
        discriminator = self.gan.discriminator
        if discriminator is None:
            raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
        given = self.labels(range(len(images)), "discriminator") if labels is None else labels
        parts = []
        with self.borrowed(), torch.no_grad():
            for start in range(0, len(images), self._block):
                chunk = images[start : start + self._block]
                filled = _filled(chunk, self._block).to(self.gan.generator.device)
                classes = None if given is None else _filled(given[start : start + self._block], self._block)
                parts.append(discriminator(filled, classes)[: len(chunk)].cpu())
        return torch.cat(parts) if parts else torch.zeros(0)

    def segment(self, images: Tensor, indices: Sequence[int] | None = None) -> Tensor:
        """Concept masks of any images float32 [N, C, H, W] in [-1, 1]: bool [N, K, H, W]."""
        numbers = list(range(len(images))) if indices is None else list(indices)
        step = min(64, max(1, 2**20 // images[0, 0].numel())) if len(images) else 1
        parts = [
            self.vocabulary.segment(images[start : start + step], numbers[start : start + step])
            for start in range(0, len(images), step)
        ]
        shape = (0, len(self.vocabulary.concepts), *images.shape[2:])
        return torch.cat(parts) if parts else torch.zeros(shape, dtype=torch.bool)


def _filled(rows: Tensor, count: int) -> Tensor:
    """``rows`` repeated at the end up to ``count`` of them, so that a network always sees a whole block."""
    if len(rows) == count:
        return rows
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])
