"""Lines, bars and histograms as inline SVG whose colours follow the page's theme.

    svg, keys = line_plot(block, name="p3")     # Markup, and the entries of the legend

Figures are drawn with matplotlib's objects, never with pyplot: no backend is switched and no figure is kept. Colours are
written as place-holders and replaced by CSS variables, letters stay letters.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from gandissect.blocks import Bar, Histogram, Line, Multiples, Series
from gandissect_reports.colours import CATEGORIES, ROLES, names_to_variables, role_to_variable
from gandissect_reports.prose import typeset
from gandissect_reports.sheets import LETTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

VARIABLES = ["--ink", "--muted", "--rule", "--paper", "--real", "--generated", *(f"--c{i}" for i in range(CATEGORIES))]
STAND_INS = {
    variable: f"#0{index:x}f0{index:x}e" if index < 16 else f"#1{index - 16:x}f01e"
    for index, variable in enumerate(VARIABLES)
}
BACK = {stand_in: variable for variable, stand_in in STAND_INS.items()}
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)))
CSS_DASHES = ("", "6 3", "2 2", "7 3 2 3", "11 4")
SIZE = (7.4, 3.5)  # inches of 96 CSS px


@dataclass(frozen=True)
class Key:
    """One entry of a legend: its CSS variable, and how the line is broken ("" for whole)."""

    label: str
    variable: str
    dashes: str = ""
    filled: bool = False


def line_plot(block: Line, name: str) -> tuple[Markup, list[Key]]:
    """The lines of ``block`` with their intervals as bands."""
    variables = _variables(block.series)

    def paint(axes: Axes) -> None:
        for index, series in enumerate(block.series):
            colour = STAND_INS[variables[index]]
            x = _places(series, block.series)
            marker = "o" if len(x) <= 20 else ""
            axes.plot(
                x,
                list(series.y),
                color=colour,
                linestyle=DASHES[_dash(index, series)],
                marker=marker,
                markersize=3.5,
                linewidth=1.6,
            )
            if len(series.low) and len(series.high):
                axes.fill_between(x, list(series.low), list(series.high), color=colour, alpha=0.18, linewidth=0)
        if block.log_y:
            _log_ticks(axes)
        _name_places(axes, block.series)
        axes.set_xlabel(block.x_label)
        axes.set_ylabel(block.y_label)
        axes.grid(True, axis="y")

    return draw(paint, name), _line_keys(block.series, variables)


def _log_ticks(axes: Axes) -> None:
    """A logarithmic y axis with ticks such as 10⁻² and 3 × 10⁻²."""
    from matplotlib.ticker import LogFormatter

    class Powers(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return typeset(super().__call__(x, pos).replace("\N{MINUS SIGN}", "-")).removeprefix("1 × ")

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Powers())  # the default writes formulas, which are not parsed here
    axes.yaxis.set_minor_formatter(Powers(labelOnlyBase=False))


def bar_plot(block: Bar, name: str) -> tuple[Markup, list[Key]]:
    """The bars of ``block``, side by side for each x, with their intervals as whiskers."""
    variables = _variables(block.series)
    names = _categories(block.series)
    thickness = 0.8 / max(1, len(block.series))

    def paint(axes: Axes) -> None:
        for index, series in enumerate(block.series):
            at = np.array([names.index(str(x)) for x in series.x]) + (index - (len(block.series) - 1) / 2) * thickness
            y = np.asarray(series.y, dtype=float)
            colour = STAND_INS[variables[index]]
            if block.horizontal:
                axes.barh(at, y, thickness * 0.92, color=colour)
            else:
                axes.bar(at, y, thickness * 0.92, color=colour)
            if len(series.low) and len(series.high):
                _whiskers(
                    axes,
                    at,
                    np.asarray(series.low, dtype=float),
                    np.asarray(series.high, dtype=float),
                    block.horizontal,
                )
        _finish_bars(axes, block, names)

    height = max(1.6, 0.28 * len(names) * max(1, len(block.series) * 0.6) + 0.8) if block.horizontal else SIZE[1]
    return draw(paint, name, (SIZE[0], height)), [
        Key(s.label, variables[i], filled=True) for i, s in enumerate(block.series)
    ]


def _whiskers(axes: Axes, at: np.ndarray, low: np.ndarray, high: np.ndarray, horizontal: bool) -> None:
    """Intervals [low, high] across or along the bars at ``at``, all float [N]."""
    middle, reach, ink = (low + high) / 2, (high - low) / 2, STAND_INS["--ink"]
    if horizontal:
        axes.errorbar(middle, at, xerr=reach, fmt="none", ecolor=ink, elinewidth=1, capsize=2.5)
    else:
        axes.errorbar(at, middle, yerr=reach, fmt="none", ecolor=ink, elinewidth=1, capsize=2.5)


def _finish_bars(axes: Axes, block: Bar, names: list[str]) -> None:
    """Names, labels and grid of a bar plot."""
    axes.grid(True, axis="x" if block.horizontal else "y")
    if block.horizontal:
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.axvline(0, color=STAND_INS["--muted"], linewidth=0.8)
        axes.set_xlabel(block.y_label)
        axes.set_ylabel(block.x_label)
        return
    _name_ticks(axes, names)
    axes.axhline(0, color=STAND_INS["--muted"], linewidth=0.8)
    axes.set_xlabel(block.x_label)
    axes.set_ylabel(block.y_label)


def multiples_plot(block: Multiples, name: str) -> tuple[Markup, list[Key]]:
    """The panels of ``block``, at most four in a row, bars from left to right, chance as a mark with its interval."""
    groups = list(dict.fromkeys(block.groups))
    variables = names_to_variables(groups)
    colours = [STAND_INS[variables[group]] for group in block.groups]
    across = min(4, max(1, len(block.panels)))
    down = max(1, -(-len(block.panels) // across))
    at = np.arange(len(block.names))
    reach = max(1.0, float(np.max([block.values, block.expected_high], initial=0.0)))

    def paint(figure: Figure) -> None:
        grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(block.panels):
                axes.set_visible(False)
                continue
            chance = block.expected[place]
            axes.barh(at, block.values[place], 0.72, color=colours)
            axes.hlines(
                at, chance, np.maximum(chance, block.expected_high[place]), color=STAND_INS["--ink"], linewidth=1
            )
            axes.plot(chance, at, "|", color=STAND_INS["--ink"], markersize=8, markeredgewidth=1.4)
            axes.set_title(block.panels[place], loc="left")
            axes.set_yticks(at, [text if len(text) <= 24 else f"{text[:23]}…" for text in block.names])
            axes.set_xlim(0, 1.04 * reach)
            axes.set_ylim(len(at) - 0.4, -0.6)
            axes.xaxis.get_major_locator().set_params(integer=True, nbins=4)
            axes.grid(True, axis="x")
        figure.supxlabel(block.value_label, fontsize=9.75)

    size = (9.2, 0.7 + down * (0.4 + 0.19 * len(at)))
    keys = [Key(group, variables[group], filled=True) for group in groups]
    return draw_figure(paint, name, size), [*keys, Key(block.expected_label, "--ink")]


def histogram_bins(block: Histogram) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Edges [bins + 1] common to all groups and the share of each group in each bin; values that are no number are left out."""
    groups = {name: np.asarray(values, dtype=float) for name, values in block.groups.items()}
    groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
    everything = np.concatenate(list(groups.values()) or [np.zeros(1)])
    edges = np.histogram_bin_edges(everything if len(everything) else np.zeros(1), bins=block.bins)
    return edges, {name: np.histogram(values, edges)[0] / max(1, len(values)) for name, values in groups.items()}


def histogram_plot(block: Histogram, name: str) -> tuple[Markup, list[Key]]:
    """The distributions of ``block`` as steps over common bins, each group summing to 1."""
    edges, shares = histogram_bins(block)
    series = [Series(group, (), (), role="") for group in shares]
    variables = _variables(series)

    def paint(axes: Axes) -> None:
        for index, share in enumerate(shares.values()):
            colour = STAND_INS[variables[index]]
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.22, linewidth=0)
            axes.stairs(share, edges, color=colour, linewidth=1.6, linestyle=DASHES[_dash(index, series[index])])
        axes.set_xlabel(block.x_label)
        axes.set_ylabel("share of values")
        axes.set_ylim(bottom=0)
        axes.grid(True, axis="y")

    return draw(paint, name), _line_keys(series, variables)


def draw(paint: Callable[[Axes], None], name: str, size: tuple[float, float] = SIZE) -> Markup:
    """What ``paint`` draws on one pair of axes, as SVG."""
    return draw_figure(lambda figure: paint(figure.add_subplot()), name, size)


def draw_figure(paint: Callable[[Figure], None], name: str, size: tuple[float, float]) -> Markup:
    """What ``paint`` draws, as SVG; ``name`` keeps its identifiers apart from those of other figures on the page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style(name)):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}, transparent=True
        )
    return clean_svg(file.getvalue(), name)


def clean_svg(text: str, name: str) -> Markup:
    """Matplotlib's SVG as part of a page: no addresses, no foreign fonts, unique identifiers, the theme's colours."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', _open_svg, body, count=1)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([\w.-]+)', body))
    body = re.sub(r' id="([\w.-]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"#[0-9a-f]{6}", lambda found: f"var({BACK[found[0]]})" if found[0] in BACK else found[0], body)
    return Markup(re.sub(r"\s*\n\s*", "\n", re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)))


def _open_svg(found: re.Match[str]) -> str:
    """The root element with its size in CSS pixels; the picture's words are in the figure's label."""
    width, height = (float(part) * 4 / 3 for part in found[1].split()[2:])
    return f'<svg class="plot" viewBox="{found[1]}" width="{width:.0f}" height="{height:.0f}" aria-hidden="true">'


def _style(name: str) -> dict[RcKeyType, object]:
    """Settings that hold while one figure is drawn."""
    ink, muted, rule = STAND_INS["--ink"], STAND_INS["--muted"], STAND_INS["--rule"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9.75,
        "text.color": ink,
        "text.parse_math": False,
        "axes.labelcolor": ink,
        "axes.edgecolor": muted,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlesize": 9.75,
        "axes.unicode_minus": True,
        "axes.formatter.use_mathtext": False,
        "axes.formatter.limits": (-4, 5),
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "grid.color": rule,
        "grid.linewidth": 0.8,
    }


def series_points(series: Series) -> list[tuple[str | float, float]]:
    """x and y of each point; x is text where it names a category."""
    places: Sequence[str | float] = series.x
    return [(x if isinstance(x, str) else float(x), float(y)) for x, y in zip(places, series.y, strict=True)]


def _variables(series: Sequence[Series]) -> list[str]:
    """A CSS variable for each series: by role, else by its place among those without one."""
    names = [one.role or (one.label if one.label.lower() in ROLES else "") for one in series]
    plain = [index for index, name in enumerate(names) if not name]
    return [role_to_variable(name, plain.index(index) if not name else 0) for index, name in enumerate(names)]


def _line_keys(series: Sequence[Series], variables: Sequence[str]) -> list[Key]:
    """The legend of lines."""
    return [Key(one.label, variables[i], CSS_DASHES[_dash(i, one)]) for i, one in enumerate(series)]


def _dash(index: int, series: Series) -> int:
    """How the line is broken, an index into ``DASHES``: whole for real, broken for generated and null, else by its place."""
    return {"real": 0, "generated": 1, "fake": 1, "null": 2, "baseline": 4}.get(
        series.role or series.label.lower(), index % len(DASHES)
    )


def _categories(series: Sequence[Series]) -> list[str]:
    """All x of all series as text, in order of appearance."""
    return list(dict.fromkeys(str(x) for one in series for x in one.x))


def _places(series: Series, everything: Sequence[Series]) -> list[float]:
    """Where the points of a series are on the x axis: their numbers, or the places of their names."""
    names = _categories(everything)
    if any(isinstance(x, str) for one in everything for x in one.x):
        return [float(names.index(str(x))) for x in series.x]
    return [float(x) for x in series.x]


def _name_places(axes: Axes, series: Sequence[Series]) -> None:
    """Names under the x axis where x is text."""
    if any(isinstance(x, str) for one in series for x in one.x):
        _name_ticks(axes, _categories(series))


def _name_ticks(axes: Axes, names: list[str]) -> None:
    """Names at 0, 1, 2 …: turned where they would touch, and only some where there are very many."""
    step = math.ceil(len(names) / 20) if len(names) > 32 else 1
    room = SIZE[0] * 96 * 0.85 / max(1, len(names) / step)
    turned = max(map(len, names), default=0) * LETTER > room - 6
    shown = [name if len(name) <= 28 else f"{name[:27]}…" for name in names[::step]]
    axes.set_xticks(range(0, len(names), step), shown, rotation=35 if turned else 0, ha="right" if turned else "center")
    if turned:
        axes.tick_params(axis="x", pad=2)
