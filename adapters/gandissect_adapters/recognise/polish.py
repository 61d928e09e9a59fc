"""The choices that a narrow search leaves open, compared on all samples at once: each is a knob of the whole network.

best, margin = polished(chain, best, x, eps)
best.steps, margin                      # margin: how many times worse the next best activation fits
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, log

from torch import Tensor

from gandissect.verifying import HEALTHY
from gandissect_adapters.recognise.chain import Chain
from gandissect_adapters.recognise.oracle import apply_op, before, measure, mismatch, norm_named, thinned, work
from gandissect_adapters.recognise.plan import MODES, SHUFFLE, VECTOR, Step
from gandissect_adapters.recognise.search import State, activation_penalty

POOR = 0.003
"""Mismatch above which something that leaves its mark on the statistics may have been overlooked."""
_BUDGET = 1.5e9  # multiply-adds spent on each way that is measured
_SOFTEN = 1e-4
_LOCAL = 4e7  # and on one guess of a dropout
_CARRIED = 4e8  # and on carrying samples through a layer behind it
_UNITS = 32
_DROPOUTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
_RARE_MODE = {"nearest": 0.0, "bilinear": 0.2, "bilinear-aligned": 0.5}
_FAR_OFF = 3.0  # an activation that fits so many times worse is none that dropout has hidden
_GAIN = 3.0  # a dropout is believed where the statistics fit so many times better with it

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
    margin = inf
    if not forced:
        best, margin = _settled(chain, best, x, eps)
    found = measure(chain, best.steps, x, eps, _BUDGET)
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
    if len(tried) < 2:
        return best, inf
    ways = {name: _swapped(best.steps, own, name) for name in tried}
    rare = {name: activation_penalty(name, "generator") for name in tried}
    name, means = _compared(chain, ways, x, eps, rare)
    next_best = min(mean for other, mean in means.items() if other != name)
    return replace(best, steps=ways[name], last=name), next_best / max(means[name], 1e-9)


def _swapped(steps: _Steps, own: str, name: str) -> _Steps:
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
        steps = _dropouts(chain, _swapped(best.steps, own, name), x, eps)
        fits = measure(chain, steps, x, eps, _BUDGET)
        tried.append((_mean(fits), name, steps, fits))
    tried.sort(key=lambda item: item[0])
    fit, name, steps, fits = tried[0]
    if fit * _GAIN > _mean(found) or not any(step.dropout for step in steps):
        return best, found, margin
    margin = tried[1][0] / max(fit, 1e-9) if len(tried) > 1 else margin
    return replace(best, steps=steps, last=name), fits, margin


def _dropouts(chain: Chain, steps: _Steps, x: Tensor, eps: Mapping[str, float]) -> _Steps:
    """For each layer in turn the share dropped before it that makes the norm behind it fit best."""
    made: list[Step] = []
    for index, (op, step) in enumerate(zip(chain.ops, steps, strict=True)):
        ahead = chain.ops[index + 1] if index + 1 < len(chain.ops) else None
        if (
            op.kind in ("conv", "deconv", "linear")
            and ahead is not None
            and ahead.kind == "norm"
            and _room(chain, index, step)
        ):
            thin, fewer = thinned(op, ahead, step, _UNITS)
            count = max(64, int(_LOCAL / max(work(thin, step), 1.0)))
            scores: dict[float, float] = {}
            for share in _DROPOUTS:
                y = apply_op(thin, step, before(x[:count], replace(step, dropout=share)))
                if fewer.into != y.shape[1]:
                    y = y.reshape(len(y), fewer.into, -1, 1)
                scores[share] = log(mismatch(y, fewer) + 5e-4) + (0.4 if share else 0.0)
            step = replace(step, dropout=min(scores, key=lambda share: scores[share]))  # noqa: PLW2901
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
