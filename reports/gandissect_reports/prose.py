"""Text made safe and readable: a small Markdown, numbers, names for anchors.

markdown("**12 of 480** units draw `eyes`")   # Markup: <p><strong>12 of 480</strong> units draw <code>eyes</code></p>
number(0.000123456)                           # "1.235 × 10⁻⁴"
slug("Mean colour")                           # "mean-colour"
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from gandissect.blocks import Cell
from gandissect.wording import p_number

# Control characters, lone surrogates, and marks that reorder text (a layer name could pose as another one).
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
POWER = re.compile(r"(?<=\d)e([+-]\d+)\b")
MINUS = re.compile(r"(?<![^\s(\[/])-(?=\.?\d)")
P_COLUMN = re.compile(r"(^|\s)[pq]($|,|\sof\s)")  # "p", "adjusted p", "p, adjusted", "adjusted p of the mean"
ITEM = re.compile(r"\s*(?:[-*]|(\d+)[.)])\s+(.*)")


def printable(text: str) -> str:
    """``text`` with control characters as their Unicode pictures (␛) and other unprintable ones as �."""
    return UNPRINTABLE.sub(lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "�", text)


def without_surrogates(text: str) -> str:
    """``text`` that can be written as UTF-8."""
    return re.sub("[\ud800-\udfff]", "�", text)


def slug(text: str) -> str:
    """``text`` as a name for an anchor: lower case, words joined by hyphens, never empty."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"


def anchor(text: str) -> str:
    """``text`` as the last part of an anchor; slashes, dots and case stay, white space and quotes do not."""
    return re.sub(r"[\s\"'<>&#?%]+", "-", printable(text))


def number(value: Cell) -> str:
    """A table cell as text: three significant digits (all before the point), true minus, powers of ten written out, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return typeset(value)
    if isinstance(value, int):
        grouped = f"{value:,}" if abs(value) >= 10_000 else str(value)
        return grouped.replace("-", "−")
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 999.5 <= abs(value) < 1e6:
        return number(round(value))
    mantissa, _, power = f"{value:.3g}".partition("e")
    if power:
        return f"{mantissa} × 10{str(int(power)).translate(SUPERSCRIPT)}".replace("-", "−")
    return mantissa.replace("-", "−")


def in_column(value: Cell, column: str) -> str:
    """A table cell as text; probabilities of a column of p or q as people write them."""
    if isinstance(value, float) and 0 <= value <= 1 and P_COLUMN.search(column):
        return p_number(value)
    return number(value)


def typeset(text: str) -> str:
    """``text`` with true minus signs and with powers of ten written out ("1.5e-05" is 1.5 × 10⁻⁵)."""
    spelt = POWER.sub(lambda found: f" × 10{str(int(found[1])).translate(SUPERSCRIPT)}", text)
    return MINUS.sub("−", spelt)


def inline(text: str) -> Markup:
    """``text`` with ``**strong**``, ``*emphasis*``, `` `code` `` and numbers typeset, as HTML; everything else is escaped."""
    codes: list[str] = []

    def put_aside(found: re.Match[str]) -> str:
        whole = ' class="whole"' if len(found[1]) <= 32 else ""
        codes.append(f"<code{whole}>{escape(found[1])}</code>")
        return f"\x00{len(codes) - 1}\x00"

    held = re.sub(r"`([^`\n]+)`", put_aside, text.replace("\x00", "�"))
    out = re.sub(r"(?<=\d) (?=%)", "\u00a0", str(escape(typeset(held))))
    out = re.sub(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", r"<strong>\1</strong>", out, flags=re.DOTALL)
    out = re.sub(r"(?<![\w*])\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?![\w*])", r"<em>\1</em>", out, flags=re.DOTALL)
    return Markup(re.sub("\x00(\\d+)\x00", lambda found: codes[int(found[1])], out))


def markdown(text: str) -> Markup:
    """``text`` as HTML: paragraphs, lists, fenced code and the inline marks; headings become strong paragraphs."""
    return Markup("\n").join(_pieces(text))


def _pieces(text: str) -> Iterator[Markup]:
    """The HTML of each paragraph, list and code block of ``text``."""
    for index, part in enumerate(re.split(r"^```[^\n]*$", text, flags=re.MULTILINE)):
        if index % 2:
            yield Markup("<pre><code>{}</code></pre>").format(part.strip("\n"))
            continue
        for paragraph in re.split(r"\n\s*\n", part):
            if paragraph.strip():
                yield from _paragraph(paragraph.strip("\n").splitlines())


def _paragraph(lines: list[str]) -> Iterator[Markup]:
    """One run of lines: prose first, then the list that follows without an empty line."""
    prose: list[str] = []
    items: list[str] = []
    ordered = False
    for line in lines:
        found = ITEM.fullmatch(line)
        if found:
            ordered = ordered or (found[1] is not None and not items)
            items.append(found[2])
        elif items:
            items[-1] += f"\n{line.strip()}"
        else:
            prose.append(line)
    if prose:
        yield _prose("\n".join(prose))
    if items:
        name = Markup("ol" if ordered else "ul")
        yield Markup("<{0}>{1}</{0}>").format(
            name, Markup("").join(Markup("<li>{}</li>").format(inline(i)) for i in items)
        )


def _prose(text: str) -> Markup:
    """A paragraph; a heading is one in strong letters, since headings of the page are the report's own."""
    heading = re.fullmatch(r"\s*#{1,6}\s+(.*)", text, flags=re.DOTALL)
    if heading:
        return Markup("<p><strong>{}</strong></p>").format(inline(heading[1]))
    return Markup("<p>{}</p>").format(inline(text))
