"""One line of the verdict table: what was measured, what chance or a reference gives, and what to do about it.

Check("near-duplicates", "0.1 % of pairs", "0.0 % by chance", "ok")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gandissect.blocks import Cell, Finding, Table, Trust

Verdict = Literal["ok", "look", "alarm", "not asked"]
COLUMNS = ("check", "value", "chance or reference", "verdict", "what to do")


@dataclass(frozen=True)
class Check:
    """What one check says.

    Attributes:
        name: of the check.
        value: what was measured, in words and numbers.
        reference: what chance, or real images, give.
        verdict: "alarm" only for what is certain and harmful; "look" for what deserves a look; "not asked" where something is missing.
        advice: what to do; empty where all is well.
        finding: the headline of an alarm.
    """

    name: str
    value: str
    reference: str
    verdict: Verdict
    advice: str = ""
    finding: Finding | None = None


def alarm(name: str, value: str, reference: str, advice: str, headline: str, trust: Trust, weight: float) -> Check:
    """A check that failed, with its headline."""
    return Check(name, value, reference, "alarm", advice, Finding(headline, trust, weight))


def not_asked(name: str, why: str) -> Check:
    """A check that could not be made; ``why`` says what it needs."""
    return Check(name, "–", "–", "not asked", why)


def verdict_table(checks: Sequence[Check]) -> Table:
    """All checks, alarms first."""
    order = ("alarm", "look", "ok", "not asked")
    rows: list[tuple[Cell, ...]] = [
        (check.name, check.value, check.reference, check.verdict, check.advice)
        for check in sorted(checks, key=lambda check: order.index(check.verdict))
    ]
    return Table(COLUMNS, rows, sortable=False)
