"""Exported code is the network: it runs without gandissect and gives the same images."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gandissect
from gandissect.errors import UsageError
from gandissect.exporting import write_code
from gandissect.testing import tiny_gan


def exported(path: Path) -> Any:
    """The model that the written file loads."""
    return runpy.run_path(str(path))["load"]()


@pytest.mark.parametrize("kind", ["random", "vector", "conditional"])
def test_written_code_gives_the_same_images(kind: str, tmp_path: Path) -> None:
    gan = tiny_gan(kind)
    write_code(gan, tmp_path / "model.py")
    z = torch.randn(5, *gan.generator.latent.shape)
    labels = (torch.arange(5) % gan.generator.num_classes,) if gan.generator.num_classes else ()
    with torch.no_grad():
        torch.testing.assert_close(exported(tmp_path / "model.py")(z, *labels), gan.generator.module(z, *labels))


@pytest.mark.slow
def test_a_recognised_state_dict_becomes_sequentials_under_its_own_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [
        nn.ConvTranspose2d(16, 12, 4),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 4, 2, 1),
        nn.BatchNorm2d(8),
    ]
    layers += [nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()]
    net = nn.Module()
    net.main = nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers)))
    torch.save(net.state_dict(), tmp_path / "netG.pth")
    gan = gandissect.open(tmp_path / "netG.pth", device="cpu")
    code, weights = write_code(gan, tmp_path / "model.py")
    assert 'self.main = nn.Sequential(OrderedDict([\n            ("0", nn.ConvTranspose2d(16, 12' in code.read_text()
    assert weights.name == "model.safetensors"
    model = exported(code)
    assert list(model.state_dict()) == list(net.state_dict())
    z = torch.randn(3, 16, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(z), gan.generator.module(z))


class PerSample(nn.Module):
    """Looks at the batch's size as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 48)

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.fc(z[i : i + 1]) for i in range(len(z))]).reshape(-1, 3, 4, 4)


def test_a_network_that_counts_its_batch_is_written_for_one_batch_size_and_says_so(tmp_path: Path) -> None:
    gan = gandissect.wrap(PerSample().eval(), latent=(6,))
    code, _ = write_code(gan, tmp_path / "model.py")
    assert "batches of 16" in code.read_text()
    z = torch.randn(16, 6)
    with torch.no_grad():
        torch.testing.assert_close(exported(code)(z), gan.generator.module(z))


@pytest.mark.slow
def test_the_written_file_runs_alone_and_draws(tmp_path: Path) -> None:
    write_code(tiny_gan("random"), tmp_path / "model.py")
    text = (tmp_path / "model.py").read_text()
    assert "import gandissect" not in text
    subprocess.run([sys.executable, "-I", "model.py"], cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


def test_a_target_that_is_no_python_file_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.py"):
        write_code(tiny_gan("random"), tmp_path / "model.txt")
    with pytest.raises(UsageError, match="no folder"):
        write_code(tiny_gan("random"), tmp_path / "missing" / "model.py")
    assert not list(tmp_path.iterdir())
