"""peek() tells what a file is and runs nothing of it."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect.files.ghost import ghost_name, read_pickle_bytes
from gandissect.files.opcodes import PickleRefused
from gandissect.files.peek import TensorSpec, peek
from gandissect.files.reading import read_tensors
from gandissect.files.records import PickledModule


class Attack:
    """An object whose pickle runs a shell command when loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(main=nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8))))


def save(path: Path, content: object, **settings: object) -> Path:
    torch.save(content, path, **settings)
    return path


@pytest.mark.parametrize(("new", "container"), [(True, "torch-zip"), (False, "torch-legacy")])
def test_a_state_dict_shows_names_shapes_and_parameterless_modules(
    net: nn.Module, tmp_path: Path, new: bool, container: str
) -> None:
    seen = peek(save(tmp_path / "netG.pt", net.state_dict(), _use_new_zipfile_serialization=new))
    assert seen.container == container
    assert list(seen.tensors) == list(net.state_dict())
    assert seen.tensors["main.0.weight"] == TensorSpec((8, 4), "float32")
    assert seen.tensors["main.2.num_batches_tracked"] == TensorSpec((), "int64")
    assert "main.1" in seen.modules
    assert seen.globals == ()


def test_nested_names_are_flattened_and_scalars_kept(net: nn.Module, tmp_path: Path) -> None:
    seen = peek(save(tmp_path / "a.pt", {"g_ema": net.state_dict(), "nz": 100, "args": argparse.Namespace(lr=0.1)}))
    assert "g_ema.main.0.weight" in seen.tensors
    assert "g_ema.main.1" in seen.modules
    assert seen.metadata["nz"] == "100"
    assert seen.metadata["args.lr"] == "0.1"
    assert seen.globals == ("argparse.Namespace",)


def test_a_pickled_module_names_its_class_and_its_tensors(net: nn.Module, tmp_path: Path) -> None:
    seen = peek(save(tmp_path / "whole.pt", net))
    assert seen.metadata["root"] == "torch.nn.modules.container.Sequential"
    assert seen.tensors["main.0.weight"].shape == (8, 4)


def test_torchscript_and_export_are_told_apart(net: nn.Module, tmp_path: Path) -> None:
    script = tmp_path / "s.pt"
    torch.jit.script(net.eval()).save(str(script))
    assert peek(script).container == "torchscript"
    exported = tmp_path / "e.pt2"
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(2, 4),)), exported)
    assert peek(exported).container == "export"
    assert peek(exported).tensors["main.0.weight"].shape == (8, 4)


def test_safetensors_come_in_natural_order(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "g.safetensors"
    save_file({"main.12.weight": torch.zeros(2), "main.2.weight": torch.ones(3)}, path)
    assert list(peek(path).tensors) == ["main.2.weight", "main.12.weight"]
    assert list(read_tensors(path)) == ["main.2.weight", "main.12.weight"]


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    assert len(peek(save(tmp_path / "a.pt", {"w": torch.zeros(2)})).sha256) == 64


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_attack_pickle_does_nothing(tmp_path: Path, protocol: int) -> None:
    target, path = tmp_path / "owned", tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"w": Attack(target)}, protocol=protocol))
    assert any(name.endswith(".system") for name in peek(path).globals)
    read_tensors(path)
    assert not target.exists()


def test_an_attack_in_a_torch_file_does_nothing_and_leaves_the_tensors(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    path = save(tmp_path / "a.pt", {"w": torch.arange(3.0), "bad": Attack(target)})
    assert torch.equal(read_tensors(path)["w"], torch.arange(3.0))
    assert not target.exists()


def test_a_pickled_module_is_read_as_its_state_dict_and_not_built(net: nn.Module, tmp_path: Path) -> None:
    read = read_tensors(save(tmp_path / "whole.pt", net))
    assert isinstance(read, PickledModule)
    assert list(read) == list(net.state_dict())
    assert all(torch.equal(cast("Tensor", read[name]), tensor) for name, tensor in net.state_dict().items())
    assert read.records["main.0"].class_name.startswith("torch.nn.modules.")


@pytest.mark.parametrize("new", [True, False])
def test_the_ghost_reader_gives_what_torch_gives(net: nn.Module, tmp_path: Path, new: bool) -> None:
    half = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4).t()[1:]
    content = {"net": net.state_dict(), "view": half, "args": argparse.Namespace(nz=7)}
    read = read_tensors(save(tmp_path / "a.pt", content, _use_new_zipfile_serialization=new))
    assert torch.equal(read["view"], half)
    assert read["view"].dtype == torch.bfloat16
    assert read["args"]["nz"] == 7
    assert all(torch.equal(read["net"][name], tensor) for name, tensor in net.state_dict().items())
    assert "main.1" in read["net"]._metadata


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"import torch\nprint('hello')\n", "text file"),
        (b"\x89PNG\r\n\x1a\n....", "PNG image"),
        (b"\x89HDF\r\n\x1a\n....", "HDF5"),
        (b"\x00\x01\x02\x03\x04\x05", "no known kind"),
        (b"\x80\x02}q\x00(X\x05\x00", "truncated"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes(content)
    with pytest.raises(NotOpened, match=sentence) as caught:
        peek(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("new", [True, False])
def test_a_truncated_file_is_refused_in_a_sentence(net: nn.Module, tmp_path: Path, new: bool) -> None:
    path = save(tmp_path / "a.pt", net.state_dict(), _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(NotOpened, match=r"truncated|damaged"):
        peek(path)


def test_a_folder_of_many_and_a_missing_file_say_what_to_pass(tmp_path: Path) -> None:
    save(tmp_path / "netG.pt", {"w": torch.zeros(1)})
    assert peek(tmp_path).path == tmp_path / "netG.pt"
    save(tmp_path / "netD.pt", {"w": torch.zeros(1)})
    with pytest.raises(NotOpened, match=r"2 checkpoints \(netD\.pt, netG\.pt\)"):
        peek(tmp_path)
    with pytest.raises(NotOpened, match=r"did you mean .*netG\.pt"):
        peek(tmp_path / "netG")


def test_absurd_pickles_are_refused_before_they_cost_memory() -> None:
    with pytest.raises(PickleRefused, match="nested"):
        read_pickle_bytes(b"\x80\x02)" + b"\x85" * 100_000 + b".")
    with pytest.raises(PickleRefused, match="memo"):
        read_pickle_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")


def test_a_list_that_holds_itself_ends(tmp_path: Path) -> None:
    loop: list[object] = [torch.zeros(2)]
    loop.append(loop)
    assert len(peek(save(tmp_path / "loop.pt", {"loop": loop})).tensors) == 1


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"w": torch.zeros(4), "args": argparse.Namespace()})
    raw = path.read_bytes()
    shape = b"K\x00K\x04\x85"  # offset 0, size (4,)
    assert raw.count(shape) == 1
    path.write_bytes(raw.replace(shape, b"K\x00K\x7f\x85"))
    with pytest.raises(NotOpened, match="damaged"):
        read_tensors(path)


def test_unknown_classes_become_ghosts() -> None:
    ghost = read_pickle_bytes(pickle.dumps(argparse.Namespace(lr=1)))
    assert ghost_name(ghost) == "argparse.Namespace"
