"""Whole pickled modules: closed without trust, told apart by running them with it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from gandissect_adapters.pickled import PickledAdapter
from small_gans import Critic, Dcgan, trained
from torch import nn

from gandissect.adapter import Hints, Networks
from gandissect.errors import NotOpened, UnsafeCheckpoint
from gandissect.files.peek import peek

Z = torch.randn(3, 12, 1, 1, generator=torch.Generator().manual_seed(3))
TRUST = Hints(trust=True)


class Pair:
    """An object that is no module but holds two."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        self.critic, self.maker = first, second


class Whole(nn.Module):
    """A module that holds both networks."""

    def __init__(self, generator: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.critic, self.generator = critic, generator

    def forward(self, _: object) -> None:
        raise NotImplementedError


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def opened(held: object, path: Path) -> Networks:
    torch.save(held, path)
    return PickledAdapter().open(peek(path), TRUST)


def test_it_offers_itself_for_modules_and_not_for_state_dicts(tmp_path: Path) -> None:
    generator = trained(Dcgan())
    for held, fits in ((generator, True), ({"G": generator}, True), (generator.state_dict(), False)):
        torch.save(held, tmp_path / "gan.pt")
        assert (PickledAdapter().match(peek(tmp_path / "gan.pt")) is not None) is fits


def test_without_trust_the_classes_are_named_and_nothing_runs(tmp_path: Path) -> None:
    torch.save({"G": trained(Dcgan()), "extra": Harmful(tmp_path / "written")}, tmp_path / "gan.pt")
    with pytest.raises(UnsafeCheckpoint, match=r"small_gans\.Dcgan.*pass --trust.*state_dict"):
        PickledAdapter().open(peek(tmp_path / "gan.pt"), Hints())
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda g, d: {"netD": d, "netG": g},
        lambda g, d: {"a": d, "b": g},
        lambda g, d: [d, g],
        Whole,
        lambda g, d: Pair(d, g),
    ],
    ids=["named", "unnamed", "list", "one module", "attributes"],
)
def test_generator_and_discriminator_are_told_apart_by_running(wrap: object, tmp_path: Path) -> None:
    generator, critic = trained(Dcgan()), trained(Critic())
    networks = opened(wrap(generator, critic), tmp_path / "gan.pt")
    torch.testing.assert_close(networks.generator(Z), generator(Z))
    torch.testing.assert_close(networks.discriminator(generator(Z)), critic(generator(Z)))
    assert networks.latent.shape == (12, 1, 1)


def test_a_generator_alone_opens_without_a_discriminator(tmp_path: Path) -> None:
    networks = opened(trained(Dcgan()), tmp_path / "gan.pt")
    assert networks.discriminator is None and networks.generator is not None


def test_a_discriminator_in_a_file_of_its_own_opens_beside_a_generator(tmp_path: Path) -> None:
    critic = trained(Critic())
    torch.save(critic, tmp_path / "d.pt")
    found = PickledAdapter().open_discriminator(peek(tmp_path / "d.pt"), TRUST, Networks(), (3, 16, 16))
    assert type(found.discriminator).__name__ == "Critic"
    with pytest.raises(NotOpened, match="makes images"):
        PickledAdapter().open(peek(tmp_path / "d.pt"), TRUST)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("absent_gan_package")
    package.Net = type("Net", (nn.Linear,), {"__module__": "absent_gan_package"})
    monkeypatch.setitem(sys.modules, "absent_gan_package", package)
    torch.save(package.Net(2, 2), tmp_path / "gan.pt")
    monkeypatch.delitem(sys.modules, "absent_gan_package")
    with pytest.raises(NotOpened, match="needs the package 'absent_gan_package'"):
        PickledAdapter().open(peek(tmp_path / "gan.pt"), TRUST)


def test_a_stranger_checkpoint_of_another_package_names_it(shared: Path) -> None:
    files = sorted((shared / "checkpoints" / "steganogan-basic").glob("*.*"))
    weights = [path for path in files if path.suffix in (".steg", ".pt", ".pth")]
    if not weights:
        pytest.skip("that checkpoint is not there")
    with pytest.raises(UnsafeCheckpoint, match="steganogan"):
        PickledAdapter().open(peek(weights[0]), Hints())
    with pytest.raises(NotOpened, match="needs the package 'steganogan'"):
        PickledAdapter().open(peek(weights[0]), TRUST)
