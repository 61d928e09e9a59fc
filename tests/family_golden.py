"""Numbers that the original implementations gave, and how far a rebuilt network is from them.

case = Golden.of(shared, "mimicry_sngan_32")
gan = case.open("netG.pth", discriminator="netD.pth")
case.equal(gan.generator.module(case["z"]), "image")
case.layers_equal(gan.generator.module, prefix="g:", run=lambda: gan.generator.module(case["z"]))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gandissect
from gandissect.gan import Gan
from gandissect.tap import tap

TOLERANCE = 1e-4
_MOVED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


@dataclass(frozen=True)
class Golden:
    """One folder: its checkpoints, its recorded arrays and its facts."""

    folder: Path
    arrays: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    @staticmethod
    def of(shared: Path, name: str) -> Golden:
        """The folder called ``name``; the test is skipped where it is not there."""
        folder = shared / "golden" / "families" / name
        if not folder.is_dir():
            pytest.skip(f"golden/families/{name} is not in the shared folder")
        with np.load(folder / "io.npz") as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
        return Golden(folder, arrays, json.loads((folder / "meta.json").read_text()))

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    def open(self, file: str, discriminator: str | None = None, **assume: str) -> Gan:
        """The folder's checkpoint as a user would open it."""
        critic = self.folder / discriminator if discriminator else None
        options = {name.replace("_", "-"): value for name, value in assume.items()}
        gan = gandissect.open(self.folder / file, discriminator=critic, assume=options, device="cpu")
        strays = strays_of(gan)
        assert not strays, f"module.to(device) leaves behind {strays}"
        return gan

    def equal(self, actual: Tensor, key: str, what: str = "") -> None:
        """Assert that ``actual`` is the recorded array to 1e-4 of the recorded values' root mean square."""
        expected = self.arrays[key]
        assert actual.shape == expected.shape, f"{what or key}: {tuple(actual.shape)} for {tuple(expected.shape)}"
        scale = float(expected.float().square().mean().sqrt()) or 1.0
        error = float((actual - expected).abs().max()) / scale
        assert error <= TOLERANCE, f"{what or key} is off by {error:.2g}"

    def layers_equal(self, net: nn.Module, prefix: str, run: Callable[[], object]) -> int:
        """Assert that every recorded layer output (``prefix`` + name of a submodule) comes out; how many there were."""
        names = [key.removeprefix(prefix) for key in self.arrays if key.startswith(prefix)]
        with torch.no_grad(), tap(net, names) as seen:
            run()
        for name in names:
            self.equal(seen[name], prefix + name)
        return len(names)


def strays_of(gan: Gan) -> list[str]:
    """Tensors of an opened GAN that moving its modules would not move: attributes that are no buffers, and what spaces close over."""
    networks = [gan.generator.module, *([gan.discriminator.module] if gan.discriminator else [])]
    found = []
    for net in networks:
        for path, module in net.named_modules():
            own = {key: value for key, value in vars(module).items() if key not in _MOVED}
            found += [f"{path}.{key}" for key, value in own.items() if _holds_tensor(value)]
    for space in gan.generator.inner:
        cells = [
            cell.cell_contents
            for step in (space.enter, space.leave)
            for cell in getattr(step, "__closure__", None) or ()
        ]
        found += [f"a tensor in space {space.name}" for cell in cells if _holds_tensor(cell)]
    return found


def _holds_tensor(value: object) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if is_dataclass(value) and not isinstance(value, type):
        value = list(vars(value).values())
    if isinstance(value, (list, tuple)):
        return any(_holds_tensor(part) for part in value)
    return isinstance(value, Tensor)
