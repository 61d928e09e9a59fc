"""What families share whose networks take images: the latent that is a picture, and layers numbered as in the file.

networks = Networks(generator=module, latent=image_latent(case, 3, multiple=4))
Stack("model", [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)])(images)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from gandissect.errors import NotOpened, UsageError
from gandissect.gan import LatentSpace
from gandissect_adapters.families.family import Case, Option


def size_option(side: int) -> Option:
    """The option that ``image_latent`` asks for: the side of the square images that go in."""
    return Option("side of the input images", str(side), "the network takes any size; a small one runs faster")


def image_latent(
    case: Case, channels: int, *, multiple: int = 1, span: tuple[float, float] = (-1.0, 1.0)
) -> LatentSpace:
    """Pictures [channels, size, size] as latents; ``size`` is the option of that name.

    Raises:
        UsageError: the size is no multiple of ``multiple``, by which the network divides it.
    """
    side = case.whole("size")
    if side < max(multiple, 4) or side % multiple:
        raise UsageError(f"--assume size={side} does not fit: this network takes multiples of {multiple}")
    return LatentSpace("image", (channels, side, side), "image", span)


def check_channels(case: Case, into: int) -> None:
    """Nothing where the discriminator takes ``into`` channels of one generated image.

    Raises:
        NotOpened: it takes pairs of an input and an output, as pix2pix trains it.
    """
    if case.image_shape is not None and into != case.image_shape[0]:
        raise NotOpened(
            f"the discriminator takes {into} channels, an input image together with its output, while generated images "
            f"have {case.image_shape[0]}; it cannot judge an image alone, so leave it out"
        )


class Stack(nn.Module):
    """Layers that run one after the other, in a Sequential called as in the file: [N, C, H, W] in, whatever the last gives out."""

    def __init__(self, name: str, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.held = name
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.get_submodule(self.held)(x)
        return out


def rows(tensors: Mapping[str, Tensor], name: str) -> int:
    """First extent of ``name.weight``."""
    return len(tensors[f"{name}.weight"])


def kernel_of(tensors: Mapping[str, Tensor], name: str) -> int:
    """Side of the square kernel of ``name.weight``; 0 where it is no convolution's."""
    weight = tensors.get(f"{name}.weight")
    return int(weight.shape[3]) if weight is not None and weight.dim() == 4 else 0


def activations_of(module: nn.Module, prefix: str) -> tuple[str, ...]:
    """Names of the ReLU-like modules and of the composite blocks directly in ``module``: the ends of its stages."""
    kinds = (nn.ReLU, nn.LeakyReLU, nn.PReLU)
    ends = [
        name for name, part in module.named_children() if isinstance(part, kinds) or any(True for _ in part.children())
    ]
    return tuple(f"{prefix}.{name}" for name in ends)


def spread(names: Sequence[str], count: int = 6) -> tuple[str, ...]:
    """Up to ``count`` of ``names``, evenly spaced, the last among them: the blocks of a deep trunk that are worth a look."""
    wanted = min(count, len(names))
    return tuple(names[(k + 1) * len(names) // wanted - 1] for k in range(wanted))
