"""heykeetae's self-attention GAN, 64 pixels: four convolutions, attention behind the third and the fourth.

gan = gandissect.open("938500_G.pth", discriminator="938500_D.pth")
tap(gan.generator.module, ["attn1", "attn1.softmax"])   # the map, and where each place looks: [N, 256, 256]
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Family, has, load
from gandissect_adapters.families.residual.ops import QUERY_KEY_VALUE, SelfAttention
from gandissect_adapters.recognise.unwrap import Role, StateDict

_STAGES = ("l1", "l2", "l3", "l4")
_LAYERS = ("l1", "l2", "l3", "attn1", "l4", "attn2")
_NAMES = r"(l[1-4]\.[01](\.module)?|last\.0|attn[12](\.(query|key|value)_conv)?)\.\w+"
_SIDE = 64


def attention(channels: int, narrow: int) -> SelfAttention:
    """Attention with biases over all places, without pooling and without an output convolution."""
    return SelfAttention(channels, names=QUERY_KEY_VALUE, bias=True, gate_shape=(1,), narrow=narrow)


class Generator(nn.Module):
    """Latent as a 1×1 map, transposed convolutions to 4, 8, 16 and 32, attention on the last two, tanh.

    Args:
        widths: units of the latent and of ``l1`` to ``l4``.
        narrow: units of queries and keys in ``attn1`` and ``attn2``.

    References:
        Zhang et al. 2019 (Self-Attention GAN).
    """

    def __init__(self, widths: tuple[int, ...], narrow: tuple[int, int]) -> None:
        super().__init__()
        for number, name in enumerate(_STAGES):
            into, out = widths[number], widths[number + 1]
            stride, padding = (1, 0) if number == 0 else (2, 1)
            convolution = nn.ConvTranspose2d(into, out, 4, stride, padding)
            self.add_module(name, nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU()))
        self.attn1 = attention(widths[3], narrow[0])
        self.attn2 = attention(widths[4], narrow[1])
        self.last = nn.Sequential(nn.ConvTranspose2d(widths[4], 3, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """float32 [N, latent] to images [N, 3, 64, 64] in [-1, 1]."""
        x = z.reshape(len(z), -1, 1, 1)
        for name in _STAGES[:3]:
            x = self.get_submodule(name)(x)
        images: Tensor = self.last(self.attn2(self.get_submodule("l4")(self.attn1(x))))
        return images


class Discriminator(nn.Module):
    """Convolutions to 32, 16, 8 and 4 with LeakyReLU(0.1), attention on the last two, one logit."""

    def __init__(self, widths: tuple[int, ...], narrow: tuple[int, int]) -> None:
        super().__init__()
        for number, name in enumerate(_STAGES):
            into, out = widths[number], widths[number + 1]
            self.add_module(name, nn.Sequential(nn.Conv2d(into, out, 4, 2, 1), nn.LeakyReLU(0.1)))
        self.attn1 = attention(widths[3], narrow[0])
        self.attn2 = attention(widths[4], narrow[1])
        self.last = nn.Sequential(nn.Conv2d(widths[4], 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, 3, 64, 64] in [-1, 1] to logits [N]."""
        for name in _STAGES[:3]:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.last(self.attn2(self.get_submodule("l4")(self.attn1(x))))
        return logits.reshape(len(x))


class HeykeetaeSagan(Family):
    """``l1`` to ``l4``, ``last``, ``attn1`` and ``attn2`` with query, key and value; ``weight_bar`` or plain weights."""

    name = "SAGAN (heykeetae)"
    source = "heykeetae/Self-Attention-GAN; Zhang et al. 2019"

    def role(self, net: StateDict) -> Role:
        """By all names, and by whether images (3 units) come out of ``last.0`` or go into ``l1.0``."""
        plain = {_plain(name): tensor.shape for name, tensor in net.tensors.items()}
        if not (
            all(has({name: 0}, _NAMES) for name in net.tensors)
            and has(plain, *(rf"{name}\.0\.weight" for name in (*_STAGES, "last")))
            and has(plain, *(rf"attn{n}\.(gamma|query_conv\.weight)" for n in (1, 2)))
        ):
            return ""
        first, last = plain["l1.0.weight"], plain["last.0.weight"]
        if len(first) != 4 or len(last) != 4 or tuple(first[2:]) != (4, 4):
            return ""
        normed = has(plain, *(rf"{name}\.1\.running_mean" for name in _STAGES))
        if normed and last[1] == 3:
            return "generator"
        return "discriminator" if not normed and last[0] == 1 and first[1] == 3 else ""

    def generator(self, case: Case) -> Networks:
        """The generator; its weights divided by their largest singular value."""
        tensors = {_plain(name): tensor for name, tensor in case.tensors.items()}
        widths = (
            tensors["l1.0.weight"].shape[0],
            *(tensors[f"{name}.0.weight"].shape[1] for name in _STAGES),
        )
        module = load(lambda: Generator(widths, _narrow(tensors)), tensors)
        return Networks(
            generator=module, latent=LatentSpace("z", (widths[0],)), image_shape=(3, _SIDE, _SIDE),
            output_range=(-1.0, 1.0), main_layers=_LAYERS,
        )  # fmt: skip

    def discriminator(self, case: Case) -> Networks:
        """The discriminator for 64×64 images."""
        assert case.image_shape is not None
        if case.image_shape[1:] != (_SIDE, _SIDE):
            side = "×".join(str(n) for n in case.image_shape[1:])
            raise NotOpened(f"the discriminator takes images of {_SIDE}×{_SIDE}, the generator makes {side}")
        tensors = {_plain(name): tensor for name, tensor in case.tensors.items()}
        widths = (tensors["l1.0.weight"].shape[1], *(tensors[f"{name}.0.weight"].shape[0] for name in _STAGES))
        module = load(lambda: Discriminator(widths, _narrow(tensors)), tensors)
        return Networks(
            discriminator=module, discriminator_layers=_LAYERS, discriminator_output="logit",
        )  # fmt: skip


def _plain(name: str) -> str:
    """The name without the wrapper of spectral norm: ``l1.0.module.weight_bar`` is ``l1.0.weight``."""
    return name.replace(".module.", ".").replace("weight_bar", "weight").replace("weight_orig", "weight")


def _narrow(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    one, two = (tensors[f"attn{number}.query_conv.weight"].shape[0] for number in (1, 2))
    return one, two
