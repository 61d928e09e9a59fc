from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from gandissect.errors import UnknownName, UsageError
from gandissect.options import describe_options, load_options, option


@dataclass(frozen=True)
class Options:
    quantile: float = option(0.01, "tail")
    layers: tuple[str, ...] = option((), "names")
    mode: Literal["cell", "image"] = option("cell", "where")
    limit: int | None = option(None, "most")
    folder: Path = option(Path(), "place")
    fast: bool = option(False, "speed")


def test_strings_become_what_the_field_says() -> None:
    given = {"quantile": "0.5", "layers": "a, b", "mode": "image", "limit": "3", "folder": "x", "fast": "yes"}
    assert load_options(Options, given, "it") == Options(0.5, ("a", "b"), "image", 3, Path("x"), True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fast": "perhaps"}, "fast"),
        ({"quantile": "a"}, "quantile"),
        ({"mode": "x"}, "'cell'"),
        ({"limit": "1.5"}, "limit"),
    ],
)
def test_a_wrong_value_names_the_option(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_options(Options, given, "it")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean quantile"):
        load_options(Options, {"quantil": 1}, "it")


def test_every_option_is_described() -> None:
    assert [row[0] for row in describe_options(Options)] == ["quantile", "layers", "mode", "limit", "folder", "fast"]
