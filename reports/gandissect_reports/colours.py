"""The report's colours: two scales for numbers, fixed names for roles and categories.

viridis(np.array([0.0, 0.5, 1.0]))         # uint8 [3, 3]
diverging(np.array([-1.0, 0.0, 1.0]))      # blue, white, orange
role_to_variable("real", 0)                # "--real", a CSS variable with a light and a dark value
"""

from __future__ import annotations

import numpy as np

from gandissect.blocks import Floats, Pixels

VIRIDIS = ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")
DIVERGING = ("08519c", "3f8fc9", "a5cbe6", "f7f7f5", "f8c58b", "e58a2b", "a84a00")
CATEGORIES = 11  # --c0 … --c10 in report.css: Okabe–Ito first, three more after them
ROLES = {"real": "--real", "generated": "--generated", "fake": "--generated", "null": "--muted", "baseline": "--ink"}
ROLES |= {"red": "--c3", "green": "--c0", "blue": "--c5"}  # a group called by a colour has that colour


def viridis(t: Floats) -> Pixels:
    """Colours uint8 [..., 3] of numbers in 0..1, dark violet to yellow."""
    return _interpolate(VIRIDIS, np.clip(t, 0.0, 1.0))


def diverging(t: Floats) -> Pixels:
    """Colours uint8 [..., 3] of numbers in -1..1: blue, white at 0, orange."""
    return _interpolate(DIVERGING, (np.clip(t, -1.0, 1.0) + 1.0) / 2.0)


def gradient(signed: bool) -> str:
    """The scale as a CSS gradient from left to right, for legends."""
    stops = DIVERGING if signed else VIRIDIS
    return f"linear-gradient(to right, {', '.join('#' + stop for stop in stops)})"


def role_to_variable(role: str, index: int) -> str:
    """The CSS variable of a series or group: fixed for real, generated, null and baseline, else by ``index``."""
    return ROLES.get(role.lower(), f"--c{index % CATEGORIES}")


def names_to_variables(names: list[str]) -> dict[str, str]:
    """A CSS variable for each of several groups; names that are a role keep that role's colour, which no other gets."""
    fixed = {name: ROLES[name.lower()] for name in names if name.lower() in ROLES}
    free = [f"--c{i}" for i in range(CATEGORIES) if f"--c{i}" not in fixed.values()]
    plain = [name for name in names if name not in fixed]
    return fixed | {name: free[i % len(free)] for i, name in enumerate(plain)}


def is_dark(colour: Pixels) -> bool:
    """Whether white letters are easier to read than black ones on ``colour`` uint8 [3] (WCAG relative luminance)."""
    linear = (np.asarray(colour, dtype=float) / 255.0) ** 2.2
    return bool(linear @ np.array([0.2126, 0.7152, 0.0722]) < 0.18)


def _interpolate(stops: tuple[str, ...], t: Floats) -> Pixels:
    """Linear interpolation between equally spaced hexadecimal colours; NaN gives the first one."""
    table = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in stops], dtype=float)
    places = np.linspace(0.0, 1.0, len(stops))
    safe = np.nan_to_num(np.asarray(t, dtype=float))
    channels = [np.interp(safe, places, table[:, channel]) for channel in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)
