"""The likeliest way a chain runs: a beam search along its depth, judged by its BatchNorms.

best = search(chain, "generator", Shapes(...), {"normal": z}, Limits())[0]
best.steps, best.mismatch
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf, log

import torch
from torch import Tensor

from gandissect.probing.verifying import HEALTHY, UNFIT
from gandissect_adapters.recognise.chain import Chain, Gap, Op
from gandissect_adapters.recognise.effort import Effort
from gandissect_adapters.recognise.geometry import Shapes
from gandissect_adapters.recognise.oracle import apply_op, before, mismatch, thinned, work
from gandissect_adapters.recognise.plan import ACTIVATIONS, SHUFFLE, VECTOR, Size, Step, activate, activation
from gandissect_adapters.recognise.unwrap import Role

_SOFTEN = 0.002  # mismatches below this are all as good
_SOFTEN_D = 0.1  # a discriminator's statistics also come from real images, which we do not have
_FAR = 0.8  # log evidence beyond which a less usual shape cannot beat one that fits
_BARE = 1.5  # log evidence against a norm without an activation in a network whose other norms have one
_UNEVEN = 0.4  # log evidence against padding some convolutions and not others
_POOR = 0.003  # a glance above this is no fit yet: other ways of upsampling are worth a look
_UNLIKE = 0.5  # log evidence against a layer behind the last norm that does not do as those before it
_CHANGE = 0.6  # log evidence against a network that mixes activations
_THIN = 16  # units looked at when hypotheses are compared
_GLANCE = 1.5e7  # multiply-adds spent on one hypothesis of one layer
_STAY = 7e8  # and on carrying a kept one through the whole layer


@dataclass(frozen=True)
class Limits:
    """What the search is told beforehand: forced choices and how wide to look."""

    activations: tuple[str, ...] = tuple(ACTIVATIONS)
    modes: tuple[str, ...] = ("nearest", "bilinear")
    eps: Mapping[str, float] = field(default_factory=dict)
    width: int = 3
    blind: bool = False
    """Go by conventions alone."""
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, eq=False)
class State:
    """A hypothesis up to some layer: its steps, what it measures, and the samples that have come this far."""

    x: Tensor | None
    units: int
    size: Size
    prior: str
    steps: tuple[Step, ...] = ()
    mismatches: tuple[float, ...] = ()
    penalty: float = 0.0
    last: str = "none"
    rivals: tuple[Mapping[str, float], ...] = ()
    soften: float = _SOFTEN
    padded: bool | None = None
    mode: str = ""

    @property
    def mismatch(self) -> float | None:
        """Mean over the norms so far; None without any."""
        return sum(self.mismatches) / len(self.mismatches) if self.mismatches else None

    def cost(self, *more: float) -> float:
        """Log evidence against it: how badly it fits, and how unusual it is."""
        seen = (*self.mismatches, *more)
        fit = log(sum(seen) / len(seen) + self.soften) if seen else 0.0
        return fit + self.penalty


def search(
    chain: Chain,
    role: Role,
    shapes: Shapes,
    latents: Mapping[str, Tensor],
    limits: Limits,
    size: Size = VECTOR,
    units: int = 0,
) -> list[State]:
    """Whole hypotheses, the likeliest first; empty when no sizes fit; Exhausted is raised when ``limits.effort`` is used up.

    Args:
        latents: prior -> float32 [N, units] or [N, units, 1, 1], or images [N, C, H, W] for a discriminator.
        size: of what goes in.
        units: of what goes in, where it is not what the first layer takes (maps that are flattened for it).
    """
    units = units or chain.ops[0].into
    soften = _SOFTEN_D if role == "discriminator" else _SOFTEN
    states = [
        State(x, units, size, prior, penalty=_prior_penalty(prior), soften=soften) for prior, x in latents.items()
    ]
    last_norm = max((i for i, op in enumerate(chain.ops) if op.kind == "norm"), default=-1)
    if limits.blind:
        last_norm = -1
    if last_norm < 0:
        states = states[:1]
    with torch.no_grad():
        for index in range(len(chain.ops)):
            states = _advance(chain, role, shapes, states, index, limits, index <= last_norm)
            if index < last_norm and role == "generator" and _hopeless(states):
                return states
    return sorted(states, key=lambda state: state.cost())


def _prior_penalty(prior: str) -> float:
    """How unusual a prior is, and a label that nothing in the file names."""
    return (0.2 if prior.startswith("uniform") else 0.0) + (0.5 if "one-hot" in prior else 0.0)


def _hopeless(states: list[State]) -> bool:
    """Whether nothing fits the latest norm at all: what comes after it cannot be judged."""
    return bool(states) and all(state.mismatches and state.mismatches[-1] > UNFIT for state in states)


def activation_penalty(name: str, role: Role) -> float:
    """How unusual a network with this activation is, in units of log evidence."""
    if name == "none":
        return 0.0
    return activation(name).in_generator if role == "generator" else activation(name).in_discriminator


def _advance(
    chain: Chain, role: Role, shapes: Shapes, states: list[State], index: int, limits: Limits, measured: bool
) -> list[State]:
    """All states taken through layer ``index``, the best kept."""
    op = chain.ops[index]
    grown: list[tuple[float, State, State]] = []
    following = chain.ops[index + 1] if index + 1 < len(chain.ops) else None
    for state in states:
        options = _options(chain, role, shapes, state, index, limits, measured=measured)
        if measured and op.kind == "norm":
            options = _through_norm(state, options, op, limits.effort)
        elif measured and following is not None and following.kind == "norm":
            options = _glance(chain, state, options, index, limits)
        for option, ahead in options:
            rest = shapes.rest(index + 1, option.units, option.size)
            if following is None:  # how it ends speaks for or against it too
                option, rest = replace(option, penalty=option.penalty + rest), 0.0  # noqa: PLW2901
            grown.append((option.cost(*ahead) + rest, option, state))
    grown.sort(key=lambda item: item[0])
    kept = _kept(grown, limits, measured, lookahead=following is not None and following.kind == "norm")
    if measured and op.kind == "norm" and kept:
        limits.effort.saw(tuple(other.name for other in chain.ops if other.kind == "norm"), kept[0][1].mismatches)
    return [_carry(option, parent, op, limits) if measured else replace(option, x=None) for _, option, parent in kept]


_Option = tuple[State, tuple[float, ...]]  # a state with its new step but the old samples; mismatches seen ahead


def _kept(
    grown: list[tuple[float, State, State]], limits: Limits, measured: bool, lookahead: bool
) -> list[tuple[float, State, State]]:
    """The best few; where nothing can be measured yet, the best of each size so that none is lost."""
    if measured and (lookahead or (grown and grown[0][1].mismatches)):
        best = grown[0][0] if grown else inf
        return [item for item in grown[: limits.width] if item[0] < best + 1.5]
    seen: set[tuple[object, ...]] = set()
    kept = []
    for item in grown:
        key = (item[1].units, item[1].size, item[1].last, item[1].prior)
        if key not in seen:
            seen.add(key)
            kept.append(item)
    return kept[: 4 * limits.width if measured else 64]


def _options(
    chain: Chain, role: Role, shapes: Shapes, state: State, index: int, limits: Limits, *, measured: bool
) -> list[_Option]:
    """Every way to go through the next layer, by gap, activation, shape and upsampling mode."""
    gap = chain.gaps[index]
    made: list[_Option] = []
    for shape_penalty, step in shapes.steps(index, state.units, state.size):
        for name, rare in _activations(chain, role, index, limits, state):
            for mode in limits.modes if step.up > 1 and step.mode != SHUFFLE else (step.mode,):
                full = replace(step, activation=name, mode=mode)
                extra = _slot_penalty(gap, full) + _mode_penalty(step.up, mode, state.mode, limits)
                if extra == inf:
                    continue
                if not measured and role == "generator" and not _is_usual_here(chain, state.steps, full, index):
                    extra += _UNLIKE
                padded = _padded(chain.ops[index], full, state.size)
                uneven = _UNEVEN if None not in (padded, state.padded) and padded != state.padded else 0.0
                units = shapes.out_units(index, state.units, full)
                made.append(
                    (
                        replace(
                            state,
                            units=units,
                            size=full.out,
                            steps=(*state.steps, full),
                            penalty=state.penalty + shape_penalty + rare + extra + uneven,
                            mode=mode if step.up > 1 else state.mode,
                            padded=state.padded if padded is None else padded,
                            last=name if name != "none" else state.last,
                        ),
                        (),
                    )
                )
    return made


def _is_usual_here(chain: Chain, steps: tuple[Step, ...], step: Step, index: int) -> bool:
    """Whether a convolution does what the one before it with the same kernel does."""
    op = chain.ops[index]
    if op.kind not in ("conv", "deconv"):
        return True
    for other, before_it in zip(reversed(chain.ops[:index]), reversed(steps), strict=True):
        if other.kind == op.kind and other.kernel == op.kernel:
            return before_it.geometry == step.geometry or before_it.out == other.kernel
    return True


def _mode_penalty(up: int, mode: str, before: str, limits: Limits) -> float:
    """Bilinear upsampling is rarer than nearest; one network seldom has both."""
    if up == 1 or mode == before:
        return 0.0
    if mode == SHUFFLE:
        return 1.0 if before else 0.0
    return (0.4 if mode != limits.modes[0] else 0.0) + (1.0 if before else 0.0)


def _padded(op: Op, step: Step, size: Size) -> bool | None:
    """Whether a convolution pads; None where it could not, at the 1x1 ends of a network and for 1x1 kernels."""
    if op.kind not in ("conv", "deconv") or (1, 1) in (size, step.out) or max(op.kernel) == 1:
        return None
    return step.geometry.padding > 0


def _activations(chain: Chain, role: Role, index: int, limits: Limits, state: State) -> list[tuple[str, float]]:
    """(name, penalty) of what may run before layer ``index``."""
    if index == 0:
        return [("none", 0.0)]
    gap, op, previous, last = chain.gaps[index], chain.ops[index], chain.ops[index - 1], state.last
    into_norm = op.kind in ("norm", "affine")
    if gap.slots == () or op.kind == "prelu" or previous.kind == "prelu":
        return [("none", 0.0)]
    base, none = (0.9, 0.0) if into_norm else (0.0, 0.7)
    if gap.slots is not None:  # what the slots are used for is weighed in _slot_penalty
        base, none = 0.0, (0.4 if last == "none" else _BARE) if previous.kind in ("norm", "affine") else 0.0
    elif previous.kind == "attention":  # what it adds to is activated already
        base, none = base + 0.7, 0.0
    elif previous.kind == "norm" and state.steps[-1].activation != "none":  # it stands before the norm, not behind
        base, none = 0.9, 0.0
    named = _named(gap)
    forced = len(limits.activations) == 1  # by the user: wherever an activation can stand, it is this one
    made = [("none", none + 1.0 if forced and not into_norm else none)]
    for name in limits.activations:
        usual = 0.0 if forced else activation_penalty(name, role)
        if name == last:
            usual = 0.0  # being unusual counts once for a network, not for each layer
        change = _CHANGE if last not in ("none", name) else 0.0
        made.append((name, base + usual + change + (0.0 if named is None or name.startswith(named) else 1.0)))
    return made


def _named(gap: Gap) -> str | None:
    """What the name of a slot says: ``relu1`` is a ReLU."""
    for slot in gap.slots or ():
        leaf = slot.rpartition(".")[2].lower()
        for word, name in (("leaky", "lrelu"), ("lrelu", "lrelu"), ("relu", "relu"), ("tanh", "tanh"), ("elu", "elu")):
            if word in leaf:
                return name
    return None


def _slot_penalty(gap: Gap, step: Step) -> float:
    """Parameterless modules that the file lists must be used for something, and nothing can run without one."""
    if gap.slots is None:
        return 0.0
    needs = (step.activation != "none") + (step.up > 1)
    reshapes = bool(step.flatten or step.view)
    spare = len(gap.slots) - needs
    if gap.tight:
        spare -= reshapes
        return inf if spare < 0 else 0.3 * spare
    return 0.6 * -spare if spare < 0 else 0.3 * max(0, spare - reshapes)


def _through_norm(state: State, options: list[_Option], norm: Op, effort: Effort) -> list[_Option]:
    """Options with their mismatch; an activation before the norm is tried only where nothing fits without one."""
    bare = [option for option in options if option[0].steps[-1].activation == "none"]
    others = [option for option in options if option[0].steps[-1].activation != "none"]
    plain = [_at_norm(state, option, norm, effort) for option in bare]
    if any(option.mismatches[-1] <= HEALTHY for option, _ in plain):
        return plain
    return plain + [_at_norm(state, option, norm, effort) for option in others]


def _at_norm(state: State, option: _Option, norm: Op, effort: Effort) -> _Option:
    """An option that ends in a norm, with its mismatch measured."""
    grown, _ = option
    assert state.x is not None
    effort.spend(0.0, state.x.numel() * grown.steps[-1].up ** 2)
    found = mismatch(before(state.x, grown.steps[-1]), norm)
    return replace(grown, mismatches=(*state.mismatches, found)), ()


class _Looks:
    """Mismatches seen ahead of one state, each hypothesis looked at once."""

    def __init__(self, chain: Chain, state: State, index: int, effort: Effort) -> None:
        self.chain, self.state, self.index, self.effort = chain, state, index, effort
        self._scores: dict[int, float] = {}
        self.inputs: dict[tuple[object, ...], Tensor] = {}

    def at(self, option: State) -> float:
        """The mismatch at the norm behind the option's layer, on few units and samples."""
        if id(option) not in self._scores:
            self._scores[id(option)] = _look_ahead(self, option)
        return self._scores[id(option)]

    def until_good(self, options: list[State]) -> list[State]:
        """Options from the most usual on; once one fits as well as can be told, those far less usual are left out."""
        seen: list[State] = []
        enough = inf
        for option in sorted(options, key=lambda option: option.penalty):
            if option.penalty > enough:
                break
            seen.append(option)
            if self.at(option) <= self.state.soften:
                enough = min(enough, option.penalty + _FAR)
        return seen

    def best_first(self, options: list[State]) -> list[State]:
        """Options by what speaks against them."""
        return sorted(options, key=lambda option: option.cost(self.at(option)))


def _glance(chain: Chain, state: State, options: list[_Option], index: int, limits: Limits) -> list[_Option]:
    """Options with the mismatch at the norm behind them, seen on few units and samples.

    Shapes are compared with the usual activations first; only the best of them with all others.
    """
    looks = _Looks(chain, state, index, limits.effort)
    main = state.mode or limits.modes[0]
    plain = [option for option, _ in options if option.steps[-1].mode in (main, SHUFFLE) or option.steps[-1].up == 1]
    other = [o for o, _ in options if o.steps[-1].mode not in (main, SHUFFLE) and o.steps[-1].up > 1]
    early = looks.until_good(_usual(plain, state, limits))
    if other and min((looks.at(option) for option in early), default=0.0) > _POOR:
        early += _usual(other, state, limits)
    early = looks.best_first(early)
    shapes = list(dict.fromkeys(_shape_of(option.steps[-1]) for option in early))[:3]
    names = _open_names(state, limits)
    late = looks.best_first([o for o in plain if _shape_of(o.steps[-1]) in shapes and o.steps[-1].activation in names])
    best = {(_shape_of(option.steps[-1]), option.steps[-1].activation) for option in late[:2]}
    late += [option for option in other if (_shape_of(option.steps[-1]), option.steps[-1].activation) in best]
    rivals: dict[tuple[object, ...], dict[str, float]] = {}
    for option in late:
        step = option.steps[-1]
        rivals.setdefault((_shape_of(step), step.mode), {})[step.activation] = looks.at(option)
    made: list[_Option] = []
    for option in {id(option): option for option in (*early, *late)}.values():
        step = option.steps[-1]
        seen = rivals.get((_shape_of(step), step.mode), {})
        made.append((replace(option, rivals=(*state.rivals, seen)), (looks.at(option),)))
    return made


def _open_names(state: State, limits: Limits) -> set[str]:
    """Activations still worth a look: all, until a layer has told most of them from the one in use."""
    everything = {"none", state.last, *limits.activations}
    seen = state.rivals[-1] if state.rivals else {}
    own = seen.get(state.last)
    if own is None or own > HEALTHY:
        return everything
    return {name for name in everything if seen.get(name, 0.0) <= max(HEALTHY, 5 * own)} | {"none", state.last}


def _usual(options: list[State], state: State, limits: Limits) -> list[State]:
    """Those with the activation used so far or a common one, and a shape that is not far-fetched."""
    names = {"none", state.last}
    if state.last == "none":
        names |= {"relu", "lrelu0.2", "tanh", *limits.activations[:1]}
    common = [option for option in options if option.steps[-1].activation in names]
    likeliest = min((option.penalty for option in common), default=0.0)
    return [option for option in common if option.penalty < likeliest + 2.0]


def _shape_of(step: Step) -> tuple[object, ...]:
    return step.geometry, step.up, step.view, step.out


def _look_ahead(looks: _Looks, option: State) -> float:
    """The mismatch at the norm behind the layer, on few units; the best over what may stand before the norm."""
    chain, index, samples = looks.chain, looks.index, looks.state.x
    assert samples is not None
    step, norm = option.steps[-1], chain.ops[index + 1]
    op, fewer = thinned(chain.ops[index], norm, step, _THIN)
    each = work(op, step)
    count = max(8, int(_GLANCE / max(each, 1.0)))
    key = (step.activation, step.up, step.mode, step.view, count)
    if key not in looks.inputs:
        looks.inputs[key] = before(samples[:count], step)
    x = apply_op(op, step, looks.inputs[key])
    looks.effort.spend(len(x) * each, looks.inputs[key].numel() + 3 * x.numel())
    if fewer.into != x.shape[1]:
        x = x.reshape(len(x), fewer.into, -1, 1)
    gap = chain.gaps[index + 1]
    found = mismatch(x, fewer)
    if found > HEALTHY and (gap.slots is None or len(gap.slots) > 0):
        found = min(found, *(mismatch(activate(name, x), fewer) for name in ("relu", "lrelu0.2")))
    return found


def _carry(option: State, parent: State, op: Op, limits: Limits) -> State:
    """An option with its samples taken through the layer, as many as stay affordable."""
    assert parent.x is not None
    step = option.steps[-1]
    count = max(24, int(_STAY / max(work(op, step), 1.0)))
    x = apply_op(op, step, before(parent.x[:count], step), eps=limits.eps.get(op.name, 1e-5))
    return replace(option, x=x)
