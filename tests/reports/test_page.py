from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from gandissect_reports import register_renderers
from gandissect_reports.budget import to_bytes
from gandissect_reports.html import HtmlRenderer, script, style
from gandissect_reports.json_file import JsonRenderer
from gandissect_reports.markdown import MarkdownRenderer
from gandissect_reports.page import Page, fitting, view
from gandissect_reports.prose import in_column, inline, markdown, number
from sample_pictures import scenes
from sample_report import cards, provenance, sample_report

from gandissect.blocks import Block, Card, Finding, Gallery, Heatmap, Line, Section, Series, Table, Text, Trust
from gandissect.errors import UsageError
from gandissect.report import Provenance, Renderer, Report
from gandissect.wording import p_value

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x00\x1b\u202e</SCRIPT><!--"
TRUST = Trust(EVIL, EVIL)


class Outline(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def evil_report() -> Report:
    card = Card(
        EVIL, EVIL, scenes(2, 8), EVIL, facts=((EVIL, EVIL),), facets={EVIL: EVIL}, sort={EVIL: 1.0}, trust=TRUST
    )
    blocks = (
        Text(EVIL),
        Table((EVIL,), [(EVIL,)], EVIL),
        Gallery((card, replace(card, key="two", facets={EVIL: "b"})), EVIL, EVIL),
        Heatmap([[1.0]], (EVIL,), (EVIL,), EVIL, row_links=(EVIL,)),  # type: ignore[arg-type]  # a list is enough here
    )
    section = Section(
        EVIL, *blocks, summary=EVIL, findings=(Finding(EVIL, TRUST),), meaning=EVIL, analyzer=EVIL, details=EVIL
    )
    return Report(
        EVIL, EVIL, scenes(2, 8), (section, section), replace(provenance(), command=EVIL, versions={EVIL: EVIL})
    )


def test_the_plugin_registers_three_renderers() -> None:
    renderers = [kind() for kind in register_renderers()]
    assert [one.suffix for one in renderers] == [".html", ".json", ".md"]
    assert all(isinstance(one, Renderer) for one in renderers)


def test_importing_the_package_is_light() -> None:
    heavy = "('torch', 'jinja2', 'matplotlib', 'PIL')"
    code = f"import gandissect_reports, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"


def test_nothing_from_a_checkpoint_becomes_an_element() -> None:
    text = HtmlRenderer().render(evil_report(), {})
    tags = Outline(text).tags
    assert "<script>alert" not in text.lower()
    assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
    assert [attrs for tag, attrs in tags if tag == "script"] == [{"type": "application/json", "id": "report-data"}, {}]
    assert not [attrs for tag, attrs in tags if tag == "img" and not str(attrs["src"]).startswith("data:")]


def test_unprintable_characters_are_made_visible() -> None:
    text = HtmlRenderer().render(evil_report(), {})
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]", text)
    assert "␛" in text


def test_a_lone_surrogate_does_not_stop_any_renderer() -> None:
    report = replace(sample_report(), title="a\ud800b", sections=())
    assert all(kind().render(report, {}).encode() for kind in register_renderers())


def test_equal_keys_do_not_give_equal_identifiers() -> None:
    card = Card("u", "u", scenes(1, 8))
    section = Section("one", Gallery((card, card), "g"), analyzer="a")
    text = HtmlRenderer().render(replace(sample_report(), sections=(section, section)), {})
    named = [attrs["id"] for _, attrs in Outline(text).tags if "id" in attrs]
    assert len(named) == len(set(named))


def test_identifiers_on_the_page_are_unique_and_every_local_link_has_its_target(page: str) -> None:
    tags = Outline(page).tags
    named = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(named) == len(set(named))
    links = {str(attrs["href"])[1:] for tag, attrs in tags if tag == "a" and str(attrs.get("href", "")).startswith("#")}
    assert links <= set(named)


def test_the_policy_allows_only_this_script(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = policy[1].replace("&#39;", "'")
    code = page.rsplit("<script>", 1)[1].removesuffix("</script>\n</body>\n</html>").split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in rules
    assert rules.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")


def test_frames_are_allowed_only_where_a_plugin_brought_its_own_html(page: str, report: Report) -> None:
    assert "frame-src" in page
    assert "frame-src" not in HtmlRenderer().render(replace(report, sections=report.sections[3:]), {})


def test_no_address_of_the_network_is_in_the_page(page: str) -> None:
    for tag, attrs in Outline(page).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", re.sub(r"data:[\w/;+=,.-]+", "", page))


def test_the_same_report_gives_the_same_bytes(page: str) -> None:
    assert HtmlRenderer().render(sample_report(), {}) == page


def test_the_shell_is_at_most_60_kilobytes() -> None:
    assert len((style() + script()).encode()) <= 60_000


def test_the_embedded_json_is_the_report(page: str, report: Report) -> None:
    data = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1]) == json.loads(json.dumps(report.to_dict()))


def test_the_json_file_round_trips(report: Report) -> None:
    assert json.loads(JsonRenderer().render(report, {})) == json.loads(json.dumps(report.to_dict()))


def test_a_smaller_limit_gives_a_smaller_page_that_says_so() -> None:
    gallery = Section("Units", Gallery(cards(24, 16), "units"), analyzer="dissection")
    report = replace(sample_report(), sections=(gallery,))
    whole = HtmlRenderer().render(report, {})
    limit = int(len(whole) * 0.6)
    small = HtmlRenderer().render(report, {"max_size": limit})
    assert len(small.encode()) <= limit
    assert "Pictures were reduced" in small
    assert "Pictures were reduced" not in whole


def test_a_limit_that_cannot_be_kept_is_admitted(report: Report) -> None:
    assert "It is larger still" in HtmlRenderer().render(
        replace(report, sections=report.sections[:1]), {"max_size": 1000}
    )


@pytest.mark.parametrize(("given", "expected"), [(5, 5), ("25MB", 25_000_000), ("1.5m", 1_500_000), ("300 k", 300_000)])
def test_sizes_may_have_units(given: object, expected: int) -> None:
    assert to_bytes(given) == expected


def test_a_limit_that_is_no_size_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="25MB"):
        to_bytes("large")


def test_every_field_of_the_provenance_is_on_the_page(page: str) -> None:
    rows = page[page.index('id="provenance"') :]
    terms = re.findall(r"<dt>(.*?)</dt>", rows)
    assert len(terms) == len(fields(Provenance)) - 2
    assert "gandissect analyze dcgan.pt -a dissection,directions -n 1000 --seed 0 -o dcgan.html" in rows
    assert "lowest mismatch of three" in rows


def test_every_finding_has_its_chip_and_its_evidence(page: str) -> None:
    first = page[page.index('id="findings"') : page.index('id="not-done"')]
    assert first.count('class="chip') == first.count("<li>") == 3
    assert first.count('<a href="#') == 3


def test_a_finding_that_is_the_summary_is_said_once_with_its_chip(report: Report) -> None:
    section = Section("s", summary="Units draw trees.", findings=[Finding("Units draw trees.", TRUST)], analyzer="a")
    text = HtmlRenderer().render(replace(report, sections=(section,)), {})
    part = text[text.index('id="a"') : text.index('id="provenance"')]
    assert part.count("Units draw trees.") == part.count('class="chip') == 1


def test_at_most_five_findings_are_on_the_first_screen(report: Report) -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    section = Section("s", findings=[Finding(f"{word} {word}s", TRUST, i / 10) for i, word in enumerate(words)])
    text = HtmlRenderer().render(replace(report, sections=(section,)), {})
    first = text[text.index('id="findings"') : text.index("</header>")]
    assert first.count('class="chip') == 5
    assert "nine nines" in first and "more</a>" not in first


def test_of_findings_of_one_kind_the_first_screen_has_the_weightiest_and_says_how_many_more(report: Report) -> None:
    kind = [Finding(f"`z[{i}]` carries {i} % of the effect on *thing {i}*.", TRUST, i / 10) for i in range(7)]
    section = Section("s", findings=[*kind, Finding("**Two units** draw the same thing.", TRUST, 0.01)], analyzer="a")
    told = replace(report, sections=(section,))
    text = HtmlRenderer().render(told, {})
    first, below = text[text.index('id="findings"') : text.index("</header>")], text[text.index('id="a"') :]
    assert [finding.text for finding, _ in told.findings()] == [kind[6].text, section.findings[-1].text]
    assert first.count('class="chip') == 2 and ">s · 6 more</a>" in first
    assert "And 6 more in *s*." in MarkdownRenderer().render(told, {})
    assert "5 more findings" in below and all(f'<code class="whole">z[{i}]</code>' in below for i in range(7))
    assert len(told.to_dict()["sections"][0]["findings"]) == 8


@pytest.mark.parametrize(
    ("column", "shown"),
    [("p", ["< 0.001", "0.0043", "0.82", "1", "–"]), ("ap", ["7.11 × 10⁻⁵", "0.00431", "0.819", "1", "–"])],
)
def test_probabilities_have_two_digits_and_no_more_zeros_than_a_test_resolves(column: str, shown: list[str]) -> None:
    values = [7.114e-5, 0.004313, 0.8188, 1.0, None]
    for name in [column] if column == "ap" else [column, "q", "adjusted p", "p, adjusted", "adjusted p of the mean"]:
        assert [in_column(value, name) for value in values] == shown
    assert (p_value(0.0431), p_value(2e-9, "q")) == ("p = 0.043", "q < 0.001")


def test_what_was_skipped_or_failed_is_on_the_first_screen_with_the_way_out(page: str) -> None:
    first = page[page.index('id="not-done"') : page.index("</header>")]
    assert all(word in first for word in ("partly", "skipped", "failed", "--discriminator PATH"))


def test_an_interrupted_run_is_said_to_be_one(report: Report) -> None:
    report = replace(report, interrupted=True, sections=())
    assert all("Interrupted" in kind().render(report, {}) for kind in (HtmlRenderer, MarkdownRenderer))


def test_headings_go_down_one_level_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Outline(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_every_picture_has_an_alternative_text(page: str) -> None:
    assert all("alt" in attrs for tag, attrs in Outline(page).tags if tag == "img")
    assert all("aria-label" in attrs or "aria-hidden" in attrs for tag, attrs in Outline(page).tags if tag == "svg")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_colours_have_enough_contrast(theme: str) -> None:
    rules = style().split('[data-theme="dark"] {')[1] if theme == "dark" else style().split(":root {")[1]
    colours = dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", rules.split("}")[0]))
    low = [
        name
        for name in ("ink", "muted", "accent", "good", "bad", "doubt")
        if contrast(colours[name], colours["paper"]) < 4.5
    ]
    faint = [
        name
        for name in colours
        if name[0] == "c" or name in ("real", "generated")
        if contrast(colours[name], colours["paper"]) < 3
    ]
    assert (low, faint) == ([], [])


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_markdown_marks_become_elements_and_html_does_not() -> None:
    assert inline("**a** *b* `c*d*` <i>") == '<strong>a</strong> <em>b</em> <code class="whole">c*d*</code> &lt;i&gt;'
    assert inline("**`x`** 2*3*4 97 %") == '<strong><code class="whole">x</code></strong> 2*3*4 97\u00a0%'


def test_markdown_has_paragraphs_lists_and_fences() -> None:
    text = "one\n\n- a\n- b\n\n1. c\n\n```\n<x>\n```\n\n# head"
    expected = (
        "<p>one</p>\n<ul><li>a</li><li>b</li></ul>\n<ol><li>c</li></ol>\n"
        "<pre><code>&lt;x&gt;</code></pre>\n<p><strong>head</strong></p>"
    )
    assert markdown(text) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.123"),
        (12.3456, "12.3"),
        (999.7, "1000"),
        (12345.6, "12,346"),
        (2.5e6, "2.5 × 10⁶"),
        (-2, "−2"),
        (1.2e-7, "1.2 × 10⁻⁷"),
        (12345, "12,345"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (2019, "2019"),
    ],
)
def test_numbers_are_written_as_in_a_paper(value: float, shown: str) -> None:
    assert number(value) == shown


def test_the_markdown_report_has_findings_tables_and_provenance(report: Report) -> None:
    text = MarkdownRenderer().render(report, {})
    assert text.startswith("# dcgan.pt\n")
    assert "| layer1 | 256 | 10 | 0.0494 | no |" in text
    assert "71 % of tree area" in text
    assert "gandissect analyze dcgan.pt" in text


def test_the_markdown_report_lets_no_html_through() -> None:
    text = MarkdownRenderer().render(evil_report(), {})
    assert "<img" not in re.sub(r"````.*?````", "", text, flags=re.DOTALL)
    assert "<script" not in re.sub(r"````.*?````", "", text, flags=re.DOTALL)


def test_a_section_may_hold_any_block_of_a_plugin(report: Report) -> None:
    class Own(Block):
        kind = "own"

    text = HtmlRenderer().render(replace(report, sections=(Section("s", Own()),)), {})
    assert "A block of the kind <code>own</code>" in text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("-0.5 (CI -1 to 2)", "−0.5 (CI −1 to 2)"),
        ("p = 1.5e-05", "p = 1.5 × 10⁻⁵"),
        ("coordinates 24-33, `--set a=-1e-05`", 'coordinates 24-33, <code class="whole">--set a=-1e-05</code>'),
    ],
)
def test_numbers_in_sentences_are_typeset_and_code_is_left_alone(text: str, html: str) -> None:
    assert inline(text) == html


def test_a_finding_that_the_summary_holds_is_not_said_again(report: Report) -> None:
    finding = Finding("Units are idle.", Trust("p < 0.001", "against chance"), 0.5)
    section = Section("Idle", summary=f"{finding.text} Others work.", findings=[finding])
    page = HtmlRenderer().render(replace(report, sections=(section,)), {})
    assert page.split('id="idle"')[1].split('type="application/json"')[0].count(finding.text) == 1


def test_no_anchor_is_given_twice_whatever_analyzers_are_called(report: Report) -> None:
    names = ("overview", "overview", "findings", "provenance", "main", "top", "not-done")
    sections = tuple(Section("s", Text("x"), analyzer=name) for name in names)
    text = HtmlRenderer().render(replace(report, sections=(*sections, Section("t", status="skipped"))), {})
    anchors = re.findall(r'\sid="([^"]+)"', text)
    assert len(anchors) == len(set(anchors))
    assert {f"#{name}" for name in re.findall(r'href="#([^"]+)"', text)} <= {f"#{name}" for name in anchors}


def test_notes_of_a_layer_are_left_out_whole() -> None:
    notes = ("house ×23", "dark ×20", "cluster 1 (black flat) ×7")
    assert fitting(notes, 38) == "house ×23, dark ×20, …"
    assert fitting(notes[:2], 38) == "house ×23, dark ×20"
    assert len(fitting(("x" * 50,), 38)) == 38


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten() -> None:
    block = Line((Series("power", (1.0, 2.0, 3.0), (1e-2, 1e-3, 1e-5)),), "x", "y", "falls", log_y=True)
    text = str(view(block, Page(), "sections/0/blocks/0"))
    assert ">10⁻³<" in text
