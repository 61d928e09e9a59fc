"""Compare samples of the demo's GAN with drawn scenes, concept by concept, as a Markdown table.

python -m gandissect.demo.evaluate --samples 2048 --threads 1
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gandissect.demo.bundle import demo_generator, demo_segmenter, segmenter_iou
from gandissect.demo.networks import SceneSegmenter
from gandissect.demo.scenes import CONCEPTS, scenes
from gandissect.demo.train_segmenter import HELD_OUT_SEED

Doubles = NDArray[np.float64]
_SEEN = 10  # pixels from which on a concept counts as shown


@dataclass(frozen=True)
class Evaluation:
    """Samples against held-out scenes, both as the segmenter sees them.

    Attributes:
        area_drawn: float64 [K], mean share of the picture, 0..1.
        area_sampled: float64 [K], the same for samples.
        shown_drawn: float64 [K], share of the pictures that show the concept, 0..1.
        shown_sampled: float64 [K], the same for samples.
        distance: Fréchet distance of the segmenter's features; ``floor`` is that of two sets of scenes.
    """

    area_drawn: Doubles
    area_sampled: Doubles
    shown_drawn: Doubles
    shown_sampled: Doubles
    distance: float
    floor: float


def evaluate(path: Path | None, *, samples: int, seed: int = 0) -> Evaluation:
    """The bundled generator, or that of a file, compared with as many held-out scenes."""
    segmenter = demo_segmenter()
    generator = demo_generator(path)
    latents = torch.randn(samples, generator.latent_size, generator=torch.Generator().manual_seed(seed))
    made = [_look(segmenter, generator(part)) for part in torch.split(latents, 64)]
    starts = range(0, 2 * samples, 64)
    seen = [_look(segmenter, torch.from_numpy(scenes(HELD_OUT_SEED, range(i, i + 64))[0])) for i in starts]
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    area_sampled, area_drawn = (np.concatenate([areas for _, areas in looks]) for looks in (made, first))
    features = [np.concatenate([vectors for vectors, _ in looks]) for looks in (made, first, second)]
    shown = _SEEN / 64**2
    return Evaluation(
        area_drawn=area_drawn.mean(0),
        area_sampled=area_sampled.mean(0),
        shown_drawn=(area_drawn >= shown).mean(0),
        shown_sampled=(area_sampled >= shown).mean(0),
        distance=frechet_distance(features[0], features[1]),
        floor=frechet_distance(features[2], features[1]),
    )


def frechet_distance(a: Doubles, b: Doubles) -> float:
    """The Fréchet distance of two Gaussians fitted to float64 [N, D] and [M, D].

    References:
        Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule, eq. 6.
    """
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.clip(np.linalg.eigvals(cov_a @ cov_b).real, 0, None)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


@torch.no_grad()
def _look(segmenter: SceneSegmenter, images: Tensor) -> tuple[Doubles, Doubles]:
    """Features float64 [N, D] and the share of the picture that each concept takes, float64 [N, K]."""
    third = segmenter.down3(segmenter.down2(segmenter.down1(images)))
    fourth = segmenter.down4(third)
    features = torch.cat([third.mean((2, 3)), fourth.mean((2, 3)), fourth.amax((2, 3))], 1)
    areas = (segmenter(images) > 0).double().mean((2, 3))
    return features.double().numpy(), areas.numpy()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found, overlap = evaluate(options.checkpoint, samples=options.samples), segmenter_iou()
    print("| concept | segmenter IoU | area, scenes | area, samples | shown, scenes | shown, samples |")
    print("|---|---|---|---|---|---|")
    for k, concept in enumerate(CONCEPTS):
        areas = f"{found.area_drawn[k]:.2%} | {found.area_sampled[k]:.2%}"
        shown = f"{found.shown_drawn[k]:.0%} | {found.shown_sampled[k]:.0%}"
        print(f"| {concept} | {overlap[concept]:.3f} | {areas} | {shown} |")
    print(f"\nFréchet distance of segmenter features: {found.distance:.2f} (scenes to scenes {found.floor:.2f})")


if __name__ == "__main__":
    main()
