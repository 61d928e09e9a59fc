"""The choices that a narrow search leaves open, compared on all samples at once: each is a knob of the whole network.

best, margin = polished(chain, best, x, eps)
best.steps, margin                      # margin: how many times worse the next best activation fits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, log

from torch import Tensor

from gandissect.probing.verifying import HEALTHY
from gandissect_adapters.recognise.chain import Chain
from gandissect_adapters.recognise.oracle import apply_op, before, measure, mismatch, norm_named, thinned, work
from gandissect_adapters.recognise.plan import ACTIVATIONS, MODES, PADDINGS, SHUFFLE, VECTOR, Step
from gandissect_adapters.recognise.search import State, activation_penalty

POOR = 0.003
"""Mismatch above which something that leaves its mark on the statistics may have been overlooked."""
_BUDGET = 1.5e9  # multiply-adds spent on each way that is measured
_SOFTEN = 1e-4
_LOCAL_SOFTEN = 5e-4
_LOCAL = 4e7  # and on one guess of a dropout
_EACH = 2e8  # and on one of a layer's own activation
_CARRIED = 4e8  # and on carrying samples through a layer behind it
_UNITS = 32
_DROPOUTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
_RARE_MODE = {"nearest": 0.0, "bilinear": 0.2, "bilinear-aligned": 0.5}
_FAR_OFF = 3.0  # an activation that fits so many times worse is none that dropout has hidden
_GAIN = 3.0  # a dropout, or a mixture of activations, is believed where the statistics fit so many times better with it
_MIXED = 3e-4  # mismatch above which mixtures are tried
_CHANGE = 0.6  # log evidence against an activation that the other layers do not have
_BEYOND = {"zeros": 0.0, "reflect": 0.7, "replicate": 1.0, "circular": 1.0}
# Activations that a search over the usual ones mistakes for another.
_LIKE = {
    "relu": ("lrelu0.02", "lrelu0.05", "softplus"), "lrelu0.01": ("lrelu0.02", "lrelu0.05"), "lrelu0.1": ("lrelu0.05", "lrelu0.15"),
    "lrelu0.2": ("lrelu0.15", "lrelu0.25"), "lrelu0.3": ("lrelu0.25", "lrelu0.4", "lrelu0.5"), "elu": ("lrelu0.4", "lrelu0.5"),
    "selu": ("lrelu0.5",), "gelu": ("mish", "hardswish"), "silu": ("mish", "hardswish"),
}  # fmt: skip

_Steps = tuple[Step, ...]


def polished(
    chain: Chain, best: State, x: Tensor, eps: Mapping[str, float], *, norm: str | None = None, forced: bool = False
) -> tuple[State, float]:
    """``best`` with its knobs set to what fits best, and by how much the next activation fits worse.

    Args:
        x: float32 [N, …], what goes into the first layer.
        norm: what norms without statistics are, where the user says.
        forced: whether the user says the activation.
    """
    if not any(op.kind == "norm" for op in chain.ops) or len(best.steps) < len(chain.ops):
        return (best if norm is None else replace(best, steps=_with_norm(chain, best.steps, norm)), 1.0)
    best = replace(best, steps=_norms(chain, best.steps, x, eps, norm))
    best = replace(best, steps=_modes(chain, best.steps, x, eps))
    best = replace(best, steps=_paddings(chain, best.steps, x, eps))
    margin = inf
    if not forced:
        best, margin = _settled(chain, best, x, eps)
    found = measure(chain, best.steps, x, eps, _BUDGET)
    if _mean(found) > _MIXED and not forced:
        mixed = _along(chain, best.steps, x, eps, _other_activations, _EACH)
        fits = found if mixed == best.steps else measure(chain, mixed, x, eps, _BUDGET)
        if _mean(fits) * _GAIN <= _mean(found):  # what stands behind the last norm is anyone's guess then
            best, found, margin = replace(best, steps=_continued(chain, mixed)), fits, 1.0
    if _mean(found) > POOR:
        best, found, margin = _with_dropout(chain, best, x, eps, found, margin, forced=forced)
    return replace(best, mismatches=found), margin


def rivals(best: State) -> dict[str, float]:
    """Activation -> mean mismatch over the layers where it was tried in place of the chosen one, that one included."""
    tried = [seen for seen in best.rivals if len(seen) > 1]
    names = [name for name in (tried[0] if tried else ()) if all(name in seen for seen in tried)]
    return {name: sum(seen[name] for seen in tried) / len(tried) for name in names}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _compared(
    chain: Chain, ways: Mapping[str, _Steps], x: Tensor, eps: Mapping[str, float], rare: Mapping[str, float]
) -> tuple[str, dict[str, float]]:
    """The way that fits best for how usual it is, and each one's mean mismatch over the norms that tell them apart."""
    fits = {name: measure(chain, steps, x, eps, _BUDGET) for name, steps in ways.items()}
    count = min(len(found) for found in fits.values())
    telling = [i for i in range(count) if len({found[i] for found in fits.values()}) > 1]
    means = {name: _mean([found[i] for i in telling]) for name, found in fits.items()}
    return min(means, key=lambda name: log(means[name] + _SOFTEN) + rare.get(name, 0.0)), means


def _settled(chain: Chain, best: State, x: Tensor, eps: Mapping[str, float]) -> tuple[State, float]:
    """The activation that wins once near-ties are measured on more samples, all on the same ones."""
    seen = rivals(best)
    own = next((step.activation for step in best.steps if step.activation != "none"), None)
    if own is None or own not in seen or (best.mismatch or 0.0) > HEALTHY:
        return best, inf
    limit = max(0.005, 4 * seen[own])
    close = [name for name, value in sorted(seen.items(), key=lambda item: item[1]) if value < limit]
    tried = dict.fromkeys([own, *[name for name in close if name != "none"][:4]])
    tried |= dict.fromkeys(_LIKE.get(close[0] if close else own, ()))
    if len(tried) < 2:
        return best, inf
    ways = {name: swapped(best.steps, own, name) for name in tried}
    rare = {name: activation_penalty(name, "generator") for name in tried}
    name, means = _compared(chain, ways, x, eps, rare)
    next_best = min(mean for other, mean in means.items() if other != name)
    return replace(best, steps=ways[name], last=name), next_best / max(means[name], 1e-9)


def swapped(steps: _Steps, own: str, name: str) -> _Steps:
    """The steps with activation ``name`` wherever they have ``own``."""
    return tuple(replace(step, activation=name) if step.activation == own else step for step in steps)


def _affine(chain: Chain, steps: _Steps) -> list[int]:
    """Norms without statistics whose kind shapes do not tell: one weight for each map."""
    return [
        index
        for index, (op, step) in enumerate(zip(chain.ops, steps, strict=True))
        if op.kind == "affine" and op.weight is not None and op.weight.dim() == 1 and step.out != VECTOR
    ]


def _with_norm(chain: Chain, steps: _Steps, norm: str) -> _Steps:
    places = _affine(chain, steps)
    return tuple(replace(step, norm=norm) if index in places else step for index, step in enumerate(steps))


def _norms(chain: Chain, steps: _Steps, x: Tensor, eps: Mapping[str, float], said: str | None) -> _Steps:
    """Instance, layer or group norm, where BatchNorms behind them tell."""
    places = _affine(chain, steps)
    if said is not None or not places:
        return steps if said is None else _with_norm(chain, steps, said)
    if not any(op.kind == "norm" for op in chain.ops[places[0] :]):
        return steps
    widths = [chain.ops[index].into for index in places]
    groups = [f"group{n}" for n in (2, 4, 8, 16, 32) if all(width % n == 0 and width > n for width in widths)]
    named = norm_named(chain.ops[places[0]].name)
    ways = {name: _with_norm(chain, steps, name) for name in ("instance", "layer", *groups)}
    rare = {name: 0.0 if name == named else 0.2 for name in ways}
    return ways[_compared(chain, ways, x, eps, rare)[0]]


def _modes(chain: Chain, steps: _Steps, x: Tensor, eps: Mapping[str, float]) -> _Steps:
    """Nearest or bilinear upsampling, the same everywhere where one fits better than a mixture."""
    if not any(step.up > 1 and step.mode != SHUFFLE for step in steps):
        return steps
    ways = {mode: tuple(replace(step, mode=mode) if step.mode in MODES and step.up > 1 else step for step in steps)
            for mode in MODES}  # fmt: skip
    own = next((mode for mode, way in ways.items() if way == steps), None)
    if own is None:
        ways["as found"] = steps
    return ways[_compared(chain, ways, x, eps, _RARE_MODE)[0]]


def _with_dropout(
    chain: Chain,
    best: State,
    x: Tensor,
    eps: Mapping[str, float],
    found: tuple[float, ...],
    margin: float,
    *,
    forced: bool,
) -> tuple[State, tuple[float, ...], float]:
    """``best`` with the dropouts (Srivastava et al. 2014) that its statistics show, where they make it fit far better."""
    own = next((step.activation for step in best.steps if step.activation != "none"), "none")
    tried: list[tuple[float, str, _Steps, tuple[float, ...]]] = []
    if not any(_room(chain, index, step) for index, step in enumerate(best.steps)):
        return best, found, margin
    for name in dict.fromkeys([own] if forced or margin > _FAR_OFF else [own, "relu", "lrelu0.2"]):
        steps = _along(chain, swapped(best.steps, own, name), x, eps, _shares)
        fits = measure(chain, steps, x, eps, _BUDGET)
        tried.append((_mean(fits), name, steps, fits))
    tried.sort(key=lambda item: item[0])
    fit, name, steps, fits = tried[0]
    if fit * _GAIN > _mean(found) or not any(step.dropout for step in steps):
        return best, found, margin
    margin = tried[1][0] / max(fit, 1e-9) if len(tried) > 1 else margin
    return replace(best, steps=steps, last=name), fits, margin


def _paddings(chain: Chain, steps: _Steps, x: Tensor, eps: Mapping[str, float]) -> _Steps:
    """What all padded convolutions see beyond the edge, where the statistics tell."""
    padded = [index for index, (op, step) in enumerate(zip(chain.ops, steps, strict=True))
              if op.kind == "conv" and 0 < step.geometry.padding < min(step.out)]  # fmt: skip
    last = max(index for index, op in enumerate(chain.ops) if op.kind == "norm")
    if not padded or padded[0] > last:
        return steps
    ways: dict[str, _Steps] = {beyond: tuple(replace(step, geometry=replace(step.geometry, beyond=beyond)) if index in padded else step
                          for index, step in enumerate(steps)) for beyond in PADDINGS}  # fmt: skip
    return ways[_compared(chain, ways, x, eps, _BEYOND)[0]]


def _other_activations(_chain: Chain, _index: int, step: Step) -> dict[Step, float]:
    """Every activation in the place of one, with how unusual each would be there."""
    if step.activation == "none":
        return {}
    rare = {name: _CHANGE + activation_penalty(name, "generator") for name in ACTIVATIONS}
    return {replace(step, activation=name): cost for name, cost in {**rare, step.activation: 0.0}.items()}


def _continued(chain: Chain, steps: _Steps) -> _Steps:
    """``steps`` whose activations behind the last norm are the commonest of those before it."""
    last = max(index for index, op in enumerate(chain.ops) if op.kind == "norm")
    seen = [step.activation for step in steps[:last] if step.activation != "none"]
    common = max(seen, key=seen.count)
    return tuple(
        replace(step, activation=common) if index > last and step.activation != "none" else step
        for index, step in enumerate(steps)
    )


def _shares(chain: Chain, index: int, step: Step) -> dict[Step, float]:
    """Every dropout that may stand before a layer."""
    if not _room(chain, index, step):
        return {}
    return {replace(step, dropout=share): 0.4 if share else 0.0 for share in _DROPOUTS}


def _along(
    chain: Chain, steps: _Steps, x: Tensor, eps: Mapping[str, float],
    ways: Callable[[Chain, int, Step], Mapping[Step, float]], budget: float = _LOCAL,
) -> _Steps:  # fmt: skip
    """For each layer in turn that one of ``ways`` (with what speaks against each) that makes the norm behind it fit best."""
    made: list[Step] = []
    for index, (op, step) in enumerate(zip(chain.ops, steps, strict=True)):
        ahead = chain.ops[index + 1] if index + 1 < len(chain.ops) else None
        open_ways = ways(chain, index, step)
        if op.kind in ("conv", "deconv", "linear") and ahead is not None and ahead.kind == "norm" and open_ways:
            thin, fewer = thinned(op, ahead, step, _UNITS)
            count = max(64, int(budget / max(work(thin, step), 1.0)))
            scores: dict[Step, float] = {}
            for way, cost in open_ways.items():
                y = apply_op(thin, way, before(x[:count], way))
                if fewer.into != y.shape[1]:
                    y = y.reshape(len(y), fewer.into, -1, 1)
                scores[way] = log(mismatch(y, fewer) + _LOCAL_SOFTEN) + cost
            step = min(scores, key=lambda way: scores[way])  # noqa: PLW2901
        made.append(step)
        x = before(x[: max(24, int(_CARRIED / max(work(op, step), 1.0)))], step)
        x = apply_op(op, step, x, eps=eps.get(op.name, 1e-5))
    return tuple(made)


def _room(chain: Chain, index: int, step: Step) -> bool:
    """Whether a dropout can stand before the layer: the file lists a module that nothing else is, or lists none at all."""
    slots = chain.gaps[index].slots
    used = (step.activation != "none") + (step.up > 1)
    return index > 0 and (slots is None or len(slots) > used)


__all__ = ["POOR", "polished", "rivals"]
