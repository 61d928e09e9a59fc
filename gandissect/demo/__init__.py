"""A small GAN of landscapes whose concepts are known, to try every analysis on.

import gandissect
from gandissect.demo import CONCEPTS, demo_checkpoint, segment

gan = gandissect.open(demo_checkpoint())
masks = segment(gan.generator(gan.latents(16)))      # bool [16, K, 64, 64]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gandissect.demo.bundle import (
        demo_checkpoint,
        demo_discriminator,
        demo_generator,
        demo_real_images,
        demo_segmenter,
        demo_snapshots,
        segment,
        segmenter_iou,
    )
    from gandissect.demo.scenes import ATTRIBUTES, CONCEPTS, Scene, scene

__all__ = [
    "ATTRIBUTES",
    "CONCEPTS",
    "Scene",
    "demo_checkpoint",
    "demo_discriminator",
    "demo_generator",
    "demo_real_images",
    "demo_segmenter",
    "demo_snapshots",
    "scene",
    "segment",
    "segmenter_iou",
]

_DRAWN = {"ATTRIBUTES", "CONCEPTS", "Scene", "scene"}


def __getattr__(name: str) -> object:
    """The public name, from a module that is loaded only now (``bundle`` needs torch, ``scenes`` numpy)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module("gandissect.demo.scenes" if name in _DRAWN else "gandissect.demo.bundle")
    found: object = getattr(home, name)
    return found
