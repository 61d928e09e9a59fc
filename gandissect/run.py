"""Plan, run and collect: from a Gan to a Report.

report = analyze(gan)                                             # everything that can be done
report = analyze(gan, ["dissection"], n=2000, options={"dissection": {"quantile": 0.005}})
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gandissect.analyzer import Analyzer
from gandissect.blocks import Json, Pixels, Section, jsonable, to_uint8
from gandissect.concepts import Segmenter
from gandissect.errors import GandissectError, UsageError
from gandissect.gan import Gan
from gandissect.opening import Source
from gandissect.opening import open as open_gan
from gandissect.passes.cache import Cache
from gandissect.passes.sharding import ALONE, ProcessesApart, Shard
from gandissect.plugins import Registry, load_plugins
from gandissect.progress import Progress
from gandissect.provenance import provenance, redact
from gandissect.real import RealImages
from gandissect.reducers import KeepSpec
from gandissect.report import Report
from gandissect.session import Images, Session, Want
from gandissect.vocabulary import build_vocabulary

Chosen = str | type[Analyzer] | Analyzer


@dataclass
class _Outcome:
    """Sections so far, and what each analyzer took."""

    sections: list[Section]
    seconds: dict[str, float]
    interrupted: bool = False


def analyze(
    gan: Gan | Source,
    analyzers: Sequence[Chosen] | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
    concepts: Sequence[str | Segmenter] = ("default",),
    data: str | Path | torch.Tensor | RealImages | None = None,
    batch_size: int = 64,
    options: Mapping[str, Mapping[str, object]] | None = None,
    skip: Iterable[str] = (),
    registry: Registry | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    command: str = "",
    shard: Shard = ALONE,
    cache: Cache | None = None,
) -> Report:
    """Explain a GAN: run every analyzer whose needs are met on one stream of samples.

    Args:
        gan: an opened GAN, or anything that :func:`gandissect.open` takes.
        analyzers: names, classes or instances; all registered ones where left out.
        n: number of samples.
        seed: all randomness follows from it.
        concepts: vocabularies, see :func:`gandissect.vocabulary.build_vocabulary`.
        data: real images: what :meth:`RealImages.from_source` takes, float32 [N, C, H, W] in [-1, 1], or any others by index.
        batch_size: samples in memory at a time; no number depends on it.
        options: analyzer name -> option -> value.
        skip: names that are left out.
        registry: plugins; the installed ones by default.
        progress: told about phases.
        strict: let an analyzer's exception through instead of making it a failed section.
        command: what was typed, for the provenance.
        shard: this process's place among several that all make this very call; each of them gets the report.
        cache: where finished parts of the passes are kept, to resume from.

    Returns:
        the report; an analyzer that raises becomes a failed section, one whose needs are unmet a skipped one, and Ctrl-C
        keeps what is done (``report.interrupted``).

    Raises:
        UsageError: an unknown analyzer, option or concept.
        NotOpened: the checkpoint could not be opened.
        ProcessesApart: another of the processes ended or went a different way.
    """
    started = time.perf_counter()
    plugins = registry or load_plugins()
    plan = planned(analyzers, options or {}, skip, plugins)
    vocabulary = build_vocabulary(concepts, plugins)
    opened = gan if isinstance(gan, Gan) else open_gan(gan, registry=plugins)
    session = Session(
        opened,
        vocabulary=vocabulary,
        real=_real(data, opened),
        n=n,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        shard=shard,
        cache=cache,
        extractors=plugins.extractors(),
    )
    outcome = _Outcome([], {})
    try:
        with session.borrowed():
            _run(plan, session, plugins, outcome, strict)
    except KeyboardInterrupt:
        outcome.interrupted = True
        shard.leave()
    outcome.seconds["total"] = time.perf_counter() - started
    return _report(opened, session, plan, outcome, plugins, command)


def planned(
    chosen: Sequence[Chosen] | None, options: Mapping[str, Mapping[str, object]], skip: Iterable[str], plugins: Registry
) -> list[Analyzer]:
    """An instance of each analyzer with its options, in the order of the report.

    Raises:
        UsageError: an unknown analyzer or option.
    """
    known, left_out = plugins.analyzers(), set(skip)
    for name in [*options, *left_out]:
        if name not in known and not any(getattr(item, "name", None) == name for item in chosen or ()):
            plugins.get_analyzer(name)  # raises, naming the nearest
    instances = []
    for item in list(known.values()) if chosen is None else chosen:
        cls = plugins.get_analyzer(item) if isinstance(item, str) else item
        if isinstance(cls, type) and issubclass(cls, Analyzer):
            instance: object = cls(options.get(cls.name))
        else:
            instance = cls
        if not isinstance(instance, Analyzer):
            expected = "expected a name, a class or an instance of gandissect.Analyzer"
            raise UsageError(f"{cls!r} is not an analyzer: {expected}")
        if instance.name not in left_out:
            instances.append(instance)
    return sorted(instances, key=lambda analyzer: analyzer.order)


def _real(data: str | Path | torch.Tensor | RealImages | None, gan: Gan) -> RealImages | None:
    if data is None or isinstance(data, RealImages):
        return data
    if isinstance(data, torch.Tensor):
        return RealImages.from_tensor(data)
    return RealImages.from_source(data, gan.generator.image_shape)


def _run(plan: Sequence[Analyzer], session: Session, plugins: Registry, outcome: _Outcome, strict: bool) -> None:
    ready: list[tuple[Analyzer, str]] = []
    wants = [Want((Images(),), KeepSpec(), _strip_length(session))]
    for analyzer in plan:
        missing = analyzer.needs.missing(session)
        ready.append((analyzer, missing))
        if not missing:
            try:
                wants += analyzer.wants(session)
            except (
                UsageError,
                ProcessesApart,
            ):  # an option that names a layer which is not there: said before anything runs
                raise
            except Exception as error:
                if strict:
                    raise
                session.notes.append(f"{analyzer.name} could not say what it wants: {error}")
    began = time.perf_counter()
    try:
        session.prepare(wants)
    except GandissectError:
        raise
    except Exception as error:
        if strict:
            raise
        session.notes.append(
            f"the shared pass failed ({type(error).__name__}: {error}); each analysis gathers its own evidence"
        )
    outcome.seconds["shared pass"] = time.perf_counter() - began
    with session.progress.phase("analysing", len(ready)) as advance:
        for analyzer, missing in ready:
            _run_one(analyzer, missing, session, plugins, outcome, strict)
            advance(1)


def _run_one(
    analyzer: Analyzer, missing: str, session: Session, plugins: Registry, outcome: _Outcome, strict: bool
) -> None:
    """Add an analyzer's sections to the outcome, whatever happens in it."""
    began = time.perf_counter()
    if missing:
        outcome.sections.append(Section(_title(analyzer), summary=missing, status="skipped", analyzer=analyzer.name))
        return
    try:
        for section in analyzer.run(session):
            done = _signed(section, analyzer, time.perf_counter() - began)
            outcome.sections.append(done)
            session.shard.by_first("section_done", partial(plugins.section_done, done, session))
    except ProcessesApart:
        raise
    except Exception as error:
        if strict:
            raise
        reason = f"{type(error).__name__}: {error}"
        details = redact(traceback.format_exc())
        failed = Section(_title(analyzer), summary=reason, status="failed", details=details, analyzer=analyzer.name)
        outcome.sections.append(failed)
    finally:
        outcome.seconds[analyzer.name] = time.perf_counter() - began


def _title(analyzer: Analyzer) -> str:
    return analyzer.name.replace("-", " ").capitalize()


def _signed(section: Section, analyzer: Analyzer, seconds: float) -> Section:
    """The section with its analyzer's name and, where it has none of its own, references."""
    return _replaced(
        section, analyzer=analyzer.name, seconds=seconds, references=section.references or analyzer.references
    )


def _replaced(section: Section, **changes: object) -> Section:
    copy = object.__new__(Section)
    for name in section.__dataclass_fields__:
        object.__setattr__(copy, name, changes.get(name, getattr(section, name)))
    return copy


def _report(
    gan: Gan, session: Session, plan: Sequence[Analyzer], outcome: _Outcome, plugins: Registry, command: str
) -> Report:
    if session.shard.size > 1:
        session.notes[:] = session.shard.union("notes", session.notes)
    resolved: dict[str, Mapping[str, Json]] = {}
    for analyzer in plan:
        values = jsonable(analyzer.options)
        resolved[analyzer.name] = values if isinstance(values, Mapping) else {}
    report = Report(
        title=gan.name,
        summary=gan.summary,
        strip=_strip(session, outcome),
        sections=tuple(outcome.sections),
        provenance=provenance(gan, session, resolved, plugins, outcome.seconds, command),
        interrupted=outcome.interrupted,
        renderers=plugins.renderers(),
    )
    more = session.shard.by_first("report_done", partial(plugins.report_done, report)) or []
    added = [_replaced(section, analyzer=section.analyzer or "plugin") for section in more]
    return replace(report, sections=(*report.sections, *added)) if added else report


def _strip(session: Session, outcome: _Outcome) -> Pixels:
    """The first samples for the first screen; none where the run was stopped before there were any or the GAN fails."""
    nothing = np.zeros((0, 1, 1, 3), np.uint8)
    if outcome.interrupted and not session.passes:
        return nothing
    try:
        return to_uint8(session.images(_strip_length(session)))
    except ProcessesApart:
        raise
    except Exception as error:
        session.notes.append(f"no samples for the first screen: {type(error).__name__}: {error}")
        return nothing


def _strip_length(session: Session) -> int:
    return min(10, session.n)
