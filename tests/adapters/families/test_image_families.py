"""Networks that take images: rebuilt by name, against what their authors' code gave and against themselves."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from family_golden import TOLERANCE, Golden
from family_made import saved, seeded
from gandissect_adapters.families.family import Case, Family
from gandissect_adapters.families.images import (
    animegan,
    junyanz,
    pytorch_gan_images,
    pytorch_gan_super_resolution,
    super_resolution,
)
from gandissect_adapters.families.table import recognised
from gandissect_adapters.recognise.unwrap import StateDict
from torch import Tensor, nn

import gandissect
from gandissect.errors import NotOpened, UsageError
from gandissect.tap import tap


def layers_equal(case: Golden, prefix: str, net: nn.Module, run: Callable[[], object]) -> None:
    """Every recorded layer comes out; some were recorded for the first image alone."""
    names = [key.removeprefix(prefix) for key in case.arrays if key.startswith(prefix)]
    with torch.no_grad(), tap(net, names) as seen:
        run()
    assert names
    for name in names:
        expected = case[prefix + name]
        close(seen[name][: len(expected)], expected)


def close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    scale = float(expected.square().mean().sqrt())
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance * scale


@pytest.mark.parametrize(
    ("folder", "file", "critic", "side"),
    [
        ("cyclegan_junyanz_resnet6_64", "G.pth", "D.pth", 64),
        ("pix2pix_junyanz_unet128", "G.pth", None, 128),
        ("pgan_cyclegan_64", "G.pth", "D.pth", 64),
        ("pgan_srgan_x4", "G.pth", "D.pth", 16),
        ("pgan_esrgan_x4", "G.pth", "D.pth", 16),
        ("esrgan_rrdb_x4", "ckpt.pth", None, 16),
        ("srgan_leftthomas_x2", "G.pth", "D.pth", 16),
    ],
)
@torch.no_grad()
def test_translators_give_the_images_layers_and_logits_that_were_recorded(
    shared: Path, folder: str, file: str, critic: str | None, side: int
) -> None:
    case = Golden.of(shared, folder)
    generator, discriminator = rebuilt(case.folder / file, critic)

    case.equal(generator(case["input"]), "image")
    layers_equal(case, "g:", generator, lambda: generator(case["input"]))
    if discriminator is not None:
        case.equal(discriminator(case["d_image"]), "d_out")
        layers_equal(case, "d:", discriminator, lambda: discriminator(case["d_image"]))
    assert case["input"].shape[-1] == side


def rebuilt(path: Path, critic: str | None) -> tuple[nn.Module, nn.Module | None]:
    """The modules of a golden folder by their families, without the probing that opening adds."""
    module = claimed(path)[0].generator(case_of(path)).generator
    assert module is not None
    if critic is None:
        return module, None
    beside = path.parent / critic
    return module, claimed(beside)[0].discriminator(case_of(beside)).discriminator


def claimed(path: Path) -> tuple[Family, str]:
    family, role = recognised(StateDict("", torch.load(path, weights_only=True)))
    assert family is not None
    return family, role


def case_of(path: Path) -> Case:
    tensors = torch.load(path, weights_only=True)
    return Case(StateDict("", tensors), tensors, claimed(path)[0].options)


def test_a_super_resolution_gan_opens_with_its_discriminator_end_to_end(shared: Path) -> None:
    gan = Golden.of(shared, "srgan_leftthomas_x2").open("G.pth", "D.pth", size="16")

    assert gan.generator.latent.prior == "image" and gan.generator.latent.span == (0.0, 1.0)
    assert gan.generator.image_shape == (3, 32, 32)
    assert gan.discriminator is not None and gan.discriminator.output == "probability"
    assert gan.capabilities.edits and gan.capabilities.gradients and gan.capabilities.discriminator_gradients


@torch.no_grad()
def test_pix2pix_with_each_images_own_statistics_gives_what_its_test_script_shows(shared: Path) -> None:
    case = Golden.of(shared, "pix2pix_junyanz_unet128")
    gan = case.open("G.pth", statistics="batch")

    case.equal(gan.generator.module(case["input"])[:1], "image_batchstats_b1")


@torch.no_grad()
def test_a_discriminator_of_pairs_is_rebuilt_but_refused_for_single_images(shared: Path) -> None:
    case = Golden.of(shared, "pix2pix_junyanz_unet128")
    tensors = torch.load(case.folder / "D.pth", weights_only=True)
    module = junyanz.patch_discriminator(tensors, "model")

    case.equal(module(case["d_image"]), "d_out")
    layers_equal(case, "d:", module, lambda: module(case["d_image"]))
    with pytest.raises(NotOpened, match="6 channels, an input image together with its output"):
        case.open("G.pth", "D.pth")


@pytest.mark.slow
@torch.no_grad()
def test_a_strangers_encoder_decoder_opens_from_its_file_alone(shared: Path) -> None:
    folder = shared / "checkpoints" / "monet-i2i-rantony"
    if not folder.is_dir():
        pytest.skip("the stranger is not in the shared folder")
    gan = gandissect.open(folder / "generator.pth", device="cpu", assume={"size": "16"})
    stored = np.load(folder / "io.npz")
    images = gan.generator.module(torch.from_numpy(stored["network_input"]))

    close(images, torch.from_numpy(stored["images"]), 1e-3)
    assert gan.opening.mismatch is not None and gan.opening.mismatch < 0.05


OURS: dict[str, tuple[str, str]] = {
    "aitorzip_cyclegan.D": ("PatchGan", "discriminator"),
    "aitorzip_cyclegan.G": ("JunyanzResnet", "generator"),
    "animegan2.G": ("AnimeGan", "generator"),
    "diffusers_vqmodel.G": ("DiffusersVq", "generator"),
    "erik_cyclegan.Discriminator": ("PyTorchGanCycleGan", "discriminator"),
    "erik_cyclegan.GeneratorResNet": ("PyTorchGanCycleGan", "generator"),
    "erik_esrgan.Discriminator": ("PyTorchGanSrgan", "discriminator"),
    "erik_esrgan.GeneratorRRDB": ("PyTorchGanEsrgan", "generator"),
    "erik_pix2pix.Discriminator": ("PyTorchGanCycleGan", "discriminator"),
    "erik_pix2pix.GeneratorUNet": ("PyTorchGanPix2Pix", "generator"),
    "erik_srgan.Discriminator": ("PyTorchGanSrgan", "discriminator"),
    "erik_srgan.GeneratorResNet": ("PyTorchGanSrgan", "generator"),
    "erik_stargan.Discriminator": ("PyTorchGanStarGan", "discriminator"),
    "erik_stargan.GeneratorResNet": ("PyTorchGanStarGan", "generator"),
    "esrgan_rrdb_old.G": ("Esrgan", "generator"),
    "leftthomas_srgan.D": ("Leftthomas", "discriminator"),
    "leftthomas_srgan.G": ("Leftthomas", "generator"),
    "realesrgan_srvgg.G": ("Srvgg", "generator"),
    "taming_patchgan.D": ("PatchGan", "discriminator"),
    "taming_vqgan_f16.G": ("TamingVqGan", "generator"),
}
_MODULES = ("animegan", "junyanz", "pytorch_gan_images", "pytorch_gan_super_resolution", "super_resolution", "vqgan",
            "plain_translation")  # fmt: skip


def skeletons(shared: Path) -> dict[str, dict[str, Tensor]]:
    """Names and shapes of networks of forty codebases, as tensors without memory."""
    folder = shared / "golden" / "skeletons"
    if not folder.is_dir():
        pytest.skip("golden/skeletons is not in the shared folder")
    found = {path.name.removesuffix(".json"): json.loads(path.read_text())["keys"] for path in folder.glob("*.json")}
    return {
        name: {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}
        for name, keys in found.items()
    }


def test_of_forty_codebases_exactly_our_own_are_claimed(shared: Path) -> None:
    claims: dict[str, tuple[str, str]] = {}
    for name, tensors in skeletons(shared).items():
        family, role = recognised(StateDict("", tensors))
        if family is not None and type(family).__module__.rpartition(".")[2] in _MODULES:
            claims[name] = (type(family).__name__, role)

    assert claims == OURS


def test_every_network_of_our_codebases_takes_all_tensors_of_its_file(shared: Path) -> None:
    for name, tensors in skeletons(shared).items():
        if name not in OURS:
            continue
        family, role = recognised(StateDict("", tensors))
        assert family is not None
        case = Case(StateDict("", tensors), tensors, family.options)
        if role == "generator":
            made = family.generator(case)
            assert made.generator is not None and made.main_layers
            assert set(made.main_layers) <= {f"{n}{call}" for n, _ in made.generator.named_modules() for call in CALLS}
        else:
            assert family.discriminator(case).discriminator is not None


CALLS = ("", "@1", "@2")


def _resnet(norm: junyanz.Norm, **changes: object) -> nn.Module:
    plan = {"into": 3, "widths": (4, 8, 16), "out": 3, "blocks": 2, "norm": norm, **changes}
    return junyanz.ResnetGenerator(junyanz.ResnetPlan(**plan))  # type: ignore[arg-type]  # a test's shorthand


def _rrdb(names: super_resolution.RrdbNames, folded: int) -> nn.Module:
    shapes = {"conv_first": (8, 3 * folded**2), f"{names.trunk}.0.{names.dense.format(1)}.conv1": (4, 8)}
    shapes |= dict.fromkeys((names.after, *names.ups, names.high), (8, 8)) | {"conv_last": (3, 8)}
    tensors = {f"{name}.weight": torch.empty(*shape, 3, 3) for name, shape in shapes.items()}
    return super_resolution.RrdbNet(tensors, names, folded)


MADE: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "cyclegan, instance norm": (lambda: _resnet("instance"), 16),
    "cyclegan, batch norm and dropout": (lambda: _resnet("batch", dropout=True), 16),
    "global generator of pix2pixHD": (lambda: _resnet("batch", widths=(4, 6, 8, 10)), 16),
    "cyclegan of PyTorch-GAN": (lambda: _resnet("instance", block="block", nearest=True), 16),
    "pix2pix, batch norm": (lambda: junyanz.UnetGenerator(3, (4, 6, 8), 3, "batch"), 8),
    "pix2pix, instance norm": (lambda: junyanz.UnetGenerator(3, (4, 6, 8, 8), 3, "instance"), 16),
    "pix2pix of PyTorch-GAN": (
        lambda: pytorch_gan_images.UnetGenerator([(3, 4), (4, 5), (5, 6)], [(6, 5), (10, 4)], (8, 3)), 16),
    "srgan of PyTorch-GAN": (lambda: pytorch_gan_super_resolution.srgan(3, 4, 3, blocks=2, steps=1), 8),
    "esrgan of PyTorch-GAN": (lambda: pytorch_gan_super_resolution.esrgan(3, 4, blocks=1, steps=1), 8),
    "stargan": (lambda: pytorch_gan_images.StarGanGenerator(3, (4, 8, 16), 5, 1), 16),
    "srgan of leftthomas": (lambda: super_resolution.LeftthomasGenerator(3, 4, 1), 8),
    "esrgan": (lambda: _rrdb(super_resolution.XINNTAO, 1), 8),
    "real-esrgan x2": (lambda: _rrdb(super_resolution.BASICSR, 2), 8),
    "srvgg": (lambda: super_resolution.SrvggNet([(3, 4), (4, 4), (4, 12)], 2), 8),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(MADE))
def test_a_saved_network_opens_as_itself_whatever_the_batch(kind: str, tmp_path: Path) -> None:
    make, side = MADE[kind]
    original = seeded(make())
    gan = gandissect.open(saved(original, tmp_path / "net.pth"), assume={"size": str(side)}, device="cpu")
    images = torch.rand(3, 3, side, side) * 2 - 1
    labels = (torch.tensor([0, 2, 4]),) if gan.generator.num_classes else ()

    with torch.no_grad():
        together = gan.generator.module(images, *labels)
        alone = gan.generator.module(images[1:2], *(label[1:2] for label in labels))
        expected = original(images, *labels)
    assert torch.equal(together, expected)
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    assert gan.capabilities.gradients and gan.capabilities.edits
    assert all(layer.main for layer in gan.generator.main_layers())


def test_a_label_of_stargan_changes_the_image(tmp_path: Path) -> None:
    gan = gandissect.open(
        saved(seeded(MADE["stargan"][0]()), tmp_path / "net.pth"), assume={"size": "16"}, device="cpu"
    )
    image = torch.rand(1, 3, 16, 16)

    with torch.no_grad():
        made = [gan.generator(image, torch.tensor([label])) for label in (0, 1)]
    assert gan.generator.num_classes == 5 and not torch.equal(*made)


@torch.no_grad()
def test_an_esrgan_of_2018_is_the_network_of_2019_under_other_names(tmp_path: Path) -> None:
    original = seeded(_rrdb(super_resolution.XINNTAO, 1))
    old = {"conv_first": "model.0", "upconv1": "model.3", "upconv2": "model.6", "HRconv": "model.8",
           "conv_last": "model.10", "trunk_conv": "model.1.sub.1"}  # fmt: skip
    state = {}
    for name, tensor in original.state_dict().items():
        module, _, field = name.rpartition(".")
        target = old.get(module) or module.replace("RRDB_trunk", "model.1.sub") + ".0"
        state[f"{target}.{field}"] = tensor
    torch.save(state, tmp_path / "RRDB_ESRGAN_x4_old.pth")
    gan = gandissect.open(tmp_path / "RRDB_ESRGAN_x4_old.pth", assume={"size": "8"}, device="cpu")
    images = torch.rand(2, 3, 8, 8)

    assert torch.equal(gan.generator.module(images), original(images))
    assert any("2019" in note for note in gan.opening.notes)


@torch.no_grad()
def test_old_instance_norms_that_stored_statistics_do_not_use_them(tmp_path: Path) -> None:
    original = seeded(_resnet("instance"))
    state = {**original.state_dict(), "model.2.running_mean": torch.ones(4), "model.2.running_var": torch.ones(4)}
    torch.save(state, tmp_path / "net.pth")
    gan = gandissect.open(tmp_path / "net.pth", assume={"size": "16"}, device="cpu")
    images = torch.rand(1, 3, 16, 16)

    assert torch.equal(gan.generator.module(images), original(images))


def anime_tensors() -> dict[str, Tensor]:
    """Names and shapes of a narrow AnimeGANv2."""
    shapes: dict[str, tuple[int, ...]] = {}
    plain = {"block_a.0": (4, 3, 7), "block_a.1": (4, 4, 3), "block_a.2": (4, 4, 3), "block_b.0": (4, 4, 3),
             "block_b.1": (4, 4, 3), "block_c.0": (4, 4, 3), "block_c.3": (4, 6, 3), "block_d.0": (4, 4, 3),
             "block_e.0": (4, 4, 3), "block_e.1": (4, 4, 3), "block_e.2": (4, 4, 7)}  # fmt: skip
    for block, into in (("block_c.1", 4), ("block_c.2", 6)):
        plain |= {f"{block}.layers.0": (2 * into, into, 1), f"{block}.layers.1": (2 * into, 1, 3)}
        shapes |= {f"{block}.layers.1.1.bias": (2 * into,), f"{block}.layers.2.weight": (6, 2 * into, 1, 1)}
        shapes |= {f"{block}.layers.3.weight": (6,), f"{block}.layers.3.bias": (6,)}
    for name, (out, into, side) in plain.items():
        shapes |= {f"{name}.1.weight": (out, into, side, side), f"{name}.2.weight": (out,), f"{name}.2.bias": (out,)}
    return {name: torch.empty(shape) for name, shape in shapes.items()} | {
        "out_layer.0.weight": torch.empty(3, 4, 1, 1)
    }


@torch.no_grad()
def test_animegan_opens_as_itself_and_keeps_the_size(tmp_path: Path) -> None:
    original = seeded(animegan.AnimeGenerator(anime_tensors()))
    gan = gandissect.open(saved(original, tmp_path / "paint.pt"), assume={"size": "16"}, device="cpu")
    images = torch.rand(2, 3, 16, 16)

    assert torch.equal(gan.generator.module(images), original(images))
    assert gan.generator.image_shape == (3, 16, 16)


def translator() -> nn.Module:
    """A plain encoder-decoder whose batch norms have seen pictures."""
    layers: list[nn.Module] = []
    for into, out in ((3, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(into, out, 4, 2, 1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]
    for into, out in ((32, 24), (24, 16)):
        layers += [nn.ConvTranspose2d(into, out, 4, 2, 1), nn.BatchNorm2d(out), nn.LeakyReLU(0.2)]
    net = seeded(nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()))
    space = gandissect.LatentSpace("image", (3, 32, 32), "image")
    pictures = gandissect.sampling.latents(3, range(64), space).reshape(64, 3, 32, 32)
    net.train()
    for _ in range(60):
        net(pictures)
    return net.eval()


@torch.no_grad()
def test_a_plain_translator_is_rebuilt_with_the_activation_that_its_batch_norms_remember(tmp_path: Path) -> None:
    original = translator()
    gan = gandissect.open(saved(original, tmp_path / "generator.pth"), assume={"size": "16"}, device="cpu")
    images = torch.rand(2, 3, 16, 16)

    assert torch.allclose(gan.generator.module(images), original(images), atol=1e-5)
    assert "lrelu0.2" in [a.value for a in gan.opening.assumptions]


def test_a_plain_translator_whose_statistics_fit_nothing_is_refused(tmp_path: Path) -> None:
    net = translator()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean += 3 * torch.randn(norm.num_features)

    with pytest.raises(NotOpened, match="connections that the file does not show"):
        gandissect.open(saved(net, tmp_path / "generator.pth"), device="cpu")


def test_a_size_that_the_network_cannot_halve_is_refused(tmp_path: Path) -> None:
    path = saved(seeded(_resnet("instance")), tmp_path / "net.pth")

    with pytest.raises(UsageError, match="multiples of 4"):
        gandissect.open(path, assume={"size": "18"}, device="cpu")
