"""How the surroundings of a pixel look, and a small classifier of it that is fitted to a few examples.

maps = looks(images)                                # float32 [N, 11, H, W]
reader = Reader.fit(points, labels)                 # float [M, 11], int64 [M] in 0..K-1
reader.logits(maps)                                 # float32 [N, K, H, W], differentiable
"""

from __future__ import annotations

from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gandissect.properties import luminance

from .clusters import OPPONENT
from .edges import box

LIGHT, CONTRAST = 0, 6
"""Places of the pixel's lightness and of the light's deviation around it among the features."""
LIMIT = 5.0  # standard deviations from the examples' mean beyond which a feature counts no further
_COUNTED = 500.0  # examples that the quadratic penalty of 1 stands against, however many there are


def looks(images: Tensor, *, position: bool = False) -> Tensor:
    """Lightness and two opponent colours at the pixel and averaged over two squares, and the light's deviation in both.

    Args:
        images: float [N, C, H, W] in [-1, 1]; the squares' sides are about 1/16 and 1/6 of the shorter side.
        position: add the pixel's place, x and y in -1..1.

    Returns:
        float32 [N, 11 (13 with position), H, W], differentiable in ``images``.
    """
    rgb = images[:, :3].float().clamp(-1, 1)
    rgb = rgb if rgb.shape[1] == 3 else rgb[:, :1].expand(-1, 3, -1, -1)
    opponent = F.conv2d(rgb, OPPONENT[:, :, None, None])
    light = 2 * luminance(images.float()) - 1
    side = int(min(images.shape[2:]))
    parts = [opponent]
    for radius in (max(1, side // 32), max(2, side // 12)):
        means = box(torch.cat([opponent, light, light.square()], 1), radius)
        variance = (means[:, 4:] - means[:, 3:4].square()).clamp(min=0)
        parts += [means[:, :3], (variance + 1e-6).sqrt()]
    if position:
        height, width = images.shape[2:]
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        place = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)])
        parts.append(place.expand(len(images), -1, -1, -1))
    return torch.cat(parts, 1)


def as_points(maps: Tensor) -> Tensor:
    """The feature vectors of all pixels, sample after sample: [N * H * W, D] from [N, D, H, W]."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def evenly(count: int, at_most: int) -> Tensor:
    """Places of at most ``at_most`` of ``count`` things, evenly over their order: int64."""
    return torch.linspace(0, max(count - 1, 0), min(count, at_most), dtype=torch.float64).round().long()


@dataclass(frozen=True)
class Reader:
    """Logistic regression on features and their products (a quadratic boundary), for K classes or for one against the rest.

    Attributes:
        mean, scale: float32 [D], of the examples.
        form: float32 [K, D, D]; ``slope`` [K, D]; ``offset`` [K]; K = 1 where there are two classes.
    """

    mean: Tensor
    scale: Tensor
    form: Tensor
    slope: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, points: Tensor, labels: Tensor, weights: Tensor | None = None) -> Reader:
        """The reader that tells ``labels`` int64 [M] (0 and 1, or 0..K-1, each of them there) of ``points`` float [M, D].

        Args:
            weights: float [M], how many pixels each point stands for; all the same where left out.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import PolynomialFeatures

        x = points.double()
        mean, spread = x.mean(0), x.std(0, correction=0)
        scale = torch.where(spread > 1e-6, spread, 1.0)
        scaled = ((x - mean) / scale).clamp(-LIMIT, LIMIT).numpy()
        powers = PolynomialFeatures(2, include_bias=False).fit(scaled)
        given = torch.ones(len(x)) if weights is None else weights
        share = (given.double() * (_COUNTED / given.double().sum())).numpy()
        model = LogisticRegression(tol=1e-3, max_iter=150)
        with catch_warnings():
            simplefilter("ignore", ConvergenceWarning)  # what it is worth is measured on held-out pixels
            model.fit(powers.transform(scaled), labels.numpy(), sample_weight=share)
        form, slope = _unfolded(model.coef_, powers.powers_)
        offset = torch.from_numpy(np.atleast_1d(model.intercept_)).float()
        return cls(mean.float(), scale.float(), form, slope, offset)

    def logits(self, maps: Tensor) -> Tensor:
        """float32 [N, K, H, W] of features [N, D, H, W]; above 0 for yes where K = 1, largest for the class otherwise."""
        x = ((maps - self.mean[:, None, None]) / self.scale[:, None, None]).clamp(-LIMIT, LIMIT)
        classes, size = self.slope.shape
        turned = F.conv2d(x, self.form.reshape(classes * size, size, 1, 1)).reshape(len(x), classes, size, *x.shape[2:])
        linear = F.conv2d(x, self.slope[:, :, None, None], self.offset)
        logits: Tensor = (turned * x[:, None]).sum(2) + linear
        return logits

    def of_points(self, points: Tensor) -> Tensor:
        """The same of feature vectors [M, D]: float32 [M, K]."""
        return self.logits(points.float().T[None, :, :, None])[0, :, :, 0].T


def _unfolded(weights: NDArray[np.float64], powers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """The quadratic form [K, D, D] and slope [K, D] of weights [K, P] for products with the given powers [P, D]."""
    classes, size = len(weights), powers.shape[1]
    form, slope = np.zeros((classes, size, size)), np.zeros((classes, size))
    for column, row in enumerate(powers):
        places = np.repeat(np.arange(size), row)
        if len(places) == 1:
            slope[:, places[0]] = weights[:, column]
        else:
            form[:, places[0], places[1]] = weights[:, column]
    return torch.from_numpy(form).float(), torch.from_numpy(slope).float()


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """The mean of the parts of true and of false labels bool [M] that are predicted right, 0..1; chance is 0.5."""
    yes, no = predicted[labels], ~predicted[~labels]
    return float((yes.double().mean() + no.double().mean()) / 2)
