"""What the user assumes with ``--assume name=value``, checked once.

Assume.of({"activation": "lrelu0.2", "prior": "uniform"}).prior
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gandissect.errors import UsageError, unknown_name
from gandissect_adapters.recognise.plan import ACTIVATIONS, ALIASES, RARER, activation

KEYS = (
    "activation",
    "output",
    "prior",
    "eps",
    "size",
    "upsample",
    "stride",
    "padding",
    "discriminator-output",
    "discriminator-unit",
    "discriminator-network",
    "condition",
    "norm",
)


@dataclass(frozen=True)
class Assume:
    """Choices that override recognition; None where it is left to it."""

    activation: str | None = None
    output: str | None = None
    prior: str | None = None
    eps: float | None = None
    size: tuple[int, int] | None = None
    upsample: str | None = None
    stride: tuple[int, ...] | None = None
    padding: tuple[int, ...] | None = None
    discriminator_output: str | None = None
    discriminator_unit: int | None = None
    condition: str | None = None
    norm: str | None = None

    @staticmethod
    def of(given: Mapping[str, str]) -> Assume:
        """The checked form of ``given``.

        Raises:
            UnknownName: a name or value that does not exist.
            UsageError: a value of the wrong form.
        """
        for name in given:
            if name.replace("_", "-") not in KEYS:
                raise unknown_name("assumption", name, KEYS)
        read = {name.replace("_", "-"): value.strip() for name, value in given.items()}
        return Assume(
            activation=_activation(read.get("activation")),
            output=_activation(read.get("output")),
            prior=_one_of("prior", read.get("prior"), ("normal", "uniform")),
            eps=_number("eps", read["eps"]) if "eps" in read else None,
            size=_size(read.get("size")),
            upsample=_one_of("upsample", read.get("upsample"), ("nearest", "bilinear", "none")),
            stride=_ints("stride", read.get("stride")),
            padding=_ints("padding", read.get("padding")),
            discriminator_output=_one_of(
                "discriminator-output", read.get("discriminator-output"), ("logit", "probability")
            ),
            discriminator_unit=(_ints("discriminator-unit", read.get("discriminator-unit")) or (None,))[0],
            condition=read.get("condition"),
            norm=_one_of("norm", read.get("norm"), ("instance", "layer", *(f"group{2**n}" for n in range(1, 7)))),
        )


def _activation(value: str | None) -> str | None:
    if value is None or value.lower() in ("none", "linear"):
        return None if value is None else "none"
    try:
        activation(value)
    except (KeyError, ValueError):
        raise unknown_name("activation", value, [*ACTIVATIONS, *RARER, "none"]) from None
    key = value.lower().replace("(", "").replace(")", "").replace(" ", "").replace("_", "")
    return ALIASES.get(key, key)


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is not None and value not in known:
        raise unknown_name(name, value, known)
    return value


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{name}={value!r} is not a number; type for example {name}=1e-5") from None


def _ints(name: str, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.replace("x", ",").split(","))
    except ValueError:
        raise UsageError(f"{name}={value!r} is not a list of whole numbers; type for example {name}=2,1,2,2") from None


def _size(value: str | None) -> tuple[int, int] | None:
    numbers = _ints("size", value)
    if numbers is None:
        return None
    if len(numbers) > 2 or min(numbers) < 1:
        raise UsageError(f"size={value!r} is not a size; type for example size=64 or size=64x48")
    return numbers[0], numbers[-1]
