from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from browser import Browser, Tab
from gandissect_reports.html import HtmlRenderer, script
from gandissect_reports.prose import number

from gandissect.report import Report


@pytest.fixture(scope="module")
def tab(browser: Browser, page_file: Path) -> Tab:
    return browser.open(page_file)


def reload(tab: Tab, file: Path, fragment: str = "") -> None:
    tab.call("Page.navigate", url="about:blank")
    tab.until("Page.loadEventFired")
    tab.call("Page.navigate", url=file.as_uri() + fragment)
    tab.until("Page.loadEventFired")
    tab.settle(0.6)


def test_the_page_opens_from_a_file_without_asking_for_anything_else(tab: Tab, page_file: Path) -> None:
    asked = [address for address in tab.requests if not address.startswith(("data:", "about:"))]
    assert asked == [page_file.as_uri()]


def test_the_page_opens_without_errors_or_violations_of_its_policy(tab: Tab) -> None:
    assert tab.console == []


def test_the_policy_lets_no_address_out(tab: Tab) -> None:
    blocked = tab.run(
        "new Promise(done => { const i = new Image(); i.onerror = () => done(true); i.onload = () => done(false);"
        " i.src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert blocked
    assert any("Content Security Policy" in message for message in tab.console)
    tab.console.clear()


@pytest.mark.parametrize("javascript", [True, False], ids=["with-scripts", "without-scripts"])
def test_all_sections_are_there(browser: Browser, page_file: Path, report: Report, javascript: bool) -> None:
    tab = browser.open(page_file, javascript=javascript)
    html = tab.html()
    assert all(f">{section.title} <a" in html for section in report.sections)
    assert ('<html lang="en" class="js">' in html) == javascript
    assert tab.console == []


def test_without_scripts_both_pictures_of_a_pair_are_shown(browser: Browser, page_file: Path) -> None:
    tab = browser.open(page_file, javascript=False)
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    tops = []
    for name in ("before", "after"):
        node = tab.call("DOM.querySelector", nodeId=root, selector=f".pair .{name}")["nodeId"]
        tops.append(tab.call("DOM.getBoxModel", nodeId=node)["model"]["content"][1])
    assert tops[1] > tops[0] + 50


@pytest.mark.parametrize("width", [320, 400, 800, 1280, 1920])
def test_the_page_never_scrolls_sideways(tab: Tab, width: int) -> None:
    tab.look(width=width)
    tab.settle(0.2)
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_a_gallery_is_searched_and_counted(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    tab.run(
        "(s => { s.value = 'tree layer1'; s.dispatchEvent(new Event('input')); })(document.querySelector('.tools input'))"
    )
    assert tab.run("document.querySelectorAll('.card:not([hidden])').length") == 2
    assert tab.run("document.querySelector('.count').textContent") == "2 of 30 cards"


def test_a_deep_link_goes_to_its_card_and_restores_the_order(tab: Tab, page_file: Path) -> None:
    tab.look(width=1280)
    reload(tab, page_file, "#dissection/layer2/unit-13?sort=IoU")
    assert tab.run("document.querySelector('.card.near').id") == "dissection/layer2/unit-13"
    top = tab.run("document.querySelector('.card.near').getBoundingClientRect().top")
    assert 0 <= top <= 900
    values = tab.run("[...document.querySelectorAll('.card')].slice(0, 5).map(c => JSON.parse(c.dataset.sort).IoU)")
    assert values == sorted(values, reverse=True)


def test_arrow_keys_walk_through_the_cards(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    tab.run("document.querySelector('.card').focus()")
    tab.key("ArrowRight")
    assert tab.run("document.activeElement.dataset.place") == "1"


def test_the_large_view_opens_steps_and_closes_by_keys(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    tab.run("document.querySelector('.grid .sheet').focus()")
    tab.key("Enter")
    tab.settle(0.2)
    assert tab.run("document.querySelector('.light').open")
    tab.key("ArrowRight")
    assert "sample 1" in tab.run("document.querySelector('.light .said').textContent")
    tab.key("Escape")
    assert not tab.run("document.querySelector('.light').open")


def test_a_table_is_sorted_by_its_heads(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    first = "document.querySelector('#geometry .tabled tbody td').textContent"
    tab.run("document.querySelectorAll('#geometry .tabled th button')[1].click()")
    assert tab.run(first) == "layer4"
    tab.run("document.querySelectorAll('#geometry .tabled th button')[1].click()")
    assert tab.run(first) == "layer1"


def test_points_and_cells_tell_their_values_by_keys(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    tab.run("document.querySelector('.scatter .points').focus()")
    tab.key("ArrowRight")
    assert "sample 0 · real" in tab.run("document.querySelector('.hover').textContent")
    tab.run("document.querySelector('.field-picture').focus()")
    tab.key("ArrowDown")
    assert "layer2 · 1, tree 0" in tab.run("document.querySelector('.readout').textContent")


def test_a_value_that_is_pointed_at_reads_as_in_the_tables(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    source = script()
    digits = source[source.index("const digits") : source.index("};", source.index("const digits")) + 2]
    values = [0.123456, -12.3456, 999.7, 1250, 2019]
    shown = tab.run(f"(() => {{ {digits} return {values}.map(digits).join(' '); }})()")
    assert shown == " ".join(number(value) for value in values)
    assert tab.run(f"(() => {{ {digits} return digits(123456.7); }})()") == "123457"


def test_the_seam_and_the_opacity_follow_their_sliders(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    slide = (
        "(i => { i.value = 20; i.dispatchEvent(new Event('input')); })(document.querySelector('{} input[type=range]'))"
    )
    tab.run(slide.replace("{}", ".compare"))
    assert tab.run("document.querySelector('.compare').style.getPropertyValue('--seam')") == "20%"
    tab.run(slide.replace("{}", ".overlay"))
    assert tab.run("getComputedStyle(document.querySelector('.overlay .map')).opacity") == "0.2"


def test_the_theme_is_switched_by_its_button(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    before = tab.run("getComputedStyle(document.body).backgroundColor")
    tab.run("[...document.querySelectorAll('.side button')].at(-1).click()")
    assert tab.run("getComputedStyle(document.body).backgroundColor") != before
    assert tab.console == []


def test_on_paper_the_page_is_light_and_its_folds_are_open(tab: Tab, page_file: Path) -> None:
    reload(tab, page_file)
    tab.run("document.documentElement.dataset.theme = 'dark'")
    tab.call("Emulation.setEmulatedMedia", media="print")
    shown = "getComputedStyle(document.querySelector('.side')).display"
    assert tab.run(shown) == "none"
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("document.querySelector('.meaning .text').getBoundingClientRect().height") > 20
    tab.call("Emulation.setEmulatedMedia", media="")


def test_it_works_inside_a_sandboxed_frame_as_in_a_notebook(browser: Browser, report: Report, tmp_path: Path) -> None:
    renderers = [HtmlRenderer()]
    outer = tmp_path / "outer.html"
    outer.write_text("<!doctype html>" + replace(report, renderers=renderers)._repr_html_(), encoding="utf-8")
    tab = browser.open(outer)
    tab.look(width=1200)
    frame = "document.querySelector('iframe').getBoundingClientRect()"
    left, top = tab.run(f"[{frame}.left, {frame}.top]")
    for kind in ("mousePressed", "mouseReleased"):  # on "Numbers" in the list of sections
        tab.call("Input.dispatchMouseEvent", type=kind, x=left + 60, y=top + 133, button="left", clickCount=1)
    tab.settle()
    targets = tab.call("Target.getTargets")["targetInfos"]
    assert "about:srcdoc" in [one["url"] for one in targets if one["type"] == "iframe"]
    assert [message for message in tab.console if message.startswith("error")] == []
