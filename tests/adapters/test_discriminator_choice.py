"""Files with several discriminators: the one that judges what the opened generator makes is attached, by each codebase's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_made import saved, seeded
from gandissect_adapters.families.images import junyanz
from gandissect_adapters.recognise.pairing import partner
from torch import nn

import gandissect
from gandissect.errors import UnknownName
from gandissect.gan import Assumption, Gan

PLAN = junyanz.ResnetPlan(into=3, widths=(4, 8, 16), out=3, blocks=2, norm="instance")
SIZE = {"size": "32"}
BIASES = {"first": 0.25, "second": -0.5}


def translator() -> nn.Module:
    return seeded(junyanz.ResnetGenerator(PLAN))


def patches(which: str) -> nn.Module:
    """A PatchGAN whose last bias says which one it is."""
    critic = seeded(junyanz.PatchDiscriminator("model", 3, (4, 8, 16, 32), "instance"))
    last = [part for part in critic.modules() if isinstance(part, nn.Conv2d)][-1]
    assert last.bias is not None
    nn.init.constant_(last.bias, BIASES[which])
    return critic


def both_ways(tmp_path: Path, generators: tuple[str, str], critics: tuple[str, str]) -> Path:
    """A file with two generators and two discriminators under these names, in this order."""
    states = {name: translator().state_dict() for name in generators}
    states |= {name: patches(which).state_dict() for name, which in zip(critics, BIASES, strict=True)}
    torch.save(states, tmp_path / "both.pth")
    return tmp_path / "both.pth"


def attached(gan: Gan) -> str:
    assert gan.discriminator is not None
    last = [part for part in gan.discriminator.module.modules() if isinstance(part, nn.Conv2d)][-1]
    assert last.bias is not None
    return next(which for which, bias in BIASES.items() if last.bias.item() == bias)


def chosen(gan: Gan) -> Assumption:
    return next(one for one in gan.opening.assumptions if one.name == "discriminator network")


@pytest.mark.parametrize(
    ("generators", "opened", "judge"),
    [
        (("netG_A", "netG_B"), "netG_A", "netD_A"),  # pytorch-CycleGAN-and-pix2pix: D_A judges what G_A makes, domain B
        (("netG_A", "netG_B"), "netG_B", "netD_B"),
        (("netG_A2B", "netG_B2A"), "netG_A2B", "netD_B"),  # aitorzip/PyTorch-CycleGAN: D_B judges domain B
        (("netG_A2B", "netG_B2A"), "netG_B2A", "netD_A"),
        (("G_AB", "G_BA"), "G_AB", "netD_B"),  # eriklindernoren/PyTorch-GAN
        (("G_AB", "G_BA"), "G_BA", "netD_A"),
    ],
)
def test_the_discriminator_of_the_domain_that_the_generator_makes_is_attached(
    tmp_path: Path, generators: tuple[str, str], opened: str, judge: str
) -> None:
    path = both_ways(tmp_path, generators, ("netD_A", "netD_B"))
    gan = gandissect.open(path, assume={**SIZE, "network": opened}, device="cpu")
    assert attached(gan) == {"netD_A": "first", "netD_B": "second"}[judge]
    assert chosen(gan).value == judge
    assert opened in chosen(gan).because and "discriminator-network=NAME" in chosen(gan).because


def test_the_order_in_the_file_does_not_choose(tmp_path: Path) -> None:
    path = both_ways(tmp_path, ("netG_B2A", "netG_A2B"), ("netD_B", "netD_A"))
    assert attached(gandissect.open(path, assume=SIZE, device="cpu")) == "second"


def test_another_discriminator_can_be_named(tmp_path: Path) -> None:
    path = both_ways(tmp_path, ("netG_A", "netG_B"), ("netD_A", "netD_B"))
    gan = gandissect.open(path, assume={**SIZE, "discriminator-network": "netD_B"}, device="cpu")
    assert attached(gan) == "second"
    assert chosen(gan).sure and chosen(gan).because.startswith("said with --assume")


def test_a_discriminator_that_the_file_does_not_hold_is_an_error_that_names_those_it_does(tmp_path: Path) -> None:
    path = both_ways(tmp_path, ("netG_A", "netG_B"), ("netD_A", "netD_B"))
    with pytest.raises(UnknownName, match="netD_A"):
        gandissect.open(path, assume={**SIZE, "discriminator-network": "netD_C"}, device="cpu")


def test_a_file_of_discriminators_beside_a_file_of_generators_is_paired_likewise(tmp_path: Path) -> None:
    path = both_ways(tmp_path, ("netG_A2B", "netG_B2A"), ("netD_A", "netD_B"))
    states = torch.load(path)
    torch.save({name: states[name] for name in ("netD_A", "netD_B")}, tmp_path / "critics.pth")
    torch.save({name: states[name] for name in ("netG_A2B", "netG_B2A")}, tmp_path / "makers.pth")
    critics = tmp_path / "critics.pth"
    gan = gandissect.open(tmp_path / "makers.pth", discriminator=critics, assume=SIZE, device="cpu")
    assert attached(gan) == "second"
    named = {**SIZE, "discriminator-network": "netD_A"}
    assert (
        attached(gandissect.open(tmp_path / "makers.pth", discriminator=critics, assume=named, device="cpu")) == "first"
    )


def test_one_discriminator_is_no_choice_to_write_down(tmp_path: Path) -> None:
    path = saved(translator(), tmp_path / "latest_net_G_A.pth")
    judge = saved(patches("second"), tmp_path / "latest_net_D_A.pth")
    gan = gandissect.open(path, discriminator=judge, assume=SIZE, device="cpu")
    assert attached(gan) == "second"
    assert all(one.name != "discriminator network" for one in gan.opening.assumptions)


def plain(out: int) -> nn.Module:
    """A DCGAN's generator (three channels out) or discriminator (one number out) of no known family, for 16x16 images."""
    if out == 1:
        return seeded(
            nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 12, 4, 2, 1), nn.LeakyReLU(0.2),
                          nn.Conv2d(12, 1, 4))
        )  # fmt: skip
    return seeded(
        nn.Sequential(nn.ConvTranspose2d(10, 12, 4), nn.ReLU(), nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(),
                      nn.ConvTranspose2d(8, out, 4, 2, 1), nn.Tanh())
    )  # fmt: skip


def test_networks_of_no_family_are_paired_by_their_names_too(tmp_path: Path) -> None:
    states = {"disc_B": plain(1).state_dict(), "disc_A": plain(1).state_dict(), "gen_A": plain(3).state_dict()}
    states["disc_A"]["4.bias"].fill_(0.25)
    torch.save(states, tmp_path / "unit.pt")
    gan = gandissect.open(tmp_path / "unit.pt", device="cpu")
    assert chosen(gan).value == "disc_A"
    assert attached(gan) == "first"


def test_whole_modules_that_are_trusted_are_paired_by_their_names_too(tmp_path: Path) -> None:
    critics = {"D_B": plain(1), "D_A": plain(1)}
    nn.init.constant_(critics["D_A"].get_submodule("4").get_parameter("bias"), BIASES["first"])
    torch.save({"G_A": plain(3), **critics}, tmp_path / "modules.pt")
    gan = gandissect.open(tmp_path / "modules.pt", adapter="pickled-module", trust=True, device="cpu")
    assert attached(gan) == "first"
    assert chosen(gan).value == "D_A"


@pytest.mark.parametrize(
    ("generator", "critics", "wanted"),
    [
        ("nets.G_XtoY.state_dict", ["D_X", "D_Y"], "D_Y"),
        ("G_horse2zebra", ["D_horse", "D_zebra"], "D_zebra"),
        ("generator_B_to_A_ema", ["discriminator_A", "discriminator_B"], "discriminator_A"),
        ("gen_a", ["dis_b", "dis_a"], "dis_a"),
        ("G", ["D_X", "D_Y"], "D_Y"),
        ("F", ["D_Y", "D_X"], "D_X"),
        ("G_ema", ["D_content", "D"], "D"),
    ],
)
def test_names_of_other_codebases_are_read(generator: str, critics: list[str], wanted: str) -> None:
    assert partner(generator, critics).name == wanted


@pytest.mark.parametrize(("generator", "critics"), [("model", ["D_A", "D_B"]), ("generator", ["critic1", "critic2"])])
def test_where_no_name_tells_the_first_is_taken_and_the_report_says_so(generator: str, critics: list[str]) -> None:
    found = partner(generator, critics)
    assert found.name == critics[0] and not found.sure
    assert "the first of 2" in found.because
