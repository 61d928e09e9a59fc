"""A discriminator rebuilt from its state dict, sized by the images its generator draws.

found = open_discriminator(state, (3, 64, 64), images, Assume())
found.module(images), found.output      # "probability" where the file lists a module behind the last layer
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gandissect.errors import NotOpened
from gandissect.gan import Assumption
from gandissect_adapters.recognise.assume import Assume
from gandissect_adapters.recognise.build import Rebuilt, main_layers, rebuild
from gandissect_adapters.recognise.chain import Chain, NoChain, Op, read_chain
from gandissect_adapters.recognise.effort import Exhausted
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.geometry import Goal, Shapes
from gandissect_adapters.recognise.plan import ACTIVATIONS, Size, activation
from gandissect_adapters.recognise.rules import family_of
from gandissect_adapters.recognise.search import Limits, State, search
from gandissect_adapters.recognise.unwrap import StateDict

_MAX_OUTPUTS = 101  # real or fake and up to a hundred classes; more are the units of a trunk without its last layer
_CHANCE = 6.0  # cosines of unrelated weights have a standard deviation of 1 / sqrt(their number)


@dataclass(frozen=True)
class FoundDiscriminator:
    """A rebuilt discriminator and how it was found."""

    module: Rebuilt
    state: State
    output: Literal["logit", "probability"]
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]
    main_layers: tuple[str, ...] = ()


def open_discriminator(
    state: StateDict, image_shape: tuple[int, int, int], images: Tensor | None, assume: Assume
) -> FoundDiscriminator:
    """The likeliest discriminator that ``state`` can be, for images of ``image_shape``.

    Args:
        image_shape: (C, H, W) of the generator's images.
        images: float32 [N, C, H, W] that the generator drew; None to go by conventions alone.

    Raises:
        NotOpened: one sentence why it is none for these images.
    """
    tensors, notes = fold(state.tensors)
    try:
        chain = read_chain(tensors, state.slots)
    except NoChain as error:
        raise NotOpened(
            f"the discriminator cannot be rebuilt from its state dict alone: {error}; "
            "pass its class with --discriminator file.py:Class"
        ) from error
    _check(chain, image_shape)
    _check_end(chain.ops[-1])
    unit, told = _real_unit(chain.ops[-1], assume)
    rule = family_of(chain, "discriminator")
    eps = {op.name: assume.eps for op in chain.ops if op.kind == "norm" and assume.eps} or (
        rule.eps_of(chain) if rule else {}
    )
    best = _search(chain, image_shape, images, eps)
    output, view, why = _output(chain, assume)
    module = rebuild(chain, best.steps, eps=eps, output="sigmoid" if output == "probability" else "none", view=view,
                     unit=unit)  # fmt: skip
    assumptions = (*_assumptions(chain, best, image_shape, judged=images is not None), why, *told)
    return FoundDiscriminator(module, best, output, assumptions, (*state.notes, *notes), main_layers(chain, module))


def _assumptions(
    chain: Chain, best: State, image_shape: tuple[int, int, int], *, judged: bool
) -> tuple[Assumption, ...]:
    """What the file does not say of a discriminator, and how each was decided."""
    used = dict.fromkeys(activation(step.activation).label for step in best.steps if step.activation != "none")
    fit, because = best.mismatch, "the convention for discriminators"
    if fit is not None and judged:
        because = (
            f"fits its BatchNorm statistics best on generated images (mismatch {fit:.2g}; real ones shaped it too)"
        )
    ways = f"the ways that turn {image_shape[1]}x{image_shape[2]} images into one score, the usual one first"
    return (
        Assumption("discriminator activation", ", ".join(used) or "none", because),
        Assumption("discriminator geometry", _geometry(chain, best), ways),
    )


def _check(chain: Chain, image_shape: tuple[int, int, int]) -> None:
    channels, height, width = image_shape
    first = chain.ops[0]
    wanted = channels * height * width if first.kind == "linear" else channels
    what = "values" if first.kind == "linear" else "channels"
    if first.into != wanted:
        raise NotOpened(
            f"the discriminator takes {first.into} {what} in '{first.name}' but the "
            f"generator's images have {wanted}: they are not of one GAN, or it takes labels too, or it scores latents (an "
            "adversarial autoencoder) and explains no image; pass its class with "
            "--discriminator file.py:Class"
        )


def _check_end(last: Op) -> None:
    if last.kind not in ("linear", "conv", "deconv"):
        raise NotOpened(
            f"the discriminator ends in '{last.name}', {last.out} units of a trunk whose last layers are in another network of the "
            "file; pass a class that joins them with --discriminator file.py:Class"
        )


def _real_unit(last: Op, assume: Assume) -> tuple[int | None, tuple[Assumption, ...]]:
    """Which output of a discriminator that also classifies (Odena et al. 2017, AC-GAN) tells real from fake.

    Classes compete, so that their weights become alike or opposite; the weights of the output beside them do not.
    """
    if last.out == 1:
        return None, ()
    name, weight = "discriminator unit", last.weight
    if assume.discriminator_unit is not None and 0 <= assume.discriminator_unit < last.out:
        return assume.discriminator_unit, (
            Assumption(name, str(assume.discriminator_unit), "said with --assume", True),
        )
    if weight is not None and 3 <= last.out <= _MAX_OUTPUTS:
        rows = torch.nn.functional.normalize(weight.flatten(1), dim=1)
        alike = (rows @ rows.t()).fill_diagonal_(0.0).abs().amax(1)
        order = alike.argsort()
        if alike[order[0]] < 0.5 * alike[order[1]] and alike[order[1]] > _CHANCE / weight[0].numel() ** 0.5:
            because = (
                f"of {last.out} outputs this one's weights are least like the others' (largest cosine "
                f"{alike[order[0]]:.2f}, next {alike[order[1]]:.2f}): those are classes (else --assume discriminator-unit=N)"
            )
            return int(order[0]), (Assumption(name, str(int(order[0])), because),)
    raise NotOpened(
        f"the discriminator ends in {last.out} numbers per image ('{last.name}'), not one: it also classifies; say "
        "which tells real from fake with --assume discriminator-unit=0 (counted from 0), or pass its class with "
        "--discriminator file.py:Class"
    )


def _search(chain: Chain, image_shape: tuple[int, int, int], images: Tensor | None, eps: dict[str, float]) -> State:
    size: Size = (image_shape[1], image_shape[2])
    shapes = Shapes(chain.ops, "discriminator", Goal(ups=False))
    order = ("lrelu0.2", *(name for name in ACTIVATIONS if name != "lrelu0.2"))
    limits = Limits(order, ("nearest",), eps, blind=images is None)
    samples = {"normal": images} if images is not None else {"normal": torch.empty(0)}
    try:
        found = search(chain, "discriminator", shapes, samples, limits, size, image_shape[0])
    except Exhausted as error:
        raise NotOpened(
            f"{limits.effort.report()}; pass the discriminator's class with --discriminator file.py:Class"
        ) from error
    if not found:
        raise NotOpened(
            f"no strides and paddings turn {size[0]}x{size[1]} images into what the discriminator's last layer takes; pass its "
            "class with --discriminator file.py:Class"
        )
    return found[0]


def _output(chain: Chain, assume: Assume) -> tuple[Literal["logit", "probability"], tuple[int, ...] | None, Assumption]:
    """Whether a sigmoid ends it: the file's list of parameterless modules tells, where it is kept."""
    tail = chain.gaps[-1]
    name = "discriminator output"
    if assume.discriminator_output == "logit":
        return "logit", None, Assumption(name, "logit", "given by --assume", True)
    if assume.discriminator_output == "probability":
        return "probability", None, Assumption(name, "probability", "given by --assume", True)
    if tail.slots is None:
        return (
            "logit",
            None,
            Assumption(name, "logit", "the file does not say (else --assume discriminator-output=probability)"),
        )
    words = [slot.rpartition(".")[2].lower() for slot in tail.slots]
    named = any("sig" in word or word in ("out", "act", "activation") for word in words)
    numbered = [word for word in words if word.isdigit()]
    if named or numbered:
        view = (0,) if len(numbered) > 1 and chain.ops[-1].kind == "conv" else None
        return (
            "probability",
            view,
            Assumption(name, "probability", "the file lists a module behind the last layer: a sigmoid"),
        )
    sure = tail.tight or tail.slots == ()
    return "logit", None, Assumption(name, "logit", "the file lists no module behind the last layer", sure)


def _geometry(chain: Chain, best: State) -> str:
    convs = [(op, step) for op, step in zip(chain.ops, best.steps, strict=True) if op.kind == "conv"]
    return "; ".join(f"{op.name}: {step.geometry}" for op, step in convs) or "layers of vectors"
