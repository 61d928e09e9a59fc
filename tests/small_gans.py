"""Small networks whose truth is known, for tests of how files are opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dcgan(nn.Module):
    """z [N, 12, 1, 1] to [N, 3, 16, 16] with layers main.0 to main.7."""

    def __init__(self, nz: int = 12, width: int = 16) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.ConvTranspose2d(width, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


DCGAN_LAYERS = [f"main.{number}" for number in range(8)]


class Block(nn.Module):
    """Upsamples and adds what came in to what a convolution makes of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.relu(self.norm(self.conv(x))) + x


class Residual(nn.Module):
    """z [N, 10] to [N, 1, 16, 16], with functional activations, a residual sum and a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 8 * 4 * 4)
        self.blocks = nn.ModuleList([Block(8), Block(8)])
        self.to_image = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = F.leaky_relu(self.fc(z), 0.2).view(z.size(0), 8, 4, 4)
        for block in self.blocks:
            x = block(x)
        return torch.sigmoid(self.to_image(x))


class BakedBatch(nn.Module):
    """z [N, 6] to [N, 1, 8, 8]; a recording of it holds the number of samples as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4 * 4 * 4)
        self.up = nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        n = int(z.shape[0])
        return torch.tanh(self.up(F.relu(self.fc(z.view(n, -1))).view(n, 4, 4, 4)))


class Modulated(nn.Module):
    """z [N, 6] to [N, 1, 8, 8] by convolutions whose weights depend on z: samples become groups, as in StyleGAN2."""

    def __init__(self) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(1, 4, 8, 8))
        self.style = nn.Linear(6, 4)
        self.weight = nn.Parameter(torch.randn(1, 1, 4, 3, 3) * 0.3)

    def forward(self, z: Tensor) -> Tensor:
        n = int(z.shape[0])
        weight = (self.weight * self.style(z).view(n, 1, 4, 1, 1)).view(n, 4, 3, 3)
        x = self.const.repeat(n, 1, 1, 1).reshape(1, n * 4, 8, 8)
        return torch.tanh(F.conv2d(x, weight, padding=1, groups=n).view(n, 1, 8, 8))


class Conditional(nn.Module):
    """(z [N, 8], labels [N] in 0..4) to [N, 1, 8, 8]; the label scales z."""

    num_classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.fc = nn.Linear(8, 64)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return torch.tanh(self.fc(z * self.embed(labels))).view(-1, 1, 8, 8)


class Noisy(nn.Module):
    """z [N, 8] to [N, 1, 8, 8], with fresh noise in each image."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 64)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z).view(-1, 1, 8, 8)
        return torch.tanh(x + 0.1 * torch.randn_like(x))


class Critic(nn.Module):
    """[N, 3, 16, 16] to [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 4, 2, 1)
        self.conv2 = nn.Conv2d(6, 8, 4, 2, 1)
        self.head = nn.Linear(8 * 4 * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), 0.2)), 0.2)
        return self.head(x.flatten(1))


def trained(network: nn.Module) -> nn.Module:
    """The network in eval mode, its normalisations with statistics that are not the initial ones."""
    torch.manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def layer_outputs(network: nn.Module, names: Sequence[str], *args: Tensor) -> dict[str, Tensor]:
    """What ordinary forward hooks on ``names`` read while the network runs."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _m, _a, out, name=name: seen.update({name: out.clone()})
        )
        for name in names
    ]
    network(*args)
    for handle in handles:
        handle.remove()
    return seen


def with_edit(network: nn.Module, name: str, edit: Callable[[Tensor], Tensor], *args: Tensor) -> Tensor:
    """The network's output while a forward hook replaces the output of ``name``."""
    handle = network.get_submodule(name).register_forward_hook(lambda _m, _a, out: edit(out))
    try:
        return network(*args)
    finally:
        handle.remove()


def gradient(network: nn.Module, name: str, *args: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a weighted sum of the output with respect to the first argument and to the output of ``name``."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: object, out: Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    first = args[0].clone().requires_grad_()
    handle = network.get_submodule(name).register_forward_hook(keep)
    output = network(first, *args[1:])
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    handle.remove()
    assert first.grad is not None and kept[0].grad is not None
    return first.grad, kept[0].grad


def layers_agree(found: nn.Module, live: nn.Module, z: Tensor, names: Sequence[str] = DCGAN_LAYERS) -> None:
    """Asserts that hooks on each layer of a ``Dcgan``, called ``names`` in ``found``, read what they read in ``live``."""
    mine, truth = layer_outputs(found, names, z), layer_outputs(live, DCGAN_LAYERS, z)
    for name, original in zip(names, DCGAN_LAYERS, strict=True):
        torch.testing.assert_close(mine[name], truth[original], atol=1e-5, rtol=0)


def edits_agree(found: nn.Module, live: nn.Module, z: Tensor, names: Sequence[str] = DCGAN_LAYERS) -> None:
    """Asserts that an edit of each layer changes the images alike."""
    for name, original in zip(names, DCGAN_LAYERS, strict=True):
        mine = with_edit(found, name, lambda act: act * 0.5 - 0.25, z)
        truth = with_edit(live, original, lambda act: act * 0.5 - 0.25, z)
        torch.testing.assert_close(mine, truth, atol=1e-5, rtol=0)


def gradients_agree(found: nn.Module, live: nn.Module, z: Tensor, names: Sequence[str] = DCGAN_LAYERS) -> None:
    """Asserts that gradients to the latent and to both activations are alike."""
    for position in (2, 5):
        mine, truth = gradient(found, names[position], z), gradient(live, DCGAN_LAYERS[position], z)
        for one, other in zip(mine, truth, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
