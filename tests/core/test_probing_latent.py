"""The latent of a live module is found by trying what its weights suggest, and the module is left as it was."""

from __future__ import annotations

import pytest
import torch
from small_gans import Conditional, Critic, Dcgan, Residual
from torch import nn

from gandissect.errors import NotOpened
from gandissect.probing.latents import first_tensor, flat_image_shape, infer_latent


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Dcgan(), (12, 1, 1)),
        (Residual(), (10,)),
        (nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 64)), (7,)),
    ],
)
def test_the_first_layer_tells_the_latent(network: nn.Module, shape: tuple[int, ...]) -> None:
    assert infer_latent(network, None).shape == shape


def test_what_is_given_is_fitted_to_the_module() -> None:
    assert infer_latent(Dcgan(), (12,)).shape == (12, 1, 1)
    assert infer_latent(Residual(), (10, 1, 1)).shape == (10,)
    with pytest.raises(NotOpened, match=r"does not run on latents of shape \(9,\)"):
        infer_latent(Residual(), (9,))


def test_labels_are_passed_where_there_are_some() -> None:
    assert infer_latent(Conditional(), None, num_classes=5).shape == (8,)


def test_a_network_that_makes_no_images_says_what_to_pass() -> None:
    with pytest.raises(NotOpened, match=r"could not tell the latent's shape of Critic; pass --latent 100"):
        infer_latent(Critic(), None)


def test_the_module_and_the_random_state_are_left_as_they_were() -> None:
    network = Dcgan().train()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    infer_latent(network, None)
    assert network.training and torch.equal(torch.get_rng_state(), state)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_images_are_found_among_several_outputs() -> None:
    image = torch.zeros(2, 3, 8, 8)
    assert first_tensor({"w": torch.zeros(2, 5), "out": (image, None)}) is image
    assert first_tensor("nothing") is None
    assert (
        flat_image_shape(784) == (1, 28, 28) and flat_image_shape(3072) == (3, 32, 32) and flat_image_shape(10) is None
    )
