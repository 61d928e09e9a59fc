"""DINOv2 and CLIP as feature spaces, from a folder of the transformers library.

Dinov2("folder/dinov2-small").features(images)           # float32 [N, 384]
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from gandissect.errors import UsageError
from gandissect.extractor import Extractor

from .extractors import three_channels

INSTALL = "needs the package transformers; type: pip install 'gandissect[segment]'"


class FromFolder(Extractor):
    """An image network of the transformers library, with the preparation of images that its folder describes.

    Raises:
        UsageError: the package is missing, no such folder, or a network of another kind in it.
    """

    kinds: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: str = "") -> None:
        if importlib.util.find_spec("transformers") is None:
            raise UsageError(f"{self.name} {INSTALL}")
        if not folder or not Path(folder).expanduser().is_dir():
            raise UsageError(
                f"{self.name} reads a folder and fetches nothing: no folder {folder!r}; type {self.name}=FOLDER"
            )
        hub = importlib.import_module("transformers")
        place: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = hub.AutoConfig.from_pretrained(folder, **place)
            if config.model_type not in self.kinds:
                raise UsageError(
                    f"{folder} holds a network of type {config.model_type}; expected {' or '.join(self.kinds)}"
                )
            self._processor = hub.AutoImageProcessor.from_pretrained(folder, **place)
            self._net: Any = hub.AutoModel.from_pretrained(folder, use_safetensors=True, **place).eval()
        except (OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(f"{folder} holds no network that can be read for {self.name}: {reason}") from error

    def _prepared(self, images: Tensor) -> Tensor:
        """Pixel values of images float32 [N, C, H, W] in [-1, 1], rounded to bytes as in a file."""
        pictures = ((three_channels(images).clamp(-1, 1).nan_to_num() + 1) * 127.5).round().to(torch.uint8)
        values: Tensor = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return values


class Dinov2(FromFolder):
    """DINOv2 (Oquab et al. 2024): the class token; trained without labels, closest to what people find similar (Stein et al. 2023)."""

    name = "dinov2"
    kinds = ("dinov2", "dinov2_with_registers")

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, D]."""
        features: Tensor = self._net(pixel_values=self._prepared(images)).pooler_output
        return features.float()


class Clip(FromFolder):
    """CLIP (Radford et al. 2021): the image embedding that is compared with text."""

    name = "clip"
    kinds = ("clip",)

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, D]."""
        prepared = self._prepared(images)
        seen = self._net.vision_model(pixel_values=prepared).pooler_output
        features: Tensor = self._net.visual_projection(seen)
        return features.float()
