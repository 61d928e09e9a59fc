"""StyleGAN and StyleGAN2 as genforce writes them: the originals' numbers, growth and fused resampling."""

from pathlib import Path

import pytest
import torch
from family_golden import Golden
from gandissect_adapters.families.family import Family
from gandissect_adapters.families.layers import SQRT2
from gandissect_adapters.families.opening import rebuild_generator
from gandissect_adapters.families.style import genforce_critics, genforce_stylegan
from gandissect_adapters.families.style.genforce import GenforceStyleGan, GenforceStyleGan2
from gandissect_adapters.families.style.style_network import MappingNetwork
from gandissect_adapters.recognise.unwrap import find_networks
from style_checks import images, outputs_equal, scores, seeded, spaces_hold
from torch import Tensor

import gandissect
from gandissect.files.reading import read_tensors
from gandissect.tap import tap


@pytest.mark.parametrize(
    ("folder", "file"),
    [("genforce-stylegan-32", "model.pth"), ("genforce-stylegan2-32", "checkpoint_iter000001.pth")],
)
def test_genforce_gives_the_recorded_images_scores_and_layers(shared: Path, folder: str, file: str) -> None:
    case = Golden.of(shared, folder)
    gan = case.open(file)
    z = case["z"]
    case.equal(images(gan, z), "img")
    case.equal(gan.generator.space("w").enter(z, None).detach(), "w")
    keys = [key for key in case.arrays if key.startswith("act/generator_smooth.")]
    own = {key: key.removeprefix("act/generator_smooth.").replace(":0", "").replace(":1", ".style") for key in keys}
    outputs_equal(case, gan.generator.module, z, own)
    case.equal(scores(gan, case["img"]), "d_logits")
    spaces_hold(gan, z)


@pytest.mark.parametrize(
    ("family", "folder", "file"),
    [
        (GenforceStyleGan(), "genforce-stylegan-32", "model.pth"),
        (GenforceStyleGan2(), "genforce-stylegan2-32", "checkpoint_iter000001.pth"),
    ],
)
@pytest.mark.parametrize(("layers", "end"), [("all", ""), ("4", "_layers4")])
def test_genforce_truncates_as_recorded(
    shared: Path, family: Family, folder: str, file: str, layers: str, end: str
) -> None:
    case = Golden.of(shared, folder)
    state = find_networks(read_tensors(case.folder / file))[0]
    made = rebuild_generator(family, state, {"truncation": "0.7", "truncation-layers": layers})
    assert state.averaged and made.generator is not None
    with torch.no_grad():
        case.equal(made.generator(case["z"]), f"img_psi0.7{end}")
        if end:
            case.equal(made.inner[1].enter(case["z"], None), f"wp_psi0.7{end}")


def small_genforce(fused: bool = False) -> genforce_stylegan.StyleGan:
    """Three resolutions, 4 to 16 px, the larger two fused or not."""
    mapping = MappingNetwork([6, 8], layer="dense", rate=0.01, gain=SQRT2, after=1.0)
    net = genforce_stylegan.StyleGan(mapping, genforce_stylegan.Synthesis([8, 6, 4], 8, 3, [False, fused, fused]))
    seeded(net)
    return net


def test_the_level_of_detail_of_the_file_fades_between_the_heads(tmp_path: Path) -> None:
    net, z = small_genforce(), torch.randn(3, 6)
    drawn = {}
    for detail in (0.0, 0.25, 1.0, 2.0):
        net.synthesis.lod.fill_(detail)
        torch.save({"generator": {**net.state_dict(), "truncation.w_avg": torch.zeros(8)}}, tmp_path / "g.pth")
        gan = gandissect.open(tmp_path / "g.pth", device="cpu")
        drawn[detail] = images(gan, z)
        assert drawn[detail].shape == (3, 3, 16, 16)
    torch.testing.assert_close(drawn[0.25], 0.75 * drawn[0.0] + 0.25 * drawn[1.0])
    assert not torch.allclose(drawn[0.0], drawn[1.0])
    assert torch.equal(drawn[2.0], drawn[2.0][:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_a_fused_genforce_layer_is_the_plain_one_with_its_kernel_turned() -> None:
    plain, fused, z = small_genforce(), small_genforce(fused=True), torch.randn(3, 6)
    weights = {
        name: tensor.flip((2, 3)) if name in ("synthesis.layer2.weight", "synthesis.layer4.weight") else tensor
        for name, tensor in plain.state_dict().items()
    }
    fused.load_state_dict(weights)
    torch.testing.assert_close(fused(z), plain(z))


def test_a_fused_genforce_discriminator_scores_as_the_plain_one() -> None:
    nets = [
        seeded(genforce_critics.StyleGanCritic([4, 6, 8], colours=3, group=4, hidden=8, fused=[fused, fused]))
        for fused in (False, True)
    ]
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(nets[0](x), nets[1](x))


def test_the_discriminator_of_a_fading_stylegan_fades_between_its_inputs() -> None:
    net = genforce_critics.StyleGanCritic([4, 6, 8], colours=3, group=4, hidden=8, fused=[False, False])
    seeded(net)
    flat = torch.randn(4, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    entered: dict[float, Tensor] = {}
    for detail in (0.0, 0.25, 1.0):
        net.lod.fill_(detail)
        with torch.no_grad(), tap(net, ["layer1", "layer2", "layer3", "input1"]) as seen:
            net(flat)
        entered[detail] = seen["layer3"]
        if detail == 0.25:
            mixed = 0.25 * seen["input1"] + 0.75 * seen["layer1"]
            blended = net.get_submodule("layer3")(net.get_submodule("layer2")(mixed))
            torch.testing.assert_close(seen["layer3"], blended)
    assert not torch.allclose(entered[0.0], entered[1.0])
