"""Effects in words.

effect_percent(Effect(0.71, 0.66, 0.75, 0.1))              # "71 % (CI 66 to 75)"
"""

from __future__ import annotations

from math import isnan

from .resampling import Effect, Gain


def effect_percent(effect: Effect | Gain) -> str:
    """ "71 % (CI 66 to 75)" of an effect."""
    value = effect.removed if isinstance(effect, Effect) else effect.gained
    if isnan(value):
        return "nothing measurable"
    return f"{whole(value)} % (CI {whole(effect.low)} to {whole(effect.high)})"


def between(effect: Effect | Gain) -> str:
    """ "0.66 to 0.75", the interval of an effect as parts of the area."""
    return "" if isnan(effect.low) else f"{effect.low:.2f} to {effect.high:.2f}".replace("-", "−")


def whole(part: float) -> str:
    """A rounded percentage with a minus sign, never "-0"."""
    return f"{round(100 * part) + 0:d}".replace("-", "−")


def or_zero(value: float) -> float:
    """The value, 0 where it is NaN: what could not be measured comes last in an order."""
    return 0.0 if isnan(value) else value


def units_of(count: int) -> str:
    """ "1 unit", "8 units"."""
    return f"{count} unit{'s' if count != 1 else ''}"
