"""Both halves of a variational autoencoder open: its decoder as the generator, its encoder as the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gandissect

LATENT, HIDDEN, SIDE = 4, 64, 8


class Autoencoder(nn.Module):
    """pytorch/examples' VAE, smaller: fc1, fc21 (mean), fc22 (log-variance), fc3, fc4."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(SIDE * SIDE, HIDDEN)
        self.fc21, self.fc22 = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.fc3, self.fc4 = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, SIDE * SIDE)
        self.between = between

    def encode(self, images: Tensor) -> Tensor:
        mean: Tensor = self.fc21(self.between(self.fc1(images.flatten(1))))
        return mean

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(z))))


def trained(between: nn.Module) -> Autoencoder:
    """An encoder that has learned to find the latents of a random decoder's images."""
    torch.manual_seed(0)
    net = Autoencoder(between)
    nn.init.normal_(net.fc3.weight, 0.0, 1.0)
    nn.init.normal_(net.fc4.weight, 0.0, 0.5)
    optimizer = torch.optim.Adam([*net.fc1.parameters(), *net.fc21.parameters()], lr=3e-3)
    for _ in range(300):
        z = torch.randn(128, LATENT)
        loss = (net.encode(net.decode(z).detach()) - z).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize(("between", "name"), [(nn.Tanh(), "tanh"), (nn.Sigmoid(), "sigmoid")])
def test_the_encoder_opens_with_the_activation_that_finds_latents_again(
    between: nn.Module, name: str, tmp_path: Path
) -> None:
    net = trained(between)
    torch.save(net.state_dict(), tmp_path / "vae.pth")
    gan = gandissect.open(tmp_path / "vae.pth")
    images = torch.rand(5, 1, SIDE, SIDE)
    torch.testing.assert_close(gan.generator.encode(2 * images - 1), net.encode(images), atol=1e-5, rtol=1e-4)
    assert [a.value for a in gan.opening.assumptions if a.name == "encoder's activation"] == [name]
    assert any("there is an encoder" in note for note in gan.opening.notes)


def test_an_encoder_that_does_not_find_latents_again_is_left_out_and_said(tmp_path: Path) -> None:
    torch.manual_seed(1)
    torch.save(Autoencoder(nn.ReLU()).state_dict(), tmp_path / "vae.pth")
    gan = gandissect.open(tmp_path / "vae.pth")
    assert gan.generator.encoder is None
    assert any("the encoder was left out: the correlation" in note for note in gan.opening.notes)


def test_a_strangers_autoencoder_brings_its_encoder(shared: Path) -> None:
    gan = gandissect.open(shared / "checkpoints" / "vae-mnist-csinva" / "vae_epoch_25.pth")
    z = torch.randn(64, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = gan.generator.encode(gan.generator(z))
    assert torch.corrcoef(torch.stack([found.flatten(), z.flatten()]))[0, 1] > 0.9
