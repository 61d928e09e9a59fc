"""From images to the latents that come nearest to them, and how near the generator comes to images of its own.

own = held_out(session, 24)
found = invert(session, torch.cat([own.images, photos]))
found.points, found.images, found.error  # latents float32 [N, D], float32 [N, C, H, W], float64 [N]
rank_p(found.error[24:], found.error[:24])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gandissect.errors import NoSuchCapability, UsageError
from gandissect.lbfgs import minimised
from gandissect.passes.running import BLOCK, filled
from gandissect.sampling import prior_moments
from gandissect.session import Session
from gandissect.spaces import codes

Matrix = NDArray[np.float64]
MOST_SAMPLES = 1000
"""Samples of the session that starts are chosen from, at most."""
GRID = 16
"""Cells to a side of what samples are compared by."""
COARSEST = 4
"""Pixels to a side at which the pyramid ends."""
SMOOTHING = 0.1
"""Ridge of the regression from samples to latents."""
SPREAD_FROM = 256
"""Samples that the mean and spread of an inner space are taken from."""
COST = 3
"""Images' worth of work in one step: a run forwards and one back."""


@dataclass(frozen=True)
class Effort:
    """How hard is tried.

    Attributes:
        starts: points to start from; each is tried for a quarter of the steps, and the best one goes on.
        steps: of L-BFGS.
        prior: weight of the mean squared coordinate (in standard deviations) beside the mean squared error of images in [-1, 1].
    """

    starts: int = 1
    steps: int = 28
    prior: float = 1e-4

    @property
    def trial(self) -> int:
        """Steps that each start gets; 0 where there is only one."""
        return max(1, self.steps // 4) if self.starts > 1 else 0

    @property
    def images(self) -> int:
        """What one inversion costs, in images generated."""
        return COST * (self.starts * self.trial + self.steps)


@dataclass(frozen=True)
class Inversions:
    """What came out for N images.

    Attributes:
        space: where the points are.
        points: float32 [N, *shape]; for the latent itself [N, D].
        labels: int64 [N], the class each was found under; None for a generator without classes.
        images: float32 [N, C, H, W] in [-1, 1], what the generator makes of the points.
        error: float64 [N], root mean square difference from what was to be made, images in [-1, 1].
        encoded: float64 [N], the same after the checkpoint's own encoder alone; None where it has none.
    """

    space: str
    points: Tensor
    labels: Tensor | None
    images: Tensor
    error: Matrix
    encoded: Matrix | None = None

    @property
    def psnr(self) -> Matrix:
        """Peak signal-to-noise ratio of each, in dB (the peak is 2, the whole range): float64 [N]."""
        return np.asarray(20 * np.log10(2 / np.maximum(self.error, 1e-9)))

    def part(self, start: int, stop: int) -> Inversions:
        """Rows ``start``..``stop - 1``."""
        labels = None if self.labels is None else self.labels[start:stop]
        encoded = None if self.encoded is None else self.encoded[start:stop]
        points, images, error = self.points[start:stop], self.images[start:stop], self.error[start:stop]
        return Inversions(self.space, points, labels, images, error, encoded)


@dataclass(frozen=True)
class HeldOut:
    """Samples beyond the session's own: latents [N, D], classes int64 [N] or None, images [N, C, H, W]."""

    latents: Tensor
    labels: Tensor | None
    images: Tensor


def held_out(session: Session, count: int) -> HeldOut:
    """``count`` samples that follow the session's ``n``: nothing was fitted to them."""
    indices = range(session.n, session.n + count)
    latents, labels = session.latents_at(indices), session.labels(indices)
    return HeldOut(latents, labels, session.generate(latents, labels=labels))


def rms(images: Tensor, others: Tensor) -> Matrix:
    """Root mean square difference of pairs of images [N, C, H, W]: float64 [N]."""
    return np.asarray((images.double() - others.double()).square().mean((1, 2, 3)).sqrt().numpy())


def rank_p(errors: Matrix, own: Matrix) -> Matrix:
    """How often one of the generator's ``own`` images has an error as large, itself counted: float64 [N] in 1/(M + 1)..1."""
    # Phipson & Smyth 2010, for the added 1
    return np.asarray((1 + (own[None] >= errors[:, None]).sum(1)) / (1 + len(own)))


def pyramid(images: Tensor) -> Tensor:
    """Images at all scales as rows [N, P] whose squared distance is the mean over scales of the mean squared difference.

    Scales are halved by averaging until a side would have fewer than four pixels.
    """
    scales = [images]
    while min(scales[-1].shape[2:]) >= 2 * COARSEST:
        scales.append(F.avg_pool2d(scales[-1], 2))
    return torch.cat([scale.flatten(1) / (scale[0].numel() * len(scales)) ** 0.5 for scale in scales], 1)


def invert(session: Session, images: Tensor, effort: Effort | None = None, *, space: str = "") -> Inversions:
    """The points of a latent space whose images come nearest to the ones given.

    The loss of an image is the mean over the scales of a pyramid of its mean squared difference, plus ``effort.prior`` times the mean
    squared coordinate in standard deviations: minus the logarithm of a normal prior but for a constant (Creswell & Bharath 2018,
    eq. 5). Under a uniform prior no coordinate leaves its span. The first start is what a kernel ridge regression from the session's
    samples to their latents says, which is an encoder learned from the generator itself (Zhu et al. 2016 and Bau et al.
    2019 train a network for it), or what the checkpoint's own encoder says where that comes
    nearer; the further ones are the nearest samples. A class-conditional generator is asked for the class of the nearest sample.

    Args:
        session: whose generator and samples; at most 1000 samples are used.
        images: float32 [N, C, H, W] in [-1, 1].
        effort: how hard to try.
        space: the latent where left out, or one of the generator's inner spaces.

    Raises:
        NoSuchCapability: the generator has no gradients, or its latent is a picture.
        UsageError: images of another shape, fewer than two samples to start from, or an unknown space.
    """
    generator, tried = session.gan.generator, effort or Effort()
    if not session.gan.capabilities.gradients:
        raise NoSuchCapability("inversion needs gradients through the generator, and this format gives none")
    if generator.latent.prior == "image":
        raise NoSuchCapability("inversion needs a latent vector; this generator turns pictures into pictures")
    if tuple(images.shape[1:]) != generator.image_shape or min(session.n, MOST_SAMPLES) < 2:
        expected = "×".join(map(str, generator.image_shape))
        raise UsageError(
            f"inversion takes images {expected} and at least 2 samples, got {tuple(images.shape)}, {session.n}"
        )
    search = _Search(session, space or generator.latent.name, tried)
    encoded = search.encoded(images)
    points, labels = search.starts(images, encoded)
    if tried.trial:
        points, labels = search.best(images, points, labels)
    reached = search.descended(points, labels, images, tried.steps)[:, 1:]
    made = search.made(reached, labels)
    session.images_generated += len(images) * tried.images
    return Inversions(
        search.space,
        search.unscaled(reached),
        labels,
        made,
        rms(made, images),
        None if encoded is None else encoded.error,
    )


@dataclass(frozen=True)
class _Encoded:
    """Rows [N, D] that an encoder gives for images, and float64 [N] how far the generator's images of them are off."""

    rows: Tensor
    error: Matrix


class _Search:
    """One space of one generator, its points in standard deviations from its mean: rows [N, D]."""

    def __init__(self, session: Session, space: str, effort: Effort) -> None:
        self.session = session
        self.space = space
        self.effort = effort
        self.count = min(session.n, MOST_SAMPLES)
        generator = session.gan.generator
        self.own = space == generator.latent.name
        self.shape = (generator.latent.size,) if self.own else generator.space(space).shape
        self.bounded = self.own and generator.latent.prior == "uniform"

    @cached_property
    def samples(self) -> Tensor:
        """The session's samples as points of the space: float32 [n, *shape]."""
        labels = self.session.labels(range(self.count))
        return codes(self.session, self.space, self.session.latents(self.count), labels)

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coordinate: float32 [D] each."""
        if self.own:
            centre, scale = prior_moments(self.session.gan.generator.latent)
            return torch.full(self.shape, centre), torch.full(self.shape, scale)
        rows = self.samples[:SPREAD_FROM].flatten(1).double()
        spread = rows.std(0)
        return rows.mean(0).float(), spread.clamp(min=1e-3 * float(spread.mean()) + 1e-12).float()

    def scaled(self, points: Tensor) -> Tensor:
        """Points [N, *shape] as rows."""
        mean, spread = self.moments
        return (points.flatten(1) - mean) / spread

    def unscaled(self, rows: Tensor) -> Tensor:
        """Rows as points [N, *shape]."""
        mean, spread = self.moments
        return (rows * spread + mean).reshape(-1, *self.shape)

    def allowed(self, rows: Tensor) -> Tensor:
        """Rows inside the prior's span, where it has one: U(a, b) ends √3 standard deviations from its mean."""
        return rows.clamp(-(3**0.5), 3**0.5) if self.bounded else rows

    def encoded(self, images: Tensor) -> _Encoded | None:
        """What the checkpoint's own encoder makes of the images; None where it has none for this space."""
        generator, parts = self.session.gan.generator, []
        if generator.encoder is None or generator.num_classes or not self.own:
            return None
        with self.session.borrowed(), torch.no_grad():
            for start in range(0, len(images), BLOCK):
                chunk = filled(images[start : start + BLOCK], BLOCK).to(generator.device)
                parts.append(generator.encode(chunk)[: len(images) - start].cpu())
        rows = self.allowed(self.scaled(torch.cat(parts)))
        return _Encoded(rows, rms(self.made(rows, None), images))

    def starts(self, images: Tensor, encoded: _Encoded | None) -> tuple[Tensor, Tensor | None]:
        """Where each image starts: rows [starts · N, D], all first starts before all second ones, and their classes."""
        from sklearn.kernel_ridge import KernelRidge

        samples = self.session.images(self.count)
        known, asked = (_cells(part) for part in (samples, images))
        apart = torch.cdist(asked, known)
        nearest = apart.argsort(dim=1, stable=True)[:, : self.effort.starts]
        own = self.scaled(self.samples)
        width = float(torch.cdist(known[:SPREAD_FROM], known[:SPREAD_FROM]).square().median()) or 1.0
        fit = KernelRidge(alpha=SMOOTHING, kernel="rbf", gamma=1 / width).fit(known.numpy(), own.double().numpy())
        guessed = self.allowed(torch.from_numpy(fit.predict(asked.numpy())).float())
        if encoded is not None:
            nearer = encoded.error < rms(self.made(guessed, None), images)
            guessed = torch.where(torch.from_numpy(nearer)[:, None], encoded.rows, guessed)
        rows = [guessed, *(own[nearest[:, place]] for place in range(nearest.shape[1] - 1))]
        classes = self.session.labels(range(self.count))
        places = [0, *range(nearest.shape[1] - 1)]
        labels = None if classes is None else torch.cat([classes.cpu()[nearest[:, place]] for place in places])
        return torch.cat(rows), labels

    def best(self, images: Tensor, rows: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The best start of each image after a trial of each: rows [N, D] and their classes."""
        times, n = len(rows) // len(images), len(images)
        reached = self.descended(rows, labels, images.repeat(times, 1, 1, 1), self.effort.trial)
        chosen = reached[:, 0].reshape(times, n).argmin(0) * n + torch.arange(n)
        return reached[chosen, 1:], None if labels is None else labels[chosen]

    def descended(self, rows: Tensor, labels: Tensor | None, images: Tensor, steps: int) -> Tensor:
        """The loss reached and where: float32 [N, 1 + D], shared out among processes in blocks."""

        def work(part: range) -> Tensor:
            parts = []
            for start in range(part.start, part.stop, BLOCK):
                span = slice(start, min(start + BLOCK, part.stop))
                classes = None if labels is None else labels[span]
                parts.append(self._block(rows[span], classes, images[span], steps))
            return torch.cat(parts) if parts else rows.new_zeros(0, rows.shape[1] + 1)

        return self.session.shard.rows(f"inversions in {self.space}", len(rows), BLOCK, work)

    def _block(self, rows: Tensor, labels: Tensor | None, images: Tensor, steps: int) -> Tensor:
        device, count = self.session.gan.generator.device, len(rows)
        classes = None if labels is None else filled(labels, BLOCK).to(device)
        with self.session.borrowed():
            decode = self._decoder(classes)
            wanted = pyramid(filled(images, BLOCK).to(device))

            def slope_of(at: Tensor) -> tuple[Tensor, Tensor]:
                points = at.detach().requires_grad_()
                loss = (pyramid(decode(points)) - wanted).square().sum(1)
                if not self.bounded:
                    loss = loss + self.effort.prior * points.square().mean(1)
                (slope,) = torch.autograd.grad(loss.sum(), points)
                return loss.detach(), slope

            found = minimised(slope_of, filled(rows, BLOCK).to(device), steps, self.allowed)
        return torch.cat([found.values[:count, None], found.points[:count]], 1).cpu()

    def _decoder(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Rows [16, D] to images, with the same noise at each call where the generator draws any."""
        generator, device = self.session.gan.generator, self.session.gan.generator.device
        mean, spread = (part.to(device) for part in self.moments)
        fixed = not self.session.gan.capabilities.deterministic
        leave = None if self.own else generator.space(self.space).leave

        def decode(rows: Tensor) -> Tensor:
            if fixed:
                torch.manual_seed(self.session.seed)  # inside borrowed(), which puts the state back
            points = (rows * spread + mean).reshape(len(rows), *self.shape)
            return generator(points, labels) if leave is None else generator.as_images(leave(points, labels))

        return decode

    def made(self, rows: Tensor, labels: Tensor | None) -> Tensor:
        """Images of rows, as the search saw them: float32 [N, C, H, W] on the CPU."""
        device, parts = self.session.gan.generator.device, []
        with self.session.borrowed(), torch.no_grad():
            for start in range(0, len(rows), BLOCK):
                classes = None if labels is None else filled(labels[start : start + BLOCK], BLOCK).to(device)
                chunk = filled(rows[start : start + BLOCK], BLOCK).to(device)
                parts.append(self._decoder(classes)(chunk)[: len(rows) - start].float().cpu())
        return torch.cat(parts)


def _cells(images: Tensor) -> Tensor:
    """Images as rows that samples are compared by: float64 [N, P], the mean colours of at most 16×16 cells."""
    height, width = (min(GRID, side) for side in images.shape[2:])
    return F.adaptive_avg_pool2d(images.double(), (height, width)).flatten(1)
