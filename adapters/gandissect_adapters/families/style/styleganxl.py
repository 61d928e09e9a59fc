"""StyleGAN-XL: StyleGAN3's generator with pretrained class embeddings, grown by super-resolution heads.

gan = gandissect.open("imagenet256.pkl", assume={"truncation": "0.7"})
gan.generator(z, labels)
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect_adapters.families.family import Case, Family, Option, has, indices
from gandissect_adapters.families.layers import EqualLinear
from gandissect_adapters.families.style.nvlabs import Mapping
from gandissect_adapters.families.style.ops import lrelu
from gandissect_adapters.families.style.stylegan3 import StyleGan3, alias_free_generator, is_alias_free
from gandissect_adapters.recognise.unwrap import Role, StateDict


class ClassMapping(Mapping):
    """A mapping whose labels have vectors of a classifier, projected to the size of z; w has an average per class.

    Args:
        width: size of a class's vector.
    """

    def __init__(self, z: int, w: int, depth: int, *, classes: int, width: int, rate: float) -> None:
        self.width = width
        super().__init__(z, w, depth, classes=classes, embedding=z, rate=rate, averaged=False)
        self.register_buffer("w_avg", torch.zeros(classes, w))

    def make_embedding(self, classes: int, embedding: int) -> None:
        """``embed`` [classes, width] and ``embed_proj``."""
        self.embed = nn.Embedding(classes, self.width)
        self.embed_proj = EqualLinear(self.width, embedding, activation=lrelu)

    def embedded(self, labels: Tensor) -> Tensor:
        """[N, Z] of int64 [N]."""
        return cast("Tensor", self.embed_proj(self.embed(labels)))


class StyleGanXl(Family):
    """Labelled generators, stem or super-resolution; the discriminators rest on pretrained networks and stay closed."""

    name: ClassVar[str] = "StyleGAN-XL"
    source: ClassVar[str] = "Sauer et al. 2022; autonomousvision/stylegan-xl"
    options: ClassVar[Table[str, Option]] = StyleGan3.options

    def role(self, net: StateDict) -> Role:
        """By StyleGAN3's names with ``mapping.embed_proj``, a table ``mapping.embed`` and an average of w per class."""
        average = net.tensors.get("mapping.w_avg")
        labelled = has(net.tensors, r"mapping\.embed\.weight", r"mapping\.embed_proj\.weight")
        if not labelled or average is None or average.dim() != 2 or not is_alias_free(net):
            return ""
        return "generator"

    def generator(self, case: Case) -> Networks:
        """The generator with its stem and heads as one list of layers."""
        given = case.tensors
        embed, projected = given["mapping.embed.weight"], len(given["mapping.embed_proj.weight"])
        depth = len(indices(given, r"mapping\.fc(\d+)\.weight"))
        if given["mapping.fc0.weight"].shape[1] != 2 * projected:
            raise NotOpened("the mapping network does not take z and a class vector of the same size")

        def make_mapping(rate: float, w: int) -> Mapping:
            return ClassMapping(projected, w, depth, classes=len(embed), width=embed.shape[1], rate=rate)

        return alias_free_generator(case, make_mapping, projected)
