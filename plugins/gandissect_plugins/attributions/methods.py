"""Attributions of the discriminator's score to pixels, by Captum.

found = attribute_score(session, "occlusion", session.images(8))
found.maps                               # float32 [N, H, W], signed, in logits
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gandissect.borrow import borrowed
from gandissect.errors import NoSuchCapability, unknown_name
from gandissect.gan import Discriminator
from gandissect_plugins.attributions.superpixels import superpixels
from gandissect_plugins.attributions.surrogate import LinearFit, fit_linear
from gandissect_plugins.attributions.trained import CHUNK, judge, score_all

if TYPE_CHECKING:
    from gandissect.session import Session

Method = Literal["integrated-gradients", "gradient-shap", "occlusion", "lime", "kernel-shap"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Effort:
    """How much each method computes per image.

    Attributes:
        steps: of the integral (IntegratedGradients).
        draws: of a baseline and a place on the path (GradientShap).
        windows: along each side; a window is twice as wide as its stride (Occlusion).
        regions: superpixels (LIME, KernelShap).
        perturbations: subsets of the superpixels (LIME, KernelShap).
    """

    steps: int = 24
    draws: int = 16
    windows: int = 10
    regions: int = 32
    perturbations: int = 144


@dataclass(frozen=True)
class Attribution:
    """Maps of one method.

    Attributes:
        method: its name.
        maps: float32 [N, H, W], signed, in logits, summed over colours; one value per region for LIME and KernelShap.
        scores: float32 [N], the discriminator's logits.
        error: float32 [N], by how much the map's sum misses score − score of the baseline; None where no sum is promised.
        r2: float32 [N], share of variance explained by the linear surrogate on held-out perturbations; None without one.
        regions: int64 [N, H, W], superpixels; None where pixels are taken singly or by window.
    """

    method: Method
    maps: Tensor
    scores: Tensor
    error: Tensor | None = None
    r2: Tensor | None = None
    regions: Tensor | None = None


@dataclass
class _Explainer:
    """One image at a time, so that nothing depends on which others come along."""

    forward: Callable[[Tensor], Tensor]
    baselines: Tensor
    effort: Effort
    fits: list[LinearFit] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def integrated_gradients(self, image: Tensor, _regions: Tensor) -> Tensor:
        """Sundararajan et al. 2017, Axiomatic Attribution, eq. 1; Gauss-Legendre nodes, grey baseline."""
        from captum.attr import IntegratedGradients

        found, delta = IntegratedGradients(self.forward).attribute(
            image,
            baselines=0.0,
            n_steps=self.effort.steps,
            method="gausslegendre",
            internal_batch_size=CHUNK,
            return_convergence_delta=True,
        )
        self.errors.append(float(delta.abs().max()))
        return _tensor(found).sum(1)

    def gradient_shap(self, image: Tensor, _regions: Tensor) -> Tensor:
        """Lundberg & Lee 2017, expected gradients: baselines are other samples, places on the path are random."""
        from captum.attr import GradientShap

        found, delta = GradientShap(self.forward).attribute(
            image, baselines=self.baselines, n_samples=self.effort.draws, stdevs=0.0, return_convergence_delta=True
        )
        self.errors.append(abs(float(delta.mean())))
        return _tensor(found).sum(1)

    def occlusion(self, image: Tensor, _regions: Tensor) -> Tensor:
        """Zeiler & Fergus 2014, section 4.2: mean loss of the score over the grey windows that cover a pixel."""
        channels, height, width = image.shape[1:]
        steps = max(1, height // self.effort.windows), max(1, width // self.effort.windows)
        window = (channels, min(height, 2 * steps[0]), min(width, 2 * steps[1]))
        return occlude(self.forward, image, window, (channels, *steps))[:, 0]

    def lime(self, image: Tensor, regions: Tensor) -> Tensor:
        """Ribeiro et al. 2016, section 3.4, over superpixels: cosine distance to the whole image, kernel width 0.25."""
        from captum.attr import Lime

        explainer = Lime(self.forward, interpretable_model=_surrogate(self.fits), similarity_func=_kept_similarity)
        return self._by_regions(explainer.attribute, image, regions)

    def kernel_shap(self, image: Tensor, regions: Tensor) -> Tensor:
        """Lundberg & Lee 2017, theorem 2, over superpixels."""
        from captum.attr import KernelShap

        explainer = KernelShap(self.forward)
        explainer.interpretable_model = _surrogate(self.fits, ridge=1e-9)
        return self._by_regions(explainer.attribute, image, regions)

    def _by_regions(self, attribute: Callable[..., object], image: Tensor, regions: Tensor) -> Tensor:
        attribute(
            image,
            baselines=0.0,
            feature_mask=regions[None, None].to(image.device),
            n_samples=self.effort.perturbations,
            perturbations_per_eval=CHUNK,
            return_input_shape=False,
        )
        return self.fits[-1].slopes.float()[regions][None]


def occlude(
    forward: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int, int], stride: tuple[int, int, int]
) -> Tensor:
    """Captum's Occlusion with a grey baseline: float32 [N, C, H, W] of images float32 [N, C, H, W]."""
    from captum.attr import Occlusion

    with torch.no_grad():
        found = Occlusion(forward).attribute(
            images, window, strides=stride, baselines=0.0, perturbations_per_eval=max(1, CHUNK // len(images))
        )
    return _tensor(found)


def attribute_score(
    session: Session, method: Method, images: Tensor | None = None, *, effort: Effort | None = None
) -> Attribution:
    """Which pixels raise or lower the discriminator's score, by ``method``.

    Args:
        session: its discriminator is explained; its first samples where ``images`` is left out.
        method: one of :data:`METHODS`.
        images: float32 [N, C, H, W] in [-1, 1]; randomness of image i depends on the session's seed and on i only.
        effort: see :class:`Effort`.
    """
    if session.gan.discriminator is None:
        raise NoSuchCapability("this GAN has no discriminator; pass --discriminator FILE")
    pictures = session.images(min(8, session.n)) if images is None else images
    baselines = session.images(min(16, session.n))
    labels = session.labels(range(len(pictures)), "discriminator")
    return attribute(
        session.gan.discriminator, method, pictures, baselines, seed=session.seed, effort=effort, labels=labels
    )


def attribute(
    discriminator: Discriminator,
    method: Method,
    images: Tensor,
    baselines: Tensor,
    *,
    seed: int = 0,
    effort: Effort | None = None,
    labels: Tensor | None = None,
) -> Attribution:
    """:func:`attribute_score` for any discriminator.

    ``baselines`` float32 [M, C, H, W] are those of GradientShap, ``labels`` int64 [N] the classes of the images.
    """
    if method not in METHODS:
        raise unknown_name("attribution method", method, METHODS)
    work = effort or Effort()
    device = discriminator.device
    regions = superpixels(images, work.regions) if method in ("lime", "kernel-shap") else None
    maps = []
    with borrowed(discriminator.module):
        explainer = _Explainer(discriminator, baselines.to(device), work)
        explain = getattr(explainer, method.replace("-", "_"))
        for index, image in enumerate(images):
            if labels is not None:
                explainer.forward = partial(judge, discriminator, labels[index : index + 1])
            inside = torch.zeros(0) if regions is None else regions[index]
            with _seeded(seed, method, index):
                maps.append(explain(image[None].detach().to(device), inside).detach().float().cpu())
    return Attribution(
        method,
        torch.cat(maps) if maps else torch.zeros(0, *images.shape[2:]),
        score_all(discriminator, images, labels),
        torch.tensor(explainer.errors) if explainer.errors else None,
        torch.tensor([fit.r2 for fit in explainer.fits]) if explainer.fits else None,
        regions,
    )


def _tensor(found: object) -> Tensor:
    if not isinstance(found, Tensor):
        raise TypeError(f"Captum gave {type(found).__name__} for one tensor")
    return found


def _kept_similarity(_image: Tensor, _perturbed: Tensor, kept: Tensor, **_rest: object) -> float:
    """exp(−d²/0.25²) with d the cosine distance between the kept regions and all of them."""
    distance = 1.0 - float(kept.float().mean()) ** 0.5
    return float(np.exp(-((distance / 0.25) ** 2)))


def _surrogate(fits: list[LinearFit], ridge: float = 1e-3) -> object:
    """A model in Captum's sense that appends each fit to ``fits``."""
    from captum._utils.models.model import Model

    class Surrogate(Model):  # type: ignore[misc]  # Captum is untyped where its stubs are missing
        def fit(self, train_data: object, **_options: object) -> None:
            rows = list(train_data)  # type: ignore[call-overload]  # a DataLoader of (features, values, weights)
            features, values, weights = (torch.cat(part).cpu() for part in zip(*rows, strict=True))
            fits.append(fit_linear(features, values, weights, ridge=ridge))

        def representation(self) -> Tensor:
            return fits[-1].slopes.float()[None]

        def __call__(self, x: Tensor) -> Tensor:
            return x.double() @ fits[-1].slopes + fits[-1].intercept

    return Surrogate()


@contextmanager
def _seeded(seed: int, method: str, index: int) -> Generator[None]:
    """Captum draws from the global states of numpy and torch: set for the block, as they were after it."""
    start = int(np.random.SeedSequence([seed & 0xFFFFFFFF, index, *method.encode()]).generate_state(1)[0])
    before = np.random.get_state()
    cuda = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=cuda):
        try:
            np.random.seed(start)
            torch.manual_seed(start)
            yield
        finally:
            np.random.set_state(before)
