"""L-BFGS on many independent convex problems of one shape at once, each stopping at its own optimum.

A round evaluates every problem that is still open at one point each, in one call. A problem whose point is good enough
takes it and turns to its next direction; one whose point is not tries a shorter step in the next round. Nothing loops
over problems, and no decision for one looks at another: what is solved beside it changes the last digits alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Share of the decrease promised by the slope that a step must bring (Nocedal and Wright 2006, section 3.1).
DECREASE = 1e-4
# A step below which rounding decides.
SHORTEST = 1e-8


@dataclass(frozen=True)
class Value:
    """An objective at one point of each of P problems.

    Attributes:
        objective: (P,).
        gradient: Of the points' own shape, (P, R, D).
        size: What the tolerance is held against, (P,).
    """

    objective: Tensor
    gradient: Tensor
    size: Tensor


@dataclass(frozen=True)
class Minimum:
    """Where P problems ended.

    Attributes:
        points: (P, R, D).
        objective: (P,).
        size: (P,), at most the tolerance where a problem is solved.
        iterations: Steps taken, (P,).
    """

    points: Tensor
    objective: Tensor
    size: Tensor
    iterations: Tensor


Evaluate = Callable[[Tensor, Tensor], Value]
Precondition = Callable[[Tensor, Tensor], Tensor]


def minimise(
    evaluate: Evaluate,
    precondition: Precondition,
    start: Tensor,
    *,
    tolerance: float,
    max_iter: int,
    noise: float,
    history: int = 10,
) -> Minimum:
    """Minimise P convex functions by L-BFGS (Nocedal and Wright 2006, algorithm 7.4).

    A step is taken when it brings the sufficient decrease or, where rounding hides that, when the slope at its end says
    so (the approximate Wolfe condition: Hager and Zhang 2005, SIAM J Optim 16:170). Its length begins at 1 and shrinks
    to where the two slopes, read as a line, cross zero.

    Args:
        evaluate: Gives the `Value` of points (p, R, D) of the problems whose positions (p,) stand beside them.
        precondition: Applies an approximate inverse of the Hessian, symmetric and positive where steps may go, to a
            gradient (p, R, D); called like `evaluate`.
        start: First points (P, R, D), in float64.
        tolerance: A problem is solved when its `size` is at most this.
        max_iter: Most steps for a problem.
        noise: Relative error of an objective.
        history: Steps whose curvature is remembered; 16 x `history` x P x R x D bytes.

    Returns:
        The end of every problem, solved or not.
    """
    which = torch.arange(len(start), device=start.device)
    points, value = start, evaluate(start, which)
    objective, gradient, size = value.objective, value.gradient, value.size
    taken, length = torch.zeros_like(which), torch.ones_like(objective)
    ends = Minimum(points.clone(), objective.clone(), size.clone(), taken.clone())
    memory = _Memory(start, history)
    direction = -precondition(gradient, which)
    while True:
        slope = _dot(direction, gradient)
        # A slope that is not negative is rounding: no step along it helps.
        stays = (size > tolerance) & (taken < max_iter) & (slope < 0) & (length > SHORTEST)
        if not stays.all():
            gone = which[~stays]
            ends.points[gone], ends.objective[gone] = points[~stays], objective[~stays]
            ends.size[gone], ends.iterations[gone] = size[~stays], taken[~stays]
            which, points, objective, gradient, size, taken, length, direction, slope = (
                own[stays] for own in (which, points, objective, gradient, size, taken, length, direction, slope)
            )
            memory.keep(stays)
        if not len(which):
            return ends
        step = _each(length) * direction
        there = evaluate(points + step, which)
        slope_there = _dot(direction, there.gradient)
        decreases = there.objective <= objective + DECREASE * length * slope
        level = there.objective <= objective + noise * objective.abs()
        good = decreases | (level & (slope_there <= (2 * DECREASE - 1) * slope))
        memory.add(step, there.gradient - gradient, good, which, precondition)
        points = torch.where(_each(good), points + step, points)
        gradient = torch.where(_each(good), there.gradient, gradient)
        objective, size = torch.where(good, there.objective, objective), torch.where(good, there.size, size)
        taken = taken + good
        shorter = (slope / (slope - slope_there)).nan_to_num(0.1).clamp(0.1, 0.5)
        length = torch.where(good, 1.0, length * shorter)
        direction = torch.where(_each(good), -memory.apply(gradient, which, precondition), direction)


class _Memory:
    """The curvature of the last steps of every open problem.

    A pair whose inverse curvature is zero says nothing: a problem that did not move in a round has one for it.
    """

    def __init__(self, start: Tensor, history: int) -> None:
        self.steps = start.new_zeros(history, *start.shape)
        self.changes = torch.zeros_like(self.steps)
        self.inverse = start.new_zeros(history, len(start))
        self.scale = start.new_ones(len(start))
        self.slots: list[int] = []  # the newest first

    def keep(self, stays: Tensor) -> None:
        """Forget the problems that have left."""
        self.steps, self.changes = self.steps[:, stays], self.changes[:, stays]
        self.inverse, self.scale = self.inverse[:, stays], self.scale[stays]

    def add(self, step: Tensor, change: Tensor, good: Tensor, which: Tensor, precondition: Precondition) -> None:
        """Remember steps (p, R, D), the change of the gradient that they brought, and for which they were taken."""
        history = len(self.steps)
        slot = self.slots.pop() if len(self.slots) == history else len(self.slots)
        self.slots.insert(0, slot)
        curvature = _dot(step, change)
        tells = good & (curvature > 0)
        # Not even a zero hides what is not finite, as a trial far off may be.
        self.steps[slot] = torch.where(_each(tells), step, 0.0)
        self.changes[slot] = torch.where(_each(tells), change, 0.0)
        self.inverse[slot] = torch.where(tells, 1 / curvature, 0.0)
        self.scale = torch.where(tells, curvature / _dot(change, precondition(change, which)), self.scale)

    def apply(self, gradient: Tensor, which: Tensor, precondition: Precondition) -> Tensor:
        """Return the inverse Hessian that is remembered, times the gradient: the two loops of algorithm 7.4."""
        result, shares = gradient.clone(), []
        for slot in self.slots:
            share = self.inverse[slot] * _dot(self.steps[slot], result)
            result -= _each(share) * self.changes[slot]
            shares.append(share)
        result = _each(self.scale) * precondition(result, which)
        for slot, share in zip(reversed(self.slots), reversed(shares), strict=True):
            result += _each(share - self.inverse[slot] * _dot(self.changes[slot], result)) * self.steps[slot]
        return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2))


def _each(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]
