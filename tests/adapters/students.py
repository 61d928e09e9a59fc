"""Generators as people write and save them: tiny, seeded, with BatchNorm statistics of real passes.

student = stack("T32k4s1p0 B R T16k4s2p1 B R T1k4s2p1 tanh", z=16)
student.images(z, labels)               # its own, float32 [N, C, H, W]
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH, _BATCHES = 64, 24


@dataclass(frozen=True)
class Student:
    """A network whose truth is known; ``latent`` is the shape of one z, ``truth`` what ``assume`` may have to be told."""

    net: nn.Module
    latent: tuple[int, ...]
    prior: str = "normal"
    classes: int = 0
    truth: dict[str, str] = field(default_factory=dict)

    def draw(self, count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
        """(z [N, *latent], labels int64 [N]) from the prior."""
        stream = torch.Generator().manual_seed(seed)
        shape = (count, *self.latent)
        z = (
            torch.randn(shape, generator=stream)
            if self.prior == "normal"
            else torch.rand(shape, generator=stream) * 2 - 1
        )
        return z, torch.arange(count) % max(self.classes, 1)

    @torch.no_grad()
    def images(self, z: Tensor, labels: Tensor) -> Tensor:
        """What the network itself gives."""
        images: Tensor = self.net(z, labels) if self.classes else self.net(z)
        return images

    def trained(self, seed: int = 1) -> Student:
        """The same network with weights of a usual size, its norms' statistics those of a few batches; in eval mode."""
        torch.manual_seed(seed)
        for name, parameter in self.net.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                nn.init.normal_(parameter, 0.0, 1.4 / _fan(self.net, name, parameter) ** 0.5)
            elif name.endswith("weight") and parameter.dim() == 1 and parameter.numel() > 1:
                nn.init.normal_(parameter, 1.0, 0.2)
            elif parameter.dim() == 1 and parameter.numel() > 1:
                nn.init.normal_(parameter, 0.0, 0.2)
            elif name.endswith("gamma"):
                nn.init.constant_(parameter, 0.7)
        for module in self.net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None
                module.reset_running_stats()
        self.net.train()
        with torch.no_grad():
            for batch in range(_BATCHES):
                self.images(*self.draw(_BATCH, seed=100 + batch))
        self.net.eval()
        return self


def _fan(net: nn.Module, name: str, parameter: Tensor) -> float:
    """Numbers that meet in one output of a layer."""
    layer = net.get_submodule(name.rpartition(".")[0]) if ".parametrizations" not in name else None
    if isinstance(layer, nn.ConvTranspose2d):
        return parameter.shape[0] * prod(
            k / s if s > 1 else 1 for k, s in zip(layer.kernel_size, layer.stride, strict=True)
        )
    return float(parameter[0].numel())


class View(nn.Module):
    """[N, …] to [N, *shape]."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.shape)


class Attention(nn.Module):
    """Self-attention as in the SAGAN copies that students use (Zhang et al. 2019, sec. 3)."""

    def __init__(self, units: int) -> None:
        super().__init__()
        narrow = max(units // 8, 1)
        self.query_conv, self.key_conv = nn.Conv2d(units, narrow, 1), nn.Conv2d(units, narrow, 1)
        self.value_conv = nn.Conv2d(units, units, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).flatten(2) for conv in (self.query_conv, self.key_conv, self.value_conv))
        weights = torch.softmax(query.transpose(1, 2) @ key, -1)
        out: Tensor = self.gamma * (value @ weights.transpose(1, 2)).view_as(x) + x
        return out


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "R": nn.ReLU, "K": lambda: nn.LeakyReLU(0.2), "k": nn.LeakyReLU, "E": nn.ELU, "S": nn.SELU, "Gelu": nn.GELU, "Silu": nn.SiLU,
    "tanh": nn.Tanh, "sig": nn.Sigmoid, "Pre": nn.PReLU, "Mish": nn.Mish, "Hard": nn.Hardswish, "Plus": nn.Softplus, "Sign": nn.Softsign,
    **{f"k{percent}": lambda percent=percent: nn.LeakyReLU(percent / 100) for percent in (2, 5, 15, 25, 50)},  # type: ignore[misc]
}  # fmt: skip
_TOKEN = re.compile(r"([TC])(\d+)k(\d+)s(\d+)p(\d+)(o\d)?(n?)")


def layers(recipe: str, units: int, *, maps: bool) -> list[nn.Module]:
    """Modules out of a recipe: ``T64k4s2p1`` (ConvTranspose; ``o1`` output padding, ``n`` no bias), ``C`` Conv, ``L`` Linear,
    ``V64x4x4`` view, ``U``/``Ub``/``U3``/``U4`` upsampling, ``P`` pixel shuffle, ``B``/``b``/``B8`` BatchNorm (b without affine, B8 with eps 0.8), ``I``,
    ``i`` (no affine), ``G``, ``N`` other norms, ``D`` dropout, ``A`` attention, ``M`` reflection padding, activations (``k15`` is a
    LeakyReLU of 0.15).
    """
    made: list[nn.Module] = []
    size = (1, 1)
    for token in recipe.split():
        if match := _TOKEN.fullmatch(token):
            kind, out, kernel, stride, padding, extra, plain = match.groups()
            numbers = int(kernel), int(stride), int(padding)
            made.append(nn.ConvTranspose2d(units, int(out), *numbers, int((extra or "o0")[1:]), bias=not plain)
                        if kind == "T" else nn.Conv2d(units, int(out), *numbers, bias=not plain))  # fmt: skip
            units, maps = int(out), True
        elif token[0] == "L":
            made.append(nn.Linear(units, int(token[1:])))
            units, maps = int(token[1:]), False
        elif token[0] == "V":
            shape = [int(n) for n in token[1:].split("x")]
            made.append(View(*shape))
            units, maps, size = shape[0], True, (shape[-2], shape[-1])
        elif token == "P":
            made.append(nn.PixelShuffle(2))
            units //= 4
        else:
            made.append(_plain(token, units, maps=maps, size=size))
    return made


def _plain(token: str, units: int, *, maps: bool, size: tuple[int, int]) -> nn.Module:
    if token in ("B", "b", "B8"):
        eps, affine = (0.8 if token == "B8" else 1e-5), token != "b"
        return nn.BatchNorm2d(units, eps, affine=affine) if maps else nn.BatchNorm1d(units, eps, affine=affine)
    simple: dict[str, Callable[[], nn.Module]] = {
        "U": lambda: nn.Upsample(scale_factor=2), "Ub": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        "Uc": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        "U3": lambda: nn.Upsample(scale_factor=3), "U4": lambda: nn.Upsample(scale_factor=4), "M": lambda: nn.ReflectionPad2d(1),
        "I": lambda: nn.InstanceNorm2d(units, affine=True), "i": lambda: nn.InstanceNorm2d(units),
        "G": lambda: nn.GroupNorm(4, units), "N": lambda: nn.LayerNorm(units) if not maps else nn.LayerNorm([units, *size]),
        "D": lambda: nn.Dropout(0.3), "D2": lambda: nn.Dropout2d(0.3), "A": lambda: Attention(units), **_ACTIVATIONS,
    }  # fmt: skip
    return simple[token]()


class Named(nn.Module):
    """Layers with parameters as attributes under ``names``; all others are called as functions and leave no trace."""

    def __init__(self, made: list[nn.Module], names: Iterator[str] | list[str]) -> None:
        super().__init__()
        given, self.__dict__["steps"] = iter(names), made
        for layer in made:
            if layer.state_dict():
                parent, _, leaf = next(given).rpartition(".")
                home = self if not parent else self._modules.setdefault(parent, nn.Module())
                assert home is not None
                home.add_module(leaf, layer)

    def train(self, mode: bool = True) -> Named:
        for step in self.__dict__["steps"]:
            step.train(mode)
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        for step in self.__dict__["steps"]:
            x = step(x)
        return x


def stack(recipe: str, z: int = 16, *, home: str = "main", prior: str = "normal", flat: bool | None = None,
          names: list[str] | None = None, norm: Callable[[nn.Module], nn.Module] | None = None, seed: int = 1,
          **truth: str) -> Student:  # fmt: skip
    """A student made by ``layers``: one Sequential under ``home`` ("" for bare numbers), "blocks" for nested ones, or ``names``.

    Args:
        flat: whether z is [N, D]; where None, a first linear layer decides.
        norm: wraps every layer with a weight (weight or spectral normalisation).
    """
    flat = recipe.startswith("L") if flat is None else flat
    made = layers(recipe, z, maps=not flat)
    if norm is not None:
        for layer in made:
            if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                norm(layer)
    net: nn.Module = nn.Sequential(*made)
    if names is not None:
        net = Named(made, names)
    elif home == "blocks":
        net = nn.Sequential(OrderedDict(gen=nn.Sequential(*(nn.Sequential(*part) for part in _stages(made)))))
    elif home:
        net = nn.Sequential(OrderedDict([(home, net)]))
    return Student(net, (z,) if flat else (z, 1, 1), prior, truth=truth).trained(seed)


def _stages(made: list[nn.Module]) -> list[list[nn.Module]]:
    parts: list[list[nn.Module]] = []
    for layer in made:
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) or not parts:
            parts.append([])
        parts[-1].append(layer)
    return parts


class Labelled(nn.Module):
    """A stack that takes a label: ``how`` says how it is joined to z."""

    def __init__(self, how: str, recipe: str, z: int, classes: int, width: int = 6) -> None:
        super().__init__()
        self.how, self.classes = how, classes
        wide = {"times": z, "one-hot after": z + classes, "one-hot before": z + classes, "fc": z + width}.get(
            how, z + width
        )
        if how in ("times", "after", "before"):
            self.label_emb = nn.Embedding(classes, z if how == "times" else width)
        if how == "fc":
            self.label_fc = nn.Linear(classes, width)
        self.flat = recipe.startswith("L")
        self.net = nn.Sequential(*layers(recipe, wide, maps=not self.flat))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        hot = F.one_hot(labels, self.classes).float()
        label = (
            self.label_emb(labels) if hasattr(self, "label_emb") else self.label_fc(hot) if self.how == "fc" else hot
        )
        if not self.flat:
            label = label[:, :, None, None]
        first = self.how.endswith("before")
        x = z * label if self.how == "times" else torch.cat([label, z] if first else [z, label], 1)
        out: Tensor = self.net(x)
        return out


class TwoBranch(nn.Module):
    """znxlwm's cDCGAN: z and a one-hot label each through a layer of its own, joined as maps."""

    def __init__(self, z: int = 16, classes: int = 10, d: int = 16, size: int = 32) -> None:
        super().__init__()
        self.deconv1_1 = nn.ConvTranspose2d(z, d * 2, 4, 1, 0)
        self.deconv1_1_bn = nn.BatchNorm2d(d * 2)
        self.deconv1_2 = nn.ConvTranspose2d(classes, d * 2, 4, 1, 0)
        self.deconv1_2_bn = nn.BatchNorm2d(d * 2)
        self.deconv2 = nn.ConvTranspose2d(d * 4, d * 2, 4, 2, 1)
        self.deconv2_bn = nn.BatchNorm2d(d * 2)
        self.deconv3 = nn.ConvTranspose2d(d * 2, d, 4, 2, 1)
        self.deconv3_bn = nn.BatchNorm2d(d)
        self.deconv4 = nn.ConvTranspose2d(d, 1, 4, 2, 1)
        self.classes = classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        hot = F.one_hot(labels, self.classes).float()[:, :, None, None]
        x = F.relu(self.deconv1_1_bn(self.deconv1_1(z)))
        y = F.relu(self.deconv1_2_bn(self.deconv1_2(hot)))
        x = torch.cat([x, y], 1)
        x = F.relu(self.deconv2_bn(self.deconv2(x)))
        x = F.relu(self.deconv3_bn(self.deconv3(x)))
        return torch.tanh(self.deconv4(x))


class TwoBranchMlp(nn.Module):
    """znxlwm's cGAN: two linear branches joined as vectors."""

    def __init__(self, z: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.fc1_1, self.fc1_1_bn = nn.Linear(z, 32), nn.BatchNorm1d(32)
        self.fc1_2, self.fc1_2_bn = nn.Linear(classes, 32), nn.BatchNorm1d(32)
        self.fc2, self.fc2_bn = nn.Linear(64, 48), nn.BatchNorm1d(48)
        self.fc3, self.fc3_bn = nn.Linear(48, 64), nn.BatchNorm1d(64)
        self.fc4 = nn.Linear(64, 784)
        self.classes = classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        hot = F.one_hot(labels, self.classes).float()
        x = F.relu(self.fc1_1_bn(self.fc1_1(z)))
        y = F.relu(self.fc1_2_bn(self.fc1_2(hot)))
        x = F.relu(self.fc2_bn(self.fc2(torch.cat([x, y], 1))))
        x = F.relu(self.fc3_bn(self.fc3(x)))
        return torch.tanh(self.fc4(x)).view(-1, 1, 28, 28)


class LabelMap(nn.Module):
    """A label as one more 7x7 map beside those of z (machinelearningmastery's cGAN, in torch)."""

    def __init__(self, z: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.label_embedding = nn.Embedding(classes, 5)
        self.label_linear = nn.Linear(5, 49)
        self.latent = nn.Linear(z, 24 * 49)
        self.up1, self.bn1 = nn.ConvTranspose2d(25, 16, 4, 2, 1), nn.BatchNorm2d(16)
        self.up2, self.bn2 = nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.BatchNorm2d(12)
        self.out = nn.Conv2d(12, 1, 7, padding=3)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        y = self.label_linear(self.label_embedding(labels)).view(-1, 1, 7, 7)
        x = F.leaky_relu(self.latent(z), 0.2).view(-1, 24, 7, 7)
        x = F.leaky_relu(self.bn1(self.up1(torch.cat([x, y], 1))), 0.2)
        x = F.leaky_relu(self.bn2(self.up2(x)), 0.2)
        return torch.tanh(self.out(x))


class Residual(nn.Module):
    """A ResNet generator of a student's own making."""

    class Block(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(into)
            self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out)
            self.skip = nn.Conv2d(into, out, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv1(F.interpolate(F.relu(self.bn1(x)), scale_factor=2))
            out: Tensor = self.conv2(F.relu(self.bn2(y))) + self.skip(F.interpolate(x, scale_factor=2))
            return out

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 24 * 16)
        self.block1, self.block2 = self.Block(24, 16), self.Block(16, 12)
        self.bn, self.conv = nn.BatchNorm2d(12), nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.block2(self.block1(self.fc(z).view(-1, 24, 4, 4)))
        return torch.tanh(self.conv(F.relu(self.bn(x))))


def beyond(student: Student, mode: str) -> Student:
    """``student``, trained again with convolutions that see ``mode`` ("reflect", "circular" …) beyond the edge."""
    for layer in student.net.modules():
        if isinstance(layer, nn.Conv2d):
            padding = layer.padding[0]
            assert isinstance(padding, int)
            layer.padding_mode, layer._reversed_padding_repeated_twice = mode, [padding] * 4  # type: ignore[assignment]
    return student.trained()


def labelled(how: str, recipe: str, z: int = 16, classes: int = 10, width: int = 6, seed: int = 1) -> Student:
    """A student with a ``Labelled`` network."""
    shape = (z,) if recipe.startswith("L") else (z, 1, 1)
    return Student(Labelled(how, recipe, z, classes, width), shape, classes=classes).trained(seed)


def joined(net: nn.Module, latent: tuple[int, ...], classes: int, seed: int = 1) -> Student:
    """A student with a network of its own."""
    return Student(net, latent, classes=classes).trained(seed)


__all__ = ["Student", "beyond", "joined", "labelled", "layers", "replace", "stack"]
