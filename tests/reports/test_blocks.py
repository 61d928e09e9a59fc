from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from gandissect_reports import figure_views, picture_views  # noqa: F401 - they teach the page its blocks
from gandissect_reports.colours import names_to_variables
from gandissect_reports.layers import arrange, ranks
from gandissect_reports.markdown import words
from gandissect_reports.page import Page, view
from gandissect_reports.projection import place_points
from gandissect_reports.sheets import Fidelity, make_sheet
from sample_pictures import scenes
from sample_report import every_block

import gandissect.blocks as blocks
from gandissect.blocks import (
    Block,
    Compare,
    Fold,
    Gallery,
    Graph,
    Heatmap,
    ImageGrid,
    Node,
    Overlay,
    Scatter,
    Series,
    Strip,
    Table,
)

KINDS = sorted(
    (
        kind
        for kind in vars(blocks).values()
        if isinstance(kind, type) and issubclass(kind, Block) and kind is not Block
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_block_has_its_own_view(kind: type[Block]) -> None:
    assert view.dispatch(kind) is not view.dispatch(object), f"no view is registered for {kind.__name__}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_block_is_in_the_sample_and_renders(kind: type[Block]) -> None:
    found = [block for block in every_block() if type(block) is kind]
    assert found, f"add a {kind.__name__} to sample_report.py"
    assert all(len(view(block, Page(), "sections/0/blocks/0")) > 20 and words(block) for block in found)


@dataclass(frozen=True)
class Foreign(Block):
    kind: ClassVar[str] = "foreign"
    score: float
    word: str


@dataclass(frozen=True)
class OwnTable(Table):
    kind: ClassVar[str] = "own-table"


def test_an_unknown_block_is_shown_as_a_table_of_its_json() -> None:
    html = view(Foreign(0.5, "<b>"), Page(), "")
    assert "<table" in html
    assert ">score</td>" in html
    assert "&lt;b&gt;" in html


def test_a_subclass_of_a_known_block_is_shown_like_it() -> None:
    assert view(OwnTable(("a",), [(1,)]), Page(), "").count("<td") == 1


def test_a_grid_is_one_sheet_however_many_pictures_it_has() -> None:
    assert view(ImageGrid(scenes(24, 16), "many"), Page(), "").count("<img") == 1


@pytest.mark.parametrize("size", [28, 32, 48, 64])
def test_small_pictures_are_shown_at_96_pixels_or_more_without_smoothing(size: int) -> None:
    sheet = make_sheet(scenes(6, size), 6, fidelity=Fidelity())
    assert sheet.cell[0] >= 96
    assert sheet.pixelated
    assert sheet.cell[0] % size == 0


def test_a_sheet_never_exceeds_what_webp_can_hold() -> None:
    assert make_sheet(scenes(600, 32), 1, fidelity=Fidelity(crisp=True)).count == 600


def test_maps_without_positive_evidence_say_so() -> None:
    html = view(Overlay(scenes(2, 16), -np.ones((2, 4, 4)), "maps", signed=False), Page(), "")
    assert html.count(">no positive evidence</li>") == 2


def test_constant_and_missing_maps_say_so() -> None:
    maps = np.stack([np.full((4, 4), 0.5), np.full((4, 4), np.nan), np.zeros((4, 4))])
    html = view(Overlay(scenes(3, 16), maps, "maps"), Page(), "")
    assert all(said in html for said in ("constant, 0.5", "not measured", "no evidence"))


def test_a_legend_has_numbers_where_the_scale_is_shared() -> None:
    maps = np.linspace(-2, 1, 16).reshape(1, 4, 4)
    html = view(Overlay(scenes(1, 16), maps, "maps", shared_scale=True, unit="logit"), Page(), "")
    assert "−2</span>" in html
    assert ">2</span>" in html
    assert "logit" in html


def test_pictures_without_any_difference_are_said_to_be_equal() -> None:
    images = scenes(2, 16)
    assert "No pixel differs" in view(Compare(images, images, "same"), Page(), "")


def test_rows_of_a_matrix_link_to_the_cards_of_their_section() -> None:
    page = Page(anchors={("here", "u1"): "here/u1", ("", "u1"): "there/u1"}, section="here")
    html = view(Heatmap(np.eye(2), ("a", "b"), ("x", "y"), "m", row_links=("u1", "nowhere")), page, "")
    assert html.count('href="#') == 1
    assert 'href="#here/u1"' in html


def test_a_large_matrix_is_one_picture_and_not_thousands_of_elements() -> None:
    html = view(Heatmap(np.zeros((200, 30)), ("r",) * 200, ("c",) * 30, "m"), Page(), "p")
    assert html.count("<img") == 1
    assert html.count("<td") < 4000


def test_numbers_have_three_digits_on_the_page_and_all_of_them_for_sorting() -> None:
    html = view(Table(("x",), [(0.123456789,), (None,), (True,)]), Page(), "")
    assert ">0.123</td>" in html
    assert 'data-order="0.123456789"' in html
    assert ">–</td>" in html
    assert ">yes</td>" in html


def test_two_scatter_points_of_the_same_colour_scale_keep_their_places() -> None:
    html = view(Scatter(np.array([[0.0, 0.0], [1.0, 1.0]]), ("x", "y"), "two", ("real", "generated")), Page(), "")
    assert "var(--real)" in html
    assert "var(--generated)" in html
    assert html.count("data-i=") == 2


def test_points_link_to_the_cards_of_their_section_and_to_no_others() -> None:
    page = Page(anchors={("here", "u1"): "here/u1", ("", "u1"): "there/u1"}, section="here")
    block = Scatter(np.eye(3)[:, :2], ("x", "y"), "three", labels=("a", "b", "c"), links=("u1", "nowhere", ""))
    html = view(block, page, "p")
    assert html.count("<a href=") == 2  # a point and the CSV
    assert '<a href="#here/u1" aria-label="a">' in html


def test_the_muted_group_is_drawn_first_and_named_last() -> None:
    points = np.arange(8.0).reshape(4, 2)
    block = Scatter(points, ("x", "y"), "four", groups=("no", "yes", "no", "yes"), muted="no", named=("yes",))
    html = view(block, Page(), "p")
    drawn = re.findall(r'style="fill:var\((--\w+)\)"( class="pale")? data-i', html)
    assert [name for name, _ in drawn] == ["--muted", "--muted", "--c0", "--c0"]
    assert [bool(pale) for _, pale in drawn] == [True, True, False, False]
    assert html.index("</svg>yes") < html.index("</svg>no")
    assert html.count(">yes</text>") == 1
    assert ">no</text>" not in html


def test_shapes_and_colours_of_points_tell_two_things() -> None:
    block = Scatter(np.eye(2), ("x", "y"), "two", groups=("a", "a"), shapes=("layer1", "layer2"))
    outlines = re.findall(r'<path d="([^"]*)" transform', view(block, Page(), "p"))
    assert len(set(outlines)) == 2


def test_a_guide_ends_where_its_data_are() -> None:
    guide = blocks.Guide((0.0, 0.0), (2.0, 2.0), "y = x")
    placed = place_points(Scatter(np.array([[0.0, 0.0], [2.0, 2.0]]), ("x", "y"), "two", guides=(guide,)))
    line = next(one for one in placed.lines if one.kind == "guide")
    np.testing.assert_allclose([[line.x1, line.y1], [line.x2, line.y2]], placed.xy)


def test_a_group_with_the_name_of_a_colour_shares_it_with_no_other() -> None:
    variables = names_to_variables(["white", "green", "blue", "dark"])
    assert variables["green"] == "--c0"
    assert len(set(variables.values())) == 4


@pytest.mark.parametrize(
    "block",
    [
        ImageGrid(scenes(0, 8), "none"),
        Gallery((), "none"),
        Scatter(np.zeros((0, 2)), ("x", "y"), "none"),
        Scatter(np.zeros((1, 3)), ("x", "y", "z"), "one"),
        Heatmap(np.zeros((0, 0)), (), (), "none"),
        Heatmap(np.full((2, 2), np.nan), ("a", "b"), ("x", "y"), "nothing measured"),
        Table((), []),
        Graph((), (), "none"),
        Strip(np.zeros((0, 2, 8, 8, 3), np.uint8), (), "none", "none"),
        Compare(scenes(0, 8), scenes(0, 8), "none"),
        Overlay(scenes(0, 8), np.zeros((0, 4, 4)), "none"),
        blocks.Line((), "x", "y", "none"),
        blocks.Line((Series("a", [1.0], [float("nan")]),), "x", "y", "one", log_y=True),
        blocks.Bar((), "x", "y", "none"),
        blocks.Histogram({}, "x", "none"),
        blocks.Histogram({"a": [], "b": [1.0, float("nan")]}, "x", "few"),
        Fold("empty", ()),
        blocks.Tabs(("one",), (Table((), []),)),
        blocks.Multiples((), (), (), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)), "units", "chance", "none"),
        Scatter(np.zeros((0, 2)), ("x", "y"), "a guide alone", guides=(blocks.Guide((0, 0), (1, 1), "y = x"),)),
    ],
    ids=lambda block: f"{type(block).__name__}-{block.alt if hasattr(block, 'alt') else ''}",
)
def test_empty_and_degenerate_blocks_render(block: Block) -> None:
    assert view(block, Page(), "p")
    assert words(block)


def test_a_circle_of_layers_does_not_hang() -> None:
    assert set(ranks(["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "a")])) == {"a", "b", "c"}


def test_shortcuts_of_a_chain_go_through_lanes_that_do_not_overlap() -> None:
    nodes = [Node(name, "conv", "8") for name in "abcdefgh"]
    edges = [*zip("abcdefg", "bcdefgh", strict=True), ("a", "d"), ("b", "e"), ("e", "h")]
    drawing = arrange(nodes, edges)
    assert drawing.chain
    assert len({path.split("H")[1].split("Q")[0] for path in drawing.shortcuts}) == 2


def test_plots_leave_matplotlib_as_it_was() -> None:
    code = (
        "import matplotlib, sys\n"
        "from sample_report import every_block\n"
        "import gandissect_reports.html\n"
        "from gandissect_reports.page import Page, view\n"
        "settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != 'backend'}\n"
        "before = settings()\n"
        "[view(block, Page(), 'p') for block in every_block() if block.kind in ('line', 'bar', 'histogram', 'multiples')]\n"
        "print(settings() == before, 'matplotlib.pyplot' in sys.modules)\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["True", "False"]
