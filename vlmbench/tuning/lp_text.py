"""A linear probe informed by text: class weights w_k + alpha_k t_k on the unit image embedding f.

LP++ (Huang et al., CVPR 2024, arXiv 2404.02285) minimises the mean cross-entropy of the logits f . (w_k + alpha_k t_k)
over prototypes w and class-wise multipliers alpha, t_k the class's text embedding, by block coordinate
majorise-minimise: full batches, ten steps on w and one on alpha in turn, each of the length 1 / L of its block.

* L of w: the Hessian is at most (1/N) sum_i (diag p_i - p_i p_i') x f_i f_i', and diag p - p p' at most a half
  (Boehning, 1992), so that L = lambda_max(F'F) / 2N. L of alpha is max_k sum_i (f_i . t_k)^2 / 2N likewise. No step
  of length 1 / L raises the objective. The authors' code takes steps of 4N / lambda_max for w, twice as long, with
  momentum, and N / 4 max_k for alpha, an eighth as long; there a step may raise it.
* Start: w_k = S times the mean embedding of class k, S the examples a class, and all alpha_k = 250 times the mean over
  classes of the mean f . t_k of the class's own examples (their equation 15, and their code). With more than the 16
  examples a class that the papers study, S stays 16: sums over thousands would start from saturated probabilities.
* Their code adds a bias that the paper's logits do not have; there is none here.

The medical form (Shakeri et al., MICCAI 2024, arXiv 2409.03868) has the same logits, objective and start. It differs in
how w moves: by gradient steps of length ln(S + 1) with momentum 0.9, as in its code at 9bc2af5.

Both keep the iterate that is best on validation; the start is a candidate too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CYCLE = 10  # steps on w for each on alpha
MOST_SHOTS = 16
START = 250.0
MOMENTUM = 0.9


class BlendedClassifier(nn.Module):
    """Logits f . (w_k + alpha_k t_k) of the normalised image embedding; they have a temperature of their own.

    Args:
        weight: Prototypes w (C, D).
        multipliers: alpha (C,).
        text: Unit class embeddings t (C, D), fixed.
    """

    text: Tensor

    def __init__(self, weight: Tensor, multipliers: Tensor, text: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.float())
        self.multipliers = nn.Parameter(multipliers.float())
        self.register_buffer("text", text.float())

    def forward(self, _: Any, embeddings: Tensor) -> Tensor:
        """Return logits (B, C) for image embeddings (B, D)."""
        unit = functional.normalize(embeddings.float(), dim=-1)
        return unit @ (self.weight + self.multipliers[:, None] * self.text).T


@dataclass(frozen=True)
class Blend:
    """An iterate.

    Attributes:
        weight: w (C, D).
        multipliers: alpha (C,).
        iteration: Steps on w that led to it.
        objective: Mean cross-entropy of the training examples.
        gradient: Largest absolute entry of the objective's gradient.
    """

    weight: Tensor
    multipliers: Tensor
    iteration: int
    objective: float
    gradient: float

    def logits(self, unit: Tensor, text: Tensor) -> Tensor:
        """Return logits (B, C) of unit embeddings (B, D) and class embeddings (C, D)."""
        return unit @ (self.weight + self.multipliers[:, None] * text).T


def iterates(
    features: Tensor, targets: Tensor, text: Tensor, *, iterations: int, form: str = "lppp"
) -> Iterator[Blend]:
    """Yield the start, and the iterate after each cycle of steps on w and one on alpha, in float64.

    Args:
        features: Training embeddings (N, D), normalised here.
        targets: (N,) class indices.
        text: Unit class embeddings (C, D).
        iterations: Steps on w in all.
        form: `lppp` or `medical`.
    """
    x, t = functional.normalize(features.double(), dim=-1), text.double()
    beside = x @ t.T
    weight, multipliers, shots = start(x, targets, t)
    step = 2 * len(x) / float(torch.linalg.eigvalsh(x.T @ x)[-1]) if form == "lppp" else math.log(shots + 1)
    momentum = 0.0 if form == "lppp" else MOMENTUM
    step_multipliers = 2 * len(x) / float(beside.square().sum(0).max())
    wanted = functional.one_hot(targets, len(t)).double()
    velocity = torch.zeros_like(weight)

    def residual() -> Tensor:
        """Return the gradient by the logits (N, C)."""
        return ((x @ weight.T + multipliers * beside).softmax(-1) - wanted) / len(x)

    for iteration in range(iterations + 1):
        if iteration % CYCLE == 0 or iteration == iterations:
            if iteration:
                multipliers = multipliers - step_multipliers * (residual() * beside).sum(0)
            left = residual()
            largest = max(float((left.T @ x).abs().max()), float((left * beside).sum(0).abs().max()))
            objective = float(functional.cross_entropy(x @ weight.T + multipliers * beside, targets))
            yield Blend(weight, multipliers, iteration, objective, largest)
        velocity = momentum * velocity + residual().T @ x
        weight = weight - step * velocity


def start(unit: Tensor, targets: Tensor, text: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return w (C, D) and alpha (C,) to start from, and the mean number of examples a class.

    A class without an example starts from w_k = 0.
    """
    counts = torch.bincount(targets, minlength=len(text)).to(unit)
    means = torch.zeros_like(text).index_add(0, targets, unit) / counts.clamp(min=1)[:, None]
    shots = len(unit) / len(text)
    agreement = (means * text).sum(1)[counts > 0].mean()
    return min(shots, MOST_SHOTS) * means, (START * agreement).expand(len(text)).clone(), shots


def choose(found: Iterator[Blend], validate: Callable[[Blend], float]) -> tuple[Blend, float]:
    """Return the iterate that is best on validation, of equals the first, and its score."""
    best, top = None, -math.inf
    for blend in found:
        score = validate(blend)
        if best is None or score > top:
            best, top = blend, score
    assert best is not None  # noqa: S101 - the start is always there
    return best, top
