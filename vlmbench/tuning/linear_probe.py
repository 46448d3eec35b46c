"""Multinomial and multi-label logistic regression solved to convergence by full-batch L-BFGS.

The objective is scikit-learn's: C times the sum of the losses plus half the squared norm of the weights, intercepts
not penalised. It is divided by C and the number of rows here, which changes the scale and not the optimum. Two classes
are one logit, as there, and are written as two rows of opposite sign so that a softmax reads every probe alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Solution:
    """A solved probe.

    Attributes:
        weight: (C, F), in the standardised features' space.
        bias: (C,).
        strength: C, the inverse strength of the penalty.
        objective: Value at the solution: mean loss plus penalty divided by (C times rows).
        gradient: Largest absolute entry of the gradient there.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    objective: float
    gradient: float


def solve(
    features: Tensor,
    targets: Tensor,
    classes: int,
    strength: float,
    *,
    max_iter: int = 1000,
    tolerance: float = 1e-6,
    start: Solution | None = None,
) -> Solution:
    """Fit one probe.

    Args:
        features: Standardised features (N, F).
        targets: (N,) class indices, or (N, C) zeros and ones for multi-label.
        classes: Number of classes C.
        strength: Inverse strength of the L2 penalty, scikit-learn's C.
        max_iter: Most L-BFGS iterations.
        tolerance: Largest absolute gradient entry at which to stop.
        start: A solution at a nearby strength to start from.

    Returns:
        The solution, in float64.
    """
    x = features.double()
    binary = classes == 2 and targets.ndim == 1
    y = targets.double()[:, None] if binary else targets if targets.ndim == 1 else targets.double()
    rows = 1 if binary else classes
    ridge = 0.5 / (strength * len(x))
    scale, unscale = _preconditioner(x, ridge)
    weight = torch.zeros(rows, x.shape[1], dtype=torch.float64, device=x.device)
    bias = torch.zeros(rows, dtype=torch.float64, device=x.device)
    if start is not None:
        weight += (start.weight[1:] - start.weight[:1] if binary else start.weight) @ unscale
        bias += start.bias[1:] - start.bias[:1] if binary else start.bias
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    scaled = x @ scale

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = _mean_loss(functional.linear(scaled, weight, bias), y) + ridge * (weight @ scale).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    objective = closure()
    # A gradient by the scaled weights is one by the weights times the scale.
    gradients = (weight.grad @ unscale, bias.grad)  # type: ignore[operator]
    gradient = max(float(g.abs().max()) for g in gradients)  # type: ignore[union-attr]
    w, b = (weight @ scale).detach(), bias.detach()
    if binary:
        w, b = torch.cat([-w, w]) / 2, torch.cat([-b, b]) / 2
    return Solution(w, b, strength, float(objective.detach()), gradient)


def _preconditioner(x: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return a symmetric change of variables (F, F) that evens out the curvature, and its inverse.

    The Hessian of the loss is at most a quarter (binary) or half (multinomial; Boehning 1992, Ann Inst Stat Math
    44:197) of the features' second moments. In variables in which that bound plus the penalty is the identity,
    correlated features cost L-BFGS no more iterations than independent ones.
    """
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    curvature = values.clamp(min=0) / 4 + 2 * ridge
    return (vectors * curvature.rsqrt()) @ vectors.T, (vectors * curvature.sqrt()) @ vectors.T


def search(
    features: Tensor,
    targets: Tensor,
    classes: int,
    strengths: Sequence[float],
    validate: Callable[[Solution], float],
    *,
    max_iter: int = 1000,
    tolerance: float = 1e-6,
) -> tuple[Solution, dict[float, float]]:
    """Solve for every strength, from strong penalty to weak and each from the last, and keep the best on validation.

    Args:
        features: Standardised training features (N, F).
        targets: As in `solve`.
        classes: Number of classes.
        strengths: Candidates for C.
        validate: Score of a solution on the validation split; larger is better.
        max_iter: As in `solve`.
        tolerance: As in `solve`.

    Returns:
        The best solution, of equals the one with the strongest penalty, and the score of each strength.
    """
    best: Solution | None = None
    previous: Solution | None = None
    scores: dict[float, float] = {}
    for strength in sorted(strengths):
        previous = solve(features, targets, classes, strength, max_iter=max_iter, tolerance=tolerance, start=previous)
        scores[strength] = validate(previous)
        if best is None or scores[strength] > scores[best.strength]:
            best = previous
    if best is None:
        raise ValueError("finetune.strengths is empty; give at least one, for example [0.1, 1, 10].")
    return best, scores


def _mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.ndim == 1:
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
