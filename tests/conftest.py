"""Fixtures that all tests share: one thread, strict plugins off, the shared folder where there is one."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights that a test leaves to chance are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of strangers' checkpoints and reference numbers, where it exists beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the folder of reference checkpoints is not beside this repository")
    return SHARED
