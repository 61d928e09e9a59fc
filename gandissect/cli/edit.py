"""``gandissect edit``: samples moved along a direction, as one strip of pictures.

gandissect edit ckpt.pt --direction report.json#brightness --alpha -3..3 -o strip.png
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gandissect.cli.analyze import OpenOptions, open_with, opening_options
from gandissect.cli.console import printable
from gandissect.cli.latents import Points, read_points
from gandissect.cli.source import located
from gandissect.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from gandissect.session import Session

    Vector = NDArray[np.float32]

MOST_ALPHAS = 41
BETWEEN = 7
"""Values that a range ``a..b`` stands for where it does not say how many."""
SMALLEST = 64
"""Pictures are enlarged by a whole number until their shorter side has so many pixels."""


@dataclass(frozen=True)
class Direction:
    """A vector and what is known of it.

    Attributes:
        name: what it is called in its file.
        vector: float32 [D], any length.
        space: the space it belongs to; empty where the file does not say.
        sigma: what one unit of alpha is in that space; None where the file does not say.
    """

    name: str
    vector: Vector
    space: str = ""
    sigma: float | None = None


@click.command()
@click.argument("checkpoint", callback=located)
@click.option(
    "--direction",
    "source",
    required=True,
    metavar="FILE[#NAME]",
    help="A .npy or .safetensors file, or a report's JSON; NAME chooses one of several (a row number in .npy).",
)
@click.option(
    "--alpha",
    "alphas",
    default="-3..3",
    metavar="A..B[:N]",
    help="Steps: a range of N values (7), or a list such as -2,0,2; in standard deviations of the prior for the latent.",
)
@click.option("--space", metavar="NAME", help="Where it is added: z (default), or w, w+, s … as `inspect` lists them.")
@click.option(
    "--layer",
    metavar="NAME",
    help="Add it to the output of this layer instead; with --space w+ the styles it acts on, such as 0-3,6.",
)
@click.option("-n", "--samples", type=click.IntRange(1, 64), default=5, help="Samples, one row each (5).")
@click.option(
    "--latents",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Start from these instead, one row each: what `invert` wrote, or any .npy of latents.",
)
@click.option("--seed", type=int, default=0, help="All randomness follows from it (0).")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("strip.png"), help="PNG to write.")
@click.option(
    "--save", type=click.Path(path_type=Path), metavar="FILE", help="Write the direction too, .npy or .safetensors."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@opening_options
def edit(checkpoint: Path, **given: object) -> int:
    """Draw samples of CHECKPOINT moved along a direction: one row for each sample, one column for each alpha."""
    opening = {name: value for name, value in given.items() if name in OpenOptions.__dataclass_fields__}
    output, save = cast(Path, given["output"]), cast("Path | None", given["save"])
    steps = parse_alphas(str(given["alphas"]))
    _check_suffix(output, "-o", (".png",))
    if save is not None:
        _check_suffix(save, "--save", (".npy", ".safetensors"))
    direction = read_direction(str(given["source"]))
    start = read_points(cast(Path, given["latents"])) if given["latents"] else None
    from gandissect.report import write_whole
    from gandissect.session import Session

    gan = open_with(checkpoint, OpenOptions(**opening))  # type: ignore[arg-type]  # click converted them
    count = cast(int, given["samples"]) if start is None else len(start.values)
    session = Session(gan, n=count, seed=cast(int, given["seed"]))
    space, layer = cast("str | None", given["space"]), cast("str | None", given["layer"])
    frames = moved(session, direction, steps, space=space, layer=layer, start=start)
    names = [session.sample_name(i) if start is None else f"latent {i}" for i in range(session.n)]
    write_whole(output, strip_png(frames, steps, names))
    if save is not None:
        write_whole(save, saved(direction, save.suffix))
    card = {"written": str(output), "direction": direction.name, "alphas": list(steps), "samples": session.n}
    click.echo(json.dumps(card, ensure_ascii=False) if given["as_json"] else printable(str(output)))
    return 0


def _check_suffix(path: Path, option: str, known: tuple[str, ...]) -> None:
    if path.suffix not in known:
        raise UsageError(f"{option} {path}: expected a name that ends in {' or '.join(known)}")


def parse_alphas(text: str) -> tuple[float, ...]:
    """``-3..3`` (7 values), ``-3..3:13`` or ``-2,0,2`` as numbers, at most 41."""
    wrong = UsageError(f"--alpha {text}: expected a range such as -3..3 or -3..3:13, or a list such as -2,0,2")
    ends, _, count = text.partition(":")
    low, dots, high = ends.partition("..")
    try:
        if not dots:
            steps = tuple(float(part) for part in text.split(","))
        else:
            number, first, last = int(count or BETWEEN), float(low), float(high)
            steps = tuple(first + (last - first) * i / (number - 1) for i in range(number)) if number > 1 else ()
    except ValueError:
        raise wrong from None
    if not 0 < len(steps) <= MOST_ALPHAS or not all(abs(step) < 1e6 for step in steps):
        raise wrong
    return steps


def read_direction(source: str) -> Direction:
    """The direction that ``FILE`` or ``FILE#NAME`` stands for.

    Raises:
        UsageError: no such file or name, another kind of file, or numbers that are not finite.
    """
    import numpy as np

    whole, (file, _, name) = Path(source), source.rpartition("#")
    path, name = (whole, "") if whole.exists() or not file else (Path(file), name)
    readers = {".npy": _from_npy, ".safetensors": _from_safetensors, ".json": _from_report}
    if path.suffix not in readers:
        raise UsageError(f"--direction {source}: expected a .npy or .safetensors file or a report's .json")
    try:
        found = readers[path.suffix](path, name)
    except FileNotFoundError:
        raise UsageError(f"--direction {source}: no file {path}") from None
    except UsageError:
        raise
    except Exception as error:  # whatever a damaged file makes numpy, safetensors or json raise
        raise UsageError(f"--direction {source}: cannot read {path} ({error})") from error
    if found.vector.size == 0 or not np.isfinite(found.vector).all() or not np.abs(found.vector).max() > 0:
        raise UsageError(f"--direction {source}: expected finite numbers that are not all zero")
    return found


def _one_of(rows: Mapping[str, Vector], name: str, path: Path) -> tuple[str, Vector]:
    """(name, vector) of the one that is meant."""
    if not name and len(rows) == 1:
        name = next(iter(rows))
    if name not in rows:
        if not name:
            raise UsageError(f"{path} holds {len(rows)} directions; choose one as {path}#NAME: {_some(rows)}")
        raise unknown_name("direction", name, rows, f"in {path}")
    return name, rows[name]


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:8]) + (" …" if len(names) > 8 else "")


def _from_npy(path: Path, name: str) -> Direction:
    import numpy as np

    array = np.asarray(np.load(path, allow_pickle=False), np.float32)
    rows = array[None] if array.ndim == 1 else array.reshape(len(array), -1)
    chosen, vector = _one_of({str(i): row for i, row in enumerate(rows)}, name, path)
    return Direction(path.stem if len(rows) == 1 else f"{path.stem} {chosen}", vector)


def _from_safetensors(path: Path, name: str) -> Direction:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        rows = {key: file.get_tensor(key).float().reshape(-1).numpy() for key in file.keys()}  # noqa: SIM118  # no dict
        known = file.metadata() or {}
    chosen, vector = _one_of(rows, name, path)
    sigma = float(known["sigma"]) if "sigma" in known else None
    return Direction(chosen, vector, known.get("space", ""), sigma)


def _from_report(path: Path, name: str) -> Direction:
    import numpy as np

    found = {key: entry for table in _tables(json.loads(path.read_text("utf-8"))) for key, entry in table.items()}
    if not found:
        raise UsageError(f"{path} holds no directions; a report does when `directions` was among its analyses")
    rows = {key: np.asarray(entry["vector"], np.float32) for key, entry in found.items()}
    chosen, vector = _one_of(rows, name, path)
    return Direction(chosen, vector, str(found[chosen]["space"]), float(found[chosen]["sigma"]))


def _tables(node: object) -> Iterator[dict[str, dict[str, str | float]]]:
    """The values of all data blocks called "directions" in a report's JSON."""
    if isinstance(node, list):
        for part in node:
            yield from _tables(part)
    elif isinstance(node, dict):
        if node.get("kind") == "data" and node.get("name") == "directions":
            yield node["value"]
        else:
            yield from _tables(list(node.values()))


def saved(direction: Direction, suffix: str) -> bytes:
    """The direction as the content of a .npy or .safetensors file; the latter keeps its name, space and step."""
    if suffix == ".npy":
        import numpy as np

        file = io.BytesIO()
        np.save(file, direction.vector)
        return file.getvalue()
    from safetensors.numpy import save

    known = {"space": direction.space} if direction.space else {}
    if direction.sigma is not None:
        known["sigma"] = repr(direction.sigma)
    return save({direction.name: direction.vector}, metadata=known)


def moved(
    session: Session,
    direction: Direction,
    alphas: tuple[float, ...],
    *,
    space: str | None = None,
    layer: str | None = None,
    start: Points | None = None,
) -> Tensor:
    """The session's samples moved along ``direction``: float32 [A, n, C, H, W] in [-1, 1], one frame for each alpha.

    Args:
        session: its samples and generator.
        direction: as many numbers as a point of the space has; one style's for w+ too; for a layer one for each unit, or
            one for each unit and place.
        alphas: multiples of ``direction.sigma`` times the vector; where the file does not say, of the prior's standard deviation
            for the latent and of 1 elsewhere.
        space: where it is added; what the direction's file says, else the latent.
        layer: a generator's layer to add it to instead, or the styles of w+ ("0-3,6").
        start: points to move in place of the samples.

    Raises:
        UsageError: a vector or points of another size, an unknown space or layer.
    """
    import torch

    from gandissect import sampling
    from gandissect.spaces import decoded

    generator = session.gan.generator
    own = generator.latent.name
    given = start or Points(session.latents())
    labels = session.labels(range(session.n)) if given.labels is None else given.labels.to(generator.device)
    given = replace(given, labels=labels)
    name = space or (own if layer else direction.space) or own
    name = own if name == "z" and not any(inner.name == "z" for inner in generator.inner) else name
    if layer is not None and name == own:
        return _at_layer(session, direction, alphas, layer, given)
    if layer is not None and name != "w+":
        raise UsageError(f"--layer goes with the latent (a layer's name) or with --space w+ (styles), not with {name}")
    points = given.entered(session, name)
    step = _step(direction, tuple(points.shape[1:]), name, layer)
    sigma = direction.sigma
    if sigma is None or (direction.space and name != direction.space):
        sigma = sampling.prior_moments(generator.latent)[1] if name == own else 1.0
    frames = [decoded(session, name, points + alpha * sigma * step, labels) for alpha in alphas]
    return torch.stack(frames)


def _step(direction: Direction, shape: tuple[int, ...], name: str, styles: str | None) -> Tensor:
    """The vector as a point of a space [*shape]; in w+ zero at the styles that are not chosen."""
    from math import prod

    import torch

    vector = torch.from_numpy(direction.vector)
    if len(shape) == 2 and name == "w+":
        if len(vector) == shape[1]:
            vector = vector.expand(shape)
        _same_size(vector.numel(), prod(shape), f"{name} takes {shape[1]}, or {shape[0]} × {shape[1]}")
        chosen = torch.zeros(shape[0], 1)
        chosen[_styles(styles, shape[0])] = 1.0
        return vector.reshape(shape) * chosen
    _same_size(len(vector), prod(shape), f"space {name} takes {prod(shape)}")
    return vector.reshape(shape)


def _same_size(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise UsageError(f"the direction has {found} numbers and {what}")


def _styles(text: str | None, count: int) -> list[int]:
    """``0-3,6`` as style numbers below ``count``; all of them where nothing is said."""
    if text is None:
        return list(range(count))
    chosen: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            chosen += range(int(first), int(last or first) + 1)
    except ValueError:
        chosen = []
    if not chosen or max(chosen) >= count:
        raise UsageError(f"--layer {text}: expected styles of w+ such as 0-3,6, each below {count}")
    return chosen


def _at_layer(session: Session, direction: Direction, alphas: tuple[float, ...], layer: str, start: Points) -> Tensor:
    import torch

    info = session.gan.generator.layer(layer)
    places = info.channels * info.height * info.width
    vector = torch.from_numpy(direction.vector).to(session.gan.generator.device)
    if len(vector) != info.channels:
        _same_size(len(vector), places, f"layer {layer} has {info.channels} units and {places} numbers")
    if not info.editable:
        raise UsageError(f"layer {layer} cannot be edited (`gandissect layers` lists those that can)")
    step = vector.reshape(info.channels, 1, 1) if len(vector) == info.channels else vector.reshape(info.shape)
    latents, frames = start.entered(session, session.gan.generator.latent.name), []
    for alpha in alphas:

        def added(_name: str, output: Tensor, alpha: float = alpha) -> Tensor:
            return output + alpha * (step if output.dim() == 4 else step.reshape(output.shape[1:])).to(output.dtype)

        frames.append(session.generate(latents, edit=added, layers=[layer], labels=start.labels))
    return torch.stack(frames)


def strip_png(frames: Tensor, alphas: tuple[float, ...], names: list[str]) -> bytes:
    """A PNG of frames [A, n, C, H, W]: a row for each sample with its name, a column for each alpha with its value."""
    return sheet_png(frames, [f"{alpha:+.3g}" if alpha else "0" for alpha in alphas], names)


def sheet_png(frames: Tensor, heads: list[str], names: list[str]) -> bytes:
    """A PNG of frames [A, n, C, H, W]: a row for each of n names, a column for each of A heads."""
    from PIL import Image, ImageDraw, ImageFont

    from gandissect.blocks import to_uint8

    pixels = to_uint8(frames.flatten(0, 1)).reshape(*frames.shape[:2], *frames.shape[3:], 3)
    scale = max(1, -(-SMALLEST // min(frames.shape[3:])))
    height, width = (side * scale for side in frames.shape[3:])
    font = ImageFont.load_default()
    left, top, gap = max(int(font.getlength(name)) for name in names) + 12, 22, 2
    size = (left + len(heads) * (width + gap), top + len(names) * (height + gap))
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for column, head in enumerate(heads):
        x = left + column * (width + gap)
        pen.text((x + width / 2, top / 2), head, fill="black", font=font, anchor="mm")
        for row in range(len(names)):
            picture = Image.fromarray(pixels[column, row]).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(picture, (x, top + row * (height + gap)))
    for row, name in enumerate(names):
        middle = top + row * (height + gap) + height / 2
        pen.text((6, middle), name, fill="black", font=font, anchor="lm")
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=False)
    return file.getvalue()
