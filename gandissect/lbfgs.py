"""Many small minimisations at once, none of which knows of the others.

found = minimised(lambda x: (x.square().sum(1), 2 * x), torch.ones(16, 64), steps=20)
found.points, found.values               # float32 [16, 64], [16]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points [N, D] to their values [N] and gradients [N, D]; row i of both depends on row i only."""
MEMORY = 10
"""Pairs of steps and gradient changes that are remembered."""
SUFFICIENT = 1e-4
"""Share of the decrease that the slope promises which a step has to bring."""
FIRST = 0.5
"""Length of the first step, in the unit of the points."""


@dataclass(frozen=True)
class Minimum:
    """Where the rows arrived: ``points`` [N, D] and the values [N] there."""

    points: Tensor
    values: Tensor


@dataclass
class _Curvature:
    """What each row has learned of its own curvature.

    Attributes:
        steps: [M, N, D], oldest first.
        changes: [M, N, D] of the gradient over those steps.
        weights: [M, N, 1], one over the product of the two; 0 where there is no pair yet.
        scale: [N, 1], size of the inverse Hessian.
    """

    steps: Tensor
    changes: Tensor
    weights: Tensor
    scale: Tensor

    @classmethod
    def unknown(cls, slope: Tensor) -> _Curvature:
        """No pairs yet; the first step has the length ``FIRST``."""
        none = slope.new_zeros(MEMORY, *slope.shape)
        length = slope.norm(dim=1, keepdim=True).clamp(min=1e-20)
        return cls(none, none.clone(), none[..., :1].clone(), FIRST / length)

    def towards(self, slope: Tensor) -> Tensor:
        """The descent direction of each row: [N, D]."""
        # Nocedal & Wright 2006, algorithm 7.4 (two-loop recursion)
        direction, shares = slope.clone(), []
        for step, change, weight in zip(self.steps.flip(0), self.changes.flip(0), self.weights.flip(0), strict=True):
            share = weight * (step * direction).sum(1, keepdim=True)
            direction -= share * change
            shares.append(share)
        direction *= self.scale
        for step, change, weight, share in zip(self.steps, self.changes, self.weights, reversed(shares), strict=True):
            direction += step * (share - weight * (change * direction).sum(1, keepdim=True))
        return -direction

    def learn(self, step: Tensor, change: Tensor, taken: Tensor) -> None:
        """Remember a step where it was ``taken`` (bool [N, 1]) and curved upwards; other rows keep what they know."""
        product, square = (step * change).sum(1, keepdim=True), change.square().sum(1, keepdim=True)
        useful = taken & (product > 1e-10 * square) & (square > 0)
        for kept, new in (
            (self.steps, step),
            (self.changes, change),
            (self.weights, torch.where(useful, 1 / product, 0.0)),
        ):
            kept.copy_(torch.where(useful, torch.cat([kept[1:], new[None]]), kept))
        self.scale = torch.where(useful, product / square, self.scale)


def minimised(slope_of: Slope, start: Tensor, steps: int, allowed: Callable[[Tensor], Tensor] | None = None) -> Minimum:
    """The lowest points that L-BFGS reaches from ``start``, each row with a memory and a step length of its own.

    ``torch.optim.LBFGS`` sees one problem in all rows, whose result then depends on which rows are together; here every row is
    what it would be alone. A step that does not decrease the value enough is halved, which costs an evaluation as well.

    Args:
        slope_of: values and gradients; points where the value is not finite are not entered.
        start: float [N, D].
        steps: evaluations of ``slope_of`` after the first.
        allowed: nearest point that is allowed, for bounds.

    References:
        Nocedal & Wright 2006, Numerical Optimization, algorithm 7.5, with backtracking (algorithm 3.1).
    """
    points = start
    values, slopes = slope_of(points)
    curvature, length = _Curvature.unknown(slopes), torch.ones_like(points[:, :1])
    for _ in range(steps):
        tried = points + length * curvature.towards(slopes)
        tried = tried if allowed is None else allowed(tried)
        new_values, new_slopes = slope_of(tried)
        promised = (slopes * (tried - points)).sum(1)
        taken = (torch.isfinite(new_values) & (new_values <= values + SUFFICIENT * promised) & (promised < 0))[:, None]
        curvature.learn(tried - points, new_slopes - slopes, taken)
        points, slopes = torch.where(taken, tried, points), torch.where(taken, new_slopes, slopes)
        values = torch.where(taken[:, 0], new_values, values)
        length = torch.where(taken, 1.0, length / 2)
    return Minimum(points, values)
