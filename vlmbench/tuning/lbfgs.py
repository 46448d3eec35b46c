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
    count = len(start)
    open_ = torch.arange(count, device=start.device)
    points, value = start, evaluate(start, open_)
    ends = Minimum(points.clone(), value.objective.clone(), value.size.clone(), torch.zeros_like(open_))
    objective, gradient, size = value.objective, value.gradient, value.size
    # A pair whose inverse curvature is zero says nothing: a problem that did not move in a round has one for it.
    steps = start.new_zeros(history, *start.shape)
    changes = torch.zeros_like(steps)
    inverse = start.new_zeros(history, count)
    scale, length, taken = start.new_ones(count), start.new_ones(count), torch.zeros_like(open_)
    direction = -precondition(gradient, open_)
    slope = _dot(direction, gradient)
    rounds = 0
    while True:
        # A slope that is not negative is rounding: no step along it helps.
        left = (size > tolerance) & (taken < max_iter) & (slope < 0) & (length > SHORTEST)
        if not left.all():
            gone = open_[~left]
            for end, own in zip(_fields(ends), (points, objective, size, taken), strict=True):
                end[gone] = own[~left]
            open_, points, objective, gradient, size, taken, scale, length, direction, slope = (
                own[left]
                for own in (open_, points, objective, gradient, size, taken, scale, length, direction, slope)
            )
            steps, changes, inverse = steps[:, left], changes[:, left], inverse[:, left]
        if not len(open_):
            return ends
        step = _each(length) * direction
        there = evaluate(points + step, open_)
        slope_there = _dot(direction, there.gradient)
        decreases = there.objective <= objective + DECREASE * length * slope
        level = there.objective <= objective + noise * objective.abs()
        good = decreases | (level & (slope_there <= (2 * DECREASE - 1) * slope))
        change = there.gradient - gradient
        curvature = _dot(step, change)
        tells = good & (curvature > 0)
        slot = rounds % history
        steps[slot], changes[slot] = step, change
        inverse[slot] = torch.where(tells, 1 / curvature, 0.0)
        rounds += 1
        points = torch.where(_each(good), points + step, points)
        gradient = torch.where(_each(good), there.gradient, gradient)
        objective = torch.where(good, there.objective, objective)
        size = torch.where(good, there.size, size)
        taken = taken + good
        shorter = (slope / (slope - slope_there)).nan_to_num(0.1).clamp(0.1, 0.5)
        length = torch.where(good, 1.0, length * shorter)
        scale = torch.where(tells, curvature / _dot(change, precondition(change, open_)), scale)
        newest = [(slot - age) % history for age in range(min(history, rounds))]
        turned = -_two_loops(gradient, steps, changes, inverse, newest, lambda q: _each(scale) * precondition(q, open_))
        direction = torch.where(_each(good), turned, direction)
        slope = _dot(direction, gradient)


def _two_loops(
    gradient: Tensor,
    steps: Tensor,
    changes: Tensor,
    inverse: Tensor,
    newest: list[int],
    precondition: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the inverse Hessian that the pairs tell, times the gradient."""
    result, shares = gradient.clone(), []
    for slot in newest:
        share = inverse[slot] * _dot(steps[slot], result)
        result -= _each(share) * changes[slot]
        shares.append(share)
    result = precondition(result)
    for slot, share in zip(reversed(newest), reversed(shares), strict=True):
        result += _each(share - inverse[slot] * _dot(changes[slot], result)) * steps[slot]
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2))


def _each(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]


def _fields(ends: Minimum) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return ends.points, ends.objective, ends.size, ends.iterations
