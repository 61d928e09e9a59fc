"""StyleGAN in the spellings of rosinality and lucidrains: the originals' numbers, and what they leave to be told."""

import json
from pathlib import Path

import pytest
import torch
from family_golden import Golden
from gandissect_adapters.families.family import Family
from gandissect_adapters.families.layers import UnitMapping
from gandissect_adapters.families.opening import rebuild_discriminator, rebuild_generator
from gandissect_adapters.families.style import lucidrains, rosinality_stylegan2
from gandissect_adapters.families.style.genforce import GenforceStyleGan, GenforceStyleGan2
from gandissect_adapters.families.style.lucidrains import LucidrainsStyleGan2
from gandissect_adapters.families.style.rosinality_layers import FusedResample
from gandissect_adapters.families.style.rosinality_stylegan1 import RosinalityStyleGan1, StyledGenerator
from gandissect_adapters.families.style.rosinality_stylegan2 import RosinalityStyleGan2
from gandissect_adapters.recognise.unwrap import find_networks
from style_checks import critic, images, outputs_equal, scores, seeded, spaces_hold, style_network
from torch import nn
from torch.nn import functional

import gandissect
from gandissect.adapter import Networks
from gandissect.errors import GandissectError, NotOpened, UsageError
from gandissect.files.reading import read_tensors

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        RosinalityStyleGan1(),
        RosinalityStyleGan2(),
        LucidrainsStyleGan2(),
        GenforceStyleGan(),
        GenforceStyleGan2(),
    )
}


# rosinality, StyleGAN


def rebuilt(case: Golden, file: str, step: int, alpha: str = "1") -> tuple[Networks, StyledGenerator]:
    """The averaged generator of ``file`` grown to ``step``, with the recorded noise."""
    state = find_networks(read_tensors(case.folder / file))[0]
    made = rebuild_generator(RosinalityStyleGan1(), state, {"step": str(step), "alpha": alpha})
    module = made.generator
    assert isinstance(module, StyledGenerator)
    count = 2 if step == 5 else 4
    module.set_noise([case[f"noise_{level}"][:count] for level in range(step + 1)])
    return made, module


def rebuilt_critic(case: Golden, side: int, alpha: str = "1") -> nn.Module:
    """The discriminator for images of ``side`` px."""
    states = find_networks(read_tensors(case.folder / "train_step-6.model"))
    state = next(state for state in states if state.role == "discriminator")
    made = rebuild_discriminator(RosinalityStyleGan1(), state, {"alpha": alpha}, (3, side, side))
    assert made.discriminator is not None
    return made.discriminator


@torch.no_grad()
@pytest.mark.parametrize("file", ["train_step-6.model", "010000.model"])
def test_rosinality_stylegan_gives_the_recorded_images_and_layers(shared: Path, file: str) -> None:
    case = Golden.of(shared, "rosinality-stylegan1")
    made, module = rebuilt(case, file, 4)
    case.equal(module(case["z"]), "img")
    w = made.inner[0].enter(case["z"], None)
    case.equal(w, "w")
    case.equal(made.inner[0].leave(case["mean_style"] + 0.7 * (w - case["mean_style"]), None), "img_psi0.7")
    assert case.layers_equal(module, "act/g_running.", lambda: module(case["z"])) == 4


@torch.no_grad()
def test_rosinality_stylegan_discriminator_gives_the_recorded_scores_and_layers(shared: Path) -> None:
    case = Golden.of(shared, "rosinality-stylegan1")
    net = rebuilt_critic(case, 64)
    case.equal(net(case["img"]), "d_logits")
    assert case.layers_equal(net, "act/discriminator.", lambda: net(case["img"])) == 3


@torch.no_grad()
@pytest.mark.parametrize(("step", "alpha", "end"), [(3, "0.4", "_step3_alpha04"), (5, "1", "_step5")])
def test_rosinality_stylegan_fades_and_fuses_as_recorded(shared: Path, step: int, alpha: str, end: str) -> None:
    case = Golden.of(shared, "rosinality-stylegan1")
    _, module = rebuilt(case, "train_step-6.model", step, alpha)
    expected = case[f"img{end}"]
    case.equal(module(case["z"][: len(expected)]), f"img{end}")
    case.equal(rebuilt_critic(case, 4 << step, alpha)(expected), f"d_logits{end}")


@pytest.mark.parametrize(
    ("file", "judge"),
    [pytest.param("train_step-6.model", None, marks=pytest.mark.slow), ("010000.model", "train_step-6.model")],
)
def test_rosinality_stylegan_opens_at_the_level_that_is_asked_for(shared: Path, file: str, judge: str | None) -> None:
    case = Golden.of(shared, "rosinality-stylegan1")
    gan = case.open(file, judge, step="2")
    assert gan.generator.image_shape == (3, 16, 16)
    assert [layer.name for layer in gan.generator.main_layers()] == [f"generator.progression.{k}" for k in range(3)]
    assert scores(gan, images(gan, case["z"])).shape == (4, 1)
    spaces_hold(gan, case["z"])


def test_the_last_level_with_a_trained_bias_is_taken(tmp_path: Path) -> None:
    module = StyledGenerator([8, 8, 6, 4], 8, 2, [False, False, False, True])
    seeded(module)
    with torch.no_grad():
        for level in (2, 3):
            block = module.generator.progression[level]
            for name, tensor in [*block.named_parameters(), *module.generator.to_rgb[level].named_parameters()]:
                if name.endswith("bias") and "adain" not in name:
                    tensor.zero_()
    torch.save(module.state_dict(), tmp_path / "g.model")
    gan = gandissect.open(tmp_path / "g.model", device="cpu")
    assert gan.generator.image_shape == (3, 8, 8)
    for block in module.generator.progression:
        block.noise.zero_()
    z = torch.randn(3, 8)
    with torch.no_grad():
        torch.testing.assert_close(images(gan, z), module.grown_to(1, 1.0)(z))
    with pytest.raises(UsageError, match="levels 0 to 3"):
        gandissect.open(tmp_path / "g.model", assume={"step": "4"}, device="cpu")
    with pytest.raises(UsageError, match="noise of level 1"):
        module.set_noise([torch.zeros(1, 1, 4, 4)])


def test_a_fused_convolution_is_the_convolution_and_its_resampling() -> None:
    x = torch.randn(2, 3, 8, 8)
    down, up = FusedResample(3, 5, up=False), FusedResample(3, 5, up=True)
    seeded(down), seeded(up)
    scale = (2.0 / 27.0) ** 0.5
    with torch.no_grad():
        pooled = functional.avg_pool2d(functional.conv2d(x, down.weight * scale, padding=1), 2)
        torch.testing.assert_close(down(x), pooled + down.bias[:, None, None])
        turned = (up.weight * scale).transpose(0, 1).flip((2, 3))
        doubled = functional.conv2d(functional.interpolate(x, scale_factor=2.0), turned, padding=1)
        torch.testing.assert_close(up(x), doubled / 4.0 + up.bias[:, None, None])


# rosinality, StyleGAN2


@pytest.mark.parametrize("file", ["000000.pt", "converted.pt"])
def test_rosinality_stylegan2_gives_the_recorded_images_and_layers(shared: Path, file: str) -> None:
    case = Golden.of(shared, "rosinality-stylegan2-32")
    gan = case.open(file)
    module, z = style_network(gan), case["z"]
    case.equal(images(gan, z), "img")
    assert case.layers_equal(module, "act/g_ema.", lambda: module(z)) == 5
    w = gan.generator.space("w").enter(z, None).detach()
    case.equal(w, "w")
    mixed = torch.stack([w] * 3 + [w.flip(0)] * 5, 1)
    with torch.no_grad():
        case.equal(gan.generator.space("w+").leave(mixed, None), "img_mix_inject3")
    spaces_hold(gan, z)
    assert (gan.discriminator is not None) == (file == "000000.pt")


def test_rosinality_stylegan2_truncates_around_the_mean_of_a_converted_file(shared: Path) -> None:
    case = Golden.of(shared, "rosinality-stylegan2-32")
    gan = case.open("converted.pt", "000000.pt", truncation="0.7")
    case.equal(images(gan, case["z"]), "img_psi0.7")
    centre = gan.generator.space("w").centre
    assert centre is not None
    case.equal(centre, "latent_avg")
    case.equal(scores(gan, case["img"]), "d_logits")
    case.equal(scores(gan, case["d_in8"]), "d_logits8")
    assert case.layers_equal(critic(gan), "act/d.", lambda: scores(gan, case["img"])) == 3


def test_a_training_file_says_that_the_mean_of_w_was_computed(shared: Path) -> None:
    case = Golden.of(shared, "rosinality-stylegan2-32")
    gan = case.open("000000.pt")
    told = next(item for item in gan.opening.assumptions if item.name == "w-mean")
    assert not told.sure and "4096" in told.value
    centre = gan.generator.space("w").centre
    assert centre is not None
    with torch.no_grad():
        mapped = style_network(gan).map(torch.randn(20000, 48))
    assert float((mapped.mean(0) - centre).abs().max()) < 0.1 * float(mapped.std(0).mean())


def test_rosinality_stylegan2_without_stored_noise_paints_without_noise(tmp_path: Path) -> None:
    module = rosinality_stylegan2.Generator([6, 4], 8, 2, colours=3, rate=0.01, taps=4)
    seeded(module)
    kept = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith("noises")}
    torch.save({"g_ema": kept}, tmp_path / "g.pt")
    for noise in module.noises.buffers():
        noise.zero_()
    z = torch.randn(3, 8, requires_grad=True)
    gan = gandissect.open(tmp_path / "g.pt", device="cpu")
    torch.testing.assert_close(gan.generator.module(z), module(z))
    assert torch.autograd.grad(gan.generator.module(z).sum(), z)[0].abs().max() > 0
    torch.testing.assert_close(images(gan, z)[1:2], images(gan, z[1:2]))
    spaces_hold(gan, z.detach())


# lucidrains


def test_lucidrains_gives_the_recorded_images_scores_and_layers(shared: Path) -> None:
    case = Golden.of(shared, "lucidrains-stylegan2-64")
    gan = case.open("model_1.pt")
    module, z = gan.generator.module, case["z"]
    assert isinstance(module, lucidrains.StyleGan2)
    module.set_noise(case["noise"])
    case.equal(images(gan, z), "img")
    w = gan.generator.space("w").enter(z, None).detach()
    case.equal(w, "w")
    with torch.no_grad():
        pulled = case["w_mean"] + 0.7 * (w - case["w_mean"])
        case.equal(gan.generator.space("w").leave(pulled, None), "img_psi0.7")
    parts = {"act/GE.blocks.0:0": "G.blocks.0", "act/GE.blocks.0:1": "G.blocks.0.to_rgb"}
    parts |= {"act/GE.blocks.1:0": "G.blocks.1", "act/GE.blocks.1:1": "G.blocks.1.to_rgb"}
    outputs_equal(case, module, z, {"act/GE.initial_conv": "G.initial_conv", **parts})
    case.equal(scores(gan, case["img"]), "d_logits")
    assert case.layers_equal(critic(gan), "act/D.", lambda: scores(gan, case["img"])) == 2
    assert gan.generator.output_range == (0.0, 1.0)
    spaces_hold(gan, z)


def lucid(tmp_path: Path, rate: float) -> lucidrains.StyleGan2:
    """A small network without a constant, saved as the codebase's trainer does it."""
    synthesis = lucidrains.Generator(8, [8, 6, 4], 3, constant=False)
    module = lucidrains.StyleGan2(UnitMapping([8] * 3, rate), synthesis)
    seeded(module)
    module.noise.fill_(0.5)
    flat = {name.replace("S.", "SE.", 1).replace("G.", "GE.", 1): t for name, t in module.state_dict().items()}
    torch.save({"GAN": flat, "version": "1.9.0"}, tmp_path / "model_1.pt")
    return module


def test_lucidrains_reads_the_learning_rate_from_the_settings_beside_the_file(tmp_path: Path) -> None:
    module = lucid(tmp_path, 0.25)
    (tmp_path / ".config.json").write_text(json.dumps({"lr_mlp": 0.25}))
    gan, z = gandissect.open(tmp_path / "model_1.pt", device="cpu"), torch.randn(3, 8)
    torch.testing.assert_close(images(gan, z), module(z))
    spaces_hold(gan, z)


def test_lucidrains_refuses_a_synthesis_network_without_its_mapping(tmp_path: Path) -> None:
    module = lucid(tmp_path, 0.1)
    torch.save({"GE": module.G.state_dict()}, tmp_path / "model_1.pt")
    with pytest.raises(NotOpened, match="without its mapping network"):
        gandissect.open(tmp_path / "model_1.pt", device="cpu")


# all of them


def test_each_family_claims_its_own_skeletons_and_no_other(shared: Path) -> None:
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    claimed: dict[str, set[str]] = {name: set() for name in FAMILIES}
    for file in sorted(folder.glob("*.json")):
        keys: dict[str, tuple[list[int], str]] = json.loads(file.read_text())["keys"]
        tensors = {name: torch.zeros(()).expand(shape) for name, (shape, _) in keys.items()}
        for net in find_networks(tensors):
            for name, family in FAMILIES.items():
                if role := family.role(net):
                    claimed[name].add(f"{file.stem} {net.name or '-'} {role}")
    second = {
        f"rosinality_stylegan2_{size}.{part}" for size in (64, 256) for part in ("G - generator", "D - discriminator")
    }
    assert claimed == {
        "StyleGAN (rosinality)": {"rosinality_stylegan1.G - generator", "rosinality_stylegan1.D - discriminator"},
        "StyleGAN2 (rosinality)": second,
        "StyleGAN2 (lucidrains)": {
            f"lucidrains_stylegan2.all {part}" for part in ("G generator", "GE generator", "D discriminator")
        },
        "StyleGAN (genforce)": set(),
        "StyleGAN2 (genforce)": set(),
    }


@pytest.mark.slow
def test_each_family_claims_its_own_golden_files_and_no_other(shared: Path) -> None:
    folder = shared / "golden" / "families"
    own = {
        "StyleGAN (rosinality)": "rosinality-stylegan1",
        "StyleGAN2 (rosinality)": "rosinality-stylegan2-32",
        "StyleGAN2 (lucidrains)": "lucidrains-stylegan2-64",
        "StyleGAN (genforce)": "genforce-stylegan-32",
        "StyleGAN2 (genforce)": "genforce-stylegan2-32",
    }
    for case in sorted(folder.glob("*")):
        for file in sorted(case.glob("*")):
            if file.suffix in (".json", ".npz"):
                continue
            try:
                states = find_networks(read_tensors(file))
            except GandissectError:  # a pickle that is no mapping of tensors
                continue
            for name, family in FAMILIES.items():
                roles = {family.role(state) for state in states} - {""}
                assert not roles or own[name] == case.name, f"{name} claims {case.name}/{file.name}"
