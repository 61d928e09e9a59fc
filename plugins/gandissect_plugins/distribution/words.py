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
