"""The size of a generator's images, where its discriminator knows better.

found = sized_by(critic, found, state, assume)
"""

from __future__ import annotations

from math import inf

from gandissect.errors import NotOpened
from gandissect_adapters.recognise.assume import Assume
from gandissect_adapters.recognise.chain import NoChain, read_chain
from gandissect_adapters.recognise.fold import fold
from gandissect_adapters.recognise.generator import Found, open_generator
from gandissect_adapters.recognise.geometry import Goal, Shapes
from gandissect_adapters.recognise.plan import VECTOR, Geometry
from gandissect_adapters.recognise.unwrap import StateDict

_SIDES = (16, 28, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_CLEAR = 0.25  # log evidence by which a discriminator must prefer another size
_TRIES = 3
_WORSE = 1.5  # how many times worse the statistics may fit with it


def sized_by(critic: StateDict, found: Found, state: StateDict, assume: Assume) -> Found:
    """``found``, or the same generator with images of the size that ``critic`` takes, where its own size is a convention only.

    What follows a generator's last BatchNorm shows in no statistics; a discriminator takes few sizes, often just one.
    """
    channels, height, width = found.image_shape
    if assume.size or assume.stride or height != width or found.chain.ops[-1].kind == "linear":
        return found
    costs = _costs(critic, channels, {*_SIDES, height})
    own = costs.get(height, inf)
    better = sorted((cost, side) for side, cost in costs.items() if cost < own - _CLEAR)
    for _, side in [choice for choice in better if _reachable(found, choice[1])][:_TRIES]:
        try:
            other = open_generator(state, assume, (side, side), sized="its discriminator takes images of this size")
        except (NoChain, NotOpened):
            continue
        fits = (other.mismatch or 0.0) <= _WORSE * (found.mismatch or 0.0) + 1e-4
        if fits and _measured(other) == _measured(found) and other.image_shape[0] == channels:
            return other
    return found


def _measured(found: Found) -> list[Geometry]:
    """The geometry of every convolution before the last norm."""
    ops = found.chain.ops
    last = max((index for index, op in enumerate(ops) if op.kind == "norm"), default=-1)
    return [
        step.geometry
        for op, step in zip(ops[: last + 1], found.state.steps, strict=False)
        if op.kind in ("conv", "deconv")
    ]


def _reachable(found: Found, side: int) -> bool:
    """Whether images of that side come out when only what follows the last norm changes: all before it was measured."""
    ops, kept = found.chain.ops, _measured(found)
    strides, paddings = tuple(g.stride for g in kept), tuple(g.padding for g in kept)
    shapes = Shapes(ops, "generator", Goal((side, side), strides, paddings))
    return shapes.rest(0, ops[0].into, VECTOR if ops[0].kind == "linear" else (1, 1)) < inf


def _costs(critic: StateDict, channels: int, sides: set[int]) -> dict[int, float]:
    """Side -> how unusual the discriminator is for images of that side; impossible ones are left out."""
    try:
        chain = read_chain(fold(critic.tensors)[0], critic.slots)
    except (NoChain, NotOpened):
        return {}
    first = chain.ops[0]
    if first.kind == "linear":
        return {side: 0.0 for side in sides if first.into == channels * side * side}
    if first.into != channels:
        return {}
    shapes = Shapes(chain.ops, "discriminator", Goal(ups=False))
    costs = {side: shapes.rest(0, channels, (side, side)) for side in sides}
    return {side: cost for side, cost in costs.items() if cost < inf}
