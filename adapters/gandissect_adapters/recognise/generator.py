"""A generator rebuilt from its state dict, with everything that had to be chosen written down.

found = open_generator(state, Assume())
found.module(z), found.family, found.assumptions
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from torch import nn

from gandissect.gan import Assumption, LatentSpace, Prior
from gandissect.probing.verifying import HEALTHY, UNFIT
from gandissect_adapters.recognise.assume import Assume
from gandissect_adapters.recognise.build import rebuild
from gandissect_adapters.recognise.chain import Chain, NoChain
from gandissect_adapters.recognise.condition import Condition, Conditional, common_one_hot
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.geometry import image_of
from gandissect_adapters.recognise.hypotheses import Likeliest, latents_of, likeliest
from gandissect_adapters.recognise.oracle import measure, norm_named
from gandissect_adapters.recognise.plan import VECTOR, Size, activation
from gandissect_adapters.recognise.polish import rivals
from gandissect_adapters.recognise.readings import readings
from gandissect_adapters.recognise.rules import Rule
from gandissect_adapters.recognise.search import State
from gandissect_adapters.recognise.unwrap import StateDict

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


def open_generator(state: StateDict, assume: Assume, size: Size | None = None, sized: str = "") -> Found:
    """The likeliest generator that ``state`` can be.

    Args:
        size: height and width of its images, where something else says so; ``sized`` is a sentence on what does.

    Raises:
        NoChain: it is no stack of known layers.
        NotOpened: no sizes fit, or a weight is not finite.
    """
    tensors, notes = fold(state.tensors)
    read = readings(tensors, state.slots)
    _refuse_images_in(read[0])
    found = replace(likeliest(read, assume, size), sized=sized)
    chain, rule, eps, best, condition = found.chain, found.rule, found.eps, found.state, found.condition
    prior, _, way = best.prior.partition(", ")
    output, output_why = _output(chain, rule, assume)
    image = image_of(chain.ops[-1].out, best.size, assume.size or size)
    assert image is not None
    view = image if best.size == VECTOR else None
    shuffled = best.size != VECTOR and image[0] != chain.ops[-1].out
    plain = rebuild(chain, best.steps, eps=eps, output=output, view=view, shuffled=shuffled)
    units = condition.latent_units(chain.ops[0].into) if condition else chain.ops[0].into
    latent = LatentSpace("z", (units,) if chain.ops[0].kind == "linear" else (units, 1, 1), cast("Prior", prior))
    exact = measure(chain, best.steps, latents_of(chain, {way: condition}, 1)[best.prior], eps, _VERIFY)
    fit = sum(exact) / len(exact) if exact else None
    verification, warnings = _verdict(best, exact)
    if not exact and condition is None and assume.condition is None and common_one_hot(chain):
        warnings += (f"'{chain.ops[0].name}' takes {units} numbers, which may be a z of {units - 10} and a one-hot label of 10 "
                     "classes; if so --assume condition=10 (or 10-before)",)  # fmt: skip
    return Found(
        module=Conditional(plain, condition) if condition else plain,
        num_classes=condition.classes if condition else 0,
        chain=chain,
        state=best,
        family=rule.family if rule else _plain_family(chain),
        output=output,
        image_shape=image,
        latent=latent,
        assumptions=(*_assumptions(found, assume, fit), *_label(condition, way, fit), output_why),
        verification=verification,
        mismatch=fit,
        notes=(*state.notes, *notes, *chain.notes, *warnings),
    )


def _refuse_images_in(chain: Chain) -> None:
    first = chain.ops[0]
    if first.kind == "conv" and first.into <= 4 and max(first.kernel) > 1:
        raise NoChain(
            f"its first layer '{first.name}' takes images of {first.into} channels: it is an image-to-image network or an "
            "encoder, and has no latent to draw from"
        )


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


def _assumptions(found: Likeliest, assume: Assume, fit: float | None) -> tuple[Assumption, ...]:
    """What the file does not say, and how each was decided."""
    chain, best, rule = found.chain, found.state, found.rule
    sure = fit is not None and fit <= HEALTHY
    oracle = "fits the stored BatchNorm statistics best" if fit is not None else "convention; nothing in the file tells"
    close = f"{oracle}, though another fits nearly as well"
    used = list(dict.fromkeys(step.activation for step in best.steps if step.activation != "none"))
    given = "given by --assume"
    labels = ", ".join(activation(name).label for name in used) or "none"
    because = close if "activation" in found.doubts else oracle
    because = given if assume.activation else rule.because if rule and rule.activation and fit is None else because
    told = sure and "activation" not in found.doubts
    prior = given if assume.prior else close if "prior" in found.doubts else oracle
    made = [
        Assumption("activation", labels, because, told or assume.activation is not None),
        Assumption("prior", best.prior.partition(",")[0], prior,
                   (sure and "prior" not in found.doubts) or assume.prior is not None),
        *_geometry(found, assume, fit),
    ]  # fmt: skip
    if "norm" in found.doubts:
        kind = next(step.norm or norm_named(op.name) for op, step in zip(chain.ops, best.steps, strict=True)
                    if op.kind == "affine")  # fmt: skip
        why = (
            given
            if assume.norm
            else "norms without statistics do not show which they are (else --assume norm=group8, layer …)"
        )
        made.append(Assumption("norm", kind, why, assume.norm is not None))
    if any(step.dropout for step in best.steps):
        places = [
            f"{step.dropout:g} before {op.name}" for op, step in zip(chain.ops, best.steps, strict=True) if step.dropout
        ]
        made.append(
            Assumption("dropout in training", "; ".join(places), f"{oracle}; images are drawn without it", sure)
        )
    if any(op.kind == "norm" for op in chain.ops) and not found.eps:
        made.append(
            Assumption("eps", "1e-05", "torch's default for BatchNorm; the file does not say (else --assume eps=…)")
        )
    for value in sorted(set(found.eps.values())):
        names = ", ".join(name for name, other in found.eps.items() if other == value)
        known = given if assume.eps else rule.because if rule and rule.eps else ""
        why = known or f"{oracle}; with torch's default the statistics fit worse"
        made.append(Assumption("eps", f"{value:g} at {names}", why, bool(known)))
    return tuple(made)


def _geometry(found: Likeliest, assume: Assume, fit: float | None) -> list[Assumption]:
    """Strides and paddings: what is before the last norm shows in its statistics, what is behind it does not."""
    chain, best = found.chain, found.state
    last = max((index for index, op in enumerate(chain.ops) if op.kind == "norm"), default=-1)
    texts: tuple[list[str], list[str]] = ([], [])
    for index, (op, step) in enumerate(zip(chain.ops, best.steps, strict=True)):
        if op.kind in ("conv", "deconv"):
            up = f"×{step.up} {step.mode}, " if step.up > 1 else ""
            texts[index > last].append(f"{op.name}: {up}{step.geometry}")
    if not any(texts):
        return []
    given = "given by --assume"
    sure = fit is not None and fit <= HEALTHY and "geometry" not in found.doubts
    oracle = "fits the stored BatchNorm statistics best" if texts[0] else "convention; nothing in the file tells"
    if "geometry" in found.doubts:
        oracle += ", though another fits nearly as well"
    made = [
        Assumption(
            "geometry", "; ".join(texts[0] or texts[1]), given if assume.stride else oracle, sure and bool(texts[0])
        )
    ]
    if all(texts):
        made.append(Assumption("geometry behind the last norm", "; ".join(texts[1]), given if assume.stride else _BEHIND,
                               assume.stride is not None))  # fmt: skip
    text = f"{best.size[1]}x{best.size[0]}"
    why = given if assume.size else found.sized or (_BEHIND if fit is not None else "the usual way to go on")
    return [*made, Assumption("image size", text, why, assume.size is not None)]


_BEHIND = "what follows the last norm shows in no statistics; the usual way to go on"


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
