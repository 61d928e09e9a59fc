import pytest
import torch
from torch import nn

import gandissect
from gandissect.errors import NotOpened
from gandissect.testing import VectorGenerator, tiny_gan


class Skipping(nn.Module):
    """Two branches that are added by a function, one shared activation, one layer without effect."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 48)
        self.left = nn.Linear(48, 48)
        self.act = nn.ReLU()
        self.useless = nn.Linear(48, 48)
        self.last = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        hidden = self.act(self.first(z))
        self.useless(hidden)
        joined = self.act(self.left(hidden)) + hidden
        image: torch.Tensor = self.last(joined.view(-1, 3, 4, 4))
        return image


def test_connections_are_followed_through_functions() -> None:
    gan = gandissect.wrap(Skipping())
    inputs = {info.name: set(info.inputs) for info in gan.generator.layers}
    assert inputs["last"] == {"act", "act@1"}
    assert inputs["left"] == {"act"}


def test_a_layer_without_effect_is_not_called_editable() -> None:
    editable = {info.name: info.editable for info in gandissect.wrap(Skipping()).generator.layers}
    assert editable["left"]
    assert not editable["useless"]


def test_main_layers_are_the_ends_of_stages() -> None:
    assert [info.name for info in tiny_gan("random").generator.main_layers()] == ["act1", "act2", "act3"]
    assert [info.name for info in tiny_gan("vector").generator.main_layers()] == ["net.1", "net.3"]


def test_a_vector_output_is_one_square_image() -> None:
    assert gandissect.wrap(VectorGenerator()).generator.image_shape == (1, 28, 28)


def test_the_output_range_is_told_from_what_is_made() -> None:
    unit = nn.Sequential(nn.Linear(4, 64), nn.Sigmoid())
    gan = gandissect.wrap(unit)
    assert gan.generator.output_range == (0.0, 1.0)
    assert gan.generator(torch.randn(9, 4) * 9).min() < 0


def test_a_sigmoid_discriminator_gives_logits() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Sigmoid())
    gan = gandissect.wrap(nn.Sequential(nn.Linear(4, 64), nn.Tanh()), critic)
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    assert gan.discriminator is not None
    torch.testing.assert_close(gan.discriminator(images), critic[:2](images).flatten(), rtol=1e-3, atol=1e-3)


def test_damaged_weights_are_said() -> None:
    module = nn.Linear(4, 64)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(NotOpened, match="damaged"):
        gandissect.wrap(module)


def test_a_classifier_is_no_generator() -> None:
    with pytest.raises(NotOpened, match="not an image generator"):
        gandissect.wrap(nn.Linear(4, 10), latent=(4,))


def test_capabilities_are_found_by_running() -> None:
    gan = tiny_gan(discriminator=False)
    assert (gan.capabilities.edits, gan.capabilities.gradients, gan.capabilities.discriminator) == (True, True, False)
    rounding = gandissect.wrap(Rounded())
    assert not rounding.capabilities.gradients


class Rounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 64)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.linear(z).round()
