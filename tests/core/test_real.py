"""Real images from folders, zips, arrays and torchvision: the same pictures from each, and one clear sentence for bad ones."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gandissect.errors import UsageError
from gandissect.real import RealImages

SHAPE = (3, 8, 8)
NAMES = ["b.png", "a.png", "deep/c.png"]


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def zipped(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def pictures() -> dict[str, bytes]:
    return {name: png(image) for name, image in zip(NAMES, pixels(), strict=True)}


def test_a_zip_gives_what_the_folder_gives_that_was_zipped(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, content in pictures().items():
        (folder / name).write_bytes(content)
    images = [RealImages.from_source(source, SHAPE) for source in (folder, zipped(tmp_path / "photos.zip", pictures()))]
    first, second = (one.batch(range(len(one))) for one in images)
    assert torch.equal(first, second)
    assert torch.equal(first[0], torch.from_numpy(pixels()[1]).permute(2, 0, 1).float() / 127.5 - 1)  # a.png


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_an_array_gives_its_images_in_its_order(save: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / ("photos.npy" if save is np.save else "photos.npz")
    save(path, pixels())
    images = RealImages.from_source(path, SHAPE)
    assert torch.equal(images.batch([2, 0]), torch.from_numpy(pixels()[[2, 0]]).permute(0, 3, 1, 2).float() / 127.5 - 1)


def test_channels_may_come_first_or_be_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "first.npy", np.moveaxis(pixels(), 3, 1))
    np.save(tmp_path / "grey.npy", pixels()[..., 0])
    np.save(tmp_path / "one.npy", pixels()[..., :1])
    expected = torch.from_numpy(pixels()).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(RealImages.from_source(tmp_path / "first.npy", SHAPE).batch(range(3)), expected)
    for name in ("grey.npy", "one.npy"):
        assert torch.equal(RealImages.from_source(tmp_path / name, (1, 8, 8)).batch(range(3)), expected[:, :1])


def test_names_in_a_zip_that_point_elsewhere_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = png(pixels()[0])
    hostile = zipped(
        tmp_path / "in" / "x.zip", {"../../evil.png": image, "/tmp/evil.png": image, "C:\\evil.png": image}
    )
    before = sorted(tmp_path.rglob("*"))
    images = RealImages.from_source(hostile, SHAPE)
    assert images.batch(range(3)).shape == (3, 3, 8, 8)
    assert sorted(tmp_path.rglob("*")) == before


def test_twins_that_macos_puts_into_a_zip_are_no_pictures(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {**pictures(), "__MACOSX/._a.png": b"no picture", "read.me": b"text"})
    assert len(RealImages.from_source(path, SHAPE)) == 3


def bomb(path: Path) -> Path:
    return zipped(path / "bomb.zip", {"a.png": bytes(2**27 + 1)})


def wide(path: Path) -> Path:
    """A PNG whose header claims 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    return zipped(path / "wide.zip", {"a.png": content})


def cut_short(path: Path) -> Path:
    return zipped(path / "x.zip", {"deep/a.png": png(np.tile(pixels()[0], (9, 9, 1)))[:-3000]})


def flipped(path: Path) -> Path:
    """A zip with a byte of its only picture changed."""
    content = bytearray(zipped(path / "x.zip", {"a.png": png(pixels()[0])}, zipfile.ZIP_STORED).read_bytes())
    content[60] ^= 255
    (path / "x.zip").write_bytes(content)
    return path / "x.zip"


@pytest.mark.parametrize(
    ("make", "named"), [(bomb, "a.png"), (wide, "a.png"), (cut_short, "deep/a.png"), (flipped, "a.png")]
)
def test_a_bad_picture_in_a_zip_is_named(make: Callable[[Path], Path], named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        RealImages.from_source(make(tmp_path), SHAPE).batch([0])
    assert "\n" not in str(raised.value)
    assert ".zip" in str(raised.value)


def test_a_truncated_picture_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(png(np.tile(pixels()[0], (9, 9, 1)))[:-3000])
    with pytest.raises(UsageError, match=r"half\.png"):
        RealImages.from_source(tmp_path, SHAPE).batch([0])


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


BAD: dict[str, tuple[Callable[[Path], Path | str], str]] = {
    "an empty zip": (lambda p: zipped(p / "x.zip", {}), "no picture"),
    "a zip of text": (lambda p: zipped(p / "x.zip", {"a.txt": b"text"}), "no picture"),
    "half a zip": (
        lambda p: write(p / "x.zip", zipped(p / "y.zip", pictures()).read_bytes()[:-40]),
        "make the zip again",
    ),
    "no zip at all": (lambda p: write(p / "x.zip", b"hello"), "make the zip again"),
    "a zip that is not there": (lambda p: p / "x.zip", "no folder of real images"),
    "a text file": (lambda p: write(p / "x.txt", b"hello"), "torchvision:NAME@ROOT"),
    "an empty folder": (lambda p: p, "no picture"),
    "floats": (lambda p: saved(p / "x.npy", np.zeros((3, 8, 8))), "expected uint8"),
    "five channels": (lambda p: saved(p / "x.npy", np.zeros((3, 8, 8, 5), np.uint8)), "C = 1, 3 or 4"),
    "no images": (lambda p: saved(p / "x.npy", np.zeros((0, 8, 8, 3), np.uint8)), "no image in"),
    "objects": (lambda p: saved(p / "x.npy", np.array([{}], object)), "cannot read images"),
    "half an array": (
        lambda p: write(p / "x.npy", saved(p / "y.npy", pixels()).read_bytes()[:-9]),
        "cannot read images",
    ),
    "an npz of nothing": (lambda p: zipped(p / "x.npz", {}), "no array"),
    "an npz that lies": (lambda p: write(p / "x.npz", b"PK\x03\x04 no"), "cannot read images"),
    "no root": (lambda p: "torchvision:CIFAR10", "torchvision:NAME@ROOT"),
    "a misspelt dataset": (lambda p: f"torchvision:CIFAR1@{p}", "CIFAR10"),
    "a root that is not there": (lambda p: f"torchvision:CIFAR10@{p / 'none'}", "nothing is downloaded"),
    "a dataset that is not there": (lambda p: f"torchvision:CIFAR10@{p}", "download=True"),
    "a dataset that needs more": (lambda p: f"torchvision:CocoDetection@{p}", "needs more than its folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_source_gets_one_sentence(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    if "torchvision:" in str(make(tmp_path)):
        pytest.importorskip("torchvision")
    with pytest.raises(UsageError) as raised:
        RealImages.from_source(make(tmp_path), SHAPE)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_dataset_of_torchvision_gives_its_pictures_in_its_order_and_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    from torchvision.datasets import utils

    monkeypatch.setattr(utils, "_urlretrieve", lambda *_: pytest.fail("it went to the network"))
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28), np.uint8)
    place = tmp_path / "MNIST" / "raw"
    place.mkdir(parents=True)
    for part in ("train", "t10k"):
        (place / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, 5, 28, 28) + images.tobytes())
        (place / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 5) + bytes(5))
    found = RealImages.from_source(f"torchvision:MNIST@{tmp_path}", (1, 28, 28))
    assert len(found) == 5
    assert torch.equal(found.batch([3])[0, 0], torch.from_numpy(images[3]).float() / 127.5 - 1)
