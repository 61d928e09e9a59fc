"""What a person painted on a sample, found in all of them by how it looks.

build_segmenter("painted:sample-3.png")                          # white paint over a region of sample 3
build_segmenter("painted:eye-sample-3.png,eye-sample-9.png,mouth-sample-3.png?position")     # concepts "eye" and "mouth"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gandissect.blocks import to_uint8
from gandissect.concepts import Concept, Segmenter
from gandissect.errors import UsageError

from .looks import Reader, as_points, balanced_accuracy, evenly, looks

FORM = "painted:FILE[,FILE...][?position] with files called sample-12.png or NAME-sample-12.png"
LEAST_ACCURACY = 0.65
"""Balanced accuracy on held-out pixels below which a painted region is refused; 0.5 is chance."""
OTHERS = 0.01
"""Weight of all unpainted samples together, as a part of that of the painted ones."""
_EACH = 4000  # pixels of one kind taken from one sample
_FOLDS = 5
_BLOCKS = 8  # blocks along each side, where a single sample is painted
_WHITE, _DARK = 245, 40
_STEP = 25  # levels by which paint differs from what it covers
_OTHER = 0.12  # mean difference, as a part of 255, above which the picture is not the sample
_NAME = re.compile(r"(?:(?P<name>.+?)[-_ ])?sample[-_ ]?(?P<index>\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class _Painting:
    file: Path
    index: int


@dataclass(frozen=True)
class _Found:
    """One concept: its name, and once fitted its reader and its accuracy on held-out pixels."""

    name: str
    paintings: tuple[_Painting, ...]
    reader: Reader | None = None
    accuracy: float = float("nan")

    @property
    def title(self) -> str:
        """The name with its number."""
        return self.name if self.reader is None else f"{self.name} (painted, {100 * self.accuracy:.0f} % held out)"


class Painted(Segmenter):
    """Regions that look like what was painted: a pixel classifier of local colour and contrast per painted name.

    Three kinds of file are understood: a picture of the sample with white paint on it, a black mask with white in it, and a
    layer with transparency whose opaque part is the paint. The number in the name is the balanced accuracy on pixels that
    the classifier did not see: of samples left out in turn or, where one sample is painted, of every other block of it.
    """

    name = "painted"
    adapts = True

    def __init__(self, argument: str = "", *, found: Sequence[_Found] = (), position: bool = False) -> None:
        """``argument`` is what follows the colon; see the head of this module.

        Raises:
            UsageError: no such file, or one whose name does not say which sample it is.
        """
        files, _, flag = str(argument).partition("?")
        if flag not in ("", "position"):
            raise UsageError(f"painted: unknown {flag!r} after '?'; expected {FORM}")
        self._position = position or flag == "position"
        self._found = tuple(found) or _named(files)

    @property
    def concepts(self) -> Sequence[Concept]:
        return tuple(Concept(found.title, "painted") for found in self._found)

    def fitted(self, images: Tensor) -> Painted:
        """The classifiers fitted to these samples, float32 [N, C, H, W], of which some were painted.

        Raises:
            UsageError: a painting that does not fit the samples, or a region that looks like all the rest.
        """
        return Painted(found=[_fit(found, images, self._position) for found in self._found], position=self._position)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, K, H, W]; nothing before :meth:`fitted`."""
        logits = self._logits(images)
        return torch.zeros(len(images), len(self._found), *images.shape[2:]).bool() if logits is None else logits > 0

    def soft(self, images: Tensor) -> Tensor | None:
        """The classifiers' probabilities, float32 [N, K, H, W], differentiable in ``images``."""
        logits = self._logits(images)
        return None if logits is None else logits.sigmoid()

    def _logits(self, images: Tensor) -> Tensor | None:
        maps = looks(images, position=self._position)
        parts = [found.reader.logits(maps) for found in self._found if found.reader is not None]
        return torch.cat(parts, 1) if len(parts) == len(self._found) else None


def _named(files: str) -> tuple[_Found, ...]:
    """The paintings of each name, in the order they were given."""
    groups: dict[str, list[_Painting]] = {}
    for part in [part.strip() for part in files.split(",") if part.strip()]:
        path = Path(part)
        match = _NAME.fullmatch(path.stem)
        if match is None:
            raise UsageError(f"{path.name} does not say which sample it is; expected {FORM}")
        if not path.is_file():
            raise UsageError(f"no painting {path}; expected {FORM}")
        groups.setdefault(match["name"] or "painted region", []).append(_Painting(path, int(match["index"])))
    if not groups:
        raise UsageError(f"no painting was given; expected {FORM}")
    return tuple(_Found(name, tuple(paintings)) for name, paintings in groups.items())


def _fit(found: _Found, images: Tensor, position: bool) -> _Found:
    parts = [_examples(painting, images, position, number) for number, painting in enumerate(found.paintings)]
    points, labels, weights, places = (torch.cat(column) for column in zip(*parts, strict=True))
    others = _others(found, images, position)
    within = _accuracy(points, labels, weights, others, places[:, 1])
    if within < LEAST_ACCURACY:
        names = ", ".join(painting.file.name for painting in found.paintings)
        hint = "" if position else ", or add ?position if it is a place"
        raise UsageError(
            f"what is painted in {names} looks like the rest: {100 * within:.0f} % of held-out pixels are told right, "
            f"and chance is 50 %; paint on more samples{hint}"
        )
    across = within if len(parts) == 1 else _accuracy(points, labels, weights, others, places[:, 0] % _FOLDS)
    return replace(found, reader=_reader(points, labels, weights, others), accuracy=across)


def _others(found: _Found, images: Tensor, position: bool) -> Tensor:
    """Features [M, D] of pixels from all over the samples that are not painted."""
    painted = {painting.index for painting in found.paintings}
    rest = [index for index in range(len(images)) if index not in painted]
    parts = [looks(images[index : index + 1], position=position) for index in rest]
    each = [as_points(part)[evenly(part[0, 0].numel(), _EACH // len(rest) + 1)] for part in parts]
    return torch.cat(each) if each else torch.zeros(0, looks(images[:1], position=position).shape[1])


def _reader(points: Tensor, labels: Tensor, weights: Tensor, others: Tensor) -> Reader:
    """The classifier of painted pixels. Pixels of other samples count as not painted, but little.

    Where they look like the painted ones, those outweigh them; where they look like nothing in the painted samples, they
    keep the concept from reaching there (learning from positive and unlabelled examples, Lee & Liu 2003).
    """
    weight = torch.full((len(others),), OTHERS * float(weights.sum()) / max(len(others), 1))
    every, kind = torch.cat([points, others]), torch.cat([labels, torch.zeros(len(others), dtype=torch.bool)])
    return Reader.fit(every, kind.long(), torch.cat([weights, weight]))


def _examples(
    painting: _Painting, images: Tensor, position: bool, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one painted sample: features [M, D], painted bool [M], pixels each stands for [M], and int64 [M, 2] of its
    number and block."""
    if painting.index >= len(images):
        raise UsageError(
            f"{painting.file.name} is painted on sample {painting.index}, but only the first {len(images)} samples are at "
            "hand when concepts are fitted; paint on one of those"
        )
    image = images[painting.index]
    mask = painted_mask(painting.file, image).flatten()
    points = as_points(looks(image[None], position=position))
    height, width = image.shape[1:]
    rows, columns = (torch.arange(size) * _BLOCKS // size for size in (height, width))
    blocks = (rows[:, None] + columns).flatten() % 2
    chosen, weights = [], []
    for kind in (True, False):
        inside = (mask == kind).nonzero()[:, 0]
        some = inside[evenly(len(inside), _EACH)]
        chosen.append(some)
        weights.append(torch.full((len(some),), len(inside) / max(len(some), 1)))
    places = torch.cat(chosen)
    numbers = torch.stack([torch.full_like(places, number), blocks[places]], 1)
    return points[places], mask[places], torch.cat(weights), numbers


def _accuracy(points: Tensor, labels: Tensor, weights: Tensor, others: Tensor, fold: Tensor) -> float:
    """Balanced accuracy when the pixels of one fold are left out in turn; a fold without a counterpart counts as not told."""
    predicted = torch.zeros_like(labels)
    for number in sorted(set(fold.tolist())):
        kept, out = fold != number, fold == number
        if bool(labels[kept].any()) and not bool(labels[kept].all()):
            reader = _reader(points[kept], labels[kept], weights[kept], others)
            predicted[out] = reader.of_points(points[out])[:, 0] > 0
    return balanced_accuracy(predicted, labels)


def painted_mask(file: Path, image: Tensor) -> Tensor:
    """Where ``file`` is painted, at the size of the sample ``image`` float32 [C, H, W] in [-1, 1]: bool [H, W].

    Raises:
        UsageError: another shape, another sample, or nothing painted.
    """
    pixels = _pixels(file)
    height, width = int(image.shape[1]), int(image.shape[2])
    if abs(pixels.shape[1] * height / (pixels.shape[0] * width) - 1) > 0.02:
        raise UsageError(
            f"{file.name} is {pixels.shape[1]}×{pixels.shape[0]}; expected the proportions of a sample, {width}×{height}"
        )
    mask = _paint(pixels, image, file)
    small = F.interpolate(torch.from_numpy(mask)[None, None].float(), (height, width), mode="area")[0, 0] >= 0.5
    if not bool(small.any()) or bool(small.all()):
        what = "everything" if bool(small.any()) else "nothing"
        raise UsageError(f"{what} is painted in {file.name}; paint white over a part of the sample's picture")
    return small


def _pixels(file: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"cannot read the painting {file}: {error}") from error


def _paint(pixels: NDArray[np.uint8], image: Tensor, file: Path) -> NDArray[np.bool_]:
    """bool [h, w] of uint8 [h, w, 4]: opaque pixels of a layer, white ones of a mask, white ones that cover the sample."""
    alpha, colours = pixels[..., 3], pixels[..., :3].astype(np.int16)
    if alpha.min() < 128 <= alpha.max():
        return np.asarray(alpha >= 128)
    white = (colours >= _WHITE).all(2)
    rest = colours[~white]
    if not rest.size or (rest <= _DARK).all(1).mean() > 0.95:
        return np.asarray(white)
    sample = F.interpolate(image[None].float(), pixels.shape[:2], mode="bilinear", align_corners=False)
    difference = np.abs(colours - to_uint8(sample)[0].astype(np.int16)).mean(2)
    if difference[~white].mean() > _OTHER * 255:
        raise UsageError(
            f"{file.name} does not show that sample of this run (its unpainted pixels differ by "
            f"{difference[~white].mean():.0f} of 255); use the same checkpoint and --seed, or give a black mask with white in it"
        )
    return np.asarray(white & (difference > _STEP))
