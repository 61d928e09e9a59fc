"""The light GANs, rebuilt from their files: FastGAN, its Projected GAN variants, Lightweight GAN and R3GAN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from gandissect_adapters.families.classic import pytorch_gan_coupled
from gandissect_adapters.families.family import Family
from gandissect_adapters.families.fast import (
    fastgan,
    gigagan,
    lightweight_gan,
    projected_gan,
    r3gan,
)
from gandissect_adapters.families.fast.ops import feed_noise
from gandissect_adapters.families.opening import rebuild_discriminator, rebuild_generator
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.unwrap import StateDict, find_networks
from torch import Tensor, nn

import gandissect
from gandissect.errors import GandissectError, NotOpened, UsageError
from gandissect.tap import tap
from tests.family_golden import Golden
from tests.seeded_weights import Shapes, norm, opened_and_checked, seeded, under

FAST: tuple[Family, ...] = (
    fastgan.FastGan(),
    projected_gan.ProjectedFastGan(),
    lightweight_gan.LightweightGan(),
    r3gan.R3Gan(),
    gigagan.GigaGan(),
    pytorch_gan_coupled.PyTorchGanCoGan(),
    pytorch_gan_coupled.PyTorchGanAaeEncoder(),
)
LIGHT_PIXELS = [[0.0790756, 1.4489173, -1.0199258], [0.0790745, 1.4489154, -1.0199264]]


def every_second(image: Tensor) -> Tensor:
    return image[..., ::2, ::2]


@torch.no_grad()
def test_fastgan_gives_the_recorded_images_logits_and_layers(shared: Path, tmp_path: Path) -> None:
    case = Golden.of(shared, "fastgan_256")
    last = torch.load(case.folder / "all_1000.pth", weights_only=True)
    torch.save({"g": last["g"], "d": last["d"]}, tmp_path / "last.pth")
    gan = gandissect.open(tmp_path / "last.pth", device="cpu")
    module = gan.generator.module
    assert isinstance(module, fastgan.Generator) and gan.discriminator is not None
    big, small = module.both(case["z"])
    case.equal(every_second(big), "image")
    case.equal(every_second(small), "image_128")
    case.equal(gan.discriminator.module(big.clamp(-1, 1), small.clamp(-1, 1)).flatten(), "d_out")
    assert case.layers_equal(module, "g:", lambda: module(case["z"])) == 2
    feed_noise(module, [case[f"noise_{index}"] for index in range(6)])
    case.equal(every_second(module(case["z"])), "image_noise")


@pytest.mark.parametrize("file", ["1000.pth", "all_1000.pth"])
@torch.no_grad()
def test_fastgan_averages_are_used_also_where_they_are_a_bare_list(shared: Path, file: str) -> None:
    case = Golden.of(shared, "fastgan_256")
    case.equal(every_second(case.open(file).generator.module(case["z"])), "image_ema")


@torch.no_grad()
def test_projected_gan_gives_the_recorded_images_and_layers(shared: Path) -> None:
    case = Golden.of(shared, "projected-gan-fastgan-lite-128")
    module = case.open("best_model.pkl").generator.module
    case.equal(module(case["z"]), "img")
    assert case.layers_equal(module, "act/G_ema.", lambda: module(case["z"])) == 3


@torch.no_grad()
def test_lightweight_gan_gives_the_recorded_images_logits_and_layers(shared: Path) -> None:
    case = Golden.of(shared, "lightweight_gan_64")
    gan = case.open("model_1.pt")
    module = gan.generator.module
    case.equal(module(case["z"]), "image")
    assert case.layers_equal(module, "g:", lambda: module(case["z"])) == 3
    feed_noise(module, [case[f"noise_{index}"] for index in range(4)])
    case.equal(module(case["z"]), "image_noise")
    assert gan.discriminator is not None
    critic = gan.discriminator.module
    assert isinstance(critic, lightweight_gan.Discriminator)
    whole, small = critic.logits(case["d_image"])
    case.equal(whole, "d_out")
    case.equal(small, "d_out_32")


@torch.no_grad()
def test_lightweight_gan_rebuilds_the_last_step_too(shared: Path) -> None:
    case = Golden.of(shared, "lightweight_gan_64")
    tree = torch.load(case.folder / "model_1.pt", weights_only=True)
    last = next(net for net in find_networks(tree) if net.name == "GAN.G")
    made = rebuild_generator(lightweight_gan.LightweightGan(), last, {})
    assert made.generator is not None
    case.equal(made.generator(case["z"]), "image_G")


@torch.no_grad()
def test_r3gan_gives_the_recorded_images_logits_and_layers(shared: Path) -> None:
    case = Golden.of(shared, "r3gan-32")
    gan = case.open("network-snapshot-000000001.pkl")
    module = gan.generator.module
    images = module(case["z"])
    case.equal(images, "img")
    assert (
        float((images - case["img_as_stored_bf16"]).abs().mean() / case["img"].std()) < 2**-6
    )  # bfloat16 keeps 8 bits
    assert case.layers_equal(module, "act/G_ema.", lambda: module(case["z"])) == 3
    assert gan.discriminator is not None
    case.equal(gan.discriminator.module(images), "d_logits")


def skeletons(shared: Path) -> dict[str, StateDict]:
    found = {}
    for path in sorted((shared / "golden" / "skeletons").glob("*.json")):
        keys = json.loads(path.read_text())["keys"]
        tensors = {name: torch.empty(shape, device="meta") for name, (shape, _) in keys.items()}
        found[path.stem] = StateDict("G", tensors)
    return found


def test_each_family_claims_its_own_skeletons_and_no_other(shared: Path) -> None:
    claimed = {
        (name, family.role(net)) for name, net in skeletons(shared).items() for family in FAST if family.role(net)
    }
    assert claimed == {
        ("projectedgan_fastgan_64.G", "generator"),
        ("lucidrains_lightweight_gan.G", "generator"),
        ("lucidrains_lightweight_gan.D", "discriminator"),
        ("r3gan.G", "generator"),
        ("r3gan.D", "discriminator"),
        ("gigagan.G", "generator"),
        ("erik_cogan.CoupledGenerators", "generator"),
        ("erik_cogan.CoupledDiscriminators", "discriminator"),
    }


def fast_shapes(prefix: str, z: int, sides: Mapping[int, int], noisy: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a FastGAN generator without its image layers; ``sides`` are side -> units."""
    shapes = {f"{prefix}init.init.0.weight": (z, 2 * sides[4], 4, 4)}
    shapes |= under(f"{prefix}init.init.1.", norm(2 * sides[4]))
    for side in [side for side in sides if side > 4]:
        path, inputs, units = f"{prefix}feat_{side}.", sides[side // 2], sides[side]
        shapes[f"{path}1.weight"] = (2 * units, inputs, 3, 3)
        shapes |= under(f"{path}{3 if side in noisy else 2}.", norm(2 * units))
        if side in noisy:
            shapes |= {f"{path}2.weight": (1,), f"{path}6.weight": (1,), f"{path}5.weight": (2 * units, units, 3, 3)}
            shapes |= under(f"{path}7.", norm(2 * units))
        if side in (64, 128, 256, 512):
            shapes[f"{prefix}se_{side}.main.1.weight"] = (units, sides[side // 16], 4, 4)
            shapes[f"{prefix}se_{side}.main.3.weight"] = (units, units, 1, 1)
    return shapes


SIDES = {4: 8, 8: 8, 16: 6, 32: 4, 64: 4, 128: 2, 256: 1}


def fastgan_file(folder: Path, size: int) -> Path:
    sides = {side: units for side, units in {**SIDES, 512: 2, 1024: 1}.items() if side <= size}
    shapes = fast_shapes("", 5, sides, (8, 32, 128, 512))
    tensors = seeded({**shapes, "to_128.weight": (3, 2, 1, 1), "to_big.weight": (3, 1, 3, 3)})
    torch.save({"g": tensors}, folder / "1.pth")
    return folder / "1.pth"


def test_a_made_fastgan_opens_and_its_main_layers_are_the_gated_maps(tmp_path: Path) -> None:
    gan = opened_and_checked(fastgan_file(tmp_path, 256), torch.randn(2, 5))
    main = [info.name for info in gan.generator.layers if info.main]
    assert main == ["init", "feat_8", "feat_16", "feat_32", "se_64", "se_128", "se_256"]


@torch.no_grad()
def test_only_the_largest_fastgan_ends_in_a_tanh(tmp_path: Path) -> None:
    families = {}
    for size in (256, 1024):
        net = find_networks(torch.load(fastgan_file(tmp_path, size), weights_only=True))[0]
        module = rebuild_generator(fastgan.FastGan(), net, {}).generator
        assert isinstance(module, fastgan.Generator)
        module.to_big.weight *= 100.0
        families[size] = module(torch.randn(1, 5, generator=torch.Generator().manual_seed(0)))
    assert families[1024].shape[-1] == 1024 and float(families[1024].abs().max()) <= 1.0
    assert float(families[256].abs().max()) > 1.0


def test_a_wrong_number_of_noise_maps_is_refused(tmp_path: Path) -> None:
    net = find_networks(torch.load(fastgan_file(tmp_path, 256), weights_only=True))[0]
    module = rebuild_generator(fastgan.FastGan(), net, {}).generator
    assert module is not None
    with pytest.raises(UsageError, match="6 noise layers; 1 maps"):
        feed_noise(module, [torch.zeros(1, 1, 8, 8)])


def test_the_first_layer_is_normalised_over_its_outputs_also_where_it_is_square() -> None:
    layer = nn.utils.spectral_norm(nn.ConvTranspose2d(16, 16, 4, bias=False))
    for _ in range(3):
        layer(torch.randn(1, 16, 1, 1))
    layer.eval()
    tensors = seeded(
        fast_shapes("", 16, SIDES, (8, 32, 128)) | {"to_128.weight": (3, 2, 1, 1), "to_big.weight": (3, 1, 3, 3)}
    )
    del tensors["init.init.0.weight"]
    tensors |= {f"init.init.0.{name}": tensor.detach() for name, tensor in layer.state_dict().items()}
    module = rebuild_generator(fastgan.FastGan(), StateDict("g", tensors), {}).generator
    assert isinstance(module, fastgan.Generator)
    z = torch.randn(2, 16)
    torch.testing.assert_close(module.init.init[0](z[:, :, None, None]), layer(z[:, :, None, None]))


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_the_side_of_a_square_weight_is_told_by_its_singular_vectors_where_no_family_knows_it(
    kind: type[nn.Conv2d | nn.ConvTranspose2d],
) -> None:
    layer = nn.utils.spectral_norm(kind(16, 16, 3, padding=1, bias=False))
    for _ in range(5):
        layer(torch.randn(1, 16, 4, 4))
    layer.eval()(torch.zeros(1, 16, 4, 4))
    folded, _ = fold({f"up.{name}": tensor for name, tensor in layer.state_dict().items()})
    torch.testing.assert_close(folded["up.weight"], layer.weight)


def test_a_vector_that_fits_no_side_of_its_weight_is_refused() -> None:
    with pytest.raises(NotOpened, match=r"no side of 'up\.weight_orig'"):
        fold({"up.weight_orig": torch.ones(4, 4, 3, 3), "up.weight_u": torch.ones(5), "up.weight_v": torch.ones(36)})


def test_a_list_of_another_networks_tensors_is_no_average(tmp_path: Path) -> None:
    tensors = torch.load(fastgan_file(tmp_path, 256), weights_only=True)["g"]
    nets = find_networks({"g": tensors, "g_ema": [torch.zeros(3), torch.zeros(4)]})
    assert [net.name for net in nets] == ["g"]


def test_an_average_saved_as_a_list_takes_names_and_buffers_from_the_network_beside_it(tmp_path: Path) -> None:
    tensors = torch.load(fastgan_file(tmp_path, 256), weights_only=True)["g"]
    parameters = [name for name in tensors if "running" not in name]
    average = [tensors[name] + 1.0 for name in parameters]
    first, second = find_networks({"g": tensors, "g_ema": average})
    assert (first.name, first.averaged, second.name) == ("g_ema", True, "g")
    assert list(first.tensors) == list(tensors)
    for name, tensor in first.tensors.items():
        torch.testing.assert_close(tensor, tensors[name] + (1.0 if name in parameters else 0.0))


def critic_shapes(size: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"down_from_big.0.weight": (2, 3, *((3, 3) if size == 256 else (4, 4)))}
    shapes |= {"down_from_big.2.weight": (2, 2, 4, 4), **under("down_from_big.3.", norm(2))} if size == 1024 else {}
    for side in (4, 8, 16, 32, 64):
        parts = {"main.0": 4, "main.3": 3, "direct.1": 1}
        shapes |= {f"down_{side}.{part}.weight": (2, 2, taps, taps) for part, taps in parts.items()}
        for part in ("main.1.", "main.4.", "direct.2."):
            shapes |= under(f"down_{side}.{part}", norm(2))
    for name in ("se_2_16", "se_4_32", "se_8_64"):
        shapes |= {f"{name}.main.1.weight": (2, 2, 4, 4), f"{name}.main.3.weight": (2, 2, 1, 1)}
    shapes |= {"rf_big.0.weight": (2, 2, 1, 1), **under("rf_big.1.", norm(2)), "rf_big.3.weight": (1, 2, 4, 4)}
    shapes |= {"down_from_small.0.weight": (2, 3, 4, 4), "rf_small.weight": (1, 2, 4, 4)}
    for index in (2, 3, 4):
        shapes |= {f"down_from_small.{index}.main.0.weight": (2, 2, 4, 4)}
        shapes |= under(f"down_from_small.{index}.main.1.", norm(2))
    return shapes


@pytest.mark.parametrize("size", [256, 512, 1024])
@torch.no_grad()
def test_a_fastgan_discriminator_of_every_size_gives_25_logits_of_each_copy(size: int) -> None:
    net = StateDict("d", seeded(critic_shapes(size)))
    critic = rebuild_discriminator(fastgan.FastGan(), net, {}, (3, size, size)).discriminator
    assert critic is not None
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    scores = critic(image)
    assert scores.shape == (1, 50)
    torch.testing.assert_close(scores, critic(image, image[..., :: size // 128, :: size // 128]))


def class_block(path: str, inputs: int, units: int, z: int, *, big: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index in ("1", "2") if big else ("",):
        shapes[f"{path}conv{index}.weight"] = (2 * units, units if index == "2" else inputs, 3, 3)
        for part in ("gain", "bias"):
            shapes |= {f"{path}bn{index}.{part}.weight": (2 * units, z), f"{path}bn{index}.{part}.bias": (2 * units,)}
        shapes |= {f"{path}bn{index}.stored_mean": (2 * units,), f"{path}bn{index}.stored_var": (2 * units,)}
    return shapes | ({f"{path}noise.weight": (1,)} if big else {})


@pytest.mark.parametrize("big", [False, True])
def test_a_made_projected_gan_with_classes_opens_and_its_classes_matter(tmp_path: Path, big: bool) -> None:
    plain = fast_shapes("synthesis.", 6, SIDES, ())
    shapes = {name: shape for name, shape in plain.items() if ".feat_" not in name}
    for side in list(SIDES)[1:]:
        shapes |= class_block(f"synthesis.feat_{side}.", SIDES[side // 2], SIDES[side], 6, big=big)
    image: Shapes = {
        "synthesis.to_big.weight": (3, 2, 3, 3),
        "synthesis.to_big.bias": (3,),
        "synthesis.embed.weight": (4, 6),
    }
    torch.save({"G_ema": seeded({**shapes, **image})}, tmp_path / "best.pt")
    z = torch.randn(1, 6).expand(2, 6)
    gan = opened_and_checked(tmp_path / "best.pt", z, torch.tensor([0, 3]))
    assert gan.generator.num_classes == 4 and gan.generator.image_shape == (3, 128, 128)
    first, second = gan.generator.module(z, torch.tensor([0, 3]))
    assert not torch.allclose(first, second)


def test_a_projected_gan_below_128_pixels_is_refused_with_the_reason() -> None:
    shapes = fast_shapes("synthesis.", 6, SIDES, tuple(SIDES))
    tensors = seeded({**shapes, "synthesis.to_big.weight": (3, 4, 3, 3), "synthesis.to_big.bias": (3,)})
    with pytest.raises(NotOpened, match="takes 4 units"):
        rebuild_generator(projected_gan.ProjectedFastGan(), StateDict("G_ema", tensors), {})


def light_entry(path: str, inputs: int, units: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{path}0.0.net.0.weight": (4 * inputs, inputs, 1, 1), f"{path}0.0.net.0.bias": (4 * inputs,)}
    shapes |= {
        f"{path}0.2.1.weight": (2 * units, inputs, 4, 4),
        f"{path}0.2.1.bias": (2 * units,),
        f"{path}0.3.weight": (1,),
    }
    return shapes | under(f"{path}0.4.", norm(2 * units))


def light_attention(path: str, units: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{path}norm.g": (1, units, 1, 1),
        f"{path}norm.b": (1, units, 1, 1),
        f"{path}fn.to_lin_q.weight": (512, units, 1, 1),
        f"{path}fn.to_lin_kv.net.0.weight": (units, 1, 3, 3),
        f"{path}fn.to_lin_kv.net.1.weight": (1024, units, 1, 1),
        f"{path}fn.to_q.weight": (512, units, 1, 1),
        f"{path}fn.to_kv.weight": (1024, units, 1, 1),
        f"{path}fn.to_out.weight": (units, 1024, 1, 1),
        f"{path}fn.to_out.bias": (units,),
    }


def light_file(folder: Path) -> Path:
    """128 pixels, the map of 16 gates that of 128, attention at 8."""
    shapes: dict[str, tuple[int, ...]] = {"initial_conv.0.weight": (4, 8, 4, 4), "initial_conv.0.bias": (8,)}
    shapes |= under("initial_conv.1.", norm(8)) | {"out_conv.weight": (3, 4, 3, 3), "out_conv.bias": (3,)}
    for index in range(5):
        shapes |= light_entry(f"layers.{index}.", 4, 4) | {f"layers.{index}.0.1.f": (3,)}
    shapes |= light_attention("layers.1.2.", 4)
    gate: Shapes = {"to_k": (1, 4, 1, 1), "net.0": (3, 4, 1, 1), "net.2": (4, 3, 1, 1)}
    for name, shape in gate.items():
        shapes |= {f"layers.1.1.{name}.weight": shape, f"layers.1.1.{name}.bias": shape[:1]}
    made = seeded(shapes)
    both = {f"{head}.{name}": tensor for head in ("GE", "G") for name, tensor in made.items()}
    torch.save({"GAN": both, "version": "1.2.1"}, folder / "model_1.pt")
    return folder / "model_1.pt"


def test_a_made_lightweight_gan_gates_a_map_eight_times_as_large(tmp_path: Path) -> None:
    gan = opened_and_checked(light_file(tmp_path), torch.randn(2, 4))
    assert gan.generator.image_shape == (3, 128, 128) and gan.generator.output_range == (0.0, 1.0)
    module, z = gan.generator.module, torch.randn(1, 4)
    with torch.no_grad(), tap(module, ["layers.1.1", "layers.4.0", "out_conv"]) as seen:
        module(z)
    expected = module.get_submodule("out_conv")(seen["layers.4.0"] * seen["layers.1.1"])
    torch.testing.assert_close(seen["out_conv"], expected)


@torch.no_grad()
def test_gate_and_attention_give_the_pixels_of_the_published_lightweight_gan(tmp_path: Path) -> None:
    """The numbers are those of lightweight-gan 1.1.1 with the same weights, noise left out."""
    net = find_networks(torch.load(light_file(tmp_path), weights_only=True))[0]
    module = rebuild_generator(lightweight_gan.LightweightGan(), net, {}).generator
    assert module is not None
    pixels = module(torch.linspace(-1, 1, 8).reshape(2, 4))[:, :, 30, 50]
    torch.testing.assert_close(pixels, torch.tensor(LIGHT_PIXELS), rtol=1e-4, atol=1e-4)


def r3_block(path: str, units: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{path}LinearLayer1.Layer.weight": (2 * units, units, 1, 1), f"{path}NonLinearity1.Bias": (2 * units,)}
    shapes |= {f"{path}LinearLayer2.Layer.weight": (2 * units, 2, 3, 3), f"{path}NonLinearity2.Bias": (2 * units,)}
    return shapes | {f"{path}LinearLayer3.Layer.weight": (units, 2 * units, 1, 1)}


def with_kernels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return {name: torch.outer(taps, taps) if name.endswith("Kernel") else tensor for name, tensor in tensors.items()}


def r3gan_file(folder: Path, classes: int) -> Path:
    first: Shapes = {"MainLayers.0.Layers.0.Basis": (6, 4, 4), "MainLayers.0.Layers.0.LinearLayer.weight": (6, 5 + 3)}
    maker = {**first, **r3_block("MainLayers.0.Layers.1.", 6), "MainLayers.1.Layers.0.Resampler.Kernel": (4, 4)}
    maker |= {"MainLayers.1.Layers.0.LinearLayer.Layer.weight": (4, 6, 1, 1), **r3_block("MainLayers.1.Layers.1.", 4)}
    maker |= {"AggregationLayer.Layer.weight": (3, 4, 1, 1), "EmbeddingLayer.weight": (3, classes)}
    critic = {"ExtractionLayer.Layer.weight": (4, 3, 1, 1), **r3_block("MainLayers.0.Layers.0.", 4)}
    critic |= {
        "MainLayers.0.Layers.1.Resampler.Kernel": (4, 4),
        "MainLayers.0.Layers.1.LinearLayer.Layer.weight": (6, 4, 1, 1),
    }
    critic |= {**r3_block("MainLayers.1.Layers.0.", 6), "MainLayers.1.Layers.1.Basis.weight": (6, 1, 4, 4)}
    critic |= {"MainLayers.1.Layers.1.LinearLayer.weight": (3, 6), "EmbeddingLayer.weight": (3, classes)}
    torch.save({"G_ema": with_kernels(seeded(maker)), "D": with_kernels(seeded(critic, 1))}, folder / "snapshot.pt")
    return folder / "snapshot.pt"


def test_a_made_r3gan_with_classes_opens_and_both_networks_take_the_label(tmp_path: Path) -> None:
    z, labels = torch.randn(2, 5), torch.tensor([1, 3])
    gan = opened_and_checked(r3gan_file(tmp_path, 4), z, labels)
    assert gan.generator.num_classes == 4 and gan.generator.latent.shape == (5,)
    assert gan.discriminator is not None
    images = gan.generator(z, labels)
    scores = torch.stack([gan.discriminator(images, torch.full((2,), label)) for label in range(4)])
    assert len(scores.unique()) == 8


def test_a_discriminator_for_another_size_is_refused(tmp_path: Path) -> None:
    nets = find_networks(torch.load(r3gan_file(tmp_path, 4), weights_only=True))
    critic = next(net for net in nets if net.name == "D")
    with pytest.raises(GandissectError, match="is for 8 pixels, the generator makes 16"):
        rebuild_discriminator(r3gan.R3Gan(), critic, {}, (3, 16, 16))
