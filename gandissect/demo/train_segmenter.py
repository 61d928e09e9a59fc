"""Train the demo's segmenter on drawn scenes, whose masks are exact.

python -m gandissect.demo.train_segmenter --out weights --minutes 4 --threads 1
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gandissect.demo.bundle import SEGMENTER_FILE, save_segmenter
from gandissect.demo.networks import SceneSegmenter
from gandissect.demo.scenes import CONCEPTS, bytes_to_images, labels_to_masks, scene_bytes, scenes

HELD_OUT_SEED = 1000  # the seed of scenes that nothing is trained on


def main() -> None:
    """Train for a while and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--scenes", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    segmenter = train_segmenter(options.seed, scene_count=options.scenes, minutes=options.minutes)
    overlap = held_out_iou(segmenter)
    print({concept: round(value, 3) for concept, value in overlap.items()})
    save_segmenter(options.out / SEGMENTER_FILE, segmenter, overlap, seed=options.seed)


def train_segmenter(seed: int, *, scene_count: int, minutes: float, batch: int = 32) -> SceneSegmenter:
    """A segmenter in eval mode, trained for this long on this many scenes."""
    torch.manual_seed(seed)
    pixels, labels, _ = scene_bytes(seed, range(scene_count))
    rng = np.random.default_rng(seed)
    segmenter = SceneSegmenter().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(segmenter.parameters(), weight_decay=1e-4)
    start, step = time.monotonic(), 0
    while (progress := (time.monotonic() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, 20 * progress + 0.02, 1.5 * (1 - progress))
        images, masks = _batch(pixels, labels, rng.integers(0, scene_count, batch))
        with torch.autocast("cpu", torch.bfloat16):
            logits = segmenter(roughen(images))
        loss = _loss(logits.float(), masks)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"{step:6d} {time.monotonic() - start:6.0f} s  loss {float(loss.detach()):.4f}", flush=True)
    return segmenter.eval()


def roughen(images: Tensor) -> Tensor:
    """The images as a GAN might have made them: blurred, noisy, off in colour, with a ghost of another one.

    Args:
        images: float32 [N, 3, 64, 64] in [-1, 1].

    Returns:
        float32 [N, 3, 64, 64] in [-1, 1].
    """
    n = len(images)
    ghost = 0.3 * torch.rand(n, 1, 1, 1) ** 2
    images = images + ghost * (images.roll(1, 0) - images)
    blurred = functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = images + torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.6) * (blurred - images)
    images = images * (1 + 0.12 * torch.randn(n, 3, 1, 1)) + 0.06 * torch.randn(n, 3, 1, 1)
    coarse = functional.interpolate(torch.randn(n, 3, 16, 16), scale_factor=4.0, mode="bilinear")
    images = images + 0.10 * torch.rand(n, 1, 1, 1) * coarse
    images = images + 0.12 * torch.rand(n, 1, 1, 1) ** 2 * torch.randn_like(images)
    return images.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def held_out_iou(segmenter: SceneSegmenter, count: int = 512) -> dict[str, float]:
    """The overlap with the exact masks per concept, 0..1, over scenes that were never trained on."""
    images, truth, _ = scenes(HELD_OUT_SEED, range(count))
    with torch.no_grad():
        found = np.concatenate([(segmenter(part) > 0).numpy() for part in torch.split(torch.from_numpy(images), 64)])
    both, either = (found & truth).sum((0, 2, 3)), (found | truth).sum((0, 2, 3))
    return {concept: float(both[i] / max(either[i], 1)) for i, concept in enumerate(CONCEPTS)}


def _batch(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(bytes_to_images(pixels[chosen]))
    return images, torch.from_numpy(labels_to_masks(labels[chosen])).float()


def _loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy plus one minus the soft overlap per concept, so that small concepts count as much as the sky."""
    likely = logits.sigmoid()
    both = (likely * masks).sum((0, 2, 3))
    overlap = (both + 1) / ((likely + masks).sum((0, 2, 3)) - both + 1)
    return functional.binary_cross_entropy_with_logits(logits, masks) + 0.3 * (1 - overlap).mean()


if __name__ == "__main__":
    main()
