"""A generator rebuilt from its state dict, with everything that had to be chosen written down.

found = open_generator(state, Assume())
found.module(z), found.family, found.assumptions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import cast

import torch
from torch import Tensor, nn

from gandissect.errors import NotOpened
from gandissect.gan import Assumption, LatentSpace, Prior
from gandissect_adapters.recognise.assume import Assume
from gandissect_adapters.recognise.build import rebuild
from gandissect_adapters.recognise.chain import Chain, NoChain, read_chain
from gandissect_adapters.recognise.condition import Condition, Conditional, conditions_of
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.geometry import Goal, Shapes, image_of
from gandissect_adapters.recognise.oracle import HEALTHY, UNFIT, measure
from gandissect_adapters.recognise.plan import ACTIVATIONS, VECTOR, Size, Step, activation
from gandissect_adapters.recognise.rules import Rule, family_of
from gandissect_adapters.recognise.search import Limits, State, activation_penalty, search
from gandissect_adapters.recognise.unwrap import StateDict

_SAMPLES = 512
_SETTLE = 1.5e9  # multiply-adds spent on each activation that nearly ties
_SOFTEN = 1e-4
_VERIFY = 3e9  # multiply-adds of the last, exact measurement


@dataclass(frozen=True)
class Found:
    """A rebuilt network and how it was found."""

    module: nn.Module
    num_classes: int
    chain: Chain
    state: State
    family: str
    output: str
    image_shape: tuple[int, int, int]
    latent: LatentSpace
    assumptions: tuple[Assumption, ...]
    verification: str
    mismatch: float | None
    notes: tuple[str, ...]


def latents_of(chain: Chain, ways: Mapping[str, Condition | None], seed: int = 0) -> dict[str, Tensor]:
    """ "prior" or "prior, condition" -> float32 [512, units] or [512, units, 1, 1], from one stream of random numbers."""
    first = chain.ops[0]
    made: dict[str, Tensor] = {}
    for name, condition in ways.items():
        units = condition.latent_units(first.into) if condition else first.into
        shape = (_SAMPLES, units) if first.kind == "linear" else (_SAMPLES, units, 1, 1)
        stream = torch.Generator().manual_seed(seed)
        labels = torch.arange(_SAMPLES) % condition.classes if condition else None
        for prior, z in (
            ("normal", torch.randn(shape, generator=stream)),
            ("uniform", torch.rand(shape, generator=stream) * 2.0 - 1.0),
        ):
            key = f"{prior}, {name}" if name else prior
            made[key] = condition.join(z, condition.vector(labels)) if condition and labels is not None else z
    return {key: made[key] for key in sorted(made, key=lambda key: key.startswith("uniform"))}


def open_generator(state: StateDict, assume: Assume, size: Size | None = None) -> Found:
    """The likeliest generator that ``state`` can be.

    Raises:
        NoChain: it is no stack of known layers.
        NotOpened: no sizes fit, or a weight is not finite.
    """
    tensors, notes = fold(state.tensors)
    chain = read_chain(tensors, state.slots)
    rule = family_of(chain, "generator")
    eps = _eps(chain, rule, assume)
    _refuse_images_in(chain)
    ways = conditions_of(chain, assume.condition)
    best = _search(chain, rule, assume, eps, size, ways)
    prior, _, way = best.prior.partition(", ")
    condition = ways[way]
    output, output_why = _output(chain, rule, assume)
    image = image_of(chain.ops[-1].out, best.size, assume.size or size)
    assert image is not None
    view = image if best.size == VECTOR else None
    plain = rebuild(chain, best.steps, eps=eps, output=output, view=view)
    units = condition.latent_units(chain.ops[0].into) if condition else chain.ops[0].into
    latent = LatentSpace("z", (units,) if chain.ops[0].kind == "linear" else (units, 1, 1), cast("Prior", prior))
    exact = measure(chain, best.steps, latents_of(chain, {way: condition}, 1)[best.prior], eps, _VERIFY)
    fit = sum(exact) / len(exact) if exact else None
    verification, warnings = _verdict(best, exact)
    return Found(
        module=Conditional(plain, condition) if condition else plain,
        num_classes=condition.classes if condition else 0,
        chain=chain,
        state=best,
        family=rule.family if rule else _plain_family(chain),
        output=output,
        image_shape=image,
        latent=latent,
        assumptions=(*_assumptions(chain, best, rule, assume, eps, fit), *_label(condition, way, fit), output_why),
        verification=verification,
        mismatch=fit,
        notes=(*state.notes, *notes, *warnings),
    )


def _refuse_images_in(chain: Chain) -> None:
    first = chain.ops[0]
    if first.kind == "conv" and first.into <= 4 and max(first.kernel) > 1:
        raise NoChain(
            f"its first layer '{first.name}' takes images of {first.into} channels: it is an image-to-image network or an "
            "encoder, and has no latent to draw from"
        )


def _eps(chain: Chain, rule: Rule | None, assume: Assume) -> dict[str, float]:
    if assume.eps is not None:
        return {op.name: assume.eps for op in chain.ops if op.kind == "norm"}
    return rule.eps_of(chain) if rule else {}


def _search(
    chain: Chain, rule: Rule | None, assume: Assume, eps: dict[str, float], size: Size | None,
    ways: Mapping[str, Condition | None],
) -> State:  # fmt: skip
    latents = latents_of(chain, ways)
    prior = assume.prior or (rule.prior if rule and not _norms(chain) else "")
    if prior:
        latents = {key: z for key, z in latents.items() if key.startswith(prior)}
    start = VECTOR if chain.ops[0].kind == "linear" else (1, 1)
    activations = (
        tuple(name for name in (assume.activation,) if name != "none") if assume.activation else tuple(ACTIVATIONS)
    )
    if rule and rule.activation and not assume.activation:
        activations = (rule.activation, *(name for name in activations if name != rule.activation))
    modes = ("nearest", "bilinear") if assume.upsample in (None, "none") else (assume.upsample,)
    limits = Limits(activations, modes, eps)
    found: list[State] = []
    for strides, paddings in _schedules(rule, assume):
        shapes = Shapes(chain.ops, "generator", Goal(assume.size or size, strides, paddings, assume.upsample != "none"))
        tried = _try(chain, shapes, latents, limits, start)
        if tried and (not found or (tried[0].mismatch or 0.0) < HEALTHY):
            found = tried
        if found and (found[0].mismatch or 0.0) < HEALTHY:
            break
    if not found:
        wanted = assume.size or size
        raise NotOpened(
            "its layers fit on each other, but no strides and paddings give "
            + (f"{wanted[0]}x{wanted[1]} images" if wanted else "a usual image size")
            + "; pass its class with --generator file.py:Class, or --assume size=…, stride=…, padding=…"
        )
    return found[0] if assume.activation else _settle(chain, found[0], latents[found[0].prior], eps)


def _settle(chain: Chain, best: State, x: Tensor, eps: dict[str, float]) -> State:
    """``best`` with the activation that wins once near-ties are measured on more samples, all on the same ones."""
    seen = rivals(best)
    own = next((step.activation for step in best.steps if step.activation != "none"), None)
    if own is None or not seen or (best.mismatch or 0.0) > HEALTHY:
        return best
    close = [
        name for name, value in sorted(seen.items(), key=lambda item: item[1]) if value < max(0.005, 4 * seen[own])
    ]
    tried = dict.fromkeys([own, *[name for name in close if name != "none"][:4]])
    if len(tried) < 2:
        return best
    fits = {name: measure(chain, _swapped(best, own, name), x, eps, _SETTLE) for name in tried}
    telling = [i for i in range(len(fits[own])) if len({found[i] for found in fits.values()}) > 1]
    scores = {
        name: log(sum(found[i] for i in telling) / max(1, len(telling)) + _SOFTEN)
        + activation_penalty(name, "generator")
        for name, found in fits.items()
    }
    name = min(scores, key=lambda other: scores[other])
    return best if name == own else replace(best, steps=_swapped(best, own, name), last=name)


def _swapped(best: State, own: str, name: str) -> tuple[Step, ...]:
    return tuple(replace(step, activation=name) if step.activation == own else step for step in best.steps)


def _try(chain: Chain, shapes: Shapes, latents: dict[str, Tensor], limits: Limits, start: Size) -> list[State]:
    """A narrow search, a wider one where it fits only roughly, and conventions alone where nothing fits."""
    found = search(chain, "generator", shapes, latents, limits, start)
    fit = found[0].mismatch if found else None
    if fit is not None and HEALTHY < fit <= UNFIT:
        found = sorted(
            [*found, *search(chain, "generator", shapes, latents, replace(limits, width=6), start)], key=State.cost
        )
    if found and ((found[0].mismatch or 0.0) > UNFIT or len(found[0].steps) < len(chain.ops)):
        usual = search(chain, "generator", shapes, latents, replace(limits, blind=True), start)
        found = [replace(usual[0], mismatches=found[0].mismatches)] if usual else found
    return found


def _schedules(rule: Rule | None, assume: Assume) -> list[tuple[tuple[int, ...] | None, tuple[int, ...] | None]]:
    """Strides and paddings to search under: the user's, then the family's, then any."""
    if assume.stride or assume.padding:
        return [(assume.stride, assume.padding)]
    made: list[tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = []
    if rule and (rule.strides or rule.paddings):
        made.append((rule.strides or None, rule.paddings or None))
    return [*made, (None, None)]


def _norms(chain: Chain) -> int:
    return sum(op.kind == "norm" for op in chain.ops)


def _output(chain: Chain, rule: Rule | None, assume: Assume) -> tuple[str, Assumption]:
    """The activation of the last layer: never visible behind the last norm, so the convention unless slots rule it out."""
    tail = chain.gaps[-1]
    if assume.output:
        return assume.output, Assumption("output", assume.output, "given by --assume", sure=True)
    names = " ".join(tail.slots or ()).lower()
    for word in ("sigmoid", "tanh"):
        if word in names:
            return word, Assumption("output", word, "the file names a module so behind the last layer", sure=True)
    if tail.slots == () and tail.tight:
        return "none", Assumption("output", "none", "nothing follows the last layer of the Sequential", sure=True)
    if rule and rule.output:
        return rule.output, Assumption("output", rule.output, rule.because)
    why = "one module without parameters follows the last layer" if tail.slots else "the file does not say"
    return "tanh", Assumption(
        "output", "tanh", f"{why}; the convention for images in [-1, 1] (else --assume output=sigmoid)"
    )


def _plain_family(chain: Chain) -> str:
    kinds = {op.kind for op in chain.ops}
    if kinds <= {"linear", "norm", "affine", "prelu"}:
        return "MLP GAN"
    return "DCGAN" if "deconv" in kinds else "upsampling DCGAN"


def _verdict(best: State, exact: tuple[float, ...]) -> tuple[str, tuple[str, ...]]:
    """The sentence on how well the stored statistics fit, and a loud note where they do not."""
    if not exact:
        return "not verified: there is no BatchNorm whose statistics could tell", ()
    fit = sum(exact) / len(exact)
    rival = runner_up(best)
    behind = f"; runner-up {rival[0]:.2g} ({rival[1]})" if rival else ""
    sentence = f"BatchNorm mismatch {fit:.2g} over {len(exact)} layers{behind}"
    if fit <= HEALTHY:
        return sentence, ()
    if fit <= UNFIT:
        return sentence, (
            f"stored BatchNorm statistics fit only roughly (mismatch {fit:.2g}; healthy is {HEALTHY} or less)",
        )
    note = (
        f"stored statistics do not match: BatchNorm mismatch {fit:.2g} (healthy is {HEALTHY} or less) whatever is assumed; "
        "opened by convention; training has probably collapsed, or the architecture is another one"
    )
    return sentence, (note,)


def runner_up(best: State) -> tuple[float, str] | None:
    """(mean mismatch, name) of the other activation that fits best, over the layers where it was measured."""
    used = {step.activation for step in best.steps}
    others = {name: value for name, value in rivals(best).items() if name not in used}
    if not others:
        return None
    name = min(others, key=lambda other: others[other])
    return others[name], activation(name).label if name != "none" else "no activation"


def rivals(best: State) -> dict[str, float]:
    """Activation -> mean mismatch over the layers where it was tried in place of the chosen one, that one included."""
    tried = [seen for seen in best.rivals if len(seen) > 1]
    names = [name for name in (tried[0] if tried else ()) if all(name in seen for seen in tried)]
    return {name: sum(seen[name] for seen in tried) / len(tried) for name in names}


def _assumptions(
    chain: Chain, best: State, rule: Rule | None, assume: Assume, eps: dict[str, float], fit: float | None
) -> tuple[Assumption, ...]:
    """What the file does not say, and how each was decided."""
    sure = fit is not None and fit <= HEALTHY
    oracle = "fits the stored BatchNorm statistics best" if fit is not None else "convention; nothing in the file tells"
    used = list(dict.fromkeys(step.activation for step in best.steps if step.activation != "none"))
    given = "given by --assume"
    labels = ", ".join(activation(name).label for name in used) or "none"
    because = given if assume.activation else rule.because if rule and rule.activation and fit is None else oracle
    made = [
        Assumption("activation", labels, because, sure or assume.activation is not None),
        Assumption(
            "prior", best.prior.partition(",")[0], given if assume.prior else oracle, sure or assume.prior is not None
        ),
    ]
    convs = [(op, step) for op, step in zip(chain.ops, best.steps, strict=True) if op.kind in ("conv", "deconv")]
    if convs:
        text = "; ".join(
            f"{op.name}: {f'×{step.up} {step.mode}, ' if step.up > 1 else ''}{step.geometry}" for op, step in convs
        )
        made.append(Assumption("geometry", text, given if assume.stride else oracle, sure))
        seen = "what follows the last norm shows in no statistics; " if fit is not None else ""
        made.append(
            Assumption(
                "image size",
                f"{best.size[1]}x{best.size[0]}",
                given if assume.size else f"{seen}the usual way to go on",
            )
        )
    for value in sorted(set(eps.values())):
        names = ", ".join(name for name, other in eps.items() if other == value)
        made.append(
            Assumption("eps", f"{value:g} at {names}", given if assume.eps else rule.because if rule else "", True)
        )
    return tuple(made)


def _label(condition: Condition | None, way: str, fit: float | None) -> tuple[Assumption, ...]:
    if condition is None:
        return ()
    if condition.table is not None:
        why = f"'{condition.name}' has {condition.classes} rows" + (
            "; the order fits the statistics best" if fit is not None else ""
        )
    else:
        why = f"{condition.classes} columns of the first layer differ from all others in size (else --assume condition=none)"
    return (Assumption("label", f"{condition.classes} classes, {way}", why),)


__all__ = ["Found", "NoChain", "open_generator"]
