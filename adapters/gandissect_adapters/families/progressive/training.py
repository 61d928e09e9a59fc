"""What the weights of a progressive GAN show of how it was trained.

side = trained_side(case.tensors, {8: ["layers.1.conv_1.bias"]})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gandissect.errors import UsageError
from gandissect_adapters.families.family import Case

_EQUALISED_RMS = 0.4  # weights of equalised layers start at 1, plain ones at sqrt(1 / (3 fan_in)) < 0.2
_PLAIN_RMS = 0.2


def equalised(tensors: Mapping[str, Tensor]) -> str | None:
    """ "yes" where the convolutions' weights have the spread of equalised layers, "no" for that of plain ones, else None."""
    wide = [t for name, t in tensors.items() if name.endswith(("weight", "weight_orig")) and t.dim() == 4]
    spreads = sorted(float(t.square().mean().sqrt()) for t in wide if t[0].numel() >= 9)
    if not spreads:
        return None
    middle = spreads[len(spreads) // 2]
    if middle >= _EQUALISED_RMS:
        return "yes"
    return "no" if middle <= _PLAIN_RMS else None


def trained_side(tensors: Mapping[str, Tensor], biases: Mapping[int, Sequence[str]]) -> int:
    """The largest side that was trained: biases that start at zero and are still exactly zero were never reached.

    Args:
        biases: the side in pixels of every resolution to the names of biases that only it uses.

    Returns:
        One of the sides; the largest where none was trained.
    """
    reached = [side for side, names in biases.items() if any(bool(tensors[name].any()) for name in names)]
    return max(reached) if reached else max(biases)


def fraction(case: Case, name: str, found: float | None = None, because: str = "") -> float:
    """An option that is a number from 0 to 1, such as the weight of a resolution that fades in.

    Raises:
        UsageError: it is not.
    """
    value = case.number(name, found, because)
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"--assume {name}={value:g} is not between 0 and 1")
    return value
