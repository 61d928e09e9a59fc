"""NVlabs' StyleGANs give the numbers of their original code, out of pickles and out of bare state dicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from family_golden import Golden
from gandissect_adapters.families.family import Case, Family
from gandissect_adapters.families.layers import minibatch_std
from gandissect_adapters.families.opening import rebuild_generator
from gandissect_adapters.families.style import ops as style_ops
from gandissect_adapters.families.style import stylegan2, stylegan3, styleganxl
from gandissect_adapters.families.style.nvlabs import Mapping as MappingNetwork
from gandissect_adapters.families.style.nvlabs import StyleGenerator
from gandissect_adapters.families.style.style_network import style_spaces
from gandissect_adapters.families.style.stylegan2_nets import Discriminator, Epilogue, Layout, SynthesisNetwork
from gandissect_adapters.recognise.unwrap import StateDict, find_networks
from torch import Tensor, nn

import gandissect
from gandissect.errors import NotOpened
from gandissect.files.reading import read_tensors

STRIPPED = "network-snapshot-000001.stripped.pkl"
FOLDERS = {
    "nvlabs-stylegan2-ada-64": STRIPPED,
    "nvlabs-stylegan2-ada-32-cond": STRIPPED,
    "nvlabs-stylegan3-t-32": STRIPPED,
    "nvlabs-stylegan3-r-32": STRIPPED,
    "stylegan-xl-32-stem": "best_model.pkl",
}
UNLIKE = ("nvlabs-stylegan2-ada-32-cond", "nvlabs-stylegan3-r-32")
"""One of each architecture; what else there is differs in sizes and labels."""
FAMILIES: Mapping[str, Family] = {
    "stylegan2": stylegan2.StyleGan2(),
    "stylegan3": stylegan3.StyleGan3(),
    "styleganxl": styleganxl.StyleGanXl(),
}


def network(case: Golden, name: str = "G_ema") -> StateDict:
    """One network of the folder's pickle, with its records."""
    tree = read_tensors(case.folder / FOLDERS[case.folder.name])
    return next(net for net in find_networks(tree) if net.name == name)


def bare(net: StateDict) -> StateDict:
    """The same without anything that only a pickle says."""
    return StateDict("", net.tensors)


def rebuilt(net: StateDict, **assume: str) -> StyleGenerator:
    family = next(family for family in FAMILIES.values() if family.role(net) == "generator")
    module = rebuild_generator(family, net, {key.replace("_", "-"): value for key, value in assume.items()}).generator
    assert isinstance(module, StyleGenerator)
    return module


def labels_of(case: Golden, key: str = "c") -> tuple[Tensor, ...]:
    return (case[key].argmax(1),) if key in case.arrays else ()


def parts_equal(case: Golden, net: nn.Module, prefix: str, run: Callable[[], object]) -> int:
    """Assert that recorded outputs come out, those of blocks (``b8:0`` maps, ``b8:1`` image) too; how many there were."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, output: object) -> None:
        parts = enumerate(output) if isinstance(output, tuple) else [("", output)]
        seen.update({f"{name}:{index}".rstrip(":"): part for index, part in parts if isinstance(part, Tensor)})

    names = [key.removeprefix(prefix) for key in case.arrays if key.startswith(prefix)]
    for name in {name.partition(":")[0] for name in names}:
        net.get_submodule(name).register_forward_hook(lambda _m, _args, output, name=name: keep(name, output))
    run()
    for name in names:
        case.equal(seen[name][: len(case[prefix + name])], prefix + name)
    return len(names)


@pytest.mark.parametrize("folder", FOLDERS)
@torch.no_grad()
def test_a_pickle_opens_with_its_images_scores_and_layers(shared: Path, folder: str) -> None:
    case = Golden.of(shared, folder)
    gan = case.open(FOLDERS[folder])
    z, labels = case["z"], labels_of(case)
    case.equal(gan.generator(z, *labels), "img")
    assert parts_equal(case, gan.generator.module, "act/G_ema.", lambda: gan.generator(z, *labels)) >= 3
    if "d_logits" in case.arrays:
        assert gan.discriminator is not None
        score = gan.discriminator.module
        case.equal(score(case["img"], *labels), "d_logits")
        assert parts_equal(case, score, "act/D.", lambda: score(case["img"], *labels)) >= 2
    if "d_in8" in case.arrays:
        case.equal(score(case["d_in8"], *labels_of(case, "d_c8")), "d_logits8")


@torch.no_grad()
def test_an_older_pickle_protocol_says_the_same(shared: Path) -> None:
    case = Golden.of(shared, "nvlabs-stylegan2-ada-32-cond")
    tree = read_tensors(case.folder / "network-snapshot-000001.stripped.proto3.pkl")
    net = next(net for net in find_networks(tree) if net.name == "G_ema")
    case.equal(rebuilt(net)(case["z"], *labels_of(case)), "img")


@pytest.mark.parametrize("folder", FOLDERS)
@torch.no_grad()
def test_styles_truncation_and_noise_are_the_recorded_ones(shared: Path, folder: str) -> None:
    case = Golden.of(shared, folder)
    net, z, labels = network(case), case["z"], labels_of(case)
    plain = rebuilt(net)
    w = plain.mapping(z, *labels)
    case.equal(w, "w")
    case.equal(plain.spread(w, *(labels or (None,))), "ws")
    case.equal(rebuilt(net, truncation="0.7")(z, *labels), "img_psi0.7")
    if "ws_psi0.7_cutoff4" in case.arrays:
        cut = rebuilt(net, truncation="0.7", truncation_layers="4")
        case.equal(cut.spread(w, *(labels or (None,))), "ws_psi0.7_cutoff4")
    if "img_noise_none" in case.arrays:
        case.equal(rebuilt(net, noise="zero")(z, *labels), "img_noise_none")
    if "img_transform" in case.arrays:
        plain.get_buffer("synthesis.input.transform").copy_(case["transform"])
        case.equal(plain(z), "img_transform")


@pytest.mark.parametrize(
    "folder", [name if name in UNLIKE else pytest.param(name, marks=pytest.mark.slow) for name in FOLDERS]
)
@torch.no_grad()
def test_a_bare_state_dict_gives_the_same_images(shared: Path, folder: str) -> None:
    case = Golden.of(shared, folder)
    case.equal(rebuilt(bare(network(case)))(case["z"], *labels_of(case)), "img")


@pytest.mark.parametrize("kind", [pytest.param("pt", marks=pytest.mark.slow), "safetensors"])
@torch.no_grad()
def test_files_of_bare_state_dicts_open_with_their_discriminator(shared: Path, tmp_path: Path, kind: str) -> None:
    case = Golden.of(shared, "nvlabs-stylegan2-ada-32-cond")
    files = [tmp_path / f"{name}.{kind}" for name in ("G_ema", "D")]
    for file in files:
        weights = {name: tensor.contiguous() for name, tensor in network(case, file.stem).tensors.items()}
        if kind == "pt":
            torch.save(weights, file)
        else:
            pytest.importorskip("safetensors.torch").save_file(weights, file)
    gan = gandissect.open(files[0], discriminator=files[1], device="cpu")
    case.equal(gan.generator(case["z"], *labels_of(case)), "img")
    assert gan.discriminator is not None
    case.equal(gan.discriminator.module(case["d_in8"], *labels_of(case, "d_c8")), "d_logits8")


@pytest.mark.parametrize("folder", [name for name in FOLDERS if "stylegan2" not in name])
def test_the_layer_table_made_of_names_is_the_recorded_one(shared: Path, folder: str) -> None:
    net = network(Golden.of(shared, folder))
    table = stylegan3.layer_table(Case(bare(net), net.tensors, stylegan3.StyleGan3.options))
    assert len(table) >= 8
    for facts in table:
        said = net.records[f"synthesis.{facts.name}"].attributes
        assert [*facts.pad, *facts.pad] == said["padding"]
        assert (facts.up, facts.down) == (said["up_factor"], said["down_factor"])
        assert (facts.inputs, facts.outputs) == (said["in_channels"], said["out_channels"])
        assert (facts.coloured, facts.clamp) == (said["is_torgb"], said["conv_clamp"])


def test_the_families_claim_their_own_skeletons_and_no_other(shared: Path) -> None:
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    claimed = {}
    for path in folder.glob("*.json"):
        keys = json.loads(path.read_text())["keys"]
        net = StateDict("", {name: torch.empty(shape, device="meta") for name, (shape, _) in keys.items()})
        claims = [(name, role) for name, family in FAMILIES.items() if (role := family.role(net))]
        if claims:
            claimed[path.stem] = claims
    assert claimed == {
        "nvlabs_sg2ada_32_cond.G": [("stylegan2", "generator")],
        "nvlabs_sg2ada_64.G": [("stylegan2", "generator")],
        "nvlabs_sg2ada_64.D": [("stylegan2", "discriminator")],
        "nvlabs_sg3t_64.G": [("stylegan3", "generator")],
        "nvlabs_sg3r_64.G": [("stylegan3", "generator")],
    }


def seeded(net: nn.Module) -> nn.Module:
    """The network with every weight, noise strength and average away from its default; filters stay filters."""
    for name, tensor in net.state_dict().items():
        if not name.endswith("resample_filter"):
            tensor.copy_(torch.randn_like(tensor) * 0.5)
    return net.eval()


def small_pair(architecture: str, classes: int) -> tuple[nn.Module, nn.Module]:
    layout = Layout({4: 8, 8: 6, 16: 4}, channels=1, w=5, architecture=architecture)
    mapping = MappingNetwork(7, 5, 2, classes=classes, embedding=5 if classes else 0)
    label = MappingNetwork(0, 6, 2, classes=classes, embedding=6, averaged=False) if classes else None
    epilogue = Epilogue(layout, spread=2, group=4, outputs=6 if classes else 1)
    return seeded(StyleGenerator(mapping, SynthesisNetwork(layout))), seeded(Discriminator(layout, epilogue, label))


@pytest.mark.parametrize(
    ("architecture", "classes"),
    [
        ("skip", 0),
        ("resnet", 3),
        ("orig", 0),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in [("skip", 3), ("resnet", 0), ("orig", 3)]),
    ],
)
def test_a_stylegan2_made_here_opens_in_each_architecture(tmp_path: Path, architecture: str, classes: int) -> None:
    generator, critic = small_pair(architecture, classes)
    torch.save({"G_ema": generator.state_dict(), "D": critic.state_dict()}, tmp_path / "made.pt")
    gan = gandissect.open(tmp_path / "made.pt", device="cpu")
    z, labels = torch.randn(4, 7), (torch.tensor([2, 0, 1, 2]),) if classes else ()
    images = generator(z, *labels)
    torch.testing.assert_close(gan.generator(z, *labels), images)
    assert gan.discriminator is not None
    torch.testing.assert_close(gan.discriminator.module(images, *labels), critic(images, *labels))
    assert (gan.generator.num_classes, gan.generator.image_shape) == (classes, (1, 16, 16))
    assert len(gan.generator.main_layers()) == 3


@pytest.mark.parametrize("name", ["w", "w+", "s"])
def test_inner_spaces_lead_to_the_same_truncated_image(tmp_path: Path, name: str) -> None:
    torch.save(small_pair("resnet", 3)[0].state_dict(), tmp_path / "made.pt")
    made = gandissect.open(tmp_path / "made.pt", device="cpu", assume={"truncation": "0.6"}).generator
    z, labels = torch.randn(3, 7, requires_grad=True), torch.tensor([0, 2, 1])
    space = made.space(name)
    inside = space.enter(z, labels)
    assert inside.shape == (3, *space.shape)
    images = space.leave(inside, labels)
    torch.testing.assert_close(images, made.module(z, labels))
    assert torch.autograd.grad(images.sum(), z)[0].abs().min() > 0
    assert space.centre is not None
    assert space.centre.shape == space.shape


@torch.no_grad()
def test_the_centre_of_each_space_is_one_image() -> None:
    net = rebuilt(StateDict("", small_pair("skip", 0)[0].state_dict()))
    centres = [space.leave(space.centre[None], None) for space in style_spaces(net) if space.centre is not None]
    assert len(centres) == 3
    torch.testing.assert_close(centres[0], centres[1])
    torch.testing.assert_close(centres[0], centres[2])


def alias_free(labelled: bool, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Weights of a small StyleGAN3 with layers of those names, or of a StyleGAN-XL."""
    stream = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream)

    made = {"input.weight": draw(4, 4), "input.transform": torch.eye(3), "input.freqs": draw(4, 2).clamp(-1, 1)}
    made |= {"input.phases": draw(4), "input.affine.weight": draw(4, 6), "input.affine.bias": draw(4)}
    units, rate = 4, 16
    for name in names:
        size, out = (int(part) for part in name.split("_")[1:])
        last = out == 3
        after = 32 if size == 32 else size - 20
        kernel = 1 if last else 3
        made |= {f"{name}.weight": draw(out, units, kernel, kernel), f"{name}.bias": draw(out)}
        made |= {f"{name}.affine.weight": draw(units, 6), f"{name}.affine.bias": draw(units)}
        made[f"{name}.magnitude_ema"] = torch.tensor(0.5)
        if not last:
            taps = {"up": 12 * after // rate, "down": 12}
            made |= {f"{name}.{way}_filter": draw(count).softmax(0) for way, count in taps.items()}
        units, rate = out, after
    weights = {f"synthesis.{key}": value for key, value in made.items()}
    label = {"embed.weight": draw(5, 3), "embed_proj.weight": draw(7, 3), "embed_proj.bias": draw(7)}
    parts = {"w_avg": draw(5, 6) if labelled else draw(6), "fc0.bias": draw(6)}
    parts |= {"fc0.weight": draw(6, 14 if labelled else 7), **(label if labelled else {})}
    return weights | {f"mapping.{key}": value for key, value in parts.items()}


PLAIN = ("L0_36_4", "L1_36_4", "L2_52_4", "L3_32_4", "L4_32_3")
GROWN = ("L0_36_4", "L1_36_4", "L2_36_4", "L3_52_4", "L4_52_4", "L5_32_4", "L6_32_3")


@pytest.mark.parametrize(
    ("labelled", "names"), [(False, PLAIN), pytest.param(True, PLAIN, marks=pytest.mark.slow), (True, GROWN)]
)
def test_alias_free_weights_made_here_open(tmp_path: Path, labelled: bool, names: tuple[str, ...]) -> None:
    torch.save(alias_free(labelled, names), tmp_path / "made.pt")
    gan = gandissect.open(tmp_path / "made.pt", device="cpu")
    made = gan.generator
    assert gan.opening.family == ("StyleGAN-XL" if labelled else "StyleGAN3 (NVlabs)")
    assert (made.image_shape, made.num_classes) == ((3, 32, 32), 5 if labelled else 0)
    z, labels = torch.randn(4, 7), (torch.tensor([4, 0, 1, 2]),) if labelled else ()
    alone = [made.module(z[i : i + 1], *(label[i : i + 1] for label in labels)) for i in range(4)]
    torch.testing.assert_close(made.module(z, *labels), torch.cat(alone), rtol=1e-4, atol=1e-4)
    layer = made.layer(f"synthesis.{names[-2]}")
    assert layer.main and layer.shape == (4, 32, 32)


@torch.no_grad()
def test_classes_of_styleganxl_are_pulled_to_their_own_centre() -> None:
    net = rebuilt(StateDict("", alias_free(True, PLAIN)), truncation="0")
    labels = torch.tensor([3, 1])
    ws = net.spread(net.mapping(torch.randn(2, 7), labels), labels)
    torch.testing.assert_close(ws[:, 0], net.mapping.w_avg[labels])


def test_layers_whose_rates_do_not_meet_are_refused() -> None:
    weights = alias_free(False, PLAIN)
    weights["synthesis.L2_52_4.up_filter"] = torch.ones(12)
    with pytest.raises(NotOpened, match="L2_52_4 takes 16 samples"):
        rebuilt(StateDict("", weights))


def test_a_tensorflow_pickle_is_said_to_be_one(tmp_path: Path) -> None:
    networks = b"cdnnlib.tflib.network\nNetwork\n)\x81}b" * 3
    (tmp_path / "stylegan2-ffhq-config-f.pkl").write_bytes(b"\x80\x02" + networks + b"\x87.")
    with pytest.raises(NotOpened, match=r"TensorFlow pickle .* convert .* legacy\.py"):
        gandissect.open(tmp_path / "stylegan2-ffhq-config-f.pkl", device="cpu")


@pytest.mark.parametrize(("up", "down", "pad"), [(1, 1, (2, 1)), (2, 1, (3, 2)), (1, 2, (1, 1)), (4, 2, (-2, -5))])
@pytest.mark.parametrize("separable", [True, False])
def test_resampling_is_stuffing_padding_filtering_and_dropping(
    up: int, down: int, pad: tuple[int, int], separable: bool
) -> None:
    x, kernel = torch.randn(2, 3, 7, 9), torch.randn(6) if separable else torch.randn(6, 6)
    stuffed = torch.zeros(2, 3, 7 * up, 9 * up)
    stuffed[:, :, ::up, ::up] = x
    square = torch.outer(kernel, kernel) if separable else kernel
    weight = (2.0 * square).flip((0, 1)).expand(3, 1, 6, 6)
    expected = F.conv2d(F.pad(stuffed, (*pad, *pad)), weight, groups=3)[:, :, ::down, ::down]
    actual = style_ops.resample(x, kernel, up=up, down=down, pad=pad, gain=2.0)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_a_modulated_convolution_has_a_weight_of_its_own_for_each_sample() -> None:
    x, weight, style = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(2, 3)
    each = 0.3 * weight[None] * style[:, None, :, None, None]
    each = each / (each.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    expected = torch.cat([F.conv2d(x[i : i + 1], each[i], padding=1) for i in range(2)])
    torch.testing.assert_close(style_ops.modulated_conv(x, weight, style, gain=0.3), expected, rtol=1e-4, atol=1e-5)


def test_minibatch_statistics_are_of_the_samples_of_a_group() -> None:
    x = torch.randn(6, 4, 2, 2)
    spread = minibatch_std(x, 2, 2)[:, 4:, 0, 0]
    pair = torch.stack([x[1], x[4]]).reshape(2, 2, 2, 2, 2)  # samples 1 and 1 + 6 / 2; slices of the units
    torch.testing.assert_close(spread[4], pair.std(0, correction=0).mean((1, 2, 3)), rtol=1e-4, atol=1e-5)
    neighbours = minibatch_std(x, 2, 1, consecutive=True, unbiased=True)[:, 4, 0, 0]
    torch.testing.assert_close(neighbours[3], x[2:4].std(0).mean(), rtol=1e-4, atol=1e-5)
    assert minibatch_std(x, 4, 1).shape == (6, 5, 2, 2)
