"""What a family rebuilds moves as one: to another number type here, as it does to another device."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from family_golden import Golden, strays_of
from gandissect_adapters.families.fast.ops import Noise, feed_noise
from torch import nn

from gandissect import sampling
from gandissect.gan import Gan, Generator, InnerSpace, LatentSpace

FILES = {
    "nvlabs-stylegan2-ada-32-cond": "network-snapshot-000001.stripped.pkl",
    "stylegan-xl-32-stem": "best_model.pkl",
    "rosinality-stylegan2-32": "converted.pt",
    "rosinality-stylegan1": "010000.model",
    "lucidrains-stylegan2-64": "model_1.pt",
    "genforce-stylegan2-32": "checkpoint_iter000001.pth",
    "biggan_ajbrock_32": "G_ema.pth",
    "lightweight_gan_64": "model_1.pt",
    "taming-vqgan-32": "last.ckpt",
}


@pytest.mark.slow
@pytest.mark.parametrize("folder", FILES)
@torch.no_grad()
def test_a_module_in_double_precision_draws_the_same_images_and_keeps_its_spaces(shared: Path, folder: str) -> None:
    options = {"step": "2"} if folder == "rosinality-stylegan1" else {}
    generator = Golden.of(shared, folder).open(FILES[folder], **options).generator
    z = sampling.latents(0, range(2), generator.latent).reshape(2, *generator.latent.shape)
    labels = torch.arange(2) if generator.num_classes else None
    expected = generator(z, labels)
    generator.module.double()
    torch.testing.assert_close(generator(z.double(), labels), expected, rtol=1e-3, atol=1e-3)
    for space in generator.inner:
        centre = generator.space(space.name).centre
        assert centre is None or centre.dtype == torch.float64
        assert space.leave(space.enter(z.double(), labels), labels).dtype == torch.float64


def test_the_centre_of_a_space_is_where_the_weights_are() -> None:
    space = InnerSpace("w", (3,), lambda z, _: z, lambda w, _: w, torch.ones(3))
    generator = Generator(nn.Linear(3, 3).double(), (), LatentSpace("z", (3,)), (1, 1, 3), inner=(space,))
    centre = generator.space("w").centre
    assert centre is not None and centre.dtype == torch.float64


def test_fed_noise_moves_with_its_layer_and_is_not_saved() -> None:
    layer = Noise()
    feed_noise(nn.Sequential(layer), [torch.ones(1, 1, 2, 2)])
    layer.double()
    assert layer.noise is not None and layer.noise.dtype == torch.float64
    assert list(copy.deepcopy(layer).state_dict()) == ["weight"]


def test_a_tensor_outside_of_parameters_and_buffers_is_a_stray() -> None:
    net = nn.Linear(1, 1)
    net.kept = [torch.ones(1)]
    centre = torch.ones(1)
    space = InnerSpace("w", (1,), lambda z, _: z + centre, lambda w, _: w)
    gan = Gan("g", Generator(net, (), LatentSpace("z", (1,)), (1, 1, 1), inner=(space,)))
    assert strays_of(gan) == [".kept", "a tensor in space w"]
