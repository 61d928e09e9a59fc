"""The report as one HTML file that needs nothing else, neither network nor scripts.

page = HtmlRenderer().render(report, {"max_size": 10_000_000})     # str; pictures are reduced until it fits
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from gandissect.blocks import Block, Html, Section, all_blocks
from gandissect.report import Provenance, Report
from gandissect_reports import figure_views, picture_views  # noqa: F401 - they register the views of the blocks
from gandissect_reports.budget import DEFAULT_SIZE, STEPS, first_step, next_step, shortened, to_bytes
from gandissect_reports.json_file import report_to_script
from gandissect_reports.page import Page, card_anchors, environment, section_names, to_cells
from gandissect_reports.prose import number, printable
from gandissect_reports.sheets import Fidelity, make_sheet

STRIP = 10  # samples on the first screen
PICTURE = re.compile("data:image/webp;base64,[A-Za-z0-9+/=]+")
SCRIPTS = ("page.js", "pictures.js", "gallery.js", "figures.js", "scatter.js")
PROVENANCE_NAMES = {
    "size": "file size",
    "sha256": "SHA-256",
    "opened_by": "adapter",
    "why": "chosen because",
    "alternatives": "also possible",
    "batch_size": "batch size",
    "real_images": "real images",
    "seconds": "seconds",
    "passes": "passes through the generator",
    "images_generated": "images generated",
}


@dataclass(frozen=True)
class Part:
    """A section with its anchor and its blocks as HTML."""

    section: Section
    anchor: str
    blocks: tuple[Markup, ...] = ()


class HtmlRenderer:
    """Writes the page; the option ``max_size`` is in bytes (25 MB unless said otherwise)."""

    name: ClassVar[str] = "html"
    suffix: ClassVar[str] = ".html"

    def render(self, report: Report, options: Mapping[str, object]) -> str:
        """The whole file as text."""
        limit = to_bytes(options.get("max_size", DEFAULT_SIZE))
        step = first_step(report.sections, limit - page_bytes(report))
        while True:
            note = shortened(STEPS[step].fidelity, limit) if step else ""
            text = write_page(report, STEPS[step].fidelity, note)
            size = len(text.encode())
            if size <= limit:
                return text
            if step == len(STEPS) - 1:
                return write_page(report, STEPS[step].fidelity, f"{note} It is larger still: {size / 1e6:.1f} MB.")
            pictures = sum(map(len, PICTURE.findall(text)))
            step = next_step(step, (limit - size + pictures) / max(1, pictures))


def page_bytes(report: Report) -> int:
    """About how many bytes of the page do not depend on the pictures."""
    return len(report_to_script(report).encode()) + len(style()) + len(script())


def write_page(report: Report, fidelity: Fidelity, note: str) -> str:
    """The page at one fidelity."""
    names = section_names(report.sections)
    page = Page(fidelity, card_anchors(report.sections, names))
    parts = [
        _part(section, name, page, index)
        for index, (section, name) in enumerate(zip(report.sections, names, strict=True))
    ]
    by_section = {id(part.section): part for part in parts}
    strip = make_sheet(report.strip[:STRIP], STRIP, fidelity=fidelity, smallest=80) if len(report.strip) else None
    code = script()
    text = (
        environment()
        .get_template("page.html")
        .render(
            report=report,
            parts=parts,
            groups=[(name, list(group)) for name, group in groupby(parts, lambda part: part.section.analyzer)],
            findings=[(finding, by_section[id(section)], more) for finding, section, more in report.headlines()],
            undone=[part for part in parts if part.section.status != "done"],
            strip=strip,
            style=Markup(style()),
            script=Markup(code),
            data=Markup(report_to_script(report)),
            policy=policy(code, report),
            provenance=list(provenance_rows(report.provenance)),
            assumptions=to_cells(report.provenance.assumptions),
            shortened=note,
        )
    )
    return printable(text)


def _part(section: Section, name: str, page: Page, index: int) -> Part:
    """One section, its blocks written."""
    page.section = name
    return Part(
        section, name, tuple(page.show(block, f"sections/{index}/blocks/{i}") for i, block in enumerate(section.blocks))
    )


def policy(code: str, report: Report) -> str:
    """What the page may do: show its own pictures and styles, run its own script; frames only where a plugin needs one."""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    rules = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"]
    if has_frames([block for section in report.sections for block in section.blocks]):
        rules.append("frame-src 'self'")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def has_frames(blocks: Sequence[Block]) -> bool:
    """Whether any block is a plugin's own HTML."""
    return any(isinstance(block, Html) for block in all_blocks(blocks))


@lru_cache(maxsize=1)
def style() -> str:
    """The page's style sheet."""
    return _static("report.css")


@lru_cache(maxsize=1)
def script() -> str:
    """The page's script: all files one after the other in one scope."""
    return "(() => {\n'use strict';\n" + "\n".join(_static(name) for name in SCRIPTS) + "})();\n"


def _static(name: str) -> str:
    """A file of ``static``."""
    return (Path(__file__).parent / "static" / name).read_text(encoding="utf-8")


def provenance_rows(provenance: Provenance) -> Iterator[tuple[str, list[str]]]:
    """Every field of the provenance but the command and the assumptions, which have their own place."""
    for item in fields(provenance):
        if item.name in ("command", "assumptions"):
            continue
        name = PROVENANCE_NAMES.get(item.name, item.name.replace("_", " "))
        value = getattr(provenance, item.name)
        if item.name == "size":
            yield name, [f"{number(value)} bytes ({value / 1e6:.3g} MB)"]
        else:
            yield name, _words(value)


def _words(value: object) -> list[str]:
    """A field's value as lines."""
    if isinstance(value, Mapping):
        return [f"{key} {_value(item)}" for key, item in value.items()] or ["–"]
    if isinstance(value, tuple | list):
        return [str(item) for item in value] or ["none"]
    return [number(value) if isinstance(value, int | float) else str(value) or "–"]


def _value(item: object) -> str:
    """The value of one key of a mapping on one line."""
    if isinstance(item, Mapping):
        return (
            ", ".join(f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in item.items())
            or "(defaults)"
        )
    return number(item) if isinstance(item, int | float) else str(item)
