"""Several checkpoints side by side: each is opened once, seen by every comparer on the same latents, and closed.

report = compare([Source("a", open_a), Source("b", open_b)], of="pair", n=500)
report.save("out.html")
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gandissect import sampling
from gandissect.blocks import Json, Pixels, Section, jsonable, to_uint8
from gandissect.comparer import Comparer, Kind, Lineup, Source
from gandissect.comparing.training_log import TrainingLog
from gandissect.concepts import Concept, Segmenter, Vocabulary
from gandissect.errors import GandissectError, UsageError, unknown_name
from gandissect.gan import Gan
from gandissect.progress import Progress
from gandissect.provenance import now, redact, versions
from gandissect.real import RealImages
from gandissect.reducers import KeepSpec
from gandissect.report import Provenance, Report
from gandissect.session import Images, Session, Want
from gandissect.vocabulary import build_vocabulary

if TYPE_CHECKING:
    from gandissect.plugins import Registry

STRIP = 10


@dataclass
class _Plan:
    """How a comparison is run, and what came of it so far."""

    comparers: Sequence[Comparer[Any]]
    strict: bool
    looks: dict[str, list[object]] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    passes: int = 0


@dataclass(frozen=True)
class _Visited:
    """What remains of a checkpoint that was closed."""

    gan_name: str
    summary: str
    latent: str
    shape: tuple[int, int, int]
    digest: str
    strip: Tensor
    facts: tuple[str, int, str, str]
    device: str


def compare(
    sources: Sequence[Source],
    *,
    of: Kind,
    n: int = 500,
    seed: int = 0,
    concepts: Sequence[str | Segmenter] = ("default",),
    data: str | Path | Tensor | None = None,
    log: TrainingLog | None = None,
    axis: str = "checkpoint",
    options: Mapping[str, Mapping[str, object]] | None = None,
    only: Sequence[str] | None = None,
    skip: Iterable[str] = (),
    batch_size: int = 64,
    registry: Registry | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    command: str = "",
) -> Report:
    """Compare checkpoints on the same latents; one network is in memory at a time.

    Concepts that adapt to a GAN's own samples adapt to the first of a pair and to the last of a series, for all.

    Args:
        sources: two for a pair; any number, in the order of training, for a series.
        of: which comparers are asked.
        n: samples of each checkpoint.
        seed: all randomness follows from it.
        concepts: vocabularies, see :func:`gandissect.vocabulary.build_vocabulary`.
        data: real images: what :meth:`RealImages.from_source` takes, or float32 [N, C, H, W] in [-1, 1].
        log: losses of the training.
        axis: what the places of the sources count.
        options: comparer name -> option -> value.
        only: names of comparers; all of that kind where left out.
        skip: names that are left out.
        batch_size: samples in memory at a time; no number depends on it.
        registry: plugins; the installed ones by default.
        progress: told about phases.
        strict: let a comparer's exception through instead of making it a failed section.
        command: what was typed, for the provenance.

    Raises:
        UsageError: an unknown comparer or option; images of different sizes; in a series, different latents.
        NotOpened: a checkpoint could not be opened.
    """
    from gandissect.plugins import load_plugins

    started = time.perf_counter()
    plugins = registry or load_plugins()
    plan = _Plan(_planned(plugins, of, options or {}, only, set(skip)), strict)
    visit = _Visits(plan, n, seed, build_vocabulary(concepts, plugins), data, batch_size, progress, plugins)
    ordered = list(sources) if of == "pair" else list(sources)[::-1]
    visited = [visit(source, ordered[0].name) for source in ordered]
    if of == "series":
        visited = visited[::-1]
        plan.looks = {name: seen[::-1] for name, seen in plan.looks.items()}
    names = tuple(source.name for source in sources)
    lineup = Lineup(
        names,
        tuple(source.place for source in sources),
        axis,
        n,
        seed,
        visit.concepts,
        visit.real_count,
        _latents_differ(names, visited, of),
        log,
    )
    same = of == "pair" and _same_network(visited)
    sections = [_identical(names)] if same else _told(plan, lineup)
    written = _provenance(plan, lineup, visited, plugins, visit, command, time.perf_counter() - started)
    summary = " · ".join(dict.fromkeys(one.summary for one in visited)) or "losses of a training"
    strip, shows = _strip(lineup, visited)
    return Report(
        _title(lineup), summary, strip, tuple(sections), written, strip_shows=shows, renderers=plugins.renderers()
    )


def _planned(
    plugins: Registry, of: Kind, options: Mapping[str, Mapping[str, object]], only: Sequence[str] | None, skip: set[str]
) -> list[Comparer[Any]]:
    known = plugins.comparers(of)
    for name in [*options, *(only or ()), *skip]:
        if name not in known:
            raise unknown_name("comparison", name, known)
    chosen = [name for name in known if (only is None or name in only) and name not in skip]
    return [known[name](options.get(name)) for name in chosen]


class _Visits:
    """Opens one checkpoint after another and lets every comparer look at it."""

    def __init__(
        self,
        plan: _Plan,
        n: int,
        seed: int,
        vocabulary: Vocabulary,
        data: str | Path | Tensor | None,
        batch_size: int,
        progress: Progress | None,
        plugins: Registry,
    ) -> None:
        self.plan, self.n, self.seed, self.batch_size = plan, n, seed, batch_size
        self.progress, self.extractors = progress, plugins.extractors()
        self._vocabulary, self._fitted, self._data = vocabulary, not vocabulary.adapts, data
        self._shape: tuple[int, int, int] | None = None
        self._real: RealImages | None = None

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return tuple(self._vocabulary.concepts)

    @property
    def real_count(self) -> int:
        return len(self._real) if self._real else 0

    @property
    def real_name(self) -> str:
        return f"{redact(self._real.name)} ({len(self._real)} images)" if self._real else "none given"

    def __call__(self, source: Source, first: str) -> _Visited:
        gan = source.open()
        shape = gan.generator.image_shape
        if self._shape is None:
            self._shape = shape
            self._real = self._images(shape)
        if shape != self._shape:
            raise UsageError(
                f"{source.name} makes images of {_size(shape)} and {first} of {_size(self._shape)}; only images of one "
                "size can be compared"
            )
        session = Session(
            gan, vocabulary=self._vocabulary, real=self._real, n=self.n, seed=self.seed, batch_size=self.batch_size,
            progress=self.progress, extractors=self.extractors,
        )  # fmt: skip
        with session.borrowed():
            strip = self._look(session)
        self._fix(session.vocabulary)
        self.plan.notes += [f"{source.name}: {note}" for note in (*gan.opening.notes, *session.notes)]
        self.plan.images += session.images_generated
        self.plan.passes += session.passes
        latent = f"{gan.generator.latent.name} of {sampling.prior_words(gan.generator.latent)}"
        latent += f" with {gan.generator.num_classes} classes" if gan.generator.num_classes else ""
        path = redact(str(gan.opening.path)) if gan.opening.path else gan.name
        facts = (path, gan.opening.size, gan.opening.sha256, gan.opening.adapter)
        device = str(gan.generator.device)
        return _Visited(gan.name, gan.summary, latent, shape, _digest(gan), strip, facts, device)

    def _images(self, shape: tuple[int, int, int]) -> RealImages | None:
        """The real images, read once for all checkpoints."""
        if self._data is None:
            return None
        if isinstance(self._data, Tensor):
            return RealImages.from_tensor(self._data[: self.n])
        found = RealImages.from_source(self._data, shape)
        return RealImages.from_tensor(found.batch(range(min(self.n, len(found)))), found.name)

    def _fix(self, vocabulary: Vocabulary) -> None:
        """Keep what was fitted to the first checkpoint's samples for all others."""
        if not self._fitted:
            self._vocabulary, self._fitted = Vocabulary(vocabulary.segmenters), True
            self._vocabulary.adapts = False

    def _look(self, session: Session) -> Tensor:
        """The first samples, after all comparers have looked; one that raises is noted and asked no more."""
        strip = Want((Images(),), KeepSpec(), min(STRIP, session.n))
        wants = [strip]
        for comparer in self._asked():
            with self._isolated(comparer, let_through=UsageError):  # an option that names what is not there
                wants += comparer.wants(session)
        try:
            session.prepare(wants)
        except GandissectError:
            raise
        except Exception as error:
            if self.plan.strict:
                raise
            session.notes.append(
                f"the shared pass failed ({type(error).__name__}: {error}); each comparison gathers its own"
            )
        for comparer in self._asked():
            with self._isolated(comparer):
                self.plan.looks.setdefault(comparer.name, []).append(comparer.look(session))
        return session.images(strip.n)

    def _asked(self) -> list[Comparer[Any]]:
        return [comparer for comparer in self.plan.comparers if comparer.name not in self.plan.failures]

    @contextmanager
    def _isolated(self, comparer: Comparer[Any], let_through: type[Exception] | tuple[()] = ()) -> Generator[None]:
        try:
            yield
        except let_through:
            raise
        except Exception as error:
            self.plan.failures[comparer.name] = _failure(error, self.plan.strict)


def _failure(error: Exception, strict: bool) -> tuple[str, str]:
    """(one line, traceback); raised again where ``strict``."""
    if strict:
        raise error
    return f"{type(error).__name__}: {error}", redact("".join(traceback.format_exception(error)))


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[2]}×{shape[1]} with {shape[0]} channel{'s' * (shape[0] != 1)}"


def _digest(gan: Gan) -> str:
    """Of the generator's weights."""
    told = hashlib.sha256()
    for name, tensor in gan.generator.module.state_dict().items():
        if isinstance(tensor, Tensor):
            told.update(f"{name}{tuple(tensor.shape)}".encode())
            told.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def _same_network(visited: Sequence[_Visited]) -> bool:
    one, two = visited
    return one.digest == two.digest and one.latent == two.latent and torch.equal(one.strip, two.strip)


def _latents_differ(names: Sequence[str], visited: Sequence[_Visited], of: Kind) -> str:
    for name, one in zip(names[1:], visited[1:], strict=True):
        if one.latent != visited[0].latent:
            why = f"{name} takes {one.latent}, {names[0]} takes {visited[0].latent}"
            if of == "series":
                raise UsageError(f"checkpoints of one training take the same latents: {why}")
            return f"the same latents cannot be given to both: {why}"
    return ""


def _identical(names: tuple[str, ...]) -> Section:
    text = f"{names[0]} and {names[1]} hold the same generator: equal weights under equal names, and equal samples bit for bit."
    return Section("The same network", summary=f"{text} There is nothing to compare.", analyzer="identity")


def _told(plan: _Plan, lineup: Lineup) -> list[Section]:
    """The sections of all comparers, those that failed or lack checkpoints among them."""
    sections: list[Section] = []
    for comparer in plan.comparers:
        title = comparer.name.replace("-", " ").capitalize()
        if len(lineup.names) < comparer.least:
            why = f"needs at least {comparer.least} checkpoints, got {len(lineup.names)}"
            sections.append(Section(title, summary=why, status="skipped", analyzer=comparer.name))
            continue
        if comparer.name not in plan.failures:
            try:
                for section in comparer.tell(plan.looks.get(comparer.name, []), lineup):
                    sections.append(_signed(section, comparer))
            except Exception as error:
                plan.failures[comparer.name] = _failure(error, plan.strict)
        if comparer.name in plan.failures:
            why, details = plan.failures[comparer.name]
            sections.append(Section(title, summary=why, status="failed", details=details, analyzer=comparer.name))
    return sections


def _signed(section: Section, comparer: Comparer[Any]) -> Section:
    return Section(
        section.title, *section.blocks, summary=section.summary, findings=section.findings, status=section.status,
        references=section.references or comparer.references, meaning=section.meaning, analyzer=comparer.name,
        details=section.details,
    )  # fmt: skip


def _title(lineup: Lineup) -> str:
    match lineup.names:
        case ():
            return lineup.log.name if lineup.log else "nothing"
        case (one,):
            return one
        case (one, two):
            return f"{one} against {two}"
    return f"{lineup.names[0]} to {lineup.names[-1]}, {len(lineup.names)} checkpoints"


def _strip(lineup: Lineup, visited: Sequence[_Visited]) -> tuple[Pixels, str]:
    """The first samples of each checkpoint, of many only the first one and of some only, and what that is in words."""
    if not visited:
        return np.zeros((0, 1, 1, 3), np.uint8), ""
    places = np.linspace(0, len(visited) - 1, min(len(visited), STRIP)).round().astype(int)
    parts = [visited[place].strip[: max(1, STRIP // len(visited))] for place in places]
    each = "the first sample" if len(parts[0]) == 1 else f"the first {len(parts[0])} samples"
    names = ", then of ".join(lineup.names[place] for place in places)
    return to_uint8(torch.cat(parts)), f"{each} of {names}, seed {lineup.seed}"


def _provenance(
    plan: _Plan,
    lineup: Lineup,
    visited: Sequence[_Visited],
    plugins: Registry,
    visit: _Visits,
    command: str,
    total: float,
) -> Provenance:
    facts = [one.facts for one in visited]
    options: dict[str, Mapping[str, Json]] = {}
    for comparer in plan.comparers:
        values = jsonable(comparer.options)
        options[comparer.name] = values if isinstance(values, Mapping) else {}
    notes = [*plan.notes, *(f"plugin {name} failed in {reason}" for name, reason in plugins.failures.items())]
    if lineup.log is not None:
        notes += lineup.log.notes
    return Provenance(
        command=redact(command),
        checkpoint=", ".join(path for path, *_ in facts) or "none",
        size=sum(size for _, size, *_ in facts),
        sha256=", ".join(digest for _, _, digest, _ in facts),
        opened_by=", ".join(dict.fromkeys(adapter for *_, adapter in facts)),
        why="several checkpoints, each opened by itself",
        alternatives=(),
        assumptions=(),
        verification="`gandissect inspect` on each checkpoint says how it was opened and verified",
        seed=lineup.seed,
        samples=lineup.n,
        batch_size=visit.batch_size,
        device=", ".join(dict.fromkeys(one.device for one in visited)),
        real_images=visit.real_name,
        options=options,
        versions=versions(),
        plugins={plugin.name: f"{plugin.source} {plugin.version}".strip() for plugin in plugins.plugins if not plugin.broken},
        created=now(),
        seconds={"total": round(total, 3)},
        passes=plan.passes,
        images_generated=plan.images,
        notes=tuple(notes),
    )  # fmt: skip
