"""Fixtures that all tests share: one thread, strict plugins off, the shared folder where there is one."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of strangers' checkpoints and reference numbers, where it exists beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the folder of reference checkpoints is not beside this repository")
    return SHARED
