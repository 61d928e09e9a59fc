"""Real images to compare with, read when they are needed.

real = RealImages.from_source("photos.zip", (3, 64, 64))
real.batch(range(0, 16))                 # float32 [16, 3, 64, 64] in [-1, 1]
"""

from __future__ import annotations

import inspect
import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gandissect.errors import NotOpened, UsageError, unknown_name
from gandissect.files.archives import DAMAGED, member_bytes, open_zip

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
ARRAYS = {".npz", ".npy"}
TORCHVISION = "torchvision:"
FORMS = "a folder, a .zip of pictures, a .npz or .npy of uint8 [N, H, W(, C)], or torchvision:NAME@ROOT"
LARGEST_PICTURE = 2**27
"""Bytes that one picture in a zip may unpack to."""
LARGEST_ARRAY = 2**35
"""Bytes that the arrays of an ``.npz`` may unpack to."""
Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Shape = tuple[int, int, int]


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
    def from_source(cls, source: str | Path, image_shape: Shape) -> RealImages:
        """Images from whatever ``--data`` takes, centre-cropped to the generator's aspect and resized to it.

        Args:
            source: a folder or an array, as :meth:`from_folder` takes them; a ``.zip`` of pictures, read in place, in order of names; or
                ``torchvision:NAME@ROOT``, a dataset of torchvision that lies in ROOT already, in its own order. Nothing is downloaded.
            image_shape: (C, H, W) of the generator.

        Raises:
            UsageError: it is not there, holds no picture, or cannot be read.
        """
        if str(source).startswith(TORCHVISION):
            return _from_torchvision(str(source), image_shape)
        path = Path(source)
        if path.suffix.lower() == ".zip" and path.is_file():
            pictures = _Zipped(path, image_shape)
            return cls(str(path), len(pictures.members), pictures.read)
        return cls.from_folder(path, image_shape)

    @classmethod
    def from_folder(cls, folder: str | Path, image_shape: Shape) -> RealImages:
        """Every picture under ``folder``, in order of names, centre-cropped to the generator's aspect and resized to it.

        Args:
            folder: searched recursively for the usual suffixes; a ``.npz`` or ``.npy`` file of uint8 [N, H, W(, C)] works too.
            image_shape: (C, H, W) of the generator.

        Raises:
            UsageError: no such folder, or no picture in it.
        """
        path = Path(folder)
        if path.suffix.lower() in ARRAYS and path.is_file():
            return _from_array(path, image_shape)
        if path.is_file():
            raise UsageError(f"{path} is no source of real images; --data takes {FORMS}")
        if not path.is_dir():
            raise UsageError(f"no folder of real images at {path}; pass --data FOLDER with pictures in it")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise UsageError(f"no picture under {path}; looked for {', '.join(sorted(SUFFIXES))}")
        return cls.from_files(files, image_shape, str(path))

    @classmethod
    def from_files(cls, files: Sequence[Path], image_shape: Shape, name: str = "files") -> RealImages:
        """The pictures in ``files``, in their order, cropped and resized as those of a folder."""
        return cls(
            name,
            len(files),
            lambda index: _read_picture(str(files[index]), lambda: files[index].open("rb"), image_shape),
        )


def _from_array(path: Path, image_shape: Shape) -> RealImages:
    try:
        pixels = _load_array(path)
    except DAMAGED as error:
        raise UsageError(f"cannot read images from {path}: {error}") from error
    if pixels.ndim == 4 and pixels.shape[3] not in (1, 3, 4) and pixels.shape[1] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 1, 3)
    colours = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] in (1, 3, 4))
    if pixels.dtype != np.uint8 or not colours:
        raise UsageError(
            f"{path} holds {pixels.dtype} {pixels.shape}; expected uint8 [N, H, W] or [N, H, W, C] with C = 1, 3 or 4"
        )
    if not pixels.size:
        raise UsageError(f"no image in {path}: its array has shape {pixels.shape}")
    return RealImages(str(path), len(pixels), lambda index: _to_tensor(pixels[index], image_shape))


def _load_array(path: Path) -> Bytes:
    """The array of an ``.npy`` file, read from the disk as it is needed, or the first one of an ``.npz``."""
    if path.suffix.lower() == ".npy":
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    with zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    if claimed > LARGEST_ARRAY:
        raise ValueError(f"its arrays claim {claimed:,} bytes; save them as .npy, which is read piece by piece")
    with np.load(path, allow_pickle=False) as loaded:
        if not loaded.files:
            raise ValueError("it holds no array")
        return np.asarray(loaded[loaded.files[0]])


class _Zipped:
    """The pictures of a zip, by name; nothing is unpacked to the disk, so names that point elsewhere do no harm."""

    def __init__(self, path: Path, image_shape: Shape) -> None:
        self._path, self._shape = path, image_shape
        self._open = ExitStack()  # as long as the pictures are needed
        try:
            self._archive = self._open.enter_context(open_zip(path))
        except NotOpened as error:
            raise UsageError(
                f"cannot read pictures from {path}: {error.__cause__ or error}; make the zip again"
            ) from error
        members = [member for member in self._archive.infolist() if _is_picture(member)]
        self.members = sorted(members, key=lambda member: member.filename)
        if not members:
            raise UsageError(f"no picture in {path}; looked for {', '.join(sorted(SUFFIXES))}")
        if any(member.flag_bits & 1 for member in members):
            raise UsageError(f"{path} is encrypted; unpack it and pass the folder")

    def read(self, index: int) -> Tensor:
        """The picture at ``index`` in the order of names: float32 [C, H, W]."""
        member = self.members[index]

        def opened() -> io.BytesIO:
            return io.BytesIO(member_bytes(self._archive, member, LARGEST_PICTURE))

        return _read_picture(f"{member.filename} in {self._path}", opened, self._shape)


def _is_picture(member: zipfile.ZipInfo) -> bool:
    """Whether a member's suffix is one of a picture; macOS writes a second file of that name that is none."""
    name = member.filename
    return not member.is_dir() and Path(name).suffix.lower() in SUFFIXES and "__MACOSX/" not in name


def _from_torchvision(source: str, image_shape: Shape) -> RealImages:
    """A dataset of torchvision that is on this machine: ``torchvision:NAME@ROOT``."""
    name, at, root = source.removeprefix(TORCHVISION).partition("@")
    if not (name and at and root):
        raise UsageError(f"--data {source}: expected torchvision:NAME@ROOT, such as torchvision:CIFAR10@datasets/")
    try:
        from torchvision import datasets
    except ImportError as error:
        raise UsageError(f"--data {source} needs the package torchvision (pip install torchvision)") from error
    known = [one for one in datasets.__all__ if "root" in inspect.signature(getattr(datasets, one)).parameters]
    if name not in known:
        raise unknown_name("torchvision dataset", name, known)
    kind = getattr(datasets, name)
    asked = {"download": False} if "download" in inspect.signature(kind).parameters else {}
    if not Path(root).is_dir():
        raise UsageError(f"no folder {root} for torchvision's {name}; nothing is downloaded here")
    try:
        found = kind(root=root, **asked)
        count = len(found)
        first = found[0] if count else None
    except TypeError as error:
        raise UsageError(
            f"torchvision's {name} needs more than its folder ({error}); pass a folder of pictures"
        ) from error
    except DAMAGED as error:
        raise UsageError(
            f"torchvision finds no usable {name} in {root} ({error}); nothing is downloaded here: let torchvision do it once, "
            f'python -c "import torchvision; torchvision.datasets.{name}({root!r}, download=True)"'
        ) from error
    if first is None:
        raise UsageError(f"torchvision's {name} in {root} has no image")
    _picture_of(first, name)
    return RealImages(source, count, lambda index: _fitted(_picture_of(found[index], name), image_shape))


def _picture_of(item: object, name: str) -> Picture:
    """The picture of a dataset's item, which is one or begins with one."""
    from PIL import Image

    picture = item[0] if isinstance(item, tuple) and item else item
    if not isinstance(picture, Image.Image):
        raise UsageError(f"torchvision's {name} gives {type(picture).__name__}; expected pictures")
    return picture


def _read_picture(name: str, opened: Callable[[], IO[bytes]], image_shape: Shape) -> Tensor:
    """The picture called ``name`` whose bytes ``opened`` gives."""
    from PIL import Image

    try:
        with opened() as file, Image.open(file) as picture:
            return _fitted(picture, image_shape)
    except (*DAMAGED, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"cannot read the picture {name}: {error}; remove it or convert it to PNG") from error


def _to_tensor(pixels: Bytes, image_shape: Shape) -> Tensor:
    """An image uint8 [H, W] or [H, W, C] as float32 [C, H, W] of the generator."""
    from PIL import Image

    plain = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _fitted(Image.fromarray(np.ascontiguousarray(plain)), image_shape)


def _fitted(given: Picture, image_shape: Shape) -> Tensor:
    """A picture centre-cropped and resized: float32 [C, H, W] in [-1, 1]."""
    from PIL import Image

    channels, height, width = image_shape
    picture = given.convert("L" if channels == 1 else "RGB")
    scale = max(width / picture.width, height / picture.height)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    array = np.asarray(picture.crop((left, top, left + width, top + height)), dtype=np.float32) / 127.5 - 1.0
    tensor = torch.from_numpy(array.copy())
    return tensor[None] if channels == 1 else tensor.permute(2, 0, 1).contiguous()
