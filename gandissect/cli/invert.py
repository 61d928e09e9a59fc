"""``gandissect invert``: the latents that come nearest to given images.

gandissect invert ckpt.pt photo.png other.png -o latents.npy --picture inversions.png
gandissect edit ckpt.pt --latents latents.npy --direction report.json#brightness
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from gandissect.cli.analyze import OpenOptions, open_with, opening_options
from gandissect.cli.console import printable
from gandissect.cli.latents import SUFFIXES, Points, saved_points
from gandissect.cli.source import located
from gandissect.errors import UsageError
from gandissect.wording import p_value

if TYPE_CHECKING:
    from torch import Tensor

    from gandissect.gan import Gan
    from gandissect.inverting import Effort, Inversions
    from gandissect.session import Session


@dataclass(frozen=True)
class Outcome:
    """What became of one image: its error in per cent of the range, in dB, and how many own images have a smaller one."""

    image: str
    error: float
    psnr: float
    beyond: int
    p: float | None

    def line(self, own: int) -> str:
        """The outcome as it is printed."""
        rank = "" if self.p is None else f", larger than of {self.beyond} of {own} own images ({p_value(self.p)})"
        return f"{self.image}: error {self.error:.2g} % of the range, PSNR {self.psnr:.1f} dB{rank}"


@click.command()
@click.argument("checkpoint", callback=located)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("latents.npy"),
    help="Latents to write, .npy or .safetensors; the latter keeps classes and the space (latents.npy).",
)
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="FILE", help="Draw image, inversion and error, .png."
)
@click.option("--space", metavar="NAME", help="Search here: z (default), or w, w+ … as `inspect` lists them.")
@click.option("--steps", type=click.IntRange(1, 100_000), default=160, help="Steps of L-BFGS (160).")
@click.option(
    "--starts",
    type=click.IntRange(1, 64),
    default=3,
    help="A regression from the samples, then the nearest samples (3).",
)
@click.option("--prior", type=click.FloatRange(min=0), default=1e-4, help="Weight of the prior (0.0001).")
@click.option(
    "--own",
    type=click.IntRange(0, 10_000),
    default=24,
    help="The generator's own images that are inverted too, to compare with (24).",
)
@click.option("-n", "--samples", type=click.IntRange(2, 1000), default=1000, help="Samples to start from (1000).")
@click.option("--seed", type=int, default=0, help="All randomness follows from it (0).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@opening_options
def invert(checkpoint: Path, images: tuple[Path, ...], **given: object) -> int:
    """Find the latents of CHECKPOINT whose samples come nearest to each IMAGE.

    Images are cropped in the middle and resized as the generator's. An error says something about an image only where it is larger
    than for images that the generator made itself, which are inverted along with it.
    """
    opening = {name: value for name, value in given.items() if name in OpenOptions.__dataclass_fields__}
    output, picture = cast(Path, given["output"]), cast("Path | None", given["picture"])
    if output.suffix not in SUFFIXES:
        raise UsageError(f"-o {output}: expected a name that ends in {' or '.join(SUFFIXES)}")
    if picture is not None and picture.suffix != ".png":
        raise UsageError(f"--picture {picture}: expected a name that ends in .png")
    for file in images:
        if not file.is_file():
            raise UsageError(f"no image {file}")
    from gandissect.inverting import Effort
    from gandissect.report import write_whole
    from gandissect.session import Session

    gan = open_with(checkpoint, OpenOptions(**opening))  # type: ignore[arg-type]  # click converted them
    space = space_to_search(gan, cast("str | None", given["space"]), output)
    session = Session(gan, n=cast(int, given["samples"]), seed=cast(int, given["seed"]))
    effort = Effort(cast(int, given["starts"]), cast(int, given["steps"]), cast(float, given["prior"]))
    wanted, found, outcomes = inverted(session, images, effort, own=cast(int, given["own"]), space=space)
    contents = [(output, saved_points(Points(found.points, found.labels, found.space), output.suffix))]
    if picture is not None:
        contents.append((picture, comparison_png(wanted, found.images, [file.name for file in images])))
    for path, content in contents:
        write_whole(path, content)
    _say(outcomes, found.space, [path for path, _ in contents], cast(int, given["own"]), bool(given["as_json"]))
    return 0


def space_to_search(gan: Gan, name: str | None, output: Path) -> str:
    """The space to search, checked against what the file can hold."""
    from gandissect.spaces import space_shape

    chosen = name or gan.generator.latent.name
    space_shape(gan.generator, chosen)
    lost = (
        "classes"
        if gan.generator.num_classes
        else ""
        if chosen == gan.generator.latent.name
        else f"that it is {chosen}"
    )
    if lost and output.suffix == ".npy":
        raise UsageError(f"-o {output}: a .npy file cannot keep {lost}; -o {output.with_suffix('.safetensors')} does")
    return chosen


def inverted(
    session: Session, files: tuple[Path, ...], effort: Effort, *, own: int = 24, space: str = ""
) -> tuple[Tensor, Inversions, list[Outcome]]:
    """The images as the generator's shape has them, their inversions, and how each compares with ``own`` of its samples."""
    import torch

    from gandissect.inverting import held_out, rank_p
    from gandissect.inverting import invert as search
    from gandissect.real import RealImages

    real = RealImages.from_files(files, session.gan.generator.image_shape)
    wanted = real.batch(range(len(real)))
    all_found = search(session, torch.cat([wanted, held_out(session, own).images]), effort, space=space)
    found, floor = all_found.part(0, len(wanted)), all_found.error[len(wanted) :]
    p = rank_p(found.error, floor)
    outcomes = [
        Outcome(
            str(file),
            float(50 * found.error[i]),
            float(found.psnr[i]),
            int((floor < found.error[i]).sum()),
            float(p[i]) if own else None,
        )
        for i, file in enumerate(files)
    ]
    return wanted, found, outcomes


def comparison_png(wanted: Tensor, made: Tensor, names: list[str]) -> bytes:
    """A PNG of images [n, C, H, W] in [-1, 1]: a row for each, with what was made of it and where that is off."""
    import torch

    from gandissect.cli.edit import sheet_png

    error = (wanted - made).abs().mean(1, keepdim=True)
    full = float(error.max()) or 1.0
    frames = torch.stack([wanted, made, (2 * error / full - 1).expand_as(wanted)])
    return sheet_png(frames, ["image", "inversion", f"error, to {50 * full:.2g} %"], names)


def _say(outcomes: list[Outcome], space: str, written: list[Path], own: int, as_json: bool) -> None:
    if as_json:
        card = {
            "written": [str(path) for path in written],
            "space": space,
            "own": own,
            "images": [vars(outcome) for outcome in outcomes],
        }
        click.echo(json.dumps(card, ensure_ascii=False))
        return
    for outcome in outcomes:
        click.echo(printable(outcome.line(own)), err=True)
    for path in written:
        click.echo(printable(str(path)))
