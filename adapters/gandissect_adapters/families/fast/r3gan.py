"""R3GAN (Huang et al. 2024): residual blocks with grouped convolutions, no normalisation, and classes where embedded.

gan = gandissect.open("network-snapshot-000010000.pkl")
gan.discriminator(images, labels)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, has, indices, load
from gandissect_adapters.families.style.ops import down_image, up_image
from gandissect_adapters.recognise.unwrap import Role, StateDict

_SIDE = 4


class Convolution(nn.Module):
    """A convolution that keeps the size, without bias, under the name ``Layer``."""

    def __init__(self, weight: Tensor, groups: int = 1) -> None:
        super().__init__()
        rows, columns, kernel, _ = weight.shape
        self.Layer = nn.Conv2d(columns * groups, rows, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.Layer(x)
        return out


class BiasedActivation(nn.Module):
    """Leaky ReLU, slope 0.2, of x + bias; without the gain that StyleGAN2 gives it."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return F.leaky_relu(x + self.Bias[:, None, None], 0.2)


class Residual(nn.Module):
    """x + a bottleneck the wrong way round: 1×1 to more units, a grouped convolution, 1×1 back (section 4, figure 4)."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str) -> None:
        super().__init__()
        widen, mix, narrow = (tensors[f"{path}LinearLayer{i}.Layer.weight"] for i in (1, 2, 3))
        self.LinearLayer1 = Convolution(widen)
        self.NonLinearity1 = BiasedActivation(len(widen))
        self.LinearLayer2 = Convolution(mix, len(widen) // mix.shape[1])
        self.NonLinearity2 = BiasedActivation(len(mix))
        self.LinearLayer3 = Convolution(narrow)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        hidden = self.NonLinearity1(self.LinearLayer1(x))
        out: Tensor = x + self.LinearLayer3(self.NonLinearity2(self.LinearLayer2(hidden)))
        return out


class Resampler(nn.Module):
    """Twice or half the size by the filter ``Kernel`` [K, K], which the file stores."""

    Kernel: Tensor

    def __init__(self, taps: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.register_buffer("Kernel", torch.zeros(taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return up_image(x, self.Kernel) if self.up else down_image(x, self.Kernel)


class Transition(nn.Module):
    """Between two stages: a resampler, and a 1×1 convolution where the width changes."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str, *, up: bool) -> None:
        super().__init__()
        self.Resampler = Resampler(len(tensors[f"{path}Resampler.Kernel"]), up=up)
        weight = tensors.get(f"{path}LinearLayer.Layer.weight")
        self.LinearLayer = None if weight is None else Convolution(weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, D, 2 H, 2 W] or [N, D, H / 2, W / 2]."""
        out: Tensor = self.Resampler(x if self.LinearLayer is None else self.LinearLayer(x))
        return out


class FirstMap(nn.Module):
    """A learnt map per unit [C, 4, 4], each times a number that is linear in the input [N, Z]."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.Basis = nn.Parameter(torch.zeros(len(weight), _SIDE, _SIDE))
        self.LinearLayer = nn.Linear(weight.shape[1], len(weight), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, Z] to [N, C, 4, 4]."""
        out: Tensor = self.Basis * self.LinearLayer(x)[:, :, None, None]
        return out


class LastMap(nn.Module):
    """The map's product with a learnt map per unit, then a linear layer: [N, C, 4, 4] to [N, D]."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        units = weight.shape[1]
        self.Basis = nn.Conv2d(units, units, _SIDE, groups=units, bias=False)
        self.LinearLayer = nn.Linear(units, len(weight), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.LinearLayer(self.Basis(x).flatten(1))
        return out


class Stage(nn.Module):
    """The layers of one resolution, one after another."""

    def __init__(self, tensors: Mapping[str, Tensor], path: str, *, up: bool) -> None:
        super().__init__()
        count = max(indices(tensors, _as_pattern(path) + r"Layers\.(\d+)\..*")) + 1
        self.Layers = nn.Sequential(*(_layer(tensors, f"{path}Layers.{index}.", up=up) for index in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.Layers(x)
        return out


def _as_pattern(path: str) -> str:
    """A dotted path as a pattern."""
    return path.replace(".", r"\.")


def _layer(tensors: Mapping[str, Tensor], path: str, *, up: bool) -> nn.Module:
    if f"{path}Basis" in tensors:
        return FirstMap(tensors[f"{path}LinearLayer.weight"])
    if f"{path}Basis.weight" in tensors:
        return LastMap(tensors[f"{path}LinearLayer.weight"])
    return Transition(tensors, path, up=up) if f"{path}Resampler.Kernel" in tensors else Residual(tensors, path)


class Model(nn.Module):
    """What generator and discriminator share: stages, and the embedding of classes where the file has one."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, *, up: bool) -> None:
        super().__init__()
        stages = indices(tensors, _as_pattern(prefix) + r"MainLayers\.(\d+)\..*")
        self.MainLayers = nn.Sequential(*(Stage(tensors, f"{prefix}MainLayers.{i}.", up=up) for i in stages))
        table = tensors.get(f"{prefix}EmbeddingLayer.weight")
        self.EmbeddingLayer = None if table is None else nn.Linear(table.shape[1], len(table), bias=False)

    def embedded(self, labels: Tensor) -> Tensor:
        """Labels int64 [N] as vectors [N, E]."""
        assert self.EmbeddingLayer is not None
        one_hot = F.one_hot(labels, self.EmbeddingLayer.in_features).to(self.EmbeddingLayer.weight.dtype)
        out: Tensor = self.EmbeddingLayer(one_hot)
        return out


class GeneratorModel(Model):
    """z [N, Z] and, with classes, labels int64 [N] to images [N, C, S, S], without a squashing at the end."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__(tensors, prefix, up=True)
        self.AggregationLayer = Convolution(tensors[f"{prefix}AggregationLayer.Layer.weight"])

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the class says."""
        x = z if labels is None or self.EmbeddingLayer is None else torch.cat([z, self.embedded(labels)], 1)
        out: Tensor = self.AggregationLayer(self.MainLayers(x))
        return out


class DiscriminatorModel(Model):
    """Images [N, C, S, S] to logits [N]; with classes the product with the embedded label (Miyato & Koyama 2018)."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__(tensors, prefix, up=False)
        self.ExtractionLayer = Convolution(tensors[f"{prefix}ExtractionLayer.Layer.weight"])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the class says."""
        x: Tensor = self.MainLayers(self.ExtractionLayer(images))
        return x.sum(1) if labels is None or self.EmbeddingLayer is None else (x * self.embedded(labels)).sum(1)


class Wrapped(nn.Module):
    """A network under the name ``Model``, as the training code's pickles hold it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.Model = model

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """As the network."""
        out: Tensor = self.Model(x, labels)
        return out


class R3Gan(Family):
    """The networks of brownvc/R3GAN, from the training code's pickles (prefix ``Model.``) or a bare state dict."""

    name: ClassVar[str] = "R3GAN"
    source: ClassVar[str] = "Huang et al. 2024; brownvc/R3GAN"

    def role(self, net: StateDict) -> Role:
        """By the grouped residual block, and the learnt 4×4 maps at the narrow end."""
        block = r"(Model\.)?MainLayers\.0\.Layers\.\d+\."
        if not has(
            net.tensors, *(rf"{block}LinearLayer{i}\.Layer\.weight" for i in (1, 2, 3)), rf"{block}NonLinearity2\.Bias"
        ):
            return ""
        if has(net.tensors, rf"{block}Basis", r"(Model\.)?AggregationLayer\.Layer\.weight"):
            return "generator"
        last = has(net.tensors, r"(Model\.)?MainLayers\.\d+\.Layers\.\d+\.Basis\.weight")
        return "discriminator" if last and has(net.tensors, r"(Model\.)?ExtractionLayer\.Layer\.weight") else ""

    def generator(self, case: Case) -> Networks:
        """As ``Family`` says."""
        tensors, prefix = case.tensors, _prefix(case.tensors)
        module = load(lambda: _wrapped(GeneratorModel(tensors, prefix), prefix), tensors)
        table = tensors.get(f"{prefix}EmbeddingLayer.weight")
        inputs = tensors[f"{prefix}MainLayers.0.Layers.0.LinearLayer.weight"].shape[1]
        return Networks(
            generator=module,
            latent=LatentSpace("z", (inputs - (0 if table is None else len(table)),)),
            output_range=(-1.0, 1.0),
            num_classes=0 if table is None else table.shape[1],
            main_layers=_stages(tensors, prefix),
        )

    def discriminator(self, case: Case) -> Networks:
        """As ``Family`` says."""
        tensors, prefix = case.tensors, _prefix(case.tensors)
        stages = _stages(tensors, prefix)
        size = _SIDE * 2 ** (len(stages) - 1)
        if case.image_shape is not None and case.image_shape[1] != size:
            raise NotOpened(f"the discriminator is for {size} pixels, the generator makes {case.image_shape[1]}")
        module = load(lambda: _wrapped(DiscriminatorModel(tensors, prefix), prefix), tensors)
        table = tensors.get(f"{prefix}EmbeddingLayer.weight")
        logit: Literal["logit"] = "logit"
        return Networks(
            discriminator=module,
            discriminator_layers=stages[:-1],
            discriminator_classes=0 if table is None else table.shape[1],
            discriminator_output=logit,
        )


def _prefix(tensors: Mapping[str, Tensor]) -> str:
    return "Model." if any(name.startswith("Model.") for name in tensors) else ""


def _wrapped(model: Model, prefix: str) -> nn.Module:
    return Wrapped(model) if prefix else model


def _stages(tensors: Mapping[str, Tensor], prefix: str) -> tuple[str, ...]:
    found = indices(tensors, _as_pattern(prefix) + r"MainLayers\.(\d+)\..*")
    return tuple(f"{prefix}MainLayers.{stage}" for stage in found)
