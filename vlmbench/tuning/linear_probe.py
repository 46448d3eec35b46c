"""Multinomial and multi-label logistic regression, all strengths of the penalty solved as one batch.

The objective is scikit-learn's: C times the sum of the losses plus half the squared norm of the weights, intercepts
not penalised. It is divided by C and the number of rows here, which changes the scale and not the optimum. Two classes
are one logit, as there, and are written as two rows of opposite sign so that a softmax reads every probe alike.

Both passes over the features that an evaluation takes are one matrix product for all strengths, over blocks of rows.
Memory beside the features: a block's logits (`BLOCK` bytes and a few copies), the features' second moments (F x F),
and 160 bytes for each weight of `TOGETHER` weights at most. The features are never copied whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vlmbench.tuning.lbfgs import Value, minimise
from vlmbench.tuning.moments import Moments

# Bytes of the logits that are worked on at a time: what a core's cache holds, and enough work for a GPU.
BLOCK = {"cpu": 2**20, "cuda": 2**28}
# Weights that are solved together at most; more are solved in turn.
TOGETHER = 4_000_000
# Below this rounding in float32 costs more steps than float64 needs from there.
COARSEST = 5e-7


@dataclass(frozen=True)
class Solution:
    """A solved probe.

    Attributes:
        weight: (C, F), for the features that were given, in float64.
        bias: (C,).
        strength: C, the inverse strength of the penalty.
        objective: Value at the solution: mean loss plus penalty divided by (C times rows).
        gradient: Largest absolute entry of the gradient there, in float64.
        iterations: L-BFGS steps taken.
        converged: Whether `gradient` is at most the tolerance.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    objective: float
    gradient: float
    iterations: int
    converged: bool


def solve(
    features: Tensor,
    targets: Tensor,
    classes: int,
    strengths: Sequence[float],
    *,
    max_iter: int = 1000,
    tolerance: float = 1e-7,
) -> list[Solution]:
    """Fit one probe for each strength, on the features' device.

    Each is solved with products in float32 first, and from there in float64 until its gradient is proved: as that takes
    a step or two, nearly all the work is done at the speed of float32.

    A class without rows has no optimum, as its intercept falls without end: it keeps zero weights and a share of half
    the tolerance, and the other classes are solved as if it were not there.

    Args:
        features: (N, F), float32 or float64. Any scale works; standardised ones take the fewest steps.
        targets: (N,) class indices, or (N, C) zeros and ones for multi-label.
        classes: Number of classes C.
        strengths: Inverse strengths of the L2 penalty, scikit-learn's C.
        max_iter: Most L-BFGS steps of a probe in either precision.
        tolerance: Largest absolute gradient entry at which a probe counts as solved.

    Returns:
        The solutions in the order of the strengths.
    """
    binary = targets.ndim == 1 and classes == 2
    exclusive = targets.ndim == 1 and not binary
    if exclusive:
        wanted = functional.one_hot(targets.long(), classes).double()
    else:
        wanted = targets.double()[:, None] if binary else targets.double()
    data = Moments.of(features, wanted)
    together = max(1, TOGETHER // (wanted.shape[1] * features.shape[1]))
    solutions = []
    for first in range(0, len(strengths), together):
        problem = _Problem(data, strengths[first : first + together], exclusive, tolerance)
        solutions += problem.solve(max_iter, tolerance, mirrored=binary)
    return solutions


def search(
    features: Tensor,
    targets: Tensor,
    classes: int,
    strengths: Sequence[float],
    validate: Callable[[Solution], float],
    *,
    max_iter: int = 1000,
    tolerance: float = 1e-7,
) -> tuple[Solution, list[tuple[Solution, float]]]:
    """Solve for every strength at once and find the best on validation.

    Args:
        features: As in `solve`.
        targets: As in `solve`.
        classes: Number of classes.
        strengths: Candidates for C.
        validate: Score of a solution on the validation split; larger is better.
        max_iter: As in `solve`.
        tolerance: As in `solve`.

    Returns:
        The best solution, of equals the one with the strongest penalty, and all with their scores, from the strongest
        penalty to the weakest.
    """
    if not strengths:
        raise ValueError("finetune.strengths is empty; give at least one, for example [0.1, 1, 10].")
    solved = solve(features, targets, classes, sorted(set(strengths)), max_iter=max_iter, tolerance=tolerance)
    scored = [(solution, validate(solution)) for solution in solved]
    best, highest = scored[0]
    for solution, score in scored[1:]:
        if score > highest:
            best, highest = solution, score
    return best, scored


class _Problem:
    """The objective of P probes; a point (R, K + 1) holds the weights along the axes, and last the intercept.

    The intercept is that of centred features. So written, the curvature at the outputs' shares is known: the
    variances times the share (times one minus it where outputs are independent), plus the penalty.
    """

    def __init__(self, data: Moments, strengths: Sequence[float], exclusive: bool, tolerance: float) -> None:
        self.data, self.strengths, self.exclusive = data, strengths, exclusive
        self.rows, self.width = data.features.shape
        self.ridge = 1 / (data.mean.new_tensor(strengths) * self.rows)
        share = data.shares.clamp(tolerance / 2, 1 - tolerance / 2)
        self.spread = share if exclusive else share * (1 - share)
        self.start = data.mean.new_zeros(len(strengths), len(share), len(data.variances) + 1)
        self.start[..., -1] = share.log() if exclusive else share.logit()
        self.dtype = torch.float64

    def solve(self, max_iter: int, tolerance: float, *, mirrored: bool) -> list[Solution]:
        """Solve in float32 and then, from there, in float64; `mirrored` writes one logit as two."""
        coarse = max(0.9 * tolerance, COARSEST * max(1.0, self.data.reach))
        ends, iterations = self.start, torch.zeros(len(self.start), dtype=torch.long, device=self.start.device)
        for dtype, goal, noise in ((torch.float32, coarse, 1e-5), (torch.float64, tolerance, 1e-12)):
            self.dtype = dtype
            found = minimise(self.evaluate, self.precondition, ends, tolerance=goal, max_iter=max_iter, noise=noise)
            ends, iterations = found.points, iterations + found.iterations
        weight, bias = self._original(ends)
        if mirrored:
            weight, bias = torch.cat([-weight, weight], 1) / 2, torch.cat([-bias, bias], 1) / 2
        return [
            Solution(
                weight[index],
                bias[index],
                strength,
                float(found.objective[index]),
                float(found.size[index]),
                int(iterations[index]),
                bool(found.size[index] <= tolerance),
            )
            for index, strength in enumerate(self.strengths)
        ]

    def evaluate(self, points: Tensor, which: Tensor) -> Value:
        """Return the objective of the probes `which` (P,) at points (P, R, K + 1)."""
        data, ridge = self.data, self.ridge[which]
        weight, bias = self._original(points)
        log_sums, by_weight, by_bias = self._expected(weight, bias)
        objective = log_sums - (weight * data.sums).sum((1, 2)) - (bias * data.shares).sum(1)
        objective += ridge / 2 * weight.square().sum((1, 2))
        by_weight += ridge[:, None, None] * weight - data.sums
        by_bias -= data.shares
        along = (by_weight - by_bias[..., None] * data.mean) @ data.axes
        size = torch.maximum(by_weight.abs().amax((1, 2)), by_bias.abs().amax(1))
        return Value(objective, torch.cat([along, by_bias[..., None]], 2), size)

    def precondition(self, gradient: Tensor, which: Tensor) -> Tensor:
        """Apply the inverse of the Hessian at zero weights, exact but for how penalty and softmax mix.

        diag(1 / shares) between projections on sum zero inverts the softmax's diag(shares) - shares shares^T, and the
        weights of an optimum sum to zero over the classes.
        """
        curvature = self.spread[:, None] * torch.cat([self.data.variances, self.data.variances.new_ones(1)])
        penalty = self.ridge[which, None, None].repeat(1, 1, gradient.shape[2])
        penalty[..., -1] = 0
        if not self.exclusive:
            return gradient / (curvature + penalty)
        result = (gradient - gradient.mean(1, keepdim=True)) / (curvature + penalty)
        return result - result.mean(1, keepdim=True)

    def _original(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (P, R, F) and intercepts (P, R) for the features as they are."""
        weight = points[..., :-1] @ self.data.axes.T
        return weight, points[..., -1] - weight @ self.data.mean

    def _expected(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean log-partition (P,) of the outputs and its gradients (P, R, F) and (P, R)."""
        probes, outputs = bias.shape
        flat, offset = weight.reshape(-1, self.width).to(self.dtype), bias.reshape(-1, 1).to(self.dtype)
        total, by_weight, by_bias = self.ridge.new_zeros(probes), torch.zeros_like(weight), torch.zeros_like(bias)
        size = BLOCK.get(flat.device.type, BLOCK["cpu"]) // (flat.element_size() * len(flat))
        for block in self.data.features.split(max(64, size)):
            x = block.to(self.dtype)
            logits = torch.addmm(offset, flat, x.T).view(probes, outputs, -1)
            if self.exclusive:
                highest = logits.amax(1, keepdim=True)
                chances = logits.sub_(highest).exp_()
                sums = chances.sum(1, keepdim=True)
                chances /= sums
                total += sums.log_().add_(highest).sum((1, 2), dtype=torch.float64)
            else:
                total += functional.softplus(logits).sum((1, 2), dtype=torch.float64)
                chances = logits.sigmoid_()
            by_weight += (chances.view(len(flat), -1) @ x).view_as(weight)
            by_bias += chances.sum(2, dtype=torch.float64)
        return total / self.rows, by_weight / self.rows, by_bias / self.rows
