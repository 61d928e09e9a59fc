"""Translators of no known codebase: convolutions down, transposed convolutions up, batch norm between, nothing beside.

gandissect.open("generator.pth").opening.verification        # how well the stored statistics fit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import ClassVar

import torch
from torch import Tensor

from gandissect import sampling
from gandissect.adapter import Networks
from gandissect.errors import NotOpened
from gandissect.gan import Assumption, LatentSpace
from gandissect.probing.verifying import HEALTHY
from gandissect_adapters.families.family import Case, Family, Option
from gandissect_adapters.families.images.image_input import image_latent, size_option
from gandissect_adapters.recognise.build import rebuild
from gandissect_adapters.recognise.chain import Chain, NoChain, Op, read_chain
from gandissect_adapters.recognise.oracle import apply_op, before, mismatch
from gandissect_adapters.recognise.plan import ACTIVATIONS, Geometry, Step
from gandissect_adapters.recognise.unwrap import Role, StateDict

_DOWN = {3: Geometry(2, 1), 4: Geometry(2, 1), 5: Geometry(2, 2)}
_UP = {2: Geometry(2, 0), 3: Geometry(2, 1, 1), 4: Geometry(2, 1)}
_PICTURES = 8
_SIDE = 48
_SOFTEN = 1e-4


@dataclass(frozen=True)
class Shape:
    """A chain that goes down and up again by 2 to the ``halvings``: geometry of each of its layers, norms included."""

    chain: Chain
    steps: tuple[Step, ...]
    halvings: int


def shape_of(chain: Chain) -> Shape | None:
    """The only geometry under which ``chain`` gives images as large as it takes; None where there is none or no single one.

    Every convolution on the way down must widen and every transposed one narrow: between layers of equal width there could be
    additions that leave no trace in the file.
    """
    convs = [op for op in chain.ops if op.kind != "norm"]
    ups = [op for op in convs if op.kind == "deconv"]
    encoder = convs[: convs.index(ups[0])] if ups else []
    tail = convs[len(encoder) + len(ups) :]
    if any(op.kind not in ("conv", "deconv", "norm") for op in chain.ops) or not encoder or len(tail) > 1:
        return None
    if any(op.kind != "conv" for op in (*encoder, *tail)) or any(op.kind != "deconv" for op in ups):
        return None
    if convs[0].into not in (1, 3) or convs[-1].out != convs[0].into:
        return None
    monotone = all(op.out > op.into for op in encoder) and all(op.out < op.into for op in ups)
    down = encoder[-len(ups) :] if len(ups) <= len(encoder) else []
    known = all(op.kernel[0] in _DOWN for op in down) and all(op.kernel[0] in _UP for op in ups)
    flat = [op for op in (*encoder, *tail) if op not in down]
    odd = all(op.kernel[0] % 2 and op.kernel[0] == op.kernel[1] for op in flat)
    if not (monotone and down and len(encoder) - len(down) <= 1 and known and odd and _tight(chain)):
        return None
    geometry = {op: _UP[op.kernel[0]] for op in ups} | {op: _DOWN[op.kernel[0]] for op in down}
    geometry |= {op: Geometry(1, op.kernel[0] // 2) for op in flat}
    steps = tuple(Step(geometry.get(op, Geometry()), out=(_SIDE, _SIDE)) for op in chain.ops)
    return Shape(chain, steps, len(ups))


def _tight(chain: Chain) -> bool:
    """Each norm stands behind its layer, and one module without parameters at most behind each norm.

    Two norms on the way up are the fewest that tell which activation is used there.
    """
    for op, following, gap in zip(chain.ops, chain.ops[1:], chain.gaps[1:], strict=False):
        if op.kind != "norm" and following.kind != "norm":
            return False
        if gap.slots is not None and len(gap.slots) > (op.kind == "norm"):
            return False
    upwards = [op.kind for op in chain.ops]
    return upwards[upwards.index("deconv") :].count("norm") >= 2


def with_activations(shape: Shape, encoder: str, decoder: str) -> tuple[Step, ...]:
    """The steps with an activation behind every norm, one on the way down (the bottleneck included), another on the way up."""
    made: list[Step] = []
    upwards = False
    for place, (op, step) in enumerate(zip(shape.chain.ops, shape.steps, strict=True)):
        behind_norm = place > 0 and shape.chain.ops[place - 1].kind == "norm"
        made.append(replace(step, activation=decoder if upwards else encoder) if behind_norm else step)
        upwards = upwards or op.kind == "deconv"
    return tuple(made)


@torch.no_grad()
def fit(chain: Chain, steps: tuple[Step, ...], images: Tensor) -> float:
    """Mean mismatch of what arrives at each norm but the first with its stored statistics, on ``images`` [N, C, H, W].

    The first norm says more of the photographs that were used than of the network, and is left out.
    """
    found: list[float] = []
    x = images
    for op, step in zip(chain.ops, steps, strict=True):
        x = before(x, step)
        if op.kind == "norm":
            found.append(mismatch(x, op))
        x = apply_op(op, step, x)
    return sum(found[1:]) / max(1, len(found) - 1)


class PlainTranslation(Family):
    """An encoder and a decoder of plain convolutions, opened only where its batch norms confirm it."""

    name: ClassVar[str] = "convolutional encoder-decoder"
    source: ClassVar[str] = "names, shapes and batch norm statistics of the file"
    options: ClassVar[Mapping[str, Option]] = {
        "size": size_option(64),
        "activation": Option("activation behind every batch norm", "", "the one that fits the stored statistics best"),
        "output": Option(
            "what ends the network: tanh, sigmoid or none", "tanh", "images in -1..1, as most translators"
        ),
    }

    def role(self, net: StateDict) -> Role:
        kernels = [tensor for tensor in net.tensors.values() if tensor.dim() == 4]
        if net.role == "discriminator" or len(kernels) < 3 or kernels[0].shape[1] not in (1, 3):
            return ""
        try:
            chain = read_chain(net.tensors, net.slots)
        except NoChain:
            return ""
        return "generator" if shape_of(chain) else ""

    def generator(self, case: Case) -> Networks:
        shape = shape_of(read_chain(case.tensors, case.net.slots))
        if shape is None:
            raise NotOpened("its layers do not give images as large as they take")
        first = next(op for op in shape.chain.ops if op.kind == "conv")
        steps, value = self._activated(case, shape, first)
        output = case.choice("output", ("tanh", "sigmoid", "none"))
        module = rebuild(shape.chain, steps, eps={}, output=output, view=None)
        case.note("padding is taken to be zeros; a network trained with reflected borders differs near them")
        return Networks(
            generator=module,
            latent=image_latent(case, first.into, multiple=2**shape.halvings),
            output_range={"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}.get(output),
            verification=f"batch norms see what they saw in training: mismatch {value:.3f} (healthy up to {HEALTHY})",
            mismatch=value,
        )

    def _activated(self, case: Case, shape: Shape, first: Op) -> tuple[tuple[Step, ...], float]:
        """The steps with the activations that fit best, and how well they do.

        Raises:
            NotOpened: nothing fits: there is something in the network that the file does not show.
        """
        space = LatentSpace("image", (first.into, _SIDE, _SIDE), "image")
        pictures = sampling.latents(0, range(_PICTURES), space).reshape(_PICTURES, *space.shape)
        tried: dict[str, tuple[float, tuple[Step, ...]]] = {}
        for encoder in ACTIVATIONS:
            for decoder in dict.fromkeys([encoder, "relu"]):
                steps = with_activations(shape, encoder, decoder)
                name = encoder if encoder == decoder else f"{encoder}, {decoder}"
                tried[name] = fit(shape.chain, steps, pictures), steps
        said = case.assume.get("activation")
        if said is not None:
            name = case.choice("activation", list(tried))
            return tried[name][1], tried[name][0]
        name = min(tried, key=lambda key: log(tried[key][0] + _SOFTEN) + _rarity(key))
        value, steps = tried[name]
        if value > HEALTHY:
            raise NotOpened(
                f"it looks like a plain encoder-decoder, but no activation gives its batch norms what they saw in training (mismatch "
                f"{value:.2f}, healthy up to {HEALTHY}): there are connections that the file does not show; pass its class"
            )
        because = f"of {len(tried)} it fits the stored statistics of the batch norms best ({value:.3f})"
        case.assumptions.append(Assumption("activation", name, because))
        return steps, value


def _rarity(name: str) -> float:
    """How unusual activations are, in units of log evidence; two different ones are a little more so."""
    parts = name.split(", ")
    return max(ACTIVATIONS[part].in_generator for part in parts) + 0.1 * (len(parts) - 1)
