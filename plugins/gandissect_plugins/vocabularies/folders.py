"""Two folders of pictures, those that have something and those that do not: what it is, found in the picture.

build_segmenter("folders:smiling/,neutral/")                     # one concept, "smiling"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gandissect.concepts import Concept, Segmenter
from gandissect.errors import UsageError
from gandissect.real import RealImages
from gandissect.wording import p_value

from .looks import as_points, evenly, looks

FORM = "folders:HAS,HASNOT with pictures that have it in the first folder and others in the second"
LEAST = 8
"""Least number of pictures in each folder."""
MOST = 400  # pictures read of each
WORDS = 32
PERMUTATIONS = 999
ALPHA = 0.05
FOLDS = 5
PENALTY = 0.1  # of the ridge regression, per picture
_POINTS = 12_000

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Fit:
    """What was learned of the folders.

    Attributes:
        mean, scale: float32 [D], of the local features; ``words`` float32 [V, D], their clusters.
        usual: float32 [V], the mean part of a picture that each word covers; ``weights`` float32 [V], its evidence.
        level: the evidence from which on a pixel belongs to the concept.
        accuracy, p: of pictures held out, and how often permuted labels do as well.
    """

    mean: Tensor
    scale: Tensor
    words: Tensor
    usual: Tensor
    weights: Tensor
    level: float
    accuracy: float
    p: float

    def spoken(self, images: Tensor) -> Tensor:
        """How much each pixel is each word: float32 [N, V, H, W], sums to 1, differentiable in ``images``."""
        x = (looks(images) - self.mean[:, None, None]) / self.scale[:, None, None]
        offset = -0.5 * self.words.square().sum(1)
        return F.conv2d(x, self.words[:, :, None, None], offset).mul(2.0).softmax(1)

    def evidence(self, images: Tensor) -> Tensor:
        """What each pixel adds to the decision, more than a usual pixel does: float32 [N, 1, H, W]."""
        return F.conv2d(self.spoken(images), self.weights[None, :, None, None]) - self.usual @ self.weights


class Folders(Segmenter):
    """What tells the pictures of one folder from those of another, as a map: bags of visual words and a linear classifier.

    The classifier sees what part of a picture each of 32 kinds of local colour and contrast covers; the weight of a pixel's
    word is what that pixel adds to the decision, as in class activation maps. The number in the concept's name is the accuracy
    on held-out pictures (5 folds); a concept that permuted labels reach as well is refused.

    References:
        Zhou et al. 2016, Learning Deep Features for Discriminative Localization; Csurka et al. 2004, Visual Categorization with
        Bags of Keypoints; Ojala & Garriga 2010, Permutation Tests for Studying Classifier Performance.
    """

    name = "folders"
    adapts = True

    def __init__(self, argument: str = "", *, fit: _Fit | None = None) -> None:
        """``argument`` names the two folders, or zips of pictures.

        Raises:
            UsageError: not two folders, or too few pictures in one.
        """
        self._argument, self._fit = argument, fit
        self._folders = [Path(part.strip()) for part in str(argument).split(",") if part.strip()]
        if len(self._folders) != 2:
            raise UsageError(f"{len(self._folders)} folders were given; expected {FORM}")
        for folder in self._folders:
            count = len(RealImages.from_source(folder, (3, 8, 8)))
            if count < LEAST:
                raise UsageError(f"{folder} has {count} pictures; at least {LEAST} are needed in each folder")

    @property
    def concepts(self) -> Sequence[Concept]:
        first = self._folders[0]
        name = first.stem if first.is_file() else first.resolve().name
        if self._fit is not None:
            name = f"{name} (folders, {100 * self._fit.accuracy:.0f} % held out, {p_value(self._fit.p)})"
        return (Concept(name, "folders"),)

    def fitted(self, images: Tensor) -> Folders:
        """The classifier of the folders' pictures, brought to the size of ``images`` float32 [N, C, H, W].

        Raises:
            UsageError: held-out pictures are not told better than with permuted labels.
        """
        shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        sources = [RealImages.from_source(folder, shape) for folder in self._folders]
        sets = [source.batch(evenly(len(source), MOST).tolist()) for source in sources]
        fit = _learn(*sets)
        if fit.p > ALPHA:
            first, second = self._folders
            raise UsageError(
                f"the pictures of {first} are not told from those of {second}: {100 * fit.accuracy:.0f} % of held-out pictures "
                f"are right, and {100 * fit.p:.0f} % of permuted labels do as well; give more pictures, or look for another concept"
            )
        return Folders(self._argument, fit=fit)

    def segment(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """bool [N, 1, H, W]; nothing before :meth:`fitted`."""
        if self._fit is None:
            return torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
        return self._fit.evidence(images) > self._fit.level

    def soft(self, images: Tensor) -> Tensor | None:
        """The evidence between none (0) and twice the level (near 1), float32 [N, 1, H, W], differentiable in ``images``."""
        return None if self._fit is None else (4 * (self._fit.evidence(images) / self._fit.level - 1)).sigmoid()


def _learn(has: Tensor, lacks: Tensor) -> _Fit:
    """Words of both sets of pictures float32 [N, C, H, W], a classifier of how much of each they hold, and its test."""
    from sklearn.cluster import KMeans

    pictures = torch.cat([has, lacks])
    points = torch.cat([_some_points(picture, _POINTS // len(pictures) + 1) for picture in pictures])
    mean, spread = points.mean(0), points.std(0, correction=0)
    scale = torch.where(spread > 1e-6, spread, 1.0)
    found = KMeans(WORDS, n_init=1, random_state=0).fit(((points - mean) / scale).double().numpy())
    words = torch.from_numpy(found.cluster_centers_).float()
    blank = torch.zeros(len(words))
    bare = _Fit(mean, scale, words, blank, blank, 1.0, 0.0, 1.0)
    bags = torch.cat([bare.spoken(picture[None]).mean((2, 3)) for picture in pictures]).double()
    labels = torch.arange(len(pictures)) < len(has)
    accuracy, p = _tested(bags.numpy(), labels.numpy())
    weights = torch.from_numpy(_classifier(bags.numpy(), labels.numpy()[:, None])).float()
    fit = replace(bare, usual=bags.mean(0).float(), weights=weights, accuracy=accuracy, p=p)
    peaks = torch.stack([fit.evidence(picture[None]).amax() for picture in has])
    return replace(fit, level=max(0.5 * float(peaks.median()), 1e-6))


def _some_points(picture: Tensor, count: int) -> Tensor:
    points = as_points(looks(picture[None]))
    return points[evenly(len(points), count)]


def _classifier(bags: Floats, labels: Bools) -> Floats:
    """Weights float64 [V] (or [V, P]) of a ridge regression from bags [N, V] to each column of labels bool [N, P]."""
    from sklearn.linear_model import Ridge

    spread = bags.std(0)
    scale = np.where(spread > 1e-9, spread, np.inf)
    model = Ridge(alpha=PENALTY * len(bags)).fit((bags - bags.mean(0)) / scale, labels.astype(np.float64))
    weights: Floats = np.asarray(model.coef_).T / (scale[:, None] if labels.shape[1] > 1 else scale)
    return weights.reshape(-1, labels.shape[1]) if labels.shape[1] > 1 else weights.reshape(-1)


def _tested(bags: Floats, labels: Bools) -> tuple[float, float]:
    """Balanced accuracy on held-out pictures, and its rank among those of permuted labels (all fitted at once)."""
    rng = np.random.default_rng(0)
    columns = np.stack([labels, *(rng.permutation(labels) for _ in range(PERMUTATIONS))], 1)
    fold = rng.permutation(len(labels)) % FOLDS
    right = np.zeros(columns.shape, bool)
    for number in range(FOLDS):
        kept, out = fold != number, fold == number
        scores = bags @ _classifier(bags[kept], columns[kept])
        yes, no = (
            np.where(side[kept], scores[kept], 0).sum(0) / np.maximum(side[kept].sum(0), 1)
            for side in (columns, ~columns)
        )
        right[out] = (scores[out] > (yes + no) / 2) == columns[out]
    accuracy = (
        np.where(columns, right, 0).sum(0) / columns.sum(0) + np.where(columns, 0, right).sum(0) / (~columns).sum(0)
    ) / 2
    return float(accuracy[0]), float((accuracy >= accuracy[0] - 1e-12).mean())
