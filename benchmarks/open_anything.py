"""Opens every checkpoint of a folder of recorded ones and writes what came of it: the tables of docs/formats.md.

python benchmarks/open_anything.py ../shared --write docs/formats.md

For every folder: the family that was recognised, how it was verified, what had to be assumed, and how far the images are from the recorded
ones. For every family folder a second time without its family: what the search over plain stacks then makes of it. The folder
holds ``checkpoints/*/io.npz`` (trained by strangers) and ``golden/families/*/io.npz`` (original implementations, random weights).
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from gandissect_adapters.families import table
from gandissect_adapters.families.family import Family
from torch import Tensor

import gandissect
from gandissect.errors import GandissectError
from gandissect.gan import Gan

SUFFIXES = (".pth", ".pt", ".pkl", ".ckpt", ".bin", ".model", ".safetensors", ".tar", ".steg")
CRITICS = re.compile(r"^(D|D-.*|net_?D|dis_.*|.*desc?riminator.*|critic|model=D|GAN_DIS.*)\.", re.I)
FACTS: Mapping[str, Mapping[str, str]] = {
    # what the file does not say, as its meta.json lists it
    "dcgan_csinva_mnist_28": {"size": "28"},
    "celeba64-dcgan-negiutsav": {"activation": "lrelu0.1"},
}
REASONS: Mapping[str, str] = {
    # why images differ from the recorded ones although the network is right, where a test shows that it is
    "akanimax-bmsg-gan-64/GAN_GEN_1.pth": "recorded from the averaged network",
    "infogan_natsu6767_mnist_28/model.pth": "the recorded input joins noise, class and codes; split, within 1e-4",
    "lucidrains-stylegan2-64/model_1.pt": "recorded with noise that is not in the file; with it, within 1e-4",
    "nashory-pggan-32/gen_R5_T50.pth.tar": "its gains are not in the file, said to be unsure; with them, within 1e-4",
    "mnist-cgan-zth855/cgan_generator_cuda.pth": "not reproduced by any setting tried; its meta.json names another file as origin",
}
TOLERANCE = 1e-3
PATIENCE = 120  # seconds for the search over plain stacks, which ends by itself long before
RECORDED = (  # what was recorded under which names; folders with averaged weights hold images of both
    ("network_input", "images"), ("input", "image"), ("z", "image"), ("z", "img"), ("z", "image_G"), ("z", "image_ema"),
    ("z_fixed", "image_avgG"), ("z", "image_avgG"), ("z", "images"), ("input", "img"),
)  # fmt: skip
CLOSE = 1e-4


@dataclass(frozen=True)
class Row:
    """What came of one file."""

    file: str
    family: str
    score: str
    checked: str
    assumed: str
    error: float | None
    refused: str = ""

    def cells(self) -> list[str]:
        """The table's cells."""
        if self.refused:
            return [self.file, "refused", "", self.refused, "", ""]
        off = "not recorded" if self.error is None else f"{self.error:.1e}" if self.error else "0"
        if self.file in REASONS and self.error is not None and self.error > TOLERANCE:
            off += f" ({REASONS[self.file]})"
        return [self.file, self.family, self.score, self.checked, self.assumed, off]


def main() -> None:
    """Print the tables, or put them between the marks of a Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, help="Markdown file with <!-- begin --> and <!-- end --> marks")
    parser.add_argument("--only", default="", help="regular expression of folder names")
    given = parser.parse_args()
    torch.set_num_threads(1)
    text = tables(given.folder, given.only)
    if given.write is None:
        print(text)
        return
    page = given.write.read_text(encoding="utf-8")
    begin, end = "<!-- begin: open_anything -->", "<!-- end: open_anything -->"
    head, rest = page.split(begin)
    given.write.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def tables(folder: Path, only: str) -> str:
    """All three tables as Markdown."""
    wild = [path for path in sorted((folder / "checkpoints").iterdir()) if path.is_dir() and re.search(only, path.name)]
    golden = [
        path
        for path in sorted((folder / "golden" / "families").iterdir())
        if path.is_dir() and re.search(only, path.name)
    ]
    heads = ["file", "family", "fit", "checked by", "given with `--assume`", "image error"]
    strangers = [opened(path, file) for path in wild for file in generators(path)]
    families = [opened(path, file) for path in golden for file in generators(path)]
    left_out = [
        row
        for path, row_of in ((path, row) for path, row in zip(golden, firsts(golden, families), strict=True) if row)
        if (row := without_family(path, *row_of)) is not None
    ]
    return "\n".join(
        [
            "", "### Trained by strangers", "", markdown(heads, [row.cells() for row in strangers]),
            "", "### Original implementations, random weights", "", markdown(heads, [row.cells() for row in families]),
            "", "### The same without their family", "", markdown(["file", "what the search over plain stacks does"], left_out), "",
        ]
    )  # fmt: skip


def firsts(folders: Sequence[Path], rows: Sequence[Row]) -> list[tuple[Path, str] | None]:
    """(file, family) of the first file that opened, for each folder."""
    found: list[tuple[Path, str] | None] = []
    for folder in folders:
        opened_here = [row for row in rows if row.file.startswith(f"{folder.name}/") and not row.refused]
        found.append((folder.parent / opened_here[0].file, opened_here[0].family) if opened_here else None)
    return found


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def generators(folder: Path) -> list[Path]:
    """The files of a folder that are no discriminators."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.name != "state_dict.pth"]
    return [path for path in files if not CRITICS.match(path.name)] or files[:1]


def opened(folder: Path, file: Path) -> Row:
    """One file, opened with nothing but the facts that are not in it."""
    facts = FACTS.get(folder.name, {})
    name = f"{folder.name}/{file.name}"
    print(name, file=sys.stderr, flush=True)
    try:
        gan = gandissect.open(file, assume=dict(facts), device="cpu")
    except GandissectError as error:
        return Row(name, "", "", "", "", None, refused=without_folders(error))
    opening = gan.opening
    unsure = ", ".join(f"{key}={value}" for key, value in facts.items())
    fit = "" if opening.mismatch is None else f"{opening.mismatch:.2g}"
    checked = "names and shapes" if opening.verification.startswith("every tensor") else opening.verification
    return Row(name, opening.family, fit, checked, unsure, error_of(gan, folder))


def without_folders(error: Exception) -> str:
    """A sentence whose paths are file names."""
    return re.sub(r"(/[\w.=-]+)+/", "", str(error))


def give_up(_number: int, _frame: object) -> None:
    """Ends a search that takes too long."""
    raise TimeoutError("no answer")


def without_family(folder: Path, file: Path, family: str) -> list[str] | None:
    """What happens to a file once its family is removed; None where no family claims it."""
    name = f"{folder.name}/{file.name}"
    known = table.families()
    rest = [other for other in known if not family.startswith(other.name)]
    if len(rest) == len(known):
        return None
    print(f"without {family}: {name}", file=sys.stderr, flush=True)

    def fewer() -> list[Family]:
        return rest

    with patch.object(table, "families", fewer):
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(PATIENCE)
        try:
            gan = gandissect.open(file, device="cpu")
        except TimeoutError:
            return [name, f"no answer within {PATIENCE} s"]
        except GandissectError as error:
            if "TimeoutError" in str(error) or "no answer" in str(error):
                return [name, f"no answer within {PATIENCE} s"]
            return [name, f"refused: {without_folders(error)}"]
        finally:
            signal.alarm(0)
    off = error_of(gan, folder)
    fit = gan.opening.mismatch
    right = off is not None and off <= TOLERANCE
    verdict = (
        "right"
        if right
        else f"images differ by {off:.2g}"
        if off is not None
        else "opened, nothing recorded to compare"
    )
    if not right and fit is not None and fit <= 0.05:
        verdict += " although its statistics fit"
    unsure = ", ".join(dict.fromkeys(known.name for known in gan.opening.assumptions if not known.sure))
    doubts = "" if right else f"; called unsure: {unsure or 'nothing'}"
    return [name, f"{gan.opening.family}: {verdict}; {gan.opening.verification}{doubts}"]


@torch.no_grad()
def error_of(gan: Gan, folder: Path) -> float | None:
    """The largest difference from the recorded images, of averaged weights or not; None where none are recorded for plain inputs."""
    record = folder / "io.npz"
    if not record.is_file():
        return None
    with np.load(record) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    pairs = [(arrays[given], arrays[wanted]) for given, wanted in RECORDED if given in arrays and wanted in arrays]
    offs = [
        float((made.reshape(wanted.shape) - wanted).abs().max())
        for given, wanted in pairs
        for made in attempts(gan, given, arrays)
        if made.numel() == wanted.numel()
    ]
    return min(offs, default=None)


def attempts(gan: Gan, given: Tensor, arrays: Mapping[str, Tensor]) -> list[Tensor]:
    """What the generator makes of the recorded input: whole, or z and label where it holds both."""
    module, latent, classes = gan.generator.module, gan.generator.latent, gan.generator.num_classes
    made: list[Tensor] = []
    labels = next((arrays[name] for name in ("y", "label", "labels", "c") if name in arrays), None)
    if labels is not None and labels.dim() == 2:
        labels = labels.argmax(1)
    flat = given.flatten(1)
    parts = [arrays[name].float() for name in ("z", "y_onehot", "code") if name in arrays]  # InfoGAN's input
    if len(parts) == 3 and not classes and sum(part.shape[1] for part in parts) == latent.size:
        given = flat = torch.cat(parts, 1)
    if classes and labels is not None and "z" in arrays:
        given = arrays["z"]
    with suppress(RuntimeError, IndexError):
        if not classes:
            shape = given.shape[1:] if latent.prior == "image" else latent.shape
            made.append(module(given.reshape(len(given), *shape)))
        elif labels is not None:
            made.append(module(given.reshape(len(given), *latent.shape), labels.long()))
        elif flat.shape[1] > latent.size:
            made += joined_inputs(gan, flat)
    return made


def joined_inputs(gan: Gan, flat: Tensor) -> list[Tensor]:
    """For inputs that hold z and a label's vector: the label that reproduces each vector is not recorded, so each is tried."""
    generator, size = gan.generator, gan.generator.latent.size
    made = []
    for z in (flat[:, :size], flat[:, -size:]):
        every = [
            generator.module(z.reshape(len(z), *generator.latent.shape), torch.full((len(z),), label))
            for label in range(generator.num_classes)
        ]
        vectors = flat[:, size:] if z is flat[:, :size] else flat[:, : flat.shape[1] - size]
        made += every if vectors.shape[1] != generator.num_classes else [chosen(every, vectors.argmax(1))]
    return made


def chosen(every: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Sample i of the images made with label i."""
    return torch.stack([every[int(label)][i] for i, label in enumerate(labels)])


if __name__ == "__main__":
    main()
