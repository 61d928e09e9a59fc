"""Numbers in sentences, and the words of a test.

p_words(0.001)                           # "p ≤ 0.001"
"""

from __future__ import annotations


def p_words(p: float, draws: int) -> str:
    """A p value of a permutation test: the least that its draws can give is a bound."""
    return f"p ≤ {p:.2g}" if p <= 1.5 / (draws + 1) else f"p = {p:.2g}"
