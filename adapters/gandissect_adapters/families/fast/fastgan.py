"""FastGAN (Liu et al. 2021): a few up blocks, and small maps that gate the units of large ones.

gan = gandissect.open("all_50000.pth")
feed_noise(gan.generator.module, maps)      # the codebase draws it anew for every image; here it is zero until fed
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
from gandissect_adapters.families.fast.ops import UNFED, Excite, First, gated_up, noisy_up
from gandissect_adapters.recognise.unwrap import Role, StateDict

_NOISY = (8, 32, 128, 512)
_GATES = {64: 4, 128: 8, 256: 16, 512: 32}  # side of the gated map -> side of the map that gates it
_SMALL = 128


class Generator(nn.Module):
    """z [N, Z] to images [N, C, S, S] with S = 256, 512 or 1024; a tanh ends it at 1024 only.

    The codebase returns a second image of 128 pixels, which only its discriminator looks at: ``both`` gives the two.
    """

    def __init__(self, tensors: Mapping[str, Tensor], size: int) -> None:
        super().__init__()
        self.size = size
        first = tensors["init.init.0.weight"]
        self.init = First(first.shape[0], first.shape[1] // 2)
        for side in _sides(size):
            rows, columns = tensors[f"feat_{side}.1.weight"].shape[:2]
            self.add_module(f"feat_{side}", (noisy_up if side in _NOISY else gated_up)(columns, rows // 2))
        for side in _gated(size):
            rows, columns = tensors[f"se_{side}.main.1.weight"].shape[:2]
            self.add_module(f"se_{side}", Excite(columns, rows))
        self.to_128, self.to_big = _to_image(tensors["to_128.weight"]), _to_image(tensors["to_big.weight"])
        self.act = nn.Tanh() if size == 1024 else nn.Identity()

    def maps(self, z: Tensor) -> dict[int, Tensor]:
        """The map of each side, after its gate: side -> [N, C, side, side]."""
        found = {4: self.init(z)}
        for side in _sides(self.size):
            x = self.get_submodule(f"feat_{side}")(found[side // 2])
            found[side] = self.get_submodule(f"se_{side}")(found[_GATES[side]], x) if side in _gated(self.size) else x
        return found

    def both(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image [N, C, S, S], and the one of 128 pixels."""
        maps = self.maps(z)
        return self.act(self.to_big(maps[self.size])), self.act(self.to_128(maps[_SMALL]))

    def forward(self, z: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.act(self.to_big(self.maps(z)[self.size]))
        return out


def _to_image(weight: Tensor) -> nn.Conv2d:
    rows, columns, kernel, _ = weight.shape
    return nn.Conv2d(columns, rows, kernel, padding=kernel // 2, bias=False)


def _sides(size: int) -> list[int]:
    return [2**power for power in range(3, 11) if 2**power <= size]


def _gated(size: int) -> list[int]:
    return [side for side in _GATES if side <= size]


class Down(nn.Module):
    """Half the size, two convolutions beside average pooling where ``shortcut`` is given: [N, C, H, W] to [N, D, H/2, W/2]."""

    def __init__(self, inputs: int, units: int, *, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        first = _conv(inputs, units, 4, 2, 1)
        self.main = nn.Sequential(*first, *_conv(units, units, 3, 1, 1)) if shortcut else nn.Sequential(*first)
        if shortcut:
            self.direct = nn.Sequential(nn.AvgPool2d(2), *_conv(inputs, units, 1, 1, 0))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        out: Tensor = self.main(x)
        return (out + self.direct(x)) / 2.0 if self.shortcut else out


def _conv(inputs: int, units: int, kernel: int, stride: int, padding: int, *, norm: bool = True) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, units, kernel, stride, padding, bias=False)
    return [conv, *([nn.BatchNorm2d(units)] if norm else []), nn.LeakyReLU(0.2)]


class Discriminator(nn.Module):
    """Images [N, C, S, S] to logits [N, 50]: 5×5 of the image, then 5×5 of the same image at 128 pixels."""

    def __init__(self, tensors: Mapping[str, Tensor], size: int) -> None:
        super().__init__()
        self.size = size
        entry = tensors["down_from_big.0.weight"]
        begin = (
            _conv(entry.shape[1], len(entry), 3, 1, 1, norm=False)
            if size == 256
            else _conv(entry.shape[1], len(entry), 4, 2, 1, norm=False)
        )
        second = tensors.get("down_from_big.2.weight")
        self.down_from_big = nn.Sequential(*begin, *([] if second is None else _conv(len(entry), len(second), 4, 2, 1)))
        for side in (4, 8, 16, 32, 64):
            rows, columns = tensors[f"down_{side}.main.0.weight"].shape[:2]
            self.add_module(f"down_{side}", Down(columns, rows, shortcut=True))
        last = tensors["rf_big.0.weight"]
        self.rf_big = nn.Sequential(*_conv(last.shape[1], len(last), 1, 1, 0), nn.Conv2d(len(last), 1, 4, bias=False))
        for name in ("se_2_16", "se_4_32", "se_8_64"):
            rows, columns = tensors[f"{name}.main.1.weight"].shape[:2]
            self.add_module(name, Excite(columns, rows))
        small = tensors["down_from_small.0.weight"]
        blocks = [tensors[f"down_from_small.{index}.main.0.weight"].shape[:2] for index in (2, 3, 4)]
        self.down_from_small = nn.Sequential(
            *_conv(small.shape[1], len(small), 4, 2, 1, norm=False),
            *(Down(columns, rows, shortcut=False) for rows, columns in blocks),
        )
        self.rf_small = nn.Conv2d(blocks[-1][0], 1, 4, bias=False)

    def forward(self, images: Tensor, small: Tensor | None = None) -> Tensor:
        """Logits [N, 50].

        Args:
            small: float32 [N, C, 128, 128], the generator's second image; every 2nd, 4th or 8th pixel of ``images`` where
                it is None, as the codebase does with real images.
        """
        if small is None:
            small = F.interpolate(images, size=_SMALL)
        after = {2: self.down_from_big(images)}
        for side, back in ((4, 0), (8, 0), (16, 2), (32, 4), (64, 8)):
            x = self.get_submodule(f"down_{side}")(after[side // 2])
            after[side] = self.get_submodule(f"se_{back}_{side}")(after[back], x) if back else x
        low = self.rf_small(self.down_from_small(small))
        return torch.cat([self.rf_big(after[64]).flatten(1), low.flatten(1)], 1)


class FastGan(Family):
    """The networks of odegeasslbc/FastGAN-pytorch, for 256, 512 and 1024 pixels."""

    name: ClassVar[str] = "FastGAN"
    source: ClassVar[str] = "Liu et al. 2021; odegeasslbc/FastGAN-pytorch"
    transposed: ClassVar[str] = r"init\.init\.0\.weight"

    def role(self, net: StateDict) -> Role:
        """By the first map's layer, the gates and both image layers; by the discriminator's two entries."""
        stem = r"(weight|weight_orig)"
        if has(net.tensors, rf"init\.init\.0\.{stem}", rf"feat_256\.1\.{stem}", rf"se_256\.main\.3\.{stem}") and has(
            net.tensors, rf"to_128\.{stem}", rf"to_big\.{stem}", r"feat_8\.6\.weight"
        ):
            return "generator"
        marks = (rf"down_from_big\.0\.{stem}", rf"down_from_small\.4\.main\.0\.{stem}", rf"se_8_64\.main\.3\.{stem}")
        return "discriminator" if has(net.tensors, *marks, rf"rf_small\.{stem}") else ""

    def generator(self, case: Case) -> Networks:
        """As ``Family`` says; noise is zero until it is fed."""
        tensors = case.tensors
        size = max(indices(tensors, r"feat_(\d+)\.1\.weight"))
        module = load(lambda: Generator(tensors, size), tensors)
        case.note(UNFED)
        gated = _gated(size)
        sides = [f"se_{side}" if side in gated else f"feat_{side}" for side in _sides(size)]
        return Networks(
            generator=module,
            latent=LatentSpace("z", (tensors["init.init.0.weight"].shape[0],)),
            output_range=(-1.0, 1.0),
            main_layers=("init", *sides),
        )

    def discriminator(self, case: Case) -> Networks:
        """As ``Family`` says; the decoders, which only training uses, are left out."""
        size = _entry_size(case.tensors)
        if case.image_shape is not None and case.image_shape[1] != size:
            raise NotOpened(f"the discriminator is for {size} pixels, the generator makes {case.image_shape[1]}")
        module = load(lambda: Discriminator(case.tensors, size), case.tensors, unused=[r"decoder_\w+\..*"])
        logit: Literal["logit"] = "logit"
        downs = ("down_4", "down_8", "se_2_16", "se_4_32", "se_8_64", "down_from_small")
        return Networks(discriminator=module, discriminator_layers=downs, discriminator_output=logit)


def _entry_size(tensors: Mapping[str, Tensor]) -> int:
    if "down_from_big.2.weight" in tensors:
        return 1024
    return 256 if tensors["down_from_big.0.weight"].shape[-1] == 3 else 512
