"""VQGAN and its kin: encoded, quantised and decoded as recorded, and entered at the codes."""

from pathlib import Path

import pytest
import torch
from family_golden import Golden
from family_made import saved, seeded
from gandissect_adapters.families.images import vqgan
from gandissect_adapters.families.images.vq_layers import Codebook, GumbelCodebook
from torch import Tensor

import gandissect
from gandissect.errors import NotOpened
from gandissect.gan import Gan


@torch.no_grad()
def test_the_vqgan_of_taming_transformers_encodes_quantises_and_decodes_as_recorded(shared: Path) -> None:
    case = Golden.of(shared, "taming-vqgan-32")
    gan = case.open("last.ckpt", size="32")
    module, codes = gan.generator.module, gan.generator.space("codes")

    case.equal(codes.leave(case["z_q"], None), "img")
    case.equal(codes.enter(case["enc_in"], None), "enc_zq")
    case.equal(module(case["enc_in"]), "img_recon")
    assert isinstance(module, vqgan.VqGan) and isinstance(module.quantize, Codebook)
    hidden = module.quant_conv(module.encoder(case["enc_in"]))
    case.equal(hidden, "enc_h")
    assert torch.equal(module.quantize.indices(hidden), case["enc_indices"])
    assert case.layers_equal(module, "act/", lambda: codes.leave(case["z_q"], None)) == 5
    assert gan.discriminator is not None
    case.equal(gan.discriminator.module(case["img"]), "d_logits")


@torch.no_grad()
def test_the_vqmodel_of_diffusers_decodes_as_recorded(shared: Path) -> None:
    case = Golden.of(shared, "diffusers-vqmodel-32")
    gan = case.open("diffusion_pytorch_model.safetensors", size="32")  # groups: config.json says 8
    module, codes = gan.generator.module, gan.generator.space("codes")

    case.equal(codes.leave(case["z_q"], None), "img")
    case.equal(codes.leave(case["h"], None), "img_not_quantized")
    assert isinstance(module, vqgan.VqGan) and isinstance(module.quantize, Codebook)
    assert torch.equal(module.quantize.indices(case["h"]), case["indices"])
    case.equal(module.quant_conv(module.encoder(case["enc_in"])), "enc_latents")
    assert case.layers_equal(module, "act/", lambda: codes.leave(case["z_q"], None)) == 3


def vq_tensors(*, encoder: bool = True, codebook: bool = True) -> dict[str, Tensor]:
    """Names and shapes of a narrow autoencoder of taming-transformers: two levels, attention in the middle."""
    width, depth, z = 8, 3, 4
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, out: int, into: int, side: int) -> None:
        shapes.update({f"{name}.weight": (out, into, side, side), f"{name}.bias": (out,)})

    def norm(name: str) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def block(name: str) -> None:
        for k in (1, 2):
            norm(f"{name}.norm{k}")
            layer(f"{name}.conv{k}", width, width, 3)

    for half, side, change in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        if half == "encoder" and not encoder:
            continue
        layer(f"{half}.conv_in", width, 3 if half == "encoder" else z, 3)
        for level in (0, 1):
            block(f"{half}.{side}.{level}.block.0")
        layer(f"{half}.{side}.{0 if half == 'encoder' else 1}.{change}.conv", width, width, 3)
        block(f"{half}.mid.block_1")
        block(f"{half}.mid.block_2")
        norm(f"{half}.mid.attn_1.norm")
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{half}.mid.attn_1.{part}", width, width, 1)
        norm(f"{half}.norm_out")
        layer(f"{half}.conv_out", (z if codebook else 2 * z) if half == "encoder" else 3, width, 3)
    if encoder:
        layer("quant_conv", *((depth, z) if codebook else (2 * depth, 2 * z)), 1)
    layer("post_quant_conv", z, depth, 1)
    if codebook:
        shapes["quantize.embedding.weight"] = (10, depth)
    return {name: torch.empty(shape) for name, shape in shapes.items()}


def opened_vq(tmp_path: Path, *, encoder: bool = True, codebook: bool = True) -> Gan:
    original = seeded(vqgan.VqGan(vq_tensors(encoder=encoder, codebook=codebook), vqgan.TAMING, 4))
    torch.save({"state_dict": original.state_dict()}, tmp_path / "last.ckpt")
    return gandissect.open(tmp_path / "last.ckpt", assume={"size": "8", "groups": "4"}, device="cpu")


def test_groups_that_do_not_divide_the_units_are_asked_for(tmp_path: Path) -> None:
    path = saved(vqgan.VqGan(vq_tensors(), vqgan.TAMING, 4), tmp_path / "last.pth")

    with pytest.raises(NotOpened, match="--assume groups="):
        gandissect.open(path, assume={"size": "8"}, device="cpu")


@pytest.mark.parametrize(
    ("encoder", "codebook", "kind"), [(True, True, "codes"), (True, False, "z"), (False, True, "codes")]
)
@torch.no_grad()
def test_an_autoencoder_is_what_enters_its_codes_and_leaves_them(
    encoder: bool, codebook: bool, kind: str, tmp_path: Path
) -> None:
    gan = opened_vq(tmp_path, encoder=encoder, codebook=codebook)
    z = gandissect.sampling.latents(0, range(3), gan.generator.latent).reshape(3, *gan.generator.latent.shape)
    space = gan.generator.space(kind)
    codes = space.enter(z, None)

    assert codes.shape == (3, *space.shape) == (3, 3, 4, 4)
    assert torch.equal(space.leave(codes, None), gan.generator.module(z))
    assert gan.generator.image_shape == (3, 8, 8)


def test_gradients_pass_straight_through_the_codebook_but_not_through_a_choice_of_codes(tmp_path: Path) -> None:
    assert opened_vq(tmp_path).capabilities.gradients
    assert not opened_vq(tmp_path, encoder=False).capabilities.gradients


@torch.no_grad()
def test_a_code_is_the_nearest_entry_and_a_latent_of_0_to_1_picks_each_equally(tmp_path: Path) -> None:
    module = opened_vq(tmp_path, encoder=False).generator.module
    assert isinstance(module, vqgan.VqGan) and isinstance(module.quantize, Codebook)
    book = module.quantize.embedding.weight
    u = torch.tensor([0.0, 0.09, 0.1, 0.95, 1.0]).reshape(5, 1, 1, 1)

    assert torch.equal(module.codes(u)[:, :, 0, 0], book[[0, 0, 1, 9, 9]])
    assert module.quantize.indices(book[3][None, :, None, None] + 1e-3).item() == 3


def test_gumbel_codes_are_the_likeliest(tmp_path: Path) -> None:
    tensors = {name: t for name, t in vq_tensors().items() if not name.startswith("quantize")}
    tensors |= {"quantize.embed.weight": torch.empty(10, 3), "quantize.proj.bias": torch.empty(10),
                "quantize.proj.weight": torch.empty(10, 3, 1, 1)}  # fmt: skip
    original = seeded(vqgan.VqGan(tensors, vqgan.TAMING, 4))
    gan = gandissect.open(saved(original, tmp_path / "gumbel.pth"), assume={"size": "8", "groups": "4"}, device="cpu")
    module = gan.generator.module
    assert isinstance(module, vqgan.VqGan) and isinstance(module.quantize, GumbelCodebook)
    z = torch.randn(1, 3, 2, 2)

    likeliest = module.quantize.proj(z).argmax(1)
    assert torch.allclose(module.quantize(z), module.quantize.entries(likeliest), atol=1e-6)
    assert gan.capabilities.gradients
