"""VQGAN as taming-transformers and diffusers write it, and the KL autoencoders of the same names.

gan = gandissect.open("last.ckpt", assume={"size": "256"})
gan.generator.space("codes").leave(z_q, None)                # what the decoder makes of codes
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import InnerSpace, LatentSpace
from gandissect_adapters.families.family import Case, Family, Option, has, indices, load
from gandissect_adapters.families.images.image_input import activations_of, image_latent, size_option
from gandissect_adapters.families.images.junyanz import is_patch_discriminator, patch_discriminator
from gandissect_adapters.families.images.vq_layers import (
    Attention,
    Codebook,
    Downsample,
    GumbelCodebook,
    ResBlock,
    Upsample,
    conv,
    group_norm,
)
from gandissect_adapters.recognise.unwrap import Role, StateDict

Tensors = Mapping[str, Tensor]
_NOT_STAGES = ("norm_out", "conv_norm_out", "conv_out")
_TAMING_ATTENTION = ("norm", "q", "k", "v", "proj_out")
_DIFFUSERS_ATTENTION = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
_OLD_ATTENTION = ("group_norm", "query", "key", "value", "proj_attn")  # diffusers before 0.16


_GROUP = re.compile(r"(mid_block|mid|(?:up|down)(?:_blocks)?\.\d+)\.(.*)")


class Half(nn.Module):
    """An encoder or a decoder, or one level of it: parts that run one after the other, [N, C, H, W] to [N, D, h, w].

    Each is a submodule under its dotted name in the file; the parts of a level (``mid``, ``up.3``) stand in a Half of their own.
    """

    def __init__(self, parts: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        levels: dict[str, list[tuple[str, nn.Module]]] = {}
        for name, part in parts:
            match = _GROUP.fullmatch(name)
            levels.setdefault(match[1] if match else name, []).append((match[2] if match else "", part))
        self.order = tuple(levels)
        for level, inside in levels.items():
            _attach(self, level, inside[0][1] if inside[0][0] == "" else Half(inside))

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


def _attach(root: nn.Module, name: str, part: nn.Module) -> None:
    """Register ``part`` under a dotted name."""
    *parents, leaf = name.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(leaf, part)


@dataclass(frozen=True)
class Layout:
    """How a codebase calls the parts of an encoder or decoder: names of what runs, in order, from the tensors.

    ``order(tensors, half)`` lists (name within the half, kind) with kind in conv, res, attention, down, up, norm.
    """

    order: Callable[[Tensors, str], list[tuple[str, str]]]
    attention: tuple[str, ...]


def _taming_order(tensors: Tensors, half: str) -> list[tuple[str, str]]:
    side, change = ("down", "downsample") if half == "encoder" else ("up", "upsample")
    levels = indices(tensors, rf"{half}\.{side}\.(\d+)\..*")
    inner: list[tuple[str, str]] = []
    for level in levels if half == "encoder" else reversed(levels):  # up.0 is the last to run
        name = f"{side}.{level}"
        for k in indices(tensors, rf"{half}\.{name}\.block\.(\d+)\..*"):
            inner.append((f"{name}.block.{k}", "res"))
            if f"{half}.{name}.attn.{k}.q.weight" in tensors:
                inner.append((f"{name}.attn.{k}", "attention"))
        if f"{half}.{name}.{change}.conv.weight" in tensors:
            inner.append((f"{name}.{change}", side))
    middle = [("mid.block_1", "res"), ("mid.attn_1", "attention"), ("mid.block_2", "res")]
    if f"{half}.mid.attn_1.q.weight" not in tensors:
        del middle[1]
    return _framed(inner, middle, half, "norm_out")


def _diffusers_order(tensors: Tensors, half: str) -> list[tuple[str, str]]:
    side, change = ("down", "downsamplers") if half == "encoder" else ("up", "upsamplers")
    inner: list[tuple[str, str]] = []
    for level in indices(tensors, rf"{half}\.{side}_blocks\.(\d+)\..*"):
        inner += _diffusers_block(tensors, half, f"{side}_blocks.{level}")
        if f"{half}.{side}_blocks.{level}.{change}.0.conv.weight" in tensors:
            inner.append((f"{side}_blocks.{level}.{change}.0", side))
    middle = _diffusers_block(tensors, half, "mid_block")
    return _framed(inner, middle, half, "conv_norm_out")


def _diffusers_block(tensors: Tensors, half: str, block: str) -> list[tuple[str, str]]:
    """Residual blocks and the attention behind each."""
    found: list[tuple[str, str]] = []
    for k in indices(tensors, rf"{half}\.{block}\.resnets\.(\d+)\..*"):
        found.append((f"{block}.resnets.{k}", "res"))
        if f"{half}.{block}.attentions.{k}.group_norm.weight" in tensors:
            found.append((f"{block}.attentions.{k}", "attention"))
    return found


def _framed(inner: list[tuple[str, str]], middle: list[tuple[str, str]], half: str, norm: str) -> list[tuple[str, str]]:
    body = [*inner, *middle] if half == "encoder" else [*middle, *inner]
    return [("conv_in", "conv"), *body, (norm, "norm"), ("nonlinearity", "act"), ("conv_out", "conv")]


TAMING = Layout(_taming_order, _TAMING_ATTENTION)
DIFFUSERS = Layout(_diffusers_order, _DIFFUSERS_ATTENTION)


def build_half(tensors: Tensors, half: str, layout: Layout, groups: int) -> Half:
    """The encoder or decoder (``half``) that the names in ``tensors`` describe."""
    makers: dict[str, Callable[[str], nn.Module]] = {
        "conv": lambda name: conv(tensors, name),
        "res": lambda name: ResBlock(tensors, name, groups),
        "attention": lambda name: Attention(tensors, name, layout.attention, groups),
        "down": lambda name: Downsample(tensors, name),
        "up": lambda name: Upsample(tensors, name),
        "norm": lambda name: group_norm(tensors, name, groups),
        "act": lambda _name: nn.SiLU(),
    }
    return Half([(name, makers[kind](f"{half}.{name}")) for name, kind in layout.order(tensors, half)])


class VqGan(nn.Module):
    """Images [N, C, H, W] to codes and back to images (Esser et al. 2021); without an encoder in the file, codes to images.

    With a codebook the codes are its entries [N, D, h, w]; a KL autoencoder's are the means of its posterior (Rombach et al. 2022).
    Without an encoder, u [N, 1, h, w] in 0..1 picks entry floor(u · K).
    """

    def __init__(self, tensors: Tensors, layout: Layout, groups: int) -> None:
        super().__init__()
        self.width = int(tensors["post_quant_conv.weight"].shape[1])
        self.channels = int(tensors["decoder.conv_out.weight"].shape[0])
        if "encoder.conv_in.weight" in tensors:
            self.encoder = build_half(tensors, "encoder", layout, groups)
            self.quant_conv = conv(tensors, "quant_conv")
        if "quantize.embed.weight" in tensors:
            count, into = tensors["quantize.proj.weight"].shape[:2]
            self.quantize: nn.Module | None = GumbelCodebook(count, self.width, into)
        elif "quantize.embedding.weight" in tensors:
            self.quantize = Codebook(*tensors["quantize.embedding.weight"].shape)
        else:
            self.quantize = None
        self.post_quant_conv = conv(tensors, "post_quant_conv")
        self.decoder = build_half(tensors, "decoder", layout, groups)

    @property
    def encodes(self) -> bool:
        """Whether it takes images."""
        return hasattr(self, "encoder")

    def codes(self, x: Tensor) -> Tensor:
        """[N, D, h, w], what the decoder is given for ``x``."""
        if self.encodes:
            z: Tensor = self.quant_conv(self.encoder(x))
            return z[:, : self.width] if self.quantize is None else self.quantize(z)
        if not isinstance(self.quantize, (Codebook, GumbelCodebook)):
            return x
        picked = (x[:, 0] * self.quantize.count).long().clamp(0, self.quantize.count - 1)
        return self.quantize.entries(picked)

    def decode(self, codes: Tensor) -> Tensor:
        """Images [N, C, H, W] of codes [N, D, h, w]."""
        out: Tensor = self.decoder(self.post_quant_conv(codes))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        return self.decode(self.codes(x))


class VqFamily(Family):
    """What both codebases' families share."""

    layout: ClassVar[Layout]
    options: ClassVar[Mapping[str, Option]] = {
        "size": size_option(128),
        "groups": Option("groups of the group norms", "32", "both codebases' default"),
    }

    def generator(self, case: Case) -> Networks:
        tensors = self.prepared(case)
        groups = case.whole("groups", *_configured(case, "norm_num_groups"))
        module = load(lambda: VqGan(tensors, self.layout, groups), tensors, unused=(r"loss\..*", r"quantize\.ema_.*"))
        factor = 2 ** sum(kind == "up" for _, kind in self.layout.order(tensors, "decoder"))
        latent = self._latent(case, module, factor)
        side = latent.shape[1] // factor if module.encodes else latent.shape[1]
        kind = "z" if module.quantize is None else "codes"
        inner = InnerSpace(
            kind, (module.width, side, side), lambda x, _labels: module.codes(x), lambda codes, _labels: module.decode(codes)
        )  # fmt: skip
        return Networks(
            generator=module,
            latent=latent,
            output_range=(-1.0, 1.0),
            inner=(inner,) if module.encodes or module.quantize is not None else (),
            main_layers=tuple(f"decoder.{name}" for name in module.decoder.order if name not in _NOT_STAGES),
        )

    def prepared(self, case: Case) -> Tensors:
        """The tensors, under the names that the layout knows."""
        return case.tensors

    def _latent(self, case: Case, module: VqGan, factor: int) -> LatentSpace:
        if module.encodes:
            if module.quantize is None:
                case.note("a KL autoencoder: codes are the means of its posterior, nothing is drawn")
            return image_latent(case, module.channels, multiple=factor)
        side = max(1, case.whole("size") // factor)
        if module.quantize is None:
            return LatentSpace("z", (module.width, side, side))
        case.note(
            "the file has no encoder: codes are drawn independently of each other, so images show texture and no scene"
        )
        return LatentSpace("codes", (1, side, side), "uniform", (0.0, 1.0))


def _configured(case: Case, key: str) -> tuple[int | None, str]:
    """A whole number of the file's ``config``, and that it was found there."""
    value = case.config.get(key)
    return (value, "config.json says so") if isinstance(value, int) else (None, "")


class TamingVqGan(VqFamily):
    """VQModel, GumbelVQ and AutoencoderKL of taming-transformers and latent-diffusion, with the discriminator in ``loss``."""

    name: ClassVar[str] = "VQGAN (taming-transformers)"
    source: ClassVar[str] = "Esser et al. 2021; CompVis/taming-transformers"
    layout: ClassVar[Layout] = TAMING

    def role(self, net: StateDict) -> Role:
        fits = has(net.tensors, r"decoder\.conv_in\.weight", r"decoder\.mid\.block_1\.norm1\.weight",
                   r"decoder\.up\.0\.block\.0\.conv1\.weight", r"decoder\.norm_out\.weight",
                   r"post_quant_conv\.weight")  # fmt: skip
        return "generator" if fits else ""

    def generator(self, case: Case) -> Networks:
        networks = super().generator(case)
        head = "loss.discriminator."
        critic = {name.removeprefix(head): t for name, t in case.tensors.items() if name.startswith(head)}
        if not critic:
            return networks
        if not is_patch_discriminator(critic, "main"):
            case.note("the file's discriminator was left out: it is not the PatchGAN that the code has by default")
            return networks
        module = patch_discriminator(critic, "main")
        layers = activations_of(module.get_submodule("main"), "main")
        return replace(networks, discriminator=module, discriminator_layers=layers, discriminator_output="logit")


class DiffusersVq(VqFamily):
    """VQModel and AutoencoderKL of diffusers."""

    name: ClassVar[str] = "VQModel (diffusers)"
    source: ClassVar[str] = "Esser et al. 2021; huggingface/diffusers"
    layout: ClassVar[Layout] = DIFFUSERS

    def role(self, net: StateDict) -> Role:
        fits = has(net.tensors, r"decoder\.conv_in\.weight", r"decoder\.mid_block\.resnets\.0\.norm1\.weight",
                   r"decoder\.up_blocks\.0\.resnets\.0\.conv1\.weight", r"decoder\.conv_norm_out\.weight",
                   r"post_quant_conv\.weight")  # fmt: skip
        return "generator" if fits else ""

    def prepared(self, case: Case) -> Tensors:
        """Attention under its names of today.

        Raises:
            NotOpened: a MoVQ, whose decoder's norms look at the codes, or an activation other than SiLU.
        """
        activation = case.config.get("act_fn", "silu")
        if activation not in ("silu", "swish"):
            raise NotOpened(f"its config.json asks for the activation {activation!r}, where only silu is rebuilt")
        if any("conv_norm_out.conv_y" in name for name in case.tensors):
            raise NotOpened(
                "it is a MoVQ, whose norms depend on the codes (norm_type spatial); that is not rebuilt yet"
            )
        today = dict(zip(_OLD_ATTENTION[1:], _DIFFUSERS_ATTENTION[1:], strict=True))
        old = re.compile(rf"(.*attentions\.\d+\.)({'|'.join(today)})(\..*)")
        found = {name: old.fullmatch(name) for name in case.tensors}
        return {f"{m[1]}{today[m[2]]}{m[3]}" if m else name: case.tensors[name] for name, m in found.items()}
