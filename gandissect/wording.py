"""Numbers as sentences have them.

percent(0.1234), percent(0.00314), percent(-0.5)     # "12 %", "0.31 %", "−50 %"
"""

from __future__ import annotations


def percent(share: float) -> str:
    """A share of 0..1 in per cent with two significant digits, or all those before the point."""
    value = 100 * share
    text = f"{value:.0f}" if abs(value) >= 9.5 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"
    return f"{text} %".replace("-", "−")
