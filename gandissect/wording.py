"""Numbers as sentences have them.

percent(0.1234), percent(0.00314), percent(-0.5)     # "12 %", "0.31 %", "−50 %"
p_value(0.0431), p_value(2e-9), p_number(0.0431)      # "p = 0.043", "p < 0.001", "0.043"
"""

from __future__ import annotations


def percent(share: float) -> str:
    """A share of 0..1 in per cent with two significant digits, or all those before the point."""
    value = 100 * share
    text = f"{value:.0f}" if abs(value) >= 9.5 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"
    return f"{text} %".replace("-", "−")


def p_number(p: float) -> str:
    """A p-value, or one adjusted for many tests, with two significant digits; "< 0.001" below that."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def p_value(p: float, name: str = "p") -> str:
    """The same as a statement: "p = 0.043", "p < 0.001"."""
    return f"{name} {'' if p < 0.001 else '= '}{p_number(p)}"
