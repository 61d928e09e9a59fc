"""Real images to compare with, read when they are needed.

real = RealImages.from_folder("photos/", (3, 64, 64))
real.batch(range(0, 16))                 # float32 [16, 3, 64, 64] in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import UsageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class RealImages:
    """Images by index: ``len`` and ``batch``; ``name`` says where they come from, for the report."""

    def __init__(self, name: str, count: int, read: Callable[[int], Tensor]) -> None:
        self.name = name
        self._count = count
        self._read = read

    def __len__(self) -> int:
        return self._count

    def batch(self, indices: Iterable[int]) -> Tensor:
        """float32 [N, C, H, W] in [-1, 1]."""
        return torch.stack([self._read(index) for index in indices])

    @classmethod
    def from_tensor(cls, images: Tensor, name: str = "tensor") -> RealImages:
        """Images that are already float32 [N, C, H, W] in [-1, 1]."""
        return cls(name, len(images), lambda index: images[index].float())

    @classmethod
    def from_folder(cls, folder: str | Path, image_shape: tuple[int, int, int]) -> RealImages:
        """Every picture under ``folder``, in order of names, centre-cropped to the generator's aspect and resized to it.

        Args:
            folder: searched recursively for the usual suffixes; a ``.npz`` or ``.npy`` file of uint8 [N, H, W(, C)] works too.
            image_shape: (C, H, W) of the generator.

        Raises:
            UsageError: no such folder, or no picture in it.
        """
        path = Path(folder)
        if path.suffix in {".npz", ".npy"} and path.is_file():
            return _from_array(path, image_shape)
        if not path.is_dir():
            raise UsageError(f"no folder of real images at {path}; pass --data FOLDER with pictures in it")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UsageError(f"no picture under {path}; looked for {', '.join(sorted(SUFFIXES))}")
        return cls(str(path), len(files), lambda index: _read_picture(files[index], image_shape))


def _from_array(path: Path, image_shape: tuple[int, int, int]) -> RealImages:
    try:
        loaded = np.load(path, allow_pickle=False)
        pixels = loaded[loaded.files[0]] if hasattr(loaded, "files") else loaded
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"cannot read images from {path}: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise UsageError(f"{path} holds {pixels.dtype} {pixels.shape}; expected uint8 [N, H, W] or [N, H, W, C]")
    return RealImages(str(path), len(pixels), lambda index: _to_tensor(pixels[index], image_shape))


def _read_picture(file: Path, image_shape: tuple[int, int, int]) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            return _to_tensor(np.asarray(picture.convert("L" if image_shape[0] == 1 else "RGB")), image_shape)
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"cannot read the picture {file}: {error}; remove it or convert it to PNG") from error


def _to_tensor(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], image_shape: tuple[int, int, int]) -> Tensor:
    from PIL import Image

    channels, height, width = image_shape
    picture = Image.fromarray(pixels.squeeze()).convert("L" if channels == 1 else "RGB")
    scale = max(width / picture.width, height / picture.height)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    array = np.asarray(picture.crop((left, top, left + width, top + height)), dtype=np.float32) / 127.5 - 1.0
    tensor = torch.from_numpy(array.copy())
    return tensor[None] if channels == 1 else tensor.permute(2, 0, 1).contiguous()
