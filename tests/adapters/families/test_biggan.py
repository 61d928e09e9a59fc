"""BigGANs of three codebases give the numbers that their original implementations gave, and open at any size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from family_golden import Golden
from gandissect_adapters.families.family import Case, Family
from gandissect_adapters.families.opening import rebuild_discriminator, rebuild_generator
from gandissect_adapters.families.residual import biggan_hf, biggan_nets, studiogan_nets
from gandissect_adapters.families.residual.biggan import BigGanPyTorch
from gandissect_adapters.families.residual.biggan_hf import HuggingFaceBigGan, statistics_at
from gandissect_adapters.families.residual.biggan_ops import AttentionPlan, attention_at
from gandissect_adapters.families.residual.ops import CONV1X1, THETA_PHI, AttentionNames
from gandissect_adapters.families.residual.studiogan import StudioGan
from gandissect_adapters.recognise.unwrap import StateDict, find_networks
from torch import Tensor, nn

import gandissect
from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError
from gandissect.files.reading import read_tensors

FAMILIES: tuple[Family, ...] = (BigGanPyTorch(), HuggingFaceBigGan(), StudioGan())
LEAKY = {"critic_activation": "lrelu0.1"}
# folder, generator and discriminator to open (the ones whose layers were recorded), its images, another file and its images
PAIRS = [
    ("biggan_ajbrock_32", "G_ema.pth", "D.pth", {}, "G.pth", "image_G"),
    ("biggan_ajbrock_32_shared_hier_attn", "G_ema.pth", "D.pth", {}, "G.pth", "image_G"),
    ("biggan_deep_ajbrock_64", "G_ema.pth", "D.pth", {}, "G.pth", "image_G"),
    ("studiogan_big_resnet_32", "model=G.pth", "model=D.pth", {}, "model=G_ema.pth", "image_ema"),
    ("studiogan_resnet_32_uncond", "model=G.pth", "model=D.pth", {}, "model=G_ema.pth", "image_ema"),
    ("studiogan_deep_conv_32", "model=G.pth", "model=D.pth", LEAKY, "model=G_ema.pth", "image_ema"),
]


def state_of(path: Path) -> StateDict:
    return find_networks(read_tensors(path), path.stem)[0]


def family_of(net: StateDict) -> Family:
    return next(family for family in FAMILIES if family.role(net))


@pytest.mark.parametrize(("folder", "file", "critic", "assume", "other", "image"), PAIRS, ids=[row[0] for row in PAIRS])
@torch.no_grad()
def test_images_logits_and_layers_are_the_recorded_ones(
    shared: Path, folder: str, file: str, critic: str, assume: dict[str, str], other: str, image: str
) -> None:
    case = Golden.of(shared, folder)
    gan = case.open(file, critic, **assume)
    net, judge = gan.generator, gan.discriminator
    assert judge is not None
    labels = (case["y"],) if net.num_classes else ()
    case.equal(net.module(case["z"], *labels), "image")
    assert case.layers_equal(net.module, "g:", lambda: net.module(case["z"], *labels)) >= 3

    shown = (case["y"],) if judge.num_classes else ()
    case.equal(judge.module(case["d_image"], *shown), "d_out")
    count = len(case["d:blocks.0.0"])  # of one folder, the first image's alone was kept
    first = case["d_image"][:count], *(given[:count] for given in shown)
    assert case.layers_equal(judge.module, "d:", lambda: judge.module(*first)) == 1

    state = state_of(case.folder / other)
    averaged = rebuild_generator(family_of(state), state, {}).generator
    assert averaged is not None
    case.equal(averaged(case["z"], *labels), image)


@torch.no_grad()
def test_every_truncation_of_the_pretrained_biggan_gives_the_recorded_images(shared: Path) -> None:
    case = Golden.of(shared, "biggan_hf_32_irregular")
    gan = case.open("pytorch_model.bin", truncation="0.4")
    case.equal(gan.generator.module(case["z"], case["y"]), "image_trunc04")
    assert case.layers_equal(gan.generator.module, "g:", lambda: gan.generator.module(case["z"], case["y"])) == 3
    state = replace(state_of(case.folder / "pytorch_model.bin"), file={"config": case.meta["args"]})
    for truncation, key in (("0.41", "image_trunc041"), ("0.5", "image_trunc05"), ("1", "image_trunc10")):
        made = rebuild_generator(HuggingFaceBigGan(), state, {"truncation": truncation})
        assert made.generator is not None
        case.equal(made.generator(case["z"], case["y"]), key)


def test_the_families_claim_their_own_skeletons_and_no_others(shared: Path) -> None:
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    claimed: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*.json")):
        state = skeleton(path)
        for family in FAMILIES:
            if role := family.role(state):
                assert path.stem not in claimed
                claimed[path.stem] = (family.name, role)
    assert {name: role for name, (_, role) in claimed.items()} == {
        path.stem: "discriminator" if path.stem.endswith(".D") else "generator"
        for path in folder.glob("*.json")
        if path.stem.startswith(("biggan", "hf_pretrained_biggan", "studiogan"))
    }
    assert all(
        name.startswith("studiogan") == (family == StudioGan.name)
        and name.startswith("hf") == (family == HuggingFaceBigGan.name)
        for name, (family, _) in claimed.items()
    )


def skeleton(path: Path) -> StateDict:
    tensors = json.loads(path.read_text())["keys"]
    return StateDict("", {name: torch.empty(shape, device="meta") for name, (shape, _) in tensors.items()})


def rebuilt(shapes: Mapping[str, tuple[int, ...]], device: str = "cpu", *, critic: bool = False) -> Networks:
    """The network rebuilt from shapes alone; on the device "meta" no weight takes memory."""
    tensors = {name: torch.full(shape, 0.01, device=device) for name, shape in shapes.items()}
    state = StateDict("", tensors)
    family = family_of(state)
    case = Case(state, tensors, family.options)
    return family.discriminator(case) if critic else family.generator(case)


def folded(state: StateDict) -> dict[str, tuple[int, ...]]:
    """Shapes as they are once spectral norm is folded."""
    ends = (".u0", ".sv0", ".weight_u", ".weight_v")
    return {
        n.replace("weight_orig", "weight"): tuple(t.shape) for n, t in state.tensors.items() if not n.endswith(ends)
    }


@pytest.mark.parametrize(
    ("name", "latent", "size"),
    [
        ("biggan128", 120, 128),
        ("bigganDeep128", 128, 128),
        ("biggan_cifar32_noshare", 20, 32),
        ("hf_pretrained_biggan128", 128, 128),
        ("studiogan_bigresnet_cbn", 120, 32),
        ("studiogan_resnet_cbn", 128, 32),
        ("studiogan_deepconv_cbn", 128, 32),
    ],
)
@torch.no_grad()
def test_skeletons_of_larger_networks_are_rebuilt_and_make_images(
    shared: Path, name: str, latent: int, size: int
) -> None:
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    made = rebuilt(folded(skeleton(folder / f"{name}.G.json")))
    assert made.generator is not None
    assert made.latent is not None
    assert made.latent.size == latent
    z, y = torch.randn(1, made.latent.size), torch.zeros(1, dtype=torch.int64)
    images = made.generator(z, y)
    assert images.shape == (1, 3, size, size)
    if (folder / f"{name}.D.json").exists():
        judged = rebuilt(folded(skeleton(folder / f"{name}.D.json")), critic=True)
        assert judged.discriminator is not None
        assert judged.discriminator(images, y).numel() == 1


def biggan_shapes(
    multiples: tuple[int, ...], ch: int, chunk: int, shared: int, classes: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of G.pth as BigGAN-PyTorch writes it with --G_shared --hier."""
    widths = [ch * multiple for multiple in multiples]
    shapes: dict[str, tuple[int, ...]] = {
        "shared.weight": (classes, shared),
        "linear.weight": (16 * widths[0], chunk),
        "linear.bias": (16 * widths[0],),
    }
    for i, (inside, outside) in enumerate(pairwise(widths)):
        convolutions = (("conv1", inside, 3), ("conv2", outside, 3), ("conv_sc", inside, 1))
        for name, width, side in convolutions:
            shapes |= {
                f"blocks.{i}.0.{name}.weight": (outside, width, side, side),
                f"blocks.{i}.0.{name}.bias": (outside,),
            }
        for name, width in (("bn1", inside), ("bn2", outside)):
            shapes |= {f"blocks.{i}.0.{name}.{part}.weight": (width, shared + chunk) for part in ("gain", "bias")}
            shapes |= {f"blocks.{i}.0.{name}.stored_{part}": (width,) for part in ("mean", "var")}
    last = widths[-1]
    shapes |= {f"output_layer.0.{part}": (last,) for part in ("gain", "bias", "stored_mean", "stored_var")}
    return shapes | {"output_layer.2.weight": (3, last, 3, 3), "output_layer.2.bias": (3,)}


@pytest.mark.parametrize(
    ("multiples", "size"),
    [
        ((16, 16, 8, 4, 2, 1), 128),
        pytest.param((16, 16, 8, 8, 4, 2, 1), 256, marks=pytest.mark.slow),
        pytest.param((16, 16, 8, 8, 4, 2, 1, 1), 512, marks=pytest.mark.slow),
    ],
)
def test_the_published_sizes_open_at_their_resolution(multiples: tuple[int, ...], size: int) -> None:
    made = rebuilt(biggan_shapes(multiples, ch=96, chunk=20, shared=128, classes=1000), "meta")
    assert made.latent is not None
    assert made.latent.size == 20 * len(multiples)
    assert made.num_classes == 1000
    assert isinstance(made.generator, biggan_nets.BigGan)
    plan = made.generator.plan
    assert plan.side * 2 ** sum(block.resample for block in plan.blocks) == size


def seeded(net: nn.Module, seed: int = 0) -> nn.Module:
    """``net`` in eval mode with random weights and statistics that keep its activations near 1."""
    stream = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith(("var", "vars", "gamma", "sigma")):
            tensor.copy_(torch.rand(tensor.shape, generator=stream) + 0.5)
        elif tensor.is_floating_point():
            spread = max(1, tensor[0].numel() if tensor.dim() > 1 else 4) ** -0.5
            tensor.copy_(torch.randn(tensor.shape, generator=stream) * spread)
    return net.eval()


def attends(channels: int, names: AttentionNames = THETA_PHI) -> AttentionPlan:
    return AttentionPlan(channels, channels // 8, (1,) if names is CONV1X1 else (), names)


def small_biggan(statistics: biggan_nets.Statistics = "own") -> nn.Module:
    blocks = [
        biggan_nets.BlockPlan((0, 0), 16, 8, 8, resample=True, shortcut=True, attention=attends(8)),
        biggan_nets.BlockPlan((1, 0), 8, 8, 8, resample=True, shortcut=True),
    ]
    return seeded(
        biggan_nets.BigGan(
            biggan_nets.Plan(
                deep=False, blocks=blocks, latent=12, first=4, side=4, classes=3, shared=5, condition=9,
                hierarchy="chunks", colours=3, statistics=statistics, eps=1e-5,
            )
        )
    )  # fmt: skip


def small_deep_biggan() -> nn.Module:
    widths = ((16, 16), (16, 8), (8, 8), (8, 4))
    blocks = [
        biggan_nets.BlockPlan((i, 0), inside, 4, outside, resample=i % 2 == 1, shortcut=False)
        for i, (inside, outside) in enumerate(widths)
    ]
    return seeded(
        biggan_nets.BigGan(
            biggan_nets.Plan(
                deep=True, blocks=blocks, latent=6, first=11, side=4, classes=3, shared=5, condition=11,
                hierarchy="whole", colours=3, statistics="own", eps=1e-5,
            )
        )
    )  # fmt: skip


def small_pretrained() -> nn.Module:
    layers = [biggan_hf.Layer(8, 2, 8), biggan_hf.Layer(8, 2, 4, resample=True)]
    plan = biggan_hf.Plan(
        latent=6, classes=3, embedded=5, layers=layers, side=4, width=8, painted=4, sets=51, truncation=1.0, eps=1e-4
    )
    return seeded(biggan_hf.PretrainedBigGan(plan))


def small_studio(source: str) -> nn.Module:
    entries = [
        studiogan_nets.Entry(8, 16),
        studiogan_nets.Entry(attention=attends(16, CONV1X1)),
        studiogan_nets.Entry(16, 8),
    ]
    if source == "chunks":
        plan = studiogan_nets.Plan(entries, 12, 4, 4, "chunks", 9, 3, 5, 3, "relu")
        return seeded(studiogan_nets.StudioResnet(plan))
    plan = studiogan_nets.Plan(entries, 6, 6, 4, "labels", 3, 3, 0, 3, "relu")
    return seeded((studiogan_nets.StudioResnet if source == "labels" else studiogan_nets.StudioDeconv)(plan))


SMALL: dict[str, Callable[[], nn.Module]] = {
    "biggan": small_biggan,
    "biggan with mybn": lambda: small_biggan("stored"),
    "biggan with cross-replica norms": lambda: small_biggan("running"),
    "biggan-deep": small_deep_biggan,
    "pretrained biggan": small_pretrained,
    "big_resnet": lambda: small_studio("chunks"),
    "resnet": lambda: small_studio("labels"),
    "deep_conv": lambda: small_studio("deconv"),
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_saved_generator_opens_as_itself(kind: str, tmp_path: Path) -> None:
    net = SMALL[kind]()
    torch.save(net.state_dict(), tmp_path / "G.pth")
    gan = gandissect.open(tmp_path / "G.pth", device="cpu")
    generator = gan.generator
    z = torch.randn(4, generator.latent.size, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = torch.tensor([0, 1, 2, 0])
    images = generator(z, y)
    assert torch.equal(images, net(z, y))
    assert float(images.detach().std()) > 0.05
    assert not torch.allclose(images, generator(z, (y + 1) % 3))
    assert float(torch.autograd.grad(images.square().sum(), z)[0].abs().min(1).values.max()) > 0
    assert torch.allclose(generator(z[1:2], y[1:2]), images[1:2], atol=1e-5)
    assert generator.main_layers()
    for space in generator.inner:
        assert torch.equal(space.leave(space.enter(z, y), y), generator.module(z, y))


def test_classes_can_be_mixed_in_the_inner_space(tmp_path: Path) -> None:
    torch.save(small_biggan().state_dict(), tmp_path / "G.pth")
    gan = gandissect.open(tmp_path / "G.pth", device="cpu")
    space = gan.generator.space("z+class")
    z = torch.zeros(2, gan.generator.latent.size)
    inside = space.enter(z, torch.tensor([0, 1]))
    between = inside.mean(0, keepdim=True)
    with torch.no_grad():
        ends, middle = space.leave(inside, None), space.leave(between, None)
    assert min(float((middle - end).abs().max()) for end in ends) > 1e-3
    assert space.centre is not None
    assert torch.allclose(space.enter(torch.zeros(3, 12), torch.arange(3)).mean(0), space.centre)


def test_standing_statistics_are_divided_by_their_count() -> None:
    net = small_biggan("stored")
    sums: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        stored = name.endswith(("stored_mean", "stored_var"))
        sums[name] = tensor * 16.0 if stored else tensor
        if name.endswith("stored_mean"):
            sums[name.replace("stored_mean", "accumulation_counter")] = torch.tensor([16.0])
    made = rebuild_generator(BigGanPyTorch(), StateDict("", sums), {})
    assert made.generator is not None
    z, y = torch.randn(2, 12), torch.tensor([0, 2])
    assert torch.allclose(made.generator(z, y), net(z, y), atol=1e-6)
    assert any("16 batches" in note for note in made.notes)


def test_a_config_says_which_blocks_double_the_map(tmp_path: Path) -> None:
    layers = [biggan_hf.Layer(8, 2, 8, resample=True), biggan_hf.Layer(8, 2, 4)]
    plan = biggan_hf.Plan(
        latent=6, classes=3, embedded=5, layers=layers, side=4, width=8, painted=4, sets=51, truncation=1.0, eps=1e-3
    )
    net = seeded(biggan_hf.PretrainedBigGan(plan))
    config = {"layers": [[True, 2, 2], [False, 2, 1]], "eps": 1e-3}
    torch.save(net.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(config))
    z, y = torch.randn(2, 6), torch.tensor([0, 2])
    gan = gandissect.open(tmp_path, device="cpu")
    assert torch.equal(gan.generator.module(z, y), net(z, y))
    assert {fact.name: fact.sure for fact in gan.opening.assumptions}["upsample"]

    state = StateDict("", dict(net.state_dict()), file={"config": {"layers": [[False, 1, 1], [True, 1, 1]]}})
    assume = {"upsample": "0", "norm-eps": "1e-3"}
    said = rebuild_generator(HuggingFaceBigGan(), state, assume)
    assert said.generator is not None
    assert torch.equal(said.generator(z, y), net(z, y))
    with pytest.raises(UsageError, match="from 0 to 1"):
        rebuild_generator(HuggingFaceBigGan(), state, {"upsample": "2"})
    guessed = rebuild_generator(HuggingFaceBigGan(), state, {})  # the config's widths are not this file's
    assert not next(fact for fact in guessed.assumptions if fact.name == "upsample").sure


def test_statistics_between_two_truncations_are_weighted_as_in_the_codebase() -> None:
    rows = torch.arange(51.0)[:, None]
    assert statistics_at(rows, 1.0).item() == 50.0
    assert statistics_at(rows, 0.5).item() == 25.0
    # 0.415 lies at 20.75: the lower row gets 0.75
    assert statistics_at(rows, 0.415).item() == pytest.approx(20 * 0.75 + 21 * 0.25, abs=1e-4)


def test_a_truncation_outside_of_its_range_is_refused() -> None:
    state = StateDict("", dict(small_pretrained().state_dict()))
    with pytest.raises(UsageError, match="outside of 0 to 1"):
        rebuild_generator(HuggingFaceBigGan(), state, {"truncation": "1.5"})


def test_an_unconditional_big_resnet_takes_chunks_unless_they_are_said_to_be_labels() -> None:
    entries = [studiogan_nets.Entry(8, 8), studiogan_nets.Entry(8, 8)]
    net = seeded(studiogan_nets.StudioResnet(studiogan_nets.Plan(entries, 12, 4, 4, "chunks", 4, 0, 0, 3, "relu")))
    state = StateDict("", dict(net.state_dict()))
    made = rebuild_generator(StudioGan(), state, {})
    assert made.generator is not None
    z = torch.randn(2, 12)
    assert torch.equal(made.generator(z), net(z))
    labelled = rebuild_generator(StudioGan(), state, {"condition": "labels"})
    assert labelled.num_classes == 4


def critic_of(classes: int = 0, scores: int = 1, *, norms: bool = False) -> nn.Module:
    entries = [
        studiogan_nets.Entry(3, 8, resample=True, shortcut=True),
        studiogan_nets.Entry(8, 8, resample=True, shortcut=True),
        studiogan_nets.Entry(8, 8),
    ]
    return seeded(studiogan_nets.ResnetCritic(studiogan_nets.CriticPlan(entries, 8, classes, scores, norms, "relu")))


@pytest.mark.parametrize(("classes", "scores", "norms"), [(0, 1, False), (3, 1, False), (3, 3, False), (0, 1, True)])
@torch.no_grad()
def test_a_saved_studiogan_discriminator_opens_as_itself(classes: int, scores: int, norms: bool) -> None:
    net = critic_of(classes, scores, norms=norms)
    state = StateDict("", dict(net.state_dict()))
    assume = {"critic-heads": "per-class"} if scores > 1 else {}
    made = rebuild_discriminator(StudioGan(), state, assume, (3, 32, 32))
    assert made.discriminator is not None
    assert made.discriminator_classes == classes
    x, y = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    labels = (y,) if classes else ()
    assert torch.equal(made.discriminator(x, *labels), net(x, *labels))
    if classes:
        assert not torch.allclose(net(x, y), net(x, (y + 1) % 3))


@torch.no_grad()
def test_an_auxiliary_classifier_does_not_change_the_score() -> None:
    net = critic_of()
    tensors = {**net.state_dict(), "linear2.weight": torch.randn(5, 8), "embedding.weight": torch.randn(10, 5)}
    made = rebuild_discriminator(StudioGan(), StateDict("", tensors), {}, (3, 32, 32))
    assert made.discriminator is not None
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(made.discriminator(x), net(x))
    assert made.discriminator_classes == 0
    assert any("embedding, linear2" in note for note in made.notes)


def test_several_scores_of_unknown_meaning_are_refused() -> None:
    state = StateDict("", dict(critic_of(3, 3).state_dict()))
    with pytest.raises(NotOpened, match="critic-heads=per-class"):
        rebuild_discriminator(StudioGan(), state, {}, (3, 32, 32))


def test_a_generator_with_a_part_that_is_not_known_is_refused() -> None:
    tensors = {**small_biggan().state_dict(), "shared_feat.weight": torch.zeros(4, 4)}
    with pytest.raises(NotOpened, match="shared_feat"):
        rebuild_generator(BigGanPyTorch(), StateDict("", tensors), {})


def test_attention_is_read_off_its_own_shapes() -> None:
    plan = AttentionPlan(8, 3, (1,), CONV1X1)
    tensors = {f"blocks.1.0.{name}": tensor for name, tensor in plan.build().state_dict().items()}
    assert attention_at(tensors, "blocks.1.0", CONV1X1) == plan
    assert attention_at(tensors, "blocks.2.0", CONV1X1) is None


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("biggan", marks=pytest.mark.slow),
        "pretrained biggan",
        pytest.param("resnet", marks=pytest.mark.slow),
        "deep_conv",
    ],
)
@torch.no_grad()
def test_a_damaged_generator_is_refused_in_a_sentence_or_another_one_that_runs(kind: str) -> None:
    whole = dict(SMALL[kind]().state_dict())
    judged = [name for name in whole if not re.search(r"bn[234]\.(gain|bias)|bn_\d|blocks\.[3-9]", name)]
    refused = 0
    for name in judged:
        tensor = whole[name]
        others = (
            (None, tensor.flatten(), tensor[None], tensor[:0], torch.cat([tensor, tensor])) if tensor.dim() else (None,)
        )
        for other in others:
            rest = {key: value for key, value in whole.items() if key != name}
            state = StateDict("", rest if other is None else {**rest, name: other})
            family = next((family for family in FAMILIES if family.role(state)), None)
            try:
                made = rebuild_generator(family, state, {}) if family else Networks()
            except NotOpened:
                refused += 1
                continue
            if made.generator is not None and made.latent is not None:
                z, y = torch.zeros(1, made.latent.size), torch.zeros(1, dtype=torch.int64)
                assert made.generator(z, *((y,) if made.num_classes else ())).shape[:2] == (1, 3)
    assert refused > len(judged)


def test_the_deep_blocks_of_studiogan_are_not_taken_for_plain_ones() -> None:
    tensors = dict(small_studio("chunks").state_dict())
    assert StudioGan().role(StateDict("", tensors)) == "generator"
    tensors["blocks.0.0.conv2d3.weight"] = torch.zeros(4, 4, 3, 3)
    assert StudioGan().role(StateDict("", tensors)) == ""
