"""GigaGAN and CoGAN, rebuilt from made files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from gandissect_adapters.families.fast import gigagan
from gandissect_adapters.families.opening import rebuild_generator
from gandissect_adapters.recognise.unwrap import StateDict

import gandissect
from gandissect.errors import NotOpened
from gandissect.tap import tap
from tests.seeded_weights import norm, seeded, under

GIGA_PIXELS = [[-0.0096690, 0.6532579, -0.1424080], [-0.0097653, 0.6549987, -0.1389540]]


def giga_shapes() -> dict[str, tuple[int, ...]]:
    """16 pixels, widths 6, 8, 4, 2; gates from each entry to the next, attention of two heads at 8 pixels."""
    widths = (6, 8, 4, 2)
    shapes: dict[str, tuple[int, ...]] = {"init_block": (6, 4, 4), "init_conv.weights": (2, 6, 6, 3, 3)}
    for layer in ("style_network.net.0", "style_network.net.2"):
        shapes |= {f"{layer}.weight": (5, 5), f"{layer}.bias": (5,)}
    for index, (inputs, units) in enumerate(pairwise(widths)):
        path = f"layers.{index}."
        shapes |= {f"{path}1.0.weights": (2, units, inputs, 3, 3), f"{path}1.3.weights": (2, units, units, 3, 3)}
        shapes |= {
            f"{path}1.1.weight": (units, 1, 1),
            f"{path}1.4.weight": (units, 1, 1),
            f"{path}2.weights": (1, 3, units, 1, 1),
        }
        if index < 2:
            shapes |= {f"{path}6.1.f": (3,), f"{path}0.1.weight": (32, inputs), f"{path}0.1.bias": (32,)}
            shapes |= {f"{path}0.3.weight": (widths[index + 1], 32), f"{path}0.3.bias": (widths[index + 1],)}
        if index:
            shapes[f"{path}5.1.f"] = (3,)
    shapes |= {f"layers.1.3.attn.{name}.weight": (6, 4, 1, 1) for name in ("to_q", "to_k", "to_v")}
    shapes |= {"layers.1.3.attn.null_kv": (2, 2, 3), "layers.1.3.attn.to_out.weight": (4, 6, 1, 1)}
    shapes |= {"layers.1.3.attn.norm.gamma": (4, 1, 1), "layers.1.3.ff.0.gamma": (4, 1, 1)}
    shapes |= {"layers.1.3.ff.1.weight": (16, 4, 1, 1), "layers.1.3.ff.1.bias": (16,)}
    shapes |= {"layers.1.3.ff.3.weight": (4, 16, 1, 1), "layers.1.3.ff.3.bias": (4,)}
    return shapes | {"style_to_conv_modulations.weight": (66, 5), "style_to_conv_modulations.bias": (66,)}


@torch.no_grad()
def test_gigagan_gives_the_pixels_of_the_published_code_and_w_leads_to_the_same_image(tmp_path: Path) -> None:
    """The numbers are those of gigagan-pytorch 0.3.0 with the same weights, noise left out."""
    torch.save({"G": seeded(giga_shapes()), "version": "0.3.0"}, tmp_path / "model-1.ckpt")
    gan = gandissect.open(tmp_path / "model-1.ckpt", device="cpu")
    z = torch.linspace(-1, 1, 10).reshape(2, 5)
    images = gan.generator.module(z)
    torch.testing.assert_close(images[:, :, 3, 5], torch.tensor(GIGA_PIXELS), rtol=1e-4, atol=1e-4)
    (space,) = gan.generator.inner
    torch.testing.assert_close(space.leave(space.enter(z, None), None), images)


def test_a_gigagan_with_text_is_refused() -> None:
    shapes = giga_shapes() | {"style_network.net.0.weight": (5, 9)}
    with pytest.raises(NotOpened, match="conditioned on text"):
        rebuild_generator(gigagan.GigaGan(), StateDict("G", seeded(shapes)), {})


def cogan_files(folder: Path) -> tuple[Path, Path]:
    maker: dict[str, tuple[int, ...]] = {"fc.0.weight": (4 * 64, 5), "fc.0.bias": (4 * 64,)}
    maker |= under("shared_conv.0.", norm(4)) | under("shared_conv.3.", norm(4))
    maker |= {"shared_conv.2.weight": (4, 4, 3, 3), "shared_conv.2.bias": (4,)}
    for name in ("G1", "G2"):
        maker |= under(f"{name}.1.", norm(3)) | {f"{name}.0.weight": (3, 4, 3, 3), f"{name}.0.bias": (3,)}
        maker |= {f"{name}.3.weight": (1, 3, 3, 3), f"{name}.3.bias": (1,)}
    critic: dict[str, tuple[int, ...]] = {"D1.weight": (1, 16), "D1.bias": (1,), "D2.weight": (1, 16), "D2.bias": (1,)}
    for place, inputs in ((0, 1), (3, 4), (7, 4), (11, 4)):
        critic |= {f"shared_conv.{place}.weight": (4, inputs, 3, 3), f"shared_conv.{place}.bias": (4,)}
        critic |= under(f"shared_conv.{place + 1}.", norm(4)) if place else {}
    torch.save(seeded(maker), folder / "coupled_generators.pth")
    torch.save(seeded(critic), folder / "coupled_discriminators.pth")
    return folder / "coupled_generators.pth", folder / "coupled_discriminators.pth"


def test_the_label_of_a_cogan_is_the_domain(tmp_path: Path) -> None:
    made, judged = cogan_files(tmp_path)
    gan = gandissect.open(made, discriminator=judged, device="cpu")
    z, module = torch.randn(2, 5), gan.generator.module
    with torch.no_grad(), tap(module, ["G1.4", "G2.4"]) as seen:
        images = module(z, torch.tensor([0, 1]))
    torch.testing.assert_close(images, torch.stack([seen["G1.4"][0], seen["G2.4"][1]]))
    assert gan.discriminator is not None and gan.generator.num_classes == 2
    scores = gan.discriminator(images, torch.tensor([0, 1])), gan.discriminator(images, torch.tensor([1, 0]))
    assert not torch.allclose(*scores)


def test_the_encoder_of_an_adversarial_autoencoder_is_refused_with_what_to_pass(tmp_path: Path) -> None:
    shapes: dict[str, tuple[int, ...]] = {"model.0.weight": (8, 64), "model.0.bias": (8,), "model.2.weight": (8, 8)}
    shapes |= {"model.2.bias": (8,), **under("model.3.", norm(8))}
    shapes |= {"mu.weight": (4, 8), "mu.bias": (4,), "logvar.weight": (4, 8), "logvar.bias": (4,)}
    torch.save(seeded(shapes), tmp_path / "encoder.pth")
    with pytest.raises(NotOpened, match=r"64 pixels into 4 latent values .* pass the decoder's file"):
        gandissect.open(tmp_path / "encoder.pth", device="cpu")
