"""Checks find the faults that are planted, and none in a sound network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import gandissect
from gandissect.gan import InnerSpace
from gandissect.probing.verifying import Check, gaussian_kl, verify
from gandissect.testing import tiny_gan


def check(net: nn.Module, name: str) -> Check:
    gan = gandissect.wrap(net.eval(), latent=(8,))
    return next(found for found in verify(gan) if found.name == name)


class Normed(nn.Module):
    """A linear layer, a norm whose statistics can be true or not, and an image."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.out = nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Linear(32, 48)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.out(torch.relu(self.norm(self.fc(z))))).reshape(-1, 3, 4, 4)

    def trained(self) -> Normed:
        self.norm.momentum = None
        self.train()
        with torch.no_grad():
            for _ in range(50):
                self(torch.randn(256, 8))
        return self.eval()


def test_a_sound_network_passes_every_check() -> None:
    assert {found.verdict for found in verify(tiny_gan("random"))} <= {"ok", "not applicable"}


def test_statistics_of_training_fit_and_those_of_another_network_do_not() -> None:
    torch.manual_seed(0)
    net = Normed().trained()
    good = check(net, "BatchNorm statistics")
    net.norm.running_var *= 40
    net.norm.running_mean += 3
    bad = check(net, "BatchNorm statistics")
    assert good.verdict == "ok"
    assert bad.verdict in ("doubtful", "wrong")
    assert bad.value is not None and good.value is not None and bad.value > 20 * good.value


def test_the_divergence_of_two_gaussians_is_the_textbook_one() -> None:
    mean, var = torch.tensor([0.0]), torch.tensor([1.0])
    assert gaussian_kl((mean, var), (mean, var)) == 0
    expected = 0.5 * (torch.log(torch.tensor(4.0)) + (1 + 4) / 4 - 1)
    assert abs(gaussian_kl((mean, var), (mean + 2, var * 4)) - float(expected)) < 1e-4


class Idle(Normed):
    """Has a layer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(3, 3)


def test_a_weight_that_nothing_reads_is_named() -> None:
    found = check(Idle().trained(), "all weights used")
    assert found.verdict == "doubtful"
    assert "never.weight" in found.says


class Coupled(Normed):
    """Lets samples of a batch change each other."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) + 0.1 * super().forward(z).mean(0, keepdim=True)


def test_samples_that_change_each_other_are_found() -> None:
    assert check(Coupled().trained(), "independent of the batch").verdict == "wrong"


class Collapsed(Normed):
    """Makes one image."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z * 0)


def test_a_generator_of_one_image_is_found() -> None:
    assert check(Collapsed().trained(), "samples differ").verdict == "doubtful"


def test_an_inner_space_that_does_not_lead_to_the_same_image_is_found() -> None:
    gan = gandissect.wrap(Normed().trained(), latent=(8,))
    module = gan.generator.module
    true = InnerSpace("w", (8,), enter=lambda z, _y: z * 2, leave=lambda w, _y: module(w / 2))
    false = InnerSpace("v", (8,), enter=lambda z, _y: z * 2, leave=lambda w, _y: module(w))
    gan.generator.inner = (true, false)
    verdicts = {found.name: found.verdict for found in verify(gan)}
    assert (verdicts["space w"], verdicts["space v"]) == ("ok", "wrong")
