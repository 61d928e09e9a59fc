"""The files that ship with the demo, and how they are written and read.

from gandissect.demo.bundle import demo_generator, demo_segmenter, segment

masks = segment(demo_generator()(torch.randn(16, 64)))      # bool [16, K, 64, 64]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from gandissect.demo.networks import SceneDiscriminator, SceneGenerator, SceneSegmenter
from gandissect.demo.scenes import CONCEPTS, SIZE, bytes_to_images, scene_bytes
from gandissect.real import RealImages

WEIGHTS = Path(__file__).parent / "weights"
GAN_FILE = "scenes-gan.safetensors"
SEGMENTER_FILE = "scenes-segmenter.safetensors"
TRAINED_ON = 0
"""The seed of the landscapes that the bundled GAN was trained on."""
_AUTHORSHIP = {"made_by": "the gandissect authors", "licence": "Apache-2.0"}


def demo_checkpoint() -> Path:
    """The bundled GAN: a safetensors file of a generator and its discriminator."""
    return WEIGHTS / GAN_FILE


def demo_snapshots() -> tuple[Path, ...]:
    """Generators kept along the training of the bundled GAN, earliest first."""
    return tuple(sorted((WEIGHTS / "snapshots").glob("scenes-gan-step-*.safetensors")))


def demo_real_images(count: int = 1000) -> RealImages:
    """The first ``count`` of the drawn landscapes that the bundled GAN was trained on, drawn when first looked at."""

    @cache
    def images() -> Tensor:
        return torch.from_numpy(bytes_to_images(scene_bytes(TRAINED_ON, range(count))[0]))

    return RealImages(f"the first {count} drawn landscapes of the training set", count, lambda index: images()[index])


def demo_generator(path: Path | None = None) -> SceneGenerator:
    """The bundled generator in eval mode, or that of a snapshot."""
    generator = SceneGenerator()
    generator.load_state_dict(_part(path or demo_checkpoint(), "generator."))
    return generator.eval().requires_grad_(False)


def demo_discriminator() -> SceneDiscriminator:
    """The bundled discriminator in eval mode."""
    discriminator = SceneDiscriminator()
    discriminator.load_state_dict(_part(demo_checkpoint(), "discriminator."))
    return discriminator.eval().requires_grad_(False)


def demo_segmenter() -> SceneSegmenter:
    """The bundled segmenter in eval mode; its logits are positive where a concept is present."""
    segmenter = SceneSegmenter()
    segmenter.load_state_dict(_part(WEIGHTS / SEGMENTER_FILE, ""))
    return segmenter.eval().requires_grad_(False)


def segment(images: Tensor) -> Tensor:
    """Which concepts are where, by the bundled segmenter.

    Args:
        images: float [N, 3, H, W] in [-1, 1]; resized to 64x64 if they are not.

    Returns:
        bool [N, K, 64, 64] in the order of ``CONCEPTS``.
    """
    with torch.no_grad():
        return (concept_logits(images) > 0).cpu().contiguous()


def concept_logits(images: Tensor) -> Tensor:
    """What the bundled segmenter says, differentiable in ``images`` (as in :func:`segment`): float32 [N, K, 64, 64]."""
    if images.shape[-2:] != (SIZE, SIZE):
        images = functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    logits: Tensor = _segmenter()(images.float().cpu().contiguous(memory_format=torch.channels_last))
    return logits.to(images.device)


@cache
def _segmenter() -> SceneSegmenter:
    """The same function in half the time: normalisations folded into the convolutions, channels last in memory."""
    return demo_segmenter().folded().to(memory_format=torch.channels_last)


def save_gan(path: Path, generator: SceneGenerator, discriminator: SceneDiscriminator | None, *, seed: int, step: int,
             dtype: torch.dtype = torch.float32) -> None:  # fmt: skip
    """Write a generator, and its discriminator if given, as one safetensors file."""
    tensors = _prefixed("generator.", generator)
    if discriminator is not None:
        tensors |= _prefixed("discriminator.", discriminator)
    facts = {"title": "scenes-gan", "seed": str(seed), "steps": str(step), "latent": "z ~ N(0, 1), 64 numbers"}
    _save(path, tensors, facts, dtype)


def save_segmenter(path: Path, segmenter: SceneSegmenter, overlap: Mapping[str, float], *, seed: int) -> None:
    """Write a segmenter with its held-out IoU per concept as one safetensors file."""
    facts = {"title": "scenes-segmenter", "seed": str(seed), "concepts": json.dumps(CONCEPTS),
             "held_out_iou": json.dumps({concept: round(value, 4) for concept, value in overlap.items()})}  # fmt: skip
    _save(path, _prefixed("", segmenter), facts, torch.float16)


def segmenter_iou() -> dict[str, float]:
    """The IoU per concept on held-out scenes that the bundled segmenter states, 0..1."""
    with safe_open(WEIGHTS / SEGMENTER_FILE, "pt") as file:
        stated: dict[str, float] = json.loads(file.metadata()["held_out_iou"])
    return stated


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str], dtype: torch.dtype) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(cast, partial, {**facts, **_AUTHORSHIP})
    partial.chmod(0o644)
    partial.replace(path)  # whoever reads at this moment sees the old file or the new one


def _prefixed(prefix: str, net: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}


def _part(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a file whose names begin with ``prefix``, without it, float16 made float32."""
    with safe_open(path, "pt") as file:
        found = {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}
