"""Networks from the user's code: weights must fit, and every mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gandissect_adapters.usercode import UserCodeAdapter, build
from small_gans import Conditional, Critic, Dcgan, trained
from torch import nn

import gandissect
from gandissect.adapter import Hints, Networks
from gandissect.errors import GandissectError, NotOpened
from gandissect.files.peek import peek

Z = torch.randn(3, 12, 1, 1, generator=torch.Generator().manual_seed(3))
CODE = """
import torch
from torch import nn
from neighbour import WIDTH

class Generator(nn.Module):
    def __init__(self, nz, width=WIDTH):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, width, 4, 1, 0, bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
            nn.ConvTranspose2d(width, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())
    def forward(self, z):
        return self.main(z)

def broken():
    raise OSError("no data here")

def number():
    return 3
"""


@pytest.fixture
def code(tmp_path: Path) -> str:
    (tmp_path / "neighbour.py").write_text("WIDTH = 16\n")
    (tmp_path / "models.py").write_text(CODE)
    return str(tmp_path / "models.py")


@pytest.fixture(scope="module")
def eager() -> nn.Module:
    return trained(Dcgan())


def opened(path: Path, generator: str, **hints: object) -> Networks:
    return UserCodeAdapter().open(peek(path), Hints(generator=generator, **hints))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"netG": state, "epoch": 3},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: (
            {f"generator.{key}": value for key, value in state.items()} | {"discriminator.fc.weight": torch.ones(2, 2)}
        ),
        lambda state: {key.removeprefix("main."): value for key, value in state.items()},
        lambda state: {"G": {key: value * 0 for key, value in state.items()}, "g_ema": state},
    ],
    ids=["bare", "dict", "module prefix", "both in one dict", "without the class's prefix", "average preferred"],
)
def test_weights_are_found_however_they_are_nested(wrap: object, eager: nn.Module, code: str, tmp_path: Path) -> None:
    torch.save(wrap(eager.state_dict()), tmp_path / "gan.pt")
    networks = opened(tmp_path / "gan.pt", f"{code}:Generator", generator_settings={"nz": 12})
    torch.testing.assert_close(networks.generator(Z), eager(Z))
    assert networks.latent.shape == (12, 1, 1)


def test_the_core_opens_it_by_class_name(eager: nn.Module, code: str, tmp_path: Path) -> None:
    torch.save(eager.state_dict(), tmp_path / "gan.pt")
    gan = gandissect.open(tmp_path / "gan.pt", generator=f"{code}:Generator", settings={"nz": 12}, device="cpu")
    assert gan.opening.adapter == "user-code" and gan.capabilities.edits


def test_a_module_of_a_package_works_too(eager: nn.Module, tmp_path: Path) -> None:
    torch.save(eager.state_dict(), tmp_path / "gan.pt")
    torch.testing.assert_close(opened(tmp_path / "gan.pt", "small_gans:Dcgan").generator(Z), eager(Z))


def test_generator_and_discriminator_come_out_of_one_file(eager: nn.Module, tmp_path: Path) -> None:
    critic = trained(Critic())
    torch.save({"G": eager.state_dict(), "D": critic.state_dict()}, tmp_path / "gan.pt")
    networks = opened(tmp_path / "gan.pt", "small_gans:Dcgan", discriminator="small_gans:Critic")
    torch.testing.assert_close(networks.discriminator(eager(Z)), critic(eager(Z)))


def test_labels_are_noticed(tmp_path: Path) -> None:
    eager, z, labels = trained(Conditional()), torch.randn(2, 8), torch.tensor([1, 3])
    torch.save(eager.state_dict(), tmp_path / "gan.pt")
    networks = opened(tmp_path / "gan.pt", "small_gans:Conditional")
    assert networks.num_classes == 5
    torch.testing.assert_close(networks.generator(z, labels), eager(z, labels))


def test_weights_that_do_not_fit_are_listed(eager: nn.Module, code: str, tmp_path: Path) -> None:
    torch.save(eager.state_dict(), tmp_path / "gan.pt")
    with pytest.raises(
        NotOpened, match=r"do not fit Generator: main\.0\.weight is \(12, 16, 4, 4\) in the file and \(9, 16, 4, 4\)"
    ):
        opened(tmp_path / "gan.pt", f"{code}:Generator", generator_settings={"nz": 9})
    with pytest.raises(NotOpened, match=r"do not fit Critic: .*missing conv1\.weight.* and \d+ more"):
        opened(tmp_path / "gan.pt", "small_gans:Critic")


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        ("{code}:Generatr", {}, "no class or function 'Generatr'; did you mean Generator"),
        ("{code}:Generator", {}, r"Generator\(nz, width=16\) cannot be called with no settings .*missing 1 required"),
        ("{code}:Generator", {"size": 3}, r"cannot be called with size=3"),
        ("{code}:broken", {}, "raised OSError: no data here"),
        ("{code}:number", {}, "returned int; expected a torch.nn.Module"),
        ("absent.py:Generator", {}, "no file absent.py"),
        ("absent_package.models:Generator", {}, "no module 'absent_package.models'"),
        ("Generator", {}, r"names no code; expected file\.py:Class"),
    ],
)
def test_every_mistake_is_one_sentence(spec: str, settings: dict[str, object], message: str, code: str) -> None:
    with pytest.raises(GandissectError, match=message):
        build(spec.format(code=code), settings)


def test_a_file_that_does_not_parse_says_where(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (:\n")
    with pytest.raises(NotOpened, match=r"bad\.py cannot be imported: SyntaxError"):
        build(f"{tmp_path / 'bad.py'}:Generator", {})


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import absent_package_for_sure\n")
    with pytest.raises(NotOpened, match="needs the package 'absent_package_for_sure'"):
        build(f"{tmp_path / 'needy.py'}:Generator", {})


def test_it_never_offers_itself(eager: nn.Module, tmp_path: Path) -> None:
    torch.save(eager.state_dict(), tmp_path / "gan.pt")
    assert UserCodeAdapter().match(peek(tmp_path / "gan.pt")) is None
