"""The likeliest hypothesis of a generator: over what its tensors can be read as, how a label enters it, and how it runs.

found = likeliest(readings(tensors, slots), Assume(), None)
found.chain, found.state.steps, found.doubts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gandissect.errors import NotOpened
from gandissect.probing.verifying import HEALTHY, UNFIT
from gandissect_adapters.recognise.assume import Assume
from gandissect_adapters.recognise.chain import Chain
from gandissect_adapters.recognise.condition import Condition, common_one_hot, conditions_of
from gandissect_adapters.recognise.effort import Effort, Exhausted
from gandissect_adapters.recognise.geometry import Goal, Shapes
from gandissect_adapters.recognise.oracle import measure
from gandissect_adapters.recognise.plan import ACTIVATIONS, VECTOR, Size, Step
from gandissect_adapters.recognise.polish import POOR, polished, swapped
from gandissect_adapters.recognise.rules import Rule, family_of
from gandissect_adapters.recognise.search import Limits, State, search

_SAMPLES = 512
_NEAR = 1.2  # another choice that fits less than so many times worse is a doubt
_NEAR_POOR = 1.5  # and where nothing fits well
_NOISE = 1e-5
_EPS = 0.8
"""What many write where BatchNorm takes its eps and mean its momentum, after eriklindernoren/PyTorch-GAN."""
_ODD_EPS = 0.5  # log evidence against it
_EPS_GAIN = 1.2  # it must fit so many times better with the steps that fit best without it
_EPS_AT_MOST = 0.5  # mismatch that a wrong eps causes; what fits worse was not trained to its statistics
_EPS_BUDGET = 5e8  # multiply-adds that looking takes
_NARROW = "--assume activation=…, size=…, stride=…, upsample=… narrow the search"


@dataclass(frozen=True)
class Likeliest:
    """A hypothesis and what is in doubt of it ("activation", "geometry", "prior", "norm"); ``sized`` says who told the size."""

    chain: Chain
    rule: Rule | None
    eps: Mapping[str, float]
    condition: Condition | None
    state: State
    doubts: frozenset[str] = field(default=frozenset())
    sized: str = ""


def likeliest(read: Sequence[Chain], assume: Assume, size: Size | None) -> Likeliest:
    """The best hypothesis over ``read``, the usual reading first; the others are tried where it does not fit well.

    Raises:
        NotOpened: no sizes fit, or nothing that the budget allows to measure fits the statistics.
    """
    given = _Given(assume, size)
    found: list[Likeliest] = []
    failed: NotOpened | None = None
    try:
        for chain in read:
            try:
                for one in _of_reading(chain, given):
                    found.append(one)
            except NotOpened as error:
                failed = failed or error
            if found and (not _norms(chain) or min(one.state.mismatch or 0.0 for one in found) <= POOR):
                break
    except Exhausted:
        found = [one for one in found if (one.state.mismatch or 0.0) <= HEALTHY]
        failed = NotOpened(f"{given.effort.report()}; {_NARROW}")
    if not found:
        assert failed is not None
        raise failed
    return min(found, key=lambda one: one.state.cost())


@dataclass(frozen=True)
class _Given:
    """What the user and the file's discriminator say, and the budget of one network."""

    assume: Assume
    size: Size | None
    effort: Effort = field(default_factory=Effort)


def _of_reading(chain: Chain, given: _Given) -> Iterator[Likeliest]:
    """The hypothesis with the usual conditions, then, where that fits poorly, one with a label that nothing names."""
    rule = family_of(chain, "generator")
    eps = _eps(chain, rule, given.assume)
    ways = conditions_of(chain, given.assume.condition)
    yield (best := _of_ways(chain, rule, eps, ways, given))
    poor = _norms(chain) and (best.state.mismatch or 0.0) > POOR
    if poor and best.condition is None and given.assume.condition is None and (others := common_one_hot(chain)):
        yield _of_ways(chain, rule, eps, others, given)
    for odd in _odd_eps(chain) if _norms(chain) and not eps else ():
        if not HEALTHY < (best.state.mismatch or 0.0) <= _EPS_AT_MOST and not _fits_better(best, odd, ways):
            continue
        other = _of_ways(chain, rule, odd, ways, given)
        yield replace(other, state=replace(other.state, penalty=other.state.penalty + _ODD_EPS))


def _of_ways(
    chain: Chain, rule: Rule | None, eps: Mapping[str, float], ways: Mapping[str, Condition | None], given: _Given
) -> Likeliest:
    assume, latents = given.assume, latents_of(chain, ways)
    states = _search(chain, rule, given, eps, latents)
    best, margin = polished(
        chain, states[0], latents[states[0].prior], eps, norm=assume.norm, forced=assume.activation is not None
    )
    return Likeliest(chain, rule, eps, ways[best.prior.partition(", ")[2]], best, _doubts(chain, best, states, margin))


def _doubts(chain: Chain, best: State, states: Sequence[State], margin: float) -> frozenset[str]:
    """What another hypothesis does otherwise that fits nearly as well."""
    fit = best.mismatch
    if fit is None:
        return frozenset({"norm"} if _unsettled(chain, best) else ())
    near = _NEAR if fit <= POOR else _NEAR_POOR
    measured = max(index for index, op in enumerate(chain.ops) if op.kind == "norm")
    made = {"activation"} if margin < near else set()
    if _unsettled(chain, best):
        made.add("norm")
    for other in states[1:]:
        if other.mismatch is None or other.mismatch + _NOISE > near * (fit + _NOISE):
            continue
        if _shape(other.steps[: measured + 1]) != _shape(best.steps[: measured + 1]):
            made.add("geometry")
        if other.prior != best.prior:
            made.add("prior")
    return frozenset(made)


def _shape(steps: Sequence[Step]) -> list[object]:
    """What the steps do to sizes; strides on a 1x1 input do nothing."""
    return [(step.out, step.up, step.mode, step.view, step.geometry.padding) for step in steps]


def _unsettled(chain: Chain, best: State) -> bool:
    """Whether a norm without statistics could be another kind, and no BatchNorm behind it tells."""
    affine = [i for i, (op, step) in enumerate(zip(chain.ops, best.steps, strict=True))
              if op.kind == "affine" and op.weight is not None and op.weight.dim() == 1 and step.out != VECTOR]  # fmt: skip
    return bool(affine) and not any(op.kind == "norm" for op in chain.ops[affine[0] :])


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


def _eps(chain: Chain, rule: Rule | None, assume: Assume) -> dict[str, float]:
    if assume.eps is not None:
        return {op.name: assume.eps for op in chain.ops if op.kind == "norm"}
    return rule.eps_of(chain) if rule else {}


def _odd_eps(chain: Chain) -> list[dict[str, float]]:
    """``_EPS`` in all norms but the first, and in all of them."""
    norms = [op.name for op in chain.ops if op.kind == "norm"]
    return [dict.fromkeys(names, _EPS) for names in (norms[1:], norms) if names]


def _fits_better(best: Likeliest, eps: Mapping[str, float], ways: Mapping[str, Condition | None]) -> bool:
    """Whether the same steps fit the statistics clearly better with ``eps``, with their own activation or a usual one."""
    if max(best.state.mismatches) <= POOR:
        return False
    x, steps = latents_of(best.chain, ways)[best.state.prior], best.state.steps
    own = next((step.activation for step in steps if step.activation != "none"), "none")
    tried = {name: swapped(steps, own, name) for name in (own, "relu", "lrelu0.2")}
    fits = [sum(measure(best.chain, other, x, eps, _EPS_BUDGET)) for other in tried.values()]
    return _EPS_GAIN * min(fits) < sum(best.state.mismatches)


def _search(
    chain: Chain, rule: Rule | None, given: _Given, eps: Mapping[str, float], latents: dict[str, Tensor]
) -> list[State]:
    assume, size = given.assume, given.size
    prior = assume.prior or (rule.prior if rule and not _norms(chain) else "")
    if prior:
        latents = {key: z for key, z in latents.items() if key.startswith(prior)}
    start = VECTOR if chain.ops[0].kind == "linear" else (1, 1)
    activations = (
        tuple(name for name in (assume.activation,) if name != "none") if assume.activation else tuple(ACTIVATIONS)
    )
    if rule and rule.activation and not assume.activation:
        rest = tuple(name for name in activations if name != rule.activation) if _norms(chain) else ()
        activations = (rule.activation, *rest)
    modes = ("nearest", "bilinear") if assume.upsample in (None, "none") else (assume.upsample,)
    limits = Limits(activations, modes, eps, effort=given.effort)
    ups = assume.upsample != "none" and not (
        chain.ops[-1].kind == "conv" and chain.ops[-1].out == 12
    )  # those are shuffled
    found: list[State] = []
    for strides, paddings in _schedules(rule, assume):
        shapes = Shapes(chain.ops, "generator", Goal(assume.size or size, strides, paddings, ups))
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
            + " (what they are can be said with --assume size=…, stride=…, padding=…)"
        )
    return found


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
