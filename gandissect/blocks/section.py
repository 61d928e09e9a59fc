"""A part of the report.

Section("Mean colour", Table(("R", "G", "B"), [rgb]), summary="The samples are bluish.")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gandissect.blocks.base import Block, Finding, Json, Reference, Status, jsonable


@dataclass(frozen=True, init=False)
class Section:
    """A part of the report: a title, blocks, a one-sentence summary, findings, and how it ended."""

    title: str
    blocks: tuple[Block, ...]
    summary: str
    findings: tuple[Finding, ...]
    status: Status
    references: tuple[Reference, ...]
    meaning: str
    analyzer: str
    details: str
    seconds: float

    def __init__(
        self,
        title: str,
        *blocks: Block,
        summary: str = "",
        findings: Iterable[Finding] = (),
        status: Status = "done",
        references: Iterable[Reference] = (),
        meaning: str = "",
        analyzer: str = "",
        details: str = "",
        seconds: float = 0.0,
    ) -> None:
        """A section.

        Args:
            title: short, without the analyzer's name.
            blocks: in reading order.
            summary: one sentence with the main number; for a skipped or failed section why, and what to type.
            findings: statements for the first screen.
            status: "partly" where something asked for could not be done.
            references: sources of the method.
            meaning: Markdown for "What does this mean?": method, caveats.
            analyzer: filled in by the run.
            details: a traceback, folded.
            seconds: filled in by the run.
        """
        for name, value in {
            "title": title,
            "blocks": tuple(blocks),
            "summary": summary,
            "findings": tuple(findings),
            "status": status,
            "references": tuple(references),
            "meaning": meaning,
            "analyzer": analyzer,
            "details": details,
            "seconds": seconds,
        }.items():
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Json]:
        """The section without pixels; ``seconds`` is kept out, so that equal runs give equal sections."""
        return {
            "title": self.title,
            "analyzer": self.analyzer,
            "status": self.status,
            "summary": self.summary,
            "findings": [jsonable(finding) for finding in self.findings],
            "blocks": [block.to_json() for block in self.blocks],
            "references": [str(reference) for reference in self.references],
            "meaning": self.meaning,
            "details": self.details,
        }
