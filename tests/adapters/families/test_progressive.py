"""Progressive GANs of seven codebases: the recorded numbers of the originals, and files made here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from family_golden import Golden
from gandissect_adapters.families.family import Family
from gandissect_adapters.families.layers import MinibatchStd
from gandissect_adapters.families.opening import rebuild_generator
from gandissect_adapters.families.progressive.akanimax import BmsgGan, ProGan
from gandissect_adapters.families.progressive.akanimax_nets import (
    AkanimaxGenerator,
    BmsgDiscriminator,
    ProGanDiscriminator,
)
from gandissect_adapters.families.progressive.ganzoo import GanZooDcgan, GanZooProgressive
from gandissect_adapters.families.progressive.ganzoo_nets import (
    DcganDiscriminator,
    DcganGenerator,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    with_labels,
)
from gandissect_adapters.families.progressive.genforce_pggan import (
    GenforceDiscriminator,
    GenforceGenerator,
    GenforcePgGan,
)
from gandissect_adapters.families.progressive.nashory import NashoryPgGan
from gandissect_adapters.families.progressive.rosinality_progan import (
    RosinalityDiscriminator,
    RosinalityGenerator,
    RosinalityProGan,
)
from gandissect_adapters.families.progressive.training import trained_side
from gandissect_adapters.recognise.unwrap import StateDict, find_networks
from torch import Tensor, nn
from torch.nn import functional as F

import gandissect
from gandissect.errors import NotOpened, UsageError
from gandissect.files.reading import read_tensors
from gandissect.gan import Gan

FAMILIES: list[Family] = [
    ProGan(),
    BmsgGan(),
    GanZooProgressive(),
    GanZooDcgan(),
    NashoryPgGan(),
    GenforcePgGan(),
    RosinalityProGan(),
]


def randomized(net: nn.Module, seed: int = 0) -> nn.Module:
    """``net`` with every parameter drawn anew, biases too: as after training."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream) * (1.0 if parameter.dim() > 1 else 0.2))
    return net.eval()


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def opened(path: Path, discriminator: Path | None = None, **assume: str) -> Gan:
    options = {name.replace("_", "-"): value for name, value in assume.items()}
    return gandissect.open(path, discriminator=discriminator, assume=options, device="cpu")


def scores(gan: Gan, images: Tensor) -> Tensor:
    """What the discriminator's module gives for images in its own range."""
    assert gan.discriminator is not None
    with torch.no_grad():
        out: Tensor = gan.discriminator.module(images)
    return out


def pictures(gan: Gan, *inputs: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = gan.generator.module(*inputs)
    return out


def assumed(gan: Gan) -> Mapping[str, tuple[str, bool]]:
    return {fact.name: (fact.value, fact.sure) for fact in gan.opening.assumptions}


# The originals' numbers


def test_pro_gan_pytorch_gives_the_recorded_images_and_scores(shared: Path) -> None:
    case = Golden.of(shared, "akanimax-progan-32")
    gan = case.open("depth_5_epoch_1.bin")
    assert gan.discriminator is not None
    net, critic = gan.generator.module, gan.discriminator.module
    case.equal(pictures(gan, case["z"]), "img")
    case.equal(scores(gan, case["img"]), "d_logits")
    case.equal(scores(gan, case["d_in8"]), "d_logits8")
    assert case.layers_equal(net, "act/shadow_generator.", lambda: net(case["z"])) == 3
    assert case.layers_equal(critic, "act/discriminator.", lambda: critic(case["img"])) == 2


@pytest.mark.parametrize(("side", "alpha", "key"), [("16", "0.4", "depth4_alpha04"), ("4", "1", "depth2")])
def test_pro_gan_pytorch_gives_the_recorded_smaller_resolutions(shared: Path, side: str, alpha: str, key: str) -> None:
    case = Golden.of(shared, "akanimax-progan-32")
    gan = case.open("depth_5_epoch_1.bin", resolution=side, alpha=alpha)
    case.equal(pictures(gan, case["z"]), f"img_{key}")
    case.equal(scores(gan, case[f"img_{key}"]), f"d_logits_{key}")


@pytest.mark.parametrize("kind", ["", pytest.param(".dataparallel", marks=pytest.mark.slow)])
def test_bmsg_gan_gives_the_recorded_scales_and_scores(shared: Path, kind: str) -> None:
    case = Golden.of(shared, "akanimax-bmsg-gan-64")
    gan = case.open(f"GAN_GEN_SHADOW_1{kind}.pth", f"GAN_DIS_1{kind}.pth")
    assert gan.discriminator is not None
    net, critic = gan.generator.module, gan.discriminator.module
    assert isinstance(net, AkanimaxGenerator) and isinstance(critic, BmsgDiscriminator)
    with torch.no_grad():
        scales = net.scales(case["z"])
        case.equal(critic.score_scales(scales), "d_logits")
    case.equal(pictures(gan, case["z"]), "img")
    for index, picture in enumerate(scales[:-1]):
        case.equal(picture, f"img_scale{index}")
    assert case.layers_equal(net, "act/gen_shadow.", lambda: net(case["z"])) == 2
    assert case.layers_equal(critic, "act/dis.", lambda: critic.score_scales(scales)) == 2


@pytest.mark.slow
def test_bmsg_gans_last_training_step_opens_too(shared: Path) -> None:
    case = Golden.of(shared, "akanimax-bmsg-gan-64")
    gan = case.open("GAN_GEN_1.pth")
    assert gan.opening.family == BmsgGan.name and gan.generator.image_shape == (3, 64, 64)


@pytest.mark.parametrize("file", ["model_plain_config.pt", "model_s3_i1000.pt"])
def test_gan_zoos_progressive_gan_gives_the_recorded_images_and_scores(shared: Path, file: str) -> None:
    case = Golden.of(shared, "fb-ganzoo-pgan-32")
    gan = case.open(file)
    net = gan.generator.module
    case.equal(pictures(gan, case["z"]), "img")
    case.equal(scores(gan, case["img"]), "d_logits")
    case.equal(scores(gan, case["d_in8"]), "d_logits8")
    assert case.layers_equal(net, "act/avgG.", lambda: net(case["z"])) == 3
    assert assumed(gan)["alpha"] == ("0.0", True)


@pytest.mark.parametrize("folder", ["pgan_ganzoo_16", "pgan_ganzoo_32_alpha03", "dcgan_ganzoo_32"])
def test_gan_zoos_files_give_the_recorded_images_and_scores(shared: Path, tmp_path: Path, folder: str) -> None:
    case = Golden.of(shared, folder)
    gan = case.open("ckpt.pt")
    case.equal(pictures(gan, case.arrays.get("z_fixed", case["z"])), "image_avgG")
    case.equal(scores(gan, case["d_image"]), "d_out")
    tree = torch.load(case.folder / "ckpt.pt", weights_only=True)
    trained = opened(saved({key: tree[key] for key in ("config", "netG", "netD")}, tmp_path / "trained.pt"))
    assert trained.discriminator is not None
    net, critic = trained.generator.module, trained.discriminator.module
    case.equal(pictures(trained, case["z"]), "image")
    assert case.layers_equal(net, "g:", lambda: net(case["z"])) >= 2
    case.layers_equal(critic, "d:", lambda: critic(case["d_image"]))


def test_genforces_pggan_gives_the_recorded_images_and_scores(shared: Path) -> None:
    case = Golden.of(shared, "genforce-pggan-32")
    gan = case.open("model.pth")
    net = gan.generator.module
    case.equal(pictures(gan, case["z"]), "img")
    case.equal(scores(gan, case["img"]), "d_logits")
    assert case.layers_equal(net, "act/generator_smooth.", lambda: net(case["z"])) == 3
    case.equal(pictures(case.open("model.pth", lod="1.4"), case["z"]), "img_lod1.4")


@pytest.mark.parametrize("file", ["010000.model", pytest.param("g_running.state_dict.pt", marks=pytest.mark.slow)])
def test_rosinalitys_networks_give_the_recorded_images_and_scores(shared: Path, file: str) -> None:
    case = Golden.of(shared, "rosinality-progressive-gan")
    gan = case.open(file, "discriminator.state_dict.pt", resolution="32")
    assert gan.discriminator is not None
    net, critic = gan.generator.module, gan.discriminator.module
    assert isinstance(critic, RosinalityDiscriminator)
    case.equal(pictures(gan, case["z"], case["label"]), "img")
    case.equal(scores(gan, case["img"]), "d_logits")
    with torch.no_grad():
        case.equal(critic.judged(case["img"])[:, 1:], "d_class")
    assert case.layers_equal(net, "act/g_running.", lambda: net(case["z"], case["label"])) == 3
    assert case.layers_equal(critic, "act/d.", lambda: critic(case["img"])) == 2


def test_rosinalitys_networks_give_the_recorded_other_resolutions(shared: Path) -> None:
    case = Golden.of(shared, "rosinality-progressive-gan")
    net = find_networks(read_tensors(case.folder / "010000.model"))[0]
    largest = rebuild_generator(RosinalityProGan(), net, {}).generator
    assert largest is not None
    with torch.no_grad():
        case.equal(largest(case["z"], case["label"]), "img_step5")
    gan = case.open("010000.model", "discriminator.state_dict.pt", resolution="16", alpha="0.4")
    case.equal(pictures(gan, case["z"], case["label"]), "img_step2_alpha04")
    case.equal(scores(gan, case["img_step2_alpha04"]), "d_logits_step2_alpha04")


def test_the_families_claim_their_own_skeletons_and_no_other(shared: Path) -> None:
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    claimed = {}
    for path in sorted(folder.glob("*.json")):
        keys = json.loads(path.read_text())["keys"]
        net = StateDict("", {name: torch.empty(shape, device="meta") for name, (shape, _dtype) in keys.items()})
        roles = [(family.name, role) for family in FAMILIES if (role := family.role(net))]
        if roles:
            claimed[path.name.removesuffix(".json")] = roles
    owners: dict[str, Family] = {
        "akanimax_progan": ProGan(),
        "bmsg_gan": BmsgGan(),
        "ganzoo_dcgan": GanZooDcgan(),
        "ganzoo_pgan": GanZooProgressive(),
        "rosinality_progan": RosinalityProGan(),
    }
    roles_of = {"G": "generator", "D": "discriminator"}
    assert claimed == {
        f"{stem}.{letter}": [(family.name, role)]
        for stem, family in owners.items()
        for letter, role in roles_of.items()
    }


# Files made here


def progan(widths: tuple[int, ...] = (8, 8, 4), *, seed: int = 0, normalize: bool = True) -> AkanimaxGenerator:
    net = AkanimaxGenerator(8, widths, 3, levels=len(widths), alpha=1.0, scaled=True, normalize=normalize)
    randomized(net, seed)
    return net


def test_pro_gan_opens_with_the_facts_of_its_conf(tmp_path: Path) -> None:
    net = progan()
    critic = ProGanDiscriminator(3, [4, 8, 8], 8, levels=3, alpha=1.0, classes=0, scaled=True)
    randomized(critic)
    conf = {"depth": 4, "num_channels": 3, "latent_size": 8, "use_eql": True}
    tree = {
        "generator": {"conf": conf, "state_dict": net.state_dict()},
        "discriminator": {"conf": {**conf, "num_classes": None}, "state_dict": critic.state_dict()},
    }
    gan = opened(saved(tree, tmp_path / "depth_4_epoch_1.bin"))
    z = torch.randn(5, 8)
    images = pictures(gan, z)
    assert gan.opening.family == ProGan.name and assumed(gan)["normalize-z"] == ("yes", True)
    assert torch.equal(images, net(z).detach())
    assert torch.equal(scores(gan, images[:4]), critic(images[:4]).detach())
    assert torch.allclose(pictures(gan, z[:2]), images[:2], atol=1e-5)
    assert torch.allclose(pictures(gan, 3.0 * z), images, atol=1e-4)
    assert gan.capabilities.gradients and gan.capabilities.discriminator_gradients and gan.capabilities.edits


def test_a_bare_generator_is_bmsg_gans_with_an_assumption_that_is_not_sure(tmp_path: Path) -> None:
    net = progan((8, 8, 8), normalize=False)
    path = saved(net.state_dict(), tmp_path / "GAN_GEN_3.pth")
    z = torch.randn(3, 8)
    gan = opened(path)
    assert gan.opening.family == BmsgGan.name and assumed(gan)["normalize-z"] == ("no", False)
    assert torch.equal(pictures(gan, z), net(z).detach())
    other = opened(path, normalize_z="yes")
    assert torch.equal(pictures(other, z), progan((8, 8, 8), normalize=True)(z).detach())


def test_a_generator_beside_a_growing_discriminator_is_pro_gans(tmp_path: Path) -> None:
    critic = ProGanDiscriminator(3, [8, 8, 8], 8, levels=3, alpha=1.0, classes=0, scaled=True)
    tree = {"G": progan((8, 8, 8)).state_dict(), "D": critic.state_dict()}
    gan = opened(saved(tree, tmp_path / "both.pth"))
    assert gan.opening.family == ProGan.name and gan.capabilities.discriminator


def test_resolutions_whose_biases_are_still_zero_were_never_trained(tmp_path: Path) -> None:
    net = progan()
    for layer in (net.layers[2].conv_1, net.layers[2].conv_2, net.rgb_converters[2]):
        nn.init.zeros_(layer.bias)
    gan = opened(saved({"generator": {"conf": {"use_eql": True}, "state_dict": net.state_dict()}}, tmp_path / "g.bin"))
    assert gan.generator.image_shape == (3, 8, 8)
    assert trained_side({"a": torch.zeros(2), "b": torch.ones(2)}, {4: ["b"], 8: ["a"]}) == 4


def test_a_resolution_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = saved({"generator": {"conf": {}, "state_dict": progan().state_dict()}}, tmp_path / "g.bin")
    with pytest.raises(UsageError, match="resolution=64 is not one of 4, 8, 16"):
        opened(path, resolution="64")
    with pytest.raises(UsageError, match="between 0 and 1"):
        opened(path, alpha="1.5")


def test_a_file_of_this_family_with_a_flat_weight_is_refused(tmp_path: Path) -> None:
    tensors = {**progan().state_dict(), "layers.0.conv_2.bias": torch.tensor(1.0)}
    with pytest.raises(NotOpened):
        opened(saved({"generator": {"conf": {}, "state_dict": tensors}}, tmp_path / "g.bin"))


def test_a_generator_that_lacks_a_bias_is_refused(tmp_path: Path) -> None:
    tensors = progan().state_dict()
    del tensors["layers.1.conv_2.bias"]
    with pytest.raises(NotOpened, match=r"layers\.1\.conv_2\.bias"):
        opened(saved({"generator": {"conf": {}, "state_dict": tensors}}, tmp_path / "g.bin"))


def test_the_class_vectors_of_pro_gans_discriminator_are_at_most_of_norm_one(tmp_path: Path) -> None:
    critic = ProGanDiscriminator(3, [4, 8, 8], 6, levels=3, alpha=1.0, classes=5, scaled=True)
    randomized(critic)
    tree = {"generator": {"state_dict": progan().state_dict()}, "discriminator": {"state_dict": critic.state_dict()}}
    gan = opened(saved(tree, tmp_path / "conditional.bin"))
    assert gan.discriminator is not None and gan.discriminator.num_classes == 5
    images, labels = torch.randn(5, 3, 16, 16), torch.arange(5)
    last = critic.layers[2]
    embedding = nn.Embedding(5, 6, max_norm=1.0, _weight=last.label_embedder.weight.detach().clone())
    x = critic.layers[1](critic.layers[0](critic.from_rgb[0](images)))
    x = F.leaky_relu(last.conv_2(F.leaky_relu(last.conv_1(last.batch_discriminator(x)), 0.2)), 0.2)
    expected = F.leaky_relu(last.conv_3(x), 0.2).flatten() + (x.flatten(1) * embedding(labels)).sum(1)
    with torch.no_grad():
        assert torch.allclose(gan.discriminator(images, labels), expected, atol=1e-5)


def test_bmsg_gans_discriminator_makes_the_smaller_scales_itself(tmp_path: Path) -> None:
    net = progan((8, 8, 8), normalize=False)
    critic = BmsgDiscriminator(3, [(8, 4), (4, 4)], [4, 4], 4, scaled=True)
    randomized(critic)
    gan = opened(saved(net.state_dict(), tmp_path / "G.pth"), saved(critic.state_dict(), tmp_path / "GAN_DIS_1.pth"))
    images = torch.randn(3, 3, 16, 16)
    pyramid = [F.avg_pool2d(images, 4), F.avg_pool2d(images, 2), images]
    assert torch.allclose(scores(gan, images), critic.score_scales(pyramid).detach(), atol=1e-5)
    assert any("at all resolutions" in note for note in gan.opening.notes)


def test_gan_zoos_labels_become_one_hot_values_behind_z(tmp_path: Path) -> None:
    net = ProgressiveGenerator(6, [2, 3], [8, 4], 3, alpha=0.0, leak=0.2, scaled=True, tanh=False)
    critic = ProgressiveDiscriminator(3, [8, 4], 6, statistic=True, alpha=0.0, leak=0.2, scaled=True)
    keys = {"colour": {"order": 1, "values": ["r", "g", "b"]}, "kind": {"order": 0, "values": ["cat", "dog"]}}
    config = {"attribKeysOrder": keys, "categoryVectorDim": 5, "alpha": 0.0, "lossCriterion": "WGANGP"}
    tree = {"config": config, "netG": randomized(net).state_dict(), "netD": randomized(critic).state_dict()}
    gan = opened(saved(tree, tmp_path / "model.pt"))
    z, labels = torch.randn(6, 6), torch.arange(6)
    assert (gan.generator.num_classes, gan.generator.latent.size) == (6, 6)
    assert torch.equal(pictures(gan, z, labels), net(z, labels).detach())
    behind = with_labels(z, torch.tensor([4] * 6), [2, 3])[:, 6:]
    assert behind[0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert scores(gan, torch.randn(4, 3, 8, 8)).shape == (4, 1)


def test_gan_zoos_older_names_without_module_open_too(tmp_path: Path) -> None:
    net = ProgressiveGenerator(6, [], [8, 4], 3, alpha=0.25, leak=0.2, scaled=True, tanh=True)
    older = {name.replace(".module.", "."): tensor for name, tensor in randomized(net).state_dict().items()}
    gan = opened(saved({"config": {"alpha": 0.25, "lossMode": "DCGAN"}, "avgG": older}, tmp_path / "model.pt"))
    z = torch.randn(3, 6)
    assert torch.equal(pictures(gan, z), net(z).detach())
    assert assumed(gan)["output"] == ("tanh", True)


def test_gan_zoos_dcgan_opens_without_a_config(tmp_path: Path) -> None:
    net, critic = DcganGenerator(6, [], [8, 4], 3, tanh=True).eval(), DcganDiscriminator(3, [4, 8], 1).eval()
    gan = opened(saved({"netG": net.state_dict(), "netD": critic.state_dict()}, tmp_path / "model.pt"))
    z, images = torch.randn(3, 6), torch.randn(3, 3, 16, 16)
    assert gan.opening.family == GanZooDcgan.name
    assert torch.equal(pictures(gan, z), net(z).detach())
    assert torch.equal(scores(gan, images), critic(images).detach())


def test_genforces_labels_and_level_of_detail_come_from_the_file(tmp_path: Path) -> None:
    net = GenforceGenerator(6, 3, [8, 8, 4], 3, lod=0.5, tanh=False, scaled=True)
    critic = GenforceDiscriminator(3, [4, 8, 8], 8, 4, group=16, lod=0.5, scaled=True)
    lod = {"lod": torch.tensor(0.5)}
    tree = {
        "generator_smooth": {**lod, **randomized(net).state_dict()},
        "discriminator": {**lod, **randomized(critic).state_dict()},
    }
    gan = opened(saved(tree, tmp_path / "model.pth"))
    z, labels = torch.randn(3, 6), torch.arange(3)
    images = pictures(gan, z, labels)
    assert gan.generator.num_classes == 3 and images.shape == (3, 3, 16, 16)
    assert torch.equal(images, net(z, labels).detach())
    assert torch.equal(scores(gan, images), critic(images).detach())
    with pytest.raises(UsageError, match="lod=4 is not between 0 and 2"):
        opened(tmp_path / "model.pth", lod="4")


def test_rosinalitys_generator_opens_at_the_last_trained_resolution(tmp_path: Path) -> None:
    net = RosinalityGenerator(4, 4, [12, 12, 8, 8], 3, step=1, alpha=1.0)
    randomized(net)
    for layer in (net.progression[2].conv[0], net.progression[2].conv[3]):
        nn.init.zeros_(layer.bias)
    names = {
        name.replace(".conv.0.", ".conv.0.conv.").replace(".conv.3.", ".conv.3.conv."): tensor
        for name, tensor in net.state_dict().items()
    }
    tensors = {n.replace("conv.weight", "conv.weight_orig") if "progression" in n else n: t for n, t in names.items()}
    gan = opened(saved(tensors, tmp_path / "g_running.pt"))
    z, labels = torch.randn(4, 8), torch.arange(4)
    assert (gan.generator.image_shape, gan.generator.latent.size, gan.generator.num_classes) == ((3, 8, 8), 8, 4)
    assert torch.equal(pictures(gan, z, labels), net(z, labels).detach())


def test_the_minibatch_statistic_is_the_spread_within_each_group() -> None:
    x = torch.randn(4, 2, 3, 3)

    def spread(part: Tensor, correction: int = 0) -> Tensor:
        return (part.var(0, correction=correction) + 1e-8).sqrt()

    halves = MinibatchStd(2, consecutive=True, unbiased=True)(x)[:, 2]
    assert torch.allclose(halves[0], spread(x[:2], 1).mean().expand(3, 3))
    assert torch.allclose(halves[3], spread(x[2:], 1).mean().expand(3, 3))
    turns = MinibatchStd(2)(x)[:, 2]
    assert torch.allclose(turns[1], spread(x[1::2]).mean().expand(3, 3))
    assert torch.allclose(MinibatchStd(3, whole=True)(x)[:, 2], spread(x).mean().expand(4, 3, 3))
    assert torch.allclose(MinibatchStd(per_pixel=True)(x)[2, 2], spread(x).mean(0))
    assert torch.equal(MinibatchStd(4, unbiased=True)(x[:1])[:, 2], torch.zeros(1, 3, 3))
