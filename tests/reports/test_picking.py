"""Points, cards and tabs in a browser: what is picked in one place is shown in the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Browser, Tab

FIGURE = "document.querySelector('figure.linked')"
SHOWN = "[...document.querySelectorAll('.card:not([hidden])')].length"
CENTRE = "((m) => { const b = m.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; })"


@pytest.fixture
def tab(browser: Browser, page_file: Path) -> Tab:
    tab = browser.open(page_file)
    tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
    tab.look(width=1280)
    tab.run(f"{FIGURE}.scrollIntoView()")
    tab.settle(0.2)
    return tab


def mouse(tab: Tab, kind: str, at: tuple[float, float], held: int = 0) -> None:
    tab.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", buttons=held, clickCount=1)


def focus_first_point(tab: Tab) -> None:
    tab.run(f"{FIGURE}.querySelector('.points').focus()")
    tab.key("ArrowRight")


def test_a_lasso_around_all_points_keeps_their_cards_and_clearing_shows_all(tab: Tab) -> None:
    left, top, width, height = tab.run(
        f"(b => [b.left, b.top, b.width, b.height])({FIGURE}.querySelector('.points').getBoundingClientRect())"
    )
    corners = [(left + x * width, top + y * height) for x, y in ((0.5, 0.01), (0.5, 0.9), (0.99, 0.9), (0.99, 0.01))]
    mouse(tab, "mousePressed", corners[0], 1)
    for corner in corners[1:]:
        mouse(tab, "mouseMoved", corner, 1)
    mouse(tab, "mouseReleased", corners[-1])
    picked = tab.run(f"{FIGURE}.querySelectorAll('.marks path:not(.off)').length")
    linked = tab.run(f"{FIGURE}.querySelectorAll('.marks a path:not(.off)').length")
    assert 0 < picked < 40
    assert tab.run(SHOWN) == linked
    assert f"{picked} of 40 points picked; {linked} of them" in tab.run(
        f"{FIGURE}.querySelector('.readout').textContent"
    )
    tab.run(f"{FIGURE}.querySelector('.readout button').click()")
    assert tab.run(SHOWN) == 30
    assert tab.console == []


def test_space_picks_a_point_in_every_plot_and_escape_lets_go(tab: Tab) -> None:
    focus_first_point(tab)
    tab.call("Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space", windowsVirtualKeyCode=32, text=" ")
    assert tab.run(SHOWN) == 1
    counts = (
        "[...document.querySelectorAll('figure.linked')].map(f => f.querySelectorAll('.marks path:not(.off)').length)"
    )
    assert tab.run(counts) == [1, 1]
    tab.key("Escape")
    assert tab.run(SHOWN) == 30


def test_an_entry_of_the_legend_picks_its_group(tab: Tab) -> None:
    tab.run(f"{FIGURE}.querySelector('.keys button').click()")
    names = tab.run("[...document.querySelectorAll('.card:not([hidden]) .card-title b')].map(b => b.textContent)")
    assert set(names) == {"tree"}
    tab.run("[...document.querySelectorAll('.tools button')].find(b => b.textContent.startsWith('Picked')).click()")
    assert tab.run(SHOWN) == 30


def test_enter_on_a_point_opens_its_card_and_a_click_does_too(tab: Tab) -> None:
    focus_first_point(tab)
    assert "unit 0" in tab.run(f"{FIGURE}.querySelector('.hover').textContent")
    assert tab.run("document.querySelector('.card.linked').id") == "dissection/layer1/unit-0"
    tab.key("Enter")
    tab.settle(0.6)
    assert tab.run("document.querySelector('.card.near').id") == "dissection/layer1/unit-0"
    tab.run(f"{FIGURE}.scrollIntoView()")
    at = tab.run(f"{CENTRE}({FIGURE}.querySelector('[data-i=\"8\"]'))")
    mouse(tab, "mouseMoved", at)
    mouse(tab, "mousePressed", at, 1)
    mouse(tab, "mouseReleased", at)
    tab.settle(0.6)
    assert tab.run("location.hash").startswith("#dissection/layer")
    assert tab.run("document.querySelector('.card.near').id") != "dissection/layer1/unit-0"


def test_a_card_lights_its_point(tab: Tab) -> None:
    tab.run("document.getElementById('dissection/layer2/unit-13').focus()")
    assert tab.run(f"[...{FIGURE}.querySelectorAll('.marks .on')].map(m => m.dataset.i)") == ["13"]
    tab.run("document.querySelector('.skip').focus()")
    assert tab.run(f"{FIGURE}.querySelectorAll('.marks .on').length") == 0


def test_one_tab_is_shown_at_a_time_and_all_on_paper(tab: Tab) -> None:
    heights = "[...document.querySelectorAll('.tab')].map(t => t.getBoundingClientRect().height > 0)"
    assert tab.run(heights) == [True, False]
    tab.run("document.querySelectorAll('.tab-names button')[1].click()")
    assert tab.run(heights) == [False, True]
    assert tab.run("[...document.querySelectorAll('.tab-names button')].map(b => b.ariaPressed)") == ["false", "true"]
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run(heights) == [True, True]


def test_without_scripts_points_are_links_and_all_tabs_are_shown(browser: Browser, page_file: Path) -> None:
    tab = browser.open(page_file, javascript=False)
    root = tab.call("DOM.getDocument")["root"]["nodeId"]
    links = tab.call("DOM.querySelectorAll", nodeId=root, selector="figure.linked .marks a")["nodeIds"]
    tabs = tab.call("DOM.querySelectorAll", nodeId=root, selector=".tab")["nodeIds"]
    assert len(links) == 60
    assert all(tab.call("DOM.getBoxModel", nodeId=node)["model"]["height"] > 100 for node in tabs)
