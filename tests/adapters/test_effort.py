"""A search that finds nothing ends by itself and says how far it came."""

from pathlib import Path

import pytest
import torch
from gandissect_adapters.recognise.effort import Effort, Exhausted
from gandissect_adapters.statedict import StateDictAdapter
from torch import Tensor, nn

from gandissect.adapter import Hints
from gandissect.errors import NotOpened
from gandissect.files.peek import peek


class Summing(nn.Module):
    """z [N, 16] to images [N, 3, 32, 32] through residual sums that no shape shows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16 * 16)
        for stage in (1, 2, 3):
            self.add_module(f"one{stage}", nn.Conv2d(16, 16, 3, padding=1))
            self.add_module(f"bn{stage}", nn.BatchNorm2d(16))
            self.add_module(f"two{stage}", nn.Conv2d(16, 16, 3, padding=1))
            self.add_module(f"last{stage}", nn.BatchNorm2d(16))
        self.out = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z).view(-1, 16, 4, 4)
        layer = self.get_submodule
        for stage in (1, 2, 3):
            x = nn.functional.interpolate(x, scale_factor=2.0)
            y = layer(f"one{stage}")(x.relu())
            y = layer(f"two{stage}")(layer(f"bn{stage}")(y + 3.0 * x).relu())
            x = layer(f"last{stage}")(4.0 * y - 3.0 * x.abs())
        images: Tensor = torch.tanh(self.out(x))
        return images


def summing(path: Path) -> Path:
    torch.manual_seed(0)
    net = Summing().train()
    with torch.no_grad():
        for _ in range(30):
            net(torch.randn(64, 16))
    torch.save(net.state_dict(), path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(NotOpened) as caught:
        StateDictAdapter().open(peek(path), Hints())
    return str(caught.value)


def test_a_budget_ends_a_search_after_enough_hypotheses() -> None:
    effort = Effort(budget=1e6)
    with pytest.raises(Exhausted):
        for _ in range(2000):
            effort.spend(0.0)
    assert effort.hypotheses == 1501


def test_the_hypothesis_that_came_furthest_is_reported() -> None:
    effort = Effort()
    for seen in ((0.01,), (0.01, 0.9), (0.01, 0.7), (0.2,), (0.01,)):
        effort.saw(("bn1", "bn2", "bn3"), seen)
    assert "fits the first 1 of 3 BatchNorms and misses at 'bn2' (mismatch 0.7," in effort.report()


@pytest.mark.slow
def test_sums_that_no_shape_shows_are_refused_in_one_sentence(tmp_path: Path) -> None:
    said = refused(summing(tmp_path / "netG.pth"))
    assert "ways of running its layers" in said
    assert said.count("pass its class with --generator") == 1
    assert "\n" not in said


def test_sizes_that_do_not_fit_are_refused_with_one_thing_to_type(tmp_path: Path) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(8, 3, 3), nn.Tanh())
    torch.save(net.state_dict(), tmp_path / "netG.pth")
    said = refused(tmp_path / "netG.pth")
    assert "no strides and paddings give a usual image size" in said
    assert said.count("pass its class with --generator") == 1
