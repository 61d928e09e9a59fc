"""Numbers in sentences.

number(0.03862)                                          # "0.0386"
span(0.031, 0.046)                                       # "0.031 to 0.046"
"""

from __future__ import annotations


def number(value: float) -> str:
    """Three significant digits, with a real minus sign."""
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def span(low: float, high: float) -> str:
    """An interval."""
    return f"{number(low)} to {number(high)}"


def percent(share: float) -> str:
    """A share of 0..1 in per cent: "12 %", "0.31 %"."""
    value = 100 * share
    text = f"{value:.0f}" if abs(value) >= 9.5 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"
    return f"{text} %".replace("-", "−")
