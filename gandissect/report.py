"""A finished analysis: sections and where they come from.

report = gandissect.analyze(gan)
report                                   # shows itself in a notebook
report.save("out.html")                  # one file; report.to_dict() is what the JSON beside it holds
"""

from __future__ import annotations

import html
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from gandissect.blocks import Finding, Json, Pixels, Section, jsonable
from gandissect.errors import UsageError

SCHEMA_VERSION = "1.0"
ALIKE = 0.4  # share of common words from which on two findings of a section are of one kind


@dataclass(frozen=True)
class Provenance:
    """Everything needed to make the report again and to know what it is about."""

    command: str
    checkpoint: str
    size: int
    sha256: str
    opened_by: str
    why: str
    alternatives: tuple[str, ...]
    assumptions: tuple[tuple[str, str, str, bool], ...]
    verification: str
    seed: int
    samples: int
    batch_size: int
    device: str
    real_images: str
    options: Mapping[str, Mapping[str, Json]]
    versions: Mapping[str, str]
    plugins: Mapping[str, str]
    created: str
    seconds: Mapping[str, float]
    passes: int
    images_generated: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Sections, headline findings and provenance of one analysis.

    Attributes:
        title: the checkpoint's name.
        summary: one line about the GAN.
        strip: uint8 [N, H, W, 3], a few pictures for the first screen: the first samples of one checkpoint, some of each of several.
        sections: in reading order.
        provenance: see :class:`Provenance`.
        interrupted: the run was stopped; what was done is here.
        strip_shows: what ``strip`` is, for those who cannot see it; empty for the first samples of the generator.
    """

    title: str
    summary: str
    strip: Pixels
    sections: tuple[Section, ...]
    provenance: Provenance
    interrupted: bool = False
    strip_shows: str = ""
    renderers: Sequence[Renderer] = field(default=(), repr=False, compare=False)

    def findings(self, limit: int = 5) -> tuple[tuple[Finding, Section], ...]:
        """The ``limit`` weightiest findings, each with the section that carries its evidence.

        Of findings of one kind only the weightiest is here, and no analyzer gives more than two while another one has
        something to say.
        """
        return tuple((finding, section) for finding, section, _ in self.headlines(limit))

    def headlines(self, limit: int = 5) -> tuple[tuple[Finding, Section, int], ...]:
        """:meth:`findings`, each with the number of further ones of its kind that its section has."""
        found = [(*kind, section) for section in self.sections for kind in _kinds(section.findings)]
        found.sort(key=lambda item: -item[0].weight)
        given: Counter[str] = Counter()
        first: list[tuple[Finding, Section, int]] = []
        rest: list[tuple[Finding, Section, int]] = []
        for finding, more, section in found:
            given[section.analyzer] += 1
            (first if given[section.analyzer] <= 2 else rest).append((finding, section, more))
        chosen = [*first, *rest][:limit]
        return tuple(sorted(chosen, key=lambda item: -item[0].weight))

    @property
    def failed(self) -> tuple[Section, ...]:
        """Sections whose analyzer raised."""
        return tuple(section for section in self.sections if section.status == "failed")

    def section(self, analyzer: str) -> tuple[Section, ...]:
        """All sections of one analyzer."""
        return tuple(section for section in self.sections if section.analyzer == analyzer)

    def to_dict(self) -> dict[str, Json]:
        """The report as JSON, minus pixels; floats have 7 significant digits."""
        return {
            "schema": SCHEMA_VERSION,
            "title": self.title,
            "summary": self.summary,
            "interrupted": self.interrupted,
            "findings": [
                {"text": finding.text, "trust": jsonable(finding.trust), "analyzer": section.analyzer}
                for finding, section in self.findings()
            ],
            "sections": [section.to_json() for section in self.sections],
            "provenance": jsonable(self.provenance),
        }

    def save(self, path: str | Path, **options: object) -> Path:
        """Write the report; the suffix chooses the renderer (``.html`` also writes ``.json`` beside it).

        Nothing is left half-written: files appear under their name only when complete.

        Raises:
            UsageError: no renderer for that suffix, or the folder cannot be written.
        """
        target = Path(path)
        by_suffix = {renderer.suffix: renderer for renderer in self.renderers}
        if target.suffix not in by_suffix:
            raise UsageError(
                f"cannot write {target.name!r}: known endings are {', '.join(sorted(by_suffix)) or 'none'}"
            )
        written = {target: by_suffix[target.suffix].render(self, options)}
        if target.suffix == ".html" and ".json" in by_suffix:
            written[target.with_suffix(".json")] = by_suffix[".json"].render(self, {})
        for name, text in written.items():
            write_whole(name, text)
        return target

    def _repr_html_(self) -> str:
        """The report in a frame, for notebooks; its summary only where the page would exceed 5 MB."""
        by_suffix = {renderer.suffix: renderer for renderer in self.renderers}
        page = by_suffix[".html"].render(self, {}) if ".html" in by_suffix else ""
        if not page or len(page) > 5_000_000:
            found = "".join(
                f"<li>{html.escape(f.text)} <em>({html.escape(f.trust.label)})</em></li>" for f, _ in self.findings()
            )
            return f"<h3>{html.escape(self.title)}</h3><p>{html.escape(self.summary)}</p><ul>{found}</ul>"
        return (
            '<iframe sandbox="allow-scripts" style="width:100%;height:800px;border:0" '
            f'title="{html.escape(self.title)}" srcdoc="{html.escape(page)}"></iframe>'
        )


def _kinds(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """The weightiest finding of each kind, and how many more of that kind there are."""
    kinds: list[list[Finding]] = []
    for finding in sorted(findings, key=lambda finding: -finding.weight):
        kind = next((kind for kind in kinds if alike(kind[0].text, finding.text)), None)
        kinds.append([finding]) if kind is None else kind.append(finding)
    return [(kind[0], len(kind) - 1) for kind in kinds]


def alike(one: str, other: str) -> bool:
    """Whether two sentences say the same of different things: their words without names, emphasis and numbers overlap.

    The overlap is the Jaccard index of the two sets of words.
    """
    first, second = _words(one), _words(other)
    return len(first & second) >= ALIKE * max(1, len(first | second))


def _words(text: str) -> set[str]:
    """Words of two letters and more, without what stands in emphasis or in code."""
    return set(re.findall(r"[^\W\d_]{2,}", re.sub(r"`[^`]*`|\*+[^*]+\*+", " ", text.lower())))


@runtime_checkable
class Renderer(Protocol):
    """Turns a finished report into text; chosen by the suffix of the file to be written."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    def render(self, report: Report, options: Mapping[str, object]) -> str:
        """The whole file as text."""
        ...


def write_whole(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` completely or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UsageError(f"cannot write to {path.parent}: {error.strerror}; choose another place with -o") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
