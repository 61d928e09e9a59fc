"""What families of codebases fix that no file says: BatchNorm eps, strides, output, names.

rule = family_of(chain, slots)
rule.family, rule.eps                   # "PyTorch-GAN upsample DCGAN", {"conv_blocks.3": 0.8, ...}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gandissect_adapters.recognise.chain import Chain


@dataclass(frozen=True)
class Rule:
    """One family: how its layers are called, and what is known of it beyond shapes.

    ``names`` must match every layer with parameters; ``eps`` maps a pattern of names to a BatchNorm eps; ``kernels`` are
    those of its convolutions in order. ``because`` is shown with every assumption that comes from the rule.
    """

    family: str
    names: str
    because: str
    requires: tuple[str, ...] = ()
    eps: Mapping[str, float] = field(default_factory=dict)
    kernels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    paddings: tuple[int, ...] = ()
    prior: str = ""
    activation: str = ""
    output: str = ""
    role: str = "generator"

    def fits(self, chain: Chain, role: str) -> bool:
        """Whether the chain's names and kernels are this family's."""
        names = [op.name for op in chain.ops]
        kernels = tuple(max(op.kernel) for op in chain.ops if op.kind in ("conv", "deconv"))
        return (
            role == self.role
            and all(re.fullmatch(self.names, name) for name in names)
            and set(self.requires) <= set(names)
            and (not self.kernels or kernels == self.kernels)
        )

    def eps_of(self, chain: Chain) -> dict[str, float]:
        """Layer name -> eps, for norms that do not have torch's default."""
        return {
            op.name: value
            for op in chain.ops
            for pattern, value in self.eps.items()
            if op.kind == "norm" and re.fullmatch(pattern, op.name)
        }


_ERIK = "eriklindernoren/PyTorch-GAN writes BatchNorm(C, 0.8), whose second argument is eps; eps is in no file"
_PREFIX = r"(?:\w+\.)*?"

# Sources: the public code of each family, as read for the census of formats (docs/formats.md).
RULES: tuple[Rule, ...] = (
    Rule(
        "PyTorch-GAN upsample DCGAN", r"l1\.0|conv_blocks\.\d+", _ERIK,
        ("l1.0", "conv_blocks.0", "conv_blocks.3", "conv_blocks.7"),
        {r"conv_blocks\.[37]": 0.8}, paddings=(1, 1, 1), strides=(1, 1, 1),
    ),
    Rule(
        "PyTorch-GAN upsample LSGAN", r"l1\.0|conv_blocks\.\d+", _ERIK, ("l1.0", "conv_blocks.2", "conv_blocks.6"),
        {r"conv_blocks\.[26]": 0.8}, paddings=(1, 1, 1), strides=(1, 1, 1),
    ),
    Rule("PyTorch-GAN fully connected GAN", r"model\.(0|2|3|5|6|8|9|11)", _ERIK, ("model.2", "model.3", "model.6", "model.9"),
         {r"model\.[369]": 0.8}, activation="lrelu0.2"),
    Rule("PyTorch-GAN DCGAN", r"model\.\d+|adv_layer\.0", _ERIK, ("adv_layer.0", "model.0"), {r"model\.\d+": 0.8},
         role="discriminator"),
    Rule("MLP GAN (znxlwm)", r"fc[1-4]", "znxlwm's MLP GAN and the tutorials after it use LeakyReLU(0.2)", ("fc1", "fc2", "fc3", "fc4"),
         activation="lrelu0.2", output="tanh"),
    Rule("VAE decoder (pytorch/examples)", r"fc[34]", "pytorch/examples vae draws images in 0..1 from its fc3 and fc4",
         ("fc3", "fc4"), output="sigmoid"),
    Rule("DCGAN (pytorch/examples)", rf"{_PREFIX}main\.\d+", "the layout of pytorch/examples dcgan", kernels=(4, 4, 4, 4, 4)),
    Rule("Coursera-GANs DCGAN", r".*", "the strides of the Coursera GANs course for kernels 3, 4, 3, 4", kernels=(3, 4, 3, 4),
         strides=(2, 1, 2, 2), paddings=(0, 0, 0, 0)),
    Rule("Udacity face DCGAN", r"(fc|t_conv\d+(\.\d)?)", "the Udacity course draws z from U(-1, 1)", ("t_conv1.0",),
         prior="uniform"),
)  # fmt: skip


def family_of(chain: Chain, role: str) -> Rule | None:
    """The first family whose names fit, or None."""
    return next((rule for rule in RULES if rule.fits(chain, role)), None)
