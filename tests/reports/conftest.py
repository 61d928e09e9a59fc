from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from browser import Browser
from gandissect_reports.html import HtmlRenderer
from sample_report import sample_report

from gandissect.report import Report


@pytest.fixture(scope="session")
def report() -> Report:
    return sample_report()


@pytest.fixture(scope="session")
def page(report: Report) -> str:
    return HtmlRenderer().render(report, {})


@pytest.fixture(scope="session")
def page_file(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "sample.html"
    file.write_text(page, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = Browser.find()
    if found is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with found:
        yield found
