"""Residual and self-attention GANs give the numbers of their original implementations, and open from own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from family_golden import Golden
from gandissect_adapters.families.family import Family
from gandissect_adapters.families.opening import rebuild_discriminator
from gandissect_adapters.families.residual import caogang, cosgrove, heykeetae_sagan, mimicry
from gandissect_adapters.families.residual.mimicry import BlockPlan, DiscriminatorPlan, GeneratorPlan
from gandissect_adapters.families.residual.ops import QUERY_KEY_VALUE, SelfAttention
from gandissect_adapters.recognise.unwrap import StateDict
from torch import Tensor, nn

import gandissect
from gandissect.errors import NotOpened
from gandissect.gan import Gan
from gandissect.tap import tap

GOLDEN = (
    ("mimicry_sngan_32", "netG.pth", "netD.pth", {}),
    ("mimicry_sngan_64", "netG.pth", "netD.pth", {}),
    ("mimicry_wgan_gp_32", "netG.pth", "netD.pth", {"pool": "mean"}),
    ("mimicry_cgan_pd_32", "netG.pth", "netD.pth", {}),
    ("mimicry_sagan_32", "netG.pth", "netD.pth", {}),
    ("sagan_heykeetae_64", "G.pth", "D.pth", {}),
    ("sngan_christiancosgrove_dcgan_32", "G.pth", "D.pth", {}),
    ("wgan_gp_caogang_cifar10_32", "G.pth", "D.pth", {}),
)
FAMILIES: tuple[Family, ...] = (
    mimicry.Mimicry(), heykeetae_sagan.HeykeetaeSagan(), cosgrove.Cosgrove(), caogang.CaogangWgan(),
)  # fmt: skip


def seeded(net: nn.Module) -> nn.Module:
    """The network in eval mode with weights, gates and statistics that are all away from their defaults."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            low = 0.5 if name.endswith("running_var") else 0.0
            tensor.copy_(torch.rand_like(tensor) + low if low else torch.randn_like(tensor) * 0.2)
    return net.eval()


def saved(net: nn.Module, path: Path) -> Path:
    torch.save(net.state_dict(), path)
    return path


def spectral(net: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """The network with torch's spectral norm on some layers, after one pass of training."""
    for name in names:
        nn.utils.spectral_norm(net.get_submodule(name))
    return net


def plan(*widths: int, **more: object) -> GeneratorPlan:
    return GeneratorPlan(6, 4, widths, **more)  # type: ignore[arg-type]  # the fields' own types


def critic(widths: tuple[int, ...], shortcuts: tuple[bool, ...], head: str, **more: object) -> mimicry.Discriminator:
    names = [f"block{number}" for number in range(1, len(widths) + 1)]
    sizes = zip(names, (3, *widths), widths, shortcuts, strict=False)
    blocks = tuple(BlockPlan(name, into, out, short, pooled=short) for name, into, out, short in sizes)
    return mimicry.Discriminator(DiscriminatorPlan(blocks, head, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(("folder", "file", "judge", "assume"), GOLDEN, ids=[row[0] for row in GOLDEN])
@torch.no_grad()
def test_images_scores_and_layers_are_the_recorded_ones(
    shared: Path, folder: str, file: str, judge: str, assume: dict[str, str]
) -> None:
    case = Golden.of(shared, folder)
    gan = case.open(file, judge, **assume)
    given = gan.discriminator
    assert given is not None
    maker = gan.generator
    z = case["z"].reshape(-1, *maker.latent.shape)
    labels = (case["y"],) if maker.num_classes else ()
    asked = (case["y"],) if given.num_classes else ()
    case.equal(maker.module(z, *labels), "image")
    case.equal(given.module(case["d_image"], *asked).reshape(case["d_out"].shape), "d_out")
    assert case.layers_equal(maker.module, "g:", lambda: maker.module(z, *labels)) >= 2
    assert case.layers_equal(given.module, "d:", lambda: given.module(case["d_image"], *asked)) >= 1
    assert gan.capabilities.edits
    assert gan.capabilities.gradients
    assert gan.capabilities.labels == bool(labels)


@torch.no_grad()
def test_attention_maps_are_the_recorded_ones(shared: Path) -> None:
    case = Golden.of(shared, "sagan_heykeetae_64")
    state = StateDict("", torch.load(case.folder / "D.pth", weights_only=True))
    judge = rebuild_discriminator(heykeetae_sagan.HeykeetaeSagan(), state, {}, (3, 64, 64)).discriminator
    assert judge is not None
    names = ["attn1.softmax", "attn2.softmax"]
    with tap(judge, names) as seen:
        judge(case["d_image"])
    case.equal(seen[names[0]], "d_attn1")
    case.equal(seen[names[1]], "d_attn2")


def test_the_families_claim_their_own_codebases_and_no_other(shared: Path) -> None:
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    claimed = {}
    for file in sorted(folder.glob("*.json")):
        keys = json.loads(file.read_text())["keys"]
        tensors = {name: torch.empty(shape, device="meta") for name, (shape, _) in keys.items()}
        roles = [family.role(StateDict("", tensors)) for family in FAMILIES]
        claimed[file.stem] = "".join(role[:1].upper() for role in roles)
    ours = {stem for stem in claimed if stem.startswith(("mimicry", "heykeetae", "cosgrove"))}
    ours.discard("cosgrove_sngan.G")  # a plain stack, read without a family
    assert claimed == {stem: stem.rpartition(".")[2] if stem in ours else "" for stem in claimed}


MADE: Mapping[str, Callable[[], nn.Module]] = {
    "sngan": lambda: mimicry.Generator(plan(8, 8, 8, 8)),
    "sagan": lambda: mimicry.Generator(plan(16, 16, 16, 16, classes=3, attention=True)),
    "sngan 64": lambda: mimicry.Generator(plan(16, 8, 8, 4, 2)),
    "heykeetae": lambda: heykeetae_sagan.Generator((6, 32, 16, 8, 8), (1, 1)),
    "residual cosgrove": lambda: cosgrove.ResidualGenerator(6, 8),
    "mnist caogang": lambda: caogang.MnistGenerator(6, 4),
    "cifar caogang": lambda: caogang.CifarGenerator(6, 4),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_file_of_seeded_weights_draws_the_images_of_its_module(kind: str, tmp_path: Path) -> None:
    net = seeded(MADE[kind]())
    gan = gandissect.open(saved(net, tmp_path / "gen.pth"), device="cpu")
    z = torch.randn(3, 6)
    labels = (torch.tensor([0, 2, 1]),) if gan.generator.num_classes else ()
    images = gan.generator.module(z, *labels)
    assert torch.allclose(images, net(z, *labels), atol=1e-6)
    one = gan.generator.module(z[1:2], *(part[1:2] for part in labels))
    assert torch.allclose(one, images[1:2], atol=1e-5)
    assert gan.capabilities.gradients
    assert tuple(info.name for info in gan.generator.main_layers())[-1] in (
        "activation", "attn2", "model.4", "block2",
    )  # fmt: skip


def test_labels_change_the_image_of_a_generator_with_norms_by_class(tmp_path: Path) -> None:
    gan = gandissect.open(saved(seeded(MADE["sagan"]()), tmp_path / "netG.pth"), device="cpu")
    assert gan.generator.num_classes == 3
    z = torch.randn(1, 6)
    assert not torch.allclose(gan.generator(z, torch.tensor([0])), gan.generator(z, torch.tensor([1])))


def opened(maker: nn.Module, judge: nn.Module | Mapping[str, Tensor], folder: Path, **assume: str) -> Gan:
    """The two networks as they are read back from files of their own."""
    torch.save(judge.state_dict() if isinstance(judge, nn.Module) else dict(judge), folder / "netD.pth")
    file = saved(seeded(maker), folder / "netG.pth")
    return gandissect.open(file, discriminator=folder / "netD.pth", assume=assume, device="cpu")


def scores(gan: Gan, images: Tensor, *labels: Tensor) -> Tensor:
    assert gan.discriminator is not None
    with torch.no_grad():
        return gan.discriminator.module(images, *labels)


def test_a_projection_discriminator_with_spectral_norm_scores_as_its_module(tmp_path: Path) -> None:
    judge = seeded(critic((16, 16, 16, 16), (True, True, False, False), "l5", classes=3, attention=True))
    spectral(judge, ("block1.c1", "block2.c_sc", "attn_block.theta", "l5", "l_y"))
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([2, 0, 1])
    with torch.no_grad():
        judge.train()(images, labels)
        expected = judge.eval()(images, labels)
    gan = opened(MADE["sagan"](), judge, tmp_path)
    assert gan.discriminator is not None
    assert gan.discriminator.num_classes == 3
    assert torch.allclose(scores(gan, images, labels), expected, rtol=1e-4, atol=1e-4)


def test_heads_that_only_serve_training_are_left_out_and_said(tmp_path: Path) -> None:
    judge = seeded(critic((8, 8, 8, 8), (True, True, False, False), "l5"))
    images = torch.randn(2, 3, 32, 32)
    tensors = {**judge.state_dict(), "l_y.weight": torch.randn(4, 8), "l_y.bias": torch.randn(4)}
    gan = opened(MADE["sngan"](), tensors, tmp_path)
    assert torch.allclose(scores(gan, images), judge(images), atol=1e-4)
    assert any("l_y" in note for note in gan.opening.notes)


def test_the_blocks_of_infomax_gan_are_read_by_their_own_names(tmp_path: Path) -> None:
    judge = seeded(critic((8, 8, 8, 8), (True, True, False, False), "l5"))
    names = {"l5": "linear", "block4": "global_feat_blocks.0"}
    names |= {f"block{number}": f"local_feat_blocks.{number - 1}" for number in (1, 2, 3)}
    renamed = {names[key.partition(".")[0]] + "." + key.partition(".")[2]: t for key, t in judge.state_dict().items()}
    renamed["local_nrkhs_a.weight"] = torch.randn(8, 8, 1, 1)
    images = torch.randn(2, 3, 32, 32)
    gan = opened(MADE["sngan"](), renamed, tmp_path)
    assert torch.allclose(scores(gan, images), judge(images), atol=1e-4)


def test_at_48_pixels_the_last_block_keeps_its_map_and_the_name_of_the_head_tells_wgan_gp(tmp_path: Path) -> None:
    judge = seeded(critic((4, 4, 8, 8, 16), (True,) * 5, "l6"))
    with torch.no_grad():
        gan = opened(mimicry.Generator(GeneratorPlan(6, 6, (8, 8, 8, 8))), judge, tmp_path)
        assert gan.generator.image_shape == (3, 48, 48)
        assert gan.discriminator is not None
        x = torch.randn(2, 3, 48, 48)
        with tap(gan.discriminator.module, ["block4", "block5", "activation"]) as seen:
            out = gan.discriminator.module(x)
        assert seen["block4"].shape[-1] == seen["block5"].shape[-1] == 3
        assert torch.allclose(out, judge.get_submodule("l6")(seen["activation"].mean((2, 3))), atol=1e-5)


def barred(net: nn.Module, wrapped: Callable[[str], str]) -> dict[str, Tensor]:
    """The state dict as ``SpectralNorm`` of heykeetae saves it: raw weights, vectors of a converged iteration."""
    made: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        if not name.endswith("weight") or tensor.dim() == 1:
            made[wrapped(name)] = tensor
            continue
        left, values, right = torch.linalg.svd(tensor.flatten(1), full_matrices=False)
        tensor.div_(values[0])
        stem = wrapped(name)
        made |= {f"{stem}_bar": tensor * 3.0, f"{stem}_u": left[:, 0].clone(), f"{stem}_v": right[0].clone()}
    return made


def test_convolutions_that_stand_twice_in_a_file_are_read_with_spectral_norm(tmp_path: Path) -> None:
    judge = seeded(cosgrove.ResidualDiscriminator(8, named=True))

    def wrapped(name: str) -> str:
        module, _, field = name.rpartition(".")
        return f"{module}.module.{field}" if module == "fc" or ".model." in module or ".bypass." in module else name

    tensors = barred(judge, wrapped)
    images = torch.randn(2, 3, 32, 32)
    gan = opened(MADE["residual cosgrove"](), tensors, tmp_path)
    assert torch.allclose(scores(gan, images), judge(images), rtol=1e-3, atol=1e-5)


def test_a_critic_of_28_pixels_refuses_other_images(tmp_path: Path) -> None:
    judge = seeded(caogang.Critic("mnist", 4))
    gan = opened(MADE["mnist caogang"](), judge, tmp_path)
    x = torch.rand(2, 1, 28, 28)
    assert torch.allclose(scores(gan, x), judge(x), atol=1e-5)
    with pytest.raises(NotOpened, match="takes images of shape"):
        opened(MADE["cifar caogang"](), judge, tmp_path)


def test_attention_adds_the_mean_value_where_all_places_are_alike() -> None:
    block = seeded(SelfAttention(8, names=QUERY_KEY_VALUE, bias=True, gate_shape=(1,)))
    with torch.no_grad():
        block.get_submodule("query_conv").weight.zero_()  # type: ignore[union-attr,operator]
        block.get_submodule("query_conv").bias.zero_()  # type: ignore[union-attr,operator]
        x = torch.randn(2, 8, 4, 4)
        mean = block.get_submodule("value_conv")(x).mean((2, 3), keepdim=True)
        assert torch.allclose(block(x), x + block.get_parameter("gamma") * mean, atol=1e-5)


def test_pooled_attention_looks_at_a_quarter_of_the_places() -> None:
    block = seeded(SelfAttention(8, pooled=True))
    with torch.no_grad(), tap(block, ["softmax"]) as seen:
        block(torch.randn(1, 8, 6, 4))
    assert seen["softmax"].shape == (1, 24, 6)
