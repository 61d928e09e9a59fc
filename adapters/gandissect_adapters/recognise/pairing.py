"""Which of several discriminators judges what a generator makes, told by their names.

partner("netG_A2B", ["netD_A", "netD_B"]).name      # "netD_B"
partner("netG_A", ["netD_A", "netD_B"]).name        # "netD_A"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gandissect.gan import Assumption

_ROLE = re.compile(r"(state_dict_)?(net|model)?_?(generator|gen|g|f|discriminator|disc|dis|critic|d)_?", re.I)
_AROUND = re.compile(r"(_(state_dict|state|net|model|params|weights|ema|epoch|iter|\d{2,}))+$", re.I)
_WAY = re.compile(r"(\w+)2(\w+)|(\w+)_to_(\w+)|([a-z])to([a-z])|([a-z])([a-z])", re.I)
_PAPER = {("g", ""): "y", ("f", ""): "x"}  # Zhu et al. 2017, section 3: G: X -> Y, F: Y -> X


@dataclass(frozen=True)
class Partner:
    """A discriminator's name, why it was taken, and whether the names leave no choice."""

    name: str
    because: str
    sure: bool = False

    def assumption(self) -> Assumption:
        """What the report writes down of it."""
        return Assumption(
            "discriminator network", self.name, f"{self.because} (else --assume discriminator-network=NAME)", self.sure
        )


def partner(generator: str, discriminators: Sequence[str]) -> Partner:
    """The discriminator of the domain that ``generator`` makes images of; the first where no name tells.

    Two conventions are met. A name with a way in it says where the images go, and discriminators are named after the
    domain that they judge: ``G_AB`` and ``D_B`` (eriklindernoren/PyTorch-GAN), ``netG_A2B`` and ``netD_B``
    (aitorzip/PyTorch-CycleGAN), ``G`` and ``D_Y`` (Zhu et al. 2017). A single letter is shared: in
    junyanz/pytorch-CycleGAN-and-pix2pix ``netG_A`` makes images of domain B and ``netD_A`` judges them (its ``D_A`` is the
    paper's ``D_Y``); where generators are named after the domain that they make, the letters agree as well.

    Args:
        generator: dotted name in its file.
        discriminators: likewise, one at least.
    """
    letter, tag = _named(generator)
    domains = {name: _named(name)[1] for name in reversed(discriminators)}  # the first of two alike wins
    of_domain = {domain: name for name, domain in domains.items()}
    way = _WAY.fullmatch(tag)
    target = next((part for part in way.groups()[::-1] if part), "") if way else ""
    if target in of_domain and target:
        name = of_domain[target]
        return Partner(name, f"'{generator}' makes images of the domain '{target}' that it is named after", True)
    if tag in of_domain:
        same = f"it shares '{tag}' with '{generator}'" if tag else f"it is named as plainly as '{generator}'"
        why = ": in pytorch-CycleGAN-and-pix2pix D_A judges what G_A makes" if tag in ("a", "b") else ""
        return Partner(of_domain[tag], f"{same}{why}")
    paper = _PAPER.get((letter, tag), "")
    if paper in of_domain and paper:
        return Partner(of_domain[paper], f"it judges what '{generator}' makes in the paper (Zhu et al. 2017)")
    return Partner(
        discriminators[0], f"the first of {len(discriminators)}; no name says which judges what '{generator}' makes"
    )


def _named(name: str) -> tuple[str, str]:
    """(first letter of the role, what follows it), lower case: ("g", "a2b") of "nets.netG_A2B"; ("", "") where no role is named."""
    for part in reversed(name.split(".")):
        bare = _AROUND.sub("", part)
        found = _ROLE.match(bare)
        rest = bare[found.end() :] if found else ""
        if found and (not rest or bare[found.end() - 1] == "_" or rest[0].isupper() or rest[0].isdigit()):
            return found.group(3)[0].lower(), rest.lower()
    return "", ""
