"""The report for programs: one JSON object, the same that is embedded in the page.

JsonRenderer().render(report, {})           # text; report.to_dict() as UTF-8 JSON, keys in a fixed order
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

from gandissect.report import Report
from gandissect_reports.prose import without_surrogates


class JsonRenderer:
    """Writes ``report.to_dict()``: everything except the pixels."""

    name: ClassVar[str] = "json"
    suffix: ClassVar[str] = ".json"

    def render(self, report: Report, options: Mapping[str, object]) -> str:
        """The whole file as text; ``options`` has nothing that concerns JSON."""
        return without_surrogates(json.dumps(report.to_dict(), ensure_ascii=False, indent=1, allow_nan=False)) + "\n"


def report_to_script(report: Report) -> str:
    """The same JSON on one line, safe inside ``<script>``: no ``<`` is left that could end the element."""
    text = json.dumps(report.to_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return without_surrogates(text).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
