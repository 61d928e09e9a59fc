"""nashory's pggan-pytorch: networks that are rebuilt layer by layer from the numbering in their names.

NashoryPgGan().generator(case)     # gen_R5_T50.pth.tar: {resl, state_dict, optimizer}

A layer multiplies its input with a gain that is the root mean square of its first random weights; the file does not keep it. Its
expectation 1 / sqrt(fan_in) is taken, unless the true ones are given: ``gains="0.0301 0.0412 …"`` for the generator and
``discriminator-gains`` for the discriminator, one number per layer in the order of the file.

References:
    Karras et al. 2018 (Progressive Growing of GANs).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import sqrt
from typing import ClassVar

from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened, UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, load
from gandissect_adapters.families.layers import MinibatchStd, PixelNorm, fade
from gandissect_adapters.families.progressive.training import fraction
from gandissect_adapters.recognise.unwrap import Role, StateDict

_NAME = re.compile(
    r"model\.(first_block|last_block|(to|from)_rgb_block|intermediate_\d+x\d+_\d+x\d+|concat_block\.layer[12])\.([\w.]+)"
)
_ESTIMATED = "1/sqrt(fan_in)"
_GAINS = "gain of each layer in the order of the file, numbers separated by spaces"
_UNKNOWN = "the file does not keep the gains; this is their expectation"


class GainConv2d(nn.Module):
    """conv(x · gain) + bias."""

    def __init__(self, shape: Sequence[int], padding: int, gain: float) -> None:
        super().__init__()
        outputs, inputs, kernel = shape[0], shape[1], shape[2]
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)
        self.bias = nn.Parameter(self.conv.weight.new_zeros(outputs))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs, H, W] to [N, outputs, H', W']."""
        out: Tensor = self.conv(x * self.gain)
        return out + self.bias[:, None, None]


class GainLinear(nn.Module):
    """linear(x · gain) + bias."""

    def __init__(self, shape: Sequence[int], gain: float) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[1], shape[0], bias=False)
        self.bias = nn.Parameter(self.linear.weight.new_zeros(shape[0]))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, inputs] to [N, outputs]."""
        out: Tensor = self.linear(x * self.gain)
        return out + self.bias


class Fading(nn.Module):
    """alpha · layer2(x) + (1 - alpha) · layer1(x): the resolution that comes and the one that goes."""

    def __init__(self, old: nn.Module, new: nn.Module, alpha: float) -> None:
        super().__init__()
        self.layer1, self.layer2, self.alpha = old, new, alpha

    def forward(self, x: Tensor) -> Tensor:
        """As both layers."""
        return fade(self.layer2(x), self.layer1(x), self.alpha)


class Grown(nn.Module):
    """``model``, one part after the other; latents [N, D] become [N, D, 1, 1]."""

    def __init__(self, parts: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        self.model = nn.Sequential(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Latents [N, D] to images [N, C, S, S], or those to scores [N, 1]."""
        out: Tensor = self.model(x[:, :, None, None] if x.dim() == 2 else x)
        return out


class Layout:
    """Builds the parts of one network out of a file's names and shapes.

    Args:
        tensors: the file's.
        gains: path of a layer to its gain.
        leaky: activations are LeakyReLU 0.2, else ReLU.
        output: what an image passes through after the layer that makes it.
        alpha: weight of the resolution that fades in.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], gains: Mapping[str, float], *, leaky: bool, output: str, alpha: float
    ) -> None:
        self.tensors, self.gains, self.alpha = tensors, gains, alpha
        self.activation = partial(nn.LeakyReLU, 0.2) if leaky else nn.ReLU
        self.output = nn.Tanh if output == "tanh" else nn.Identity

    def generator(self) -> Grown:
        """first_block, the intermediate blocks and to_rgb_block, or concat_block while a resolution fades in."""
        return Grown(OrderedDict((name, self.making(f"model.{name}")) for name in self.children("model")))

    def discriminator(self) -> Grown:
        """The mirror: from_rgb_block or concat_block, the intermediate blocks and last_block."""
        return Grown(OrderedDict((name, self.judging(f"model.{name}")) for name in self.children("model")))

    def making(self, path: str) -> nn.Module:
        """The part of a generator at ``path``."""
        name, children = path.rpartition(".")[2], self.children(path)
        if name == "first_block":
            normalized = self.layers(path)[0] == 1
            return self.block(path, [PixelNorm()] if normalized else [], (3, 1), PixelNorm)
        if name == "high_resl_block":
            return self.block(path, [nn.Upsample(scale_factor=2.0)], (1, 1), PixelNorm)
        if name == "concat_block":
            return Fading(self.making(f"{path}.layer1"), self.making(f"{path}.layer2"), self.alpha)
        if children[0].isdigit():
            return nn.Sequential(self.layer(f"{path}.0", 0), self.output())
        inside = OrderedDict((child, self.making(f"{path}.{child}")) for child in children)
        if name == "layer1":
            inside = OrderedDict([("low_resl_upsample", nn.Upsample(scale_factor=2.0)), *inside.items()])
        return nn.Sequential(inside)

    def judging(self, path: str) -> nn.Module:
        """The part of a discriminator at ``path``; before every layer stands a dropout that the codebase has turned off."""
        name, children = path.rpartition(".")[2], self.children(path)
        if name == "last_block":
            end = [nn.Flatten(), self.layer(f"{path}.{self.layers(path)[-1]}", 0)]
            return self.block(path, [MinibatchStd(per_pixel=True), nn.Identity()], (1, 0), nn.Identity, end)
        if name == "high_resl_block":
            return self.block(path, [nn.Identity()], (1, 1), nn.Identity, [nn.AvgPool2d(2)])
        if name == "concat_block":
            return Fading(self.judging(f"{path}.layer1"), self.judging(f"{path}.layer2"), self.alpha)
        if children[0].isdigit():
            return self.block(path, [nn.Identity()], (0,), nn.Identity)
        inside = OrderedDict((child, self.judging(f"{path}.{child}")) for child in children)
        if name == "layer1":
            inside = OrderedDict([("low_resl_downsample", nn.AvgPool2d(2)), *inside.items()])
        return nn.Sequential(inside)

    def block(
        self,
        path: str,
        first: Sequence[nn.Module],
        paddings: Sequence[int],
        gap: Callable[[], nn.Module],
        last: Sequence[nn.Module] = (),
    ) -> nn.Module:
        """A block of numbered places: a layer, its activation, BatchNorm where the file has one, else ``gap``.

        Args:
            first: what stands before the first layer.
            paddings: of each convolution.
            gap: makes what stands in a place without weights: pixel norm in generators.
            last: what follows.
        """
        at = self.layers(path)[: len(paddings)]
        steps = {b - a for a, b in pairwise(at)}
        if at[0] != len(first) or len(at) != len(paddings) or not steps <= {2, 3, 4}:
            raise NotOpened(f"'{path}' is not numbered as in pggan-pytorch: it has layers at {at}")
        normed = self.norm(path, at[-1] + 2) is not None
        after = max(steps) if steps and gap is PixelNorm else 2 + normed
        places = list(first)
        for index in range(len(first), at[-1] + after):
            if index in at:
                places.append(self.layer(f"{path}.{index}", paddings[at.index(index)]))
            elif index - 1 in at:
                places.append(self.activation())
            else:
                places.append(self.norm(path, index) or gap())
        return nn.Sequential(*places, *last)

    def children(self, path: str) -> list[str]:
        """Names right below a path, in the order of the file."""
        size = len(path) + 1
        return list(dict.fromkeys(n[size:].partition(".")[0] for n in self.tensors if n.startswith(f"{path}.")))

    def layers(self, path: str) -> list[int]:
        """Numbers of the convolutions and linear layers of a block."""
        return [int(index) for index in self.children(path) if self.norm(path, int(index)) is None]

    def norm(self, path: str, index: int) -> nn.Module | None:
        """The BatchNorm at a place, None where there is none."""
        mean = self.tensors.get(f"{path}.{index}.running_mean")
        return None if mean is None else nn.BatchNorm2d(len(mean))

    def layer(self, path: str, padding: int) -> nn.Module:
        """The convolution or linear layer at ``path``, with its gain where it is equalised."""
        gain = self.gains.get(path)
        kind = next((kind for kind in (".conv", ".linear") if f"{path}{kind}.weight" in self.tensors), "")
        shape = self.tensors[f"{path}{kind}.weight"].shape
        if len(shape) == 2:
            return nn.Linear(shape[1], shape[0]) if gain is None else GainLinear(shape, gain)
        if gain is None:
            return nn.Conv2d(shape[1], shape[0], shape[2], padding=padding)
        return GainConv2d(shape, padding, gain)


class NashoryPgGan(Family):
    """pggan-pytorch, between two transitions or in one."""

    name: ClassVar[str] = "Progressive GAN (pggan-pytorch)"
    source: ClassVar[str] = "Karras et al. 2018; nashory/pggan-pytorch"
    options: ClassVar[Mapping[str, Option]] = {
        "gains": Option(f"the generator's {_GAINS}", _ESTIMATED, _UNKNOWN),
        "discriminator-gains": Option(f"the discriminator's {_GAINS}", _ESTIMATED, _UNKNOWN),
        "activation": Option("of the hidden layers (leaky, relu)", "leaky"),
        "output": Option("what the image passes through at the end (linear, tanh)", "linear"),
        "alpha": Option("weight of the resolution that fades in, 0 to 1", "1", "the file does not keep it"),
    }

    def role(self, net: StateDict) -> Role:
        """By first_block and something to RGB, last_block and something from RGB, all within ``model``."""
        names = net.tensors
        if not all(_NAME.fullmatch(name) for name in names):
            return ""
        if has(names, r"model\.first_block\.[01]\.(conv\.)?weight", r".*to_rgb(_block)?\.0\.(conv\.)?weight"):
            return "generator"
        found = has(names, r"model\.last_block\.2\.(conv\.)?weight", r".*from_rgb(_block)?\.1\.(conv\.)?weight")
        return "discriminator" if found else ""

    def generator(self, case: Case) -> Networks:
        """As in ``Family``."""
        module = load(self._layout(case, "gains").generator, case.tensors)
        path = "model.first_block"
        weight = next(t for name, t in case.tensors.items() if name.startswith(path) and name.endswith("weight"))
        return Networks(
            generator=module,
            latent=LatentSpace("z", (weight.shape[1],)),
            output_range=(-1.0, 1.0),
            main_layers=_blocks(module),
        )

    def discriminator(self, case: Case) -> Networks:
        """As in ``Family``; a sigmoid at the end, which the file would not show, is left out, so that scores are logits."""
        module = load(self._layout(case, "discriminator-gains").discriminator, case.tensors)
        return Networks(discriminator=module, discriminator_output="logit", discriminator_layers=_blocks(module))

    def _layout(self, case: Case, gains: str) -> Layout:
        leaky = case.choice("activation", ("leaky", "relu")) == "leaky"
        output = case.choice("output", ("linear", "tanh")) if gains == "gains" else "linear"
        fading = any(".concat_block." in name for name in case.tensors)
        alpha = fraction(case, "alpha") if fading else 1.0
        return Layout(case.tensors, _gains(case, gains), leaky=leaky, output=output, alpha=alpha)


def _blocks(module: Grown) -> tuple[str, ...]:
    """The parts that make features, not images or scores."""
    names = [name for name, _part in module.model.named_children()]
    return tuple(f"model.{name}" for name in names if name.startswith(("first", "inter")))


def _gains(case: Case, option: str) -> dict[str, float]:
    """Path of every equalised layer to its gain.

    The gain is the root mean square of n weights drawn with that deviation: relative to 1 / sqrt(fan_in) it is off by about
    1 / sqrt(2 n).
    """
    weights = {
        name.rpartition(".")[0].rpartition(".")[0]: tensor
        for name, tensor in case.tensors.items()
        if name.endswith((".conv.weight", ".linear.weight"))
    }
    if not weights:
        return {}
    said = case.option(option)
    if said == _ESTIMATED:
        worst, few = min(weights.items(), key=lambda item: item[1].numel())
        typical = sorted(1.0 / sqrt(2.0 * tensor.numel()) for tensor in weights.values())[len(weights) // 2]
        case.note(
            f"the gains of the layers are not in the file; 1/sqrt(fan_in) is off by about {100 * typical:.2g} % in half of them, "
            f"by {100 / sqrt(2.0 * few.numel()):.2g} % in '{worst}' (one standard deviation); --assume {option}=… gives the true ones"
        )
        return {path: 1.0 / sqrt(tensor[0].numel()) for path, tensor in weights.items()}
    try:
        given = [float(number) for number in said.replace(",", " ").split()]
    except ValueError:
        raise UsageError(f"--assume {option}={said!r} is no list of numbers") from None
    if len(given) != len(weights):
        raise UsageError(
            f"--assume {option} has {len(given)} numbers where the file has {len(weights)} layers: {', '.join(weights)}"
        )
    return dict(zip(weights, given, strict=True))
