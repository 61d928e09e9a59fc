"""Small valid files of every container, made from seeds: what mutations and truncations start from.

samples(folder)["zip"]                  # the path of a DCGAN's state dict as torch.save writes it
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

LEGACY_PICKLES = 5  # magic number, protocol, system facts, the objects, the keys of their storages


class Bridge(nn.Module):
    """Latent [N, 8, 1, 1] to images [N, 1, 8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(8, 6, 4, 1, 0, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        images: torch.Tensor = self.main(z)
        return images


def network() -> Bridge:
    """A DCGAN generator whose BatchNorm has seen its own statistics."""
    torch.manual_seed(0)
    net = Bridge()
    for _ in range(20):
        net(torch.randn(32, 8, 1, 1))
    return net.eval()


def saved(content: object, **settings: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of ``members``, without times."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar archive of ``members``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]  # the mode is a plain string
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def safetensors(tensors: dict[str, torch.Tensor]) -> bytes:
    """float32 tensors in the format of https://github.com/huggingface/safetensors#format."""
    header: dict[str, object] = {}
    body = b""
    for name, tensor in tensors.items():
        raw = tensor.float().contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    return with_header(json.dumps(header).encode(), body)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    """A safetensors file with this header, whatever it says."""
    return struct.pack("<Q", len(header)) + header + body


class Persistent:
    """Pickles as NVlabs' torch_utils.persistence does: a call with the module's source text and its ``__dict__``."""

    def __init__(self, net: nn.Module, source: str) -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": type(net).__name__,
            "state": {
                **{key: value for key, value in vars(net).items() if key != "_modules"},
                "_modules": {name: Persistent(child, source) for name, child in net.named_children()},
                "_init_args": (),
                "_init_kwargs": {},
            },
        }

    def __reduce__(self) -> tuple[object, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def nvlabs(source: str = "# source\n", protocol: int = 4) -> bytes:
    """A network snapshot whose modules carry ``source``."""

    def _reconstruct_persistent_obj(meta: object) -> object:
        return meta

    package, module = ModuleType("torch_utils"), ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]  # made up here
    package.persistence = module  # type: ignore[attr-defined]  # as above
    sys.modules |= {"torch_utils": package, "torch_utils.persistence": module}
    try:
        return pickle.dumps(
            {"G_ema": Persistent(network(), source), "training_set_kwargs": {"resolution": 8}}, protocol
        )
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]


def onnx() -> bytes:
    """The first fields of an ONNX model: version, producer, an empty graph."""
    return b"\x08\x08\x12\x07pytorch\x1a\x052.0.0\x3a\x0c\x12\x04main\x5a\x04\x0a\x02in\x42\x04\x0a\x00\x10\x11"


def script() -> bytes:
    """A scripted generator."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network()), buffer)  # type: ignore[no-untyped-call]  # torch has no annotation
    return buffer.getvalue()


def exported() -> bytes:
    """A generator as torch.export.save writes it."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(network(), (torch.zeros(2, 8, 1, 1),)), buffer)
    return buffer.getvalue()


def lightning() -> dict[str, object]:
    """A Lightning checkpoint: a class among the keys of its callbacks makes torch's safe reader refuse it."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "1.4.0",
        "state_dict": OrderedDict((f"generator.{k}", v) for k, v in network().state_dict().items()),
        "callbacks": {argparse.ArgumentParser: {"best_model_score": torch.tensor(0.5)}},
        "hyper_parameters": argparse.Namespace(latent_dim=8),
    }


def _strange() -> bytes:
    base = torch.arange(24.0)
    return saved(
        {
            "a": base[2:14].view(3, 4).t(),
            "b": base,
            "half": base.bfloat16(),
            "none": torch.empty(0, 3),
            "scalar": torch.tensor(3),
            "args": argparse.Namespace(nz=8, name="x"),
            "complex": torch.zeros(2, dtype=torch.complex64),
        }
    )


MAKERS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: saved(network().state_dict()),
    "legacy": lambda: saved(network().state_dict(), _use_new_zipfile_serialization=False),
    "nested": lambda: saved({"g_ema": network().state_dict(), "args": argparse.Namespace(nz=8), "epoch": 3}),
    "strange": _strange,
    "module": lambda: saved(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 64), nn.Tanh())),
    "lightning": lambda: saved(lightning()),
    "pickle": lambda: pickle.dumps(dict(network().state_dict()), 4),
    "pickle2": lambda: pickle.dumps(dict(network().state_dict()), 2),
    "numpy": lambda: pickle.dumps({k: v.numpy() for k, v in network().state_dict().items()}, 3),
    "safetensors": lambda: safetensors(dict(network().state_dict())),
    "nvlabs": nvlabs,
    "onnx": onnx,
    "script": script,
    "export": exported,
    "tar": lambda: tarred({"run/G.pth": saved(network().state_dict())}),
    "targz": lambda: tarred({"run/G.pth": saved(network().state_dict())}, "w:gz"),
    "gzip": lambda: gzip.compress(saved(network().state_dict()), mtime=0),
    "zipped": lambda: zipped({"run/G.pth": saved(network().state_dict())}, zipfile.ZIP_DEFLATED),
}
SUFFIXES = {
    "pickle": ".pkl", "pickle2": ".pkl", "numpy": ".pkl", "nvlabs": ".pkl", "safetensors": ".safetensors", "onnx": ".onnx",
    "export": ".pt2", "tar": ".tar", "targz": ".tar.gz", "gzip": ".pt.gz", "zipped": ".zip",
}  # fmt: skip


def samples(folder: Path, kinds: Sequence[str] = tuple(MAKERS)) -> dict[str, Path]:
    """Name -> path of every sample, written into ``folder`` by a process of its own: one that has computed cannot fork well."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "hostile.samples", str(folder), *kinds]
    subprocess.run(command, check=True, env=environment, timeout=100)
    return {name: folder / f"G_{name}{SUFFIXES.get(name, '.pt')}" for name in kinds}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        (Path(sys.argv[1]) / f"G_{name}{SUFFIXES.get(name, '.pt')}").write_bytes(MAKERS[name]())
