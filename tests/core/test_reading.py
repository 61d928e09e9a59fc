"""read_tensors() gives what torch gives, out of whatever the checkpoint is wrapped in."""

import argparse
import gzip
import io
import json
import pickle
import random
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gandissect
from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.files.peek import peek
from gandissect.files.reading import read_tensors

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
          torch.uint8, torch.bool, torch.complex64, torch.complex128]  # fmt: skip


def same(expected: object, actual: object, where: str = "") -> None:
    """Assert equal values, dtypes, shapes, strides, order of keys and kinds of containers."""
    if isinstance(expected, Tensor):
        assert isinstance(actual, Tensor), where
        assert (expected.dtype, expected.shape, expected.stride()) == (actual.dtype, actual.shape, actual.stride()), (
            where
        )
        assert (
            expected.detach()
            .contiguous()
            .reshape(-1)
            .view(torch.uint8)
            .equal(actual.contiguous().reshape(-1).view(torch.uint8))
        ), where
    elif isinstance(expected, dict):
        assert type(actual) is type(expected), where
        assert list(expected) == [key for key in cast("dict[object, object]", actual) if key in expected], where
        assert getattr(expected, "_metadata", None) == getattr(actual, "_metadata", None), where
        for key, value in expected.items():
            same(value, cast("dict[object, object]", actual)[key], f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert type(actual) in (type(expected), tuple), where
        assert len(expected) == len(cast("list[object]", actual)), where
        for index, (one, other) in enumerate(zip(expected, cast("list[object]", actual), strict=True)):
            same(one, other, f"{where}.{index}")
    else:
        assert expected == actual, where


def random_tensor(chance: random.Random, base: Tensor) -> Tensor:
    kind = chance.randrange(8)
    dtype = chance.choice(DTYPES)
    shape = [chance.randrange(1, 5) for _ in range(chance.randrange(5))]
    if kind == 0:
        return base[chance.randrange(10) : 20 + chance.randrange(10)]
    if kind == 1:
        return base[: 4 * 5].view(4, 5).t()[1:, ::2]
    if kind == 2:
        return torch.empty(*shape, 0, dtype=dtype)
    if kind == 3:
        return (torch.randn(3, 1) * 4).expand(3, 5)
    if kind == 4:
        return nn.Parameter(torch.randn(shape))
    return (torch.randn(shape) * 4).to(dtype)


def random_content(chance: random.Random, depth: int = 0) -> dict[object, object]:
    base = torch.arange(40.0)
    made: dict[object, object] = OrderedDict() if chance.random() < 0.5 else {}
    for index in range(chance.randrange(1, 7)):
        value: object = random_tensor(chance, base)
        if depth < 3 and chance.random() < 0.3:
            value = random_content(chance, depth + 1)
        elif chance.random() < 0.2:
            value = chance.choice(
                [None, 3, -(2**40), 2.5, True, "text", (1, torch.ones(2)), [torch.zeros(1), "x"], torch.Size([2, 3])]
            )
        made[index if chance.random() < 0.1 else f"key.{index}"] = value
    if isinstance(made, OrderedDict):
        made._metadata = OrderedDict({"": {"version": 1}, "main.1": {"version": 2}})  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("new", [True, False])
def test_any_content_is_read_as_torch_reads_it(tmp_path: Path, seed: int, new: bool) -> None:
    torch.manual_seed(seed)
    path = tmp_path / "a.pt"
    torch.save(random_content(random.Random(seed)), path, _use_new_zipfile_serialization=new)
    expected = torch.load(path, weights_only=True)
    same(expected, read_tensors(path))
    assert peek(path).metadata["root"] == type(expected).__name__


def test_dtypes_newer_than_typed_storages_are_read(tmp_path: Path) -> None:
    content = {"a": torch.randn(4).to(torch.float8_e4m3fn), "b": torch.arange(3).to(torch.uint16)}
    torch.save(content, tmp_path / "a.pt")
    same(content, read_tensors(tmp_path / "a.pt"))


@pytest.mark.slow
def test_every_stored_checkpoint_is_read_as_torch_reads_it(shared: Path) -> None:
    files = [
        p
        for d in ("checkpoints", "golden/families")
        for p in sorted((shared / d).rglob("*"))
        if p.stat().st_size < 2**22
    ]
    compared = 0
    for path in files:
        if path.suffix not in (".pt", ".pth", ".ckpt", ".pkl", ".model", ".tar", ".bin"):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                expected = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # classes that torch does not know
            continue
        if isinstance(expected, dict):
            same(expected, read_tensors(path), path.name)
            compared += 1
    assert compared > 50


def test_views_of_one_storage_share_memory(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    torch.save({"a": base[:5], "b": base}, tmp_path / "a.pt")
    read = cast("dict[str, Tensor]", read_tensors(tmp_path / "a.pt"))
    read["b"][0] = 7.0
    assert read["a"][0] == 7.0
    assert cast("Tensor", read_tensors(tmp_path / "a.pt")["b"])[0] == 0.0, "the file was written to"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_plain_pickle_of_tensors_is_read_at_any_protocol(tmp_path: Path, protocol: int) -> None:
    content = {
        "a": torch.arange(6.0).view(2, 3).t(),
        "big": torch.randn(5000),
        "n": 3,
        "args": argparse.Namespace(nz=8),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    read = read_tensors(tmp_path / "a.pkl")
    same({key: content[key] for key in ("a", "big", "n")}, read)
    assert read["args"] == {"nz": 8}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_are_read_as_tensors(tmp_path: Path, protocol: int) -> None:
    arrays = {
        str(i): np.arange(i, i + 2000, dtype=kind).reshape(40, 50) for i, kind in enumerate(("<f4", "<f8", "<i8", "u1"))
    }
    arrays["columns"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol))
    read = read_tensors(tmp_path / "a.pkl")
    assert all(np.array_equal(cast("Tensor", read[name]).numpy(), array) for name, array in arrays.items())
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.arange(4, dtype=">f4")}, protocol))
    with pytest.raises(NotOpened, match="little-endian"):
        read_tensors(tmp_path / "a.pkl")


def test_quantised_and_sparse_tensors_are_refused(tmp_path: Path) -> None:
    for tensor, word in (
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
        (torch.eye(2).to_sparse(), "sparse"),
    ):
        torch.save({"w": tensor}, tmp_path / "a.pt")
        with pytest.raises(NotOpened, match=word):
            read_tensors(tmp_path / "a.pt")


def test_a_lightning_checkpoint_with_a_class_among_its_keys_is_read(tmp_path: Path) -> None:
    content = {
        "pytorch-lightning_version": "1.4.0",
        "state_dict": OrderedDict({"generator.fc.weight": torch.ones(2, 2)}),
        "hyper_parameters": argparse.Namespace(latent_dim=8),
        "callbacks": {argparse.ArgumentParser: {"best": torch.tensor(0.5)}},
    }
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "last.ckpt", weights_only=True)
    read = read_tensors(tmp_path / "last.ckpt")
    same(content["state_dict"], read["state_dict"])
    assert read["hyper_parameters"] == {"latent_dim": 8}
    assert read["callbacks"] == {"argparse.ArgumentParser": {"best": torch.tensor(0.5)}}


def test_a_bare_object_is_unsafe(tmp_path: Path) -> None:
    torch.save(argparse.Namespace(lr=1), tmp_path / "a.pt")
    with pytest.raises(UnsafeCheckpoint, match="state_dict"):
        read_tensors(tmp_path / "a.pt")


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(3.0)}, buffer)
    return buffer.getvalue()


def wrapped(folder: Path, form: str, members: dict[str, bytes]) -> Path:
    path = folder / f"run.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if form.endswith("gz") else "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_the_checkpoint_in_an_archive_is_read_with_the_settings_beside_it(
    tmp_path: Path, weights: bytes, form: str
) -> None:
    members = {"run/README.md": b"text", "run/config.json": b'{"nz": 8}', "run/netG.pth": weights}
    path = wrapped(tmp_path, form, members)
    seen = peek(path)
    assert (seen.path.name, seen.container, seen.size) == ("netG.pth", "torch-zip", path.stat().st_size)
    assert list(seen.tensors) == ["w"]
    read = read_tensors(seen.path, seen.container)
    assert read["config"] == {"nz": 8}
    same(torch.arange(3.0), read["w"])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_several_checkpoints_in_an_archive_are_listed_and_one_can_be_said(
    tmp_path: Path, weights: bytes, form: str
) -> None:
    path = wrapped(tmp_path, form, {"netG.pth": weights, "a/netD.pth": weights})
    with pytest.raises(NotOpened, match=r"netG\.pth, a/netD\.pth.*::netG\.pth"):
        peek(path)
    assert list(peek(f"{path}::a/netD.pth").tensors) == ["w"]
    with pytest.raises(NotOpened, match=r"holds no 'netE\.pth'"):
        peek(f"{path}::netE.pth")
    with pytest.raises(NotOpened, match="no archive"):
        (tmp_path / "G.pt").write_bytes(weights)
        peek(f"{tmp_path / 'G.pt'}::a")


def test_a_member_of_an_archive_opens_as_a_network(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 64), nn.Tanh()).state_dict(), buffer)
    path = wrapped(tmp_path, "zip", {"netG.pth": buffer.getvalue(), "notes.txt": b""})
    gan = gandissect.open(f"{path}::netG.pth", device="cpu")
    assert gan.generator.image_shape == (1, 8, 8)
    assert gan.opening.sha256


def test_gzip_and_torch_files_called_tar_are_read(tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "G.pt.gz").write_bytes(gzip.compress(weights))
    (tmp_path / "G.pth.tar").write_bytes(weights)
    assert list(read_tensors(tmp_path / "G.pt.gz")) == list(read_tensors(tmp_path / "G.pth.tar")) == ["w"]


def test_a_folder_with_one_checkpoint_is_read_with_its_config(tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(weights)
    (tmp_path / "optimizer.bin").write_bytes(weights)
    (tmp_path / "config.json").write_text('{"sample_size": 32}')
    assert peek(tmp_path).path == tmp_path / "diffusion_pytorch_model.bin"
    assert read_tensors(tmp_path)["config"] == {"sample_size": 32}


def test_the_parts_of_a_split_checkpoint_are_read_together(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    parts = {
        "model-1.safetensors": {"a.10": torch.ones(2), "a.2": torch.zeros(3)},
        "model-2.safetensors": {"b": torch.ones(1)},
    }
    for name, tensors in parts.items():
        save_file(tensors, tmp_path / name)
    index = {"weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    seen = peek(tmp_path)
    assert (
        list(seen.tensors)
        == list(read_tensors(tmp_path))
        == list(read_tensors(seen.path, seen.container))
        == ["a.2", "a.10", "b"]
    )
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(NotOpened, match=r"model-2\.safetensors"):
        peek(tmp_path)


def test_an_own_config_key_goes_before_the_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"nz": 1}')
    (tmp_path / "netG.config.json").write_text('{"nz": 2}')
    torch.save({"w": torch.ones(2)}, tmp_path / "netG.pt")
    torch.save({"w": torch.ones(2), "config": {"nz": 3}}, tmp_path / "other.pt")
    assert read_tensors(tmp_path / "netG.pt")["config"] == {"nz": 2}
    assert read_tensors(tmp_path / "other.pt")["config"] == {"nz": 3}
    (tmp_path / "netG.config.json").write_text("[1, 2")
    assert read_tensors(tmp_path / "netG.pt")["config"] == {"nz": 1}


def test_settings_beside_a_file_that_are_no_mapping_are_left_alone(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "netG.pt")
    assert "config" not in read_tensors(tmp_path / "netG.pt")
    (tmp_path / "config.json").write_text("[1, 2")
    assert "config" not in read_tensors(tmp_path / "netG.pt")
    (tmp_path / ".config.json").write_text('{"nz": 4}')
    assert read_tensors(tmp_path / "netG.pt")["config"] == {"nz": 4}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"404: Not Found", "refusal"),
    ],
)
def test_what_a_server_sent_instead_is_said(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "G.pt").write_bytes(content)
    with pytest.raises(NotOpened, match=sentence):
        peek(tmp_path / "G.pt")


def test_long_lists_of_losses_are_kept(tmp_path: Path) -> None:
    losses = [0.5, 1.5] * 150_000
    torch.save({"w": torch.ones(2), "losses": losses}, tmp_path / "a.pt")
    assert list(peek(tmp_path / "a.pt").tensors) == ["w"]
    assert read_tensors(tmp_path / "a.pt")["losses"] == losses
