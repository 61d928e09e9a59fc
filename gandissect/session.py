"""The evidence that all analyzers share: one pass over the samples, every result memoised by value.

    session = Session(gan, n=1000, seed=0)
    session.images(64)                                   # float32 [64, C, H, W] in [-1, 1]
    session.activations("layer4", 64)                    # float32 [64, C, H, W]
    session[Want((Activations("layer4"),), MomentsSpec(), n=1000)].mean

Numbers depend neither on the batch size nor on the number of processes: networks always see blocks of ``BLOCK`` consecutive
samples, the last one filled up with the samples that follow, and results are merged in a fixed order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Generator as Generates
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from gandissect import sampling
from gandissect.concepts import Vocabulary
from gandissect.errors import UsageError
from gandissect.extractor import Extractor
from gandissect.gan import Gan
from gandissect.passes.cache import Cache, fingerprint
from gandissect.passes.gathering import Store, Want, gather
from gandissect.passes.running import BLOCK, Reading, Runner
from gandissect.passes.sharding import ALONE, Shard
from gandissect.probing.surveying import survey
from gandissect.progress import Progress, Silent
from gandissect.real import RealImages
from gandissect.reducers import KeepSpec
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
from gandissect.tap import Edit

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
AFFORDABLE = 1e12
"""Multiply-adds that one analysis may spend on further images: about a minute on one CPU core."""


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
        shard: this process's place among several that run the same session; the only one by default.
        cache: where finished parts of a pass are kept; nowhere by default.
        extractors: feature spaces by name, for analyzers that compare distributions; those of plugins.
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
        shard: Shard = ALONE,
        cache: Cache | None = None,
        extractors: Mapping[str, Callable[..., Extractor]] | None = None,
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
        self.extractors = dict(extractors or {})
        self.shard = shard
        self._cache = cache
        self._fingerprint: str | None = None
        self._runner = Runner(gan, seed=seed, real=real, notes=self.notes)
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
        with self._runner.borrowed():
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
        n = max(want.n for want in wants)
        vocabulary = self.vocabulary  # may take a pass of its own
        self.passes += 1
        if real and any(stream.needs_scores for want in wants for stream in want.streams):
            self._note_guessed_labels()

        def samples(start: int, stop: int, streams: Sequence[Stream]) -> Iterator[Batch]:
            for block in self._runner.samples(start, stop, Reading.of(streams, real), vocabulary):
                for first in range(0, len(block.indices), self.batch_size):
                    yield block.cut(first, min(first + self.batch_size, len(block.indices)))

        store = Store() if self._cache is None else self._cache.store(self._identity)
        with self.progress.phase("reading real images" if real else "generating samples", n) as advance:
            results = gather(wants, samples, self.shard, store, advance)
        self.images_generated += 0 if real else n
        self._memo.update(zip(wants, results, strict=True))

    def _identity(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._runner, self._vocabulary, self.batch_size)
        return self._fingerprint

    def _note_guessed_labels(self) -> None:
        """Say once that a class-conditional discriminator was asked about classes that real images do not have."""
        classes = self.gan.discriminator.num_classes if self.gan.discriminator else 0
        note = (
            f"real images come without classes: the discriminator was asked whether image i is of class i % {classes}"
        )
        if classes and note not in self.notes:
            self.notes.append(note)

    def share_out(self, what: str, tasks: Sequence[Callable[[], T]], costs: Sequence[float] = ()) -> list[T]:
        """What independent tasks return, in order, each run by one of the processes; see :meth:`Shard.share_out`.

        A task may use evidence that the session has gathered already, and ``rng`` of a name of its own.
        """
        return self.shard.share_out(what, tasks, costs)

    # -- on demand: edited samples, scores and masks of any images ------------------------------------------------------

    def labels(self, indices: Iterable[int], network: Role = "generator") -> Tensor | None:
        """The class of each sample, ``index % num_classes``: int64 [N]; None for a network without labels.

        A discriminator is asked about the class that the generator was given, where that takes one.
        """
        return self._runner.labels(indices, network)

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
            edit: see :data:`gandissect.tap.Edit`; called with a block of rows at a time, in several processes with some of the
                blocks: one that differs from row to row is a :class:`gandissect.passes.running.InOrder`.
            layers: where it is applied.
            labels: int64 [N] for class-conditional generators.

        Returns:
            float32 [N, C, H, W] in [-1, 1] on the CPU.
        """

        def made(rows: range) -> Tensor:
            given = None if labels is None else labels[rows.start : rows.stop]
            own = latents[rows.start : rows.stop]
            return self._runner.generate(own, edit=edit, layers=layers, labels=given, first=rows.start)

        self.images_generated += len(latents)
        return self.shard.rows("images", len(latents), BLOCK, made)

    def score(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The discriminator's logits of any images float32 [N, C, H, W] in [-1, 1]: float32 [N].

        ``labels`` int64 [N] are their classes for a discriminator that takes any; those of the first N samples where left out.
        """
        given = self.labels(range(len(images)), "discriminator") if labels is None else labels

        def made(rows: range) -> Tensor:
            classes = None if given is None else given[rows.start : rows.stop]
            return self._runner.score(images[rows.start : rows.stop], classes)

        return self.shard.rows("scores", len(images), BLOCK, made)

    def segment(
        self, images: Tensor, indices: Sequence[int] | None = None, *, only: Sequence[int] | None = None
    ) -> Tensor:
        """Concept masks of any images float32 [N, C, H, W] in [-1, 1]: bool [N, K, H, W].

        Args:
            images: whose.
            indices: their numbers, for segmenters that know samples by these; 0 … N − 1 where left out.
            only: places of concepts in the vocabulary; the others are not looked for, and K is the number of these.
        """
        numbers = list(range(len(images))) if indices is None else list(indices)
        vocabulary = self.vocabulary
        ask = vocabulary.segment if only is None else partial(vocabulary.segment_only, chosen=only)
        concepts = len(vocabulary.concepts) if only is None else len(only)
        step = min(BLOCK, max(1, 2**20 // images[0, 0].numel())) if len(images) else 1

        def made(rows: range) -> Tensor:
            parts = [
                ask(images[start : start + step], numbers[start : start + step])
                for start in range(rows.start, rows.stop, step)  # rows end with a whole step, or with the images
            ]
            shape = (0, concepts, *images.shape[2:])
            return torch.cat(parts) if parts else torch.zeros(shape, dtype=torch.bool)

        return self.shard.rows("masks", len(images), step, made)
