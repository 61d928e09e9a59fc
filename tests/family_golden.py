"""Numbers that the original implementations gave, and how far a rebuilt network is from them.

case = Golden.of(shared, "mimicry_sngan_32")
gan = case.open("netG.pth", discriminator="netD.pth")
case.equal(gan.generator.module(case["z"]), "image")
case.layers_equal(gan.generator.module, prefix="g:", run=lambda: gan.generator.module(case["z"]))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        return gandissect.open(self.folder / file, discriminator=critic, assume=options, device="cpu")

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
