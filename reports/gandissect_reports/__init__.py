"""HTML, JSON and Markdown renderers of gandissect, registered as one built-in plugin.

import gandissect_reports

html, json, markdown = gandissect_reports.register_renderers()
text = html().render(report, {"max_size": 10_000_000})
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gandissect.plugins import hookimpl

if TYPE_CHECKING:
    from gandissect.report import Renderer


@hookimpl
def register_renderers() -> Iterable[type[Renderer]]:
    """The three ways to write a report that come with gandissect."""
    from gandissect_reports.html import HtmlRenderer
    from gandissect_reports.json_file import JsonRenderer
    from gandissect_reports.markdown import MarkdownRenderer

    return [HtmlRenderer, JsonRenderer, MarkdownRenderer]
